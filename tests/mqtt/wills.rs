//! Will Messages.

use super::brokers::Broker;
use super::client::{Client, connect, field, publish, unique};
use super::statements;

/// The end of a CONNECT with a Will.
fn will(version: u8, props: &[u8], topic: &[u8]) -> Vec<u8> {
    [
        super::client::properties(version, props),
        field(topic),
        field("gone"),
    ]
    .concat()
}

fn refuses(broker: &Broker, version: u8, flags: u8, rest: &[u8]) {
    let mut client = Client::raw(broker, version);
    client.send(&connect(version, flags, &[], &unique(), rest));
    client.closed();
}

fn qos_three(broker: &Broker, version: u8) {
    refuses(broker, version, 0x1e, &will(version, &[], b"w"));
}

fn qos_without_will(broker: &Broker, version: u8) {
    refuses(broker, version, 0x0a, &[]);
}

fn retain_without_will(broker: &Broker, version: u8) {
    refuses(broker, version, 0x22, &[]);
}

fn missing_fields(broker: &Broker, version: u8) {
    refuses(broker, version, 6, &[]);
    let props = super::client::properties(version, &[]);
    refuses(broker, version, 6, &[props, field("w")].concat());
}

fn topic_no_utf8(broker: &Broker, version: u8) {
    refuses(broker, version, 6, &will(version, &[], b"w\xff"));
}

/// Somebody who sees the Will, and its topic.
fn watcher(broker: &Broker, version: u8, options: u8) -> (Client, String) {
    let mut watcher = Client::new(broker, version);
    let topic = unique();
    watcher.subscribe(&topic, options);
    (watcher, topic)
}

fn with_will(broker: &Broker, version: u8, flags: u8, topic: &str) -> Client {
    let mut client = Client::raw(broker, version);
    let rest = will(version, &[], topic.as_bytes());
    client.send(&connect(version, flags, &[], &unique(), &rest));
    assert_eq!(client.receive().body[1], 0);
    client
}

fn is_published(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    drop(with_will(broker, version, 6, &topic));
    assert_eq!(watcher.message().payload, "gone");
}

fn after_an_error(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let mut client = with_will(broker, version, 6, &topic);
    client.send(&[0x60, 2, 0, 1]);
    client.closed();
    assert_eq!(watcher.message().payload, "gone");
}

pub(crate) fn after_silence(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let mut bytes = connect(
        version,
        6,
        &[],
        &unique(),
        &will(version, &[], topic.as_bytes()),
    );
    bytes[11] = 1;
    let mut silent = Client::raw(broker, version);
    silent.send(&bytes);
    assert_eq!(watcher.message().payload, "gone");
    drop(silent);
}

fn with_its_qos(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 2);
    for (flags, head) in [(6, 0x30), (0x0e, 0x32), (0x16, 0x34)] {
        drop(with_will(broker, version, flags, &topic));
        assert_eq!(watcher.message().head, head);
    }
}

fn is_dropped(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    with_will(broker, version, 6, &topic).leave();
    watcher.publish(0x30, &topic, "barrier");
    assert_eq!(watcher.message().payload, "barrier");
}

/// It goes with its connection, not with the client.
fn is_gone_once_published(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let id = unique();
    let mut client = Client::raw(broker, version);
    client.send(&connect(
        version,
        6,
        &[],
        &id,
        &will(version, &[], topic.as_bytes()),
    ));
    client.receive();
    drop(client);
    assert_eq!(watcher.message().payload, "gone");
    let (again, _) = Client::with(broker, version, 2, &[], &id);
    drop(again);
    Client::with(broker, version, 2, &[], &id).0.leave();
    watcher.publish(0x30, &topic, "barrier");
    assert_eq!(watcher.message().payload, "barrier");
}

fn by_disconnect(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    with_will(broker, version, 6, &topic).send(&[0xE0, 1, 4]);
    assert_eq!(watcher.message().payload, "gone");
}

fn none_without_flag(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let id = unique();
    drop(Client::with(broker, version, 2, &[], &id));
    Client::with(broker, version, 2, &[], &id).0.leave();
    watcher.publish(0x30, &topic, "barrier");
    assert_eq!(watcher.message().payload, "barrier");
}

fn retained(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    drop(with_will(broker, version, 0x26, &topic));
    assert_eq!(watcher.message().payload, "gone");
    watcher.subscribe(&topic, 0);
    assert_eq!(watcher.message().head, 0x31);
    watcher.publish(0x31, &topic, "");
}

fn not_retained(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    drop(with_will(broker, version, 6, &topic));
    assert_eq!(watcher.message().payload, "gone");
    watcher.subscribe(&topic, 0);
    watcher.nothing_more();
}

/// A client with a session of 100 s or less and a Will that waits for so many seconds.
fn delayed(broker: &Broker, id: &str, topic: &str, delay: u8, expiry: u8) -> Client {
    let mut client = Client::raw(broker, 5);
    let rest = will(5, &[0x18, 0, 0, 0, delay], topic.as_bytes());
    let props = [0x11, 0, 0, 0, expiry];
    client.send(&connect(5, 4, &props, id, &rest));
    assert_eq!(client.receive().body[1], 0);
    client
}

fn a_client_that_is_back(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let id = unique();
    drop(delayed(broker, &id, &topic, 50, 100));
    let (client, present) = Client::kept(broker, version, &id);
    assert!(present);
    client.leave();
    watcher.publish(0x30, &topic, "barrier");
    assert_eq!(watcher.message().payload, "barrier");
}

pub(crate) fn after_its_delay(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let begin = bus::time::now().mono;
    drop(delayed(broker, &unique(), &topic, 1, 100));
    assert_eq!(watcher.message().payload, "gone");
    let waited = bus::time::now().mono.duration_since(begin);
    assert!(waited.as_millis() > 900);
}

/// Before its delay, when the session ends.
pub(crate) fn with_its_session(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let id = unique();
    drop(delayed(broker, &id, &topic, 50, 1));
    assert_eq!(watcher.message().payload, "gone");
    assert!(!Client::kept(broker, version, &id).1);
}

fn with_a_clean_start(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let id = unique();
    drop(delayed(broker, &id, &topic, 50, 100));
    let _again = Client::with(broker, version, 2, &[], &id);
    assert_eq!(watcher.message().payload, "gone");
}

fn properties_in_order(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let props = b"\x26\0\x01b\0\x011\x26\0\x01a\0\x012\x26\0\x01b\0\x013";
    let mut client = Client::raw(broker, version);
    let rest = will(version, props, topic.as_bytes());
    client.send(&connect(version, 6, &[], &unique(), &rest));
    client.receive();
    drop(client);
    assert_eq!(watcher.message().props, props);
}

/// A Will goes out before anything of the connection that took over.
fn of_who_was_taken_over(broker: &Broker, version: u8) {
    let (mut watcher, topic) = watcher(broker, version, 0);
    let id = unique();
    let mut old = Client::raw(broker, version);
    old.send(&connect(
        version,
        6,
        &[],
        &id,
        &will(version, &[], topic.as_bytes()),
    ));
    old.receive();
    let (mut new, _) = Client::with(broker, version, 2, &[], &id);
    new.send(&publish(version, 0x30, &topic, 0, &[], "new"));
    assert_eq!(watcher.message().payload, "gone");
    assert_eq!(watcher.message().payload, "new");
}

statements! {
    qos_three: mqtt311_3_1_2_14_qos_three = 4, mqtt5_3_1_2_12_qos_three = 5;
    qos_without_will:
        mqtt311_3_1_2_13_qos_without_will = 4,
        mqtt311_3_1_2_11_qos_without_will = 4,
        mqtt5_3_1_2_11_qos_without_will = 5;
    retain_without_will:
        mqtt311_3_1_2_15_retain_without_will = 4,
        mqtt5_3_1_2_13_retain_without_will = 5;
    missing_fields: mqtt311_3_1_2_9_missing_fields = 4, mqtt5_3_1_2_9_missing_fields = 5;
    topic_no_utf8: mqtt311_3_1_3_10_topic_utf8 = 4, mqtt5_3_1_3_11_topic_utf8 = 5;
    is_published:
        mqtt311_3_1_2_8_published = 4,
        mqtt5_3_1_2_8_published = 5,
        mqtt5_3_1_2_7_stored = 5;
    after_an_error: mqtt311_3_1_2_8_after_an_error = 4, mqtt5_3_1_2_8_after_an_error = 5;
    after_silence: mqtt311_3_1_2_8_after_silence = 4, mqtt5_3_1_2_8_after_silence = 5;
    with_its_qos: mqtt311_3_1_2_14_with_its_qos = 4, mqtt5_3_1_2_12_with_its_qos = 5;
    is_dropped:
        mqtt311_3_1_2_10_not_after_disconnect = 4,
        mqtt5_3_1_2_10_not_after_disconnect = 5,
        mqtt311_3_14_4_3_discarded = 4,
        mqtt5_3_14_4_3_discarded = 5;
    is_gone_once_published:
        mqtt311_3_1_2_10_gone_once_published = 4,
        mqtt5_3_1_2_10_gone_once_published = 5;
    by_disconnect: mqtt5_3_1_2_8_disconnect_with_will = 5;
    none_without_flag: mqtt311_3_1_2_12_none_without_flag = 4;
    retained: mqtt311_3_1_2_17_retained = 4, mqtt5_3_1_2_15_retained = 5;
    not_retained: mqtt311_3_1_2_16_not_retained = 4, mqtt5_3_1_2_14_not_retained = 5;
    a_client_that_is_back: mqtt5_3_1_3_9_client_is_back = 5;
    after_its_delay: mqtt5_3_1_2_8_after_its_delay = 5;
    with_its_session: mqtt5_3_1_2_8_with_its_session = 5, mqtt5_4_1_0_2_session_expires = 5;
    with_a_clean_start: mqtt5_3_1_2_8_with_a_clean_start = 5 but "forgets a delayed Will when a clean start ends its session";
    properties_in_order: mqtt5_3_1_3_10_properties_in_order = 5;
    of_who_was_taken_over: mqtt311_3_1_2_8_taken_over = 4, mqtt5_3_1_2_8_taken_over = 5;
}
