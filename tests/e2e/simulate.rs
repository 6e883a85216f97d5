//! Simulated nodes, which are nodes like any other.

use serde_json::json;

use crate::harness::{Fleet, System, publish, wait_for};

#[test]
fn a_fleet_appears_and_can_be_controlled() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let fleet = Fleet::start(&system, &["--coap", "5", "--ws", "2", "--rate", "2"]);
    let online = |protocol: &str| {
        let messages = all.messages();
        let of = messages
            .iter()
            .filter(|(_, _, p)| p.contains(&format!("\"protocol\":\"{protocol}\"")));
        let mut topics: Vec<_> = of
            .map(|(t, _, _)| t)
            .filter(|t| t.starts_with("nodes/"))
            .collect();
        topics.sort();
        topics.dedup();
        topics.len()
    };
    wait_for("five CoAP nodes and two WebSocket nodes", || {
        (online("coap") == 5 && online("websocket") == 2).then_some(())
    });
    let led = wait_for("a LED", || {
        let messages = all.messages();
        messages
            .iter()
            .map(|(t, _, _)| t)
            .find(|t| t.ends_with("/res/led"))
            .cloned()
    });
    let operator = system.identity("operator", "operator");
    publish(
        &operator,
        &format!("nodebus/v1/{led}/set"),
        r#"{"v":1,"id":"s"}"#,
        &[],
    );
    let ack = all.wait_for_member(&format!("{led}/ack"), "id", &json!("s"));
    assert_eq!((&ack["status"], &ack["v"]), (&json!("ok"), &json!(1)));
    all.wait_for_member(&led, "v", &json!(1));
    drop(fleet);
}
