//! The flows of QoS 0, 1 and 2 in both directions, their order, and Receive Maximum.

use super::brokers::Broker;
use super::client::{Client, publish, unique};
use super::statements;

fn puback(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    for id in [1, 0x1234, 0xFFFF] {
        client.send(&publish(version, 0x32, &unique(), id, &[], "x"));
        let ack = client.expect(0x40, id);
        // Success, or that nobody asked for it.
        assert!(
            ack.body.len() == 2 || [0, 0x10].contains(&ack.body[2]),
            "{ack:x?}"
        );
    }
}

/// What a subscriber gets of messages that its publisher sends in one go, before `barrier`.
fn delivered(broker: &Broker, version: u8, packets: &[u8], topic: &str, heads: &[u8]) -> usize {
    let mut watcher = Client::new(broker, version);
    watcher.subscribe(topic, 0);
    let mut client = Client::new(broker, version);
    client.send(packets);
    for head in heads {
        assert_eq!(client.receive().head, *head);
    }
    watcher.publish(0x30, topic, "barrier");
    let mut count = 0;
    while watcher.message().payload != "barrier" {
        count += 1;
    }
    count
}

/// After its PUBACK an identifier means a new message, whatever DUP says.
fn new_after_puback(broker: &Broker, version: u8) {
    let topic = unique();
    let message = |head| publish(version, head, &topic, 5, &[], "x");
    let packets = [message(0x32), message(0x3a)].concat();
    let count = delivered(broker, version, &packets, &topic, &[0x40, 0x40]);
    assert_eq!(count, 2);
}

fn received_once(broker: &Broker, version: u8) {
    let topic = unique();
    let message = |head| publish(version, head, &topic, 5, &[], "x");
    let packets = [message(0x34), message(0x3c), vec![0x62, 2, 0, 5]].concat();
    let count = delivered(broker, version, &packets, &topic, &[0x50, 0x50, 0x70]);
    assert_eq!(count, 1);
}

/// After its PUBCOMP an identifier means a new message.
fn new_after_pubcomp(broker: &Broker, version: u8) {
    let topic = unique();
    let message = publish(version, 0x34, &topic, 5, &[], "x");
    let packets = [message, vec![0x62, 2, 0, 5]].concat().repeat(2);
    let heads = [0x50, 0x70, 0x50, 0x70];
    assert_eq!(delivered(broker, version, &packets, &topic, &heads), 2);
}

fn pubrec_and_pubcomp(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    for id in [1, 0x1234, 0xFFFF] {
        client.send(&publish(version, 0x34, &unique(), id, &[], "x"));
        client.expect(0x50, id);
        client.acknowledge(0x62, id);
        client.expect(0x70, id);
    }
}

/// The flow goes on although nobody knows of it.
fn pubcomp_of_unknown(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    client.acknowledge(0x62, 77);
    let ack = client.expect(0x70, 77);
    // Packet Identifier not found, if anything.
    assert!(version == 5 || ack.body.len() == 2);
    assert!(ack.body.get(2).is_none_or(|code| [0, 0x92].contains(code)));
}

/// An expired message's flow is completed all the same.
pub(crate) fn completed_although_expired(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let expiry = [2, 0, 0, 0, 1];
    client.send(&publish(version, 0x34, &unique(), 5, &expiry, "x"));
    client.expect(0x50, 5);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    client.acknowledge(0x62, 5);
    client.expect(0x70, 5);
}

/// A subscriber and a publisher of a topic.
fn pair(broker: &Broker, version: u8, qos: u8) -> (Client, Client, String) {
    let (mut subscriber, topic) = (Client::new(broker, version), unique());
    subscriber.subscribe(&topic, qos);
    (subscriber, Client::new(broker, version), topic)
}

fn out_qos_0(broker: &Broker, version: u8) {
    let (mut subscriber, mut publisher, topic) = pair(broker, version, 0);
    for head in [0x30, 0x32, 0x34] {
        publisher.publish(head, &topic, "x");
        let message = subscriber.message();
        // No DUP, no Packet Identifier.
        assert_eq!((message.head, &*message.payload), (0x30, "x"));
    }
}

fn out_qos_1(broker: &Broker, version: u8) {
    let (mut subscriber, mut publisher, topic) = pair(broker, version, 1);
    publisher.publish(0x32, &topic, "1");
    publisher.publish(0x34, &topic, "2");
    let (first, second) = (subscriber.message(), subscriber.message());
    assert_eq!((first.head, second.head), (0x32, 0x32));
    assert!(first.id != 0 && second.id != 0 && first.id != second.id);
    // An acknowledgement in any order ends each.
    subscriber.acknowledge(0x40, second.id);
    subscriber.acknowledge(0x40, first.id);
    subscriber.nothing_more();
}

fn out_qos_2(broker: &Broker, version: u8) {
    let (mut subscriber, mut publisher, topic) = pair(broker, version, 2);
    publisher.publish(0x34, &topic, "1");
    publisher.publish(0x34, &topic, "2");
    let (first, second) = (subscriber.message(), subscriber.message());
    assert_eq!((first.head, second.head), (0x34, 0x34));
    assert!(first.id != 0 && second.id != 0 && first.id != second.id);
    for id in [first.id, second.id] {
        subscriber.acknowledge(0x50, id);
        subscriber.expect(0x62, id);
        subscriber.acknowledge(0x70, id);
    }
    subscriber.nothing_more();
}

/// PUBREL follows PUBREC in its order.
fn pubrel_in_order(broker: &Broker, version: u8) {
    let (mut subscriber, mut publisher, topic) = pair(broker, version, 2);
    for payload in ["1", "2", "3"] {
        publisher.publish(0x34, &topic, payload);
    }
    let mut ids = [(); 3].map(|()| subscriber.message().id);
    ids.reverse();
    for id in ids {
        subscriber.acknowledge(0x50, id);
    }
    for id in ids {
        subscriber.expect(0x62, id);
    }
}

fn acknowledged_in_order(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let message = |head, id| publish(version, head, &unique(), id, &[], "x");
    let ids = [9, 3, 7, 1, 5];
    let once: Vec<u8> = ids.iter().flat_map(|&id| message(0x32, id)).collect();
    client.send(&once);
    for id in ids {
        client.expect(0x40, id);
    }
    let twice: Vec<u8> = ids.iter().flat_map(|&id| message(0x34, id)).collect();
    client.send(&twice);
    for id in ids {
        client.expect(0x50, id);
    }
}

/// Messages of one publisher, topic and QoS come as they were sent.
fn delivered_in_order(broker: &Broker, version: u8) {
    for qos in [0, 1, 2] {
        let (mut subscriber, mut publisher, topic) = pair(broker, version, qos);
        let packet = |number: u16| {
            let head = 0x30 | qos << 1;
            publish(version, head, &topic, number, &[], &number.to_string())
        };
        publisher.send(&(1..=15).flat_map(packet).collect::<Vec<u8>>());
        if qos == 2 {
            for number in 1..=15 {
                publisher.expect(0x50, number);
                publisher.acknowledge(0x62, number);
            }
        }
        for number in 1..=15_u16 {
            assert_eq!(
                subscriber.message().payload,
                number.to_string(),
                "QoS {qos}"
            );
        }
    }
}

/// A subscriber that takes so many messages at a time.
fn narrow(broker: &Broker, window: u8) -> (Client, Client, String) {
    let (mut subscriber, _) = Client::with(broker, 5, 2, &[0x21, 0, window], &unique());
    let topic = unique();
    subscriber.subscribe(&topic, 2);
    (subscriber, Client::new(broker, 5), topic)
}

fn receive_maximum(broker: &Broker, _: u8) {
    let (mut subscriber, mut publisher, topic) = narrow(broker, 2);
    for payload in ["1", "2", "3"] {
        publisher.publish(0x32, &topic, payload);
    }
    let first = subscriber.message();
    assert_eq!(subscriber.message().payload, "2");
    subscriber.nothing_more();
    subscriber.acknowledge(0x40, first.id);
    assert_eq!(subscriber.message().payload, "3");
}

/// A QoS 2 message counts until its PUBCOMP.
fn receive_maximum_of_qos_2(broker: &Broker, _: u8) {
    let (mut subscriber, mut publisher, topic) = narrow(broker, 1);
    publisher.publish(0x34, &topic, "1");
    publisher.publish(0x34, &topic, "2");
    let first = subscriber.message();
    subscriber.acknowledge(0x50, first.id);
    subscriber.expect(0x62, first.id);
    subscriber.nothing_more();
    subscriber.acknowledge(0x70, first.id);
    assert_eq!(subscriber.message().payload, "2");
}

/// A refused one counts no longer.
fn receive_maximum_after_refusal(broker: &Broker, _: u8) {
    let (mut subscriber, mut publisher, topic) = narrow(broker, 1);
    publisher.publish(0x34, &topic, "1");
    publisher.publish(0x34, &topic, "2");
    let [high, low] = subscriber.message().id.to_be_bytes();
    subscriber.send(&[0x50, 3, high, low, 0x80]);
    assert_eq!(subscriber.message().payload, "2");
}

/// A full window holds back nothing but QoS 1 and 2.
fn nothing_else_waits(broker: &Broker, version: u8) {
    let (mut subscriber, mut publisher, topic) = narrow(broker, 1);
    publisher.publish(0x32, &topic, "1");
    subscriber.message();
    subscriber.publish(0x34, &unique(), "x");
    assert_eq!(subscriber.subscribe(&unique(), 1), 1);
    assert_eq!(subscriber.unsubscribe(&unique()).body.last(), Some(&0x11));
    subscriber.nothing_more();
    assert_eq!(version, 5);
}

statements! {
    puback:
        mqtt311_4_3_2_2_puback = 4,
        mqtt5_4_3_2_4_puback = 5,
        mqtt311_2_3_1_6_identifier = 4,
        mqtt5_2_2_1_5_identifier = 5,
        mqtt311_3_3_4_1_puback = 4,
        mqtt5_3_3_4_1_puback = 5,
        mqtt5_3_4_2_1_reason_code = 5;
    new_after_puback: mqtt311_4_3_2_2_new_after_puback = 4, mqtt5_4_3_2_5_new_after_puback = 5;
    received_once: mqtt311_4_3_3_2_once = 4, mqtt5_4_3_3_10_once = 5;
    new_after_pubcomp: mqtt311_4_3_3_2_new_after_pubcomp = 4, mqtt5_4_3_3_12_new_after_pubcomp = 5;
    pubrec_and_pubcomp:
        mqtt311_4_3_3_2_pubrec_and_pubcomp = 4,
        mqtt5_4_3_3_8_pubrec = 5,
        mqtt5_4_3_3_11_pubcomp = 5,
        mqtt311_3_3_4_1_pubrec = 4,
        mqtt5_3_3_4_1_pubrec = 5;
    pubcomp_of_unknown:
        mqtt311_4_3_3_2_pubcomp_of_unknown = 4,
        mqtt5_3_7_2_1_pubcomp_of_unknown = 5;
    completed_although_expired: mqtt5_4_3_3_13_although_expired = 5;
    out_qos_0:
        mqtt311_4_3_1_1_dup_0 = 4,
        mqtt5_4_3_1_1_dup_0 = 5,
        mqtt311_2_3_1_5_no_identifier = 4,
        mqtt5_2_2_1_2_no_identifier = 5,
        mqtt311_3_3_1_2_dup_0 = 4,
        mqtt5_3_3_1_2_dup_0 = 5;
    out_qos_1:
        mqtt311_4_3_2_1_sender = 4,
        mqtt5_4_3_2_1_unused_identifier = 5,
        mqtt5_4_3_2_2_dup_0 = 5,
        mqtt311_2_3_1_4_unused_identifier = 4,
        mqtt5_2_2_1_4_unused_identifier = 5;
    out_qos_2:
        mqtt311_4_3_3_1_sender = 4,
        mqtt5_4_3_3_1_unused_identifier = 5,
        mqtt5_4_3_3_2_dup_0 = 5,
        mqtt5_4_3_3_4_pubrel = 5;
    pubrel_in_order: mqtt311_4_6_0_4_pubrel_in_order = 4, mqtt5_4_6_0_4_pubrel_in_order = 5;
    acknowledged_in_order:
        mqtt311_4_6_0_2_puback_in_order = 4,
        mqtt5_4_6_0_2_puback_in_order = 5,
        mqtt311_4_6_0_3_pubrec_in_order = 4,
        mqtt5_4_6_0_3_pubrec_in_order = 5;
    delivered_in_order:
        mqtt311_4_6_0_6_in_order = 4,
        mqtt5_4_6_0_5_in_order = 5,
        mqtt311_4_6_0_5_ordered_topics = 4,
        mqtt5_4_6_0_6_ordered_topics = 5;
    receive_maximum:
        mqtt5_3_3_4_9_receive_maximum = 5,
        mqtt5_4_9_0_1_quota = 5,
        mqtt5_4_9_0_2_quota = 5;
    receive_maximum_of_qos_2: mqtt5_3_3_4_9_until_pubcomp = 5;
    receive_maximum_after_refusal: mqtt5_3_3_4_9_until_refusal = 5;
    nothing_else_waits: mqtt5_3_3_4_10_nothing_else_waits = 5, mqtt5_4_9_0_3_nothing_else_waits = 5;
}
