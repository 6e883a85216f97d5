//! What people ask of nodes.

use std::time::Duration;

use serde_json::{Value, json};

use super::bench::{Bench, Server, addr};
use crate::endpoint::Code;
use crate::endpoint::options::format;

const SERVER: &str = "10.0.0.1:5683";

fn bench(list: &str) -> Bench {
    let mut bench = Bench::new();
    let values = [("led", "0"), ("name", "node"), ("js", "")];
    bench
        .servers
        .insert(addr(SERVER), Server::new(list, &values));
    bench.alive("10.0.0.1:49152", "alive:a");
    bench.server(SERVER).take_asked();
    bench
}

fn old_firmware() -> Bench {
    bench("</led>,</name>,</js>")
}

fn ack(bench: &Bench, resource: &str) -> Value {
    let ack = bench.topic(&format!("nodes/a/res/{resource}/ack"));
    json!([ack["status"], ack["code"], ack["v"]])
}

#[test]
fn a_write_is_confirmed_with_what_the_node_then_says() {
    let mut bench = old_firmware();
    bench.bus("nodes/a/res/led/set", r#"{"v":true,"id":"c-1"}"#);
    assert_eq!(bench.server(SERVER).take_asked(), ["PUT LED 1", "GET led"]);
    assert_eq!(ack(&bench, "led"), json!(["ok", "2.04", 1]));
    assert_eq!(bench.topic("nodes/a/res/led/ack")["id"], "c-1");
    assert_eq!(bench.value("a", "led"), json!(1));
}

#[test]
fn what_would_kill_an_old_firmware_is_not_sent() {
    let mut bench = old_firmware();
    for bad in ["2".to_owned(), "on".to_owned(), "1".repeat(85)] {
        bench.bus("nodes/a/res/led/set", &bad);
        assert_eq!(ack(&bench, "led"), json!(["rejected", null, null]));
    }
    bench.bus("nodes/a/res/js/set", &"x".repeat(200));
    assert_eq!(ack(&bench, "js"), json!(["rejected", null, null]));
    assert!(bench.server(SERVER).take_asked().is_empty());
}

#[test]
fn another_node_gets_what_is_asked() {
    let mut bench = bench(r#"</led>;rt="light",</name>,</js>"#);
    bench.bus("nodes/a/res/js/set", &"x".repeat(200));
    assert_eq!(ack(&bench, "js")[0], json!("ok"));
    bench.bus("nodes/a/res/led/set", "#ff8800");
    assert_eq!(bench.value("a", "led"), json!("#ff8800"));
}

#[test]
fn the_bus_may_choose_the_method() {
    let mut bench = bench(r#"</led>;rt="light",</name>,</js>"#);
    for (method, asked) in [
        ("put", "PUT"),
        ("post", "POST"),
        ("patch", "PATCH"),
        ("ipatch", "IPATCH"),
    ] {
        let payload = format!(r#"{{"v":"x","method":"{method}"}}"#);
        bench.bus("nodes/a/res/js/set", &payload);
        let asked = format!("{asked} JS X");
        assert_eq!(bench.server(SERVER).take_asked(), [&asked, "GET js"]);
        assert_eq!(ack(&bench, "js"), json!(["ok", "2.04", "x"]));
    }
    bench.bus("nodes/a/res/js/set", r#"{"v":{"a":1},"method":"patch"}"#);
    let merged = bench.server(SERVER).format;
    assert_eq!(merged, Some(format::MERGE_PATCH_JSON));
    bench.bus("nodes/a/res/led/set", r#"{"v":"is","method":"fetch"}"#);
    assert_eq!(ack(&bench, "led"), json!(["ok", "2.05", "is=0"]));
    assert_eq!(
        bench.value("a", "led"),
        json!(0),
        "a question changes nothing"
    );
}

#[test]
fn the_node_says_no() {
    let mut bench = old_firmware();
    for (code, status) in [
        (Code::NOT_FOUND, "rejected"),
        (Code::METHOD_NOT_ALLOWED, "rejected"),
        (Code::INTERNAL_SERVER_ERROR, "error"),
    ] {
        bench.server(SERVER).put = code;
        bench.bus("nodes/a/res/led/set", "1");
        assert_eq!(ack(&bench, "led"), json!([status, code.to_string(), null]));
        assert!(bench.topic("nodes/a/res/led/ack")["error"].is_string());
    }
    assert_eq!(bench.value("a", "led"), json!(0), "nothing was written");
    bench.server(SERVER).put = Code::CONTENT;
    bench.bus("nodes/a/res/led/set", "1");
    assert_eq!(
        ack(&bench, "led"),
        json!(["ok", "2.05", 1]),
        "some answer a write with 2.05"
    );
}

#[test]
fn a_silent_node_is_a_timeout_and_no_stale_write_follows() {
    let mut bench = old_firmware();
    bench.server(SERVER).dead = true;
    bench.bus("nodes/a/res/led/set", r#"{"v":1,"timeout_ms":1000}"#);
    bench.wait(Duration::from_secs(1));
    assert_eq!(ack(&bench, "led"), json!(["timeout", null, null]));
    bench.server(SERVER).dead = false;
    bench.wait(Duration::from_secs(20));
    assert!(
        !bench
            .server(SERVER)
            .take_asked()
            .contains(&"PUT LED 1".to_owned())
    );
}

#[test]
fn people_go_before_routine() {
    let mut bench = old_firmware();
    bench.server(SERVER).dead = true;
    bench.alive("10.0.0.1:49152", "alive:a");
    bench.wait(Duration::from_secs(31));
    assert!(
        bench.bridge.endpoint.poll_timeout().is_some(),
        "a poll hangs"
    );
    bench.server(SERVER).dead = false;
    bench.bus("nodes/a/res/led/set", "1");
    assert_eq!(ack(&bench, "led"), json!(["ok", "2.04", 1]));
}

#[test]
fn a_resource_is_read_now() {
    let mut bench = old_firmware();
    bench.server(SERVER).values.insert("led".into(), "1".into());
    bench.bus("nodes/a/res/led/get", r#"{"id":"g"}"#);
    assert_eq!(ack(&bench, "led"), json!(["ok", "2.05", 1]));
    assert_eq!(bench.value("a", "led"), json!(1));
    bench.server(SERVER).values.remove("led");
    bench.bus("nodes/a/res/led/get", "");
    assert_eq!(ack(&bench, "led"), json!(["rejected", "4.04", null]));
}

#[test]
fn a_node_is_pinged_and_asked_for_its_resources() {
    let mut bench = old_firmware();
    bench.bus("nodes/a/cmd/ping", "");
    assert_eq!(bench.topic("nodes/a/cmd/ping/ack")["status"], "ok");
    bench.server(SERVER).list = "</led>".into();
    bench.bus("nodes/a/cmd/rediscover", "");
    assert_eq!(bench.topic("nodes/a/cmd/rediscover/ack")["status"], "ok");
    assert_eq!(
        bench.topic("nodes/a/resources").as_array().unwrap().len(),
        1
    );
    bench.server(SERVER).dead = true;
    bench.bus("nodes/a/cmd/ping", r#"{"timeout_ms":2000}"#);
    bench.bus("nodes/a/cmd/rediscover", r#"{"timeout_ms":2000}"#);
    bench.wait(Duration::from_secs(3));
    assert_eq!(bench.topic("nodes/a/cmd/ping/ack")["status"], "timeout");
    assert_eq!(
        bench.topic("nodes/a/cmd/rediscover/ack")["status"],
        "timeout"
    );
}

#[test]
fn every_request_to_a_node_that_moves_and_dies_gets_one_ack() {
    let mut bench = old_firmware();
    for n in 0..10 {
        bench.server(SERVER).dead = n % 2 == 0;
        bench.bus("nodes/a/res/led/set", "1");
        bench.bus("nodes/a/cmd/rediscover", "");
        bench.bus("nodes/a/cmd/ping", "");
        bench.wait(Duration::from_secs(7));
        bench.alive("10.0.0.1:49152", "reset:a");
    }
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.acks, 30);
}
