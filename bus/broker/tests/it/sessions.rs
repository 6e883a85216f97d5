//! Sessions over connections: kept, taken over, ended.

use std::time::Duration;

use bus_broker::Role;

use crate::support::{DEADLINE, Options, broker, broker_with, packet, publish, string};

fn kept() -> Options {
    Options {
        is_kept: true,
        ..Options::default()
    }
}

#[tokio::test]
async fn an_absent_client_gets_its_messages_later() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.tcp().await;
    assert!(!client.connect(4, "c", &kept()).await);
    client.subscribe(4, 1, "a/#", 1).await;
    client.send(&[0xe0, 0]).await;
    client.closed().await;
    let mut publisher = broker.v4("p").await;
    publisher.publish(4, "a/b", b"qos 0", 0, 0, false).await;
    // More bytes than may be under way within the broker, so that the first one came to its end.
    let numbered = |i: u16| [&i.to_be_bytes()[..], &[0; 1024]].concat();
    for i in 1..=1000_u16 {
        publisher.publish(4, "a/b", &numbered(i), 1, i, false).await;
    }
    publisher.ping().await;

    let mut client = broker.tcp().await;
    assert!(client.connect(4, "c", &kept()).await);
    for i in 1..=1000_u16 {
        assert_eq!(client.message().await.payload, numbered(i));
    }
    // A clean session forgets it all.
    let mut client = broker.v4("c").await;
    publisher.publish(4, "a/b", b"x", 1, 1, false).await;
    publisher.ping().await;
    assert_eq!(client.ping().await, []);
    let mut client = broker.tcp().await;
    assert!(!client.connect(4, "c", &kept()).await);
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.tcp().await;
    client.connect(4, "c", &kept()).await;
    client.subscribe(4, 1, "a", 2).await;
    let mut publisher = broker.v4("p").await;
    publisher.publish(4, "a", b"1", 1, 1, false).await;
    publisher.publish(4, "a", b"2", 2, 2, false).await;
    publisher.publish(4, "a", b"3", 2, 3, false).await;
    let (one, two, three) = (
        client.message().await,
        client.message().await,
        client.message().await,
    );
    let [high, low] = two.pid.to_be_bytes();
    client.send(&[0x50, 2, high, low]).await;
    assert_eq!(client.packet().await, (0x62, vec![high, low]));
    drop(client);

    let mut client = broker.tcp().await;
    assert!(client.connect(4, "c", &kept()).await);
    let again = client.message().await;
    assert_eq!(
        (again.pid, again.dup, again.payload),
        (one.pid, true, b"1".to_vec())
    );
    assert_eq!(client.packet().await, (0x62, vec![high, low]));
    let again = client.message().await;
    assert_eq!(
        (again.pid, again.dup, again.payload),
        (three.pid, true, b"3".to_vec())
    );
}

#[tokio::test]
async fn a_second_connection_takes_over() {
    let broker = broker(Role::Admin).await;
    let mut first = broker.tcp().await;
    let options = Options {
        properties: vec![0x11, 0, 0, 0, 60],
        is_kept: true,
        ..Options::default()
    };
    first.connect(5, "c", &options).await;
    first.subscribe(5, 1, "a", 1).await;
    let mut second = broker.tcp().await;
    assert!(second.connect(5, "c", &options).await);
    assert_eq!(first.closed().await, Some(0x8e));
    second.publish(5, "a", b"x", 0, 0, false).await;
    assert_eq!(second.message().await.payload, b"x");
}

#[tokio::test]
async fn a_session_ends_when_it_expires() {
    let broker = broker(Role::Admin).await;
    let options = Options {
        properties: vec![0x11, 0, 0, 0, 1],
        is_kept: true,
        ..Options::default()
    };
    let mut client = broker.tcp().await;
    client.connect(5, "c", &options).await;
    drop(client);
    let mut client = broker.tcp().await;
    assert!(client.connect(5, "c", &options).await);
    // DISCONNECT may shorten it.
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    client.closed().await;
    let mut client = broker.tcp().await;
    assert!(!client.connect(5, "c", &options).await);
    drop(client);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut client = broker.tcp().await;
    assert!(!client.connect(5, "c", &options).await);
}

#[tokio::test]
async fn a_client_without_an_identifier_gets_one() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.tcp().await;
    let connack = client.try_connect(5, "", &Options::default()).await;
    let at = connack.windows(2).position(|w| w == [0x12, 0]).unwrap();
    assert!(String::from_utf8_lossy(&connack[at + 3..]).starts_with("anonymous:"));
    let mut client = broker.tcp().await;
    assert!(!client.connect(4, "", &Options::default()).await);
    let mut client = broker.tcp().await;
    assert_eq!(client.try_connect(4, "", &kept()).await, [0, 2]);
}

#[tokio::test]
async fn keep_alive_counts_the_clients_bytes_only() {
    let broker = broker(Role::Admin).await;
    let mut quiet = broker.tcp().await;
    let options = Options {
        keep_alive: 1,
        ..Options::default()
    };
    quiet.connect(5, "quiet", &options).await;
    quiet.subscribe(5, 1, "chatter", 0).await;
    let mut off = broker.v5("off").await;
    let mut publisher = broker.v5("p").await;
    let chatter = async {
        loop {
            publisher.publish(5, "chatter", b"x", 0, 0, false).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        reason = quiet.closed() => assert_eq!(reason, Some(0x8d)),
        () = chatter => {}
    }
    assert_eq!(off.ping().await, []);
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_qos_0_then_its_connection() {
    let broker = broker_with(Role::Admin, |limits| {
        limits.queue_messages = 100;
    })
    .await;
    let mut slow = broker.v5("slow").await;
    slow.subscribe(5, 1, "flood", 1).await;
    let mut fast = broker.v5("fast").await;
    fast.subscribe(5, 1, "flood", 0).await;
    let mut publisher = broker.v4("p").await;
    let payload = vec![0; 100_000];
    for qos in [0, 1] {
        for i in 0..150_u16 {
            publisher
                .publish(4, "flood", &payload, qos, i + 1, false)
                .await;
            // The fast one is not slowed.
            assert_eq!(fast.message().await.payload.len(), payload.len());
        }
    }
    // Unread bytes in the sockets hold some of them.
    let mut sent = 300;
    while broker.metric("bus_broker_closed_connections_total", "quota_exceeded") < 1.0 {
        publisher.publish(4, "flood", &payload, 1, 7, false).await;
        fast.message().await;
        sent += 1;
        assert!(sent < 2000, "a slow client is never disconnected");
    }
    assert!(broker.metric("bus_broker_dropped_messages_total", "queue_full") > 0.0);
    broker.lives().await;
}

#[tokio::test]
async fn subscriptions_of_a_session_are_bounded() {
    let broker = broker_with(Role::Admin, |limits| limits.subscriptions = 2).await;
    let mut client = broker.v5("c").await;
    assert_eq!(client.subscribe(5, 1, "a", 0).await, 0);
    assert_eq!(client.subscribe(5, 2, "b", 0).await, 0);
    assert_eq!(client.subscribe(5, 3, "c", 0).await, 0x97);
    assert_eq!(client.subscribe(5, 4, "a", 1).await, 1);
    let mut body = vec![0, 5, 0];
    body.extend(string("a"));
    client.send(&packet(0xa2, &body)).await;
    client.packet().await;
    assert_eq!(client.subscribe(5, 6, "c", 0).await, 0);
}

#[tokio::test]
async fn a_stop_says_goodbye() {
    let broker = broker(Role::Admin).await;
    let mut new = broker.v5("new").await;
    new.subscribe(5, 1, "a", 0).await;
    let mut old = broker.tcp().await;
    old.connect(4, "old", &kept()).await;
    old.subscribe(4, 1, "a", 1).await;
    broker.shutdown.stop();
    assert_eq!(new.closed().await, Some(0x8b));
    assert_eq!(old.closed().await, None);
    assert!(broker.shutdown.drained(DEADLINE).await);
    assert_eq!(broker.shutdown.failure(), None);
    let refused = tokio::net::TcpStream::connect(broker.plain()).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn the_watchdogs_message_comes_through() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.v5("c").await;
    client.subscribe(5, 1, "#", 0).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(broker.metric("bus_broker_watchdog_age_seconds", "") < 2.0);
    // And nobody else sees it.
    assert_eq!(client.ping().await, []);
    let publish = publish(5, "$nodebus/watchdog", b"", 1, 1, false, &[]);
    client.send(&publish).await;
    assert_eq!(client.packet().await.1[..3], [0, 1, 0x90]);
    // MQTT 3.1.1 has no word for it, and goes on.
    let mut old = broker.v4("old").await;
    old.publish(4, "$nodebus/watchdog", b"", 1, 1, false).await;
    assert_eq!(old.packet().await, (0x40, vec![0, 1]));
    assert_eq!(old.ping().await, []);
}
