//! SUBSCRIBE, UNSUBSCRIBE and which topics match.

use super::brokers::Broker;
use super::client::{Client, field, packet, properties, unique};
use super::statements;

fn empty_subscribe(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&packet(0x82, &[&[0, 1], &properties(version, &[])]));
    client.closed();
}

fn empty_unsubscribe(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&packet(0xA2, &[&[0, 1], &properties(version, &[])]));
    client.closed();
}

fn reserved_options(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let props = properties(version, &[]);
    client.send(&packet(0x82, &[&[0, 1], &props, &field("a"), &[0xC0]]));
    client.closed();
}

fn bad_filters(broker: &Broker, version: u8, filters: &[&str]) {
    for filter in filters {
        let mut client = Client::new(broker, version);
        let props = properties(version, &[]);
        client.send(&packet(0x82, &[&[0, 1], &props, &field(filter), &[0]]));
        client.refused();
    }
}

fn bad_hash(broker: &Broker, version: u8) {
    bad_filters(broker, version, &["a/#/b", "a#", "#a"]);
}

fn bad_plus(broker: &Broker, version: u8) {
    bad_filters(broker, version, &["a+", "+a", "a/b+/c"]);
}

fn suback_each(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let props = properties(version, &[]);
    let (a, b) = (field(unique()), field(unique()));
    client.send(&packet(
        0x82,
        &[&[1, 2], &props, &a, &[0], &b, &[1], &a, &[2]],
    ));
    let ack = client.receive();
    assert_eq!(
        (ack.head, ack.body),
        (0x90, [&[1, 2][..], &props, &[0, 1, 2]].concat())
    );
}

fn matches(broker: &Broker, version: u8) {
    let table = [
        ("s/t/#", "s/t", true),
        ("s/t/#", "s/t/a/b", true),
        ("s/+", "s", false),
        ("s/+", "s/", true),
        ("s/+", "s/a/b", false),
        ("+/s", "/s", true),
        ("s/+/b", "s/a/b", true),
        ("S", "s", false),
        ("s", "/s", false),
        ("s/ a", "s/ a", true),
    ];
    for (filter, topic, matching) in table {
        let mut client = Client::new(broker, version);
        let root = unique();
        client.subscribe(&format!("{root}/{filter}"), 0);
        client.subscribe(&root, 0);
        client.publish(0x30, &format!("{root}/{topic}"), "x");
        client.publish(0x30, &root, "barrier");
        let first = client.message().payload;
        assert_eq!(first == "x", matching, "{filter} {topic}");
    }
}

fn dollar(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let root = unique();
    client.subscribe(&format!("+/{root}"), 0);
    let mut stranger = Client::new(broker, version);
    stranger.publish(0x30, &format!("$x/{root}"), "x");
    stranger.leave();
    client.publish(0x30, &format!("y/{root}"), "barrier");
    assert_eq!(client.message().payload, "barrier");
}

fn unsubscribed(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let (topic, other) = (unique(), unique());
    client.subscribe(&topic, 0);
    client.subscribe(&other, 0);
    client.send(&packet(
        0xA2,
        &[&[0, 3], &properties(version, &[]), &field(&topic)],
    ));
    let ack = client.receive();
    assert_eq!((ack.head, &ack.body[..2]), (0xB0, &[0, 3][..]));
    client.publish(0x30, &topic, "x");
    client.publish(0x30, &other, "barrier");
    assert_eq!(client.message().payload, "barrier");
}

fn unsubscribe_unknown(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&packet(
        0xA2,
        &[&[0, 4], &properties(version, &[]), &field(unique())],
    ));
    let expected: &[u8] = if version == 5 {
        &[0, 4, 0, 0x11]
    } else {
        &[0, 4]
    };
    assert_eq!(client.receive().body, expected);
}

fn lower_qos(broker: &Broker, version: u8) {
    for (granted, head, arrives) in [(0, 0x32, 0x30), (1, 0x30, 0x30), (2, 0x32, 0x32)] {
        let mut client = Client::new(broker, version);
        let topic = unique();
        assert_eq!(client.subscribe(&topic, granted), granted);
        Client::new(broker, version).publish(head, &topic, "x");
        assert_eq!(client.message().head, arrives);
    }
}

fn resubscribe_repeats_retained(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "x");
    for _ in 0..2 {
        client.subscribe(&topic, 0);
        assert_eq!(client.message().head, 0x31);
    }
    client.publish(0x31, &topic, "");
}

fn no_local(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 4);
    client.publish(0x32, &topic, "own");
    Client::new(broker, version).publish(0x32, &topic, "barrier");
    assert_eq!(client.message().payload, "barrier");
}

fn as_published(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 8);
    client.publish(0x31, &topic, "x");
    assert_eq!(client.message().head, 0x31);
    client.publish(0x31, &topic, "");
}

fn handling_once(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "x");
    client.subscribe(&topic, 0x10);
    assert_eq!(client.message().payload, "x");
    client.subscribe(&topic, 0x10);
    client.nothing_more();
    client.publish(0x31, &topic, "");
}

fn handling_never(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "x");
    client.subscribe(&topic, 0x20);
    client.nothing_more();
    client.publish(0x31, &topic, "");
}

fn handling_three(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&packet(0x82, &[&[0, 1, 0], &field("a"), &[0x30]]));
    client.closed();
}

statements! {
    empty_subscribe: mqtt311_3_8_3_3_no_filter = 4, mqtt5_3_8_3_2_no_filter = 5;
    empty_unsubscribe: mqtt311_3_10_3_2_no_filter = 4, mqtt5_3_10_3_2_no_filter = 5;
    reserved_options: mqtt311_3_8_3_4_reserved_options = 4, mqtt5_3_8_3_5_reserved_options = 5;
    bad_hash: mqtt311_4_7_1_2_multi_level_wildcard = 4, mqtt5_4_7_1_1_multi_level_wildcard = 5;
    bad_plus: mqtt311_4_7_1_3_single_level_wildcard = 4, mqtt5_4_7_1_2_single_level_wildcard = 5;
    suback_each: mqtt311_3_8_4_5_code_for_each = 4, mqtt5_3_8_4_6_code_for_each = 5;
    matches: mqtt311_4_7_3_4_matching = 4, mqtt5_4_7_3_4_matching = 5;
    dollar: mqtt311_4_7_2_1_dollar = 4, mqtt5_4_7_2_1_dollar = 5;
    unsubscribed: mqtt311_3_10_4_2_unsubscribed = 4, mqtt5_3_10_4_2_unsubscribed = 5;
    unsubscribe_unknown: mqtt311_3_10_4_5_unknown = 4, mqtt5_3_11_3_1_unknown = 5;
    lower_qos: mqtt311_3_8_4_6_lower_qos = 4, mqtt5_3_8_4_8_lower_qos = 5;
    resubscribe_repeats_retained: mqtt311_3_8_4_3_retained_again = 4, mqtt5_3_3_1_9_retained_again = 5;
    no_local: mqtt5_3_8_3_3_no_local = 5;
    as_published: mqtt5_3_3_1_13_as_published = 5;
    handling_once: mqtt5_3_3_1_10_handling_once = 5;
    handling_never: mqtt5_3_3_1_11_handling_never = 5;
    handling_three: mqtt5_4_13_1_1_retain_handling_three = 5;
}
