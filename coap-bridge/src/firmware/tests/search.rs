//! Nodes that say nothing by themselves.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::bench::{Bench, Server, addr};
use crate::firmware::ALL_COAP_NODES;

const NODE: &str = "[fe80::7%3]:5683";

fn bench() -> Bench {
    let mut bench = Bench::new();
    let server = Server::new("</temp>", &[("temp", "7")]);
    bench.servers.insert(addr(NODE), server);
    bench
}

/// The questions to groups that were sent last.
fn questions(bench: &mut Bench) -> Vec<(SocketAddr, Vec<u8>)> {
    let asked = bench.stray.drain(..);
    let asked = asked.map(|(to, bytes)| (to.address(), bytes));
    let asked = asked.filter(|(to, _)| to.ip().is_multicast());
    asked.map(|(to, bytes)| (to, bytes.to_vec())).collect()
}

fn search(bench: &mut Bench) -> Vec<(SocketAddr, Vec<u8>)> {
    bench.bridge.start_search(bench.now);
    bench.wait(Duration::ZERO);
    questions(bench)
}

/// A node answers a question, Non-confirmable.
fn answer(bench: &mut Bench, from: &str, question: &[u8], payload: &str) {
    let token = &question[4..8];
    let answer = [
        b"\x54\x45\x77\x77",
        token,
        b"\xc1\x28\xff",
        payload.as_bytes(),
    ];
    bench.datagram(from, &answer.concat());
}

#[test]
fn who_answers_is_a_node_under_its_address() {
    let mut bench = bench();
    let asked = search(&mut bench);
    let groups: Vec<_> = asked.iter().map(|(to, _)| to.ip()).collect();
    assert_eq!(groups, ALL_COAP_NODES);
    assert!(
        asked.iter().all(|(_, question)| question[0] >> 4 == 5),
        "NON"
    );
    // The same node is a member of two groups.
    for (_, question) in &asked[1..] {
        answer(&mut bench, NODE, question, "</temp>");
    }
    assert_eq!(bench.value("fe80-7", "temp"), json!(7));
    assert_eq!(bench.topic("nodes/fe80-7")["uid"], "fe80::7");
    assert_eq!(bench.address("fe80-7"), NODE);
    assert_eq!(bench.events.get("node_new"), Some(&1));
    let asked = bench.server(NODE).take_asked();
    assert_eq!(asked, ["GET .well-known/core", "GET temp"]);
    // Polling keeps it, and the next search finds it again.
    bench.wait(Duration::from_secs(299));
    assert!(questions(&mut bench).is_empty());
    bench.wait(Duration::from_secs(1));
    let asked = questions(&mut bench);
    assert_eq!(asked.len(), 3);
    answer(&mut bench, NODE, &asked[1].1, "</temp>");
    assert_eq!(bench.topic("nodes/fe80-7/status")["state"], "online");
    assert_eq!(bench.events.get("node_new"), Some(&1));
}

#[test]
fn a_node_that_is_known_is_not_another_one() {
    let mut bench = bench();
    bench.alive("[fe80::7%3]:49152", "alive:a");
    let asked = search(&mut bench);
    answer(&mut bench, NODE, &asked[1].1, "</temp>");
    assert_eq!(bench.bridge.nodes.len(), 1);
    assert_eq!(bench.address("a"), NODE);
}

#[test]
fn a_node_that_says_who_it_is_takes_the_place_of_its_address() {
    let mut bench = bench();
    let asked = search(&mut bench);
    answer(&mut bench, NODE, &asked[1].1, "</temp>");
    bench.wait(Duration::from_secs(60));
    bench.alive("[fe80::7%3]:49152", "alive:a");
    bench.wait(Duration::from_secs(20));
    assert_eq!(bench.topic("nodes/fe80-7/status")["reason"], "replaced");
    assert_eq!(bench.address("a"), NODE);
    assert_eq!(bench.value("a", "temp"), json!(7));
}

#[test]
fn nobody_is_found_unasked_or_twice_by_strangers() {
    let mut bench = bench();
    let asked = search(&mut bench);
    let mut forged = asked[0].1.clone();
    forged[5] ^= 1;
    answer(&mut bench, NODE, &forged, "</temp>");
    assert!(bench.bridge.nodes.is_empty(), "a token that was not sent");
    // Another bridge is no node.
    let own = r#"</alive>,</server>,</rd>;rt="core.rd";ct=40"#;
    answer(&mut bench, "10.0.0.9:5683", &asked[0].1, own);
    assert!(bench.bridge.nodes.is_empty());
    bench.wait(Duration::from_secs(11));
    answer(&mut bench, NODE, &asked[0].1, "</temp>");
    assert!(bench.bridge.nodes.is_empty(), "too late");
}

#[test]
fn without_interfaces_nobody_is_asked() {
    let mut bench = bench();
    bench.wait(Duration::from_secs(3600));
    assert!(questions(&mut bench).is_empty());
}
