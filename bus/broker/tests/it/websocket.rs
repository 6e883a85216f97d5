//! MQTT over WebSocket: the opening handshake, messages and packets, and who may come in.

use std::net::SocketAddr;
use std::time::Duration;

use bus_broker::{Config, Role};
use futures_util::{SinkExt, StreamExt};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::{
    DEADLINE, Options, TestBroker, authority, certificate, connect, packet, publish, start, string,
};

const UPGRADES: &str = "bus_broker_upgrades_total";
const MALFORMED: &str = "bus_broker_malformed_packets_total";

async fn broker(role: Role) -> TestBroker {
    broker_with(role, |_| {}).await
}

async fn broker_with(role: Role, edit: impl FnOnce(&mut Config)) -> TestBroker {
    let any: Option<SocketAddr> = Some("127.0.0.1:0".parse().unwrap());
    let edit = |config: &mut Config| {
        (config.ws_listen, config.wss_listen) = (any, any);
        edit(config);
    };
    start(role, authority(), None, edit).await
}

/// A WebSocket that MQTT goes over.
pub(crate) struct Ws<S> {
    socket: WebSocketStream<S>,
    /// Bytes that came and are no packet yet.
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ws<S> {
    async fn open(stream: S) -> Self {
        let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
        let offered = HeaderValue::from_static("other, mqtt");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", offered);
        let (socket, response) = client_async(request, stream).await.unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
        Self {
            socket,
            input: Vec::new(),
        }
    }

    async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.send(Message::binary(bytes.to_vec())).await;
    }

    async fn message(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(DEADLINE, self.socket.next());
        next.await.expect("a message in time")?.ok()
    }

    /// The next packet, whole; all of these are short.
    async fn packet(&mut self) -> Vec<u8> {
        loop {
            if let [_, len, rest @ ..] = &self.input[..]
                && rest.len() >= usize::from(*len)
            {
                let len = usize::from(*len) + 2;
                return self.input.drain(..len).collect();
            }
            match self.message().await {
                Some(Message::Binary(bytes)) => self.input.extend(bytes),
                other => panic!("{other:?} instead of a packet"),
            }
        }
    }

    pub(crate) async fn connect(&mut self, level: u8, id: &str, options: &Options) {
        self.send_bytes(&connect(level, id, options)).await;
        assert_eq!(self.packet().await[3], 0);
    }

    /// The next packet, which is a DISCONNECT: its Reason Code.
    async fn disconnect(&mut self) -> u8 {
        let packet = self.packet().await;
        assert_eq!(packet[0], 0xe0);
        packet[2]
    }

    /// The code of the close frame.
    async fn closed(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(message) = self.message().await {
            if let Message::Close(frame) = message {
                code = frame.map(|frame| frame.code.into());
            }
        }
        code
    }
}

impl TestBroker {
    pub(crate) async fn ws(&self) -> Ws<TcpStream> {
        Ws::open(TcpStream::connect(self.started.ws.unwrap()).await.unwrap()).await
    }

    pub(crate) async fn wss(
        &self,
        uri: Option<&str>,
    ) -> std::io::Result<Ws<tokio_rustls::client::TlsStream<TcpStream>>> {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let identity = uri.map(|uri| certificate(&self.authority, Some(uri), usage, |_| {}));
        let tcp = TcpStream::connect(self.started.wss.unwrap()).await?;
        let mut tls = self.tls_over(tcp, identity).await?;
        // With TLS 1.3 a refused client learns of it with its first read.
        if uri.is_none() {
            tls.write_all(b"GET / HTTP/1.1\r\n").await?;
            tls.read_u8().await?;
        }
        Ok(Ws::open(tls).await)
    }
}

#[tokio::test]
async fn a_certificate_counts_as_without_a_websocket() {
    let broker = broker(Role::Viewer).await;
    for level in [4, 5] {
        let mut operator = broker.wss(Some("urn:nodebus:operator:ann")).await.unwrap();
        operator.connect(level, "ann", &Options::default()).await;
        let bytes = publish(level, "b/nodes/n/res/led/set", b"1", 1, 1, false, &[]);
        operator.send_bytes(&bytes).await;
        assert_eq!(operator.packet().await, [0x40, 2, 0, 1]);
        let mut viewer = broker.ws().await;
        viewer.connect(level, "anything", &Options::default()).await;
        viewer.send_bytes(&bytes).await;
        if level == 5 {
            assert_eq!(viewer.packet().await[2..5], [0, 1, 0x87]);
        } else {
            assert_eq!(viewer.closed().await, Some(1000));
        }
    }
    let mut other = broker.wss(Some("urn:nodebus:viewer:bob")).await.unwrap();
    let bytes = connect(5, "ann", &Options::default());
    other.send_bytes(&bytes).await;
    assert_eq!(other.packet().await[3], 0x85);
    // Without passwords, a certificate is needed.
    assert!(broker.wss(None).await.is_err());
    let handshakes = "bus_broker_handshakes_total";
    let missing = "certificate_missing";
    broker.metric_reaches(handshakes, missing, 1.0).await;
}

#[tokio::test]
async fn packets_span_messages_and_share_them() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.ws().await;
    for &byte in &connect(5, "c", &Options::default()) {
        client.send_bytes(&[byte]).await;
        client.send_bytes(&[]).await;
    }
    assert_eq!(client.packet().await[0], 0x20);
    let mut subscribe = vec![0, 1, 0];
    subscribe.extend(string("t"));
    subscribe.push(0);
    let mut together = packet(0x82, &subscribe);
    let first = publish(5, "t", b"one", 0, 0, false, &[]);
    let second = publish(5, "t", b"two", 0, 0, false, &[]);
    together.extend([&first[..], &second[..4]].concat());
    client.send_bytes(&together).await;
    client.send_bytes(&second[4..]).await;
    assert_eq!(client.packet().await[0], 0x90);
    assert!(client.packet().await.ends_with(b"one"));
    assert!(client.packet().await.ends_with(b"two"));
    client.send_bytes(&[0xe0, 0]).await;
    assert_eq!(client.closed().await, Some(1000));
}

#[tokio::test]
async fn what_is_no_binary_message_closes_its_connection_only() {
    let broker = broker_with(Role::Admin, |config| config.limits.packet_bytes = 1000).await;
    let mut bystander = broker.ws().await;
    bystander.connect(5, "by", &Options::default()).await;
    // MQTT-6.0.0-1, before CONNECT and after.
    for is_connected in [false, true] {
        let mut client = broker.ws().await;
        if is_connected {
            client.connect(5, "c", &Options::default()).await;
        }
        client.send(Message::text("hello")).await;
        client.send_bytes(&[0xc0, 0]).await;
        assert_eq!(client.closed().await, Some(1003));
    }
    assert_eq!(broker.metric(MALFORMED, "websocket_text"), 2.0);
    let mut client = broker.ws().await;
    client.connect(5, "c", &Options::default()).await;
    client.send_bytes(&[0; 70_000]).await;
    assert_eq!(client.closed().await, Some(1009));
    // A message may hold many packets; a packet over the limit is one here too.
    let mut client = broker.ws().await;
    client.connect(5, "c", &Options::default()).await;
    client.send_bytes(&[0xc0, 0].repeat(1000)).await;
    for _ in 0..1000 {
        assert_eq!(client.packet().await, [0xd0, 0]);
    }
    client.send_bytes(&[0x30, 0xff, 0xff, 0x7f]).await;
    assert_eq!(client.disconnect().await, 0x95);
    assert_eq!(client.closed().await, Some(1000));
    // A frame of a client has to be masked.
    let mut client = broker.ws().await;
    let raw = client.socket.get_mut();
    raw.write_all(&[0x82, 2, 0xc0, 0]).await.unwrap();
    assert_eq!(client.closed().await, Some(1002));
    bystander.send_bytes(&[0xc0, 0]).await;
    assert_eq!(bystander.packet().await, [0xd0, 0]);
}

#[tokio::test]
async fn a_websocket_ping_is_answered_and_is_no_sign_of_an_mqtt_client() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.ws().await;
    let options = Options {
        keep_alive: 1,
        ..Options::default()
    };
    client.connect(5, "c", &options).await;
    client.send(Message::Ping("are you there".into())).await;
    assert_eq!(
        client.message().await,
        Some(Message::Pong("are you there".into()))
    );
    let ended = async {
        loop {
            match client.message().await {
                Some(Message::Binary(bytes)) => return bytes,
                Some(Message::Pong(_)) => {}
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            client.send(Message::Ping("more".into())).await;
        }
    };
    // Keep Alive is not kept by pings of the WebSocket: DISCONNECT, Keep Alive timeout.
    let disconnect = ended.await;
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x8d));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_bounded_as_any_other() {
    let broker = broker_with(Role::Admin, |config| config.limits.queue_messages = 100).await;
    let mut slow = broker.ws().await;
    slow.connect(5, "slow", &Options::default()).await;
    let mut subscribe = vec![0, 1, 0];
    subscribe.extend(string("flood"));
    subscribe.push(1);
    slow.send_bytes(&packet(0x82, &subscribe)).await;
    assert_eq!(slow.packet().await[0], 0x90);
    let mut publisher = broker.v4("p").await;
    let (payload, mut sent) = (vec![0; 100_000], 0);
    while broker.metric("bus_broker_closed_connections_total", "quota_exceeded") < 1.0 {
        publisher.publish(4, "flood", &payload, 1, 7, false).await;
        publisher.packet().await;
        sent += 1;
        assert!(sent < 1000, "a slow client is never disconnected");
    }
    // What it did not read is no more than sockets hold, and whole to the end.
    let mut got = 0;
    while let Some(Message::Binary(bytes)) = slow.message().await {
        got += bytes.len();
    }
    assert!(got >= 100_000, "{got}");
    broker.lives().await;
}

#[tokio::test]
async fn a_stop_says_goodbye() {
    let broker = broker(Role::Admin).await;
    let mut client = broker.ws().await;
    client.connect(5, "c", &Options::default()).await;
    broker.shutdown.stop();
    assert_eq!(client.disconnect().await, 0x8b);
    assert_eq!(client.closed().await, Some(1000));
    assert!(broker.shutdown.drained(DEADLINE).await);
}

/// The answer to an opening handshake with these headers.
async fn upgrade(broker: &TestBroker, first: &str, headers: &str) -> String {
    let address = broker.started.ws.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{first} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    if first == "GET /mqtt" && !headers.contains("evil") && headers.contains("mqtt\r\n") {
        let mut head = [0; 512];
        let count = stream.read(&mut head).await.unwrap();
        return String::from_utf8_lossy(&head[..count]).into_owned();
    }
    let mut answer = String::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer));
    read.await.expect("the connection ends").unwrap();
    answer
}

#[tokio::test]
async fn the_opening_handshake_says_what_is_wrong() {
    let page = "https://lab.example.org";
    let broker = broker_with(Role::Admin, |config| {
        config.allowed_origins = vec![page.to_owned()];
    })
    .await;
    let mqtt = "Sec-WebSocket-Protocol: chat, mqtt\r\n";
    let check = async |first: &str, headers: String, status: &str, word: &str| {
        let answer = upgrade(&broker, first, &headers).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains(word), "{answer}");
    };
    let own = format!("{mqtt}Origin: http://{}\r\n", broker.started.ws.unwrap());
    check("GET /mqtt", mqtt.to_owned(), "101", "mqtt\r\n").await;
    check("GET /mqtt", own, "101", "mqtt\r\n").await;
    check(
        "GET /mqtt",
        format!("{mqtt}Origin: {page}\r\n"),
        "101",
        "mqtt",
    )
    .await;
    let evil = format!("{mqtt}Origin: http://evil.example\r\n");
    check("GET /mqtt", evil, "403", "bus.allowed_origins").await;
    check("GET /mqtt", String::new(), "400", "subprotocol mqtt").await;
    let other = "Sec-WebSocket-Protocol: mqttv3.1\r\n".to_owned();
    check("GET /mqtt", other, "400", "subprotocol mqtt").await;
    check("POST /mqtt", mqtt.to_owned(), "426", "WebSocket").await;
    for (result, count) in [("origin", 1.0), ("subprotocol", 2.0), ("request", 1.0)] {
        broker.metric_reaches(UPGRADES, result, count).await;
    }
    // Somebody who speaks plain MQTT, or rubbish without an end.
    let ws = broker.started.ws.unwrap();
    for bytes in [connect(4, "c", &Options::default()), vec![b'x'; 100_000]] {
        let mut stream = TcpStream::connect(ws).await.unwrap();
        // The broker may have closed before all of it was sent.
        drop(stream.write_all(&bytes).await);
        let mut answer = Vec::new();
        drop(
            tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer))
                .await
                .unwrap(),
        );
    }
    broker.metric_reaches(UPGRADES, "request", 3.0).await;
    broker.lives().await;
}
