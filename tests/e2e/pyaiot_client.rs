//! A client of Pyaiot's broker, on `/ws` of the dashboard gateway.

use serde_json::json;

use crate::harness::{CoapNode, PyaiotClient, System};

#[test]
fn a_client_of_pyaiot_sees_and_controls_nodes() {
    let system = System::start(&["--set", "coap_bridge.max_time=3s"]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "PY1");
    all.wait_for_member("nodes/py1/res/led", "v", &json!(0));

    let mut client = PyaiotClient::connect(system.dashboard(), "/ws");
    client.send(&json!({"type": "new"}));
    client.wait_for("the node", |m| {
        (m["type"] == "new" && m["uid"] == "PY1").then_some(())
    });
    let update = |endpoint: &'static str, data: &'static str| {
        move |m: &serde_json::Value| {
            let same = m["type"] == "update" && m["uid"] == "PY1" && m["endpoint"] == endpoint;
            (same && m["data"] == data).then_some(())
        }
    };
    client.wait_for("the led's value as the node sent it", update("led", "0"));
    node.push("temperature", "21.5°C");
    client.wait_for(
        "the push as the node sent it",
        update("temperature", "21.5°C"),
    );

    let write = json!({"uid": "PY1", "endpoint": "led", "payload": "1"});
    client.send(&json!({"type": "update", "data": write}));
    node.wait_for_put("led", "1");
    client.wait_for("the led's new value", update("led", "1"));

    node.quiet();
    client.wait_for("the loss", |m| {
        (m["type"] == "out" && m["uid"] == "PY1").then_some(())
    });
}
