//! Requests to groups, and pings.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::bench::Bench;
use crate::endpoint::codec::{Message, Type};
use crate::endpoint::options::format;
use crate::endpoint::parameters::{DEFAULT_LEISURE, MAX_TRANSMIT_WAIT};
use crate::endpoint::{Code, Event, Limits, Method, Request, Response};

/// `NON GET /.well-known/core`, mid 1, token 9.
const GET: &[u8] = b"\x51\x01\x00\x01\x09\xbb.well-known\x04core";

impl Bench {
    fn group(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.endpoint
            .handle_group_datagram(self.peer, datagram, self.now);
        self.sent()
    }
}

#[test]
fn a_group_is_answered_at_leisure() {
    let mut waits = BTreeSet::new();
    let mut bench = Bench::new();
    for mid in 1..=30 {
        let datagram = [&[0x51, 1, 0, mid], &GET[4..]].concat();
        assert!(bench.group(&datagram).is_empty());
        let Some(Event::Request {
            exchange,
            multicast: true,
            ..
        }) = bench.endpoint.poll_event()
        else {
            panic!("no request");
        };
        let list = Response::content(format::LINK, "</a>");
        bench.endpoint.respond(exchange, list, bench.now);
        assert!(bench.sent().is_empty(), "not at once");
        let at = bench.endpoint.poll_timeout().unwrap();
        let wait = at - bench.now;
        assert!(wait <= DEFAULT_LEISURE);
        waits.insert(wait);
        let answer = Message::decode(&bench.wait(wait)[0]).unwrap();
        assert_eq!((answer.kind, answer.code), (Type::Non, Code::CONTENT));
        assert!(bench.group(&datagram).is_empty(), "a duplicate");
    }
    assert!(waits.len() > 20, "each at its own time");
    let spread = *waits.last().unwrap() - *waits.first().unwrap();
    assert!(spread > DEFAULT_LEISURE / 2);
}

#[test]
fn a_group_is_not_told_what_is_wrong() {
    let mut bench = Bench::new();
    // A CON, a ping, a response, rubbish, an unknown critical option, an unknown method.
    for datagram in [
        &[&[0x41], &GET[1..]].concat()[..],
        &[0x40, 0, 1, 2],
        &[0x50, 0, 1, 2],
        &[0x51, 0x45, 1, 4, 9],
        &[0x41, 0x45, 1, 5, 9],
        &[0x40],
        &[0x50, 1, 0, 7, 0x90],
        &[0x50, 8, 0, 8],
    ] {
        assert!(bench.group(datagram).is_empty(), "{datagram:x?}");
    }
    assert!(bench.wait(DEFAULT_LEISURE).is_empty());
    assert!(bench.endpoint.poll_event().is_none());
    bench.group(GET);
    let (exchange, _) = bench.asked();
    let error = Response::new(Code::NOT_FOUND);
    bench.endpoint.respond(exchange, error, bench.now);
    assert!(bench.wait(DEFAULT_LEISURE).is_empty());
    // A long answer to one datagram from an address that may be forged.
    bench.group(&[&[0x51, 1, 0, 20], &GET[4..]].concat());
    let (exchange, _) = bench.asked();
    let long = Response::content(format::LINK, vec![b'x'; 500]);
    bench.endpoint.respond(exchange, long, bench.now);
    assert!(bench.wait(DEFAULT_LEISURE).is_empty());
    assert!(bench.dropped("multicast") >= 6);
}

#[test]
fn many_members_answer_one_question() {
    let mut bench = Bench::new();
    let group: SocketAddr = "[ff02::fd]:5683".parse().unwrap();
    let patience = Duration::from_secs(10);
    let question = Request::new(Method::Get, ".well-known/core");
    let asked = bench
        .endpoint
        .ask_group(group, question, patience, bench.now);
    let sent = bench.sent().remove(0);
    assert_eq!(sent[0] >> 4, 0x5, "NON");
    let answer = |mid: u8| [&[0x54, 0x45, 0, mid], &sent[4..8], b"\xff</a>"].concat();
    let mut from = BTreeSet::new();
    for member in 1..=50 {
        bench.peer = format!("[fe80::{member}%3]:5683").parse().unwrap();
        bench.handle(&answer(1));
        // Again under another mid: one answer of each.
        bench.handle(&answer(2));
        let Some(Event::GroupResponse { id, peer, .. }) = bench.endpoint.poll_event() else {
            panic!("no answer");
        };
        assert_eq!((id, peer), (asked, bench.peer.into()));
        from.insert(peer);
    }
    assert_eq!(from.len(), 50);
    assert!(bench.is_quiet());
    // Our own question comes back to us, as a member of the group.
    bench.group(&sent);
    assert_eq!(bench.dropped("looped"), 1);
    assert!(bench.wait(patience).is_empty());
    bench.peer = "[fe80::99%3]:5683".parse().unwrap();
    bench.handle(&answer(1));
    assert!(bench.is_quiet(), "too late");
}

#[test]
fn a_ping_tells_whether_somebody_is_there() {
    let mut bench = Bench::with(Limits::default());
    for kind in [0x70, 0x60] {
        let id = bench.endpoint.ping(bench.peer, bench.now).unwrap();
        let ping = bench.sent().remove(0);
        assert_eq!((ping.len(), ping[0], ping[1]), (4, 0x40, 0));
        bench.handle(&[kind, 0, ping[2], ping[3]]);
        let peer = bench.peer.into();
        let pong = Event::Pong {
            id,
            peer,
            alive: true,
        };
        assert_eq!(bench.endpoint.poll_event(), Some(pong));
    }
    bench.endpoint.ping(bench.peer, bench.now).unwrap();
    let end = bench.now + MAX_TRANSMIT_WAIT;
    while let Some(at) = bench.endpoint.poll_timeout().filter(|at| *at <= end) {
        bench.now = at;
        bench.endpoint.handle_timeout(at);
    }
    let event = bench.endpoint.poll_event();
    assert!(matches!(event, Some(Event::Pong { alive: false, .. })));
}
