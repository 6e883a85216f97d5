//! Nodes that speak CoAP, from the wire to any MQTT client.

use serde_json::json;

use crate::harness::{CoapNode, Outage, System, coap_post, coap_post_from, coap_put, publish};

#[test]
fn a_push_of_an_aiocoap_node_reaches_mosquitto_sub() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "1234");

    let descriptor = all.wait_for_member("nodes/1234", "name", &json!("Node 1234"));
    assert_eq!(descriptor["uid"], "1234");
    assert_eq!(descriptor["protocol"], "coap");
    assert_eq!(descriptor["bridge"], "coap");
    all.wait_for_member("nodes/1234", "board", &json!("native"));
    all.wait_for_member("nodes/1234/status", "state", &json!("online"));
    all.wait_for_member("nodes/1234/res/led", "v", &json!(0));
    all.wait_for("nodes/1234/resources", |list| {
        let names: Vec<_> = list
            .as_array()?
            .iter()
            .filter_map(|r| r["name"].as_str())
            .collect();
        ["board", "led", "temperature"]
            .iter()
            .all(|name| names.contains(name))
            .then_some(())
    });
    all.wait_for_member("events", "type", &json!("node_new"));

    node.push("temperature", "21.5°C");
    let reading = all.wait_for_member("nodes/1234/res/temperature", "v", &json!(21.5));
    assert_eq!(reading["u"], "°C");
    assert_eq!(reading["raw"], "21.5°C");
    assert!(
        reading["ts"].as_str().is_some_and(|ts| ts.ends_with('Z')),
        "{reading}"
    );
}

#[test]
fn what_was_said_before_waits_for_a_late_subscriber() {
    let system = System::start(&[]);
    let mut node = CoapNode::start(system.coap(), "late");
    let early = system.subscribe("nodebus/v1/nodes/+/res/+");
    node.push("pressure", "1013.2hPa");
    early.wait_for_member("nodes/late/res/pressure", "v", &json!(1013.2));

    let late = system.subscribe("nodebus/v1/#");
    late.wait_for_member("nodes/late/res/pressure", "v", &json!(1013.2));
    late.wait_for_member("bridges/coap/status", "state", &json!("online"));
    let retained = late.messages();
    let pressure = retained
        .iter()
        .find(|(topic, _, _)| topic.ends_with("/res/pressure"));
    assert!(pressure.is_some_and(|(_, retained, _)| *retained));
}

#[test]
fn libcoaps_client_is_answered_as_pyaiot_answered() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let port = 40_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let answer = coap_post_from(system.coap(), "alive", "alive:LIB1", port);
    assert!(answer.contains("Received 'alive:LIB1'"), "{answer}");
    all.wait_for_member("nodes/lib1/status", "state", &json!("online"));
    // libcoap's client takes % for an escape.
    let answer = coap_post_from(system.coap(), "server", "humidity:45.02%25", port);
    assert!(answer.contains("Received 'humidity:45.02%'"), "{answer}");
    let reading = all.wait_for_member("nodes/lib1/res/humidity", "v", &json!(45.02));
    assert_eq!(reading["u"], "%");
}

#[test]
fn strangers_and_strange_paths_get_an_error_code() {
    let system = System::start(&[]);
    let answer = coap_post(system.coap(), "server", "temperature:1");
    assert!(answer.contains("4.04"), "{answer}");
    let answer = coap_post(system.coap(), "nothing", "x");
    assert!(answer.contains("4.04"), "{answer}");
}

#[test]
fn a_node_that_started_anew_is_an_event() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "again");
    all.wait_for_member("nodes/again/res/led", "v", &json!(0));
    // A reset within two seconds of the first sign of life is the same start.
    node.wait_for_beats(4);
    node.reset();
    let event = all.wait_for_member("events", "type", &json!("node_reset"));
    assert_eq!(event["node"], "again");
    all.wait_for_member("nodes/again", "epoch", &json!(1));
}

#[test]
fn a_forgotten_node_leaves_no_topic_behind() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "gone");
    all.wait_for_member("nodes/gone/res/led", "v", &json!(0));
    node.quiet();
    let operator = system.identity("operator", "operator");
    publish(
        &operator,
        "nodebus/v1/nodes/gone/cmd/forget",
        r#"{"id":"f"}"#,
        &[],
    );
    let ack = all.wait_for_member("nodes/gone/cmd/forget/ack", "id", &json!("f"));
    assert_eq!(ack["status"], "ok");
    all.wait_for_member("events", "type", &json!("node_forgotten"));
    let late = system.subscribe("nodebus/v1/#");
    late.wait_for_member("bridges/coap/status", "state", &json!("online"));
    assert!(
        late.messages()
            .iter()
            .all(|(topic, _, _)| !topic.starts_with("nodes/gone"))
    );
}

/// Anyone can send `reset:<uid>`; the node keeps its place until the new one answers for itself.
#[test]
fn a_stranger_can_not_take_over_a_node() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "mine");
    let address = all.wait_for_member("nodes/mine", "board", &json!("native"))["address"].clone();
    coap_post(system.coap(), "alive", "reset:mine");
    coap_post(system.coap(), "server", "temperature:99");
    node.push("temperature", "5.5°C");
    all.wait_for_member("nodes/mine/res/temperature", "v", &json!(5.5));
    let operator = system.identity("operator", "operator");
    publish(&operator, "nodebus/v1/nodes/mine/res/led/set", "1", &[]);
    node.wait_for_put("led", "1");
    let late = system.subscribe("nodebus/v1/nodes/mine");
    assert_eq!(
        late.wait_for("nodes/mine", |d| Some(d["address"].clone())),
        address
    );
    let readings = all.messages();
    assert!(
        readings
            .iter()
            .all(|(topic, _, p)| !topic.ends_with("temperature") || !p.contains("99"))
    );
}

/// aiocoap finds the Resource Directory, registers from the port that it serves at, and leaves.
#[test]
fn an_aiocoap_endpoint_registers_and_leaves() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start_with(system.coap(), "ep-7", &["--register", "--port", "61616"]);
    let descriptor = all.wait_for_member("nodes/ep-7", "board", &json!("native"));
    let address = descriptor["address"].as_str().unwrap();
    assert!(address.ends_with(":61616"), "{address}");
    all.wait_for_member("nodes/ep-7/status", "state", &json!("online"));
    let operator = system.identity("operator", "operator");
    publish(&operator, "nodebus/v1/nodes/ep-7/res/led/set", "1", &[]);
    node.wait_for_put("led", "1");
    all.wait_for_member("nodes/ep-7/res/led", "v", &json!(1));
    node.leave();
    let status = all.wait_for_member("nodes/ep-7/status", "state", &json!("offline"));
    assert_eq!(status["reason"], "deregistered");
}

/// It is silent for most of its lifetime, so a bridge that starts anew asks it.
#[test]
fn a_registered_endpoint_is_still_one_after_the_bridge_was_killed() {
    let mut outage = Outage::start("coap", &[]);
    let keeper = outage.keeper();
    let args = ["--register", "--port", "61616"];
    let _node = CoapNode::start_with(outage.address(), "n", &args);
    let all = keeper.now();
    let descriptor = all.wait_for_member("nodes/n", "board", &json!("native"));
    all.wait_for_member("nodes/n/res/led", "v", &json!(0));
    outage.wait_for_written(0);
    outage.kill_bridge();
    let address = descriptor["address"].as_str().unwrap();
    coap_put(address.parse().unwrap(), "led", "1");
    outage.start_bridge();
    all.wait_for_member("nodes/n/res/led", "v", &json!(1));
    assert_eq!(keeper.events("node_new"), 1);
}
