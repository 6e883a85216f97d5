use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::bridge::{Action, Answer, Lifetime, QueueConfig, Report, Request, Sample};
use crate::id::BridgeId;
use crate::payload::{AckStatus, Resource, SetMethod};
use crate::time;
use crate::topic::Base;

const MAX_TIME: Duration = Duration::from_secs(120);

/// A registry with its queue and store, and the bus as a retained map plus a log of what passed.
struct Sim {
    registry: Registry,
    now: Now,
    retained: BTreeMap<String, Value>,
    passed: Vec<(String, Value)>,
    /// The values of all readings, as a subscriber gets them.
    readings: Vec<(String, Value)>,
    queue: VecDeque<Publication>,
    kept: HashMap<String, Vec<u8>>,
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
            queue: QueueConfig::default(),
        };
        let now = time::now();
        let mut sim = Self {
            registry: Registry::new(config),
            now,
            retained: BTreeMap::new(),
            passed: Vec::new(),
            readings: Vec::new(),
            queue: VecDeque::new(),
            kept: HashMap::new(),
        };
        sim.connect();
        sim.registry.finish_restoring();
        sim.drain();
        sim
    }

    /// The process is killed and starts anew; what was in the queue and the store is there.
    fn restart(&mut self) {
        self.registry = Registry::new(self.registry.config.clone());
        let kept: Vec<_> = self.kept.clone().into_iter().collect();
        self.registry.restore_kept(&kept, self.now);
        self.drain();
    }

    fn connect(&mut self) {
        self.registry.handle_connected(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((uid, node)) = self.registry.poll_kept() {
            let uid = uid.as_str().to_owned();
            match node {
                Some(node) => self.kept.insert(uid, node),
                None => self.kept.remove(&uid),
            };
        }
        while let Some(publication) = self.registry.poll_to_queue() {
            self.queue.push_back(publication);
        }
        while let Some(publication) = self.registry.poll_publication() {
            self.take(publication);
        }
        if self.registry.is_connected() && self.registry.is_behind() {
            while let Some(publication) = self.queue.pop_front() {
                let publication = self.registry.from_queue(publication);
                self.take(publication);
            }
            self.registry.handle_caught_up(false);
        }
    }

    fn take(&mut self, publication: Publication) {
        let topic = publication.topic.strip_prefix("nodebus/v1/");
        let topic = topic.unwrap().to_owned();
        if publication.retain && publication.payload.is_empty() {
            self.retained.remove(&topic);
            return;
        }
        let value: Value = serde_json::from_slice(&publication.payload).unwrap();
        if topic.contains("/res/") && !topic.ends_with("/ack") {
            self.readings.push((topic.clone(), value["v"].clone()));
        }
        if publication.retain {
            self.retained.insert(topic, value);
        } else {
            self.passed.push((topic, value));
        }
    }

    /// The values that a subscriber got of a resource.
    fn values(&self, topic: &str) -> Vec<&Value> {
        let of_it = self.readings.iter().filter(|(t, _)| t == topic);
        of_it.map(|(_, v)| v).collect()
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
fn while_the_bus_is_away_readings_and_events_wait_in_order() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.reading("n", "temperature", "0°C");
    sim.reading("n", "led", "1");
    sim.registry.handle_disconnected();
    let away_since = sim.now.wall;
    for t in 1..5 {
        sim.now = sim.now.after(Duration::from_secs(1));
        sim.reading("n", "temperature", &format!("{t}°C"));
    }
    sim.announce("other");
    assert_eq!(sim.values("nodes/n/res/temperature").len(), 1);
    sim.now = sim.now.after(Duration::from_secs(60));
    sim.connect();
    let expected: Vec<Value> = (0..5).map(Value::from).collect();
    assert_eq!(
        sim.values("nodes/n/res/temperature"),
        expected.iter().collect::<Vec<_>>(),
        "each once, in order"
    );
    let last = &sim.retained["nodes/n/res/temperature"];
    let at = Timestamp::from_unix_millis(away_since.unix_millis() + 4000);
    assert_eq!((&last["v"], &last["ts"]), (&json!(4), &json!(at)));
    assert_eq!(
        sim.values("nodes/n/res/led"),
        [&json!(1), &json!(1)],
        "a bus that forgot everything is told what it knew"
    );
    assert_eq!(sim.events(), ["node_new", "node_new"]);
    sim.reading("n", "temperature", "5°C");
    assert_eq!(sim.retained["nodes/n/res/temperature"]["v"], 5);
}

#[test]
fn what_the_session_could_not_deliver_waits_too() {
    let mut sim = Sim::new();
    sim.announce("n");
    for t in 1..4 {
        let (uid, sample) = (uid_of("n"), Sample::plain(json!(t)));
        let (path, ts) = ("t".to_owned(), sim.now.wall);
        let report = Report::Reading {
            uid,
            path,
            sample,
            ts,
        };
        // Not drained: it waits for room.
        sim.registry.handle_report(report, sim.now);
    }
    sim.registry.handle_disconnected();
    sim.drain();
    assert!(sim.values("nodes/n/res/t").is_empty());
    sim.connect();
    assert_eq!(
        sim.values("nodes/n/res/t"),
        [&json!(1), &json!(2), &json!(3)]
    );
}

#[test]
fn what_was_dropped_is_made_good_with_the_latest_value() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.registry.handle_disconnected();
    sim.reading("n", "early", "1");
    sim.reading("n", "t", "2");
    // No room for the first of them.
    sim.queue.pop_front();
    sim.registry.handle_connected(sim.now);
    while let Some(publication) = sim.registry.poll_publication() {
        sim.take(publication);
    }
    assert!(!sim.retained.contains_key("nodes/n/res/early"));
    while let Some(publication) = sim.queue.pop_front() {
        let publication = sim.registry.from_queue(publication);
        sim.take(publication);
    }
    sim.registry.handle_caught_up(true);
    sim.drain();
    assert_eq!(sim.retained["nodes/n/res/early"]["v"], 1);
}

#[test]
fn nothing_stays_behind_of_a_node_that_was_forgotten_while_the_bus_was_away() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.reading("n", "t", "1");
    sim.registry.handle_disconnected();
    sim.reading("n", "t", "2");
    let gone = |uid| Report::Gone {
        uid: uid_of(uid),
        reason: "closed",
    };
    sim.report(gone("n"));
    sim.announce("short");
    sim.reading("short", "t", "3");
    sim.report(gone("short"));
    sim.connect();
    assert_eq!(sim.values("nodes/n/res/t"), [&json!(1), &json!(2)]);
    assert_eq!(sim.values("nodes/short/res/t"), [&json!(3)]);
    assert!(
        sim.retained
            .keys()
            .all(|topic| !topic.starts_with("nodes/")),
        "{:?}",
        sim.retained
    );
    assert!(sim.kept.is_empty());
}

#[test]
fn a_restart_without_the_bus_makes_no_node_vanish_and_none_new() {
    let mut sim = Sim::new();
    sim.announce("A/1");
    sim.announce("a 1");
    sim.reading("a 1", "temp/in", "1");
    sim.registry.handle_disconnected();
    sim.announce("late");
    sim.restart();
    assert_eq!(sim.registry.nodes.len(), 3);
    // They have the topics that they had, whoever speaks first.
    sim.announce("a 1");
    sim.reading("a 1", "temp/in", "2");
    sim.now = sim.now.after(Duration::from_secs(60));
    sim.announce("A/1");
    sim.passed.clear();
    sim.connect();
    for topic in ["nodes/a-1", "nodes/a-1/status", "nodes/a-1/resources"] {
        let payload = sim.retained[topic].to_string();
        sim.message(topic, &payload, true);
    }
    sim.message("bridges/coap/status", "{}", true);
    assert_eq!(
        sim.values("nodes/a-1-2/res/temp-in"),
        [&json!(1), &json!(2)]
    );
    assert_eq!(sim.retained["nodes/late/status"]["state"], "online");
    assert_eq!(sim.events(), ["node_new"], "late is, the others are not");
}

#[test]
fn a_restart_takes_no_resource_away() {
    let mut sim = Sim::new();
    let list = Report::Resources {
        uid: uid_of("n"),
        resources: vec![Resource {
            path: "led".into(),
            ..Resource::default()
        }],
    };
    sim.announce("n");
    sim.report(list.clone());
    sim.reading("n", "a/b", "1");
    sim.reading("n", "a b", "2");
    let before = sim.retained["nodes/n/resources"].clone();
    sim.restart();
    let restored = sim.registry.poll_order();
    let Some(Order::Restore { resources, .. }) = &restored else {
        panic!("{restored:?}");
    };
    assert_eq!(resources.len(), 1, "what is only pushed can't be read");
    sim.connect();
    sim.message("nodes/n/resources", &before.to_string(), true);
    sim.message("bridges/coap/status", "{}", true);
    sim.report(list);
    assert_eq!(sim.retained["nodes/n/resources"], before);
    sim.reading("n", "a b", "3");
    assert_eq!(sim.retained["nodes/n/res/a-b-2"]["v"], 3);
}

#[test]
fn without_anything_kept_the_bus_says_whether_a_node_is_new() {
    let mut before = Sim::new();
    before.announce("known");
    let mut sim = Sim::new();
    sim.registry = Registry::new(sim.registry.config.clone());
    sim.announce("known");
    sim.announce("new");
    sim.connect();
    assert!(sim.events().is_empty());
    let known = before.retained["nodes/known"].to_string();
    sim.message("nodes/known", &known, true);
    sim.message("bridges/coap/status", "{}", true);
    let news: Vec<_> = sim.passed.iter().map(|(_, event)| &event["node"]).collect();
    assert_eq!(news, ["new"]);
}

#[test]
fn a_bridge_that_was_off_for_long_forgets_nobody_for_that() {
    let mut sim = Sim::new();
    sim.announce("n");
    sim.registry.handle_disconnected();
    sim.now = sim.now.after(Duration::from_secs(3 * 86_400));
    sim.restart();
    sim.connect();
    sim.message("bridges/coap/status", "{}", true);
    sim.pass_time(Duration::from_secs(86_000));
    assert_eq!(sim.retained["nodes/n/status"]["state"], "offline");
    sim.pass_time(Duration::from_secs(600));
    assert!(!sim.retained.contains_key("nodes/n"));
}

#[test]
fn nor_does_one_that_has_only_what_the_bus_knows() {
    let mut before = Sim::new();
    before.announce("n");
    let mut sim = Sim::new();
    sim.registry.restoring = true;
    sim.registry.config.forget_after = Duration::from_secs(60);
    sim.now = before.now.after(Duration::from_secs(600));
    for topic in ["nodes/n", "nodes/n/status"] {
        sim.message(topic, &before.retained[topic].to_string(), true);
    }
    sim.message("bridges/coap/status", "{}", true);
    sim.pass_time(Duration::from_secs(59));
    assert_eq!(sim.retained["nodes/n/status"]["state"], "offline");
    sim.pass_time(Duration::from_secs(1));
    assert!(!sim.retained.contains_key("nodes/n"));
}

#[test]
fn a_session_without_room_gets_all_values_later() {
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
    let expected: Vec<Value> = (0..40_000).map(Value::from).collect();
    assert_eq!(
        sim.values("nodes/n/res/t"),
        expected.iter().collect::<Vec<_>>()
    );
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

/// Two bridges on one bus.
struct Pair {
    bridges: [Sim; 2],
    /// Who published the descriptor, each time.
    claims: Vec<String>,
}

impl Pair {
    fn new() -> Self {
        let sim = |name| {
            let mut sim = Sim::new();
            sim.registry.config.name = BridgeId::new(name).unwrap();
            sim
        };
        let mut pair = Self {
            bridges: [sim("attic"), sim("cellar")],
            claims: Vec::new(),
        };
        pair.status(0, "online");
        pair.status(1, "online");
        pair
    }

    fn status(&mut self, of: usize, state: &str) {
        let name = self.bridges[of].registry.config.name.clone();
        let payload = json!({"state": state, "protocol": "coap", "version": "0"}).to_string();
        self.bridges[1 - of].message(&format!("bridges/{name}/status"), &payload, false);
    }

    /// Each sees what the other has published since the last time.
    fn exchange(&mut self) {
        loop {
            let mut any = false;
            for from in [0, 1] {
                for topic in ["nodes/n", "nodes/n/status"] {
                    let sim = &mut self.bridges[from];
                    let Some(payload) = sim.retained.remove(topic) else {
                        continue;
                    };
                    any = true;
                    if topic == "nodes/n" {
                        self.claims
                            .push(payload["bridge"].as_str().unwrap().to_owned());
                    }
                    self.bridges[1 - from].message(topic, &payload.to_string(), false);
                }
            }
            if !any {
                return;
            }
        }
    }

    /// The node says that it is alive, and these bridges hear it.
    fn alive(&mut self, heard_by: &[usize]) {
        for bridge in &mut self.bridges {
            bridge.pass_time(Duration::from_secs(30));
        }
        for &bridge in heard_by {
            self.exchange();
            self.bridges[bridge].announce("n");
            self.bridges[bridge].reading("n", "t", "1");
        }
        self.exchange();
    }

    fn holders(&self) -> [usize; 2] {
        [0, 1].map(|bridge| self.bridges[bridge].registry.nodes.len())
    }
}

#[test]
fn two_bridges_that_hear_one_node_do_not_fight_over_it() {
    let mut pair = Pair::new();
    for _ in 0..50 {
        pair.alive(&[1, 0]);
    }
    assert_eq!(pair.claims, ["cellar"], "who was first keeps it");
    assert_eq!(pair.holders(), [0, 1]);
    assert!(pair.bridges[0].registry.wants_all_statuses());
    assert!(
        pair.bridges[0].readings.is_empty(),
        "one voice for one node"
    );

    // The holder goes: the other takes over, and keeps it when that comes back.
    pair.status(1, "offline");
    pair.alive(&[0]);
    pair.status(1, "online");
    for _ in 0..50 {
        pair.alive(&[1, 0]);
    }
    assert_eq!(pair.claims, ["cellar", "attic"]);
    assert_eq!(pair.holders(), [1, 0]);

    // The node moves out of the holder's reach.
    for _ in 0..10 {
        pair.alive(&[1]);
    }
    assert_eq!(pair.claims, ["cellar", "attic", "cellar"]);
    assert_eq!(pair.bridges[0].events(), ["node_lost"], "never new there");
    assert_eq!(pair.holders(), [0, 1]);
}

#[test]
fn two_bridges_that_took_a_node_at_once_agree() {
    let mut pair = Pair::new();
    for bridge in &mut pair.bridges {
        bridge.announce("n");
    }
    for _ in 0..50 {
        pair.alive(&[0, 1]);
    }
    assert_eq!(pair.holders(), [1, 0], "the first name keeps it");
    assert!(pair.claims.len() <= 3, "{:?}", pair.claims);
    assert_eq!(pair.claims.last().unwrap(), "attic");
}

#[test]
fn a_node_that_moves_to_another_bridge_is_let_go() {
    let mut sim = Sim::new();
    sim.announce("n");
    let mut descriptor = sim.retained["nodes/n"].clone();
    descriptor["bridge"] = "attic".into();
    sim.pass_time(MAX_TIME);
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

#[test]
fn how_long_a_node_is_registered_outlives_a_restart() {
    let mut sim = Sim::new();
    sim.announce("n");
    let lifetime = Lifetime {
        seconds: 300,
        until: sim.now.after(Duration::from_secs(300)).wall,
    };
    let uid = uid_of("n");
    sim.report(Report::Registered { uid, lifetime });
    let restored = |sim: &mut Sim| {
        sim.restart();
        match sim.registry.poll_order() {
            Some(Order::Restore { lifetime, .. }) => lifetime,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(restored(&mut sim), Some(lifetime));
    // And another one.
    assert_eq!(restored(&mut sim), Some(lifetime));
    sim.report(Report::Lost {
        uid: uid_of("n"),
        reason: "deregistered",
    });
    assert_eq!(restored(&mut sim), None);
    // What was kept by an older version does not say.
    let kept = String::from_utf8(sim.kept["n"].clone()).unwrap();
    let older = kept.replace(r#","lifetime":null"#, "");
    assert_ne!(older, kept);
    sim.kept.insert("n".into(), older.into());
    assert_eq!(restored(&mut sim), None);
}
