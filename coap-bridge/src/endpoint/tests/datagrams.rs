//! One endpoint, byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use super::bench::Bench;
use crate::endpoint::parameters::{
    EMPTY_ACK_DELAY, EXCHANGE_LIFETIME, MAX_TRANSMIT_WAIT, NON_LIFETIME,
};
use crate::endpoint::{Code, Event, Limits, Method, Request, RequestError, Response};

/// `CON POST /server`, mid 1, token 9.
const POST: &[u8] = b"\x41\x02\x00\x01\x09\xb6server";

#[test]
fn a_request_is_answered_once_and_its_duplicates_get_the_same_answer() {
    let mut bench = Bench::new();
    assert!(bench.handle(POST).is_empty());
    assert!(bench.handle(POST).is_empty(), "still being answered");
    let (exchange, request) = bench.asked();
    assert_eq!(request.path().as_deref(), Some("server"));
    bench
        .endpoint
        .respond(exchange, Response::new(Code::CHANGED), bench.now);
    let answer = b"\x61\x44\x00\x01\x09".to_vec();
    assert_eq!(bench.sent(), std::slice::from_ref(&answer));
    assert_eq!(bench.handle(POST), std::slice::from_ref(&answer));
    bench.now += EXCHANGE_LIFETIME - Duration::from_millis(1);
    assert_eq!(bench.handle(POST), [answer]);
    assert!(bench.endpoint.poll_event().is_none());
    bench.now += Duration::from_millis(1);
    bench.handle(POST);
    bench.asked();
}

#[test]
fn a_non_confirmable_duplicate_is_ignored() {
    let mut bench = Bench::new();
    let non = [&[0x51], &POST[1..]].concat();
    bench.handle(&non);
    let (exchange, _) = bench.asked();
    bench
        .endpoint
        .respond(exchange, Response::new(Code::CHANGED), bench.now);
    let answer = bench.sent().remove(0);
    assert_eq!((answer[0], answer[1], answer[4]), (0x51, 0x44, 9));
    assert!(bench.handle(&non).is_empty());
    assert!(bench.is_quiet());
    bench.now += NON_LIFETIME;
    bench.handle(&non);
    bench.asked();
}

#[test]
fn a_slow_answer_goes_separately_until_it_is_acknowledged() {
    let mut bench = Bench::new();
    bench.handle(POST);
    let (exchange, _) = bench.asked();
    assert_eq!(bench.wait(EMPTY_ACK_DELAY), [b"\x60\x00\x00\x01".to_vec()]);
    assert_eq!(bench.handle(POST), [b"\x60\x00\x00\x01".to_vec()]);
    bench
        .endpoint
        .respond(exchange, Response::new(Code::CHANGED), bench.now);
    let separate = bench.sent().remove(0);
    assert_eq!((separate[0], separate[1], separate[4]), (0x41, 0x44, 9));
    let again = bench.wait(Duration::from_secs(3));
    assert_eq!(again, std::slice::from_ref(&separate));
    bench.handle(&[0x60, 0, separate[2], separate[3]]);
    assert!(bench.wait(MAX_TRANSMIT_WAIT).is_empty());
}

#[test]
fn a_request_is_sent_five_times_and_then_given_up() {
    let mut bench = Bench::new();
    let request = bench.ask();
    let mut times = 1;
    let start = bench.now;
    while let Some(at) = bench.endpoint.poll_timeout() {
        bench.now = at;
        bench.endpoint.handle_timeout(at);
        let sent = bench.sent();
        assert!(sent.iter().all(|bytes| bytes == &request));
        times += sent.len();
        if let Some(Event::Response { result, .. }) = bench.endpoint.poll_event() {
            assert_eq!(result, Err(RequestError::Timeout));
            break;
        }
    }
    assert_eq!(times, 5);
    let took = bench.now - start;
    assert!((Duration::from_secs(62)..=MAX_TRANSMIT_WAIT).contains(&took));
}

#[test]
fn retransmissions_of_many_do_not_come_together() {
    let mut bench = Bench::new();
    for host in 1..=50 {
        bench.peer = SocketAddr::from(([10, 0, 0, host], 5683));
        bench.ask();
    }
    assert!(bench.wait(Duration::from_millis(1999)).is_empty());
    let half = bench.wait(Duration::from_millis(501)).len();
    assert!((10..=40).contains(&half), "{half} of 50 in the first half");
    assert_eq!(half + bench.wait(Duration::from_millis(501)).len(), 50);
}

#[test]
fn a_separate_response_is_acknowledged_and_is_an_acknowledgement() {
    let mut bench = Bench::new();
    let request = bench.ask();
    let separate = [&[0x44, 0x45, 0x77, 0x77][..], &request[4..8], b"\xff1"].concat();
    let ack = vec![0x60, 0, 0x77, 0x77];
    assert_eq!(bench.handle(&separate), std::slice::from_ref(&ack));
    assert_eq!(&bench.answered().unwrap().payload[..], b"1");
    assert_eq!(
        bench.handle(&separate),
        [ack],
        "its acknowledgement was lost"
    );
    assert!(bench.endpoint.poll_event().is_none());
    assert!(
        bench.wait(Duration::from_secs(3)).is_empty(),
        "no retransmission"
    );
}

#[test]
fn after_an_empty_acknowledgement_the_response_is_awaited() {
    let mut bench = Bench::new();
    let request = bench.ask();
    bench.handle(&[0x60, 0, request[2], request[3]]);
    assert!(bench.wait(Duration::from_secs(60)).is_empty());
    let response = [&[0x54, 0x45, 1, 1][..], &request[4..8]].concat();
    bench.handle(&response);
    assert_eq!(bench.answered().unwrap().code, Code::CONTENT);
}

#[test]
fn an_answer_counts_only_from_the_peer_that_was_asked() {
    let mut bench = Bench::new();
    let request = bench.ask();
    let answer = [&[0x64, 0x45][..], &request[2..8]].concat();
    bench.peer = "[2001:db8::2]:5683".parse().unwrap();
    bench.handle(&answer);
    let spoofed = [&[0x54, 0x45, 1, 1][..], &request[4..8]].concat();
    bench.handle(&spoofed);
    assert!(bench.endpoint.poll_event().is_none());
    bench.peer = "[2001:db8::1]:49152".parse().unwrap();
    let wrong_token = [&[0x64, 0x45][..], &request[2..4], b"\0\0\0\0"].concat();
    bench.handle(&wrong_token);
    assert!(bench.endpoint.poll_event().is_none());
}

#[test]
fn a_reset_ends_a_request() {
    let mut bench = Bench::new();
    let request = bench.ask();
    bench.handle(&[0x70, 0, request[2], request[3]]);
    assert_eq!(bench.answered(), Err(RequestError::Reset));
    assert!(bench.wait(MAX_TRANSMIT_WAIT).is_empty());
}

#[test]
fn a_ping_and_a_stray_response_are_reset() {
    let mut bench = Bench::new();
    assert_eq!(bench.handle(&[0x40, 0, 1, 2]), [vec![0x70, 0, 1, 2]]);
    assert_eq!(bench.handle(&[0x41, 0x45, 1, 3, 9]), [vec![0x70, 0, 1, 3]]);
    assert!(bench.handle(&[0x51, 0x45, 1, 4, 9]).is_empty());
    let notification = [0x51, 0x45, 1, 5, 9, 0x61, 7];
    assert_eq!(bench.handle(&notification), [vec![0x70, 0, 1, 5]]);
    assert!(bench.handle(&[0x60, 0, 9, 9]).is_empty());
    assert!(bench.handle(&[0x70, 0, 9, 9]).is_empty());
    assert!(bench.is_quiet());
    assert!(bench.dropped("unmatched") >= 5);
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let mut bench = Bench::new();
    let answer = |bench: &mut Bench, datagram: &[u8]| {
        let sent = bench.handle(datagram);
        sent.first().map(|bytes| Code::from_byte(bytes[1]))
    };
    // Option 9 (OSCORE), a second Uri-Port, an If-None-Match with a value, a Block1 option of 4 bytes,
    // method 0.08, a short block, Block1 number 1 alone, SZX 7, Proxy-Scheme.
    let cases: [(&[u8], Code); 9] = [
        (b"\x40\x01\x00\x01\x90", Code::BAD_OPTION),
        (b"\x40\x01\x00\x08\x71\x01\x01\x02", Code::BAD_OPTION),
        (b"\x40\x01\x00\x09\x51\x01", Code::BAD_OPTION),
        (b"\x40\x01\x00\x0a\xd4\x0e\0\0\0\x06", Code::BAD_OPTION),
        (b"\x40\x08\x00\x02", Code::METHOD_NOT_ALLOWED),
        (
            b"\x40\x02\x00\x03\xd1\x0e\x0a\xff1234567890123456",
            Code::BAD_REQUEST,
        ),
        (
            b"\x40\x02\x00\x04\xd1\x0e\x10\xff1",
            Code::REQUEST_ENTITY_INCOMPLETE,
        ),
        (b"\x40\x01\x00\x05\xd1\x0a\x07", Code::BAD_REQUEST),
        (
            b"\x40\x01\x00\x06\xd4\x1acoap",
            Code::PROXYING_NOT_SUPPORTED,
        ),
    ];
    for (datagram, code) in cases {
        assert_eq!(answer(&mut bench, datagram), Some(code), "{datagram:x?}");
    }
    assert_eq!(
        answer(&mut bench, b"\x50\x01\x00\x07\x90"),
        None,
        "NON is not answered"
    );
    assert!(bench.endpoint.poll_event().is_none());
}

#[test]
fn the_single_datagrams_that_end_other_servers_do_nothing_here() {
    let mut bench = Bench::new();
    // 1300 bytes of options; a query of 1129 bytes with Block1; a packet from port 0.
    let options = [b"\x40\x01\x00\x01\xbe\x04\x07".to_vec(), vec![b'x'; 1300]].concat();
    let sent = bench.handle(&options);
    assert_eq!(sent[0][1], Code::BAD_OPTION.byte(), "no path is so long");
    let query = [
        b"\x40\x02\x00\x02\xde\x02\x03\x5c".to_vec(),
        vec![b'q'; 1129],
        vec![0xc1, 0x06],
    ];
    let sent = bench.handle(&query.concat());
    assert_eq!(sent[0][1], Code::BAD_OPTION.byte());
    // Five arguments of 255 bytes are as long together, and allowed.
    let argument = |first: u8| [vec![first, 242], vec![b'q'; 255]].concat();
    let mut query = [b"\x40\x02\x00\x03".to_vec(), argument(0xdd)].concat();
    query.splice(5..6, [2, 242]);
    for _ in 0..4 {
        query.extend(argument(0x0d));
    }
    query.extend([0xc1, 0x06]);
    assert!(bench.handle(&query).is_empty());
    bench.asked();
    bench.peer.set_port(0);
    assert!(bench.handle(POST).is_empty());
    assert_eq!(bench.dropped("port_zero"), 1);
    bench.peer.set_port(5683);
    bench.handle(POST);
    bench.asked();
}

#[test]
fn a_request_that_comes_back_ends_as_a_loop() {
    let mut bench = Bench::new();
    let request = bench.ask();
    bench.handle(&request);
    assert_eq!(bench.answered(), Err(RequestError::Looped));
    assert!(bench.endpoint.poll_event().is_none(), "and is not served");
}

#[test]
fn memory_for_duplicates_is_bounded() {
    let limits = Limits {
        max_seen: 100,
        max_seen_per_peer: 8,
        ..Limits::default()
    };
    let mut bench = Bench::with(limits);
    for mid in 0..10_000_u16 {
        bench.peer.set_port(1 + mid % 50);
        let [high, low] = mid.to_be_bytes();
        bench.handle(&[0x50, 2, high, low]);
        let (exchange, _) = bench.asked();
        bench
            .endpoint
            .respond(exchange, Response::new(Code::CHANGED), bench.now);
        bench.sent();
        bench.now += Duration::from_millis(1);
    }
    assert!(bench.endpoint.layer.seen() <= 100);
    bench.wait(EXCHANGE_LIFETIME * 2);
    bench.wait(EXCHANGE_LIFETIME);
    assert_eq!(bench.endpoint.layer.seen(), 0);
    assert_eq!(
        bench.endpoint.poll_timeout(),
        None,
        "nothing is left behind"
    );
}

#[test]
fn too_many_open_requests_are_told_to_come_back() {
    let limits = Limits {
        max_exchanges: 1,
        ..Limits::default()
    };
    let mut bench = Bench::with(limits);
    bench.handle(POST);
    let sent = bench.handle(b"\x40\x02\x00\x02\xb6server").remove(0);
    assert_eq!(Code::from_byte(sent[1]), Code::SERVICE_UNAVAILABLE);
}

#[test]
fn a_peer_gets_one_confirmable_message_at_a_time() {
    let mut bench = Bench::with(Limits {
        max_backlog: 1,
        ..Limits::default()
    });
    let first = bench.ask();
    let get = || Request::new(Method::Get, "b");
    let second = bench
        .endpoint
        .request(bench.peer, get(), MAX_TRANSMIT_WAIT, bench.now)
        .unwrap();
    let third = bench
        .endpoint
        .request(bench.peer, get(), MAX_TRANSMIT_WAIT, bench.now);
    assert_eq!(third, Err(RequestError::Busy));
    assert!(bench.sent().is_empty());
    let sent = bench.handle(&[0x60, 0, first[2], first[3]]);
    assert_eq!(sent.len(), 1, "the acknowledgement makes room for the next");
    bench.endpoint.cancel(second, bench.now);
    assert!(bench.wait(Duration::from_secs(5)).is_empty());
}
