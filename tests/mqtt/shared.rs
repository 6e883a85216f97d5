//! Shared Subscriptions.

use super::brokers::Broker;
use super::client::{Client, field, packet, properties, unique};
use super::statements;

/// Clients that share a subscription, its filter, and its topic.
fn members(broker: &Broker, version: u8, options: &[u8]) -> (Vec<Client>, String, String) {
    let topic = unique();
    let filter = format!("$share/{}/{topic}", unique());
    let members = options.iter().map(|&options| {
        let mut member = Client::new(broker, version);
        assert_eq!(member.subscribe(&filter, options), options & 3);
        member
    });
    (members.collect(), filter, topic)
}

fn to_one_each(broker: &Broker, version: u8) {
    let (mut members, _, topic) = members(broker, version, &[0, 0, 0]);
    let end = unique();
    for member in &mut members {
        member.subscribe(&end, 0);
    }
    let mut publisher = Client::new(broker, version);
    let payloads = ["1", "2", "3", "4", "5", "6"];
    for payload in payloads {
        publisher.publish(0x30, &topic, payload);
    }
    publisher.publish(0x30, &end, "end");
    let mut got = Vec::new();
    for member in &mut members {
        let messages = std::iter::from_fn(|| Some(member.message().payload));
        got.extend(messages.take_while(|payload| payload != "end"));
    }
    got.sort();
    assert_eq!(got, payloads);
}

fn refuses(broker: &Broker, version: u8, filter: &str, options: u8) {
    let mut client = Client::new(broker, version);
    let props = properties(version, &[]);
    client.send(&packet(
        0x82,
        &[&[0, 1], &props, &field(filter), &[options]],
    ));
    client.refused();
}

fn names(broker: &Broker, version: u8) {
    for filter in ["$share//a", "$share/a+/b", "$share/#/b"] {
        refuses(broker, version, filter, 0);
    }
}

fn no_filter(broker: &Broker, version: u8) {
    for filter in ["$share/g", "$share/g/", "$share/g/a#"] {
        refuses(broker, version, filter, 0);
    }
}

fn no_local(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.send(&packet(0x82, &[&[0, 1, 0], &field("$share/g/a"), &[4]]));
    client.closed();
}

fn granted_qos(broker: &Broker, version: u8) {
    for (options, head, arrives) in [(0, 0x32, 0x30), (1, 0x34, 0x32), (2, 0x30, 0x30)] {
        let (mut members, _, topic) = members(broker, version, &[options]);
        Client::new(broker, version).publish(head, &topic, "x");
        assert_eq!(members[0].message().head, arrives);
    }
}

/// Retained messages are not sent for it (section 4.8.2).
fn no_retained(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.publish(0x33, &topic, "x");
    client.subscribe(&format!("$share/g/{topic}"), 0);
    client.nothing_more();
    client.publish(0x31, &topic, "");
}

/// A member with a session that is kept was sent a QoS 2 message and is gone.
fn left_under_way(broker: &Broker, other: &mut Client) -> (String, u16) {
    let (id, topic) = (unique(), unique());
    let filter = format!("$share/g/{topic}");
    let (mut member, _) = Client::kept(broker, 5, &id);
    member.subscribe(&filter, 2);
    other.publish(0x34, &topic, "x");
    let sent = member.message();
    assert_eq!(sent.head, 0x34);
    other.subscribe(&filter, 2);
    drop(member);
    (id, sent.id)
}

fn qos_2_is_completed(broker: &Broker, version: u8) {
    let mut other = Client::new(broker, version);
    let (id, sent) = left_under_way(broker, &mut other);
    let (mut member, present) = Client::kept(broker, version, &id);
    assert!(present);
    let again = member.message();
    assert_eq!((again.head, again.id), (0x3c, sent));
    member.acknowledge(0x50, sent);
    member.expect(0x62, sent);
    member.acknowledge(0x70, sent);
    member.nothing_more();
    other.nothing_more();
}

fn qos_2_is_nobody_elses(broker: &Broker, version: u8) {
    let mut other = Client::new(broker, version);
    let (id, _) = left_under_way(broker, &mut other);
    // Its session ends.
    let _ended = Client::with(broker, version, 2, &[], &id);
    other.nothing_more();
}

fn refused_is_discarded(broker: &Broker, version: u8) {
    for (head, answer) in [(0x32, 0x40), (0x34, 0x50)] {
        let (mut members, filter, topic) = members(broker, version, &[2]);
        let mut publisher = Client::new(broker, version);
        publisher.publish(head, &topic, "x");
        let sent = members[0].message();
        let mut other = Client::new(broker, version);
        other.subscribe(&filter, 2);
        let [high, low] = sent.id.to_be_bytes();
        members[0].send(&[answer, 3, high, low, 0x80]);
        members[0].nothing_more();
        members.remove(0).leave();
        other.nothing_more();
    }
}

/// A group is one name and one filter; other groups get their own (section 4.8.2).
fn groups_apart(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    for share in ["g", "h"] {
        client.subscribe(&format!("$share/{share}/{topic}"), 0);
    }
    client.subscribe(&topic, 0);
    Client::new(broker, version).publish(0x30, &topic, "x");
    for _ in 0..3 {
        assert_eq!(client.message().payload, "x");
    }
    client.nothing_more();
}

fn unsubscribed(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    let filter = format!("$share/g/{topic}");
    client.subscribe(&filter, 1);
    client.unsubscribe(&filter);
    client.publish(0x32, &topic, "x");
    client.nothing_more();
}

statements! {
    to_one_each: mqtt5_4_8_2_3_to_one_each = 5, mqtt311_4_5_0_1_shared = 4;
    names: mqtt5_4_8_2_2_names = 5 but "takes any name";
    no_filter: mqtt5_4_8_2_1_no_filter = 5 but "takes it without a filter";
    no_local: mqtt5_3_8_3_4_no_local = 5 but "takes No Local";
    granted_qos: mqtt5_4_8_2_3_granted_qos = 5;
    no_retained: mqtt5_3_3_1_9_not_for_shared = 5 but "sends retained messages";
    qos_2_is_completed: mqtt5_4_8_2_4_completed = 5;
    qos_2_is_nobody_elses: mqtt5_4_8_2_5_nobody_elses = 5;
    refused_is_discarded: mqtt5_4_8_2_6_refused = 5;
    groups_apart: mqtt5_4_8_2_1_groups_apart = 5;
    unsubscribed: mqtt5_3_10_4_1_shared = 5;
}
