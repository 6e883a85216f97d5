use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::bridge::{Action, Answer, Request};
use crate::id::BridgeId;
use crate::payload::{AckStatus, SetMethod};
use crate::time;
use crate::topic::Base;

const MAX_TIME: Duration = Duration::from_secs(120);

/// A registry, and the bus as a retained map plus a log of what passed.
struct Sim {
    registry: Registry,
    now: Now,
    retained: BTreeMap<String, Value>,
    passed: Vec<(String, Value)>,
}

impl Sim {
    fn new() -> Self {
        let config = BridgeConfig {
            name: BridgeId::new("coap").unwrap(),
            protocol: "coap",
            base: Base::default(),
            max_time: Some(MAX_TIME),
            forget_after: Duration::from_secs(86_400),
            max_nodes: 3,
        };
        let now = time::now();
        let mut sim = Self {
            registry: Registry::new(config),
            now,
            retained: BTreeMap::new(),
            passed: Vec::new(),
        };
        sim.registry.handle_connected(now);
        sim.registry.finish_restoring();
        sim.drain();
        sim
    }

    fn drain(&mut self) {
        while let Some(publication) = self.registry.poll_publication() {
            let topic = publication
                .topic
                .strip_prefix("nodebus/v1/")
                .unwrap()
                .to_owned();
            if publication.retain && publication.payload.is_empty() {
                self.retained.remove(&topic);
                continue;
            }
            let value = serde_json::from_slice(&publication.payload).unwrap();
            if publication.retain {
                self.retained.insert(topic, value);
            } else {
                self.passed.push((topic, value));
            }
        }
    }

    fn report(&mut self, report: Report) {
        self.registry.handle_report(report, self.now);
        self.drain();
    }

    fn announce(&mut self, uid: &str) {
        self.report(Report::Announce {
            uid: uid_of(uid),
            address: "[::1]:5683".into(),
            reset: false,
        });
    }

    fn reading(&mut self, uid: &str, path: &str, text: &str) {
        let sample = Sample::from_text(text);
        let ts = self.now.wall;
        self.report(Report::Reading {
            uid: uid_of(uid),
            path: path.into(),
            sample,
            ts,
        });
    }

    fn message(&mut self, topic: &str, payload: &str, retain: bool) {
        let message = Message {
            topic: format!("nodebus/v1/{topic}"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            retain,
            response_topic: None,
            correlation: None,
            expiry: None,
        };
        self.registry.handle_message(&message, self.now);
        self.drain();
    }

    fn pass_time(&mut self, by: Duration) {
        let end = self.now.after(by);
        while let Some(at) = self.registry.poll_timeout()
            && at <= end.mono
        {
            let step = at.saturating_duration_since(self.now.mono);
            self.now = self.now.after(step);
            self.registry.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn request(&mut self) -> Option<Request> {
        match self.registry.poll_order()? {
            Order::Execute(request) => Some(request),
            Order::Restore { .. } | Order::Forget { .. } => None,
        }
    }

    fn acks(&self) -> Vec<&Value> {
        self.passed
            .iter()
            .filter(|(topic, _)| topic.ends_with("/ack"))
            .map(|(_, v)| v)
            .collect()
    }

    fn events(&self) -> Vec<&str> {
        let events = self.passed.iter().filter(|(topic, _)| topic == "events");
        events.filter_map(|(_, v)| v["type"].as_str()).collect()
    }
}

fn uid_of(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn ok(v: Value) -> Answer {
    Answer {
        status: AckStatus::Ok,
        code: Some("2.04".into()),
        v: Some(v),
        error: None,
    }
}

#[test]
fn a_node_becomes_topics() {
    let mut sim = Sim::new();
    sim.announce("FB6D");
    sim.reading("FB6D", "name", "Bench 3");
    sim.reading("FB6D", "temperature", "21.5°C");
    assert_eq!(sim.retained["nodes/fb6d"]["uid"], "FB6D");
    assert_eq!(sim.retained["nodes/fb6d"]["name"], "Bench 3");
    assert_eq!(sim.retained["nodes/fb6d/status"]["state"], "online");
    assert_eq!(sim.retained["nodes/fb6d/res/temperature"]["v"], json!(21.5));
    assert_eq!(sim.retained["nodes/fb6d/res/temperature"]["u"], "°C");
    assert_eq!(
        sim.retained["nodes/fb6d/resources"][1]["path"],
        "temperature"
    );
    assert_eq!(sim.events(), ["node_new"]);
    sim.pass_time(STATUS_DELAY);
    assert_eq!(sim.retained["bridges/coap/status"]["nodes"], 1);
}

#[test]
fn a_silent_node_is_lost_then_forgotten_with_all_its_topics() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.reading("n", "led", "0");
    sim.pass_time(MAX_TIME / 2);
    sim.report(Report::Seen { uid: uid_of("n") });
    sim.pass_time(MAX_TIME - Duration::from_secs(1));
    assert_eq!(sim.retained["nodes/n/status"]["state"], "online");
    sim.pass_time(Duration::from_secs(1));
    assert_eq!(sim.retained["nodes/n/status"]["state"], "offline");
    assert_eq!(sim.retained["nodes/n/status"]["reason"], "timeout");
    sim.announce("n");
    assert_eq!(sim.retained["nodes/n/status"]["state"], "online");
    sim.pass_time(Duration::from_secs(86_400));
    assert!(
        sim.retained
            .keys()
            .all(|topic| !topic.starts_with("nodes/")),
        "{:?}",
        sim.retained
    );
    assert_eq!(
        sim.events(),
        ["node_new", "node_lost", "node_lost", "node_forgotten"]
    );
}

#[test]
fn last_seen_is_published_every_thirty_seconds_at_most() {
    let mut sim = Sim::new();
    sim.announce("n");
    let first = sim.retained["nodes/n/status"]["last_seen"].clone();
    sim.pass_time(Duration::from_secs(29));
    sim.reading("n", "led", "1");
    assert_eq!(sim.retained["nodes/n/status"]["last_seen"], first);
    sim.pass_time(Duration::from_secs(1));
    sim.reading("n", "led", "1");
    assert_ne!(sim.retained["nodes/n/status"]["last_seen"], first);
}

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

#[test]
fn while_the_bus_is_away_the_latest_value_is_kept_and_events_wait() {
    let mut sim = Sim::new();
    sim.registry.handle_disconnected();
    sim.announce("n");
    for t in 0..10_000 {
        sim.reading("n", "temperature", &format!("{t}°C"));
    }
    assert!(
        sim.retained
            .keys()
            .all(|topic| !topic.starts_with("nodes/"))
    );
    sim.registry.handle_connected(sim.now);
    let mut readings = 0;
    while let Some(publication) = sim.registry.poll_publication() {
        readings += u32::from(publication.topic.ends_with("/res/temperature"));
        let value: Value = serde_json::from_slice(&publication.payload).unwrap();
        if publication.retain {
            sim.retained.insert(publication.topic, value);
        } else {
            sim.passed.push(("events".into(), value));
        }
    }
    assert_eq!(readings, 1);
    assert_eq!(
        sim.retained["nodebus/v1/nodes/n/res/temperature"]["v"],
        9999
    );
    assert_eq!(sim.events(), ["node_new"]);
}

#[test]
fn a_session_without_room_gets_the_latest_values_later() {
    let mut sim = Sim::new();
    sim.announce("n");
    for t in 0..40_000 {
        let (uid, sample) = (uid_of("n"), Sample::plain(json!(t)));
        let ts = sim.now.wall;
        let report = Report::Reading {
            uid,
            path: "t".into(),
            sample,
            ts,
        };
        sim.registry.handle_report(report, sim.now);
    }
    sim.drain();
    assert_eq!(sim.retained["nodes/n/res/t"]["v"], 39_999);
}

#[test]
fn a_restart_makes_no_node_vanish_and_none_new() {
    let mut before = Sim::new();
    before.announce("A 1");
    before.reading("A 1", "led", "1");
    before.pass_time(STATUS_DELAY);

    let mut sim = Sim::new();
    sim.registry.restoring = true;
    sim.now = before.now.after(Duration::from_secs(60));
    for topic in [
        "nodes/a-1",
        "nodes/a-1/status",
        "nodes/a-1/resources",
        "bridges/coap/status",
    ] {
        sim.message(topic, &before.retained[topic].to_string(), true);
    }
    assert!(!sim.registry.is_restoring());
    let restored = sim.registry.poll_order();
    assert!(
        matches!(&restored, Some(Order::Restore { uid, resources, .. })
            if uid.as_str() == "A 1" && resources[0].path == "led"),
        "{restored:?}"
    );
    assert_eq!(sim.retained["nodes/a-1/status"]["state"], "online");
    sim.announce("A 1");
    assert!(sim.events().is_empty(), "{:?}", sim.events());
    assert_eq!(
        sim.retained["nodes/a-1"]["first_seen"],
        before.retained["nodes/a-1"]["first_seen"]
    );

    let mut late = Sim::new();
    late.registry.restoring = true;
    late.now = before.now.after(MAX_TIME);
    for topic in ["nodes/a-1", "nodes/a-1/status", "bridges/coap/status"] {
        late.message(topic, &before.retained[topic].to_string(), true);
    }
    assert_eq!(late.retained["nodes/a-1/status"]["state"], "offline");
}

#[test]
fn uids_that_fall_on_one_level_get_numbers() {
    let mut sim = Sim::new();
    sim.announce("A/1");
    sim.announce("a 1");
    assert_eq!(sim.retained["nodes/a-1"]["uid"], "A/1");
    assert_eq!(sim.retained["nodes/a-1-2"]["uid"], "a 1");
}

#[test]
fn another_bridges_node_keeps_its_level() {
    let mut sim = Sim::new();
    let mut other = Sim::new();
    other.announce("n");
    let mut descriptor = other.retained["nodes/n"].clone();
    descriptor["bridge"] = "ws".into();
    descriptor["protocol"] = "websocket".into();
    sim.message("nodes/n", &descriptor.to_string(), true);
    sim.announce("n");
    assert!(sim.retained.contains_key("nodes/n-2"));
    assert!(!sim.retained.contains_key("nodes/n"));
}

#[test]
fn a_node_that_moves_to_another_bridge_is_let_go() {
    let mut sim = Sim::new();
    sim.announce("n");
    let mut descriptor = sim.retained["nodes/n"].clone();
    descriptor["bridge"] = "attic".into();
    sim.message("nodes/n", &descriptor.to_string(), false);
    assert_eq!(
        sim.registry.poll_order(),
        Some(Order::Forget { uid: uid_of("n") })
    );
    assert!(
        sim.retained.contains_key("nodes/n"),
        "its topics are the other bridge's now"
    );
}

#[test]
fn nodes_and_resources_are_bounded() {
    let mut sim = Sim::new();
    for uid in ["a", "b", "c", "d"] {
        sim.announce(uid);
    }
    assert!(!sim.retained.contains_key("nodes/d"));
    for n in 0..300 {
        sim.reading("a", &format!("r{n}"), "1");
    }
    assert_eq!(
        sim.retained["nodes/a/resources"].as_array().unwrap().len(),
        256
    );
}

#[test]
fn a_new_list_removes_what_it_lacks_but_not_what_is_pushed() {
    let mut sim = Sim::new();
    let list = |paths: &[&str]| {
        let resource = |path: &&str| Resource {
            path: (*path).into(),
            ..Resource::default()
        };
        Report::Resources {
            uid: uid_of("n"),
            resources: paths.iter().map(resource).collect(),
        }
    };
    sim.announce("n");
    sim.report(list(&["led", "old"]));
    sim.reading("n", "old", "1");
    sim.reading("n", "pushed", "1");
    sim.report(list(&["led"]));
    let names: Vec<_> = sim.retained["nodes/n/resources"]
        .as_array()
        .unwrap()
        .clone();
    let names: Vec<_> = names.iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["led", "pushed"]);
    assert!(!sim.retained.contains_key("nodes/n/res/old"));
}

#[test]
fn a_reset_counts_and_is_an_event() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.report(Report::Announce {
        uid: uid_of("n"),
        address: "[::2]:5683".into(),
        reset: true,
    });
    assert_eq!(sim.retained["nodes/n"]["epoch"], 1);
    assert_eq!(sim.retained["nodes/n"]["address"], "[::2]:5683");
    assert_eq!(sim.events(), ["node_new", "node_reset"]);
}

#[test]
fn a_node_that_can_not_come_back_is_forgotten_at_once() {
    let mut sim = Sim::new();
    sim.announce("n");
    let gone = Report::Gone {
        uid: uid_of("n"),
        reason: "closed",
    };
    sim.report(gone.clone());
    assert!(!sim.retained.keys().any(|topic| topic.starts_with("nodes/")));
    sim.report(gone);
    assert_eq!(sim.events(), ["node_new", "node_lost", "node_forgotten"]);
}
