use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{rig, rig_with, within};
use crate::Config;

#[tokio::test]
async fn every_response_is_hardened() {
    let rig = rig().await;
    for path in [
        "/",
        "/node/n1",
        "/missing.js",
        "/api/v1/nodes",
        "/api/nothing",
        "/ws",
    ] {
        let response = rig.get(path, "localhost").await;
        for header in [
            "content-security-policy: default-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(response.contains(header), "{path} {header}\n{response}");
        }
        assert!(!response.contains("unsafe"), "{response}");
    }
}

#[tokio::test]
async fn the_page_is_served_or_how_to_build_it() {
    let rig = rig().await;
    let root = rig.get("/", "localhost").await;
    assert!(root.contains("cache-control: no-store"), "{root}");
    let built = root.starts_with("HTTP/1.1 200 ");
    assert!(built || root.contains("make web"), "{root}");
    let body = |response: &str| response.split_once("\r\n\r\n").unwrap().1.to_owned();
    let route = rig.get("/node/n1?tab=charts", "localhost").await;
    assert_eq!(body(&route), body(&root), "a path of the page's own");
    for path in [
        "/assets/none.js",
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
        "/api/v2",
    ] {
        let response = rig.get(path, "localhost").await;
        assert!(response.starts_with("HTTP/1.1 404 "), "{path} {response}");
    }
    // An asset of the page, when it is built.
    if let Some((_, rest)) = root.split_once("\"./assets/") {
        let (name, _) = rest.split_once('"').unwrap();
        let asset = rig.get(&format!("/assets/{name}"), "localhost").await;
        assert!(
            asset.contains("immutable") && asset.contains("etag: \""),
            "{asset}"
        );
    }
}

#[tokio::test]
async fn a_strangers_name_does_not_lead_here() {
    let rig = rig().await;
    let response = rig.get("/api/v1/nodes", "evil.example").await;
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
    assert!(!response.contains("UID-n1"));
    assert!(rig.counts("dashboard_gw_refused_total{reason=\"Host\"} 1"));
}

#[tokio::test]
async fn nodes_are_json_for_curl() {
    let rig = rig().await;
    rig.value("n1", "led", &json!(1));
    let body = |response: String| -> Value {
        serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let all = body(rig.get("/api/v1/nodes", "localhost").await);
    assert_eq!(all[0]["values"]["led"]["v"], 1);
    let one = body(rig.get("/api/v1/nodes/n1", "127.0.0.1:80").await);
    assert_eq!(one, all[0]);
    for missing in ["/api/v1/nodes/n2", "/api/v1/nodes/N%201"] {
        let response = rig.get(missing, "localhost").await;
        assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_asks_is_closed() {
    let rig = rig().await;
    let mut socket = TcpStream::connect(rig.address).await.unwrap();
    socket.write_all(b"GET / HTT").await.unwrap();
    let mut response = Vec::new();
    let end = socket.read_to_end(&mut response);
    let hour = std::time::Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, end).await.is_ok());
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_live() {
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let rig = rig_with(config).await;
    let mut page = rig.page().await;
    let mut socket = TcpStream::connect(rig.address).await.unwrap();
    let mut response = Vec::new();
    within(socket.read_to_end(&mut response)).await.unwrap();
    assert_eq!(response, b"");
    rig.value("n1", "led", &json!(1));
    assert_eq!(page.read().await["type"], "delta");
}
