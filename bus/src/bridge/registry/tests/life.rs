//! How nodes come, change and go.

use serde_json::json;

use super::super::*;
use super::sim::{MAX_TIME, Sim, uid_of};
use crate::bridge::Report;
use crate::payload::Resource;

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
fn uids_that_fall_on_one_level_get_numbers() {
    let mut sim = Sim::new();
    sim.announce("A/1");
    sim.announce("a 1");
    assert_eq!(sim.retained["nodes/a-1"]["uid"], "A/1");
    assert_eq!(sim.retained["nodes/a-1-2"]["uid"], "a 1");
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
