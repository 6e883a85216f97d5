//! PUBLISH and its acknowledgements.

use super::brokers::Broker;
use super::client::{Client, field, packet, properties, publish, unique};
use super::statements;

fn closes(broker: &Broker, version: u8, bytes: &[u8]) {
    let mut client = Client::new(broker, version);
    client.send(bytes);
    client.closed();
}

fn qos_three(broker: &Broker, version: u8) {
    closes(
        broker,
        version,
        &publish(version, 0x36, &unique(), 1, &[], ""),
    );
}

fn wildcard_in_name(broker: &Broker, version: u8) {
    for name in ["a/+", "a/#", "#", "+/a"] {
        closes(broker, version, &publish(version, 0x30, name, 0, &[], ""));
    }
}

fn empty_name(broker: &Broker, version: u8) {
    closes(broker, version, &publish(version, 0x30, "", 0, &[], ""));
}

fn retained(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "old");
    client.publish(0x33, &topic, "new");
    client.subscribe(&topic, 0);
    let message = client.message();
    assert_eq!((message.head, message.payload.as_str()), (0x31, "new"));
    client.publish(0x31, &topic, "");
}

fn live_is_not_retained(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 0);
    client.publish(0x31, &topic, "x");
    assert_eq!(client.message().head, 0x30);
    client.publish(0x31, &topic, "");
}

fn empty_deletes(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "x");
    client.publish(0x33, &topic, "");
    client.subscribe(&topic, 0);
    client.nothing_more();
}

fn plain_keeps_retained(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "kept");
    client.publish(0x32, &topic, "");
    client.subscribe(&topic, 0);
    assert_eq!(client.message().payload, "kept");
    client.publish(0x31, &topic, "");
}

fn dup_is_not_passed_on(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 0);
    client.send(&publish(version, 0x3a, &topic, 3, &[], "x"));
    let heads = [client.receive().head, client.receive().head];
    assert!(heads.contains(&0x30) && heads.contains(&0x40), "{heads:x?}");
}

fn no_dup_with_qos_0(broker: &Broker, version: u8) {
    closes(
        broker,
        version,
        &publish(version, 0x38, &unique(), 0, &[], ""),
    );
}

fn null_in_name(broker: &Broker, version: u8) {
    closes(broker, version, &publish(version, 0x30, "a\0b", 0, &[], ""));
}

fn name_no_utf8(broker: &Broker, version: u8) {
    let props = properties(version, &[]);
    closes(broker, version, &packet(0x30, &[&field(b"a\xff"), &props]));
}

fn no_name(broker: &Broker, version: u8) {
    closes(broker, version, &packet(0x30, &[&[]]));
    closes(broker, version, &packet(0x30, &[b"\0\x05a"]));
}

fn longest_name(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = format!("{:x<65535}", unique());
    client.subscribe(&topic, 0);
    client.publish(0x30, &topic, "x");
    assert_eq!(client.message().topic, topic);
}

/// With the publisher's QoS, up to what the subscriber asked for.
fn retained_with_qos(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    for (head, arrives) in [(0x31, 0x31), (0x33, 0x33), (0x35, 0x35)] {
        client.publish(head, &topic, "x");
        // QoS 0 is not acknowledged: the subscription must not come before it.
        client.nothing_more();
        let mut other = Client::new(broker, version);
        other.subscribe(&topic, 2);
        assert_eq!(other.message().head, arrives);
    }
    client.publish(0x31, &topic, "");
}

/// QoS 0 takes the place of what was retained before.
fn retained_of_qos_0(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "old");
    client.publish(0x31, &topic, "new");
    client.subscribe(&topic, 0);
    assert_eq!(client.message().payload, "new");
    client.publish(0x31, &topic, "");
}

/// Who is subscribed gets the empty message, who comes later gets none.
fn empty_is_delivered(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 0);
    client.publish(0x31, &topic, "");
    let message = client.message();
    assert_eq!((message.head, &*message.payload), (0x30, ""));
    let mut other = Client::new(broker, version);
    other.subscribe(&topic, 0);
    other.nothing_more();
}

fn reserved_for_the_broker(broker: &Broker, version: u8) {
    let mut watcher = Client::new(broker, version);
    watcher.subscribe("$SYS/#", 0);
    let mut client = Client::new(broker, version);
    // A positive acknowledgement, a negative one of MQTT 5, or the end of the connection.
    client.send(&publish(
        version,
        0x32,
        "$SYS/broker/version",
        1,
        &[],
        "mine",
    ));
    if let Ok(head) = client.try_receive() {
        assert!([0x40, 0xE0].contains(&head), "{head:x}");
    }
    let topic = unique();
    watcher.subscribe(&topic, 0);
    watcher.publish(0x30, &topic, "barrier");
    loop {
        match &*watcher.message().payload {
            "barrier" => return,
            payload => assert_ne!(payload, "mine"),
        }
    }
}

statements! {
    qos_three: mqtt311_3_3_1_4_qos_three = 4, mqtt5_3_3_1_4_qos_three = 5;
    wildcard_in_name:
        mqtt311_3_3_2_2_wildcard = 4,
        mqtt5_3_3_2_2_wildcard = 5,
        mqtt311_4_7_1_1_wildcard = 4,
        mqtt5_4_7_0_1_wildcard = 5;
    empty_name: mqtt311_4_7_3_1_empty_name = 4, mqtt5_4_7_3_1_empty_name = 5;
    no_name: mqtt311_3_3_2_1_no_name = 4, mqtt5_3_3_2_1_no_name = 5;
    name_no_utf8: mqtt311_3_3_2_1_name_utf8 = 4, mqtt5_3_3_2_1_name_utf8 = 5;
    null_in_name: mqtt311_4_7_3_2_null = 4, mqtt5_4_7_3_2_null = 5;
    longest_name: mqtt311_4_7_3_3_longest_name = 4, mqtt5_4_7_3_3_longest_name = 5;
    no_dup_with_qos_0: mqtt311_3_3_1_2_dup_with_qos_0 = 4 but "takes DUP with QoS 0", mqtt5_3_3_1_2_dup_with_qos_0 = 5 but "takes DUP with QoS 0";
    retained:
        mqtt311_3_3_1_6_retained = 4,
        mqtt5_3_3_1_5_retained = 5,
        mqtt311_3_3_1_8_flag_for_new_subscription = 4;
    retained_with_qos: mqtt311_3_3_1_5_with_qos = 4, mqtt5_3_3_1_5_with_qos = 5;
    retained_of_qos_0: mqtt311_3_3_1_7_qos_0 = 4, mqtt5_3_3_1_5_qos_0 = 5;
    live_is_not_retained: mqtt311_3_3_1_9_live = 4, mqtt5_3_3_1_12_live = 5;
    empty_deletes: mqtt311_3_3_1_10_empty_deletes = 4, mqtt5_3_3_1_6_empty_deletes = 5;
    empty_is_delivered:
        mqtt311_3_3_1_10_delivered = 4,
        mqtt5_3_3_1_6_delivered = 5,
        mqtt311_3_3_1_11_not_stored = 4,
        mqtt5_3_3_1_7_not_stored = 5;
    plain_keeps_retained:
        mqtt311_3_3_1_12_plain_keeps_retained = 4,
        mqtt5_3_3_1_8_plain_keeps_retained = 5;
    dup_is_not_passed_on: mqtt311_3_3_1_3_dup = 4, mqtt5_3_3_1_3_dup = 5;
    reserved_for_the_broker: mqtt311_3_3_5_2_not_authorized = 4;
}
