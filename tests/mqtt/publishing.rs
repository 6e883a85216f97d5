//! PUBLISH and its acknowledgements.

use super::brokers::Broker;
use super::client::{Client, publish, unique};
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

fn puback(broker: &Broker, version: u8) {
    Client::new(broker, version).publish(0x32, &unique(), "x");
}

fn exactly_once(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 0);
    for head in [0x34, 0x3c] {
        client.send(&publish(version, head, &topic, 5, &[], "once"));
    }
    let mut records = 0;
    let mut messages = 0;
    client.send(&[0x62, 2, 0, 5]);
    loop {
        match client.receive().head {
            0x50 => records += 1,
            0x30 => messages += 1,
            0x70 => break,
            other => panic!("{other:x}"),
        }
    }
    client.publish(0x30, &topic, "barrier");
    while client.message().payload == "once" {
        messages += 1;
    }
    assert_eq!((records, messages), (2, 1));
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

/// What a property arrives as.
fn passed_on(broker: &Broker, version: u8, props: &[u8]) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 0);
    client.send(&publish(version, 0x30, &topic, 0, props, "x"));
    assert_eq!(client.message().props, props);
}

fn user_properties(broker: &Broker, version: u8) {
    passed_on(
        broker,
        version,
        b"\x26\0\x01b\0\x011\x26\0\x01a\0\x012\x26\0\x01b\0\x013",
    );
}

fn payload_format(broker: &Broker, version: u8) {
    passed_on(broker, version, &[1, 1]);
}

fn response_topic(broker: &Broker, version: u8) {
    passed_on(broker, version, b"\x08\0\x03r/t");
}

fn correlation_data(broker: &Broker, version: u8) {
    passed_on(broker, version, b"\x09\0\x02\0\xff");
}

fn content_type(broker: &Broker, version: u8) {
    passed_on(broker, version, b"\x03\0\x03a/b");
}

fn wildcard_response_topic(broker: &Broker, version: u8) {
    closes(
        broker,
        version,
        &publish(version, 0x30, &unique(), 0, b"\x08\0\x03r/#", ""),
    );
}

fn alias_zero(broker: &Broker, version: u8) {
    closes(
        broker,
        version,
        &publish(version, 0x30, &unique(), 0, &[0x23, 0, 0], ""),
    );
}

fn subscription_id_from_client(broker: &Broker, version: u8) {
    closes(
        broker,
        version,
        &publish(version, 0x30, &unique(), 0, &[0x0b, 1], ""),
    );
}

statements! {
    qos_three: mqtt311_3_3_1_4_qos_three = 4, mqtt5_3_3_1_4_qos_three = 5;
    wildcard_in_name: mqtt311_3_3_2_2_wildcard = 4, mqtt5_3_3_2_2_wildcard = 5;
    empty_name: mqtt311_4_7_3_1_empty_name = 4, mqtt5_4_7_3_1_empty_name = 5;
    puback: mqtt311_4_3_2_2_puback = 4, mqtt5_4_3_2_4_puback = 5;
    exactly_once: mqtt311_4_3_3_2_exactly_once = 4, mqtt5_4_3_3_10_exactly_once = 5;
    retained: mqtt311_3_3_1_6_retained = 4, mqtt5_3_3_1_5_retained = 5;
    live_is_not_retained: mqtt311_3_3_1_9_live = 4, mqtt5_3_3_1_12_live = 5;
    empty_deletes: mqtt311_3_3_1_10_empty_deletes = 4, mqtt5_3_3_1_6_empty_deletes = 5;
    plain_keeps_retained: mqtt311_3_3_1_12_plain_keeps_retained = 4, mqtt5_3_3_1_8_plain_keeps_retained = 5;
    dup_is_not_passed_on: mqtt311_3_3_1_3_dup = 4, mqtt5_3_3_1_3_dup = 5;
    user_properties: mqtt5_3_3_2_18_user_properties_in_order = 5;
    payload_format: mqtt5_3_3_2_4_payload_format = 5;
    response_topic: mqtt5_3_3_2_15_response_topic = 5;
    correlation_data: mqtt5_3_3_2_16_correlation_data = 5;
    content_type: mqtt5_3_3_2_20_content_type = 5;
    wildcard_response_topic: mqtt5_3_3_2_14_wildcard_response_topic = 5;
    alias_zero: mqtt5_3_3_2_8_alias_zero = 5;
    subscription_id_from_client: mqtt5_3_3_4_6_subscription_id = 5;
}
