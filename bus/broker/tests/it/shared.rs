//! Shared Subscriptions (MQTT 5 section 4.8.2).

use std::path::Path;

use bus_broker::{Config, Role};
use tokio::net::TcpStream;

use crate::support::{
    Options, Raw, TestBroker, authority, broker, broker_with, packet, start, string,
};

type Client = Raw<TcpStream>;

fn kept(expiry: u8) -> Options {
    Options {
        is_kept: true,
        properties: vec![0x11, 0, 0, 0, expiry],
        ..Options::default()
    }
}

async fn kept_client(broker: &TestBroker, id: &str) -> Client {
    let mut client = broker.tcp().await;
    client.connect(5, id, &kept(60)).await;
    client
}

/// Publishes QoS 1 messages with payloads from `first` on, and waits for their acknowledgement.
async fn publish(publisher: &mut Client, topic: &str, payloads: std::ops::RangeInclusive<u8>) {
    for payload in payloads {
        publisher.publish(5, topic, &[payload], 1, 1, false).await;
        assert_eq!(publisher.packet().await.1[..2], [0, 1]);
    }
}

/// The payloads of the next messages.
async fn next(client: &mut Client, count: usize) -> Vec<u8> {
    let mut payloads = Vec::new();
    for _ in 0..count {
        payloads.push(client.message().await.payload[0]);
    }
    payloads
}

/// What a group has given so far, which it does before it acknowledges: payloads, unacknowledged.
async fn payloads(client: &mut Client) -> Vec<u8> {
    let packets = client.ping().await;
    let messages = packets
        .iter()
        .map(|(first, body)| client.parse(*first, body));
    messages.map(|message| message.payload[0]).collect()
}

async fn leave(mut client: Client) {
    client.send(&[0xe0, 0]).await;
    client.closed().await;
}

#[tokio::test]
async fn every_message_goes_to_one_and_all_take_turns() {
    let broker = broker(Role::Admin).await;
    let mut members = Vec::new();
    for (id, level) in [("one", 4), ("two", 5), ("three", 5)] {
        let mut member = broker.tcp().await;
        member.connect(level, id, &Options::default()).await;
        assert_eq!(member.subscribe(level, 1, "$share/g/a/#", 1).await, 1);
        members.push(member);
    }
    let mut all = broker.v5("all").await;
    all.subscribe(5, 1, "a/#", 0).await;
    let mut publisher = broker.v5("p").await;
    publish(&mut publisher, "a/b", 1..=60).await;
    let mut got = Vec::new();
    for member in &mut members {
        let part = payloads(member).await;
        assert_eq!(part.len(), 20);
        assert!(part.is_sorted());
        got.extend(part);
    }
    got.sort_unstable();
    assert_eq!(got, (1..=60).collect::<Vec<u8>>());
    assert_eq!(next(&mut all, 60).await, (1..=60).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_member_that_has_it_otherwise_too_gets_both() {
    let broker = broker(Role::Admin).await;
    let mut member = broker.v5("m").await;
    member.subscribe(5, 1, "a", 1).await;
    member.subscribe(5, 2, "$share/g/a", 1).await;
    member.subscribe(5, 3, "$share/h/a", 0).await;
    let mut publisher = broker.v5("p").await;
    publish(&mut publisher, "a", 1..=1).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(member.message().await.qos);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 1]);
    // And an end to each by itself.
    let mut body = vec![0, 4, 0];
    body.extend(string("$share/g/a"));
    member.send(&packet(0xa2, &body)).await;
    assert_eq!(member.packet().await, (0xb0, vec![0, 4, 0, 0]));
    publish(&mut publisher, "a", 2..=2).await;
    assert_eq!(next(&mut member, 2).await, [2, 2]);
    assert_eq!(member.ping().await, []);
}

#[tokio::test]
async fn retained_messages_are_not_sent_for_it() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.v5("c").await;
    client.publish(5, "a", b"kept", 1, 1, true).await;
    client.packet().await;
    client.subscribe(5, 1, "$share/g/a", 1).await;
    assert_eq!(client.ping().await, []);
    // Retain As Published holds for it.
    client.subscribe(5, 1, "$share/g/a", 8).await;
    client.publish(5, "a", b"live", 0, 0, true).await;
    assert!(client.message().await.retain);
}

#[tokio::test]
async fn who_is_there_gets_it_and_who_is_away_when_nobody_is() {
    let broker = broker(Role::Admin).await;
    let mut away = kept_client(&broker, "away").await;
    away.subscribe(5, 1, "$share/g/a", 1).await;
    leave(away).await;
    let mut publisher = broker.v5("p").await;
    let mut present = broker.v5("present").await;
    present.subscribe(5, 1, "$share/g/a", 1).await;
    publish(&mut publisher, "a", 1..=10).await;
    assert_eq!(payloads(&mut present).await.len(), 10);
    leave(present).await;
    publish(&mut publisher, "a", 100..=102).await;
    let mut away = kept_client(&broker, "away").await;
    let got = payloads(&mut away).await;
    // What the other was sent and did not acknowledge, and what came later.
    assert_eq!(got, (1..=10).chain(100..=102).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_full_member_is_passed_over() {
    let broker = broker_with(Role::Admin, |limits| limits.queue_messages = 10).await;
    let mut slow = broker.tcp().await;
    let options = Options {
        properties: vec![0x21, 0, 1],
        ..Options::default()
    };
    slow.connect(5, "slow", &options).await;
    slow.subscribe(5, 1, "$share/g/a", 1).await;
    let mut fast = broker.v5("fast").await;
    fast.subscribe(5, 1, "$share/g/a", 1).await;
    let mut publisher = broker.v5("p").await;
    let mut got = 0;
    for payload in 1..=100 {
        publish(&mut publisher, "a", payload..=payload).await;
        for (first, body) in fast.ping().await {
            let pid = fast.parse(first, &body).pid.to_be_bytes();
            fast.send(&[0x40, 2, pid[0], pid[1]]).await;
            got += 1;
        }
    }
    // The one in its window is the only one that the slow member was given.
    assert_eq!(got, 99);
    leave(slow).await;
    assert_eq!(payloads(&mut fast).await.len(), 1);
    let dropped = broker.metric("bus_broker_dropped_messages_total", "");
    assert_eq!(dropped, 0.0);
}

#[tokio::test]
async fn what_a_member_leaves_unsent_others_get_at_once() {
    let broker = broker(Role::Admin).await;
    let mut slow = broker.tcp().await;
    let mut options = kept(60);
    options.properties.extend([0x21, 0, 1]);
    slow.connect(5, "slow", &options).await;
    slow.subscribe(5, 1, "$share/g/a", 1).await;
    let mut publisher = broker.v5("p").await;
    publish(&mut publisher, "a", 1..=20).await;
    assert_eq!(payloads(&mut slow).await, [1]);
    let mut other = broker.v5("other").await;
    other.subscribe(5, 1, "$share/g/a", 1).await;
    leave(slow).await;
    assert_eq!(payloads(&mut other).await, (2..=20).collect::<Vec<u8>>());
    // The one that was under way waits for its client.
    let mut slow = kept_client(&broker, "slow").await;
    assert_eq!(payloads(&mut slow).await, [1]);
}

#[tokio::test]
async fn qos_2_under_way_is_nobody_elses() {
    let broker = broker(Role::Admin).await;
    let mut first = broker.v5("first").await;
    first.subscribe(5, 1, "$share/g/a", 2).await;
    let mut publisher = broker.v5("p").await;
    publisher.publish(5, "a", b"x", 2, 1, false).await;
    assert_eq!(first.message().await.qos, 2);
    let mut other = broker.v5("other").await;
    other.subscribe(5, 1, "$share/g/a", 2).await;
    drop(first);
    broker
        .metric_reaches("bus_broker_closed_connections_total", "closed", 1.0)
        .await;
    assert_eq!(other.ping().await, []);
    publisher.send(&[0x62, 2, 0, 1]).await;
    publisher.publish(5, "a", b"next", 1, 2, false).await;
    assert_eq!(other.message().await.payload, b"next");
}

#[tokio::test]
async fn no_local_and_malformed_names_end_the_connection() {
    let broker = broker(Role::Admin).await;
    let table = [
        ("$share/g/a", 4, 0x82),
        ("$share//a", 0, 0x81),
        ("$share/g", 0, 0x81),
        ("$share/g/", 0, 0x81),
        ("$share/+/a", 0, 0x81),
        ("$share/g/a#", 0, 0x81),
    ];
    for (filter, options, reason) in table {
        let mut client = broker.v5("c").await;
        let body = [&[0, 1, 0][..], &string(filter), &[options]].concat();
        client.send(&packet(0x82, &body)).await;
        assert_eq!(client.closed().await, Some(reason), "{filter}");
    }
}

async fn durable(data: &Path) -> TestBroker {
    let data = data.to_owned();
    let edit = |config: &mut Config| config.data = Some(data);
    start(Role::Admin, authority(), None, edit).await
}

#[tokio::test]
async fn groups_and_what_waits_in_them_outlive_the_process() {
    let data = tempfile::tempdir().unwrap();
    let broker = durable(data.path()).await;
    for id in ["one", "two"] {
        let mut member = kept_client(&broker, id).await;
        member.subscribe(5, 1, "$share/g/a", 1).await;
        member.subscribe(5, 2, "a", 1).await;
        leave(member).await;
    }
    let mut publisher = broker.v5("p").await;
    publish(&mut publisher, "a", 1..=10).await;
    broker.stop().await;

    let broker = durable(data.path()).await;
    let mut publisher = broker.v5("p").await;
    publish(&mut publisher, "a", 11..=20).await;
    let mut shared = Vec::new();
    for id in ["one", "two"] {
        let mut member = kept_client(&broker, id).await;
        let mut got = next(&mut member, 30).await;
        for payload in 1..=20 {
            let own = got.iter().position(|&got| got == payload);
            got.remove(own.expect("by its own subscription"));
        }
        shared.extend(got);
        leave(member).await;
    }
    shared.sort_unstable();
    assert_eq!(shared, (1..=20).collect::<Vec<u8>>());
    // One ends its session: its share is the other's, in the next life too.
    let mut ending = broker.tcp().await;
    ending.connect(5, "one", &Options::default()).await;
    broker.stop().await;
    let broker = durable(data.path()).await;
    let mut other = kept_client(&broker, "two").await;
    assert_eq!(next(&mut other, 40).await.len(), 40);
    assert_eq!(other.ping().await, []);
    broker.stop().await;
}

#[tokio::test]
async fn a_group_that_all_left_is_no_more() {
    let broker = broker(Role::Admin).await;
    for _ in 0..3 {
        let mut member = broker.v5("m").await;
        member.subscribe(5, 1, "$share/g/a", 1).await;
        leave(member).await;
        let mut publisher = broker.v5("p").await;
        publish(&mut publisher, "a", 1..=3).await;
    }
    let mut member = broker.v5("m").await;
    member.subscribe(5, 1, "$share/g/a", 1).await;
    assert_eq!(member.ping().await, []);
}
