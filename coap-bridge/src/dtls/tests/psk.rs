//! Shared keys.

use std::time::Duration;

use bytes::Bytes;

use super::bench::{Bench, KEY, OTHER, Weather, addr, keys};
use crate::dtls::Ended;
use crate::dtls::metrics::Refused;

#[test]
fn who_has_the_key_speaks() {
    let mut bench = Bench::new(&[("kitchen", KEY), ("attic", OTHER)]);
    bench.works("10.0.0.1:7000", "kitchen", KEY);
    bench.works("[fe80::1%2]:7000", "attic", OTHER);
    assert_eq!(bench.metrics.cookies.get(), 2);
    assert_eq!(bench.metrics.sessions.get(), 2);
    assert_eq!(bench.metrics.handshakes.get(), 0);
}

#[test]
fn a_wrong_key_and_an_unknown_name_fail_for_that_client_only() {
    let mut bench = Bench::new(&[("kitchen", KEY)]);
    let good = bench.works("10.0.0.1:7000", "kitchen", KEY);
    for (at, name, key, why) in [
        ("10.0.0.2:7000", "kitchen", OTHER, Refused::WrongKey),
        ("10.0.0.3:7000", "cellar", KEY, Refused::UnknownIdentity),
        ("10.0.0.4:7000", "../kitchen", KEY, Refused::UnknownIdentity),
        ("10.0.0.5:7000", "", KEY, Refused::UnknownIdentity),
    ] {
        let before = bench.metrics.refused_for(why);
        bench.connect(at, name, key);
        assert_eq!(bench.metrics.refused_for(why), before + 1, "{name:?}");
        // The alert has told it at once.
        assert!(bench.client(at).failed && !bench.client(at).connected);
        assert!(bench.events.is_empty());
        assert_eq!(bench.metrics.handshakes.get(), 0);
    }
    bench.say("10.0.0.1:7000", b"still here");
    assert_eq!(bench.data(), (good, Bytes::from_static(b"still here")));
    bench.works("10.0.0.6:7000", "kitchen", KEY);
}

/// A node that was switched on too early need not be switched on again.
#[test]
fn the_first_key_may_come_late() {
    let mut bench = Bench::new(&[]);
    bench.connect("10.0.0.1:7000", "kitchen", KEY);
    bench.wait(Duration::from_secs(5));
    // Nobody can be believed, so nobody is answered.
    assert_eq!(bench.metrics.sent.get(), 0);
    assert!(bench.metrics.dropped_for("no_credentials") >= 2);
    assert!(!bench.client("10.0.0.1:7000").failed);
    let now = bench.now;
    bench.server.handle_keys(keys(&[("kitchen", KEY)]), now);
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.established().1, "kitchen");
    assert!(bench.client("10.0.0.1:7000").connected);
}

#[test]
fn a_lossy_link_delays_but_prevents_nothing() {
    let weather = Weather {
        loss: 0.2,
        doubling: 0.2,
        max_delay: Duration::from_millis(300),
    };
    let (mut connected, mut heard) = (0, 0);
    const SEEDS: u64 = 150;
    for seed in 0..SEEDS {
        let limits = super::bench::limits();
        let mut bench = Bench::with(seed, limits, keys(&[("kitchen", KEY)]), None);
        bench.weather = weather;
        let at = "10.0.0.1:7000";
        bench.connect(at, "kitchen", KEY);
        bench.wait(Duration::from_secs(60));
        if bench.client(at).failed || !bench.client(at).connected {
            continue;
        }
        connected += 1;
        let (session, name) = bench.established();
        assert_eq!(name, "kitchen");
        for n in 0..20_u8 {
            bench.say(at, &[n]);
            bench.server.send(session, &[n], bench.now.mono);
        }
        bench.wait(Duration::from_secs(1));
        let mut came: Vec<u8> = Vec::new();
        while !bench.events.is_empty() {
            came.extend(bench.data().1);
        }
        let mut back = bench.client(at).received.concat();
        heard += came.len() + back.len();
        // What the link doubles comes once.
        for all in [&mut came, &mut back] {
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "seed {seed}");
        }
    }
    // Four retransmissions of two flights: one in some hundred fails for good.
    assert!(connected >= SEEDS * 95 / 100, "{connected} of {SEEDS}");
    let expected = usize::try_from(connected).unwrap() * 40;
    assert!(heard * 100 >= expected * 75, "{heard} of {expected}");
}

#[test]
fn a_key_that_is_taken_away_ends_its_sessions_and_no_other() {
    let mut bench = Bench::new(&[("kitchen", KEY), ("attic", KEY), ("cellar", KEY)]);
    let kitchen = bench.works("10.0.0.1:7000", "kitchen", KEY);
    let attic = bench.works("10.0.0.2:7000", "attic", KEY);
    let cellar = bench.works("10.0.0.3:7000", "cellar", KEY);
    let now = bench.now;
    let file = keys(&[("attic", KEY), ("cellar", OTHER), ("garage", OTHER)]);
    bench.server.handle_keys(file, now);
    bench.settle();
    let mut ended = [bench.ended(), bench.ended()];
    ended.sort_unstable_by_key(|(session, _)| *session);
    assert_eq!(
        ended,
        [(kitchen, Ended::Withdrawn), (cellar, Ended::Withdrawn)]
    );
    assert!(bench.client("10.0.0.1:7000").closed, "told so");
    bench.say("10.0.0.2:7000", b"on");
    assert_eq!(bench.data(), (attic, Bytes::from_static(b"on")));
    bench.works("10.0.0.4:7000", "garage", OTHER);
    bench.connect("10.0.0.5:7000", "kitchen", KEY);
    assert!(bench.client("10.0.0.5:7000").failed);
}

#[test]
fn a_key_that_is_taken_away_ends_its_handshakes() {
    let mut bench = Bench::new(&[("kitchen", KEY)]);
    bench.connect("10.0.0.1:7000", "kitchen", KEY);
    bench.events.clear();
    // A second handshake of the same client loses our last flight; its first session is not hurt.
    bench.weather.max_delay = Duration::from_secs(1);
    bench.clients.remove(&addr("10.0.0.2:7000"));
    bench.connect("10.0.0.2:7000", "kitchen", KEY);
    for _ in 0..100 {
        bench.wait(Duration::from_millis(20));
        if bench.metrics.handshakes.get() == 1 {
            break;
        }
    }
    let now = bench.now;
    bench.server.handle_keys(keys(&[]), now);
    bench.wait(Duration::from_secs(60));
    assert!(!bench.client("10.0.0.2:7000").connected);
    assert_eq!(bench.metrics.sessions.get(), 0);
    assert_eq!(bench.metrics.handshakes.get(), 0);
}
