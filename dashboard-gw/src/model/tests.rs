use std::collections::BTreeMap;

use bus::time::{Now, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const LIMITS: Limits = Limits {
    nodes: 4,
    resources: 3,
    payload: 1024,
    total: 16 * 1024,
};

pub(crate) fn model(now: Now) -> Model {
    Model::new(Base::default(), LIMITS, now)
}

pub(crate) fn connected_model(now: Now) -> Model {
    let mut model = model(now);
    model.handle_connected(now);
    bridge_online(&mut model, "coap", now);
    model
}

fn take(model: &mut Model, topic: &str, payload: &str, now: Now) -> Result<Taken, Dropped> {
    let topic = model.base.join(topic);
    model.handle_message(&topic, payload.as_bytes(), false, now)
}

#[track_caller]
pub(crate) fn put(model: &mut Model, topic: &str, payload: &Value, now: Now) {
    let taken = take(model, topic, &payload.to_string(), now);
    assert_eq!(taken, Ok(Taken::State), "{topic} {payload}");
}

pub(crate) fn remove(model: &mut Model, topic: &str, now: Now) {
    assert_eq!(take(model, topic, "", now), Ok(Taken::State), "{topic}");
}

fn bridge(state: &str, now: Now) -> Value {
    json!({"state": state, "protocol": "coap", "version": "1", "nodes": 0, "ts": now.wall})
}

pub(crate) fn bridge_online(model: &mut Model, id: &str, now: Now) {
    put(
        model,
        &format!("bridges/{id}/status"),
        &bridge("online", now),
        now,
    );
}

pub(crate) fn bridge_offline(model: &mut Model, id: &str, now: Now) {
    put(
        model,
        &format!("bridges/{id}/status"),
        &bridge("offline", now),
        now,
    );
}

pub(crate) fn descriptor(id: &str, uid: &str, bridge: &str) -> Value {
    json!({
        "id": id, "uid": uid, "name": id, "protocol": "coap", "bridge": bridge,
        "address": "[fd00::1]:5683", "first_seen": Timestamp::from_unix_millis(0), "epoch": 0,
    })
}

pub(crate) fn status(model: &mut Model, id: &str, state: &str, now: Now) {
    let status = json!({"state": state, "reason": "alive", "last_seen": now.wall});
    put(model, &format!("nodes/{id}/status"), &status, now);
}

pub(crate) fn node(model: &mut Model, id: &str, bridge: &str, now: Now) {
    let descriptor = descriptor(id, &format!("UID-{id}"), bridge);
    put(model, &format!("nodes/{id}"), &descriptor, now);
    status(model, id, "online", now);
}

pub(crate) fn reading(model: &mut Model, id: &str, resource: &str, mut value: Value, now: Now) {
    // A test may tell readings apart by a number.
    let millis = value["ts"].as_i64().unwrap_or_default();
    value["ts"] = json!(Timestamp::from_unix_millis(millis));
    put(model, &format!("nodes/{id}/res/{resource}"), &value, now);
}

pub(crate) fn event(model: &mut Model, n: u32, now: Now) {
    let event = json!({"type": "command", "node": "n1", "ts": now.wall, "n": n});
    put(model, "events", &event, now);
}

fn ids(model: &Model) -> Vec<String> {
    model.nodes().map(|node| node.id).collect()
}

#[test]
fn an_emptied_topic_takes_away_what_it_said() {
    let now = bus::time::now();
    let mut model = connected_model(now);
    node(&mut model, "n1", "coap", now);
    reading(&mut model, "n1", "led", json!({"v": 1}), now);
    remove(&mut model, "nodes/n1/res/led", now);
    assert!(model.nodes().all(|node| node.values.is_empty()));
    reading(&mut model, "n1", "led", json!({"v": 1}), now);
    remove(&mut model, "nodes/n1", now);
    assert_eq!(
        ids(&model),
        [""; 0],
        "without its descriptor a node is gone"
    );
    remove(&mut model, "nodes/n1/res/led", now);
    assert_eq!(ids(&model), [""; 0]);
    remove(&mut model, "bridges/coap/status", now);
    assert_eq!(model.bridges.len(), 0);
    assert_eq!(model.held, 0, "nothing is counted that is not kept");
}

#[test]
fn the_same_again_is_no_change() {
    let now = bus::time::now();
    let mut model = connected_model(now);
    node(&mut model, "n1", "coap", now);
    reading(&mut model, "n1", "led", json!({"v": 1}), now);
    let rev = model.rev();
    node(&mut model, "n1", "coap", now);
    reading(&mut model, "n1", "led", json!({"v": 1}), now);
    bridge_online(&mut model, "coap", now);
    assert_eq!(model.rev(), rev);
}

#[test]
fn rubbish_changes_nothing() {
    let now = bus::time::now();
    let mut model = connected_model(now);
    node(&mut model, "n1", "coap", now);
    let rev = model.rev();
    let long = format!("{{\"v\":\"{}\"}}", "x".repeat(2000));
    for (topic, payload, why) in [
        ("nodes/n1", "rubbish", Dropped::Malformed),
        ("nodes/n1", "{}", Dropped::Malformed),
        ("nodes/n1/status", "[1]", Dropped::Malformed),
        ("nodes/n1/resources", "{}", Dropped::Malformed),
        ("nodes/n1/res/led", "\u{0}", Dropped::Malformed),
        ("nodes/n1/res/led", long.as_str(), Dropped::TooLong),
        ("nodes/n1/res/led/ack", "1", Dropped::Malformed),
        ("bridges/coap/status", "null", Dropped::Malformed),
        ("events", "{\"type\":\"party\"}", Dropped::Malformed),
        ("nodes/N1", "{}", Dropped::Topic),
        ("else", "{}", Dropped::Topic),
    ] {
        assert_eq!(
            take(&mut model, topic, payload, now),
            Err(why),
            "{topic} {payload}"
        );
    }
    let other = descriptor("n2", "x", "coap").to_string();
    assert_eq!(
        take(&mut model, "nodes/n1", &other, now),
        Err(Dropped::Malformed)
    );
    let topic = model.base.join("nodes/n1/res/led");
    let invalid = model.handle_message(&topic, b"\xff\xfe", false, now);
    assert_eq!(invalid, Err(Dropped::Malformed));
    assert_eq!(model.rev(), rev);
}

#[test]
fn growth_ends_at_the_limits() {
    let now = bus::time::now();
    let mut model = connected_model(now);
    for n in 0..4 {
        node(&mut model, &format!("n{n}"), "coap", now);
    }
    let fifth = descriptor("n5", "x", "coap").to_string();
    assert_eq!(
        take(&mut model, "nodes/n5", &fifth, now),
        Err(Dropped::Full)
    );
    let value = json!({"v": 1, "ts": now.wall}).to_string();
    for n in 0..3 {
        reading(&mut model, "n1", &format!("r{n}"), json!({"v": 1}), now);
    }
    let fourth = take(&mut model, "nodes/n1/res/r3", &value, now);
    assert_eq!(fourth, Err(Dropped::Full));
    let long = json!({"v": "x".repeat(900), "ts": now.wall}).to_string();
    let mut refused = 0;
    for n in 0..4 {
        for r in 0..3 {
            let taken = take(&mut model, &format!("nodes/n{n}/res/r{r}"), &long, now);
            refused += usize::from(taken == Err(Dropped::Full));
        }
    }
    assert_eq!(refused, 0, "12 kB are within the limit");
    model.limits.total = 1024;
    let taken = take(&mut model, "nodes/n0/res/r0", &long, now);
    assert_eq!(taken, Err(Dropped::Full));
    remove(&mut model, "nodes/n0", now);
    assert_eq!(ids(&model).len(), 3, "taking away always works");
}

#[test]
fn events_are_kept_in_order_up_to_200() {
    let now = bus::time::now();
    let mut model = model(now);
    for n in 0..300 {
        event(&mut model, n, now);
    }
    let numbers = |events: Vec<Event>| -> Vec<_> {
        events
            .iter()
            .map(|event| event.detail["n"].clone())
            .collect()
    };
    let ServerMessage::Snapshot { events, .. } = model.snapshot() else {
        panic!("not a snapshot");
    };
    assert_eq!(numbers(events), (100..300).collect::<Vec<u32>>());
    let changes = model.since(298).unwrap();
    assert_eq!(changes.len(), 2);
}

#[test]
fn what_the_broker_does_not_confirm_after_a_reconnect_vanishes() {
    let now = bus::time::now();
    let mut model = connected_model(now);
    for id in ["stays", "goes"] {
        node(&mut model, id, "coap", now);
        reading(&mut model, id, "led", json!({"v": 1}), now);
        reading(&mut model, id, "old", json!({"v": 1}), now);
    }
    bridge_online(&mut model, "ws", now);
    model.handle_disconnected(now);
    assert_eq!(model.poll_timeout(), None);
    assert_eq!(
        ids(&model).len(),
        2,
        "the state stays while the bus is away"
    );
    let now = now.after(Duration::from_secs(60));
    model.handle_connected(now);
    node(&mut model, "stays", "coap", now);
    bridge_online(&mut model, "coap", now);
    // The replay is slow: each retained message puts the end off.
    let now = now.after(SETTLE / 2);
    let value = json!({"v": 1, "ts": Timestamp::from_unix_millis(0)}).to_string();
    let topic = model.base.join("nodes/stays/res/led");
    model
        .handle_message(&topic, value.as_bytes(), true, now)
        .unwrap();
    let now = now.after(SETTLE / 2);
    model.handle_timeout(now);
    assert_eq!(ids(&model).len(), 2);
    let now = now.after(SETTLE / 2);
    assert_eq!(model.poll_timeout(), Some(now.mono));
    let rev = model.rev();
    model.handle_timeout(now);
    assert_eq!(ids(&model), ["stays"]);
    let left: Vec<_> = model
        .nodes()
        .flat_map(|node| node.values.into_keys())
        .collect();
    assert_eq!(left, ["led"]);
    assert_eq!(model.bridges.len(), 1);
    let gone = |change: &Change| matches!(change, Change::NodeGone { id } if id == "goes");
    assert!(
        model.since(rev).unwrap().iter().any(gone),
        "the pages are told"
    );
}

#[test]
fn a_state_that_is_never_retained_is_not_taken_so() {
    let now = bus::time::now();
    let mut model = connected_model(now);
    let event = json!({"type": "node_new", "ts": now.wall}).to_string();
    let topic = model.base.join("events");
    let taken = model.handle_message(&topic, event.as_bytes(), true, now);
    assert_eq!(taken, Err(Dropped::Retained));
}

/// What a page knows, kept as the page keeps it.
#[derive(Debug, Default, PartialEq)]
struct Page {
    bus: Option<BusState>,
    bridges: BTreeMap<String, BridgeStatus>,
    nodes: BTreeMap<String, Node>,
}

impl Page {
    fn of(snapshot: ServerMessage) -> Self {
        let ServerMessage::Snapshot {
            bus,
            bridges,
            nodes,
            ..
        } = snapshot
        else {
            panic!("not a snapshot");
        };
        Self {
            bus: Some(bus),
            bridges: bridges.into_iter().map(|b| (b.id, b.status)).collect(),
            nodes: nodes
                .into_iter()
                .map(|node| (node.id.clone(), node))
                .collect(),
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Bus { bus } => self.bus = Some(bus),
            Change::Bridge { bridge } => drop(self.bridges.insert(bridge.id, bridge.status)),
            Change::BridgeGone { id } => drop(self.bridges.remove(&id)),
            Change::Node { node } => drop(self.nodes.insert(node.id.clone(), *node)),
            Change::NodeGone { id } => drop(self.nodes.remove(&id)),
            Change::Status { id, status } => self.nodes.get_mut(&id).unwrap().status = Some(status),
            Change::Value {
                id,
                resource,
                reading,
            } => {
                let node = self.nodes.get_mut(&id).unwrap();
                node.values.insert(resource, reading);
            }
            Change::Event { .. } => {}
        }
    }
}

/// One step of a life: a message, or the bus, or time.
#[derive(Debug, Clone)]
enum Step {
    Message(String, String),
    Connected,
    Disconnected,
    Settled,
}

fn step() -> impl Strategy<Value = Step> {
    let ts = Timestamp::from_unix_millis(0);
    let id = prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let state = prop::sample::select(vec!["online", "offline"]);
    let message = (0..12_u8, id, state, 0..3_u8).prop_map(move |(kind, id, state, n)| {
        let empty = String::new();
        let (topic, payload) = match kind {
            0 => (
                format!("bridges/{id}/status"),
                bridge(state, bus::time::now()).to_string(),
            ),
            1 => (format!("bridges/{id}/status"), empty),
            2 | 3 => {
                let mut value = descriptor(id, &format!("u{n}"), "coap");
                value["epoch"] = json!(n);
                (format!("nodes/{id}"), value.to_string())
            }
            4 => (format!("nodes/{id}"), empty),
            5 => {
                let status = json!({"state": state, "reason": "x", "last_seen": ts});
                (format!("nodes/{id}/status"), status.to_string())
            }
            6 => (format!("nodes/{id}/status"), empty),
            7 => (
                format!("nodes/{id}/resources"),
                json!([{"name": "r", "path": "/r"}]).to_string(),
            ),
            8 => (format!("nodes/{id}/res/r{n}"), empty),
            9 => (
                "events".to_owned(),
                json!({"type": "node_new", "ts": ts}).to_string(),
            ),
            _ => {
                let value = json!({"v": [kind, n, state], "ts": ts});
                (format!("nodes/{id}/res/r{n}"), value.to_string())
            }
        };
        Step::Message(topic, payload)
    });
    prop_oneof![
        20 => message,
        1 => Just(Step::Connected),
        1 => Just(Step::Disconnected),
        1 => Just(Step::Settled),
    ]
}

proptest! {
    /// However a page's frames fall, it ends up with what the model holds, and what the model
    /// counts as kept is what it keeps.
    #[test]
    fn a_page_that_applies_the_changes_knows_what_the_model_knows(
        steps in prop::collection::vec((step(), any::<bool>()), 0..120),
    ) {
        let mut now = bus::time::now();
        let mut model = model(now);
        let (mut page, mut rev) = (Page::of(model.snapshot()), model.rev());
        for (step, frame) in steps {
            match step {
                // Some of it is over the limits; that must do no harm either.
                Step::Message(topic, payload) => drop(take(&mut model, &topic, &payload, now)),
                Step::Connected => model.handle_connected(now),
                Step::Disconnected => model.handle_disconnected(now),
                Step::Settled => {
                    now = now.after(SETTLE);
                    model.handle_timeout(now);
                }
            }
            if frame {
                for change in model.since(rev).unwrap() {
                    page.apply(change);
                }
                rev = model.rev();
                prop_assert_eq!(&page, &Page::of(model.snapshot()));
            }
        }
        let bridges: usize = model.bridges.values().map(|held| held.size).sum();
        let nodes: usize = model.nodes.values().map(Entry::size).sum();
        prop_assert_eq!(model.held, bridges + nodes);
    }
}
