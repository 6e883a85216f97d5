//! What is gone is shown as gone, and what comes back is whole again without anyone else restarting.

use serde_json::json;

use crate::harness::{
    Browser, CoapNode, Distributed, PyaiotClient, System, coap_post_from, publish, wait_for,
};

#[test]
fn a_silent_node_is_offline_in_every_view() {
    let system = System::start(&["--set", "coap_bridge.max_time=3s"]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "still");
    all.wait_for_member("nodes/still/status", "state", &json!("online"));
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", system.dashboard()));
    browser.wait("[data-node=still][data-state=online]", "");
    let mut client = PyaiotClient::connect(system.dashboard(), "/ws");
    client.send(&json!({"type": "new"}));
    client.wait_for("the node", |m| (m["uid"] == "still").then_some(()));

    node.quiet();
    let status = all.wait_for_member("nodes/still/status", "state", &json!("offline"));
    assert_eq!(status["reason"], "timeout");
    browser.wait("[data-node=still][data-state=offline]", "");
    client.wait_for("out", |m| {
        (m["type"] == "out" && m["uid"] == "still").then_some(())
    });

    node.talk();
    browser.wait("[data-node=still][data-state=online]", "");
    client.wait_for("the return", |m| {
        (m["type"] == "new" && m["uid"] == "still").then_some(())
    });
}

#[test]
fn a_killed_bridge_makes_its_nodes_unknown_until_it_is_back() {
    let mut parts = Distributed::start();
    let bridge = format!("127.0.0.1:{}", parts.coap).parse().unwrap();
    let all = parts.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(bridge, "kept");
    all.wait_for_member("nodes/kept/res/led", "v", &json!(0));
    let mut browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{}/", parts.dashboard));
    browser.wait("[data-node=kept][data-state=online]", "");

    parts.coap_bridge.kill();
    all.wait_for_member("bridges/coap/status", "state", &json!("offline"));
    browser.wait("[data-node=kept][data-state=unknown]", "");

    parts.restart_coap_bridge();
    browser.wait("[data-node=kept][data-state=online]", "");
    let operator = parts.identity("operator", "operator");
    publish(
        &operator,
        "nodebus/v1/nodes/kept/res/led/set",
        r#"{"v":1,"id":"b"}"#,
        &[],
    );
    node.wait_for_put("led", "1");
    let ack = all.wait_for_member("nodes/kept/res/led/ack", "id", &json!("b"));
    assert_eq!(ack["status"], "ok");
    let new = all
        .messages()
        .iter()
        .filter(|(_, _, payload)| payload.contains("node_new"))
        .count();
    assert_eq!(new, 1, "a restart makes no node new");
}

#[test]
fn a_restarted_bus_is_found_again_by_everybody() {
    let mut parts = Distributed::start();
    let bridge = format!("127.0.0.1:{}", parts.coap).parse().unwrap();
    let mut node = CoapNode::start(bridge, "deep");
    let before = parts.subscribe("nodebus/v1/#");
    before.wait_for_member("nodes/deep/res/led", "v", &json!(0));
    let mut browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{}/", parts.dashboard));
    browser.wait("[data-node=deep]", "Node deep");

    parts.bus.kill();
    parts.bus.wait();
    browser.wait("[data-connection=no-bus]", "lost the bus");
    node.push("temperature", "25.5°C");
    parts.restart_bus();
    browser.wait("[data-connection=live]", "");
    browser.wait("[data-node=deep] [data-resource=temperature]", "25.5");
    let after = parts.subscribe("nodebus/v1/#");
    after.wait_for_member("nodes/deep/res/temperature", "v", &json!(25.5));
    after.wait_for_member("nodes/deep/status", "state", &json!("online"));
}

#[test]
fn two_bridges_that_hear_one_node_do_not_fight_over_it() {
    let parts = Distributed::start();
    let (_attic, attic) = parts.second_coap_bridge("attic");
    let local = |port: u16| ([127, 0, 0, 1], port).into();
    let all = parts.subscribe("nodebus/v1/#");
    let source = 30_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let say = |bridge: u16, path: &str, text: &str| {
        coap_post_from(local(bridge), path, text, source);
    };
    say(parts.coap, "alive", "alive:both");
    all.wait_for_member("nodes/both", "bridge", &json!("coap"));
    for value in 1..6 {
        say(attic, "alive", "alive:both");
        say(attic, "server", "temperature:99");
        say(parts.coap, "alive", "alive:both");
        say(parts.coap, "server", &format!("temperature:{value}"));
    }
    all.wait_for_member("nodes/both/res/temperature", "v", &json!(5));
    let messages = all.messages();
    let said = |text: &str| messages.iter().filter(|(_, _, p)| p.contains(text)).count();
    assert_eq!(said("node_new"), 1);
    assert_eq!(
        (said(r#""bridge":"attic""#), said(r#""v":99"#)),
        (0, 0),
        "{messages:?}"
    );

    parts.coap_bridge.kill();
    all.wait_for_member("bridges/coap/status", "state", &json!("offline"));
    wait_for("the other bridge to take over", || {
        say(attic, "alive", "alive:both");
        let now = parts.subscribe("nodebus/v1/nodes/both");
        let bridge = now.wait_for("nodes/both", |node| Some(node["bridge"].clone()));
        (bridge == "attic").then_some(())
    });
    say(attic, "server", "temperature:7");
    all.wait_for_member("nodes/both/res/temperature", "v", &json!(7));
}

#[test]
fn a_clean_stop_says_goodbye_and_exits_with_0() {
    let mut parts = Distributed::start();
    let all = parts.subscribe("nodebus/v1/#");
    all.wait_for_member("bridges/coap/status", "state", &json!("online"));
    parts.coap_bridge.terminate();
    assert_eq!(parts.coap_bridge.wait().code(), Some(0));
    // A goodbye carries its time; the Will can't.
    all.wait_for("bridges/coap/status", |status| {
        (status["state"] == "offline" && status["ts"].is_string()).then_some(())
    });
    parts.dashboard_gw.terminate();
    assert_eq!(parts.dashboard_gw.wait().code(), Some(0));
    parts.bus.terminate();
    assert_eq!(parts.bus.wait().code(), Some(0));
}

#[test]
fn everything_in_one_process_stops_cleanly_too() {
    let mut system = System::start(&["--demo"]);
    wait_for("the simulated nodes", || {
        (system.metric("bridge_nodes", "coap") > 0.0).then_some(())
    });
    system.process.terminate();
    assert_eq!(system.process.wait().code(), Some(0));
}
