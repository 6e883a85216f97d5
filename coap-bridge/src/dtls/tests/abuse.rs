//! Strangers who send rubbish, and many of them.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::bench::{Bench, KEY};
use crate::dtls::client::hello;
use crate::dtls::metrics::Refused;
use crate::dtls::record::records;

const HERE: &str = "10.0.0.1:7000";

/// Opens a handshake and leaves it at that.
fn half_open(bench: &mut Bench, from: &str, random: u8) -> bool {
    bench.forge(from, &hello(random, &[]));
    let cookie = bench.stray.pop().unwrap().1.slice(28..60);
    !bench.forge(from, &hello(random, &cookie)).is_empty()
}

#[test]
fn before_the_cookie_nothing_is_kept_and_little_is_sent() {
    let mut bench = Bench::new(&[("kitchen", KEY)]);
    for n in 0..10_000_u16 {
        let [a, b] = n.to_be_bytes();
        let hello = hello(a ^ b, &[]);
        let back = bench.forge(&format!("10.9.{a}.{b}:7000"), &hello);
        let sent: usize = back.iter().map(Bytes::len).sum();
        assert!((1..hello.len()).contains(&sent), "{sent} bytes back");
    }
    assert_eq!(bench.server.handshakes.len(), 0);
    assert_eq!(bench.server.poll_timeout(), None, "no timer");
    // A cookie of another address is none.
    bench.forge(HERE, &hello(1, &[]));
    let cookie = bench.stray.pop().unwrap().1.slice(28..60);
    bench.forge("10.0.0.2:7000", &hello(1, &cookie));
    assert_eq!(bench.server.handshakes.len(), 0);
    assert_eq!(bench.metrics.cookies.get(), 10_002);
}

#[test]
fn a_thousand_half_open_handshakes_exhaust_nothing() {
    let mut bench = Bench::new(&[("kitchen", KEY), ("attic", KEY)]);
    let session = bench.works(HERE, "kitchen", KEY);
    // From one /64 a quarter of the room is all there is.
    let opened = (0..1000_u16)
        .filter(|n| half_open(&mut bench, &format!("[2001:db8::{n:x}]:7000"), 1))
        .count();
    assert_eq!((opened, bench.server.handshakes.len()), (16, 16));
    let refused = Refused::TooManyHandshakesAtAddress;
    assert_eq!(bench.metrics.refused_for(refused), 984);
    bench.works("10.0.0.2:7000", "attic", KEY);
    // From everywhere all there is; who is in stays in.
    for n in 0..1000_u16 {
        let [a, b] = n.to_be_bytes();
        half_open(&mut bench, &format!("10.9.{a}.{b}:7000"), 1);
    }
    assert_eq!(bench.server.handshakes.len(), 64);
    assert_eq!(bench.metrics.refused_for(Refused::TooManyHandshakes), 952);
    bench.say(HERE, b"still here");
    assert_eq!(bench.data(), (session, Bytes::from_static(b"still here")));
    // And it passes.
    bench.wait(Duration::from_secs(31));
    assert_eq!(bench.server.handshakes.len(), 0);
    assert_eq!(bench.metrics.refused_for(Refused::Timeout), 64);
    bench.works("10.0.0.3:7000", "attic", KEY);
}

#[test]
fn clients_of_something_else_are_told_so() {
    let mut bench = Bench::new(&[("kitchen", KEY)]);
    let mut other = hello(1, &[]);
    let at = other.len() - 12;
    assert_eq!(other[at..][..4], [0, 2, 0xc0, 0xa8], "suites");
    other[at + 3] = 0xa4;
    bench.forge(HERE, &other);
    let cookie = bench.stray.pop().unwrap().1.slice(28..60);
    let mut other = hello(1, &cookie);
    other[at + 32 + 3] = 0xa4;
    let back = bench.forge(HERE, &other);
    assert_eq!(back[0][13..], [2, 40], "handshake_failure");
    assert_eq!(bench.metrics.refused_for(Refused::NotSupported), 1);
    assert_eq!(bench.server.handshakes.len(), 0);
}

/// RFC 6347 section 4.2.1: else a client that had to repeat itself takes the answer for an old one.
#[test]
fn an_answer_goes_on_from_the_number_of_the_clients_record() {
    let mut bench = Bench::new(&[("kitchen", KEY)]);
    let numbered = |mut hello: Vec<u8>, number: u8| {
        hello[10] = number;
        hello
    };
    let number = |datagram: &[u8]| records(datagram).unwrap()[0].sequence;
    let question = &bench.forge(HERE, &numbered(hello(1, &[]), 4))[0];
    assert_eq!(number(question), 4);
    let cookie = question.slice(28..60);
    let answer = bench.forge(HERE, &numbered(hello(1, &cookie), 9));
    assert_eq!(number(&answer[0]), 9);
}

#[test]
fn what_can_not_be_taken_is_counted() {
    let mut bench = Bench::new(&[("kitchen", KEY)]);
    bench.works(HERE, "kitchen", KEY);
    let mut old = hello(1, &[]);
    old[26] = 0xff;
    let mut cut = hello(1, &[]);
    cut[24] -= 1;
    let mut data = vec![23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 99, 0, 20];
    data.extend([0; 20]);
    for (from, datagram, reason) in [
        ("10.0.0.2:0", hello(1, &[]), "port_zero"),
        ("10.0.0.2:7000", vec![22; 4097], "too_large"),
        ("10.0.0.2:7000", b"\x40\x01\x00\x01".to_vec(), "malformed"),
        ("10.0.0.2:7000", old, "version"),
        ("10.0.0.2:7000", cut, "fragmented_hello"),
        ("10.0.0.2:7000", data.clone(), "no_session"),
        (HERE, data, "unreadable"),
    ] {
        bench.forge(from, &datagram);
        assert_eq!(bench.metrics.dropped_for(reason), 1, "{reason}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rubbish_hurts_nobody(rubbish in vec(vec(any::<u8>(), 0..200), 1..40)) {
        let mut bench = Bench::new(&[("kitchen", KEY)]);
        let session = bench.works(HERE, "kitchen", KEY);
        for datagram in &rubbish {
            bench.forge("10.0.0.2:7000", datagram);
            bench.forge(HERE, datagram);
        }
        bench.say(HERE, b"still here");
        prop_assert_eq!(bench.data(), (session, Bytes::from_static(b"still here")));
    }

    /// Records with true headers and anything in them, in front of and after the cookie.
    #[test]
    fn false_records_hurt_nobody(
        records in vec((20..24_u8, 0..3_u16, 0..20_u64, vec(any::<u8>(), 0..60)), 1..40),
    ) {
        let mut bench = Bench::new(&[("kitchen", KEY)]);
        let session = bench.works(HERE, "kitchen", KEY);
        half_open(&mut bench, "10.0.0.2:7000", 1);
        for (kind, epoch, sequence, fragment) in &records {
            let mut datagram = vec![*kind, 0xfe, 0xfd];
            datagram.extend(epoch.to_be_bytes());
            datagram.extend(&sequence.to_be_bytes()[2..]);
            datagram.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
            datagram.extend(fragment);
            bench.forge("10.0.0.2:7000", &datagram);
            bench.forge("10.0.0.3:7000", &datagram);
            bench.forge(HERE, &datagram);
        }
        bench.events.clear();
        bench.say(HERE, b"still here");
        prop_assert_eq!(bench.data(), (session, Bytes::from_static(b"still here")));
        prop_assert_eq!(bench.metrics.refused_for(Refused::Internal), 0);
    }
}
