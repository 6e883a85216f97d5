use bus::time::Now;

use super::*;
use crate::model::tests::{
    bridge_offline, bridge_online, connected_model, descriptor, node, put, reading, remove, status,
};

struct Rig {
    model: Model,
    feed: Feed,
    now: Now,
}

fn rig() -> Rig {
    let now = bus::time::now();
    Rig {
        model: connected_model(now),
        feed: Feed::default(),
        now,
    }
}

impl Rig {
    /// What the clients were told since the last call, in short.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(key) = self.model.poll_change() {
            told.extend(self.feed.handle_change(&self.model, &key));
        }
        short(&told)
    }
}

fn short(messages: &[String]) -> Vec<String> {
    let short = |message: &String| {
        let message: Value = serde_json::from_str(message).unwrap();
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        let (kind, uid, endpoint) = (text("type"), text("uid"), text("endpoint"));
        match message.get("data") {
            Some(data) => format!("{kind} {uid} {endpoint} {data}"),
            None => format!("{kind} {uid}"),
        }
    };
    messages.iter().map(short).collect()
}

#[test]
fn a_node_comes_with_all_that_is_known_of_it() {
    let mut rig = rig();
    reading(
        &mut rig.model,
        "n1",
        "led",
        json!({"v": 0, "raw": "0"}),
        rig.now,
    );
    assert_eq!(rig.told(), [""; 0], "nobody knows yet who it is");
    node(&mut rig.model, "n1", "coap", rig.now);
    let all = [
        "new UID-n1",
        "update UID-n1 protocol \"CoAP\"",
        "update UID-n1 ip \"fd00::1\"",
        "update UID-n1 led \"0\"",
    ];
    assert_eq!(rig.told(), all);
    assert_eq!(short(&rig.feed.replay(&rig.model)), all);
}

#[test]
fn values_come_as_the_node_sent_them_each_and_in_order() {
    let mut rig = rig();
    node(&mut rig.model, "n1", "coap", rig.now);
    rig.told();
    let listed = json!([{"name": "sensors-temp", "path": "/sensors/temp"}]);
    put(&mut rig.model, "nodes/n1/resources", &listed, rig.now);
    let text = json!({"v": 21.5, "u": "°C", "raw": "21.5°C"});
    reading(&mut rig.model, "n1", "sensors-temp", text, rig.now);
    reading(
        &mut rig.model,
        "n1",
        "sensors-temp",
        json!({"v": 22}),
        rig.now,
    );
    let expected = [
        "update UID-n1 sensors/temp \"21.5°C\"",
        "update UID-n1 sensors/temp 22",
    ];
    // Each message is handed on before the next is taken, as the driver does.
    let mut told = Vec::new();
    for value in [
        json!({"v": 21.5, "u": "°C", "raw": "21.5°C", "ts": 1}),
        json!({"v": 22, "ts": 2}),
    ] {
        reading(&mut rig.model, "n1", "sensors-temp", value, rig.now);
        told.extend(rig.told());
    }
    assert_eq!(told[told.len() - 2..], expected);
    let node = NodeId::from_text("n1");
    let meant = |endpoint| resource(&rig.model, &node, endpoint).to_string();
    assert_eq!(meant("/sensors/temp"), "sensors-temp");
    assert_eq!(meant("led"), "led");
}

#[test]
fn a_node_that_is_lost_is_out_and_one_that_is_back_is_new() {
    let mut rig = rig();
    node(&mut rig.model, "n1", "coap", rig.now);
    rig.told();
    status(&mut rig.model, "n1", "offline", rig.now);
    assert_eq!(rig.told(), ["out UID-n1"]);
    reading(&mut rig.model, "n1", "led", json!({"v": 1}), rig.now);
    assert_eq!(rig.told(), [""; 0]);
    status(&mut rig.model, "n1", "online", rig.now);
    assert_eq!(rig.told()[0], "new UID-n1");
    bridge_offline(&mut rig.model, "coap", rig.now);
    assert_eq!(rig.told(), ["out UID-n1"]);
    bridge_online(&mut rig.model, "coap", rig.now);
    assert_eq!(rig.told()[0], "new UID-n1");
    remove(&mut rig.model, "nodes/n1", rig.now);
    assert_eq!(rig.told(), ["out UID-n1"]);
    assert!(rig.feed.replay(&rig.model).is_empty());
}

#[test]
fn a_node_that_starts_anew_is_reset() {
    let mut rig = rig();
    node(&mut rig.model, "n1", "coap", rig.now);
    rig.told();
    let mut anew = descriptor("n1", "UID-n1", "coap");
    anew["epoch"] = json!(1);
    put(&mut rig.model, "nodes/n1", &anew, rig.now);
    assert_eq!(
        rig.told()[..2],
        ["reset UID-n1", "update UID-n1 protocol \"CoAP\""]
    );
}

#[test]
fn the_second_node_of_a_uid_goes_by_its_id() {
    let mut rig = rig();
    node(&mut rig.model, "n1", "coap", rig.now);
    status(&mut rig.model, "n2", "online", rig.now);
    put(
        &mut rig.model,
        "nodes/n2",
        &descriptor("n2", "UID-n1", "coap"),
        rig.now,
    );
    let told = rig.told();
    assert!(told.contains(&"new UID-n1".to_owned()) && told.contains(&"new n2".to_owned()));
    let id = |uid| rig.feed.node(uid).map(NodeId::as_str);
    assert_eq!((id("UID-n1"), id("n2")), (Some("n1"), Some("n2")));
}

#[test]
fn what_clients_say_is_read_as_pyaiot_reads_it() {
    assert_eq!(parse(r#"{"type":"new"}"#), Ok(Said::New));
    assert_eq!(parse(r#"{"type":"new","data":"client"}"#), Ok(Said::New));
    let write = r#"{"type":"update","data":{"uid":"x","endpoint":"led","payload":"1"}}"#;
    let expected = Said::Write {
        uid: "x".to_owned(),
        endpoint: "led".to_owned(),
        payload: json!("1"),
    };
    assert_eq!(parse(write), Ok(expected));
    let more = r#"{"type":"update","data":{"uid":"x","endpoint":"led","payload":"1","x":1}}"#;
    assert_eq!(parse(more), Ok(Said::Nothing));
    assert_eq!(parse(r#"{"type":"update"}"#), Ok(Said::Nothing));
    assert_eq!(parse(r#"{"type":"out","uid":"x"}"#), Ok(Said::Nothing));
    assert_eq!(parse("rubbish"), Err(Nonsense::NotJson));
    assert_eq!(parse(&"[".repeat(60_000)), Err(Nonsense::NotJson));
    assert_eq!(parse("[]"), Err(Nonsense::NoMessage));
    assert_eq!(parse(r#"{"type":"reboot"}"#), Err(Nonsense::Type));
}

#[test]
fn an_address_is_told_without_its_port() {
    assert_eq!(ip("[fd00::1]:5683"), "fd00::1");
    assert_eq!(ip("coap://192.0.2.1:5683"), "192.0.2.1");
    assert_eq!(ip("somewhere"), "somewhere");
}
