//! Nodes that are client and server over the DTLS session which they opened.

use std::collections::BTreeSet;

use serde_json::json;

use crate::dtls::{KEY, OTHER, give, start};
use crate::harness::{Fleet, LibcoapNode, publish, wait_for};

#[test]
fn a_libcoap_node_is_read_observed_and_written_over_its_own_session() {
    let system = start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = LibcoapNode::start(system.coaps(), "kitchen", KEY, "kitchen");
    node.wait_for("alive 2.04");
    let descriptor = all.wait_for_member("nodes/kitchen", "name", &json!("libcoap"));
    let address = descriptor["address"].as_str().unwrap();
    assert!(address.starts_with("coaps://127.0.0.1:"), "{address}");
    // In blocks.
    let poem: String = ('a'..='z').cycle().take(2999).collect();
    all.wait_for_member("nodes/kitchen/res/poem", "v", &json!(poem));
    // It counts seconds, and nobody reads as often.
    node.wait_for("observed");
    wait_for("notifications", || {
        let messages = all.messages();
        let counts = messages
            .iter()
            .filter(|(topic, _, _)| topic.ends_with("nodes/kitchen/res/count"));
        let different: BTreeSet<_> = counts.map(|(_, _, payload)| payload).collect();
        (different.len() >= 4).then_some(())
    });
    all.wait_for_member("nodes/kitchen/res/led", "v", &json!(0));
    let operator = system.identity("operator", "operator");
    let topic = "nodebus/v1/nodes/kitchen/res/led/set";
    publish(&operator, topic, r#"{"v":1,"id":"w"}"#, &[]);
    let ack = all.wait_for_member("nodes/kitchen/res/led/ack", "id", &json!("w"));
    assert_eq!(
        (&ack["status"], &ack["code"]),
        (&json!("ok"), &json!("2.04"))
    );
    node.wait_for("put led 1");
    all.wait_for_member("nodes/kitchen/res/led", "v", &json!(1));
    // All of it over the one session.
    let established = system.metric("coap_bridge_dtls_sessions_established_total", "");
    assert_eq!(established, 1.0);
}

#[test]
fn a_libcoap_node_is_believed_as_its_own_name_only() {
    let system = start(&[]);
    give(&system.pki(), "attic", OTHER);
    let all = system.subscribe("nodebus/v1/#");
    let mut impostor = LibcoapNode::start(system.coaps(), "kitchen", KEY, "attic");
    impostor.wait_for("alive 4.03");
    let mut thief = LibcoapNode::start(system.coaps(), "kitchen", OTHER, "kitchen");
    assert!(!thief.was_answered());
    let mut node = LibcoapNode::start(system.coaps(), "kitchen", KEY, "kitchen");
    node.wait_for("alive 2.04");
    all.wait_for_member("nodes/kitchen/res/led", "v", &json!(0));
    let topics = all.messages();
    assert!(topics.iter().all(|(topic, _, _)| !topic.contains("attic")));
}

#[test]
fn simulated_nodes_join_over_dtls_and_are_written() {
    let system = start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let keys = system.pki().join("psk");
    give(&system.pki(), "attic", OTHER);
    let _fleet = Fleet::secure(&system, &["--psk", keys.to_str().unwrap(), "--rate", "2"]);
    // The bridge learns of the second key while it runs; its node tries until then.
    for name in ["attic", "kitchen"] {
        let descriptor = all.wait_for(&format!("nodes/{name}"), |node| {
            node["board"].as_str().is_some().then(|| node.clone())
        });
        let address = descriptor["address"].as_str().unwrap();
        assert!(address.starts_with("coaps://"), "{address}");
    }
    let led = wait_for("a LED", || {
        let messages = all.messages();
        let mut topics = messages.iter().map(|(topic, _, _)| topic);
        topics.find(|topic| topic.ends_with("/res/led")).cloned()
    });
    let operator = system.identity("operator", "operator");
    let topic = format!("nodebus/v1/{led}/set");
    publish(&operator, &topic, r#"{"v":1,"id":"s"}"#, &[]);
    let ack = all.wait_for_member(&format!("{led}/ack"), "id", &json!("s"));
    assert_eq!((&ack["status"], &ack["v"]), (&json!("ok"), &json!(1)));
}
