//! Signs of life, discovery, polling, the end.

use std::time::Duration;

use serde_json::json;

use super::bench::{Bench, Server, addr, rules};
use crate::endpoint::{Code, Limits};
use crate::firmware::Rules;
use crate::metrics::Refused;

const LEDS: &str = "</board>,</led>,</mcu>,</name>,</os>";
const VALUES: &[(&str, &str)] = &[
    ("board", "samr21-xpro"),
    ("led", "0"),
    ("mcu", "samd21"),
    ("name", "LEDs"),
    ("os", "riot"),
];
const SERVER: &str = "[2001:db8::1]:5683";
/// Firmwares send from this port.
const SOURCE: &str = "[2001:db8::1]:49152";

fn with_node() -> Bench {
    let mut bench = Bench::new();
    bench
        .servers
        .insert(addr(SERVER), Server::new(LEDS, VALUES));
    bench
}

fn first_asked() -> Vec<String> {
    [
        "/.well-known/core",
        "/board",
        "/led",
        "/mcu",
        "/name",
        "/os",
    ]
    .map(|path| path.replacen('/', "GET ", 1))
    .to_vec()
}

#[test]
fn a_starting_firmware_is_discovered_once() {
    let mut bench = with_node();
    // As captured: reset and alive leave in the same millisecond, with tokens of 2 bytes.
    bench.datagram(
        SOURCE,
        b"\x52\x02\x1a\x01\xaa\xbb\xb5alive\x10\xffreset:FB6D23232323232",
    );
    bench.datagram(
        SOURCE,
        b"\x52\x02\x1a\x02\xaa\xbc\xb5alive\x10\xffalive:FB6D23232323232",
    );
    assert_eq!(bench.server(SERVER).take_asked(), first_asked());
    let node = bench.topic("nodes/fb6d23232323232");
    assert_eq!(node["uid"], "FB6D23232323232");
    assert_eq!(node["address"], SERVER);
    assert_eq!(node["board"], "samr21-xpro");
    assert_eq!(node["epoch"], 0);
    assert_eq!(bench.value("fb6d23232323232", "led"), json!(0));
    assert_eq!(bench.events.get("node_new"), Some(&1));
    assert_eq!(bench.events.get("node_reset"), None);
    for _ in 0..3 {
        bench.wait(Duration::from_secs(5));
        bench.alive(SOURCE, "alive:FB6D23232323232");
    }
    assert!(
        bench.server(SERVER).take_asked().is_empty(),
        "alive asks for nothing new"
    );
}

#[test]
fn a_node_that_starts_anew_is_asked_anew() {
    let mut bench = with_node();
    bench.alive(SOURCE, "alive:a");
    bench.server(SERVER).take_asked();
    bench.wait(Duration::from_secs(20));
    bench.server(SERVER).values.insert("led".into(), "1".into());
    bench.alive(SOURCE, "reset:a");
    bench.alive(SOURCE, "alive:a");
    assert_eq!(bench.server(SERVER).take_asked(), first_asked());
    assert_eq!(bench.events.get("node_reset"), Some(&1));
    assert_eq!(bench.topic("nodes/a")["epoch"], 1);
    assert_eq!(bench.value("a", "led"), json!(1));
}

#[test]
fn an_aiocoap_node_is_answered_at_once() {
    let mut bench = with_node();
    assert_eq!(
        bench.con("10.1.1.1:41234", "alive", "Alive:1234"),
        Some(Code::CHANGED)
    );
    let back = bench.datagram("10.1.1.1:41234", b"\x40\x02\x77\x01\xb5alive\xffAlive:1234");
    assert_eq!(&back[0][4..], b"\xffReceived 'Alive:1234'");
    assert_eq!(
        bench.con("10.1.1.1:41234", "alive", "hello"),
        Some(Code::BAD_REQUEST)
    );
    assert_eq!(bench.metrics.refused_for(Refused::Malformed), 1);
}

#[test]
fn what_nobody_pushes_is_polled_while_the_node_lives() {
    let mut bench = with_node();
    bench.alive(SOURCE, "alive:a");
    bench.server(SERVER).take_asked();
    for _ in 0..12 {
        bench.wait(Duration::from_secs(5));
        bench.push(SOURCE, "led:1");
    }
    let asked = bench.server(SERVER).take_asked();
    let times = |path| asked.iter().filter(|asked| *asked == path).count();
    assert_eq!((times("GET name"), times("GET led")), (2, 0), "{asked:?}");

    bench.server(SERVER).dead = true;
    bench.wait(Duration::from_secs(600));
    assert_eq!(bench.topic("nodes/a/status")["state"], "offline");
    bench.server(SERVER).dead = false;
    bench.wait(Duration::from_secs(600));
    assert!(
        bench.server(SERVER).take_asked().is_empty(),
        "a silent node is left alone"
    );
    bench.alive(SOURCE, "alive:a");
    bench.wait(Duration::from_secs(2));
    let asked = bench.server(SERVER).take_asked();
    assert_eq!(
        asked.len(),
        5 + 1,
        "each, and the list, which is old: {asked:?}"
    );
    assert_eq!(bench.topic("nodes/a/status")["state"], "online");
}

#[test]
fn what_can_not_be_read_is_not_polled() {
    let mut bench = with_node();
    bench.server(SERVER).write_only.insert("led".into());
    bench.alive(SOURCE, "alive:a");
    bench.server(SERVER).take_asked();
    bench.wait(Duration::from_secs(31));
    let asked = bench.server(SERVER).take_asked();
    assert!(asked.contains(&"GET name".to_owned()));
    assert!(!asked.contains(&"GET led".to_owned()), "{asked:?}");
    bench.bus("nodes/a/res/led/set", "1");
    let ack = bench.topic("nodes/a/res/led/ack");
    assert_eq!((&ack["status"], &ack["v"]), (&json!("ok"), &json!(null)));
}

#[test]
fn a_slow_first_reading_is_not_read_twice() {
    let mut bench = with_node();
    bench.server(SERVER).mute.insert("mcu".into());
    bench.alive(SOURCE, "alive:a");
    bench.wait(Duration::from_secs(10));
    let asked = bench.server(SERVER).take_asked();
    // Sent again by the message layer, and seen once by the server.
    let times = asked.iter().filter(|asked| *asked == "GET mcu").count();
    assert_eq!(times, 1, "{asked:?}");
    assert!(!asked.contains(&"GET os".to_owned()), "one at a time");
}

#[test]
fn a_list_comes_block_by_block() {
    let mut bench = Bench::new();
    let limits = Limits {
        szx: 0,
        ..Limits::default()
    };
    let list = r#"</led>;rt="light",</temp>;ct="0 50";title="A, \"B\"",</x>;obs"#;
    let server = Server::with(
        limits,
        list,
        &[("led", "1"), ("temp", "21.5°C"), ("x", "y")],
    );
    bench.servers.insert(addr(SERVER), server);
    bench.alive(SOURCE, "alive:a");
    assert_eq!(
        bench.topic("nodes/a/resources").as_array().unwrap().len(),
        3
    );
    assert_eq!(bench.value("a", "temp"), json!(21.5));
}

#[test]
fn a_node_that_is_silent_is_tried_less_and_less_often() {
    let mut bench = Bench::new();
    bench.alive(SOURCE, "alive:a");
    let mut asked = 0;
    for _ in 0..120 {
        bench.stray.clear();
        bench.wait(Duration::from_secs(30));
        asked += bench.stray.len();
        bench.alive(SOURCE, "alive:a");
    }
    // An hour: each time two places, five transmissions each.
    assert!((20..=100).contains(&asked), "{asked}");
    assert_eq!(bench.topic("nodes/a/status")["state"], "online");
}

#[test]
fn a_burst_of_first_signs_of_life_is_worked_off_in_order() {
    let mut bench = Bench::new();
    for n in 1..=500 {
        let address = format!("[2001:db8::{n:x}]:5683");
        let server = Server::new(LEDS, VALUES);
        bench.servers.insert(addr(&address), server);
    }
    bench.bus_is_behind = true;
    for n in 1..=500 {
        bench.alive(&format!("[2001:db8::{n:x}]:49152"), &format!("alive:{n}"));
    }
    bench.bus_is_behind = false;
    bench.wait(Duration::from_secs(1));
    for n in 1..=500 {
        assert_eq!(bench.value(&n.to_string(), "os"), json!("riot"), "{n}");
    }
}

#[test]
fn nodes_that_do_not_answer_hold_up_no_other_place() {
    let mut bench = with_node();
    for n in 0..100 {
        bench.alive(
            &format!("10.6.6.6:{}", 1000 + n),
            &format!("alive:dead-{n}"),
        );
    }
    bench.alive(SOURCE, "alive:a");
    assert_eq!(bench.value("a", "os"), json!("riot"));
}

#[test]
fn there_are_only_so_many_nodes() {
    let mut bench = Bench::with(Rules {
        max_nodes: 3,
        max_nodes_per_address: 2,
        ..rules()
    });
    assert_eq!(
        bench.con("10.0.0.1:1", "alive", "alive:a"),
        Some(Code::CHANGED)
    );
    assert_eq!(
        bench.con("10.0.0.1:2", "alive", "alive:b"),
        Some(Code::CHANGED)
    );
    assert_eq!(
        bench.con("10.0.0.1:3", "alive", "alive:c"),
        Some(Code::SERVICE_UNAVAILABLE)
    );
    assert_eq!(bench.metrics.refused_for(Refused::TooManyAtAddress), 1);
    assert_eq!(
        bench.con("10.0.0.2:3", "alive", "alive:c"),
        Some(Code::CHANGED)
    );
    assert_eq!(
        bench.con("10.0.0.3:3", "alive", "alive:d"),
        Some(Code::SERVICE_UNAVAILABLE)
    );
    assert_eq!(
        bench.con("10.0.0.1:1", "alive", "alive:a"),
        Some(Code::CHANGED)
    );
    assert_eq!(bench.metrics.refused_for(Refused::TooManyNodes), 1);
}

#[test]
fn a_forgotten_node_leaves_nothing_behind() {
    let mut bench = with_node();
    bench.alive(SOURCE, "alive:a");
    bench.alive("10.9.9.9:1000", "alive:silent");
    bench.bus("nodes/a/cmd/forget", "");
    bench.bus("nodes/silent/cmd/forget", "");
    assert!(bench.bridge.nodes.is_empty());
    assert!(bench.bridge.asked.is_empty());
    assert_eq!(bench.bridge.polls.next(), None);
    assert_eq!(bench.bridge.stagger.next(), None);
    assert_eq!(bench.con(SOURCE, "server", "led:1"), Some(Code::NOT_FOUND));
    bench.server(SERVER).take_asked();
    bench.alive(SOURCE, "alive:a");
    assert_eq!(bench.server(SERVER).take_asked(), first_asked());
}

#[test]
fn under_load_values_are_shed_before_signs_of_life() {
    let mut bench = with_node();
    bench.alive(SOURCE, "alive:a");
    bench.bus_is_behind = true;
    for n in 0..super::super::SHED_NON {
        bench.push(SOURCE, &format!("temp:{n}"));
    }
    let waiting = bench.bridge.reports.len();
    assert_eq!(bench.push(SOURCE, "temp:1"), None);
    assert_eq!(bench.bridge.reports.len(), waiting, "NON is shed");
    assert_eq!(bench.con(SOURCE, "server", "temp:1"), None);
    assert_eq!(bench.bridge.reports.len(), waiting + 1, "CON is not");
    for n in 0..super::super::SHED_CON {
        bench.con(SOURCE, "server", &format!("temp:{n}"));
    }
    let busy = Some(Code::SERVICE_UNAVAILABLE);
    assert_eq!(bench.con(SOURCE, "server", "temp:1"), busy);
    assert_eq!(
        bench.con("10.3.3.3:9", "alive", "alive:b"),
        Some(Code::CHANGED)
    );
    assert!(bench.metrics.refused_for(Refused::Overload) > 1);
    bench.bus_is_behind = false;
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.topic("nodes/b/status")["state"], "online");
    assert_eq!(bench.con(SOURCE, "server", "temp:1"), Some(Code::CHANGED));
}

#[test]
fn a_list_that_changes_is_noticed() {
    let mut bench = Bench::new();
    let server = Server::new("</led>,</temp>", &[("led", "0"), ("temp", "20")]);
    bench.servers.insert(addr(SERVER), server);
    let alive_for = |bench: &mut Bench, rounds: usize| {
        for _ in 0..rounds {
            bench.alive(SOURCE, "alive:a");
            bench.wait(Duration::from_secs(30));
        }
    };
    alive_for(&mut bench, 19);
    let lists = |bench: &mut Bench| {
        let asked = bench.server(SERVER).take_asked();
        asked
            .iter()
            .filter(|asked| *asked == "GET .well-known/core")
            .count()
    };
    assert_eq!(lists(&mut bench), 1);
    // Unchanged: what is pushed is not asked for because of it.
    for _ in 0..6 {
        bench.push(SOURCE, "led:0");
        bench.alive(SOURCE, "alive:a");
        bench.wait(Duration::from_secs(10));
    }
    let asked = bench.server(SERVER).take_asked();
    let times = |what| asked.iter().filter(|asked| *asked == what).count();
    let expected = (1, 0);
    assert_eq!(
        (times("GET .well-known/core"), times("GET led")),
        expected,
        "{asked:?}"
    );

    let server = bench.server(SERVER);
    server.list = "</led>,</door>".to_owned();
    server.values.insert("door".to_owned(), "shut".to_owned());
    alive_for(&mut bench, 21);
    assert_eq!(bench.value("a", "door"), json!("shut"));
    let names: Vec<_> = bench.topic("nodes/a/resources").as_array().unwrap().clone();
    let names: Vec<_> = names.iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["door", "led"]);

    // A resource that is not there any more is a reason to ask at once.
    let server = bench.server(SERVER);
    server.take_asked();
    server.list = "</led>".to_owned();
    server.values.remove("door");
    alive_for(&mut bench, 3);
    assert_eq!(lists(&mut bench), 1);
    assert_eq!(
        bench.topic("nodes/a/resources").as_array().unwrap().len(),
        1
    );
}
