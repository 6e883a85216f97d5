//! Wills: when they are published, and when not.

use std::time::Duration;

use bus_broker::Role;
use tokio::net::TcpStream;

use crate::support::{Options, Raw, TestBroker, broker};

fn with_will(delay: u8) -> Options {
    Options {
        will: Some(("w/c", "gone", 1, true)),
        will_properties: if delay > 0 {
            vec![0x18, 0, 0, 0, delay]
        } else {
            vec![]
        },
        ..Options::default()
    }
}

async fn watcher(broker: &TestBroker) -> Raw<TcpStream> {
    let mut watcher = broker.v5("watcher").await;
    watcher.subscribe(5, 1, "w/#", 1).await;
    watcher
}

#[tokio::test]
async fn a_will_follows_every_end_but_a_goodbye() {
    let broker = broker(Role::Admin).await;
    let mut watcher = watcher(&broker).await;
    // A DISCONNECT with 0x04, a wrong packet, a socket closed.
    for last_words in [&[0xe0, 1, 4][..], &[0xf8, 0][..], &[][..]] {
        let mut client = broker.tcp().await;
        client.connect(5, "c", &with_will(0)).await;
        client.send(last_words).await;
        drop(client);
        let message = watcher.message().await;
        assert_eq!(
            (&message.topic[..], &message.payload[..]),
            ("w/c", &b"gone"[..])
        );
    }
    // It was retained.
    let mut later = broker.v4("l").await;
    later.subscribe(4, 1, "w/#", 0).await;
    assert!(later.message().await.retain);
    // A normal DISCONNECT deletes it.
    for level in [4, 5] {
        let mut client = broker.tcp().await;
        client.connect(level, "c", &with_will(0)).await;
        client.send(&[0xe0, 0]).await;
        client.closed().await;
    }
    assert_eq!(watcher.ping().await, []);
}

#[tokio::test]
async fn a_take_over_publishes_the_old_will_before_anything_new() {
    let broker = broker(Role::Admin).await;
    let mut watcher = watcher(&broker).await;
    let mut first = broker.tcp().await;
    first.connect(4, "c", &with_will(0)).await;
    for _ in 0..20 {
        let mut next = broker.tcp().await;
        next.connect(4, "c", &with_will(0)).await;
        next.publish(4, "w/c", b"online", 1, 1, true).await;
        assert_eq!(watcher.message().await.payload, b"gone");
        assert_eq!(watcher.message().await.payload, b"online");
        first.closed().await;
        first = next;
    }
    // The will of the new one is still there.
    drop(first);
    assert_eq!(watcher.message().await.payload, b"gone");
}

#[tokio::test]
async fn a_delayed_will_waits_for_the_client() {
    let broker = broker(Role::Admin).await;
    let mut watcher = watcher(&broker).await;
    let options = Options {
        properties: vec![0x11, 0, 0, 0, 60],
        is_kept: true,
        ..with_will(1)
    };
    let mut client = broker.tcp().await;
    client.connect(5, "c", &options).await;
    drop(client);
    // Back in time: nothing is said.
    let mut client = broker.tcp().await;
    assert!(client.connect(5, "c", &options).await);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(watcher.ping().await, []);
    // Not back in time.
    drop(client);
    assert_eq!(watcher.message().await.payload, b"gone");
    // A clean start ends the session, and so the waiting.
    let options = Options {
        will_properties: vec![0x18, 0, 0, 0, 50],
        ..options
    };
    let mut client = broker.tcp().await;
    client.connect(5, "c", &options).await;
    drop(client);
    let closed = "bus_broker_closed_connections_total";
    broker.metric_reaches(closed, "closed", 3.0).await;
    let mut client = broker.tcp().await;
    client.connect(5, "c", &Options::default()).await;
    assert_eq!(watcher.message().await.payload, b"gone");
}

#[tokio::test]
async fn a_will_that_may_not_be_published_refuses_the_connection() {
    let broker = broker(Role::Viewer).await;
    let mut client = broker.tcp().await;
    let connack = client.try_connect(5, "c", &with_will(0)).await;
    assert_eq!(connack[..2], [0, 0x87]);
    let mut client = broker.tcp().await;
    assert_eq!(client.try_connect(4, "c", &with_will(0)).await, [0, 5]);
    assert_eq!(broker.metric("bus_broker_refused_total", "will"), 2.0);
}
