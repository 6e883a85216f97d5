//! Nodes that register in the Resource Directory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bus::bridge::{Lifetime, Order, Uid};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use super::bench::{BRIDGE, Bench, Server, addr};
use crate::endpoint::{Code, Endpoint, Event, Limits, Method, Request, Response};
use crate::metrics::Refused;

const SOURCE: &str = "[2001:db8::1]:40000";
const SERVER: &str = "[2001:db8::1]:61616";
const BASE: &str = "coap://[2001:db8::1]:61616";

/// What the bridge answers a request from this address.
#[track_caller]
fn ask(bench: &mut Bench, from: &str, method: Method, path: &str, payload: &str) -> Response {
    // Message IDs are not to be used again.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let rng = StdRng::seed_from_u64(NEXT.fetch_add(1, Ordering::Relaxed));
    let mut node = Endpoint::new(Limits::default(), rng);
    let mut request = Request::new(method, path).with_payload(payload.to_owned());
    if !payload.is_empty() {
        request = request.with_format(40);
    }
    let patience = Duration::from_secs(1);
    let (bridge, now) = (addr(BRIDGE), bench.now.mono);
    node.request(bridge, request, patience, now).unwrap();
    let sent = node.poll_transmit().unwrap();
    for back in bench.datagram(from, &sent.bytes) {
        node.handle_datagram(bridge, &back, now);
    }
    // The question for its own resources may come as well.
    let mut events = std::iter::from_fn(|| node.poll_event());
    let response = events.find_map(|event| match event {
        Event::Response { result, .. } => result.ok(),
        _ => None,
    });
    response.expect("no response")
}

fn post(bench: &mut Bench, path: &str, links: &str) -> Response {
    ask(bench, SOURCE, Method::Post, path, links)
}

fn registered(lifetime: u32) -> (Bench, String) {
    let mut bench = Bench::new();
    let server = Server::new(r#"</temp>;rt="t",</led>"#, &[("temp", "20"), ("led", "0")]);
    bench.servers.insert(addr(SERVER), server);
    let path = format!("rd?ep=node1&lt={lifetime}&base={BASE}");
    let response = post(&mut bench, &path, r#"</temp>;rt="t""#);
    assert_eq!(response.code, Code::CREATED);
    let location = response.location().unwrap();
    assert!(location.starts_with("/rd/"), "{location}");
    (bench, location)
}

fn state(bench: &Bench) -> (String, String) {
    let status = bench.topic("nodes/node1/status");
    let text = |member: &str| status[member].as_str().unwrap().to_owned();
    (text("state"), text("reason"))
}

#[test]
fn a_registered_endpoint_is_a_node_at_its_base() {
    let (mut bench, _) = registered(3600);
    assert_eq!(bench.address("node1"), SERVER);
    assert_eq!(bench.topic("nodes/node1")["uid"], "node1");
    assert_eq!(bench.value("node1", "temp"), json!(20));
    let asked = bench.server(SERVER).take_asked();
    assert_eq!(asked, ["GET .well-known/core", "GET temp", "GET led"]);
    bench.bus("nodes/node1/res/led/set", "1");
    assert_eq!(bench.value("node1", "led"), json!(1));
    // The standard port is not tried, now or when the node says that it is alive.
    assert!(
        bench
            .stray
            .iter()
            .all(|(to, _)| *to != addr("[2001:db8::1]:5683"))
    );
    bench.wait(Duration::from_secs(20));
    bench.alive(SOURCE, "alive:node1");
    assert!(
        bench
            .stray
            .iter()
            .all(|(to, _)| *to != addr("[2001:db8::1]:5683"))
    );
    assert_eq!(bench.address("node1"), SERVER);
}

#[test]
fn a_registration_is_renewed_and_ends_with_its_lifetime() {
    let (mut bench, location) = registered(100);
    bench.wait(Duration::from_secs(80));
    assert_eq!(post(&mut bench, &location, "").code, Code::CHANGED);
    bench.wait(Duration::from_secs(80));
    assert_eq!(state(&bench).0, "online");
    let longer = format!("{location}?lt=200");
    assert_eq!(post(&mut bench, &longer, "").code, Code::CHANGED);
    bench.wait(Duration::from_secs(199));
    assert_eq!(state(&bench).0, "online");
    bench.wait(Duration::from_secs(1));
    assert_eq!(state(&bench), ("offline".into(), "expired".into()));
    bench.server(SERVER).take_asked();
    bench.wait(Duration::from_secs(300));
    assert!(
        bench.server(SERVER).take_asked().is_empty(),
        "it is left alone"
    );
    let late = post(&mut bench, &location, "");
    assert_eq!(late.code, Code::NOT_FOUND);
    // It registers anew, and finds its old place.
    let path = format!("rd?ep=node1&base={BASE}");
    assert_eq!(post(&mut bench, &path, "").location(), Some(location));
    assert_eq!(state(&bench).0, "online");
    assert_eq!(bench.value("node1", "temp"), json!(20));
}

#[test]
fn a_registration_is_ended_by_its_endpoint_only() {
    let (mut bench, location) = registered(3600);
    let stranger = "[2001:db8::66]:40000";
    for method in [Method::Post, Method::Delete] {
        let response = ask(&mut bench, stranger, method, &location, "");
        assert_eq!(response.code, Code::NOT_FOUND);
    }
    assert_eq!(state(&bench).0, "online");
    let deleted = ask(&mut bench, SOURCE, Method::Delete, &location, "");
    assert_eq!(deleted.code, Code::DELETED);
    assert_eq!(state(&bench), ("offline".into(), "deregistered".into()));
    let again = ask(&mut bench, SOURCE, Method::Delete, &location, "");
    assert_eq!(again.code, Code::NOT_FOUND);
    assert_eq!(bench.metrics.refused_for(Refused::UnknownRegistration), 3);
}

#[test]
fn a_stranger_can_not_register_in_the_name_of_another() {
    let (mut bench, location) = registered(3600);
    bench.wait(Duration::from_secs(20));
    let stranger = "[2001:db8::66]:40000";
    let taken = ask(
        &mut bench,
        stranger,
        Method::Post,
        "rd?ep=node1&lt=60",
        "</evil>",
    );
    assert_eq!(taken.code, Code::CREATED);
    bench.wait(Duration::from_secs(100));
    assert_eq!(bench.address("node1"), SERVER);
    assert_eq!(state(&bench).0, "online", "its end is not the node's");
    let list = bench.topic("nodes/node1/resources").to_string();
    assert!(!list.contains("evil"), "{list}");
    // The node renews in vain, and registers anew.
    assert_eq!(post(&mut bench, &location, "").code, Code::NOT_FOUND);
    let path = format!("rd?ep=node1&base={BASE}");
    assert_eq!(post(&mut bench, &path, "").code, Code::CREATED);
    assert_eq!(post(&mut bench, &location, "").code, Code::CHANGED);
}

#[test]
fn a_simple_registration_needs_only_a_name() {
    let mut bench = Bench::new();
    let path = ".well-known/rd?ep=simple&d=lab";
    let response = ask(&mut bench, "10.0.0.8:7000", Method::Post, path, "");
    assert_eq!((response.code, response.location()), (Code::CHANGED, None));
    let probed = bench
        .stray
        .iter()
        .any(|(to, bytes)| *to == addr("10.0.0.8:7000") && bytes.ends_with(b"\x04core"));
    assert!(probed, "its list is read where it registered from");
    assert_eq!(bench.topic("nodes/simple-lab")["uid"], "simple@lab");
}

#[test]
fn what_is_listed_is_known_before_the_node_has_answered() {
    let mut bench = Bench::new();
    let links = r#"</a>;rt="x",</b>;obs"#;
    assert_eq!(post(&mut bench, "rd?ep=asleep", links).code, Code::CREATED);
    let list = bench.topic("nodes/asleep/resources");
    assert_eq!(
        (&list[0]["path"], &list[1]["obs"]),
        (&json!("a"), &json!(true))
    );
}

#[test]
fn invalid_registrations_are_refused() {
    let mut bench = Bench::new();
    let long = format!("rd?ep={}", "x".repeat(64));
    for path in [
        "rd",
        "rd?lt=60",
        "rd?ep=",
        &long,
        "rd?ep=a&lt=0",
        "rd?ep=a&lt=4294967296",
        "rd?ep=a&lt=x",
        "rd?ep=a&d=",
        // Not its own address, no address, a path, another scheme, a port that can't be.
        "rd?ep=a&base=coap://[2001:db8::2]:5683",
        "rd?ep=a&base=coap://node.example",
        "rd?ep=a&base=coap://[2001:db8::1]/path",
        "rd?ep=a&base=coaps://[2001:db8::1]",
        "rd?ep=a&base=coap://[2001:db8::1]:0",
        ".well-known/rd?ep=a&base=coap://[2001:db8::1]",
    ] {
        assert_eq!(post(&mut bench, path, "").code, Code::BAD_REQUEST, "{path}");
    }
    assert!(bench.bridge.nodes.is_empty());
    let get = ask(&mut bench, SOURCE, Method::Get, "rd", "");
    assert_eq!(get.code, Code::METHOD_NOT_ALLOWED);
    let get = ask(&mut bench, SOURCE, Method::Get, "rd/0123456789abcdef", "");
    assert_eq!(get.code, Code::METHOD_NOT_ALLOWED);
    for path in [
        "rd/x",
        "rd/0123456789abcdef",
        "rd/+123456789abcdef",
        "rd/a/b",
    ] {
        assert_eq!(post(&mut bench, path, "").code, Code::NOT_FOUND, "{path}");
    }
    let ok = post(&mut bench, "rd?ep=a&base=coap://[2001:db8::1]/", "");
    assert_eq!(ok.code, Code::CREATED);
}

#[test]
fn the_directory_is_found() {
    let mut bench = Bench::new();
    let core = ".well-known/core";
    let all = ask(&mut bench, SOURCE, Method::Get, core, "");
    assert!(all.payload.starts_with(b"</alive>"));
    let path = ".well-known/core?rt=core.rd*";
    let rd = ask(&mut bench, SOURCE, Method::Get, path, "");
    assert_eq!(&rd.payload[..], br#"</rd>;rt="core.rd";ct=40"#);
}

#[test]
fn a_forgotten_registration_leaves_nothing_behind() {
    let (mut bench, location) = registered(3600);
    bench.bus("nodes/node1/cmd/forget", "");
    assert_eq!(bench.bridge.directory.poll_timeout(), None);
    assert_eq!(post(&mut bench, &location, "").code, Code::NOT_FOUND);
}

/// What a bridge that has just started is told of a node from before.
fn restored(uid: &str, address: &str, lifetime: Option<Lifetime>) -> Bench {
    let mut bench = Bench::new();
    let server = Server::new("</led>", &[("led", "0")]);
    bench.servers.insert(addr(SERVER), server);
    let order = Order::Restore {
        uid: Uid::new(uid).unwrap(),
        address: address.into(),
        resources: Vec::new(),
        lifetime,
    };
    bench.bridge.handle_order(order, bench.now);
    bench
}

#[test]
fn a_registration_is_renewed_after_a_restart_by_its_endpoint_only() {
    let (_, location) = registered(100);
    let mut bench = restored("node1", SERVER, None);
    let stranger = "[2001:db8::66]:40000";
    for method in [Method::Post, Method::Delete] {
        let response = ask(&mut bench, stranger, method, &location, "");
        assert_eq!(response.code, Code::NOT_FOUND);
    }
    // It may never have been registered: until then it is as silent as any node from before.
    bench.wait(Duration::from_secs(300));
    assert!(bench.server(SERVER).take_asked().is_empty());
    let longer = format!("{location}?lt=100");
    assert_eq!(post(&mut bench, &longer, "").code, Code::CHANGED);
    assert_eq!(state(&bench).0, "online");
    assert_eq!(bench.value("node1", "led"), json!(0));
    bench.wait(Duration::from_secs(99));
    assert_eq!(post(&mut bench, &location, "").code, Code::CHANGED);
    bench.wait(Duration::from_secs(99));
    assert_eq!(state(&bench).0, "online");
    bench.wait(Duration::from_secs(1));
    assert_eq!(state(&bench), ("offline".into(), "expired".into()));
    assert_eq!(post(&mut bench, &location, "").code, Code::NOT_FOUND);
}

#[test]
fn a_registration_from_before_the_restart_ends_with_its_node() {
    let (_, location) = registered(100);
    let mut bench = restored("node1", SERVER, None);
    let uid = Uid::new("node1").unwrap();
    bench.bridge.handle_order(Order::Forget { uid }, bench.now);
    assert_eq!(post(&mut bench, &location, "").code, Code::NOT_FOUND);
    // Of a node of DTLS, nobody renews it without.
    let mut bench = restored("node1", "coaps://[2001:db8::1]:61616", None);
    assert_eq!(post(&mut bench, &location, "").code, Code::NOT_FOUND);
}

/// With a long lifetime nothing is heard of a node for hours; so it is asked.
#[test]
fn a_registration_goes_on_over_a_restart() {
    let until = bus::time::now().after(Duration::from_secs(250)).wall;
    let lifetime = Lifetime {
        seconds: 300,
        until,
    };
    let mut bench = restored("node1", SERVER, Some(lifetime));
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.server(SERVER).take_asked()[0], "GET .well-known/core");
    assert_eq!(state(&bench).0, "online");
    assert_eq!(bench.value("node1", "led"), json!(0));
    bench.wait(Duration::from_secs(240));
    assert_eq!(state(&bench).0, "online");
    bench.wait(Duration::from_secs(9));
    assert_eq!(state(&bench), ("offline".into(), "expired".into()));
    // As long as before, when it says nothing else.
    let (_, location) = registered(1);
    let mut bench = restored("node1", SERVER, Some(lifetime));
    assert_eq!(post(&mut bench, &location, "").code, Code::CHANGED);
    bench.wait(Duration::from_secs(299));
    assert_eq!(state(&bench).0, "online");
    bench.wait(Duration::from_secs(1));
    assert_eq!(state(&bench), ("offline".into(), "expired".into()));
    // What ended meanwhile has ended.
    let now = bus::time::now().wall;
    let ended = Lifetime {
        seconds: 300,
        until: now,
    };
    let mut bench = restored("node1", SERVER, Some(ended));
    bench.wait(Duration::from_secs(1));
    assert!(bench.server(SERVER).take_asked().is_empty());
}
