//! Messages from publisher to subscriber, in every QoS and between versions.

use std::time::Duration;

use bus_broker::Role;
use tokio::net::TcpStream;

use crate::support::{Options, Raw, broker, broker_with, packet, publish, string};

#[tokio::test]
async fn the_lower_qos_counts() {
    let broker = broker(Role::Admin).await;
    for (asked, sent) in [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
        (2, 2),
    ] {
        let mut subscriber = broker.v5("s").await;
        assert_eq!(subscriber.subscribe(5, 1, "q/+", asked).await, asked);
        let mut publisher = broker.v4("p").await;
        publisher.publish(4, "q/x", b"m", sent, 9, false).await;
        let message = subscriber.message().await;
        assert_eq!(
            (message.qos, message.payload),
            (asked.min(sent), b"m".to_vec())
        );
        assert!(!message.retain && !message.dup);
    }
}

async fn receive_qos_2(subscriber: &mut Raw<TcpStream>, expected: &[u8]) {
    let message = subscriber.message().await;
    assert_eq!((&message.payload[..], message.qos), (expected, 2));
    let [high, low] = message.pid.to_be_bytes();
    subscriber.send(&[0x50, 2, high, low]).await;
    assert_eq!(subscriber.packet().await, (0x62, vec![high, low]));
    subscriber.send(&[0x70, 2, high, low]).await;
}

#[tokio::test]
async fn qos_2_is_delivered_once() {
    let broker = broker(Role::Admin).await;
    let mut subscriber = broker.v4("s").await;
    subscriber.subscribe(4, 1, "#", 2).await;
    let mut publisher = broker.v4("p").await;
    publisher.publish(4, "a", b"1", 2, 5, false).await;
    assert_eq!(publisher.packet().await, (0x50, vec![0, 5]));
    // Sent again before PUBREL, it is the same message.
    let mut again = publish(4, "a", b"1", 2, 5, false, &[]);
    again[0] |= 8;
    publisher.send(&again).await;
    assert_eq!(publisher.packet().await, (0x50, vec![0, 5]));
    publisher.send(&[0x62, 2, 0, 5]).await;
    assert_eq!(publisher.packet().await, (0x70, vec![0, 5]));
    receive_qos_2(&mut subscriber, b"1").await;
    // The same identifier now is another message.
    publisher.publish(4, "a", b"2", 2, 5, false).await;
    assert_eq!(publisher.packet().await, (0x50, vec![0, 5]));
    receive_qos_2(&mut subscriber, b"2").await;
    assert_eq!(subscriber.ping().await, []);
}

#[tokio::test]
async fn overlapping_filters_deliver_once_with_the_highest_qos() {
    let broker = broker(Role::Admin).await;
    let mut subscriber = broker.v5("s").await;
    for (id, (filter, qos)) in [("a/#", 0), ("a/+", 2), ("+/b", 1)].into_iter().enumerate() {
        let mut body = vec![0, 1, 2, 0x0b, u8::try_from(id + 1).unwrap()];
        body.extend(string(filter));
        body.push(qos);
        subscriber.send(&packet(0x82, &body)).await;
        assert_eq!(subscriber.packet().await.0, 0x90);
    }
    let mut publisher = broker.v5("p").await;
    for i in 0..100_u8 {
        publisher
            .publish(5, "a/b", &[i], 1, u16::from(i) + 1, false)
            .await;
    }
    for i in 0..100_u8 {
        let message = subscriber.message().await;
        assert_eq!((message.payload, message.qos), (vec![i], 1));
        let mut ids = message
            .properties
            .chunks(2)
            .map(|p| p[1])
            .collect::<Vec<_>>();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);
    }
    assert_eq!(subscriber.ping().await, []);
}

#[tokio::test]
async fn giving_up_one_of_overlapping_filters_loses_nothing() {
    let broker = broker(Role::Admin).await;
    let mut subscriber = broker.v4("s").await;
    subscriber.subscribe(4, 1, "a/#", 1).await;
    subscriber.subscribe(4, 2, "a/+", 1).await;
    let mut publisher = broker.v4("p").await;
    let mut got = Vec::new();
    for i in 0..200_u8 {
        publisher
            .publish(4, "a/b", &[i], 1, u16::from(i) + 1, false)
            .await;
        if i == 100 {
            let mut body = vec![0, 3];
            body.extend(string("a/#"));
            subscriber.send(&packet(0xa2, &body)).await;
        }
    }
    while got.len() < 200 {
        let (first, body) = subscriber.packet().await;
        if first & 0xf0 == 0x30 {
            got.push(subscriber.parse(first, &body).payload[0]);
        } else {
            assert_eq!((first, body), (0xb0, vec![0, 3]));
        }
    }
    assert_eq!(got, (0..200).collect::<Vec<u8>>());
    publisher.publish(4, "a/b/c", b"no", 1, 999, false).await;
    publisher.publish(4, "a/c", b"yes", 1, 998, false).await;
    assert_eq!(subscriber.message().await.payload, b"yes");
}

#[tokio::test]
async fn properties_go_through_and_are_spared_to_old_clients() {
    let broker = broker(Role::Admin).await;
    let mut new = broker.v5("new").await;
    new.subscribe(5, 1, "p", 0).await;
    let mut old = broker.v4("old").await;
    old.subscribe(4, 1, "p", 0).await;
    let mut publisher = broker.v5("p").await;
    let mut kept = vec![1, 1, 3];
    kept.extend(string("text/plain"));
    kept.push(8);
    kept.extend(string("r/1"));
    kept.push(9);
    kept.extend(string("id"));
    for value in ["1", "2"] {
        kept.push(0x26);
        kept.extend(string("key"));
        kept.extend(string(value));
    }
    let mut sent = vec![2, 0, 0, 0, 60];
    sent.extend(&kept);
    publisher
        .send(&publish(5, "p", b"x", 0, 0, false, &sent))
        .await;
    let message = new.message().await;
    let (expiry, rest) = message.properties.split_at(5);
    assert!(matches!(expiry, [2, 0, 0, 0, 59 | 60]), "{expiry:?}");
    assert_eq!(rest, kept);
    assert_eq!(old.message().await.payload, b"x");
}

#[tokio::test]
async fn no_local_and_retain_as_published() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.v5("c").await;
    client.subscribe(5, 1, "own", 4).await;
    client.subscribe(5, 2, "flag", 8).await;
    client.subscribe(5, 3, "plain", 0).await;
    client.publish(5, "own", b"x", 0, 0, false).await;
    client.publish(5, "flag", b"x", 0, 0, true).await;
    client.publish(5, "plain", b"x", 0, 0, true).await;
    let mut other = broker.v5("o").await;
    other.publish(5, "own", b"other", 0, 0, false).await;
    let mut got = Vec::new();
    for _ in 0..3 {
        let message = client.message().await;
        got.push((message.topic, message.retain));
    }
    got.sort();
    let expected = [("flag", true), ("own", false), ("plain", false)];
    assert_eq!(
        got,
        expected.map(|(topic, retain)| (topic.to_owned(), retain))
    );
}

#[tokio::test]
async fn topic_aliases_stand_for_topics() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.v5("c").await;
    client.subscribe(5, 1, "#", 0).await;
    client
        .send(&publish(5, "long/topic", b"1", 0, 0, false, &[0x23, 0, 1]))
        .await;
    client
        .send(&publish(5, "", b"2", 0, 0, false, &[0x23, 0, 1]))
        .await;
    for payload in [b"1", b"2"] {
        let message = client.message().await;
        assert_eq!(
            (&message.topic[..], &message.payload[..]),
            ("long/topic", &payload[..])
        );
        assert!(message.properties.is_empty());
    }
    client
        .send(&publish(5, "x", b"", 0, 0, false, &[0x23, 0, 17]))
        .await;
    assert_eq!(client.closed().await, Some(0x94));
}

#[tokio::test]
async fn the_clients_receive_maximum_and_packet_size_are_kept() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.tcp().await;
    let options = Options {
        properties: vec![0x21, 0, 2, 0x27, 0, 0, 0, 40],
        ..Options::default()
    };
    client.connect(5, "c", &options).await;
    client.subscribe(5, 1, "w", 1).await;
    let mut publisher = broker.v5("p").await;
    publisher.publish(5, "w", &[0; 50], 1, 1, false).await;
    for i in 1..=4 {
        publisher.publish(5, "w", &[i], 1, 1, false).await;
    }
    let (one, two) = (client.message().await, client.message().await);
    assert_eq!((&one.payload[..], &two.payload[..]), (&[1][..], &[2][..]));
    broker
        .metric_reaches("bus_broker_received_messages_total", "", 5.0)
        .await;
    assert_eq!(client.ping().await, []);
    let [high, low] = one.pid.to_be_bytes();
    client.send(&[0x40, 2, high, low]).await;
    assert_eq!(client.message().await.payload, [3]);
    assert_eq!(client.ping().await, []);
    assert!(broker.metric("bus_broker_dropped_messages_total", "too_large") >= 1.0);
}

#[tokio::test]
async fn a_message_expires_in_the_queue() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.tcp().await;
    let options = Options {
        properties: vec![0x21, 0, 1],
        ..Options::default()
    };
    client.connect(5, "c", &options).await;
    client.subscribe(5, 1, "e", 1).await;
    let mut publisher = broker.v5("p").await;
    publisher.publish(5, "e", b"first", 1, 1, false).await;
    let first = client.message().await;
    publisher
        .send(&publish(5, "e", b"short", 1, 2, false, &[2, 0, 0, 0, 1]))
        .await;
    publisher.publish(5, "e", b"last", 1, 3, false).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let [high, low] = first.pid.to_be_bytes();
    client.send(&[0x40, 2, high, low]).await;
    assert_eq!(client.message().await.payload, b"last");
}

#[tokio::test]
async fn unsubscribe_says_what_was_there() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.v5("c").await;
    client.subscribe(5, 1, "a", 0).await;
    let mut body = vec![0, 2, 0];
    body.extend(string("a"));
    body.extend(string("b"));
    client.send(&packet(0xa2, &body)).await;
    assert_eq!(client.packet().await, (0xb0, vec![0, 2, 0, 0, 0x11]));
    client.publish(5, "a", b"x", 0, 0, false).await;
    assert_eq!(client.ping().await, []);
    // And again, on a link made anew.
    client.subscribe(5, 3, "a", 0).await;
    client.publish(5, "a", b"x", 0, 0, false).await;
    assert_eq!(client.message().await.payload, b"x");
}

#[tokio::test]
async fn a_refusal_says_what_can_be_done_unless_nobody_wants_to_know() {
    let broker = broker(Role::Viewer).await;
    // Request Problem Information: by default, no, and in a small packet.
    let small = [0x27, 0, 0, 0, 50];
    for (properties, explained) in [(&[][..], true), (&[0x17, 0], false), (&small, false)] {
        let mut client = broker.tcp().await;
        let options = Options {
            properties: properties.to_vec(),
            ..Options::default()
        };
        client.connect(5, "c", &options).await;
        let long = [
            &b"\0\x01\0"[..],
            &string("not/mine"),
            &[0],
            &string("b/#"),
            &[0],
        ]
        .concat();
        client.send(&packet(0x82, &long)).await;
        let (_, suback) = client.packet().await;
        assert_eq!(suback[suback.len() - 2..], [0x87, 0]);
        assert_eq!(suback[2] > 0, explained, "{properties:?}");
        client.publish(5, "not/mine", b"", 1, 1, false).await;
        let (_, puback) = client.packet().await;
        assert_eq!((puback[2], puback.len() > 4), (0x87, explained));
        let text = String::from_utf8_lossy(&puback);
        assert_eq!(text.contains("access list"), explained);
    }
}

#[tokio::test]
async fn a_keep_alive_is_at_most_the_brokers() {
    let longest = Duration::from_secs(1);
    let broker = broker_with(Role::Admin, |limits| limits.keep_alive = longest).await;
    for asked in [0, 2] {
        let mut client = broker.tcp().await;
        let options = Options {
            keep_alive: asked,
            ..Options::default()
        };
        let connack = client.try_connect(5, "c", &options).await;
        let told = connack.windows(3).any(|bytes| bytes == [0x13, 0, 1]);
        assert!(told, "{connack:?}");
        assert_eq!(client.closed().await, Some(0x8d));
        // It can't be told, and goes by its own.
        client = broker.tcp().await;
        client.connect(4, "c", &options).await;
        assert_eq!(client.ping().await, []);
    }
}
