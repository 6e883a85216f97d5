use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::rig::rig;

#[tokio::test]
async fn a_client_gets_every_node_and_then_every_update_in_order() {
    let rig = rig().await;
    rig.value("n1", "led", &json!("0"));
    let mut client = rig.connect("/ws").await;
    client
        .write(&json!({"type": "new", "data": "client"}))
        .await;
    assert_eq!(client.read().await, json!({"type": "new", "uid": "UID-n1"}));
    for (endpoint, data) in [("protocol", "CoAP"), ("ip", "fd00::1"), ("led", "0")] {
        let update = json!({"type": "update", "uid": "UID-n1", "endpoint": endpoint, "data": data});
        assert_eq!(client.read().await, update);
    }
    for n in 0..1000 {
        rig.value("n1", "count", &json!(n));
    }
    for n in 0..1000 {
        assert_eq!(client.read().await["data"], n);
    }
    rig.bridge("offline");
    assert_eq!(client.read().await, json!({"type": "out", "uid": "UID-n1"}));
}

#[tokio::test]
async fn a_client_hears_nothing_before_it_says_new() {
    let rig = rig().await;
    let mut client = rig.connect("/ws").await;
    rig.value("n1", "led", &json!(1));
    client.write(&json!({"type": "new"})).await;
    assert_eq!(client.read().await["type"], "new");
}

#[tokio::test]
async fn a_client_writes_by_the_uid_and_the_path() {
    let mut rig = rig().await;
    let mut client = rig.connect("/ws").await;
    let data = json!({"uid": "UID-n1", "endpoint": "/led", "payload": "1"});
    client.write(&json!({"type": "update", "data": data})).await;
    let request = rig.request().await;
    assert_eq!(request.topic, "nodebus/v1/nodes/n1/res/led/set");
    let asked: serde_json::Value = serde_json::from_slice(&request.payload).unwrap();
    assert_eq!(asked["v"], "1");
    // Neither an unknown node nor an update of another shape ends the connection.
    client
        .write(&json!({"type": "update", "data": {"uid": 7, "endpoint": "x", "payload": 1}}))
        .await;
    client.write(&json!({"type": "update", "data": "x"})).await;
    client.write(&json!({"type": "new"})).await;
    assert_eq!(client.read().await["type"], "new");
}

#[tokio::test]
async fn nonsense_is_answered_with_1003() {
    let rig = rig().await;
    for nonsense in ["rubbish", "[]", r#"{"type":"reboot","data":1}"#] {
        let mut client = rig.connect("/ws").await;
        client.send(Message::text(nonsense)).await;
        assert_eq!(client.closed().await, Some(1003), "{nonsense}");
    }
}

#[tokio::test]
async fn a_client_that_falls_behind_is_told_so() {
    let rig = rig().await;
    let (mut slow, mut quick) = (rig.connect("/ws").await, rig.connect("/ws").await);
    for client in [&mut slow, &mut quick] {
        client.write(&json!({"type": "new"})).await;
        assert_eq!(client.read().await["type"], "new");
    }
    let filler = "x".repeat(4000);
    for n in 0..8000_u32 {
        rig.value("n1", "count", &json!([n, filler]));
        if n % 16 == 0 {
            // The quick one keeps up.
            quick
                .read_until(|update| update["data"][0] == json!(n))
                .await;
        }
    }
    assert_eq!(slow.closed().await, Some(1013));
    assert!(rig.counts("dashboard_gw_slow_clients_total{kind=\"Pyaiot\"} 1"));
    rig.value("n1", "count", &json!(["last"]));
    quick.read_until(|update| update["data"][0] == "last").await;
}
