//! Any MQTT client, on the bus as on any other broker.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{CoapNode, Identity, Process, Subscriber, System, publish, run, wait_for};

fn publish_retained(identity: &Identity, count: u32, prefix: &str, v5: bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join(".venv/bin/python"));
    command.arg(root.join("tests/peers/retained.py"));
    command
        .args(["--port", &identity.port.to_string(), "--pki"])
        .arg(&identity.folder);
    command.args(["--count", &count.to_string(), "--prefix", prefix]);
    if v5 {
        command.arg("--v5");
    }
    let (code, out, err) = run(&mut command);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn ten_thousand_retained_messages_arrive_whole() {
    let system = System::start(&[]);
    let admin = system.issue("admin", "root");
    publish_retained(&admin, 5000, "nodebus/v1/burst/a", false);
    publish_retained(&admin, 5000, "nodebus/v1/burst/b", true);
    for (version, qos) in [
        ("mqttv311", "0"),
        ("mqttv311", "1"),
        ("mqttv5", "0"),
        ("mqttv5", "1"),
    ] {
        let viewer = system.identity("viewer", "viewer");
        let all = Subscriber::start(&viewer, "nodebus/v1/burst/#", &["-V", version, "-q", qos]);
        wait_for(
            &format!("10,000 messages with {version} and QoS {qos}"),
            || (all.messages().len() == 10_000).then_some(()),
        );
        let mut topics: Vec<_> = all
            .messages()
            .into_iter()
            .map(|(topic, _, _)| topic)
            .collect();
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 10_000);
    }
}

#[test]
fn old_and_new_clients_share_one_port() {
    let system = System::start(&[]);
    let (operator, viewer) = (
        system.identity("operator", "operator"),
        system.identity("viewer", "viewer"),
    );
    let topic = "nodebus/v1/nodes/x/res/y/set";
    for subscriber in ["mqttv311", "mqttv5"] {
        let all = Subscriber::start(&viewer, "nodebus/v1/nodes/#", &["-V", subscriber]);
        for publisher in ["mqttv311", "mqttv5"] {
            let id = format!("{subscriber}-{publisher}");
            let payload = json!({"v": 1, "id": id}).to_string();
            let (code, err) = publish(&operator, topic, &payload, &["-V", publisher]);
            assert_eq!(code, 0, "{err}");
            all.wait_for_member("nodes/x/res/y/set", "id", &json!(id));
        }
    }
}

#[test]
fn the_greetings_line_shows_data_without_a_certificate() {
    let system = System::start(&[]);
    let node = CoapNode::start(system.coap(), "open");
    let mut words: Option<Vec<String>> = None;
    for line in system.process.lines() {
        if let Some((_, command)) = line.split_once("Watch the readings:") {
            words = Some(
                command
                    .split_whitespace()
                    .map(|w| w.trim_matches('\'').to_owned())
                    .collect(),
            );
        }
    }
    let words = words.expect("the greeting has a line for mosquitto_sub");
    let mut watch = Process::start(
        "mosquitto_sub",
        Command::new("stdbuf").arg("-oL").args(&words),
    );
    watch.wait_for_line("a reading", |line| {
        line.contains("nodes/open/res/led").then_some(())
    });
    drop(node);
}

#[test]
fn a_response_topic_gets_the_ack_too() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let node = CoapNode::start(system.coap(), "rr");
    all.wait_for_member("nodes/rr/res/led", "v", &json!(0));
    let operator = system.identity("operator", "operator");
    // mosquitto_rr waits for the answer on its response topic.
    let mut command = Command::new("mosquitto_rr");
    command.args(operator.args()).args([
        "-W",
        "20",
        "-q",
        "1",
        "-t",
        "nodebus/v1/nodes/rr/res/led/set",
    ]);
    command.args([
        "-e",
        "nodebus/v1/replies/operator",
        "-m",
        r#"{"v":1,"id":"rr"}"#,
    ]);
    let (code, out, err) = run(&mut command);
    assert_eq!(code, 0, "{out}{err}");
    let ack: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!((&ack["id"], &ack["status"]), (&json!("rr"), &json!("ok")));
    drop(node);
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let mut system = System::start(&[]);
    let admin = system.issue("admin", "root");
    publish_retained(&admin, 500, "nodebus/v1/kept", true);
    system.kill_and_restart();
    let all = system.subscribe("nodebus/v1/kept/#");
    wait_for("500 messages", || {
        (all.messages().len() == 500).then_some(())
    });
}
