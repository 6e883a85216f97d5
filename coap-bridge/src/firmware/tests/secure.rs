//! Nodes that speak DTLS, and those that pose as them.

use std::time::Duration;

use bus::bridge::{Order, Uid};
use serde_json::json;

use super::bench::{Bench, Server, addr, rules};
use crate::endpoint::Code;
use crate::firmware::Rules;
use crate::metrics::Refused;

const HERE: &str = "1@10.0.0.1:61000";

fn node(name: &str) -> Server {
    Server::new("</name>,</led>", &[("name", name), ("led", "0")])
}

/// A node `kitchen` that has joined over DTLS.
fn kitchen() -> Bench {
    let mut bench = Bench::new();
    bench.servers.insert(addr(HERE), node("k"));
    bench.session(HERE, "kitchen");
    bench.alive(HERE, "alive:kitchen");
    assert_eq!(bench.value("kitchen", "name"), json!("k"));
    bench
}

fn set(bench: &mut Bench, node: &str) -> serde_json::Value {
    let topic = format!("nodes/{node}/res/led");
    bench.topics.remove(&format!("{topic}/ack"));
    bench.bus(&format!("{topic}/set"), r#"{"v":1,"id":"c"}"#);
    let ack = bench.topics.get(&format!("{topic}/ack"));
    ack.cloned().unwrap_or_default()
}

/// The topics of nodes.
fn nodes(bench: &Bench) -> Vec<&String> {
    let topics = bench.topics.keys();
    topics.filter(|topic| topic.starts_with("nodes/")).collect()
}

#[test]
fn a_node_is_asked_and_written_over_its_session_only() {
    let mut bench = kitchen();
    assert_eq!(bench.address("kitchen"), "coaps://10.0.0.1:61000");
    assert_eq!(set(&mut bench, "kitchen")["status"], "ok");
    bench.push(HERE, "led:7");
    assert_eq!(bench.value("kitchen", "led"), json!(7));
    let asked = bench.server(HERE).take_asked();
    assert_eq!(
        asked,
        [
            "GET .well-known/core",
            "GET name",
            "GET led",
            "PUT LED 1",
            "GET led"
        ]
    );
    assert!(bench.stray.is_empty(), "nothing without DTLS");
}

#[test]
fn over_a_session_only_its_own_name_counts() {
    let mut bench = Bench::new();
    bench.session(HERE, "kitchen");
    bench.session("2@10.0.0.2:61000", "attic");
    assert_eq!(
        bench.con(HERE, "server", "led:1"),
        Some(Code::NOT_FOUND),
        "first it must say that it is there"
    );
    assert_eq!(
        bench.con(HERE, "alive", "alive:attic"),
        Some(Code::FORBIDDEN)
    );
    assert_eq!(bench.con(HERE, "alive", "reset:x"), Some(Code::FORBIDDEN));
    assert_eq!(bench.metrics.refused_for(Refused::WrongIdentity), 2);
    assert!(nodes(&bench).is_empty());
    // As firmwares spell it.
    assert_eq!(
        bench.con(HERE, "alive", "alive:KITCHEN"),
        Some(Code::CHANGED)
    );
    assert_eq!(bench.topic("nodes/kitchen")["uid"], "kitchen");
    assert_eq!(
        bench.con("2@10.0.0.2:61000", "alive", "alive:attic"),
        Some(Code::CHANGED)
    );
    // A session that has ended is nobody's.
    bench.session_ends(HERE);
    assert_eq!(
        bench.con(HERE, "alive", "alive:kitchen"),
        Some(Code::FORBIDDEN)
    );
}

#[test]
fn a_name_that_was_seen_over_dtls_is_not_believed_without() {
    let mut bench = kitchen();
    for from in ["10.6.6.6:5683", "10.0.0.1:61000", "10.0.0.1:5683"] {
        for uid in ["kitchen", "KITCHEN", "Kitchen!"] {
            for word in ["alive", "reset"] {
                let code = bench.con(from, "alive", &format!("{word}:{uid}"));
                assert_eq!(code, Some(Code::UNAUTHORIZED), "{from} {uid}");
            }
        }
        let code = bench.con(from, "server", "led:9");
        assert_eq!(code, Some(Code::NOT_FOUND), "{from}");
    }
    assert_eq!(bench.metrics.refused_for(Refused::BoundToDtls), 18);
    assert_eq!(bench.events.get("node_reset"), None);
    assert_eq!(bench.value("kitchen", "led"), json!(0));
    // Nor when its session is gone.
    bench.session_ends(HERE);
    let code = bench.con("10.6.6.6:5683", "alive", "alive:kitchen");
    assert_eq!(code, Some(Code::UNAUTHORIZED));
    assert_eq!(bench.address("kitchen"), "coaps://10.0.0.1:61000");
}

#[test]
fn a_key_takes_a_name_from_those_who_had_it_without() {
    let mut bench = Bench::new();
    for (at, uid) in [("10.0.0.1:5683", "kitchen"), ("10.0.0.2:5683", "ATTIC")] {
        bench.servers.insert(addr(at), node("plain"));
        bench.alive(at, &format!("alive:{uid}"));
    }
    assert_eq!(set(&mut bench, "kitchen")["status"], "ok");
    bench.keys(&["kitchen", "attic"]);
    let ack = set(&mut bench, "kitchen");
    assert_eq!(ack["status"], "rejected");
    assert!(ack["error"].as_str().unwrap().contains("DTLS"), "{ack}");
    for at in ["10.0.0.1:5683", "10.0.0.2:5683"] {
        bench.server(at).take_asked();
        bench.push(at, "led:9");
        bench.alive(at, "alive:kitchen");
        bench.alive(at, "alive:ATTIC");
    }
    bench.wait(Duration::from_secs(100));
    for at in ["10.0.0.1:5683", "10.0.0.2:5683"] {
        assert!(bench.server(at).take_asked().is_empty(), "{at}");
    }
    assert_eq!(bench.value("kitchen", "led"), json!(1));
    // The other spelling took the level of the topics: it is gone.
    assert_eq!(*bench.topic("nodes/attic"), json!(null));

    bench.servers.insert(addr(HERE), node("a"));
    bench.session(HERE, "attic");
    bench.alive(HERE, "alive:attic");
    assert_eq!(bench.value("attic", "name"), json!("a"));
}

#[test]
fn a_session_that_ends_is_the_end_of_what_was_asked_over_it() {
    let mut bench = kitchen();
    bench.server(HERE).mute.insert("led".into());
    assert_eq!(set(&mut bench, "kitchen"), json!(null), "no answer yet");
    bench.bus("nodes/kitchen/res/led/get", r#"{"id":"waits"}"#);
    bench.session_ends(HERE);
    let ack = bench.topic("nodes/kitchen/res/led/ack").clone();
    assert_eq!(
        (&ack["id"], &ack["status"]),
        (&json!("waits"), &json!("rejected"))
    );
    assert_eq!(bench.acks, 2);
    for topic in ["cmd/ping", "cmd/rediscover"] {
        bench.bus(&format!("nodes/kitchen/{topic}"), r#"{"id":"p"}"#);
        let ack = bench.topic(&format!("nodes/kitchen/{topic}/ack"));
        let error = ack["error"].as_str().unwrap();
        assert!(error.contains("connected again"), "{ack}");
    }
    assert_eq!(bench.topic("nodes/kitchen/status")["state"], "online");

    // It has connected again: from there on it is asked there, before it says anything.
    let there = "2@10.0.0.9:5000";
    bench.servers.insert(addr(there), node("k"));
    bench.session(there, "kitchen");
    assert_eq!(set(&mut bench, "kitchen")["status"], "ok");
    assert_eq!(bench.address("kitchen"), "coaps://10.0.0.9:5000");
    bench.push(there, "led:5");
    assert_eq!(bench.value("kitchen", "led"), json!(5));
    assert_eq!(bench.push(HERE, "led:6"), None);
    assert_eq!(bench.value("kitchen", "led"), json!(5));
}

#[test]
fn a_second_session_takes_over_with_its_sign_of_life_and_the_first_is_not_lost() {
    let mut bench = kitchen();
    let tool = "2@10.0.0.9:5000";
    bench.servers.insert(addr(tool), node("tool"));
    bench.session(tool, "kitchen");
    set(&mut bench, "kitchen");
    assert!(bench.server(tool).take_asked().is_empty());
    bench.alive(tool, "alive:kitchen");
    set(&mut bench, "kitchen");
    assert_eq!(bench.server(tool).take_asked()[0], "PUT LED 1");
    bench.server(HERE).take_asked();
    bench.session_ends(tool);
    assert_eq!(set(&mut bench, "kitchen")["status"], "ok");
    assert_eq!(bench.server(HERE).take_asked()[0], "PUT LED 1");
}

#[test]
fn where_dtls_is_required_nothing_else_is_heard() {
    let mut bench = Bench::with(Rules {
        plain_from: vec!["10.1.0.0/16".parse().unwrap()],
        ..rules()
    });
    let stranger = "10.6.6.6:5683";
    for (path, payload) in [("alive", "alive:x"), ("server", "led:1"), ("nothing", "x")] {
        let code = bench.con(stranger, path, payload);
        assert_eq!(code, Some(Code::UNAUTHORIZED), "{path}");
    }
    let core = b"\x40\x01\x00\x09\xbb.well-known\x04core";
    assert_eq!(bench.datagram(stranger, core)[0][1], 0x81, "4.01");
    assert_eq!(bench.metrics.refused_for(Refused::DtlsRequired), 4);
    assert!(nodes(&bench).is_empty());
    let code = bench.con("10.1.2.3:5683", "alive", "alive:x");
    assert_eq!(code, Some(Code::CHANGED));
    bench.session(HERE, "kitchen");
    let code = bench.con(HERE, "alive", "alive:kitchen");
    assert_eq!(code, Some(Code::CHANGED));
    // Nor is a node from before the restart asked there.
    let order = Order::Restore {
        uid: Uid::new("old").unwrap(),
        address: stranger.into(),
        resources: Vec::new(),
        lifetime: None,
    };
    bench.bridge.handle_order(order, bench.now);
    assert_eq!(
        bench.con(stranger, "server", "led:1"),
        Some(Code::UNAUTHORIZED)
    );
}

#[test]
fn made_up_nodes_leave_room_for_those_with_a_name() {
    let mut bench = Bench::with(Rules {
        max_nodes: 5,
        ..rules()
    });
    bench.keys(&["kitchen", "attic"]);
    let codes =
        (0..5).map(|n| bench.con(&format!("10.0.1.{n}:5683"), "alive", &format!("alive:{n}")));
    let taken = codes.filter(|code| *code == Some(Code::CHANGED)).count();
    assert_eq!(taken, 3);
    for (at, name) in [(HERE, "kitchen"), ("2@10.0.0.2:1", "attic")] {
        bench.session(at, name);
        let code = bench.con(at, "alive", &format!("alive:{name}"));
        assert_eq!(code, Some(Code::CHANGED), "{name}");
    }
}

#[test]
fn after_a_restart_a_node_of_dtls_is_still_one() {
    let mut bench = Bench::new();
    let order = Order::Restore {
        uid: Uid::new("kitchen").unwrap(),
        address: "coaps://10.0.0.1:61000".into(),
        resources: Vec::new(),
        lifetime: None,
    };
    bench.bridge.handle_order(order, bench.now);
    let code = bench.con("10.0.0.1:61000", "alive", "alive:kitchen");
    assert_eq!(code, Some(Code::UNAUTHORIZED));
    let code = bench.con("10.0.0.1:61000", "server", "led:1");
    assert_eq!(code, Some(Code::NOT_FOUND));
    bench.session(HERE, "kitchen");
    assert_eq!(bench.con(HERE, "server", "led:1"), Some(Code::CHANGED));
    // Forgotten, the name is free again.
    bench.session_ends(HERE);
    let uid = Uid::new("kitchen").unwrap();
    bench.bridge.handle_order(Order::Forget { uid }, bench.now);
    let code = bench.con("10.0.0.1:5683", "alive", "alive:kitchen");
    assert_eq!(code, Some(Code::CHANGED));
}

#[test]
fn who_registers_over_dtls_does_so_as_its_own_name() {
    let mut bench = Bench::new();
    bench.keys(&["kitchen"]);
    bench.session(HERE, "kitchen");
    let mut register = |from: &str, mid: u8, query: &str| {
        let length = 0x40 | u8::try_from(query.len()).unwrap();
        let header = [0x40, 2, 0, mid, 0xb2, b'r', b'd', length];
        let datagram = [&header, query.as_bytes()].concat();
        let back = bench.datagram(from, &datagram);
        let answers = back.iter().filter(|bytes| bytes[0] >> 4 == 6);
        answers.map(|bytes| Code::from_byte(bytes[1])).next()
    };
    let plain = "10.0.0.1:5683";
    assert_eq!(register(HERE, 1, "ep=attic"), Some(Code::FORBIDDEN));
    assert_eq!(register(plain, 2, "ep=kitchen"), Some(Code::UNAUTHORIZED));
    assert_eq!(register(HERE, 3, "ep=kitchen"), Some(Code::CREATED));
    assert_eq!(register(plain, 4, "ep=attic"), Some(Code::CREATED));
    assert_eq!(bench.address("kitchen"), "coaps://10.0.0.1:61000");
}
