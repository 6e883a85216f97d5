use bus::time::{Now, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::message::{Change, ServerMessage};

mod page;

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
