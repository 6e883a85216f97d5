//! While the bus is away, or has no room.

use serde_json::json;

use super::super::*;
use super::sim::{Sim, uid_of};
use crate::bridge::{Report, Sample};

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
