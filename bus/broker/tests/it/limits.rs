//! Each limit is set low, and gone over.

use std::net::SocketAddr;
use std::time::Duration;

use bus_broker::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{
    DEADLINE, Options, Raw, TestBroker, authority, broker_with, connect, publish, start,
};

const REFUSED: &str = "bus_broker_refused_total";

async fn is_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest));
    // A reset is a way to close, too.
    drop(read.await.expect("the connection ends"));
}

async fn connect_from(host: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{host}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn connections_in_total() {
    let broker = broker_with(Role::Admin, |limits| limits.connections = 3).await;
    let first = broker.v4("1").await;
    let (mut second, mut third) = (broker.v4("2").await, broker.v4("3").await);
    // From other addresses and at other listeners, too.
    for to in [broker.plain(), broker.started.mqtts] {
        is_closed(&mut connect_from("127.0.0.2", to).await).await;
    }
    assert_eq!(broker.metric(REFUSED, "\"connections\""), 2.0);
    assert_eq!(second.ping().await, []);
    drop(first);
    broker.metric_sinks("bus_broker_connections", 2.0).await;
    broker.v4("4").await;
    assert_eq!(third.ping().await, []);
}

#[tokio::test]
async fn connections_from_one_address() {
    let broker = broker_with(Role::Admin, |limits| limits.connections_per_address = 2).await;
    let (_first, _second) = (broker.v4("1").await, broker.v4("2").await);
    is_closed(&mut connect_from("127.0.0.1", broker.plain()).await).await;
    assert_eq!(broker.metric(REFUSED, "connections_per_address"), 1.0);
    let mut elsewhere = Raw::new(connect_from("127.0.0.2", broker.plain()).await);
    elsewhere.connect(4, "3", &Options::default()).await;
}

#[tokio::test]
async fn clients_of_one_name() {
    let broker = broker_with(Role::Viewer, |limits| limits.connections_per_identity = 2).await;
    let client = async |id: &str, level: u8| {
        let mut client = broker.tls(Some("urn:nodebus:viewer:ann")).await.unwrap();
        let code = client.try_connect(level, id, &Options::default()).await[1];
        (client, code)
    };
    let (mut first, code) = client("ann:1", 5).await;
    assert_eq!(code, 0);
    let (mut second, code) = client("ann:2", 5).await;
    assert_eq!(code, 0);
    assert_eq!(client("ann:3", 5).await.1, 0x97);
    assert_eq!(client("ann:3", 4).await.1, 3);
    assert_eq!(broker.metric(REFUSED, "connections_per_identity"), 2.0);
    // A take-over is no client more; another name has a count of its own.
    let (mut again, code) = client("ann:2", 5).await;
    assert_eq!((code, second.closed().await), (0, Some(0x8e)));
    broker.role(Role::Viewer, "bob").await;
    first.send(&[0xe0, 0]).await;
    first.closed().await;
    assert_eq!(client("ann:3", 5).await.1, 0);
    assert_eq!(again.ping().await, []);
}

#[tokio::test]
async fn the_time_until_connect() {
    let any: Option<SocketAddr> = Some("127.0.0.1:0".parse().unwrap());
    let broker = start(Role::Admin, authority(), None, |config| {
        config.limits.connect_timeout = Duration::from_secs(2);
        (config.ws_listen, config.wss_listen) = (any, any);
    })
    .await;
    let started = broker.started;
    let all = [
        started.mqtts,
        started.mqtt.unwrap(),
        started.ws.unwrap(),
        started.wss.unwrap(),
    ];
    let half_a_hello = [0x16, 3, 1, 1, 0, 1];
    let half_a_connect = &connect(4, "c", &Options::default())[..5];
    let half_a_request = b"GET / HTTP/1.1\r\n";
    // Who is in may be silent.
    let mut silent = broker.v4("silent").await;
    let beginnings = [
        &half_a_hello[..],
        half_a_connect,
        half_a_request,
        &half_a_hello,
    ];
    let ends = all.iter().zip(beginnings).flat_map(|(&to, beginning)| {
        [&b""[..], beginning].map(|bytes| async move {
            let mut stream = TcpStream::connect(to).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            is_closed(&mut stream).await;
        })
    });
    // Also behind the handshake.
    let mut shaken = broker.tls(Some("urn:nodebus:viewer:ann")).await.unwrap();
    tokio::join!(futures_util::future::join_all(ends), shaken.closed());
    assert_eq!(silent.ping().await, []);
}

/// A ClientHello, and nothing after it.
async fn stop_half_way(to: SocketAddr, broker: &TestBroker) -> TcpStream {
    let config = broker.client_config(None);
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    // It is under way once the broker has answered.
    stream.read_u8().await.unwrap();
    stream
}

#[tokio::test]
async fn handshakes_under_way() {
    let broker = broker_with(Role::Admin, |limits| limits.handshakes = 1).await;
    let (waiting, to) = ("bus_broker_waiting_handshakes", broker.started.mqtts);
    let half_way = stop_half_way(to, &broker).await;
    // The next one waits for its place, and gets it although the first one never goes on.
    let (mut next, ()) = tokio::join!(
        broker.role(Role::Admin, "next"),
        broker.metric_reaches(waiting, "", 1.0)
    );
    assert_eq!(next.ping().await, []);
    assert_eq!(broker.metric(waiting, ""), 0.0);
    drop(half_way);
}

#[tokio::test]
async fn messages_in_flight_towards_a_client() {
    let broker = broker_with(Role::Admin, |limits| limits.inflight = 2).await;
    for level in [4, 5] {
        let mut client = broker.tcp().await;
        client.connect(level, "c", &Options::default()).await;
        client.subscribe(level, 1, "w", 1).await;
        let mut publisher = broker.v5("p").await;
        for i in 1..=3 {
            publisher.publish(5, "w", &[i], 1, 1, false).await;
            publisher.packet().await;
        }
        let first = client.message().await;
        assert_eq!(client.message().await.payload, [2]);
        assert_eq!(client.ping().await, [], "a third before an acknowledgement");
        let [high, low] = first.pid.to_be_bytes();
        client.send(&[0x40, 2, high, low]).await;
        assert_eq!(client.message().await.payload, [3]);
    }
}

#[tokio::test]
async fn bytes_queued_for_an_absent_client() {
    let broker = broker_with(Role::Admin, |limits| limits.queue_bytes = 100_000).await;
    let kept = Options {
        is_kept: true,
        ..Options::default()
    };
    let mut client = broker.tcp().await;
    client.connect(4, "c", &kept).await;
    client.subscribe(4, 1, "w", 1).await;
    client.send(&[0xe0, 0]).await;
    client.closed().await;
    let mut publisher = broker.v5("p").await;
    for i in 0..100_u8 {
        publisher.publish(5, "w", &[i; 10_000], 1, 1, false).await;
        publisher.packet().await;
    }
    let dropped = "bus_broker_dropped_messages_total";
    broker
        .metric_reaches(dropped, "oldest_of_absent", 80.0)
        .await;
    let mut client = broker.tcp().await;
    assert!(client.connect(4, "c", &kept).await);
    let mut got = Vec::new();
    loop {
        let message = client.message().await;
        got.push(message.payload[0]);
        if message.payload[0] == 99 {
            break;
        }
    }
    // Twice the bound, and the newest ones.
    assert!((10..=20).contains(&got.len()), "{got:?}");
    assert!(got.windows(2).all(|pair| pair[1] == pair[0] + 1), "{got:?}");
}

#[tokio::test]
async fn bytes_queued_for_a_client_that_does_not_read() {
    let broker = broker_with(Role::Admin, |limits| limits.queue_bytes = 1_000_000).await;
    let mut slow = broker.v5("slow").await;
    slow.subscribe(5, 1, "flood", 1).await;
    let mut publisher = broker.v4("p").await;
    let (payload, mut sent) = (vec![0; 100_000], 0);
    // Unread bytes in the sockets hold some of them.
    while broker.metric("bus_broker_closed_connections_total", "quota_exceeded") < 1.0 {
        publisher.publish(4, "flood", &payload, 1, 7, false).await;
        publisher.packet().await;
        sent += 1;
        assert!(sent < 1000, "a slow client is never disconnected");
    }
}

#[tokio::test]
async fn sessions_kept() {
    let broker = broker_with(Role::Admin, |limits| limits.sessions = 2).await;
    let kept = Options {
        is_kept: true,
        ..Options::default()
    };
    for id in ["1", "2"] {
        let mut client = broker.tcp().await;
        client.connect(4, id, &kept).await;
        client.send(&[0xe0, 0]).await;
        client.closed().await;
    }
    for (level, refused) in [(4, 3), (5, 0x97)] {
        let mut third = broker.tcp().await;
        let connack = third.try_connect(level, "3", &Options::default()).await;
        assert_eq!(connack[1], refused);
    }
    assert_eq!(broker.metric(REFUSED, "sessions"), 2.0);
    assert!(broker.tcp().await.connect(4, "2", &kept).await);
}

#[tokio::test]
async fn messages_published_in_a_second() {
    let broker = broker_with(Role::Admin, |limits| limits.publish_rate = 10).await;
    let mut watcher = broker.v5("w").await;
    watcher.subscribe(5, 1, "#", 0).await;
    let (mut fast, mut other) = (broker.v4("fast").await, broker.v4("other").await);
    let flood: Vec<u8> = (1..=25_u16)
        .flat_map(|pid| publish(4, "fast", &pid.to_be_bytes(), 1, pid, false, &[]))
        .collect();
    fast.send(&flood).await;
    fast.send(&[0xc0, 0]).await;
    // The first second's worth, and the one with which it was noticed.
    for pid in 1..=11_u16 {
        assert_eq!(fast.packet().await, (0x40, pid.to_be_bytes().to_vec()));
    }
    // It is read no further, while others are; 14 messages are 1.4 s of its rate.
    other.publish(4, "other", b"x", 1, 1, false).await;
    assert_eq!(other.packet().await.0, 0x40);
    assert!(broker.metric("bus_broker_slowed_messages_total", "") >= 1.0);
    let before: Vec<_> = watch(&mut watcher, "other").await;
    assert!(before.len() < 25, "nothing slowed the flood");
    // Nothing is lost, and the PINGREQ behind it is answered in its turn.
    for pid in 12..=25_u16 {
        assert_eq!(fast.packet().await, (0x40, pid.to_be_bytes().to_vec()));
    }
    assert_eq!(fast.packet().await.0, 0xd0);
    assert!(broker.metric("bus_broker_slowed_messages_total", "") >= 14.0);
}

/// The messages before the one on `topic`.
async fn watch(watcher: &mut Raw<TcpStream>, topic: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        let message = watcher.message().await;
        if message.topic == topic {
            return before;
        }
        before.push(message.topic);
    }
}

#[tokio::test]
async fn a_client_that_is_slowed_is_not_taken_for_dead_and_a_dead_one_is() {
    let broker = broker_with(Role::Admin, |limits| limits.publish_rate = 1).await;
    let mut client = broker.tcp().await;
    let options = Options {
        keep_alive: 1,
        ..Options::default()
    };
    client.connect(5, "c", &options).await;
    // Longer than one and a half times its Keep Alive passes until all of it is read.
    let all = (1..=3_u16).flat_map(|pid| publish(5, "t", b"x", 1, pid, false, &[]));
    client.send(&all.collect::<Vec<_>>()).await;
    for pid in 1..=3_u16 {
        let (first, body) = client.packet().await;
        assert_eq!((first, &body[..2]), (0x40, &pid.to_be_bytes()[..]));
    }
    assert_eq!(client.ping().await, []);
    // From now on it is silent by itself.
    assert_eq!(client.closed().await, Some(0x8d));
}
