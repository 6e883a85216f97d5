//! Where nodes are: ports, moves, shared and re-used addresses.

use std::time::Duration;

use bus::bridge::{Order, Uid};
use bus::payload::Resource;
use serde_json::json;

use super::bench::{BRIDGE, Bench, Server, addr};
use crate::endpoint::Code;
use crate::metrics::Refused;

fn node(name: &str) -> Server {
    Server::new("</name>,</led>", &[("name", name), ("led", "0")])
}

#[test]
fn a_node_that_serves_where_it_sends_from_is_found_there() {
    let mut bench = Bench::new();
    bench.servers.insert(addr("10.0.0.1:33001"), node("one"));
    bench.alive("10.0.0.1:33001", "alive:a");
    assert_eq!(bench.address("a"), "10.0.0.1:5683", "the first guess");
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.address("a"), "10.0.0.1:33001");
    assert_eq!(bench.value("a", "name"), json!("one"));
}

#[test]
fn nodes_on_the_machine_of_the_bridge_are_found_at_once() {
    let mut bench = Bench::new();
    for port in 33001..33011 {
        bench
            .servers
            .insert(addr(&format!("10.0.0.254:{port}")), node(&port.to_string()));
        bench.alive(&format!("10.0.0.254:{port}"), &format!("alive:{port}"));
    }
    for port in 33001..33011 {
        // The bridge's own port answers first, and is not taken for a node.
        assert_eq!(bench.value(&port.to_string(), "name"), json!(port));
        assert_eq!(bench.push(&format!("10.0.0.254:{port}"), "led:1"), None);
        assert_eq!(bench.value(&port.to_string(), "led"), json!(1));
    }
    assert_eq!(BRIDGE, "10.0.0.254:5683");
}

#[test]
fn a_new_source_port_each_time_is_no_move() {
    let mut bench = Bench::new();
    bench.servers.insert(addr("10.0.0.1:5683"), node("aio"));
    for port in 40000..40010 {
        bench.con(&format!("10.0.0.1:{port}"), "alive", "Alive:1234");
        bench.con(
            &format!("10.0.0.1:{}", port + 1000),
            "server",
            &format!("led:{port}"),
        );
        assert_eq!(bench.value("1234", "led"), json!(port));
        bench.wait(Duration::from_secs(1));
    }
    let asked = bench.server("10.0.0.1:5683").take_asked();
    assert_eq!(asked, ["GET .well-known/core", "GET name", "GET led"]);
}

#[test]
fn a_push_without_a_single_owner_is_refused() {
    let mut bench = Bench::new();
    let push = |bench: &mut Bench, from| bench.con(from, "server", "led:1");
    assert_eq!(push(&mut bench, "10.0.0.1:999"), Some(Code::NOT_FOUND));
    assert_eq!(bench.metrics.refused_for(Refused::UnknownNode), 1);
    bench.servers.insert(addr("10.0.0.1:5683"), node("a"));
    bench.servers.insert(addr("10.0.0.1:7000"), node("b"));
    bench.alive("10.0.0.1:49152", "alive:a");
    assert_eq!(push(&mut bench, "10.0.0.1:999"), Some(Code::CHANGED));
    bench.alive("10.0.0.1:7000", "alive:b");
    assert_eq!(
        bench.value("b", "name"),
        json!("b"),
        "not the server at the standard port"
    );
    assert_eq!(bench.address("a"), "10.0.0.1:5683");
    assert_eq!(push(&mut bench, "10.0.0.1:999"), Some(Code::NOT_FOUND));
    assert_eq!(push(&mut bench, "10.0.0.1:49152"), Some(Code::CHANGED));
    bench.push("10.0.0.1:7000", "led:7");
    assert_eq!(
        (bench.value("a", "led"), bench.value("b", "led")),
        (json!(1), json!(7))
    );
}

#[test]
fn a_move_counts_when_the_new_address_has_answered() {
    let mut bench = Bench::new();
    bench.servers.insert(addr("10.0.0.1:5683"), node("a"));
    bench.alive("10.0.0.1:49152", "alive:a");
    bench.wait(Duration::from_secs(20));

    bench.alive("10.6.6.6:49152", "alive:a");
    assert_eq!(
        bench.con("10.6.6.6:49152", "server", "led:9"),
        Some(Code::NOT_FOUND)
    );
    bench.wait(Duration::from_secs(50));
    assert_eq!(
        bench.address("a"),
        "10.0.0.1:5683",
        "a stranger can't take a uid away"
    );
    assert_eq!(bench.value("a", "led"), json!(0));

    bench.wait(Duration::from_secs(60));
    bench.servers.insert(addr("10.0.0.2:5683"), node("moved"));
    bench.alive("10.0.0.2:49152", "alive:a");
    assert_eq!(bench.address("a"), "10.0.0.2:5683");
    assert_eq!(bench.value("a", "name"), json!("moved"));
    assert_eq!(
        bench.con("10.0.0.2:49152", "server", "led:9"),
        Some(Code::CHANGED)
    );
    assert_eq!(
        bench.con("10.0.0.1:49152", "server", "led:9"),
        Some(Code::NOT_FOUND)
    );
    assert_eq!(bench.events.get("node_new"), Some(&1));
}

#[test]
fn a_restarted_node_on_another_port_is_found_again() {
    let mut bench = Bench::new();
    bench.servers.insert(addr("10.0.0.1:33001"), node("old"));
    bench.alive("10.0.0.1:33001", "alive:a");
    bench.wait(Duration::from_secs(30));
    bench.servers.clear();
    bench.servers.insert(addr("10.0.0.1:33002"), node("new"));
    bench.alive("10.0.0.1:33002", "reset:a");
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.address("a"), "10.0.0.1:33002");
    assert_eq!(bench.value("a", "name"), json!("new"));
}

#[test]
fn a_node_without_a_server_may_come_from_anywhere() {
    let mut bench = Bench::new();
    bench.alive("10.0.0.1:49152", "alive:a");
    bench.wait(Duration::from_secs(100));
    bench.con("10.0.0.2:49152", "alive", "alive:a");
    assert_eq!(
        bench.con("10.0.0.2:49152", "server", "led:1"),
        Some(Code::CHANGED)
    );
    assert_eq!(
        bench.con("10.0.0.1:49152", "server", "led:2"),
        Some(Code::NOT_FOUND)
    );
    assert_eq!(bench.topic("nodes/a/status")["state"], "online");
}

#[test]
fn a_stranger_can_not_say_that_a_node_started_anew() {
    let mut bench = Bench::new();
    bench.servers.insert(addr("10.0.0.1:5683"), node("a"));
    bench.alive("10.0.0.1:49152", "alive:a");
    bench.wait(Duration::from_secs(60));
    for _ in 0..10 {
        bench.alive("10.6.6.6:49152", "reset:a");
        bench.alive("10.0.0.1:49152", "alive:a");
        bench.wait(Duration::from_secs(60));
    }
    assert_eq!(bench.events.get("node_reset"), None);
    assert_eq!(bench.address("a"), "10.0.0.1:5683");
}

#[test]
fn a_board_that_was_flashed_anew_replaces_the_old_node() {
    let mut bench = Bench::new();
    bench.servers.insert(addr("10.0.0.1:5683"), node("a"));
    bench.alive("10.0.0.1:49152", "alive:old");
    bench.wait(Duration::from_secs(10));
    bench.alive("10.0.0.1:49152", "reset:new");
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.topic("nodes/old/status")["state"], "offline");
    assert_eq!(bench.topic("nodes/old/status")["reason"], "replaced");
    assert_eq!(bench.value("new", "name"), json!("a"));
    assert_eq!(bench.address("new"), "10.0.0.1:5683");

    // Both uids at one server: they must not take it from each other for ever.
    for _ in 0..20 {
        bench.wait(Duration::from_secs(15));
        bench.alive("10.0.0.1:49153", "alive:old");
        bench.alive("10.0.0.1:49152", "alive:new");
    }
    assert_eq!(bench.events.get("node_lost"), Some(&1));
}

#[test]
fn a_node_from_before_the_restart_is_served_at_once() {
    let mut bench = Bench::new();
    bench.servers.insert(addr("10.0.0.1:5683"), node("a"));
    let resources = ["name", "led"].map(|path| Resource {
        path: path.into(),
        ..Resource::default()
    });
    let order = Order::Restore {
        uid: Uid::new("a").unwrap(),
        address: "10.0.0.1:5683".into(),
        resources: resources.to_vec(),
        lifetime: None,
    };
    bench.bridge.handle_order(order, bench.now);
    bench.wait(Duration::from_secs(300));
    assert!(
        bench.server("10.0.0.1:5683").take_asked().is_empty(),
        "it may be long gone"
    );
    assert_eq!(
        bench.con("10.0.0.1:49152", "server", "led:1"),
        Some(Code::CHANGED)
    );
    bench.alive("10.0.0.1:49152", "alive:a");
    let asked = bench.server("10.0.0.1:5683").take_asked();
    assert_eq!(asked, ["GET .well-known/core", "GET name", "GET led"]);
}
