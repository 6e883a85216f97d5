//! Retained messages: all of them, in order, before what follows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bus_broker::Role;

use crate::support::{DEADLINE, Options, broker, publish};

const MANY: u32 = 10_000;

#[tokio::test]
async fn a_wildcard_subscriber_gets_all_of_them_and_then_what_follows() {
    let broker = broker(Role::Admin).await;
    let mut publisher = broker.v4("p").await;
    let mut bytes = Vec::new();
    for i in 0..MANY {
        let topic = format!("r/{}/{i}", i % 100);
        bytes.extend(publish(4, &topic, &i.to_be_bytes(), 0, 0, true, &[]));
    }
    publisher.send(&bytes).await;
    publisher.ping().await;

    let mut subscriber = broker.v5("s").await;
    subscriber.subscribe(5, 1, "r/#", 0).await;
    // The stream goes on meanwhile: each topic gets a newer value.
    let mut newer = Vec::new();
    for i in 0..MANY {
        let topic = format!("r/{}/{i}", i % 100);
        newer.extend(publish(
            4,
            &topic,
            &(i + MANY).to_be_bytes(),
            0,
            0,
            true,
            &[],
        ));
    }
    let writing = async {
        publisher.send(&newer).await;
        publisher.ping().await;
    };
    let reading = async {
        let (mut last, mut kept, mut live) = (BTreeMap::new(), 0, 0);
        while live < MANY {
            let message = subscriber.message().await;
            let value = u32::from_be_bytes(message.payload.try_into().unwrap());
            let before = last.insert(message.topic, value);
            assert!(
                before.is_none_or(|before| before < value),
                "older after newer"
            );
            if message.retain {
                kept += 1;
            } else {
                live += 1;
            }
        }
        kept
    };
    let both = async { tokio::join!(writing, reading) };
    let (_, kept) = tokio::time::timeout(3 * DEADLINE, both).await.unwrap();
    assert_eq!(kept, MANY);
    assert_eq!(broker.metric("bus_broker_gap_messages_total", ""), 0.0);
}

#[tokio::test]
async fn a_wildcard_subscriber_gets_100_000_of_them_at_qos_1() {
    const MANY: usize = 100_000;
    let broker = broker(Role::Admin).await;
    let mut publisher = broker.v4("p").await;
    for batch in (0..MANY).collect::<Vec<_>>().chunks(10_000) {
        let packets = (1..).zip(batch).flat_map(|(pid, i)| {
            let topic = format!("r/{}/{i}", i % 100);
            publish(4, &topic, b"x", 1, pid, true, &[])
        });
        let packets: Vec<u8> = packets.collect();
        publisher.send(&packets).await;
        for _ in batch {
            assert_eq!(publisher.packet().await.0, 0x40);
        }
    }
    let mut subscriber = broker.v5("s").await;
    subscriber.subscribe(5, 1, "r/#", 1).await;
    let (mut found, mut acknowledgements) = (vec![false; MANY], Vec::new());
    for count in 1..=MANY {
        let message = subscriber.message().await;
        assert!(message.retain && message.qos == 1 && !message.dup);
        let (_, number) = message.topic.rsplit_once('/').unwrap();
        found[number.parse::<usize>().unwrap()] = true;
        let [high, low] = message.pid.to_be_bytes();
        acknowledgements.extend([0x40, 2, high, low]);
        if count % 1000 == 0 {
            subscriber.send(&acknowledgements).await;
            acknowledgements.clear();
        }
    }
    assert!(found.iter().all(|found| *found));
    assert_eq!(subscriber.ping().await, []);
}

#[tokio::test]
async fn a_small_window_gets_all_of_them_too() {
    let broker = broker(Role::Admin).await;
    let mut publisher = broker.v4("p").await;
    let mut bytes = Vec::new();
    for i in 1..=MANY {
        let pid = u16::try_from(i % 60_000 + 1).unwrap();
        bytes.extend(publish(4, &format!("r/{i}"), b"x", 1, pid, true, &[]));
    }
    let acked = async {
        publisher.send(&bytes).await;
        for _ in 0..MANY {
            assert_eq!(publisher.packet().await.0, 0x40);
        }
    };
    tokio::time::timeout(DEADLINE, acked).await.unwrap();
    let mut subscriber = broker.tcp().await;
    let options = Options {
        properties: vec![0x21, 0, 7],
        ..Options::default()
    };
    subscriber.connect(5, "s", &options).await;
    subscriber.subscribe(5, 1, "#", 1).await;
    let mut topics = std::collections::BTreeSet::new();
    for _ in 0..MANY {
        let message = subscriber.message().await;
        assert!(message.retain && message.qos == 1);
        topics.insert(message.topic);
        let [high, low] = message.pid.to_be_bytes();
        subscriber.send(&[0x40, 2, high, low]).await;
    }
    assert_eq!(topics.len(), MANY as usize);
}

#[tokio::test]
async fn only_an_empty_retained_message_removes() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.v4("c").await;
    client.publish(4, "a", b"kept", 1, 1, true).await;
    client.publish(4, "a", b"", 1, 2, false).await;
    client.ping().await;
    assert_eq!(client.subscribe(4, 3, "a", 0).await, 0);
    let message = client.message().await;
    assert_eq!((&message.payload[..], message.retain), (&b"kept"[..], true));
    client.publish(4, "a", b"", 0, 0, true).await;
    // Those who are subscribed see it as any other message.
    let message = client.message().await;
    assert!(message.payload.is_empty() && !message.retain);
    let mut later = broker.v4("l").await;
    later.subscribe(4, 1, "a", 0).await;
    assert_eq!(later.ping().await, []);
}

#[tokio::test]
async fn retain_handling_is_the_subscribers() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.v5("c").await;
    client.publish(5, "a", b"x", 0, 0, true).await;
    // 2: never
    client.subscribe(5, 1, "a", 0x20).await;
    assert_eq!(client.ping().await, []);
    // 1: when the subscription is new
    client.subscribe(5, 2, "a", 0x10).await;
    assert_eq!(client.ping().await, []);
    client.subscribe(5, 3, "+", 0x10).await;
    assert_eq!(client.message().await.payload, b"x");
    // 0: each time
    for pid in [4, 5] {
        client.subscribe(5, pid, "a", 0).await;
        assert!(client.message().await.retain);
    }
}

#[tokio::test]
async fn the_broker_tells_of_itself_to_who_may_know() {
    let broker = broker(Role::Viewer).await;
    let mut viewer = broker.v5("v").await;
    assert_eq!(viewer.subscribe(5, 1, "$SYS/#", 0).await, 0x87);
    viewer.subscribe(5, 2, "b/#", 0).await;
    let mut admin = broker.role(Role::Admin, "admin").await;
    admin
        .subscribe(5, 1, "$SYS/broker/clients/connected", 0)
        .await;
    while admin.message().await.payload != b"2" {}
    admin.subscribe(5, 2, "$SYS/broker/version", 0).await;
    assert!(admin.message().await.payload.starts_with(b"nodebus "));
    // And a wildcard in front does not ask for it.
    admin.subscribe(5, 3, "#", 0).await;
    assert_eq!(admin.ping().await, []);
    assert_eq!(viewer.ping().await, []);
}

/// The first subscriber of all makes the broker ask for messages inside: nothing falls between that
/// and the retained message.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missing_between_the_retained_message_and_the_next() {
    let broker = broker(Role::Admin).await;
    let mut publisher = broker.v4("p").await;
    let is_over = AtomicBool::new(false);
    let writing = async {
        let mut number = 0_u32;
        while !is_over.load(Ordering::Relaxed) {
            let mut some = Vec::new();
            for _ in 0..20 {
                number += 1;
                some.extend(publish(4, "t", &number.to_be_bytes(), 0, 0, true, &[]));
            }
            // With a PINGREQ, so that no more is under way than the broker takes.
            some.extend([0xc0, 0]);
            publisher.send(&some).await;
            publisher.packet().await;
        }
    };
    let reading = async {
        for round in 0..100 {
            let mut subscriber = broker.v5(&format!("s{round}")).await;
            subscriber.subscribe(5, 1, "t", 0).await;
            let mut numbers = Vec::new();
            while numbers.len() < 50 {
                let message = subscriber.message().await;
                // Before the first is published there is none to begin with.
                assert!(message.retain || !numbers.is_empty() || round == 0);
                numbers.push(u32::from_be_bytes(message.payload.try_into().unwrap()));
            }
            let gap = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]);
            assert_eq!(gap, None, "in round {round}");
            subscriber.send(&[0xe0, 0]).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::time::timeout(3 * DEADLINE, async { tokio::join!(writing, reading) })
        .await
        .unwrap();
}
