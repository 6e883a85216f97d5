//! Writes: what the node confirmed is shown, never what was asked for, and each gets one ack.

use serde_json::{Value, json};

use crate::harness::{CoapNode, Subscriber, System, WsNode, publish};

const LED: &str = "nodebus/v1/nodes/act/res/led/set";

fn acks(subscriber: &Subscriber, topic: &str) -> Vec<Value> {
    let messages = subscriber.messages();
    let acks = messages.iter().filter(|(t, _, _)| t == topic);
    acks.map(|(_, _, payload)| serde_json::from_str(payload).unwrap())
        .collect()
}

#[test]
fn a_write_reaches_the_node_and_its_answer_comes_back() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "act");
    all.wait_for_member("nodes/act/res/led", "v", &json!(0));
    let operator = system.identity("operator", "operator");

    publish(&operator, LED, "1", &[]);
    node.wait_for_put("led", "1");
    all.wait_for_member("nodes/act/res/led", "v", &json!(1));
    let ack = all.wait_for_member("nodes/act/res/led/ack", "status", &json!("ok"));
    assert_eq!(
        (&ack["op"], &ack["code"], &ack["v"]),
        (&json!("set"), &json!("2.04"), &json!(1))
    );

    publish(
        &operator,
        LED,
        r#"{"v":0,"id":"c-42","timeout_ms":5000}"#,
        &[],
    );
    let ack = all.wait_for_member("nodes/act/res/led/ack", "id", &json!("c-42"));
    assert_eq!(ack["status"], "ok");
    assert_eq!(acks(&all, "nodes/act/res/led/ack").len(), 2);
}

#[test]
fn what_the_node_refuses_is_not_shown_as_done() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let node = CoapNode::start(system.coap(), "act");
    all.wait_for_member("nodes/act/res/led", "v", &json!(0));
    let operator = system.identity("operator", "operator");

    publish(&operator, LED, r#"{"v":7,"id":"bad"}"#, &[]);
    let ack = all.wait_for_member("nodes/act/res/led/ack", "id", &json!("bad"));
    assert_eq!(ack["status"], "rejected");
    assert!(ack["error"].as_str().is_some_and(|error| !error.is_empty()));
    publish(
        &operator,
        "nodebus/v1/nodes/act/res/board/set",
        r#"{"v":"x","id":"ro"}"#,
        &[],
    );
    let ack = all.wait_for_member("nodes/act/res/board/ack", "id", &json!("ro"));
    assert_eq!(
        (&ack["status"], &ack["code"]),
        (&json!("rejected"), &json!("4.05"))
    );
    assert!(all.messages().iter().all(|(topic, _, payload)| {
        topic != "nodes/act/res/led" || !payload.contains("\"v\":7")
    }));
    drop(node);
}

#[test]
fn a_node_that_is_gone_is_said_so_at_once() {
    let system = System::start(&["--set", "coap_bridge.max_time=3s"]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "act");
    all.wait_for_member("nodes/act/res/led", "v", &json!(0));
    node.quiet();
    all.wait_for_member("nodes/act/status", "state", &json!("offline"));
    let operator = system.identity("operator", "operator");
    publish(&operator, LED, r#"{"v":1,"id":"off"}"#, &[]);
    let ack = all.wait_for_member("nodes/act/res/led/ack", "id", &json!("off"));
    assert_eq!(ack["status"], "rejected");
    assert!(
        ack["error"]
            .as_str()
            .is_some_and(|error| error.contains("offline")),
        "{ack}"
    );
}

#[test]
fn a_retained_write_never_fires() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let operator = system.identity("operator", "operator");
    publish(&operator, LED, "1", &["-r"]);
    let node = CoapNode::start(system.coap(), "act");
    all.wait_for_member("nodes/act/res/led", "v", &json!(0));
    // A write that came after it is carried out, so the stale one had its chance.
    publish(&operator, LED, r#"{"v":0,"id":"after"}"#, &[]);
    all.wait_for_member("nodes/act/res/led/ack", "id", &json!("after"));
    assert_eq!(acks(&all, "nodes/act/res/led/ack").len(), 1);
    drop(node);
}

#[test]
fn a_read_asks_the_node_now() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let node = CoapNode::start(system.coap(), "act");
    all.wait_for_member("nodes/act/res/temperature", "v", &json!(20.0));
    let operator = system.identity("operator", "operator");
    publish(
        &operator,
        "nodebus/v1/nodes/act/res/temperature/get",
        r#"{"id":"g"}"#,
        &[],
    );
    let ack = all.wait_for_member("nodes/act/res/temperature/ack", "id", &json!("g"));
    assert_eq!(
        (&ack["op"], &ack["status"], &ack["v"]),
        (&json!("get"), &json!("ok"), &json!(20.0))
    );
    drop(node);
}

#[test]
fn a_websocket_node_confirms_by_its_next_update() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = WsNode::connect(system.ws(), "/node");
    node.send(&json!({"type": "hello", "uid": "act"}));
    node.send(&json!({"type": "update", "data": {"led": "0"}}));
    all.wait_for_member("nodes/act/res/led", "v", &json!(0));
    let operator = system.identity("operator", "operator");
    publish(&operator, LED, r#"{"v":1,"id":"w"}"#, &[]);
    node.wait_for("the write", |m| {
        (m["endpoint"] == "led" && m["payload"] == "1").then_some(())
    });
    assert!(
        acks(&all, "nodes/act/res/led/ack").is_empty(),
        "nothing is confirmed yet"
    );
    node.send(&json!({"type": "update", "data": {"led": "1"}}));
    let ack = all.wait_for_member("nodes/act/res/led/ack", "id", &json!("w"));
    assert_eq!((&ack["status"], &ack["v"]), (&json!("ok"), &json!(1)));
}
