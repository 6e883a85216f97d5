//! Properties of MQTT 5: what goes along with a message, aliases, expiry, sizes, Subscription Identifiers.

use std::time::Duration;

use super::brokers::Broker;
use super::client::{Client, field, packet, parse, publish, unique};
use super::statements;

/// What a property arrives as, live and retained.
fn passed_on(broker: &Broker, version: u8, props: &[u8]) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 0);
    client.send(&publish(version, 0x31, &topic, 0, props, "x"));
    // In any order, but what is repeated in its own.
    let sorted = |props: &[u8]| {
        let mut props = parse(props);
        props.sort_by_key(|(id, _)| *id);
        props
    };
    assert_eq!(sorted(&client.message().props), sorted(props));
    client.subscribe(&topic, 0);
    assert_eq!(sorted(&client.message().props), sorted(props));
    client.publish(0x31, &topic, "");
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

/// A request with all that belongs to it, and its response (section 4.10).
fn request_and_response(broker: &Broker, version: u8) {
    let (mut responder, mut requester) =
        (Client::new(broker, version), Client::new(broker, version));
    let (requests, responses) = (unique(), unique());
    responder.subscribe(&requests, 1);
    requester.subscribe(&responses, 1);
    let props = [&[8][..], &field(&responses), b"\x09\0\x03abc"].concat();
    requester.send(&publish(version, 0x32, &requests, 1, &props, "?"));
    requester.expect(0x40, 1);
    let request = responder.take();
    let mut back = (String::new(), Vec::new());
    for (id, value) in parse(&request.props) {
        match id {
            8 => back.0 = String::from_utf8(value[2..].to_vec()).unwrap(),
            9 => back.1 = [&[9][..], &value].concat(),
            other => panic!("{other}"),
        }
    }
    responder.send(&publish(version, 0x30, &back.0, 0, &back.1, "!"));
    let response = requester.message();
    assert_eq!(
        (&*response.payload, &response.props[..]),
        ("!", &b"\x09\0\x03abc"[..])
    );
}

fn closes(broker: &Broker, version: u8, props: &[u8]) {
    let mut client = Client::new(broker, version);
    client.send(&publish(version, 0x30, &unique(), 0, props, ""));
    client.closed();
}

fn wildcard_response_topic(broker: &Broker, version: u8) {
    closes(broker, version, b"\x08\0\x03r/#");
}

fn response_topic_no_utf8(broker: &Broker, version: u8) {
    closes(broker, version, b"\x08\0\x02r\xff");
}

fn content_type_no_utf8(broker: &Broker, version: u8) {
    closes(broker, version, b"\x03\0\x02r\xff");
}

fn user_property_no_utf8(broker: &Broker, version: u8) {
    closes(broker, version, b"\x26\0\x01\xff\0\x01v");
    closes(broker, version, b"\x26\0\x01k\0\x01\xff");
}

fn unfit_property(broker: &Broker, version: u8) {
    // Of CONNECT, of nothing, of AUTH.
    for props in [&[0x11, 0, 0, 0, 1][..], &[0x7f], &[0x15, 0, 1, 65]] {
        closes(broker, version, props);
    }
}

fn property_twice(broker: &Broker, version: u8) {
    closes(broker, version, &[1, 1, 1, 1]);
}

fn no_property_length(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&packet(0x30, &[&field(unique())]));
    client.closed();
}

fn subscription_id_from_client(broker: &Broker, version: u8) {
    closes(broker, version, &[0x0b, 1]);
}

fn alias_zero(broker: &Broker, version: u8) {
    closes(broker, version, &[0x23, 0, 0]);
}

/// A client, and how many aliases it may use.
fn with_aliases(broker: &Broker) -> (Client, u16) {
    let (client, ack) = Client::with(broker, 5, 2, &[], &unique());
    let maximum = ack.properties(2).into_iter().find(|(id, _)| *id == 0x22);
    let maximum = maximum.map_or(0, |(_, value)| u16::from_be_bytes([value[0], value[1]]));
    (client, maximum)
}

fn alias(alias: u16) -> Vec<u8> {
    [&[0x23][..], &alias.to_be_bytes()].concat()
}

fn every_alias(broker: &Broker, version: u8) {
    let (mut client, maximum) = with_aliases(broker);
    assert!(maximum > 0);
    let topics: Vec<String> = (0..maximum).map(|_| unique()).collect();
    let numbered = || (1..=maximum).zip(&topics);
    for (number, topic) in numbered() {
        client.subscribe(topic, 0);
        client.send(&publish(version, 0x30, topic, 0, &alias(number), "set"));
        assert_eq!(client.message().topic, *topic);
    }
    for (number, topic) in numbered() {
        client.send(&publish(version, 0x30, "", 0, &alias(number), "used"));
        assert_eq!(client.message().topic, *topic);
    }
    // And one may get another meaning.
    let last = topics.last().unwrap();
    client.send(&publish(version, 0x30, last, 0, &alias(1), "set"));
    client.send(&publish(version, 0x30, "", 0, &alias(1), "used"));
    assert_eq!([(); 2].map(|()| client.message().topic), [&**last; 2]);
}

fn alias_above_maximum(broker: &Broker, version: u8) {
    let (mut client, maximum) = with_aliases(broker);
    client.send(&publish(
        version,
        0x30,
        &unique(),
        0,
        &alias(maximum + 1),
        "",
    ));
    client.closed();
}

fn alias_of_nothing(broker: &Broker, version: u8) {
    let (mut client, _) = with_aliases(broker);
    client.send(&publish(version, 0x30, "", 0, &alias(1), ""));
    client.closed();
}

/// An alias is its connection's.
fn alias_of_another_connection(broker: &Broker, version: u8) {
    let id = unique();
    let (mut client, _) = Client::kept(broker, version, &id);
    client.send(&publish(version, 0x30, &unique(), 0, &alias(1), ""));
    client.leave();
    let (mut client, present) = Client::kept(broker, version, &id);
    assert!(present);
    client.send(&publish(version, 0x30, "", 0, &alias(1), ""));
    client.closed();
}

/// Nobody asked for aliases, and an alias of the publisher is its own.
fn no_alias_unasked(broker: &Broker, version: u8) {
    let topic = unique();
    for props in [&[][..], &[0x22, 0, 0]] {
        let (mut subscriber, _) = Client::with(broker, version, 2, props, &unique());
        subscriber.subscribe(&topic, 0);
        let (mut publisher, _) = with_aliases(broker);
        for name in [&*topic, "", ""] {
            publisher.send(&publish(version, 0x30, name, 0, &alias(1), "x"));
            let message = subscriber.message();
            assert_eq!((&*message.topic, &message.props[..]), (&*topic, &[][..]));
        }
    }
}

fn alias_within_maximum(broker: &Broker, version: u8) {
    let (mut subscriber, _) = Client::with(broker, version, 2, &[0x22, 0, 2], &unique());
    let root = unique();
    subscriber.subscribe(&format!("{root}/#"), 0);
    let mut publisher = Client::new(broker, version);
    for number in (0..5).chain(0..5) {
        publisher.publish(0x30, &format!("{root}/{number}"), "x");
        let message = subscriber.message();
        for (id, value) in parse(&message.props) {
            assert!(id != 0x23 || (1..=2).contains(&value[1]), "{message:?}");
        }
    }
}

fn expiry_of(props: &[u8]) -> Option<u32> {
    let expiry = parse(props).into_iter().find(|(id, _)| *id == 2)?;
    Some(u32::from_be_bytes(expiry.1.try_into().unwrap()))
}

/// A message that waits for an absent client, with this expiry.
fn waiting(broker: &Broker, version: u8, expiry: u8) -> (String, String) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = Client::kept(broker, version, &id);
    client.subscribe(&topic, 1);
    client.leave();
    let mut publisher = Client::new(broker, version);
    publisher.send(&publish(
        version,
        0x33,
        &topic,
        1,
        &[2, 0, 0, 0, expiry],
        "x",
    ));
    publisher.expect(0x40, 1);
    (id, topic)
}

pub(crate) fn expired(broker: &Broker, version: u8) {
    let (id, topic) = waiting(broker, version, 1);
    std::thread::sleep(Duration::from_millis(2100));
    let (mut client, present) = Client::kept(broker, version, &id);
    assert!(present);
    client.nothing_more();
    // Nor is it retained any more.
    client.subscribe(&topic, 1);
    client.nothing_more();
}

pub(crate) fn remaining_expiry(broker: &Broker, version: u8) {
    let (id, topic) = waiting(broker, version, 50);
    std::thread::sleep(Duration::from_millis(1500));
    let (mut client, _) = Client::kept(broker, version, &id);
    let left = |message: super::client::Message| expiry_of(&message.props).unwrap();
    assert!((40..50).contains(&left(client.take())));
    client.subscribe(&topic, 1);
    assert!((40..50).contains(&left(client.take())));
    client.publish(0x31, &topic, "");
}

/// A QoS 2 message that was sent does not expire.
fn no_expiry_once_sent(broker: &Broker, version: u8) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = Client::kept(broker, version, &id);
    client.subscribe(&topic, 2);
    let mut publisher = Client::new(broker, version);
    publisher.send(&publish(version, 0x34, &topic, 1, &[2, 0, 0, 0, 1], "x"));
    let sent = client.message();
    drop(client);
    std::thread::sleep(Duration::from_millis(2100));
    let (mut client, _) = Client::kept(broker, version, &id);
    let again = client.message();
    assert_eq!((again.head, again.id), (0x3c, sent.id));
}

/// A subscriber that takes small packets, and somebody who sends it two of three.
fn small(broker: &Broker, props: &[u8]) -> Client {
    let props = [&[0x27, 0, 0, 0, 100], props].concat();
    let (mut client, _) = Client::with(broker, 5, 2, &props, &unique());
    let topic = unique();
    client.subscribe(&topic, 1);
    let mut publisher = Client::new(broker, 5);
    for payload in ["1", &"x".repeat(100), "3"] {
        publisher.publish(0x32, &topic, payload);
    }
    client
}

fn maximum_packet_size(broker: &Broker, _: u8) {
    let mut client = small(broker, &[]);
    for payload in ["1", "3"] {
        assert_eq!(client.take().payload, payload);
    }
    client.nothing_more();
}

/// What is not sent takes no place in the window.
fn counts_as_delivered(broker: &Broker, _: u8) {
    let mut client = small(broker, &[0x21, 0, 1]);
    for payload in ["1", "3"] {
        assert_eq!(client.take().payload, payload);
    }
}

fn subscription_ids(message: &super::client::Message) -> Vec<Vec<u8>> {
    let ids = parse(&message.props).into_iter();
    let mut ids: Vec<_> = ids
        .filter(|(id, _)| *id == 0x0b)
        .map(|(_, id)| id)
        .collect();
    ids.sort();
    ids
}

fn subscription_id(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    // The largest, and then another in its place.
    for (id, props) in [
        (
            &[0xff, 0xff, 0xff, 0x7f][..],
            &[0x0b, 0xff, 0xff, 0xff, 0x7f][..],
        ),
        (&[7], &[0x0b, 7]),
    ] {
        client.subscribe_with(&topic, 0, props);
        client.publish(0x30, &topic, "x");
        assert_eq!(subscription_ids(&client.message()), [id]);
    }
    client.subscribe(&topic, 0);
    client.publish(0x30, &topic, "x");
    assert!(subscription_ids(&client.message()).is_empty());
}

/// Of every subscription that asks for the message, in one copy or in several.
fn all_subscription_ids(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let root = unique();
    client.subscribe_with(&format!("{root}/a"), 0, &[0x0b, 1]);
    client.subscribe_with(&format!("{root}/+"), 0, &[0x0b, 2]);
    client.subscribe(&format!("{root}/#"), 0);
    client.publish(0x30, &format!("{root}/a"), "x");
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let message = client.message();
        ids.extend(subscription_ids(&message));
    }
    ids.sort();
    assert_eq!(ids, [[1], [2]]);
}

fn retained_subscription_id(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "x");
    client.subscribe_with(&topic, 0, &[0x0b, 9]);
    assert_eq!(subscription_ids(&client.message()), [[9]]);
    client.publish(0x31, &topic, "");
}

fn subscription_id_zero(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&packet(0x82, &[&[0, 1, 2, 0x0b, 0], &field("a"), &[0]]));
    client.closed();
}

statements! {
    user_properties:
        mqtt5_3_3_2_17_user_properties = 5,
        mqtt5_3_3_2_18_user_properties_in_order = 5;
    payload_format: mqtt5_3_3_2_4_payload_format = 5;
    response_topic: mqtt5_3_3_2_15_response_topic = 5;
    correlation_data: mqtt5_3_3_2_16_correlation_data = 5;
    content_type: mqtt5_3_3_2_20_content_type = 5;
    request_and_response: mqtt5_3_3_2_15_request_and_response = 5;
    wildcard_response_topic:
        mqtt5_3_3_2_14_wildcard_response_topic = 5 but "does not look into the Response Topic";
    response_topic_no_utf8: mqtt5_3_3_2_13_response_topic_utf8 = 5;
    content_type_no_utf8: mqtt5_3_3_2_19_content_type_utf8 = 5;
    user_property_no_utf8: mqtt5_1_5_7_1_user_property_utf8 = 5;
    unfit_property: mqtt5_4_13_1_1_unfit_property = 5;
    property_twice: mqtt5_4_13_1_1_property_twice = 5;
    no_property_length: mqtt5_2_2_2_1_no_property_length = 5;
    subscription_id_from_client:
        mqtt5_3_3_4_6_subscription_id = 5 but "takes a Subscription Identifier from a client";
    alias_zero: mqtt5_3_3_2_8_alias_zero = 5;
    every_alias: mqtt5_3_3_2_12_every_alias = 5;
    alias_above_maximum: mqtt5_3_3_2_9_alias_above_maximum = 5;
    alias_of_nothing: mqtt5_4_13_1_1_alias_of_nothing = 5;
    alias_of_another_connection: mqtt5_3_3_2_7_of_another_connection = 5;
    no_alias_unasked: mqtt5_3_1_2_27_no_alias_unasked = 5;
    alias_within_maximum:
        mqtt5_3_1_2_26_alias_within_maximum = 5,
        mqtt5_3_3_2_11_alias_within_maximum = 5;
    expired: mqtt5_3_3_2_5_expired = 5;
    remaining_expiry: mqtt5_3_3_2_6_remaining_expiry = 5;
    no_expiry_once_sent: mqtt5_4_3_3_7_no_expiry_once_sent = 5 but "lets what it has sent expire";
    maximum_packet_size: mqtt5_3_1_2_24_maximum_packet_size = 5;
    counts_as_delivered:
        mqtt5_3_1_2_25_counts_as_delivered = 5 but "keeps the place of what it can't send";
    subscription_id: mqtt5_3_3_4_3_subscription_id = 5;
    all_subscription_ids:
        mqtt5_3_3_4_4_all_subscription_ids = 5,
        mqtt5_3_3_4_5_all_subscription_ids = 5;
    retained_subscription_id: mqtt5_3_3_4_3_retained = 5;
    subscription_id_zero: mqtt5_4_13_1_1_subscription_id_zero = 5;
}
