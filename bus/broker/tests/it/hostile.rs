//! What nobody should send, and what ended rumqttd when somebody did.

use bus_broker::Role;
use tokio::io::AsyncWriteExt;

use crate::support::{
    DEADLINE, Options, Raw, broker, broker_with, connect, packet, publish, string,
};

#[tokio::test]
async fn a_malformed_packet_ends_its_connection_only() {
    let broker = broker(Role::Admin).await;
    let mut bystander = broker.v5("bystander").await;
    let mut wildcard = string("a/#");
    wildcard.extend(b"x");
    let mut nul = string("a\0b");
    nul.extend(b"x");
    let mut bad_utf8 = vec![0, 2, 0xff, 0xfe];
    bad_utf8.push(b'x');
    let packets: Vec<Vec<u8>> = vec![
        vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
        vec![0x36, 5, 0, 1, b'a', 0, 1],
        packet(0x30, &wildcard),
        packet(0x30, &nul),
        packet(0x30, &bad_utf8),
        packet(0x32, &[0, 1, b'a', 0, 0]),
        vec![0x30, 1, 0],
        vec![0x82, 2, 0, 1],
        vec![0x80, 6, 0, 1, 0, 1, b'a', 0],
        vec![0x82, 6, 0, 1, 0, 1, b'a', 3],
        vec![0xa2, 2, 0, 1],
        vec![0x40, 1, 0],
        vec![0x60, 2, 0, 1],
        vec![0xc1, 0],
        vec![0xc0, 1, 0],
        vec![0xe0, 1, 0],
        vec![0x00, 0],
        vec![0xf0, 0],
        // Packets of servers, and a second CONNECT.
        vec![0x20, 2, 0, 0],
        vec![0x90, 3, 0, 1, 0],
        vec![0xb0, 2, 0, 1],
        vec![0xd0, 0],
        connect(4, "again", &Options::default()),
    ];
    for bytes in &packets {
        let mut client = broker.v4("c").await;
        client.send(bytes).await;
        client.closed().await;
        // With MQTT 5, the reason is told.
        let mut client = broker.v5("c").await;
        client.send(bytes).await;
        if let Some(reason) = client.closed().await {
            assert!(reason >= 0x80, "{reason:x}");
        }
    }
    let malformed = broker.metric("bus_broker_malformed_packets_total", "");
    assert!(malformed >= packets.len() as f64, "{malformed}");
    assert_eq!(bystander.ping().await, []);
    broker.lives().await;
}

#[tokio::test]
async fn a_wrong_beginning_is_no_connection() {
    let broker = broker(Role::Admin).await;
    let beginnings: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 2, 0, 1],
        vec![0xc0, 0],
        publish(4, "a", b"x", 0, 0, false, &[]),
        packet(0x10, b"\0\x04MQTX\x04\x02\0\0\0\x01c"),
        packet(0x10, b"\0\x04MQTT\x04\x03\0\0\0\x01c"),
        packet(0x10, b"\0\x04MQTT\x04\x1a\0\0\0\x01c"),
        packet(0x10, b"\0\x04MQTT\x04\x02\0\0\0\x05c"),
        packet(0x10, b"\0\x04"),
    ];
    for bytes in beginnings {
        let mut client = broker.tcp().await;
        client.send(&bytes).await;
        assert_eq!(client.closed().await, None, "{bytes:?}");
    }
    // MQTT 3.1 is told which version it would need.
    let mut client = broker.tcp().await;
    client
        .send(&packet(0x10, b"\0\x06MQIsdp\x03\x02\0\0\0\x01c"))
        .await;
    assert_eq!(client.packet().await, (0x20, vec![0, 1]));
    broker.lives().await;
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_its_connection() {
    let broker = broker_with(Role::Admin, |limits| limits.packet_bytes = 1000).await;
    let mut client = broker.v5("c").await;
    // Its header is enough; nothing waits for the rest.
    client.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
    assert_eq!(client.closed().await, Some(0x95));
    broker.lives().await;
}

#[tokio::test]
async fn plain_bytes_on_the_tls_port_are_refused() {
    let broker = broker(Role::Admin).await;
    let mut stream = tokio::net::TcpStream::connect(broker.started.mqtts)
        .await
        .unwrap();
    stream
        .write_all(&connect(4, "c", &Options::default()))
        .await
        .unwrap();
    broker
        .metric_reaches("bus_broker_handshakes_total", "tls", 1.0)
        .await;
    broker.lives().await;
}

// The seven triggers that end rumqttd 0.20 for everybody; each is one client, and most mean no harm.
// The first two and the last two end its listener (and so does a client that tries again while the
// broker is full), the others its Router.

#[tokio::test]
async fn survives_a_reset_before_connack_and_the_same_client_again() {
    let broker = broker(Role::Admin).await;
    for _ in 0..50 {
        let stream = broker.tcp().await.into_stream();
        // Closing it resets the connection.
        socket2::SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        let mut client = Raw::new(stream);
        client.send(&connect(4, "c", &Options::default())).await;
        drop(client);
    }
    let mut client = broker.v4("c").await;
    assert_eq!(client.ping().await, []);
    broker.lives().await;
}

#[tokio::test]
async fn survives_client_identifiers_with_wildcards() {
    let broker = broker(Role::Admin).await;
    for id in ["a/b", "#", "+", "$x", "a/b", "#", "é/日本"] {
        let mut client = broker.v4(id).await;
        client.subscribe(4, 1, "x", 1).await;
        assert_eq!(client.ping().await, []);
    }
    broker.lives().await;
}

#[tokio::test]
async fn survives_a_client_that_tries_again_while_the_broker_is_full() {
    let broker = broker_with(Role::Admin, |limits| limits.connections = 3).await;
    let mut clients = Vec::new();
    for id in ["a", "b", "c"] {
        clients.push(broker.v4(id).await);
    }
    for _ in 0..20 {
        let mut late = broker.tcp().await;
        late.try_send(&connect(4, "late", &Options::default()))
            .await;
        assert_eq!(late.closed().await, None);
    }
    assert_eq!(
        broker.metric("bus_broker_refused_total", "\"connections\""),
        20.0
    );
    drop(clients.pop());
    broker
        .metric_reaches("bus_broker_closed_connections_total", "closed", 1.0)
        .await;
    let there_is_room = async {
        while !broker.tries("late").await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, there_is_room).await.unwrap();
    for client in &mut clients {
        assert_eq!(client.ping().await, []);
    }
}

#[tokio::test]
async fn survives_a_disconnect_with_a_backlog() {
    let broker = broker(Role::Admin).await;
    let address = broker.plain();
    let flood = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let mut batch = connect(4, "flood", &Options::default());
        for _ in 0..200 {
            batch.extend(publish(4, "f", &[0; 64], 0, 0, false, &[]));
        }
        stream.write_all(&batch).unwrap();
        let one = publish(4, "f", &[0; 64], 0, 0, false, &[]);
        let burst = one.repeat(500);
        for _ in 0..400 {
            stream.write_all(&burst).unwrap();
        }
    });
    let mut cycles = 0;
    while !flood.is_finished() || cycles < 30 {
        let mut client = broker.tcp().await;
        let options = Options {
            is_kept: cycles % 2 == 0,
            ..Options::default()
        };
        client.connect(4, "c", &options).await;
        client.send(&packet(0x82, b"\0\x01\0\x01f\x00")).await;
        // A bad acknowledgement now and then instead of a DISCONNECT.
        let last: &[u8] = if cycles % 3 == 0 {
            &[0x40, 2, 0, 99]
        } else {
            &[0xe0, 0]
        };
        client.send(last).await;
        cycles += 1;
    }
    flood.await.unwrap();
    assert!(broker.shutdown.failure().is_none());
    broker.lives().await;
}

#[tokio::test]
async fn survives_topics_beyond_ascii() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.tcp().await;
    let options = Options {
        will: Some(("日本/w", "gone", 0, false)),
        ..Options::default()
    };
    client.connect(4, "c", &options).await;
    let mut watcher = broker.v4("w").await;
    watcher.subscribe(4, 1, "#", 0).await;
    client.publish(4, "é/x", b"x", 0, 0, false).await;
    assert_eq!(watcher.message().await.topic, "é/x");
    drop(client);
    assert_eq!(watcher.message().await.topic, "日本/w");
    broker.lives().await;
}

#[tokio::test]
async fn survives_a_shared_subscription_left_with_a_message_unacknowledged() {
    let broker = broker(Role::Admin).await;
    for _ in 0..3 {
        let mut client = broker.tcp().await;
        let options = Options {
            is_kept: true,
            ..Options::default()
        };
        client.connect(4, "c", &options).await;
        assert_eq!(client.subscribe(4, 1, "$share/g/t", 1).await, 1);
        let mut publisher = broker.v4("p").await;
        publisher.publish(4, "t", b"x", 1, 1, false).await;
        client.message().await;
    }
    broker.lives().await;
}

#[tokio::test]
async fn survives_properties_towards_an_old_client_and_its_return() {
    let broker = broker(Role::Admin).await;
    for _ in 0..3 {
        let mut old = broker.v4("old").await;
        old.subscribe(4, 1, "t", 1).await;
        let mut new = broker.v5("new").await;
        let properties = [&[0x26][..], &string("k"), &string("v")].concat();
        new.send(&publish(5, "t", b"x", 1, 1, false, &properties))
            .await;
        assert_eq!(old.message().await.payload, b"x");
    }
    broker.lives().await;
}

#[tokio::test]
async fn survives_packets_of_servers_from_a_client_and_its_return() {
    let broker = broker(Role::Admin).await;
    for bytes in [&[0x20, 3, 0, 0, 0][..], &[0xb0, 4, 0, 1, 0, 0][..]] {
        for _ in 0..3 {
            let mut client = broker.v5("c").await;
            client.send(bytes).await;
            assert_eq!(client.closed().await, Some(0x82));
        }
    }
    broker.lives().await;
}

#[tokio::test]
async fn survives_random_packets() {
    let broker = broker(Role::Admin).await;
    // A small generator with a fixed seed: a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let seeds = [
        publish(5, "a/b", b"payload", 1, 7, true, &[2, 0, 0, 0, 9]),
        packet(0x82, b"\0\x01\0\0\x03a/+\x01"),
        packet(0xa2, b"\0\x01\0\0\x03a/+"),
        vec![0x40, 4, 0, 1, 0, 0],
        vec![0x62, 2, 0, 7],
        vec![0xe0, 2, 0, 0],
        vec![0xc0, 0],
    ];
    for round in 0..300 {
        let level = if round % 2 == 0 { 4 } else { 5 };
        let mut client = broker.tcp().await;
        client.connect(level, "fuzz", &Options::default()).await;
        for _ in 0..8 {
            let mut bytes = seeds[random(seeds.len())].clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = u8::try_from(random(256)).unwrap();
            }
            if !client.try_send(&bytes).await {
                break;
            }
        }
    }
    assert!(broker.shutdown.failure().is_none());
    assert_eq!(broker.metric("bus_broker_gap_messages_total", ""), 0.0);
    broker.lives().await;
}
