//! `kill -9` of the CoAP bridge, at any point: what got 2.04 is not lost.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::{Keeper, Outage, Pushers, coap_post, wait_for};

/// Nodes that push at the same time.
const NODES: usize = 12;

/// How often the bridge is killed: `NODEBUS_KILLS`, or a few times.
fn kills() -> usize {
    let kills = std::env::var("NODEBUS_KILLS").ok();
    kills.map_or(5, |kills| kills.parse().expect("NODEBUS_KILLS is a number"))
}

/// Kills the bridge and starts it again, each time after some more pushes got 2.04.
fn kill_again_and_again(outage: &mut Outage, pushers: &Pushers) {
    for kill in 0..kills() {
        let enough = pushers.acknowledged() + 40 + kill * 37 % 200;
        wait_for("acknowledged pushes", || {
            (pushers.acknowledged() >= enough).then_some(())
        });
        outage.kill_bridge();
        outage.start_bridge();
    }
}

/// Asserts that each value that got 2.04 has come to the subscriber.
#[track_caller]
fn assert_nothing_is_lost(acknowledged: &[Vec<u32>], outage: &Outage, keeper: &Keeper) {
    // Messages come in the order in which they were published.
    let said = coap_post(outage.address(), "alive", "alive:n");
    assert!(said.contains("Received"), "{said}");
    let said = coap_post(outage.address(), "server", "last:1");
    assert!(said.contains("Received"), "{said}");
    keeper.readings_to("last", &json!(1));
    let mut came: HashMap<(String, u64), usize> = HashMap::new();
    for (topic, payload) in keeper.live() {
        let node = topic
            .strip_prefix("nodes/")
            .and_then(|rest| rest.strip_suffix("/res/v"));
        if let Some(node) = node {
            let reading: Value = serde_json::from_str(&payload).unwrap();
            let value = reading["v"].as_u64().unwrap();
            *came.entry((node.to_owned(), value)).or_default() += 1;
        }
    }
    let mut lost = Vec::new();
    for (node, values) in acknowledged.iter().enumerate() {
        let absent = |value: &&u32| !came.contains_key(&(format!("p{node}"), u64::from(**value)));
        lost.extend(values.iter().filter(absent).map(|value| (node, *value)));
    }
    let (count, doubled) = (
        came.len(),
        came.values().filter(|times| **times > 1).count(),
    );
    let acknowledged: usize = acknowledged.iter().map(Vec::len).sum();
    eprintln!(
        "{} kills: {acknowledged} acknowledged, {count} arrived, {} lost, {doubled} more than once",
        kills(),
        lost.len()
    );
    assert!(lost.is_empty(), "2.04, and lost: {lost:?}");
}

#[test]
fn what_was_acknowledged_while_the_bus_was_there_reaches_the_subscriber() {
    let mut outage = Outage::start("coap", &[]);
    let keeper = outage.keeper();
    let pushers = Pushers::start(outage.address(), NODES);
    kill_again_and_again(&mut outage, &pushers);
    outage.wait_for_ready();
    let acknowledged = pushers.stop();
    assert_nothing_is_lost(&acknowledged, &outage, &keeper);
}

#[test]
fn what_was_acknowledged_while_the_bus_was_away_reaches_the_subscriber() {
    let mut outage = Outage::start("coap", &[]);
    let mut keeper = outage.keeper();
    let pushers = Pushers::start(outage.address(), NODES);
    wait_for("acknowledged pushes", || {
        (pushers.acknowledged() >= NODES).then_some(())
    });
    outage.stop_bus();
    kill_again_and_again(&mut outage, &pushers);
    let acknowledged = pushers.stop();
    outage.kill_bridge();
    outage.start_bus();
    keeper.come_back(&outage);
    outage.start_bridge();
    outage.wait_for_ready();
    assert_nothing_is_lost(&acknowledged, &outage, &keeper);
}
