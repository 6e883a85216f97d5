//! Simulated nodes, which are nodes like any other.

use serde_json::{Value, json};

use crate::harness::{Fleet, Subscriber, System, coap_put, publish, wait_for};

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

/// The topic and the payload of the first reading of this resource.
#[track_caller]
fn reading_of(all: &Subscriber, resource: &str) -> (String, Value) {
    let end = format!("/res/{resource}");
    wait_for(resource, || {
        let messages = all.messages();
        let (topic, _, payload) = messages.iter().find(|(t, _, _)| t.ends_with(&end))?;
        Some((topic.clone(), serde_json::from_str(payload).unwrap()))
    })
}

#[test]
fn old_firmwares_are_served_within_their_limits_and_survive() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    // Nothing is pushed: all values are read from the nodes.
    let args = ["--coap", "4", "--rate", "0", "--old-firmware"];
    let _fleet = Fleet::start(&system, &args);
    let (_, temperature) = reading_of(&all, "temperature");
    assert!(temperature["v"].is_f64(), "no NULs: {temperature}");
    assert_eq!(temperature["u"], "°C");
    let (imu_topic, imu) = reading_of(&all, "imu");
    assert!(imu["v"][0]["type"].is_string(), "no prefix: {imu}");

    let node = imu_topic.split('/').nth(1).unwrap().to_owned();
    let led = format!("nodes/{node}/res/led");
    let operator = system.identity("operator", "operator");
    let write = |resource: &str, v: &str, id: &str| {
        let topic = format!("nodes/{node}/res/{resource}");
        let request = format!(r#"{{"v":{v},"id":"{id}","timeout_ms":3000}}"#);
        publish(&operator, &format!("nodebus/v1/{topic}/set"), &request, &[]);
        all.wait_for_member(&format!("{topic}/ack"), "id", &json!(id))
    };
    all.wait_for_member(&led, "v", &json!(0));
    let long = format!("\"{}\"", "1".repeat(85));
    let ack = write("led", &long, "kill");
    assert_eq!(ack["status"], "rejected");
    assert!(
        ack["error"].as_str().unwrap().contains("led takes 0"),
        "{ack}"
    );
    let longer = format!("\"{}\"", "x".repeat(120));
    let ack = write("imu", &longer, "lost");
    assert_eq!(ack["status"], "rejected");
    assert!(
        ack["error"].as_str().unwrap().contains("128 bytes"),
        "{ack}"
    );
    let ack = write("led", "1", "on");
    assert_eq!((&ack["status"], &ack["v"]), (&json!("ok"), &json!(1)));
    // It answers no ping of CoAP, and yet it is known that it is there.
    let topic = format!("nodebus/v1/nodes/{node}/cmd/ping");
    publish(&operator, &topic, r#"{"id":"p"}"#, &[]);
    let ack = all.wait_for_member(&format!("nodes/{node}/cmd/ping/ack"), "id", &json!("p"));
    assert_eq!(ack["status"], "ok");

    // Without the bridge in between, the same write ends it.
    let now = system.subscribe(&format!("nodebus/v1/nodes/{node}"));
    let address = now.wait_for(&format!("nodes/{node}"), |descriptor| {
        descriptor["address"].as_str()?.parse().ok()
    });
    coap_put(address, "led", &"1".repeat(85));
    let ack = write("led", "0", "dead");
    assert_eq!(ack["status"], "timeout");
}
