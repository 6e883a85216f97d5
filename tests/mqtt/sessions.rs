//! Session State: what is kept for a client that is away, and what it gets when it is back.

use super::brokers::Broker;
use super::client::{Client, unique};
use super::statements;

fn present(broker: &Broker, version: u8) {
    let id = unique();
    let (client, present) = Client::kept(broker, version, &id);
    assert!(!present);
    client.leave();
    assert!(Client::kept(broker, version, &id).1);
}

fn absent(broker: &Broker, version: u8) {
    assert!(!Client::kept(broker, version, &unique()).1);
}

fn clean(broker: &Broker, version: u8) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = Client::kept(broker, version, &id);
    client.subscribe(&topic, 1);
    client.leave();
    let (mut client, ack) = Client::with(broker, version, 2, &[], &id);
    assert_eq!(ack.body[0], 0);
    client.publish(0x32, &topic, "x");
    client.nothing_more();
}

/// A clean session ends with its connection.
fn clean_is_not_kept(broker: &Broker, version: u8) {
    let id = unique();
    Client::with(broker, version, 2, &[], &id).0.leave();
    assert!(!Client::kept(broker, version, &id).1);
}

/// State is the client identifier's own.
fn of_its_client_id(broker: &Broker, version: u8) {
    let (one, other, topic) = (unique(), unique(), unique());
    let (mut client, _) = Client::kept(broker, version, &one);
    client.subscribe(&topic, 1);
    client.leave();
    let (mut client, _) = Client::kept(broker, version, &other);
    client.leave();
    Client::new(broker, version).publish(0x32, &topic, "x");
    (client, _) = Client::kept(broker, version, &other);
    client.nothing_more();
    (client, _) = Client::kept(broker, version, &one);
    assert_eq!(client.message().payload, "x");
}

/// A client that is away, subscribed to a topic.
fn away(broker: &Broker, version: u8, qos: u8) -> (String, String) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = Client::kept(broker, version, &id);
    client.subscribe(&topic, qos);
    client.leave();
    (id, topic)
}

fn queued(broker: &Broker, version: u8) {
    let (id, topic) = away(broker, version, 2);
    let mut publisher = Client::new(broker, version);
    let expected = [("1", 0x32), ("2", 0x34), ("3", 0x32)];
    for (payload, head) in expected {
        publisher.publish(head, &topic, payload);
    }
    let (mut client, _) = Client::kept(broker, version, &id);
    for (payload, head) in expected {
        let message = client.message();
        assert_eq!((&*message.payload, message.head), (payload, head));
    }
}

fn retained_outlives(broker: &Broker, version: u8) {
    let topic = unique();
    let mut client = Client::new(broker, version);
    client.publish(0x33, &topic, "x");
    client.leave();
    let mut other = Client::new(broker, version);
    other.subscribe(&topic, 0);
    assert_eq!(other.message().payload, "x");
    other.publish(0x31, &topic, "");
}

/// A client that was sent messages and acknowledged none.
fn unacknowledged(broker: &Broker, version: u8, qos: u8) -> (String, Vec<(u16, String)>) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = Client::kept(broker, version, &id);
    client.subscribe(&topic, qos);
    let mut publisher = Client::new(broker, version);
    for payload in ["1", "2", "3"] {
        publisher.publish(0x30 | qos << 1, &topic, payload);
    }
    let messages = [(); 3].map(|()| {
        let message = client.message();
        assert_eq!(message.head, 0x30 | qos << 1);
        (message.id, message.payload)
    });
    (id, messages.into())
}

fn sent_again(broker: &Broker, version: u8) {
    for qos in [1, 2] {
        let (id, messages) = unacknowledged(broker, version, qos);
        let (mut client, present) = Client::kept(broker, version, &id);
        assert!(present);
        for sent in messages {
            let again = client.message();
            assert_eq!(again.head, 0x38 | qos << 1, "no DUP");
            assert_eq!((again.id, again.payload), sent);
        }
        client.nothing_more();
    }
}

fn released_again(broker: &Broker, version: u8) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = Client::kept(broker, version, &id);
    client.subscribe(&topic, 2);
    Client::new(broker, version).publish(0x34, &topic, "x");
    let message = client.message();
    client.acknowledge(0x50, message.id);
    client.expect(0x62, message.id);
    drop(client);
    let (mut client, _) = Client::kept(broker, version, &id);
    // PUBREL, and not the message.
    client.expect(0x62, message.id);
    client.acknowledge(0x70, message.id);
    client.nothing_more();
    client.leave();
    Client::kept(broker, version, &id).0.nothing_more();
}

/// With a live connection nothing is repeated.
pub(crate) fn not_sent_again(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = unique();
    client.subscribe(&topic, 1);
    Client::new(broker, version).publish(0x32, &topic, "x");
    client.message();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    client.nothing_more();
}

/// What was refused is as good as acknowledged.
fn refused_is_not_sent_again(broker: &Broker, version: u8) {
    let (id, topic) = (unique(), unique());
    let (mut client, _) = Client::kept(broker, version, &id);
    client.subscribe(&topic, 2);
    let mut publisher = Client::new(broker, version);
    for (head, answer) in [(0x32, 0x40), (0x34, 0x50)] {
        publisher.publish(head, &topic, "x");
        let [high, low] = client.message().id.to_be_bytes();
        client.send(&[answer, 3, high, low, 0x80]);
    }
    client.nothing_more();
    client.leave();
    Client::kept(broker, version, &id).0.nothing_more();
}

/// A QoS 2 message from the client is one over connections too.
fn received_once(broker: &Broker, version: u8) {
    let (id, topic) = (unique(), unique());
    let mut watcher = Client::new(broker, version);
    watcher.subscribe(&topic, 0);
    let (mut client, _) = Client::kept(broker, version, &id);
    let message = |head| super::client::publish(version, head, &topic, 5, &[], "once");
    client.send(&message(0x34));
    client.expect(0x50, 5);
    drop(client);
    let (mut client, _) = Client::kept(broker, version, &id);
    client.send(&message(0x3c));
    client.expect(0x50, 5);
    client.acknowledge(0x62, 5);
    client.expect(0x70, 5);
    watcher.publish(0x30, &topic, "barrier");
    assert_eq!(watcher.message().payload, "once");
    assert_eq!(watcher.message().payload, "barrier");
}

/// An Expiry of DISCONNECT takes the place of the one of CONNECT (section 3.14.2.2.2).
fn ended_by_disconnect(broker: &Broker, version: u8) {
    let id = unique();
    let (mut client, _) = Client::kept(broker, version, &id);
    client.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
    client.closed();
    assert!(!Client::kept(broker, version, &id).1);
}

/// No Session Expiry Interval is 0 (section 3.1.2.11.2).
fn ended_with_its_connection(broker: &Broker, version: u8) {
    let id = unique();
    Client::with(broker, version, 0, &[], &id).0.leave();
    assert!(!Client::kept(broker, version, &id).1);
}

/// While the connection is open, a session has no end.
pub(crate) fn kept_while_open(broker: &Broker, version: u8) {
    let (id, topic) = (unique(), unique());
    let props = [0x11, 0, 0, 0, 1];
    let (mut client, _) = Client::with(broker, version, 0, &props, &id);
    client.subscribe(&topic, 1);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    Client::new(broker, version).publish(0x32, &topic, "x");
    assert_eq!(client.message().payload, "x");
}

statements! {
    present:
        mqtt311_3_2_2_2_present = 4,
        mqtt5_3_2_2_3_present = 5,
        mqtt311_3_1_2_4_resumed = 4,
        mqtt5_3_1_2_5_resumed = 5,
        mqtt5_3_1_2_23_stored = 5;
    absent: mqtt311_3_2_2_3_absent = 4, mqtt5_3_2_2_3_absent = 5, mqtt5_3_1_2_6_new = 5;
    clean:
        mqtt311_3_1_2_6_clean = 4,
        mqtt5_3_1_2_4_clean = 5,
        mqtt311_3_2_2_1_clean = 4,
        mqtt5_3_2_2_2_clean = 5,
        mqtt311_3_1_4_3_clean = 4,
        mqtt5_3_1_4_4_clean = 5;
    clean_is_not_kept: mqtt311_3_1_2_6_not_kept = 4;
    of_its_client_id: mqtt311_3_1_3_2_of_its_client_id = 4, mqtt5_3_1_3_2_of_its_client_id = 5;
    queued: mqtt311_3_1_2_5_queued = 4, mqtt311_4_5_0_1_queued = 4, mqtt5_4_5_0_1_queued = 5;
    retained_outlives: mqtt311_3_1_2_7_retained_outlives = 4;
    sent_again:
        mqtt311_4_4_0_1_sent_again = 4,
        mqtt5_4_4_0_1_sent_again = 5,
        mqtt311_4_6_0_1_in_order = 4,
        mqtt5_4_6_0_1_in_order = 5,
        mqtt311_3_3_1_1_dup = 4,
        mqtt5_3_3_1_1_dup = 5,
        mqtt5_4_3_2_3_unacknowledged = 5,
        mqtt5_4_3_3_3_unacknowledged = 5;
    released_again:
        mqtt311_4_3_3_1_released = 4,
        mqtt5_4_3_3_5_released = 5,
        mqtt5_4_3_3_6_not_the_message = 5;
    not_sent_again: mqtt5_4_4_0_1_at_no_other_time = 5;
    refused_is_not_sent_again: mqtt5_4_4_0_2_refused = 5;
    received_once:
        mqtt311_4_3_3_2_over_connections = 4,
        mqtt5_4_3_3_10_over_connections = 5,
        mqtt311_4_1_0_1_state = 4;
    ended_by_disconnect: mqtt5_4_1_0_2_expiry_of_disconnect = 5;
    ended_with_its_connection: mqtt5_4_1_0_2_no_expiry = 5;
    kept_while_open: mqtt5_4_1_0_1_kept_while_open = 5;
}
