//! From the beginning of a session to its end.

use std::time::Duration;

use bytes::Bytes;

use super::bench::{Bench, Client, KEY, addr, keys, limits};
use crate::dtls::client::hello;
use crate::dtls::metrics::{Ended, Refused};
use crate::dtls::{Limits, Server};

const HERE: &str = "10.0.0.1:7000";

#[test]
fn a_goodbye_is_answered_and_ends_the_session() {
    let mut bench = Bench::new(&[("kitchen", KEY)]);
    let session = bench.works(HERE, "kitchen", KEY);
    bench.act(HERE, dimpl::Dtls::close);
    assert_eq!(bench.ended(), (session, Ended::Closed));
    assert_eq!(bench.metrics.sessions.get(), 0);
    bench.tell(session, b"too late");
    assert!(bench.server.sessions.is_empty());
}

/// RFC 6347 section 4.2.8: the old association lives until the new one is complete.
#[test]
fn a_new_handshake_from_the_same_address_hurts_no_session_before_it_is_complete() {
    let mut bench = Bench::new(&[("kitchen", KEY), ("attic", KEY)]);
    let session = bench.works(HERE, "kitchen", KEY);
    let node = bench.clients.remove(&addr(HERE)).unwrap();

    // Somebody forges the first message, and one who can't go on.
    bench.forge(HERE, &hello(1, &[]));
    let cookie = bench.stray.pop().unwrap().1.slice(28..60);
    assert!(!bench.forge(HERE, &hello(1, &cookie)).is_empty());
    assert_eq!(bench.metrics.handshakes.get(), 1);
    bench.connect(HERE, "kitchen", super::bench::OTHER);
    assert!(bench.client(HERE).failed);
    bench.clients.insert(addr(HERE), node);
    bench.say(HERE, b"still here");
    assert_eq!(bench.data(), (session, Bytes::from_static(b"still here")));
    bench.tell(session, b"so am I");
    assert_eq!(bench.client(HERE).received.len(), 2);

    // The node has started anew and uses the same port.
    bench.connect(HERE, "attic", KEY);
    assert_eq!(bench.ended(), (session, Ended::Renewed));
    let (new, name) = bench.established();
    assert_eq!((name.as_str(), new == session), ("attic", false));
    bench.say(HERE, b"again");
    assert_eq!(bench.data(), (new, Bytes::from_static(b"again")));
    assert_eq!(bench.metrics.sessions.get(), 1);
}

#[test]
fn a_hello_that_comes_late_begins_nothing() {
    let mut bench = Bench::new(&[("kitchen", KEY)]);
    bench.weather.doubling = 1.0;
    bench.connect(HERE, "kitchen", KEY);
    bench.wait(Duration::from_secs(60));
    bench.established();
    assert!(bench.events.is_empty());
    assert_eq!(bench.metrics.handshakes.get(), 0);
    assert_eq!(bench.metrics.established.get(), 1);
}

#[test]
fn a_silent_session_ends_after_its_time() {
    let mut bench = Bench::new(&[("kitchen", KEY), ("attic", KEY)]);
    let silent = bench.works(HERE, "kitchen", KEY);
    let busy = bench.works("10.0.0.2:7000", "attic", KEY);
    for _ in 0..4 {
        bench.wait(Duration::from_secs(1200));
        bench.say("10.0.0.2:7000", b"alive");
    }
    let mut ended = Vec::new();
    while let Some(event) = bench.events.pop_front() {
        if let crate::dtls::Event::Ended { session, why } = event {
            ended.push((session, why));
        }
    }
    assert_eq!(ended, [(silent, Ended::Idle)]);
    assert!(bench.client(HERE).closed);
    assert!(bench.server.sessions.address(busy).is_some());
}

#[test]
fn the_session_that_was_silent_for_longest_makes_room() {
    let limits = Limits {
        max_sessions: 3,
        ..limits()
    };
    let names = ["a", "b", "c", "d", "e"];
    let file: Vec<_> = names.iter().map(|name| (*name, KEY)).collect();
    let mut bench = Bench::with(1, limits, keys(&file), None);
    let at = |n: usize| format!("10.0.0.{}:7000", n + 1);
    for (n, name) in names.iter().enumerate().take(3) {
        bench.works(&at(n), name, KEY);
        bench.wait(Duration::from_secs(10));
    }
    bench.say(&at(0), b"alive");
    bench.events.clear();
    bench.connect(&at(3), "d", KEY);
    let (_, why) = bench.ended();
    assert_eq!((why, bench.established().1), (Ended::Evicted, "d".into()));
    assert!(bench.client(&at(1)).closed, "b was silent for longest");
    assert_eq!(bench.metrics.sessions.get(), 3);
    assert_eq!(bench.metrics.ended_for(Ended::Evicted), 1);
}

#[test]
fn one_name_pushes_out_only_its_own_sessions() {
    let mut bench = Bench::new(&[("kitchen", KEY), ("attic", KEY)]);
    let attic = bench.works("10.0.0.99:7000", "attic", KEY);
    for n in 0..20 {
        bench.connect(&format!("10.0.0.1:{}", 7000 + n), "kitchen", KEY);
        bench.wait(Duration::from_secs(2));
    }
    assert_eq!(bench.metrics.sessions.get(), 5);
    assert!(bench.server.sessions.address(attic).is_some());
}

#[test]
fn one_address_has_its_share_of_sessions() {
    let limits = Limits {
        max_sessions_per_address: 2,
        ..limits()
    };
    let file = keys(&[("a", KEY), ("b", KEY), ("c", KEY)]);
    let mut bench = Bench::with(1, limits, file, None);
    bench.works("[2001:db8::1]:7000", "a", KEY);
    bench.works("[2001:db8::2]:7000", "b", KEY);
    bench.connect("[2001:db8::3]:7000", "c", KEY);
    assert!(!bench.client("[2001:db8::3]:7000").connected);
    assert_eq!(
        bench.metrics.refused_for(Refused::TooManySessionsAtAddress),
        1
    );
    bench.works("[2001:db8:0:1::3]:7000", "c", KEY);
    // Who has a session may make a new one.
    bench.clients.clear();
    let again = Client::psk("a", KEY, bench.now.mono);
    bench.start("[2001:db8::1]:7000", again);
    assert_eq!(bench.ended().1, Ended::Renewed);
    assert_eq!(bench.established().1, "a");
}

#[test]
fn the_stop_says_goodbye_to_all() {
    let mut bench = Bench::new(&[("kitchen", KEY), ("attic", KEY)]);
    bench.works(HERE, "kitchen", KEY);
    bench.works("10.0.0.2:7000", "attic", KEY);
    Server::close(&mut bench.server, bench.now.mono);
    bench.settle();
    assert!(bench.client(HERE).closed && bench.client("10.0.0.2:7000").closed);
    assert!(bench.server.sessions.is_empty());
    assert_eq!(bench.server.poll_timeout(), None);
}
