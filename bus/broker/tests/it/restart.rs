//! What outlives the process.

use std::path::Path;
use std::time::Duration;

use bus_broker::{Config, Role};

use crate::support::{Options, TestBroker, authority, packet, start, string};

async fn durable(data: &Path) -> TestBroker {
    let data = data.to_owned();
    let edit = |config: &mut Config| config.data = Some(data);
    start(Role::Admin, authority(), None, edit).await
}

#[tokio::test]
async fn retained_messages_and_their_removal_outlive_the_process() {
    let data = tempfile::tempdir().unwrap();
    let broker = durable(data.path()).await;
    let mut client = broker.v5("c").await;
    for pid in 1..=1000_u16 {
        let topic = format!("a/{pid}");
        client.publish(5, &topic, b"x", 1, pid, true).await;
    }
    client.publish(5, "a/1", b"", 1, 1001, true).await;
    client.publish(5, "a/2", b"new", 2, 1002, true).await;
    client.publish(5, "a/3", b"not kept", 1, 1003, false).await;
    // In order, whatever waits for the store and what does not.
    for pid in 1..=1003_u16 {
        let kind = if pid == 1002 { 0x50 } else { 0x40 };
        let (first, body) = client.packet().await;
        assert_eq!((first, &body[..2]), (kind, &pid.to_be_bytes()[..]));
        assert_eq!(body.get(2).copied().unwrap_or(0), 0);
    }
    broker.stop().await;

    let broker = durable(data.path()).await;
    let mut client = broker.v5("c").await;
    client.subscribe(5, 1, "a/#", 1).await;
    for i in 2..=1000 {
        let message = client.message().await;
        assert!(message.retain);
        if i == 1000 {
            assert_eq!(message.topic, "a/2");
            assert_eq!(message.payload, b"new");
        } else {
            assert_eq!(message.topic, format!("a/{}", i + 1));
        }
    }
    // And what is published now comes after it.
    client.publish(5, "a/2", b"newer", 1, 1, true).await;
    assert_eq!(client.message().await.payload, b"newer");
    broker.stop().await;
}

#[tokio::test]
async fn a_store_that_is_in_use_is_an_error() {
    let data = tempfile::tempdir().unwrap();
    let broker = durable(data.path()).await;
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        pki: broker.pki.path().to_owned(),
        data: Some(data.path().to_owned()),
        ..Config::default()
    };
    let (admin, shutdown) = (bus::admin::Admin::default(), bus::shutdown::Shutdown::new());
    let error = bus_broker::start(config, &admin, &shutdown).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no other nodebus"), "{error}");
    broker.stop().await;
}

fn kept(expiry: u8) -> Options {
    Options {
        is_kept: true,
        properties: vec![0x11, 0, 0, 0, expiry],
        ..Options::default()
    }
}

#[tokio::test]
async fn a_session_and_what_waits_for_it_outlive_the_process() {
    let data = tempfile::tempdir().unwrap();
    let broker = durable(data.path()).await;
    let mut client = broker.tcp().await;
    client.connect(5, "c", &kept(60)).await;
    client.subscribe(5, 1, "a/#", 2).await;
    client.subscribe(5, 2, "gone", 2).await;
    let mut body = vec![0, 3, 0];
    body.extend(string("gone"));
    client.send(&packet(0xa2, &body)).await;
    client.packet().await;
    let mut publisher = broker.v5("p").await;
    publisher
        .publish(5, "a/1", b"acknowledged", 1, 1, false)
        .await;
    let first = client.message().await;
    let [high, low] = first.pid.to_be_bytes();
    client.send(&[0x40, 2, high, low]).await;
    publisher.publish(5, "a/2", b"released", 2, 2, false).await;
    let second = client.message().await;
    let [high, low] = second.pid.to_be_bytes();
    client.send(&[0x50, 2, high, low]).await;
    assert_eq!(client.packet().await, (0x62, vec![high, low]));
    publisher.publish(5, "a/3", b"sent", 2, 3, false).await;
    let third = client.message().await;
    // A QoS 2 message from the client that was not released either.
    client.publish(5, "other", b"x", 2, 77, false).await;
    assert_eq!(client.packet().await.0, 0x50);
    drop(client);
    broker
        .metric_reaches("bus_broker_closed_connections_total", "closed", 1.0)
        .await;
    publisher.publish(5, "a/4", b"queued", 1, 4, false).await;
    publisher.publish(5, "a/5", b"qos 0", 0, 0, false).await;
    publisher
        .publish(5, "gone", b"not asked for", 1, 5, false)
        .await;
    while publisher.packet().await.1[..2] != [0, 5] {}
    broker.stop().await;

    let broker = durable(data.path()).await;
    let mut client = broker.tcp().await;
    assert!(client.connect(5, "c", &kept(60)).await);
    assert_eq!(client.packet().await, (0x62, vec![high, low]));
    let again = client.message().await;
    assert_eq!(
        (again.pid, again.dup, &again.payload[..]),
        (third.pid, true, &b"sent"[..])
    );
    let queued = client.message().await;
    assert_eq!((queued.dup, &queued.payload[..]), (false, &b"queued"[..]));
    let mut watcher = broker.v5("w").await;
    watcher.subscribe(5, 1, "#", 0).await;
    client.publish(5, "other", b"x", 2, 77, false).await;
    assert_eq!(client.packet().await, (0x50, vec![0, 77]));
    assert_eq!(watcher.ping().await, []);
    // The subscription is alive.
    let mut publisher = broker.v5("p").await;
    publisher.publish(5, "a/6", b"live", 0, 0, false).await;
    assert_eq!(client.message().await.payload, b"live");
    broker.stop().await;
}

#[tokio::test]
async fn the_time_of_a_session_goes_on_while_there_is_no_process() {
    let data = tempfile::tempdir().unwrap();
    let broker = durable(data.path()).await;
    for (id, expiry) in [("short", 1), ("long", 60), ("clean", 60)] {
        let mut client = broker.tcp().await;
        client.connect(5, id, &kept(expiry)).await;
        client.subscribe(5, 1, "a", 1).await;
        client.send(&[0xe0, 0]).await;
        client.closed().await;
    }
    drop(broker.v5("clean").await);
    broker.stop().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let broker = durable(data.path()).await;
    let mut publisher = broker.v5("p").await;
    publisher.publish(5, "a", b"x", 1, 1, false).await;
    publisher.packet().await;
    for (id, is_present) in [("short", false), ("long", true), ("clean", false)] {
        let mut client = broker.tcp().await;
        assert_eq!(client.connect(5, id, &kept(60)).await, is_present, "{id}");
        if is_present {
            assert_eq!(client.message().await.payload, b"x");
        }
        assert_eq!(client.ping().await, []);
    }
    broker.stop().await;
}

#[tokio::test]
async fn what_waits_on_disk_is_bounded_and_the_oldest_goes_first() {
    let data = tempfile::tempdir().unwrap();
    let edit = |config: &mut Config| {
        config.data = Some(data.path().to_owned());
        config.limits.queue_messages = 50;
    };
    let broker = start(Role::Admin, authority(), None, edit).await;
    let mut client = broker.tcp().await;
    client.connect(5, "c", &kept(60)).await;
    client.subscribe(5, 1, "a", 2).await;
    client.send(&[0xe0, 0]).await;
    client.closed().await;
    let mut publisher = broker.v5("p").await;
    let qos = |pid: u16| if pid.is_multiple_of(3) { 2 } else { 1 };
    for pid in 1..=300_u16 {
        publisher
            .publish(5, "a", &pid.to_be_bytes(), qos(pid), pid, false)
            .await;
        publisher.packet().await;
        if qos(pid) == 2 {
            let [high, low] = pid.to_be_bytes();
            publisher.send(&[0x62, 2, high, low]).await;
            publisher.packet().await;
        }
    }
    let dropped = "bus_broker_dropped_messages_total";
    broker
        .metric_reaches(dropped, "oldest_of_absent", 200.0)
        .await;
    broker.stop().await;
    let broker = durable(data.path()).await;
    let mut client = broker.tcp().await;
    assert!(client.connect(5, "c", &kept(60)).await);
    for pid in 201..=300_u16 {
        let message = client.message().await;
        assert_eq!(
            (&message.payload[..], message.qos),
            (&pid.to_be_bytes()[..], qos(pid))
        );
    }
    assert_eq!(client.ping().await, []);
    broker.stop().await;
}
