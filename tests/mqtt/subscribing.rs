//! SUBSCRIBE, UNSUBSCRIBE and which topics match.

use super::brokers::Broker;
use super::client::{Client, field, packet, properties, publish, unique};
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

fn closes(broker: &Broker, version: u8, head: u8, filter: &[u8]) {
    let mut client = Client::new(broker, version);
    let props = properties(version, &[]);
    let options: &[u8] = if head == 0x82 { &[0] } else { &[] };
    client.send(&packet(head, &[&[0, 1], &props, &field(filter), options]));
    client.closed();
}

fn bad_hash(broker: &Broker, version: u8) {
    for filter in ["a/#/b", "a#", "#a"] {
        closes(broker, version, 0x82, filter.as_bytes());
        closes(broker, version, 0xA2, filter.as_bytes());
    }
}

fn bad_plus(broker: &Broker, version: u8) {
    for filter in ["a+", "+a", "a/b+/c"] {
        closes(broker, version, 0x82, filter.as_bytes());
        closes(broker, version, 0xA2, filter.as_bytes());
    }
}

fn empty_filter(broker: &Broker, version: u8) {
    closes(broker, version, 0x82, b"");
    closes(broker, version, 0xA2, b"");
}

fn filter_no_utf8(broker: &Broker, version: u8) {
    closes(broker, version, 0x82, b"a\xff");
}

fn unsubscribed_filter_no_utf8(broker: &Broker, version: u8) {
    closes(broker, version, 0xA2, b"a\xff");
}

fn qos_three(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let props = properties(version, &[]);
    client.send(&packet(0x82, &[&[0, 1], &props, &field("a"), &[3]]));
    client.closed();
}

fn wildcards_granted(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    for filter in ["#", "+", "+/#", "a/+/#", "/+"] {
        assert_eq!(client.subscribe(&format!("{}/{filter}", unique()), 2), 2);
    }
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

/// As if one had come after the other, and the last of a filter counts.
fn several_filters(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let (one, other) = (unique(), unique());
    let props = properties(version, &[]);
    let (a, b) = (field(&one), field(&other));
    client.send(&packet(
        0x82,
        &[&[0, 1], &props, &a, &[2], &b, &[1], &a, &[0]],
    ));
    client.expect(0x90, 1);
    let mut publisher = Client::new(broker, version);
    publisher.publish(0x34, &one, "x");
    assert_eq!(client.message().head, 0x30);
    publisher.publish(0x34, &other, "x");
    assert_eq!(client.message().head, 0x32);
    client.nothing_more();
}

/// One subscription, with what was asked for last.
fn replaced(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    for (qos, head) in [(0, 0x30), (2, 0x34), (1, 0x32)] {
        assert_eq!(client.subscribe(&topic, qos), qos);
        Client::new(broker, version).publish(0x34, &topic, "x");
        let message = client.message();
        assert_eq!(message.head, head);
        if qos == 2 {
            client.acknowledge(0x50, message.id);
            client.expect(0x62, message.id);
            client.acknowledge(0x70, message.id);
        }
        client.nothing_more();
    }
}

/// No message is lost while a subscription is replaced again and again.
fn replaced_without_loss(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 1);
    let mut packets = Vec::new();
    let props = properties(version, &[]);
    for number in 0..15_u8 {
        packets.extend(publish(version, 0x32, &topic, 10, &[], &number.to_string()));
        packets.extend(packet(0x82, &[&[0, 1], &props, &field(&topic), &[1]]));
    }
    client.send(&packets);
    let mut got = Vec::new();
    while got.len() < 15 {
        let received = client.receive();
        if received.head == 0x32 {
            got.push(client.read_message(received).payload);
        }
    }
    let expected: Vec<String> = (0..15).map(|number: u8| number.to_string()).collect();
    assert_eq!(got, expected);
}

fn highest_qos_of_overlapping(broker: &Broker, version: u8) {
    for qos in [[0, 2, 1], [1, 0, 0], [0, 0, 2]] {
        let mut client = Client::new(broker, version);
        let root = unique();
        for (filter, qos) in ["#", "+", "a"].iter().zip(qos) {
            client.subscribe(&format!("{root}/{filter}"), qos);
        }
        Client::new(broker, version).publish(0x34, &format!("{root}/a"), "x");
        let highest = qos.into_iter().max().unwrap();
        let mut heads = vec![client.message().head];
        // A broker may send a copy for each.
        client.send(&[0xC0, 0]);
        loop {
            match client.receive().head {
                0xD0 => break,
                head => heads.push(head),
            }
        }
        assert_eq!(heads.into_iter().max(), Some(0x30 | highest << 1));
    }
}

/// A name on the way out is one that the filter asked for.
fn name_matches(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let root = unique();
    client.subscribe(&format!("{root}/+/b"), 0);
    let mut publisher = Client::new(broker, version);
    for name in ["a/b", "a/c", "/b", "b", "a/b/c", "é/b"] {
        publisher.publish(0x30, &format!("{root}/{name}"), "x");
    }
    for name in ["a/b", "/b", "é/b"] {
        assert_eq!(client.message().topic, format!("{root}/{name}"));
    }
    client.nothing_more();
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

/// Character by character: what matches is not what is equal.
fn only_the_equal_filter(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let root = unique();
    let topic = format!("{root}/a");
    client.subscribe(&topic, 0);
    for filter in [
        format!("{root}/+"),
        format!("{root}/#"),
        format!("{root}/A"),
    ] {
        client.unsubscribe(&filter);
    }
    client.publish(0x30, &topic, "x");
    assert_eq!(client.message().payload, "x");
    client.unsubscribe(&topic);
    client.publish(0x30, &topic, "x");
    client.nothing_more();
}

fn unsubscribe_several(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topics = [unique(), unique()];
    for topic in &topics {
        client.subscribe(topic, 0);
    }
    let filters = [field(&topics[0]), field(unique()), field(&topics[1])].concat();
    client.send(&packet(
        0xA2,
        &[&[0x12, 0x34], &properties(version, &[]), &filters],
    ));
    let ack = client.expect(0xB0, 0x1234);
    let codes: &[u8] = if version == 5 { &[0, 0, 0x11, 0] } else { &[] };
    assert_eq!(&ack.body[2..], codes);
    for topic in &topics {
        client.publish(0x30, topic, "x");
    }
    client.nothing_more();
}

/// What was sent is completed, although its subscription is gone.
fn completed_after_unsubscribe(broker: &Broker, version: u8) {
    let id = unique();
    let (mut client, _) = Client::kept(broker, version, &id);
    let topic = unique();
    client.subscribe(&topic, 2);
    let mut publisher = Client::new(broker, version);
    publisher.publish(0x32, &topic, "1");
    publisher.publish(0x34, &topic, "2");
    let sent = [client.message().id, client.message().id];
    client.unsubscribe(&topic);
    drop(client);
    let (mut client, _) = Client::kept(broker, version, &id);
    assert_eq!([client.message().id, client.message().id], sent);
    client.acknowledge(0x50, sent[1]);
    client.expect(0x62, sent[1]);
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

/// It is new again after UNSUBSCRIBE.
fn handling_once_more(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "x");
    for _ in 0..2 {
        client.subscribe(&topic, 0x10);
        assert_eq!(client.message().payload, "x");
        client.unsubscribe(&topic);
    }
    client.publish(0x31, &topic, "");
}

fn plain_as_published(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 8);
    client.publish(0x30, &topic, "x");
    assert_eq!(client.message().head, 0x30);
}

/// A client's No Local is about its own messages, also in its next connection.
fn no_local_of_others(broker: &Broker, version: u8) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = Client::kept(broker, version, &id);
    client.subscribe(&topic, 5);
    client.leave();
    Client::new(broker, version).publish(0x32, &topic, "others");
    let (mut client, _) = Client::kept(broker, version, &id);
    client.send(&publish(version, 0x32, &topic, 1, &[], "own"));
    let other = client.message();
    assert_eq!(other.payload, "others");
    client.expect(0x40, 1);
    client.nothing_more();
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
    qos_three: mqtt311_3_8_3_4_qos_three = 4, mqtt5_4_13_1_1_subscribe_qos_three = 5;
    bad_hash: mqtt311_4_7_1_2_multi_level_wildcard = 4, mqtt5_4_7_1_1_multi_level_wildcard = 5;
    bad_plus: mqtt311_4_7_1_3_single_level_wildcard = 4, mqtt5_4_7_1_2_single_level_wildcard = 5;
    empty_filter: mqtt311_4_7_3_1_empty_filter = 4, mqtt5_4_7_3_1_empty_filter = 5;
    filter_no_utf8: mqtt311_3_8_3_1_filter_utf8 = 4, mqtt5_3_8_3_1_filter_utf8 = 5;
    unsubscribed_filter_no_utf8: mqtt311_3_10_3_1_filter_utf8 = 4, mqtt5_3_10_3_1_filter_utf8 = 5;
    wildcards_granted: mqtt311_3_8_3_2_wildcards = 4;
    suback_each:
        mqtt311_3_8_4_5_code_for_each = 4,
        mqtt5_3_8_4_6_code_for_each = 5,
        mqtt311_3_9_3_1_in_order = 4,
        mqtt5_3_9_3_1_in_order = 5,
        mqtt311_3_8_4_1_suback = 4,
        mqtt5_3_8_4_1_suback = 5,
        mqtt311_3_8_4_2_identifier = 4,
        mqtt5_3_8_4_2_identifier = 5,
        mqtt311_2_3_1_7_identifier = 4,
        mqtt5_2_2_1_6_identifier = 5,
        mqtt5_3_8_4_7_granted = 5,
        mqtt311_3_9_3_2_codes = 4,
        mqtt5_3_9_3_2_codes = 5;
    several_filters: mqtt311_3_8_4_4_several_filters = 4, mqtt5_3_8_4_5_several_filters = 5;
    replaced: mqtt311_3_8_4_3_replaced = 4, mqtt5_3_8_4_3_replaced = 5;
    replaced_without_loss: mqtt311_3_8_4_3_without_loss = 4, mqtt5_3_8_4_4_without_loss = 5;
    highest_qos_of_overlapping:
        mqtt311_3_3_5_1_highest_qos = 4 but "delivers once, with the QoS of the subscription it finds first",
        mqtt5_3_3_4_2_highest_qos = 5;
    name_matches: mqtt311_3_3_2_3_name_matches = 4, mqtt5_3_3_2_3_name_matches = 5;
    matches: mqtt311_4_7_3_4_matching = 4, mqtt5_4_7_3_4_matching = 5;
    dollar: mqtt311_4_7_2_1_dollar = 4, mqtt5_4_7_2_1_dollar = 5;
    unsubscribed: mqtt311_3_10_4_2_unsubscribed = 4, mqtt5_3_10_4_2_unsubscribed = 5;
    only_the_equal_filter: mqtt311_3_10_4_1_equal = 4, mqtt5_3_10_4_1_equal = 5;
    unsubscribe_several:
        mqtt311_3_10_4_6_several_filters = 4,
        mqtt5_3_10_4_6_several_filters = 5,
        mqtt311_3_10_4_4_identifier = 4,
        mqtt5_3_10_4_4_unsuback = 5,
        mqtt5_3_11_3_1_in_order = 5,
        mqtt5_3_11_3_2_codes = 5;
    completed_after_unsubscribe: mqtt311_3_10_4_3_completed = 4, mqtt5_3_10_4_3_completed = 5;
    unsubscribe_unknown: mqtt311_3_10_4_5_unknown = 4, mqtt5_3_10_4_5_unknown = 5;
    lower_qos: mqtt311_3_8_4_6_lower_qos = 4, mqtt5_3_8_4_8_lower_qos = 5;
    resubscribe_repeats_retained:
        mqtt311_3_8_4_3_retained_again = 4,
        mqtt5_3_8_4_4_retained_again = 5,
        mqtt5_3_3_1_9_retained = 5;
    no_local: mqtt5_3_8_3_3_no_local = 5;
    no_local_of_others: mqtt5_3_8_3_3_others = 5;
    as_published: mqtt5_3_3_1_13_as_published = 5;
    plain_as_published: mqtt5_3_3_1_13_plain = 5;
    handling_once: mqtt5_3_3_1_10_handling_once = 5;
    handling_once_more: mqtt5_3_3_1_10_once_more = 5;
    handling_never: mqtt5_3_3_1_11_handling_never = 5;
    handling_three: mqtt5_4_13_1_1_retain_handling_three = 5;
}
