//! The bus is away: nodes notice nothing, and nothing that they say is lost.

mod killed;

use serde_json::{Value, json};

use crate::harness::{
    CHANGED, CoapNode, Keeper, Outage, Pusher, SERVICE_UNAVAILABLE, WsNode, wait_for,
};

/// The values of these readings; asserts that each has a later time than the one before.
#[track_caller]
fn values(readings: &[Value]) -> Vec<Value> {
    let times: Vec<&str> = readings.iter().map(|r| r["ts"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    readings
        .iter()
        .map(|reading| reading["v"].clone())
        .collect()
}

fn node(outage: &Outage, keeper: &Keeper) -> CoapNode {
    let node = CoapNode::start(outage.address(), "n");
    keeper
        .now()
        .wait_for_member("nodes/n/res/led", "v", &json!(0));
    node
}

fn push(node: &mut CoapNode, resource: &str, values: std::ops::Range<usize>) {
    for n in values {
        node.push(resource, &n.to_string());
    }
}

#[test]
fn a_subscriber_gets_every_reading_of_an_outage_in_order_though_the_bridge_was_killed() {
    let mut outage = Outage::start("coap", &[]);
    let mut keeper = outage.keeper();
    let mut node = node(&outage, &keeper);
    push(&mut node, "pressure", 1..4);
    keeper.readings_to("pressure", &json!(3));

    outage.stop_bus();
    push(&mut node, "pressure", 4..30);
    node.wait_for_answers("server 2.04", 29);
    outage.wait_for_written(26);
    outage.kill_bridge();
    outage.start_bridge();
    // The restarted bridge knows the node at once, although the bus can't tell.
    push(&mut node, "pressure", 30..50);
    node.wait_for_answers("server 2.04", 49);
    let before = keeper.readings("pressure").len();
    outage.start_bus();
    keeper.come_back(&outage);
    push(&mut node, "pressure", 50..53);

    let readings = keeper.readings_to("pressure", &json!(52));
    assert!(before < 10, "the bus was away");
    let sent: Vec<Value> = (1..53).map(Value::from).collect();
    assert_eq!(values(&readings), sent);
    let late = outage.retained("nodes/n/res/pressure");
    assert_eq!(late["v"], json!(52), "the newest is retained");
    assert_eq!(keeper.events("node_new"), 1, "a restart makes no node new");
    wait_for("the queue to be empty", || {
        (outage.metric("bridge_queue_messages", "") == 0.0).then_some(())
    });
}

#[test]
fn past_its_bound_the_queue_drops_the_oldest_and_says_so() {
    let mut outage = Outage::start("coap", &["--set", "coap_bridge.max_queue_bytes=65536"]);
    let mut keeper = outage.keeper();
    let mut node = node(&outage, &keeper);
    node.push("early", "1");
    keeper.readings_to("early", &json!(1));
    outage.stop_bus();
    node.push("early", "2");
    let filler = "x".repeat(900);
    for n in 0..100 {
        node.push("note", &format!("{n}{filler}"));
    }
    node.wait_for_answers("server 2.04", 102);
    let dropped = outage.metric("bridge_dropped_total", "QueueFull");
    assert!((30.0..70.0).contains(&dropped), "{dropped}");
    outage.start_bus();
    keeper.come_back(&outage);
    let readings = keeper.readings_to("note", &json!(format!("99{filler}")));
    let last: Vec<Value> = (100 - readings.len()..100)
        .map(|n| format!("{n}{filler}").into())
        .collect();
    assert_eq!(values(&readings), last);
    assert!((30..70).contains(&readings.len()), "{}", readings.len());
    // Its reading was the first to go; the latest value of a resource is not lost with it.
    keeper.readings_to("early", &json!(2));
}

#[test]
fn a_node_is_told_to_wait_only_when_the_disk_takes_no_more() {
    let limit = "trap '' XFSZ; ulimit -f 4096";
    let mut outage = Outage::start_after(limit, "coap", &[]);
    let mut keeper = outage.keeper();
    let mut node = Pusher::start(outage.address(), "n");
    outage.stop_bus();
    // The file may have 4 MiB, and as much waits in memory to be written.
    let note = "x".repeat(60_000);
    for n in 1..=160 {
        node.tell(&format!("note:{n}{note}"));
        wait_for("it to be taken", || {
            let taken = outage.metric("coap_bridge_pushes_total", "");
            (taken >= f64::from(n)).then_some(())
        });
    }
    assert!(outage.metric("bridge_queue_failed_commits_total", "") > 0.0);
    let answers = node.answers();
    let full = "2.04, and the disk has no room";
    assert!((10..100).contains(&answers.len()), "{full}: {answers:?}");
    assert!(answers.iter().all(|code| *code == CHANGED), "{answers:?}");
    // Now they wait in front of the queue, as many as there is room for.
    wait_for("nodes to be told", || {
        (0..1000).for_each(|n| node.tell(&format!("v:{n}")));
        let answers = node.answers();
        answers.contains(&SERVICE_UNAVAILABLE).then_some(())
    });
    outage.start_bus();
    keeper.come_back(&outage);
    keeper.readings_to("note", &json!(format!("160{note}")));
    assert!(Pusher::start(outage.address(), "late").push(1, "after:1"));
    let after = "nodes/late/res/after";
    keeper.now().wait_for_member(after, "v", &json!(1));
}

#[test]
fn websocket_nodes_lose_nothing_either() {
    let mut outage = Outage::start("ws", &[]);
    let mut keeper = outage.keeper();
    let mut node = WsNode::connect(outage.address(), "/node");
    node.send(&json!({"type": "hello", "uid": "n"}));
    let update = |t: usize| json!({"type": "update", "data": {"temperature": t}});
    node.send(&update(0));
    keeper.readings_to("temperature", &json!(0));
    outage.stop_bus();
    (1..200).for_each(|t| node.send(&update(t)));
    outage.wait_for_written(199);
    outage.kill_bridge();
    outage.start_bridge();
    let mut node = WsNode::connect(outage.address(), "/node");
    node.send(&json!({"type": "hello", "uid": "n"}));
    node.send(&update(200));
    outage.wait_for_written(200);
    outage.start_bus();
    keeper.come_back(&outage);
    let readings = keeper.readings_to("temperature", &json!(200));
    assert_eq!(
        values(&readings),
        (0..201).map(Value::from).collect::<Vec<_>>()
    );
}
