use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::rig::{Client, rig, rig_with};
use crate::Config;

async fn resume(page: &mut Client, stream: &Value, rev: &Value) -> Value {
    page.write(&json!({"type": "resume", "stream": stream, "rev": rev}))
        .await;
    page.read().await
}

#[tokio::test]
async fn a_page_gets_all_there_is_and_then_what_changes() {
    let rig = rig().await;
    let mut page = rig.connect("/api/stream").await;
    let hello = page.read().await;
    assert_eq!(
        (&hello["type"], &hello["can_write"]),
        (&json!("hello"), &json!(true))
    );
    let snapshot = resume(&mut page, &Value::Null, &Value::Null).await;
    assert_eq!(snapshot["bus"]["connected"], true);
    assert_eq!(snapshot["bridges"][0]["status"]["state"], "online");
    assert_eq!(snapshot["nodes"][0]["descriptor"]["uid"], "UID-n1");
    rig.value("n1", "led", &json!(1));
    let delta = page.read().await;
    assert_eq!(delta["changes"][0]["kind"], "value");
    assert_eq!(delta["changes"][0]["reading"]["v"], 1);
    rig.bridge("offline");
    let delta = page.read().await;
    assert_eq!(delta["changes"][0]["bridge"]["status"]["state"], "offline");
    rig.hub.handle_disconnected(bus::time::now());
    assert_eq!(page.read().await["changes"][0]["bus"]["connected"], false);
}

#[tokio::test]
async fn a_burst_comes_as_its_last_value() {
    let rig = rig().await;
    let mut page = rig.page().await;
    for n in 0..=500 {
        rig.value("n1", "temperature", &json!(n));
    }
    let mut frames = 0;
    loop {
        let delta = page.read().await;
        frames += 1;
        if delta["changes"][0]["reading"]["v"] == json!(500) {
            break;
        }
    }
    assert!(frames < 100, "{frames} frames for 501 values");
}

#[tokio::test]
async fn a_page_that_comes_back_gets_only_what_it_missed() {
    let rig = rig().await;
    let mut page = rig.connect("/api/stream").await;
    let stream = page.read().await["stream"].clone();
    let rev = resume(&mut page, &Value::Null, &Value::Null).await["rev"].clone();
    drop(page);
    rig.value("n1", "led", &json!(1));
    let mut page = rig.connect("/api/stream").await;
    page.read().await;
    let missed = resume(&mut page, &stream, &rev).await;
    assert_eq!(missed["type"], "delta");
    assert_eq!(missed["changes"].as_array().map(Vec::len), Some(1));
    // Nothing missed is said, too: the page waits for it.
    let mut page = rig.connect("/api/stream").await;
    page.read().await;
    let nothing = resume(&mut page, &stream, &missed["rev"]).await;
    assert_eq!(
        (&nothing["type"], &nothing["changes"]),
        (&json!("delta"), &json!([]))
    );
    let mut page = rig.connect("/api/stream").await;
    page.read().await;
    let other_run = resume(&mut page, &json!("another run"), &rev).await;
    assert_eq!(other_run["type"], "snapshot");
}

fn set(request: &str, node: &str) -> Value {
    json!({"type": "set", "request": request, "node": node, "resource": "led", "value": 1})
}

#[tokio::test]
async fn a_write_is_published_and_its_ack_comes_back() {
    let mut rig = rig().await;
    let (mut page, mut other) = (rig.page().await, rig.page().await);
    page.write(&set("mine", "n1")).await;
    let request = rig.request().await;
    assert_eq!(request.topic, "nodebus/v1/nodes/n1/res/led/set");
    assert!(!request.retain && request.expiry.is_some());
    rig.confirm(&request);
    rig.confirm(&request);
    let ack = page.read().await;
    assert_eq!(
        (&ack["type"], &ack["request"]),
        (&json!("ack"), &json!("mine"))
    );
    assert_eq!(
        (&ack["ack"]["status"], &ack["ack"]["ms"]),
        (&json!("ok"), &json!(7))
    );
    rig.value("n1", "led", &json!(1));
    assert_eq!(
        page.read().await["type"],
        "delta",
        "one answer, and only to who asked"
    );
    assert_eq!(other.read().await["type"], "delta");
}

#[tokio::test]
async fn what_can_not_be_done_is_answered_at_once() {
    let rig = rig().await;
    let mut page = rig.page().await;
    for message in [
        set("a", "nobody"),
        set("a", "../n1"),
        json!({"type": "get", "request": "a", "node": "n1", "resource": "+"}),
        json!({"type": "command", "request": "a", "node": "n1", "op": "explode"}),
        json!({"type": "command", "request": "a", "node": "n1/x", "op": "ping"}),
    ] {
        page.write(&message).await;
        let ack = page.read().await;
        assert_eq!(
            (&ack["request"], &ack["ack"]["status"]),
            (&json!("a"), &json!("rejected"))
        );
    }
    rig.bridge("offline");
    page.write(&set("b", "n1")).await;
    let ack = page.read_until(|message| message["type"] == "ack").await;
    assert!(
        ack["ack"]["error"].as_str().unwrap().contains("bridge"),
        "{ack}"
    );
}

#[tokio::test]
async fn where_writing_is_off_it_is_said_so() {
    let config = Config {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..Config::default()
    };
    let mut rig = rig_with(config).await;
    let mut page = rig.connect("/api/stream").await;
    assert_eq!(page.read().await["can_write"], false);
    page.write(&set("a", "n1")).await;
    assert_eq!(page.read().await["ack"]["status"], "rejected");
    assert!(rig.published.try_recv().is_err());
}

#[tokio::test]
async fn rubbish_ends_its_own_connection_only() {
    let rig = rig().await;
    let mut well = rig.page().await;
    for (rubbish, code) in [
        (Message::text("rubbish"), 1007),
        (Message::text(r#"{"type":"set"}"#), 1007),
        (Message::text("[".repeat(60_000)), 1007),
        (Message::binary(vec![0xff; 10]), 1003),
        (Message::text("x".repeat(70_000)), 1009),
    ] {
        let mut page = rig.page().await;
        page.send(rubbish).await;
        assert_eq!(page.closed().await, Some(code));
    }
    let mut flood = rig.page().await;
    for _ in 0..200 {
        flood
            .write(&json!({"type": "resume", "stream": null, "rev": null}))
            .await;
    }
    assert_eq!(flood.closed().await, Some(1008));
    rig.value("n1", "led", &json!(1));
    assert_eq!(well.read().await["type"], "delta");
    assert!(rig.counts("dashboard_gw_refused_total{reason=\"Malformed\"} 4"));
    assert!(rig.counts("dashboard_gw_refused_total{reason=\"TooLong\"} 1"));
    assert!(rig.counts("dashboard_gw_refused_total{reason=\"Rate\"} 1"));
}

#[tokio::test]
async fn a_page_of_elsewhere_may_not_connect() {
    let rig = rig().await;
    for path in ["/api/stream", "/ws"] {
        let refused = rig.connect_from(path, Some("http://evil.example")).await;
        let Err(Error::Http(response)) = refused.map(|_| ()) else {
            panic!("it was let in");
        };
        assert_eq!(response.status(), 403);
        let ours = format!("http://{}", rig.address);
        assert!(rig.connect_from(path, Some(&ours)).await.is_ok());
    }
    assert!(rig.counts("dashboard_gw_refused_total{reason=\"Origin\"} 2"));
}

#[tokio::test]
async fn there_are_so_many_seats_and_no_more() {
    let config = Config {
        max_clients: 1,
        ..Config::default()
    };
    let rig = rig_with(config).await;
    let mut page = rig.page().await;
    let refused = rig.connect_from("/ws", None).await.map(|_| ());
    let Err(Error::Http(response)) = refused else {
        panic!("it was let in");
    };
    assert_eq!(response.status(), 503);
    page.send(Message::Close(None)).await;
    page.closed().await;
    // The seat is free as soon as the gateway has seen the close.
    super::rig::within(async {
        while rig.connect_from("/ws", None).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stop_answers_what_was_asked_and_says_goodbye() {
    let mut rig = rig().await;
    let mut page = rig.page().await;
    page.write(&set("a", "n1")).await;
    rig.request().await;
    rig.shutdown.stop();
    let ack = page.read_until(|message| message["type"] == "ack").await;
    assert_eq!(ack["ack"]["status"], "error");
    assert_eq!(page.closed().await, Some(1001));
    assert!(
        rig.shutdown.drained(bus::shutdown::GRACE).await,
        "nothing has to be ended by force"
    );
}
