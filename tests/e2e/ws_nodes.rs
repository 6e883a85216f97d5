//! Nodes that speak WebSocket.

use serde_json::json;

use crate::harness::{System, WsNode};

#[test]
fn a_node_without_hello_works_as_in_pyaiot() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = WsNode::connect(system.ws(), "/node");
    node.wait_for("the discovery", |m| {
        (m["request"] == "discover").then_some(())
    });
    node.send(&json!({"type": "update", "data": {"name": "Kitchen", "temperature": "19.5°C"}}));
    let event = all.wait_for_member("events", "type", &json!("node_new"));
    let id = event["node"].as_str().unwrap().to_owned();
    all.wait_for_member(&format!("nodes/{id}"), "name", &json!("Kitchen"));
    all.wait_for_member(&format!("nodes/{id}/res/temperature"), "v", &json!(19.5));
    node.send_text("close");
    let lost = all.wait_for_member("events", "type", &json!("node_lost"));
    assert_eq!(lost["reason"], "closed");
    // Its name never comes back, so nothing of it stays.
    all.wait_for_member("events", "type", &json!("node_forgotten"));
    let late = system.subscribe("nodebus/v1/#");
    late.wait_for_member("bridges/ws/status", "state", &json!("online"));
    assert!(
        late.messages()
            .iter()
            .all(|(topic, _, _)| !topic.contains(&id))
    );
}

#[test]
fn a_node_with_hello_is_the_same_one_after_a_reconnect() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    for _ in 0..2 {
        let mut node = WsNode::connect(system.ws(), "/node");
        node.send(&json!({"type": "hello", "uid": "Desk 7"}));
        node.send(&json!({"type": "update", "data": {"count": 5}}));
        all.wait_for_member("nodes/desk-7/res/count", "v", &json!(5));
        node.send_text("close");
        all.wait_for_member("nodes/desk-7/status", "state", &json!("offline"));
    }
    let new = all
        .messages()
        .iter()
        .filter(|(_, _, p)| p.contains("node_new"))
        .count();
    assert_eq!(new, 1);
}
