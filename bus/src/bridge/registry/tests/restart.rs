//! What outlives a restart of the bridge.

use serde_json::json;

use super::super::*;
use super::sim::{MAX_TIME, Sim, uid_of};
use crate::bridge::{Lifetime, Report};
use crate::payload::Resource;

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
