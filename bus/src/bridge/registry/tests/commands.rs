//! What people ask of nodes, and its one answer.

use bytes::Bytes;
use serde_json::json;

use super::super::*;
use super::sim::{Sim, ok, uid_of};
use crate::bridge::{Action, Report};
use crate::payload::SetMethod;

#[test]
fn a_write_gets_exactly_one_ack() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.reading("n", "led", "0");
    sim.message("nodes/n/res/led/set", r#"{"v":1,"id":"c-42"}"#, false);
    let request = sim.request().unwrap();
    assert_eq!(
        request.action,
        Action::Set {
            path: "led".into(),
            value: json!(1),
            method: SetMethod::Put,
        }
    );
    sim.pass_time(Duration::from_millis(37));
    sim.report(Report::Answer {
        id: request.id,
        answer: ok(json!(1)),
    });
    sim.report(Report::Answer {
        id: request.id,
        answer: ok(json!(1)),
    });
    sim.pass_time(Duration::from_secs(60));
    let expected =
        json!({"id": "c-42", "op": "set", "status": "ok", "code": "2.04", "v": 1, "ms": 37});
    assert_eq!(sim.acks(), [&expected]);
    assert_eq!(
        sim.retained["nodes/n/res/led"]["v"], 0,
        "only the node changes the state"
    );
}

#[test]
fn a_node_that_says_nothing_ends_in_a_timeout() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.reading("n", "led", "0");
    sim.message("nodes/n/res/led/set", r#"{"v":1,"timeout_ms":2000}"#, false);
    let request = sim.request().unwrap();
    sim.pass_time(Duration::from_secs(2));
    sim.report(Report::Answer {
        id: request.id,
        answer: ok(json!(1)),
    });
    assert_eq!(sim.acks().len(), 1);
    assert_eq!(sim.acks()[0]["status"], "timeout");
}

#[track_caller]
fn rejected(topic: &str, payload: &str, why: &str) {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.reading("n", "led", "0");
    sim.announce("off");
    sim.report(Report::Lost {
        uid: uid_of("off"),
        reason: "closed",
    });
    sim.message(topic, payload, false);
    assert_eq!(sim.request(), None);
    assert_eq!(sim.acks().len(), 1, "{topic}");
    assert_eq!(sim.acks()[0]["status"], "rejected");
    let error = sim.acks()[0]["error"].as_str().unwrap();
    assert!(error.contains(why), "{error}");
}

#[test]
fn what_can_not_be_done_is_rejected_at_once() {
    rejected("nodes/off/res/led/set", "1", "offline");
    rejected("nodes/off/cmd/ping", "", "offline");
    rejected("nodes/n/res/lamp/set", "1", "no resource lamp");
    rejected("nodes/n/res/led/set", "", "empty");
    rejected("nodes/n/res/led/get", "[]", "object");
}

#[test]
fn requests_of_one_node_are_bounded() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.reading("n", "led", "0");
    for _ in 0..17 {
        sim.message("nodes/n/res/led/set", "1", false);
    }
    assert_eq!(sim.acks().len(), 1);
    sim.report(Report::Lost {
        uid: uid_of("n"),
        reason: "closed",
    });
    assert_eq!(
        sim.acks().len(),
        17,
        "whoever waits for a lost node is told"
    );
}

#[test]
fn stale_and_strange_requests_do_nothing() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.reading("n", "led", "0");
    sim.message("nodes/n/res/led/set", "1", true);
    sim.message("nodes/stranger/res/led/set", "1", false);
    sim.message("something/else", "1", false);
    assert_eq!(sim.request(), None);
    assert!(sim.acks().is_empty());
}

#[test]
fn forget_removes_the_node_and_is_acknowledged() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.message("nodes/n/cmd/forget", r#"{"id":"f"}"#, false);
    assert_eq!(sim.acks()[0]["status"], "ok");
    assert!(!sim.retained.contains_key("nodes/n"));
    assert_eq!(
        sim.registry.poll_order(),
        Some(Order::Forget { uid: uid_of("n") })
    );
}

#[test]
fn an_answer_goes_where_the_asker_wants_it_too() {
    let mut sim = Sim::new();
    sim.announce("n");
    let message = Message {
        topic: "nodebus/v1/nodes/n/cmd/ping".into(),
        payload: Bytes::new(),
        retain: false,
        response_topic: Some("nodebus/v1/replies/me".into()),
        correlation: Some(Bytes::from_static(b"7")),
        expiry: None,
    };
    sim.registry.handle_message(&message, sim.now);
    let request = sim.request().unwrap();
    sim.registry.handle_report(
        Report::Answer {
            id: request.id,
            answer: ok(json!(null)),
        },
        sim.now,
    );
    let mut topics = Vec::new();
    while let Some(publication) = sim.registry.poll_publication() {
        if publication.correlation.is_some() {
            topics.push(publication.topic);
        }
    }
    assert_eq!(
        topics,
        ["nodebus/v1/nodes/n/cmd/ping/ack", "nodebus/v1/replies/me"]
    );
}
