//! Observed resources, and what strangers send.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::bench::{Bench, Server, addr};

const SERVER: &str = "10.0.0.1:5683";
const SOURCE: &str = "10.0.0.1:49152";

#[test]
fn a_resource_that_notifies_is_observed() {
    let mut bench = Bench::new();
    let mut server = Server::new("</temp>;obs,</name>", &[("temp", "20"), ("name", "n")]);
    server.observe = Some(5);
    bench.servers.insert(addr(SERVER), server);
    bench.alive(SOURCE, "alive:a");
    let asked = bench.server(SERVER).take_asked();
    assert_eq!(asked, ["GET .well-known/core", "OBS temp", "GET name"]);

    bench.wait(Duration::from_secs(31));
    let asked = bench.server(SERVER).take_asked();
    assert_eq!(
        asked,
        ["GET name", "OBS temp"],
        "silence renews the observation"
    );

    // Notifications count as fresh, and an error ends the observation.
    let observation = bench.bridge.asked.len();
    assert_eq!(observation, 1);
    bench.server(SERVER).observe = None;
    bench.wait(Duration::from_secs(31));
    assert!(
        bench.bridge.asked.is_empty(),
        "the node does not notify any more"
    );
    assert_eq!(bench.value("a", "temp"), json!(20));
}

#[test]
fn notifications_become_readings() {
    let mut bench = Bench::new();
    bench.alive("10.0.0.1:5683", "alive:a");
    let answer = |bench: &mut Bench, path: &[u8], tail: &[u8]| {
        let found = bench
            .stray
            .iter()
            .rfind(|(_, bytes)| bytes.windows(path.len()).any(|w| w == path));
        let request = found.unwrap().1.clone();
        let response = [&[0x64, 0x45], &request[2..8], tail].concat();
        bench.datagram("10.0.0.1:5683", &response);
        request
    };
    let stray = bench.stray.clone();
    assert_eq!(stray.len(), 1 + 1, "the answer and the question: {stray:?}");
    answer(&mut bench, b"core", b"\xc1\x28\xff</temp>;obs");
    let request = answer(&mut bench, b"temp", b"\x61\x01\xff20");
    assert_eq!(bench.value("a", "temp"), json!(20));
    let notification = [b"\x54\x45\x00\x77", &request[4..8], b"\x61\x02\xff21"].concat();
    bench.datagram("10.0.0.1:5683", &notification);
    assert_eq!(bench.value("a", "temp"), json!(21));
    let end = [b"\x54\x84\x00\x78", &request[4..8]].concat();
    bench.datagram("10.0.0.1:5683", &end);
    assert!(bench.bridge.asked.is_empty());
    assert_eq!(bench.value("a", "temp"), json!(21), "an error is no value");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a neighbour sends, the other node works.
    #[test]
    fn rubbish_of_one_never_touches_another(
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..60),
        words in proptest::collection::vec("(alive|server|Reset)", 0..20),
        payloads in proptest::collection::vec("[a-z:/\u{0}é]{0,12}", 0..20),
        spoofed in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        bench.servers.insert(addr(SERVER), Server::new("</led>", &[("led", "0")]));
        bench.alive(SOURCE, "alive:a");
        let from = if spoofed { "10.0.0.1:7777" } else { "10.6.6.6:7777" };
        for datagram in &datagrams {
            let mut datagram = datagram.clone();
            // Most get past the version check.
            if let Some(first) = datagram.first_mut() {
                *first = *first & 0x3f | 0x40;
            }
            bench.datagram(from, &datagram);
        }
        for (word, payload) in words.iter().zip(&payloads) {
            bench.con(from, word, payload);
        }
        bench.wait(Duration::from_secs(100));
        bench.alive(SOURCE, "alive:a");
        bench.bus("nodes/a/res/led/set", "1");
        prop_assert_eq!(bench.value("a", "led"), json!(1));
    }
}
