//! CONNECT, CONNACK, DISCONNECT, wills and session state.

use super::brokers::Broker;
use super::client::{Client, connect, field, packet, unique};
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

fn protocol_level(broker: &Broker, _: u8) {
    let mut client = Client::raw(broker, 4);
    client.send(&packet(0x10, &[b"\0\x04MQTT\x09\x02\0\x3c\0\x01a"]));
    client.closed();
}

fn will_qos_three(broker: &Broker, version: u8) {
    refuses(
        broker,
        version,
        &connect(version, 0x1e, &[], &unique(), &will(version, "w")),
    );
}

fn will_flags_without_will(broker: &Broker, version: u8) {
    refuses(
        broker,
        version,
        &connect(version, 0x0a, &[], &unique(), &[]),
    );
}

fn will_retain_without_will(broker: &Broker, version: u8) {
    refuses(
        broker,
        version,
        &connect(version, 0x22, &[], &unique(), &[]),
    );
}

fn will(version: u8, topic: &str) -> Vec<u8> {
    let props: &[u8] = if version == 5 { &[0] } else { &[] };
    [props, &field(topic), &field("gone")].concat()
}

fn with_will(broker: &Broker, version: u8, topic: &str) -> Client {
    let mut client = Client::raw(broker, version);
    client.send(&connect(version, 6, &[], &unique(), &will(version, topic)));
    assert_eq!(client.receive().body[1], 0);
    client
}

fn will_is_published(broker: &Broker, version: u8) {
    let mut watcher = Client::new(broker, version);
    let topic = unique();
    watcher.subscribe(&topic, 0);
    drop(with_will(broker, version, &topic));
    assert_eq!(watcher.message().payload, "gone");
}

fn will_is_dropped(broker: &Broker, version: u8) {
    let mut watcher = Client::new(broker, version);
    let topic = unique();
    watcher.subscribe(&topic, 0);
    let mut client = with_will(broker, version, &topic);
    client.send(&[0xE0, 0]);
    client.closed();
    watcher.publish(0x30, &topic, "barrier");
    assert_eq!(watcher.message().payload, "barrier");
}

fn will_by_disconnect(broker: &Broker, version: u8) {
    let mut watcher = Client::new(broker, version);
    let topic = unique();
    watcher.subscribe(&topic, 0);
    with_will(broker, version, &topic).send(&[0xE0, 1, 4]);
    assert_eq!(watcher.message().payload, "gone");
}

fn connack_is_first(broker: &Broker, version: u8) {
    let (_, ack) = Client::with(broker, version, 2, &[], &unique());
    assert_eq!(ack.body[0], 0, "no session present");
}

fn session(broker: &Broker, version: u8, flags: u8, id: &str) -> (Client, bool) {
    let props: &[u8] = if version == 5 {
        &[0x11, 0, 0, 1, 0]
    } else {
        &[]
    };
    let (client, ack) = Client::with(broker, version, flags, props, id);
    (client, ack.body[0] == 1)
}

fn session_present(broker: &Broker, version: u8) {
    let id = unique();
    let (mut client, present) = session(broker, version, 0, &id);
    assert!(!present);
    client.send(&[0xE0, 0]);
    client.closed();
    assert!(session(broker, version, 0, &id).1);
}

fn clean_start(broker: &Broker, version: u8) {
    let id = unique();
    let (mut client, _) = session(broker, version, 0, &id);
    client.send(&[0xE0, 0]);
    client.closed();
    assert!(!session(broker, version, 2, &id).1);
}

fn take_over(broker: &Broker, version: u8) {
    let id = unique();
    let (mut old, _) = session(broker, version, 2, &id);
    let (mut new, _) = session(broker, version, 2, &id);
    old.closed();
    new.nothing_more();
}

fn redelivery(broker: &Broker, version: u8) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = session(broker, version, 0, &id);
    client.subscribe(&topic, 1);
    Client::new(broker, version).publish(0x32, &topic, "x");
    let first = client.message();
    drop(client);
    let again = session(broker, version, 0, &id).0.message();
    assert_eq!((again.id, again.head), (first.id, 0x3a));
}

fn queued_for_the_absent(broker: &Broker, version: u8) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = session(broker, version, 0, &id);
    client.subscribe(&topic, 1);
    client.send(&[0xE0, 0]);
    client.closed();
    let mut publisher = Client::new(broker, version);
    for payload in ["1", "2", "3"] {
        publisher.publish(0x32, &topic, payload);
    }
    let (mut client, _) = session(broker, version, 0, &id);
    assert_eq!([(); 3].map(|()| client.message().payload), ["1", "2", "3"]);
}

fn empty_id(broker: &Broker, version: u8) {
    let (mut client, ack) = Client::with(broker, version, 2, &[], "");
    client.nothing_more();
    assert!(
        version < 5 || ack.body.contains(&0x12),
        "no Assigned Client Identifier"
    );
}

fn empty_id_kept_session(broker: &Broker, version: u8) {
    refuses(broker, version, &connect(version, 0, &[], "", &[]));
}

fn ping(broker: &Broker, version: u8) {
    Client::new(broker, version).nothing_more();
}

fn keep_alive(broker: &Broker, version: u8) {
    let mut bytes = connect(version, 2, &[], &unique(), &[]);
    bytes[11] = 1;
    let mut client = Client::raw(broker, version);
    client.send(&bytes);
    assert_eq!(client.receive().body[1], 0);
    client.closed();
}

fn duplicate_property(broker: &Broker, version: u8) {
    let props = [0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1];
    refuses(
        broker,
        version,
        &connect(version, 2, &props, &unique(), &[]),
    );
}

fn receive_maximum_zero(broker: &Broker, version: u8) {
    refuses(
        broker,
        version,
        &connect(version, 2, &[0x21, 0, 0], &unique(), &[]),
    );
}

fn receive_maximum(broker: &Broker, version: u8) {
    let (mut client, _) = Client::with(broker, version, 2, &[0x21, 0, 1], &unique());
    let topic = unique();
    client.subscribe(&topic, 1);
    let mut publisher = Client::new(broker, version);
    publisher.publish(0x32, &topic, "1");
    publisher.publish(0x32, &topic, "2");
    let first = client.message();
    client.nothing_more();
    let [high, low] = first.id.to_be_bytes();
    client.send(&[0x40, 2, high, low]);
    assert_eq!(client.message().payload, "2");
}

fn auth_unasked(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&[0xF0, 2, 0x18, 0]);
    client.closed();
}

statements! {
    first_packet: mqtt311_3_1_0_1_first_packet = 4, mqtt5_3_1_0_1_first_packet = 5;
    second_connect: mqtt311_3_1_0_2_second_connect = 4, mqtt5_3_1_0_2_second_connect = 5;
    protocol_name: mqtt311_3_1_2_1_protocol_name = 4, mqtt5_3_1_2_1_protocol_name = 5;
    protocol_level: mqtt311_3_1_2_2_protocol_level = 4, mqtt5_3_1_2_2_protocol_level = 5;
    will_qos_three: mqtt311_3_1_2_14_will_qos_three = 4, mqtt5_3_1_2_12_will_qos_three = 5;
    will_flags_without_will: mqtt311_3_1_2_13_will_qos_without_will = 4, mqtt5_3_1_2_11_will_qos_without_will = 5;
    will_retain_without_will: mqtt311_3_1_2_15_will_retain_without_will = 4, mqtt5_3_1_2_13_will_retain_without_will = 5;
    will_is_published: mqtt311_3_1_2_8_will = 4, mqtt5_3_1_2_8_will = 5;
    will_is_dropped: mqtt311_3_1_2_10_no_will_after_disconnect = 4, mqtt5_3_1_2_10_no_will_after_disconnect = 5;
    will_by_disconnect: mqtt5_3_14_4_3_will_by_disconnect_0x04 = 5;
    connack_is_first: mqtt311_3_2_0_1_connack_first = 4, mqtt5_3_2_0_1_connack_first = 5;
    session_present: mqtt311_3_2_2_2_session_present = 4, mqtt5_3_2_2_3_session_present = 5;
    clean_start: mqtt311_3_1_2_6_clean_session = 4, mqtt5_3_1_2_4_clean_start = 5;
    take_over: mqtt311_3_1_4_2_take_over = 4, mqtt5_3_1_4_3_take_over = 5;
    redelivery: mqtt311_4_4_0_1_redelivery = 4, mqtt5_4_4_0_1_redelivery = 5;
    queued_for_the_absent: mqtt311_3_1_2_5_queued = 4, mqtt5_3_1_2_5_queued = 5;
    empty_id: mqtt311_3_1_3_6_empty_id = 4, mqtt5_3_1_3_7_assigned_id = 5;
    empty_id_kept_session: mqtt311_3_1_3_8_empty_id_kept_session = 4;
    ping: mqtt311_3_12_4_1_ping = 4, mqtt5_3_12_4_1_ping = 5;
    keep_alive: mqtt311_3_1_2_24_keep_alive = 4, mqtt5_3_1_2_22_keep_alive = 5;
    duplicate_property: mqtt5_4_13_1_1_duplicate_property = 5;
    receive_maximum_zero: mqtt5_4_13_1_1_receive_maximum_zero = 5;
    receive_maximum: mqtt5_3_3_4_9_receive_maximum = 5;
    auth_unasked: mqtt5_4_12_0_7_auth_unasked = 5;
}
