//! Values in the Content-Formats of the standards, from Python's cbor2 and json to any MQTT client.

use serde_json::{Value, json};

use crate::harness::{CoapNode, Subscriber, System, publish};

#[track_caller]
fn reading(all: &Subscriber, resource: &str) -> Value {
    let topic = format!("nodes/many/res/{resource}");
    all.wait_for(&topic, |reading| Some(reading.clone()))
}

#[test]
fn each_content_format_becomes_a_value_with_its_unit() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let _node = CoapNode::start_with(system.coap(), "many", &["--formats"]);
    let v = |resource| reading(&all, resource)["v"].clone();
    assert_eq!(v("in-json"), json!({"a": [1, "x"]}));
    assert_eq!(
        v("in-cbor"),
        json!({"int": -3, "half": 1.5, "bytes": "AAE=", "7": [true, null], "decimal": 273.15,
            "big": 18_446_744_073_709_551_616.0, "when": "2026-01-02T00:00:00Z"})
    );
    for env in ["env", "env-cbor"] {
        assert_eq!(v(env), json!({"t": 21.5, "h": 40}));
        assert_eq!(
            reading(&all, &format!("{env}-t")),
            json!({"v": 21.5, "u": "°C", "ts": "2023-11-14T22:13:20.000Z"})
        );
        assert_eq!(
            reading(&all, &format!("{env}-h")),
            json!({"v": 40, "u": "%", "ts": "2023-11-14T22:13:19.000Z"})
        );
    }
    assert_eq!(v("links"), json!([{"href": "/a", "rt": "x"}]));
    for (resource, bytes, ct) in [
        ("in-bytes", "/wA=", 42),
        ("in-lwm2m-tlv", "wQAB", 11542),
        ("broken", "oQ==", 60),
    ] {
        let reading = reading(&all, resource);
        assert_eq!((&reading["v"], &reading["ct"]), (&json!(bytes), &json!(ct)));
    }
    let counted = |reason| system.metric("coap_bridge_values_not_read_total", reason);
    assert_eq!(
        (counted("unknown_format"), counted("malformed")),
        (1.0, 1.0)
    );
}

#[test]
fn a_write_goes_out_in_the_format_of_the_resource() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start_with(system.coap(), "many", &["--formats"]);
    reading(&all, "setpoint");
    reading(&all, "target");
    reading(&all, "in-json");
    let operator = system.identity("operator", "operator");
    for (resource, v, written, confirmed) in [
        ("target", "22.5", "22.5", json!(22.5)),
        ("in-json", r#"{"b":1}"#, r#"{"b": 1}"#, json!({"b": 1})),
        (
            "setpoint",
            "21",
            r#"[{"0": "setpoint", "2": 21}]"#,
            json!(21),
        ),
    ] {
        let topic = format!("nodebus/v1/nodes/many/res/{resource}/set");
        let request = format!(r#"{{"v":{v},"id":"{resource}"}}"#);
        publish(&operator, &topic, &request, &[]);
        node.wait_for_put(resource, written);
        let ack = format!("nodes/many/res/{resource}/ack");
        let ack = all.wait_for_member(&ack, "id", &json!(resource));
        assert_eq!((&ack["status"], &ack["v"]), (&json!("ok"), &confirmed));
    }
}

#[test]
fn one_push_may_hold_several_resources() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "many");
    reading(&all, "led");
    let pack = json!([{"bn": "urn:dev:mac:1:", "n": "door", "vb": true},
        {"n": "voltage", "u": "V", "v": 3.3}, {"n": "blob", "vd": "_-8"}]);
    node.push_as("senml-json", &pack);
    assert_eq!(reading(&all, "door")["v"], json!(true));
    assert_eq!(reading(&all, "voltage")["u"], json!("V"));
    assert_eq!(reading(&all, "blob")["v"], json!("/+8="));
    node.push_as("cbor", &json!({"co2": 415, "mode": "eco"}));
    assert_eq!(reading(&all, "co2")["v"], json!(415));
    assert_eq!(reading(&all, "mode")["v"], json!("eco"));
}
