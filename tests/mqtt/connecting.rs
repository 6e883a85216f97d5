//! CONNECT, CONNACK, DISCONNECT, Keep Alive, and the packets before and after them.

use super::brokers::Broker;
use super::client::{Client, connect, field, packet, publish, unique};
use super::statements;

fn refuses(broker: &Broker, version: u8, bytes: &[u8]) {
    let mut client = Client::raw(broker, version);
    client.send(bytes);
    client.closed();
}

fn first_packet(broker: &Broker, version: u8) {
    refuses(broker, version, &[0xC0, 0]);
}

fn second_connect(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&connect(version, 2, &[], &unique(), &[]));
    client.closed();
}

fn protocol_name(broker: &Broker, version: u8) {
    refuses(
        broker,
        version,
        &packet(0x10, &[b"\0\x04MQTX", &[version, 2, 0, 60], b"\0\0\x01a"]),
    );
}

fn unknown_level() -> Vec<u8> {
    packet(0x10, &[b"\0\x04MQTT\x09\x02\0\x3c\0\x01a"])
}

fn protocol_level(broker: &Broker, _: u8) {
    refuses(broker, 4, &unknown_level());
}

/// Unacceptable protocol level, no session, and the end.
fn level_is_answered(broker: &Broker, _: u8) {
    let mut client = Client::raw(broker, 4);
    client.send(&unknown_level());
    let ack = client.receive();
    assert_eq!((ack.head, &ack.body[..2]), (0x20, &[0, 1][..]));
    client.closed();
}

fn reserved_connect_flag(broker: &Broker, version: u8) {
    refuses(broker, version, &connect(version, 3, &[], &unique(), &[]));
}

fn no_client_id(broker: &Broker, version: u8) {
    let props: &[u8] = if version == 5 { &[0] } else { &[] };
    let parts = [b"\0\x04MQTT", &[version, 2, 0, 60][..], props];
    refuses(broker, version, &packet(0x10, &parts));
}

fn client_id_of_23_letters(broker: &Broker, version: u8) {
    let id = format!("{:Z<23}", unique());
    Client::with(broker, version, 2, &[], &id).0.nothing_more();
}

fn client_id_no_utf8(broker: &Broker, version: u8) {
    let props: &[u8] = if version == 5 { &[0] } else { &[] };
    let id = field(b"a\xff");
    let parts = [b"\0\x04MQTT", &[version, 2, 0, 60][..], props, &id];
    refuses(broker, version, &packet(0x10, &parts));
}

fn empty_id(broker: &Broker, version: u8) {
    let (mut client, ack) = Client::with(broker, version, 2, &[], "");
    client.nothing_more();
    if version == 5 {
        let assigned = ack.properties(2).into_iter().any(|(id, _)| id == 0x12);
        assert!(assigned, "no Assigned Client Identifier");
    }
}

fn assigned_ids_differ(broker: &Broker, version: u8) {
    let mut ids = [(); 2].map(|()| {
        let (client, ack) = Client::with(broker, version, 2, &[], "");
        let assigned = ack.properties(2).into_iter().find(|(id, _)| *id == 0x12);
        (assigned.unwrap().1, client)
    });
    assert_ne!(ids[0].0, ids[1].0);
    // Each is a client by itself.
    ids.iter_mut().for_each(|(_, client)| client.nothing_more());
}

fn empty_id_kept_session(broker: &Broker, version: u8) {
    let mut client = Client::raw(broker, version);
    client.send(&connect(version, 0, &[], "", &[]));
    let ack = client.receive();
    assert_eq!((ack.head, &ack.body[..2]), (0x20, &[0, 2][..]));
    client.closed();
}

/// What stands behind the client id although no flag says so.
fn unannounced_user_name(broker: &Broker, version: u8) {
    let bytes = connect(version, 2, &[], &unique(), &field("user"));
    refuses(broker, version, &bytes);
}

fn missing_user_name(broker: &Broker, version: u8) {
    refuses(
        broker,
        version,
        &connect(version, 0x82, &[], &unique(), &[]),
    );
}

fn missing_password(broker: &Broker, version: u8) {
    let bytes = connect(version, 0xC2, &[], &unique(), &field("user"));
    refuses(broker, version, &bytes);
}

fn password_without_user_name(broker: &Broker, version: u8) {
    let bytes = connect(version, 0x42, &[], &unique(), &field("password"));
    refuses(broker, version, &bytes);
}

fn user_name_no_utf8(broker: &Broker, version: u8) {
    let bytes = connect(version, 0x82, &[], &unique(), &field(b"\xc0\xaf"));
    refuses(broker, version, &bytes);
}

fn connack_is_first(broker: &Broker, version: u8) {
    let (_, ack) = Client::with(broker, version, 2, &[], &unique());
    assert_eq!(ack.body[0], 0, "no session present");
}

fn one_connack(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&connect(version, 2, &[], &unique(), &[]));
    client.ends_without(0x20);
}

/// A refused client's further packets do nothing.
fn nothing_after_a_refusal(broker: &Broker, version: u8) {
    let mut watcher = Client::new(broker, version);
    let topic = unique();
    watcher.subscribe(&topic, 0);
    let refused = if version == 5 {
        connect(5, 3, &[], &unique(), &[])
    } else {
        connect(4, 0, &[], "", &[])
    };
    let mut client = Client::raw(broker, version);
    client.send(&[refused, publish(version, 0x30, &topic, 0, &[], "x")].concat());
    client.closed();
    watcher.publish(0x30, &topic, "barrier");
    assert_eq!(watcher.message().payload, "barrier");
}

/// What comes with the CONNECT is served after the CONNACK.
fn early_packets(broker: &Broker, version: u8) {
    let mut client = Client::raw(broker, version);
    let both = [connect(version, 2, &[], &unique(), &[]), vec![0xC0, 0]].concat();
    client.send(&both);
    assert_eq!((client.receive().head, client.receive().head), (0x20, 0xD0));
}

fn no_disconnect_before_connack(broker: &Broker, version: u8) {
    let mut client = Client::raw(broker, version);
    client.send(&connect(version, 3, &[], &unique(), &[]));
    client.ends_without(0xE0);
}

fn take_over(broker: &Broker, version: u8) {
    let id = unique();
    let (mut old, _) = Client::kept(broker, version, &id);
    let (mut new, _) = Client::kept(broker, version, &id);
    old.closed();
    new.nothing_more();
}

fn told_of_take_over(broker: &Broker, version: u8) {
    let id = unique();
    let (mut old, _) = Client::kept(broker, version, &id);
    let _new = Client::kept(broker, version, &id);
    let goodbye = old.receive();
    assert_eq!((goodbye.head, goodbye.body[0]), (0xE0, 0x8E));
    // No Session Expiry Interval.
    let properties = goodbye.properties(1);
    assert!(properties.iter().all(|(id, _)| *id != 0x11));
    old.closed();
}

fn ping(broker: &Broker, version: u8) {
    Client::new(broker, version).nothing_more();
}

fn with_keep_alive(broker: &Broker, version: u8, id: &str) -> Client {
    let mut bytes = connect(version, 2, &[], id, &[]);
    bytes[11] = 1;
    let mut client = Client::raw(broker, version);
    client.send(&bytes);
    assert_eq!(client.receive().body[1], 0);
    client
}

pub(crate) fn keep_alive(broker: &Broker, version: u8) {
    with_keep_alive(broker, version, &unique()).closed();
}

/// What the broker sends is no sign of the client's life.
pub(crate) fn keep_alive_is_the_clients(broker: &Broker, version: u8) {
    let topic = unique();
    let mut silent = with_keep_alive(broker, version, &unique());
    silent.subscribe(&topic, 0);
    let mut publisher = Client::new(broker, version);
    let mut received = 0;
    while received < 200 {
        publisher.publish(0x30, &topic, "x");
        std::thread::sleep(std::time::Duration::from_millis(50));
        match silent.try_receive() {
            Ok(0x30) => received += 1,
            Ok(head) => assert_eq!(head, 0xE0),
            Err(_) => return,
        }
    }
    panic!("a silent client is served for ten seconds");
}

fn no_authentication_method(broker: &Broker, version: u8) {
    let (_, ack) = Client::with(broker, version, 2, &[], &unique());
    assert!(ack.properties(2).iter().all(|(id, _)| *id != 0x15));
}

fn unknown_authentication_method(broker: &Broker, version: u8) {
    let props = [&[0x15][..], &field("no such method")].concat();
    let mut client = Client::raw(broker, version);
    client.send(&connect(version, 2, &props, &unique(), &[]));
    let ack = client.receive();
    assert_eq!(ack.head, 0x20);
    assert!([0x8C, 0x87].contains(&ack.body[1]), "{ack:x?}");
    client.closed();
}

fn auth_unasked(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&[0xF0, 2, 0x18, 0]);
    client.closed();
}

fn auth_flags(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&[0xF1, 2, 0x18, 0]);
    client.closed();
}

fn no_response_information(broker: &Broker, version: u8) {
    let (_, ack) = Client::with(broker, version, 2, &[0x19, 0], &unique());
    assert!(ack.properties(2).iter().all(|(id, _)| *id != 0x1a));
}

/// Neither Reason String nor User Property, whatever is said.
fn no_problem_information(broker: &Broker, version: u8) {
    let (mut client, _) = Client::with(broker, version, 2, &[0x17, 0], &unique());
    client.send(&publish(version, 0x32, &unique(), 1, &[], "x"));
    assert!(client.expect(0x40, 1).properties(3).is_empty());
    client.send(&packet(0x82, &[&[0, 2, 0], &field("a"), &[0]]));
    assert!(client.expect(0x90, 2).properties(2).is_empty());
    assert!(client.unsubscribe("never").properties(2).is_empty());
    client.acknowledge(0x62, 77);
    assert!(client.expect(0x70, 77).properties(3).is_empty());
}

fn reserved_acknowledge_flags(broker: &Broker, version: u8) {
    let id = unique();
    for _ in 0..2 {
        let (client, ack) = {
            let props: &[u8] = &[0x11, 0, 0, 0, 100];
            Client::with(broker, version, 0, props, &id)
        };
        assert_eq!(ack.body[0] & 0xFE, 0);
        client.leave();
    }
}

fn duplicate_property(broker: &Broker, version: u8) {
    let props = [0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1];
    refuses(
        broker,
        version,
        &connect(version, 2, &props, &unique(), &[]),
    );
}

fn unknown_property(broker: &Broker, version: u8) {
    for props in [&[0x7F, 0][..], &[0x23, 0, 1]] {
        refuses(broker, version, &connect(version, 2, props, &unique(), &[]));
    }
}

fn zero_where_one_is_least(broker: &Broker, version: u8) {
    for props in [
        &[0x21, 0, 0][..],
        &[0x27, 0, 0, 0, 0],
        &[0x17, 2],
        &[0x19, 2],
    ] {
        refuses(broker, version, &connect(version, 2, props, &unique(), &[]));
    }
}

fn receive_maximum_zero(broker: &Broker, version: u8) {
    refuses(
        broker,
        version,
        &connect(version, 2, &[0x21, 0, 0], &unique(), &[]),
    );
}

/// A session that ends with its connection can't be kept after all (section 3.14.2.2.2).
fn expiry_only_at_disconnect(broker: &Broker, version: u8) {
    let id = unique();
    let (mut client, _) = Client::with(broker, version, 2, &[], &id);
    client.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 100]);
    client.closed();
    assert!(!Client::kept(broker, version, &id).1);
}

fn packet_behind_disconnect(broker: &Broker, version: u8) {
    let mut watcher = Client::new(broker, version);
    let topic = unique();
    watcher.subscribe(&topic, 0);
    let mut client = Client::new(broker, version);
    let goodbye = vec![0xE0, 0];
    client.send(&[goodbye, publish(version, 0x30, &topic, 0, &[], "late")].concat());
    client.closed();
    watcher.publish(0x30, &topic, "barrier");
    assert_eq!(watcher.message().payload, "barrier");
}

statements! {
    first_packet: mqtt311_3_1_0_1_first_packet = 4, mqtt5_3_1_0_1_first_packet = 5;
    second_connect: mqtt311_3_1_0_2_second_connect = 4, mqtt5_3_1_0_2_second_connect = 5;
    protocol_name: mqtt311_3_1_2_1_protocol_name = 4, mqtt5_3_1_2_1_protocol_name = 5;
    protocol_level: mqtt5_3_1_2_2_protocol_level = 5;
    level_is_answered:
        mqtt311_3_1_2_2_protocol_level = 4,
        mqtt311_3_2_2_4_session_present = 4,
        mqtt311_3_2_2_5_closed_after_refusal = 4;
    reserved_connect_flag:
        mqtt311_3_1_2_3_reserved_flag = 4,
        mqtt5_3_1_2_3_reserved_flag = 5,
        mqtt5_3_1_4_1_malformed_connect = 5;
    no_client_id: mqtt311_3_1_3_3_client_id = 4, mqtt5_3_1_3_3_client_id = 5;
    client_id_of_23_letters: mqtt311_3_1_3_5_client_id = 4, mqtt5_3_1_3_5_client_id = 5;
    client_id_no_utf8: mqtt311_3_1_3_4_client_id_utf8 = 4, mqtt5_3_1_3_4_client_id_utf8 = 5;
    empty_id:
        mqtt311_3_1_3_6_empty_id = 4,
        mqtt5_3_1_3_6_empty_id = 5,
        mqtt5_3_1_3_7_assigned_id = 5;
    assigned_ids_differ: mqtt5_3_2_2_16_assigned_ids_differ = 5;
    empty_id_kept_session: mqtt311_3_1_3_8_empty_id_kept_session = 4;
    unannounced_user_name: mqtt311_3_1_2_18_user_name = 4, mqtt5_3_1_2_16_user_name = 5;
    missing_user_name: mqtt311_3_1_2_19_user_name = 4, mqtt5_3_1_2_17_user_name = 5;
    missing_password: mqtt311_3_1_2_21_password = 4, mqtt5_3_1_2_19_password = 5;
    password_without_user_name: mqtt311_3_1_2_22_password_without_user_name = 4;
    user_name_no_utf8: mqtt311_3_1_3_11_user_name_utf8 = 4, mqtt5_3_1_3_12_user_name_utf8 = 5;
    connack_is_first:
        mqtt311_3_2_0_1_connack_first = 4,
        mqtt5_3_2_0_1_connack_first = 5,
        mqtt311_3_1_4_4_acknowledged = 4,
        mqtt5_3_1_4_5_acknowledged = 5;
    one_connack: mqtt5_3_2_0_2_one_connack = 5;
    nothing_after_a_refusal:
        mqtt311_3_1_4_5_nothing_after_a_refusal = 4,
        mqtt5_3_1_4_6_nothing_after_a_refusal = 5;
    early_packets: mqtt5_3_2_0_1_early_packets = 5;
    no_disconnect_before_connack: mqtt5_3_14_0_1_no_disconnect_before_connack = 5;
    take_over: mqtt311_3_1_4_2_take_over = 4, mqtt5_3_1_4_3_take_over = 5;
    told_of_take_over:
        mqtt5_3_1_4_3_told = 5 but "closes without DISCONNECT",
        mqtt5_3_14_2_2_no_expiry_in_disconnect = 5 but "closes without DISCONNECT";
    ping: mqtt311_3_12_4_1_ping = 4, mqtt5_3_12_4_1_ping = 5;
    keep_alive:
        mqtt311_3_1_2_24_keep_alive = 4,
        mqtt5_3_1_2_22_keep_alive = 5,
        mqtt5_3_2_2_22_keep_alive = 5;
    keep_alive_is_the_clients:
        mqtt311_3_1_2_24_own_packets_count = 4,
        mqtt5_3_1_2_22_own_packets_count = 5;
    no_authentication_method: mqtt5_4_12_0_6_no_method = 5;
    unknown_authentication_method: mqtt5_4_12_0_1_unknown_method = 5;
    auth_unasked: mqtt5_4_12_0_7_auth_unasked = 5;
    auth_flags: mqtt5_3_15_1_1_flags = 5;
    no_response_information: mqtt5_3_1_2_28_no_response_information = 5;
    no_problem_information: mqtt5_3_1_2_29_no_problem_information = 5;
    reserved_acknowledge_flags: mqtt5_3_2_2_1_reserved_flags = 5;
    duplicate_property: mqtt5_4_13_1_1_duplicate_property = 5;
    unknown_property: mqtt5_4_13_1_1_unknown_property = 5;
    zero_where_one_is_least: mqtt5_4_13_1_1_values_out_of_range = 5;
    receive_maximum_zero: mqtt5_4_13_1_1_receive_maximum_zero = 5;
    expiry_only_at_disconnect: mqtt5_4_13_1_1_expiry_only_at_disconnect = 5;
    packet_behind_disconnect:
        mqtt311_3_14_4_2_nothing_after_disconnect = 4,
        mqtt5_3_14_4_1_nothing_after_disconnect = 5;
}
