//! The bridge as a node and the bus see it: real WebSockets over loopback, the real registry.

mod bench;

use std::net::SocketAddr;
use std::time::Duration;

use bus::bridge::runtime;
use bus::shutdown::GRACE;
use futures_util::SinkExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::Config;
use crate::driver::detached;
use bench::{Bench, DEADLINE, config, hears, is_closed, says};

#[tokio::test]
async fn a_node_is_read_written_and_missed() {
    let mut bench = Bench::start(config()).await;
    let mut node = bench.node("Bench 3").await;
    bench.until_value("nodes/bench-3/res/led", json!(0)).await;
    assert_eq!(bench.topics["nodes/bench-3"]["uid"], "Bench 3");
    bench
        .asks("nodes/bench-3/res/led/set", r#"{"v":1,"id":"c-1"}"#)
        .await;
    let write = json!({"endpoint": "led", "payload": "1"});
    assert_eq!(hears(&mut node).await, write);
    says(&mut node, json!({"type": "update", "data": {"led": "1"}})).await;
    bench
        .until_value("nodes/bench-3/res/led/ack", json!(1))
        .await;
    assert_eq!(bench.topics["nodes/bench-3/res/led"]["v"], 1);
    assert_eq!(bench.topics["nodes/bench-3/res/led/ack"]["id"], "c-1");
    node.close(None).await.unwrap();
    bench.until_state("bench-3:offline:closed").await;
}

#[tokio::test]
async fn pyaiots_test_node_works_unchanged() {
    let mut bench = Bench::start(config()).await;
    let mut request = format!("ws://{}/node", bench.address)
        .into_client_request()
        .unwrap();
    // As Python's websocket-client does it.
    let origin = format!("http://{}", bench.address);
    request
        .headers_mut()
        .insert("Origin", HeaderValue::from_str(&origin).unwrap());
    let (mut node, _) = connect_async(request).await.unwrap();
    says(&mut node, json!({"type": "new", "data": "node"})).await;
    let data = json!({"node": "fd00:aaaa:bbbb::1", "name": "websocket", "led": "0", "os": "riot"});
    says(&mut node, json!({"type": "update", "data": data})).await;
    assert_eq!(hears(&mut node).await, json!({"request": "discover"}));
    let is_there = |b: &Bench| {
        b.topics
            .values()
            .any(|p| p["name"] == "websocket" && p["os"] == "riot")
    };
    bench.until("its descriptor", is_there).await;
    // It just ends, without a closing handshake.
    drop(node);
    let is_gone = |b: &Bench| b.states.iter().any(|s| s.ends_with(":offline:closed"));
    bench.until("it is offline", is_gone).await;
}

#[tokio::test]
async fn a_node_that_comes_again_replaces_itself_and_stays_online() {
    let mut bench = Bench::start(config()).await;
    let mut old = bench.node("n").await;
    bench.until_value("nodes/n/res/led", json!(0)).await;
    let mut new = bench.node("n").await;
    says(&mut new, json!({"type": "update", "data": {"led": "1"}})).await;
    let (code, reason) = is_closed(&mut old).await;
    assert_eq!(code, 4000, "{reason}");
    bench.until_value("nodes/n/res/led", json!(1)).await;
    bench.asks("nodes/n/res/led/set", "0").await;
    let write = json!({"endpoint": "led", "payload": "0"});
    assert_eq!(hears(&mut new).await, write);
    assert!(
        !bench.states.iter().any(|s| s.contains("offline")),
        "{:?}",
        bench.states
    );
    new.close(None).await.unwrap();
    bench.until_state("n:offline:closed").await;
}

#[tokio::test]
async fn an_invalid_message_ends_its_own_connection_and_says_why() {
    let mut bench = Bench::start(config()).await;
    let mut good = bench.node("good").await;
    let text = |text: &str| Message::text(text.to_owned());
    let not_utf8 = Frame::message(&b"\xff\xfe"[..], OpCode::Data(Data::Text), true);
    let long = json!({"type": "update", "data": {"x": "y".repeat(config().max_message_bytes)}});
    for (message, code, why) in [
        (text("hello"), 1003, "not JSON"),
        (text("[1]"), 1003, "\"type\""),
        (text(r#"{"type":"update","data":1}"#), 1003, "\"data\""),
        (text(r#"{"type":"hello","uid":"\u0007"}"#), 1003, "\"uid\""),
        (Message::binary(&b"{}"[..]), 1003, "text"),
        (text(&long.to_string()), 1009, "too long"),
        (Message::Frame(not_utf8), 1007, "UTF-8"),
    ] {
        let mut bad = bench.connect().await;
        bad.send(message).await.unwrap();
        let (got, reason) = is_closed(&mut bad).await;
        assert_eq!(got, code, "{reason}");
        assert!(reason.contains(why), "{reason}");
    }
    assert!(bench.metric("ws_bridge_messages_invalid_total 7"));
    says(&mut good, json!({"type": "update", "data": {"led": "1"}})).await;
    bench.until_value("nodes/good/res/led", json!(1)).await;
}

/// What comes back on a plain TCP connection, up to its end.
async fn answer_to(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(DEADLINE, reading)
        .await
        .unwrap()
        .unwrap();
    answer
}

fn upgrade(path: &str, header: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n"
    )
}

#[tokio::test]
async fn who_is_no_node_is_told_so() {
    let bench = Bench::start(config()).await;
    let page = answer_to(
        bench.address,
        &upgrade("/node", "Origin: https://evil.example\r\n"),
    )
    .await;
    assert!(page.starts_with("HTTP/1.1 403"), "{page}");
    assert!(page.contains("allowed_origins"), "{page}");
    let elsewhere = answer_to(bench.address, &upgrade("/other", "")).await;
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
    let plain = answer_to(bench.address, "GET /node HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 426"), "{plain}");
    let rubbish = answer_to(bench.address, "\x16\x03\x01\r\n\r\n").await;
    assert!(rubbish.starts_with("HTTP/1.1 426"), "{rubbish}");
    assert!(bench.metric(r#"ws_bridge_connections_refused_total{reason="origin"} 1"#));
    let node = answer_to_upgrade(&bench, "origin", "file://").await;
    assert_eq!(node, 101);
}

async fn answer_to_upgrade(bench: &Bench, name: &'static str, value: &'static str) -> u16 {
    let mut request = format!("ws://{}/node", bench.address)
        .into_client_request()
        .unwrap();
    let value = HeaderValue::from_static(value);
    request
        .headers_mut()
        .insert(HeaderName::from_static(name), value);
    match connect_async(request).await {
        Ok((_, response)) => response.status().as_u16(),
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_address_has_a_bounded_number_of_connections() {
    let bench = Bench::start(Config {
        max_connections_per_address: 2,
        handshake_timeout: Duration::from_secs(1),
        ..config()
    })
    .await;
    let _node = bench.connect().await;
    // Somebody who connects and then says nothing has a place only for so long.
    let mut silent = TcpStream::connect(bench.address).await.unwrap();
    assert!(
        connect_async(format!("ws://{}/node", bench.address))
            .await
            .is_err()
    );
    assert!(bench.metric(r#"ws_bridge_connections_refused_total{reason="full"} 1"#));
    let mut nothing = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, silent.read_to_end(&mut nothing)).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
    assert!(bench.metric(r#"ws_bridge_connections_refused_total{reason="timeout"} 1"#));
    drop(silent);
    let again = async {
        while connect_async(format!("ws://{}/node", bench.address))
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.unwrap();
}

#[tokio::test]
async fn a_node_that_answers_no_pings_is_lost() {
    let mut bench = Bench::start(Config {
        ping_interval: Duration::from_secs(1),
        ..config()
    })
    .await;
    // It is not read from here on, so nothing answers the pings.
    let _node = bench.node("n").await;
    bench.until_state("n:offline:unanswered").await;
}

#[tokio::test]
async fn a_forgotten_node_is_disconnected() {
    let mut bench = Bench::start(config()).await;
    let mut node = bench.node("n").await;
    bench.until_value("nodes/n/res/led", json!(0)).await;
    bench.asks("nodes/n/cmd/forget", "").await;
    assert_eq!(is_closed(&mut node).await.0, 4001);
    // It may come back, as new.
    let _node = bench.node("n").await;
    bench.topics.clear();
    bench.until_value("nodes/n/res/led", json!(0)).await;
}

#[tokio::test]
async fn a_stop_says_goodbye_to_every_node() {
    let mut bench = Bench::start(config()).await;
    let mut node = bench.node("n").await;
    let mut nameless = bench.connect().await;
    bench.until_value("nodes/n/res/led", json!(0)).await;
    bench.shutdown.stop();
    assert_eq!(is_closed(&mut node).await.0, 1001);
    assert_eq!(is_closed(&mut nameless).await.0, 1001);
    bench.until_state("n:offline:stopping").await;
    assert!(bench.shutdown.drained(GRACE).await);
    assert!(
        bench.reported.recv().await.is_none(),
        "the reporter is dropped"
    );
    assert!(TcpStream::connect(bench.address).await.is_err());
}

#[tokio::test]
async fn a_taken_port_is_named_with_a_remedy() {
    let bench = Bench::start(config()).await;
    let (ends, _bus) = runtime::detached();
    let taken = Config {
        listen: bench.address,
        ..config()
    };
    let error = detached::start(&taken, ends, &bench.admin, &bench.shutdown).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&bench.address.to_string()), "{error}");
    assert!(error.contains("ws_bridge.listen"), "{error}");
}
