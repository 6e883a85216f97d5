//! What the endpoint does for peers that ask it: bodies in blocks, observers, forged addresses.

use std::time::Duration;

use bytes::Bytes;

use super::bench::Bench;
use super::link::{Pair, Weather};
use crate::endpoint::codec::{Message, Token, Type};
use crate::endpoint::options::{Block, Options, format, number};
use crate::endpoint::parameters::EXCHANGE_LIFETIME;
use crate::endpoint::{Code, Event, Limits, Method, ObserverId, Request, RequestError, Response};

fn body(len: usize) -> Bytes {
    (0..len).map(|n| b'a' + (n % 23) as u8).collect()
}

fn blocks(szx: u8) -> Limits {
    Limits {
        szx,
        ..Limits::default()
    }
}

/// Whoever asks may get any answer.
fn open() -> Limits {
    Limits {
        amplification: None,
        ..Limits::default()
    }
}

fn message(kind: Type, method: Method, mid: u16, token: u8, path: &str) -> Message {
    Message {
        kind,
        code: method.code(),
        mid,
        token: Token::new(&[token]).unwrap(),
        options: Request::new(method, path).options,
        payload: Bytes::new(),
    }
}

fn block(mut message: Message, number: u16, num: u32, more: bool, len: usize) -> Message {
    let szx = 0;
    Block { num, more, szx }.write(&mut message.options, number);
    message.payload = body(len);
    message
}

impl Bench {
    /// Sends a message; gives what comes back at once.
    fn tell(&mut self, message: &Message) -> Vec<Message> {
        let sent = self.handle(&message.encode());
        let decoded = sent.iter().map(|bytes| Message::decode(bytes).unwrap());
        decoded.collect()
    }

    fn tell_code(&mut self, message: &Message) -> Option<Code> {
        Some(self.tell(message).first()?.code)
    }

    /// Answers what was asked.
    fn answer(&mut self, response: Response) -> Message {
        let (exchange, _) = self.asked();
        self.endpoint.respond(exchange, response, self.now);
        Message::decode(&self.sent()[0]).unwrap()
    }

    /// Registers as an observer of what was asked.
    fn observe(&mut self, token: u8, mid: u16) -> Option<ObserverId> {
        let mut get = message(Type::Con, Method::Get, mid, token, "obs");
        get.options.add_uint(number::OBSERVE, 0);
        assert!(self.tell(&get).is_empty());
        let (exchange, _) = self.asked();
        let response = Response::content(format::TEXT, "0");
        let observer = self.endpoint.respond_observed(exchange, response, self.now);
        let answer = Message::decode(&self.sent()[0]).unwrap();
        let registered = answer.options.uint(number::OBSERVE).is_some();
        assert_eq!(registered, observer.is_some());
        observer
    }

    fn notify(&mut self, observer: ObserverId, text: &'static str, confirmable: bool) {
        let response = Response::content(format::TEXT, text);
        self.endpoint
            .notify(observer, response, confirmable, self.now);
    }

    fn next(&mut self) -> Message {
        Message::decode(&self.sent()[0]).unwrap()
    }
}

#[test]
fn a_large_request_is_put_together_over_a_bad_link() {
    let weather = Weather {
        loss: 0.1,
        doubling: 0.2,
        max_delay: Duration::from_millis(300),
        max_losses: u32::MAX,
    };
    for seed in 0..20 {
        // Each has its own wish for the size of blocks; the smaller one counts.
        let (client, server) = if seed % 2 == 0 { (6, 2) } else { (1, 6) };
        let mut pair = Pair::with(seed, weather, blocks(client), blocks(server));
        let mut executed = 0;
        let request = Request::new(Method::Put, "js").with_payload(body(1500));
        let event = pair.exchange(request, |request| {
            executed += 1;
            assert_eq!(request.payload, body(1500), "seed {seed}");
            assert_eq!(request.options.first(number::BLOCK1), None);
            Response::new(Code::CHANGED)
        });
        let Event::Response { result, .. } = event else {
            panic!("{event:?}");
        };
        // One of some 25 exchanges may be lost for good.
        match result {
            Ok(response) => assert_eq!(response.code, Code::CHANGED, "seed {seed}"),
            Err(error) => assert_eq!(error, RequestError::Timeout),
        }
        assert!(executed <= 1, "seed {seed}");
    }
}

#[test]
fn a_large_request_with_a_large_answer_is_carried_out_once() {
    let mut pair = Pair::with(3, Weather::FINE, blocks(1), open());
    let mut executed = 0;
    let request = Request::new(Method::Post, "large-post").with_payload(body(300));
    let event = pair.exchange(request, |request| {
        executed += 1;
        Response::content(format::TEXT, [&request.payload[..], b"!"].concat())
    });
    let Event::Response { result, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!(result.unwrap().payload, [&body(300)[..], b"!"].concat());
    assert_eq!(executed, 1);
}

#[test]
fn blocks_of_a_request_that_do_not_fit_are_refused() {
    let mut bench = Bench::new();
    let put = |mid, num, more, len| {
        let put = message(Type::Con, Method::Put, mid, 1, "a");
        block(put, number::BLOCK1, num, more, len)
    };
    let cases = [
        (put(1, 1, true, 16), Code::REQUEST_ENTITY_INCOMPLETE),
        (put(2, 0, true, 16), Code::CONTINUE),
        (put(3, 2, true, 16), Code::REQUEST_ENTITY_INCOMPLETE),
        (put(4, 1, true, 16), Code::REQUEST_ENTITY_INCOMPLETE),
        (put(5, 0, true, 16), Code::CONTINUE),
        (put(6, 1, true, 15), Code::BAD_REQUEST),
        (put(7, 1, false, 1), Code::REQUEST_ENTITY_INCOMPLETE),
        (put(8, 0, true, 16), Code::CONTINUE),
        (put(9, 0, true, 16), Code::CONTINUE),
        (put(10, 1, true, 16), Code::CONTINUE),
    ];
    for (message, code) in cases {
        let mid = message.mid;
        assert_eq!(bench.tell_code(&message), Some(code), "mid {mid}");
    }
    // The same block under another mid is the client's own repetition.
    assert_eq!(bench.tell_code(&put(11, 1, true, 16)), Some(Code::CONTINUE));
    assert!(bench.tell(&put(12, 2, false, 3)).is_empty());
    let (_, request) = bench.asked();
    assert_eq!(request.payload, [body(16), body(16), body(3)].concat());
}

#[test]
fn a_body_of_another_query_or_peer_is_another_body() {
    let mut bench = Bench::new();
    let put = |mid, path, num, more| {
        let put = message(Type::Con, Method::Put, mid, 1, path);
        block(put, number::BLOCK1, num, more, 16)
    };
    bench.tell(&put(1, "a?q=1", 0, true));
    let other = bench.tell_code(&put(2, "a?q=2", 1, false));
    assert_eq!(other, Some(Code::REQUEST_ENTITY_INCOMPLETE));
    bench.peer.set_port(7);
    let other = bench.tell_code(&put(3, "a?q=1", 1, false));
    assert_eq!(other, Some(Code::REQUEST_ENTITY_INCOMPLETE));
    bench.peer.set_port(49152);
    assert!(bench.tell(&put(4, "a?q=1", 1, false)).is_empty());
    bench.asked();
}

#[test]
fn bodies_are_bounded_in_length_number_and_time() {
    let limits = Limits {
        max_body: 40,
        ..Limits::default()
    };
    let mut bench = Bench::with(limits);
    let put = |mid, path: &str, num, more| {
        let put = message(Type::Con, Method::Put, mid, 1, path);
        block(put, number::BLOCK1, num, more, 16)
    };
    let mut announced = put(1, "a", 0, true);
    announced.options.add_uint(number::SIZE1, 41);
    let answer = bench.tell(&announced).remove(0);
    assert_eq!(answer.code, Code::REQUEST_ENTITY_TOO_LARGE);
    assert_eq!(answer.options.uint(number::SIZE1), Some(40));
    for num in 0..2 {
        let code = bench.tell_code(&put(2 + num, "a", num.into(), true));
        assert_eq!(code, Some(Code::CONTINUE));
    }
    let code = bench.tell_code(&put(4, "a", 2, false));
    assert_eq!(code, Some(Code::REQUEST_ENTITY_TOO_LARGE));

    for mid in 10..2000_u16 {
        bench.peer.set_port(1 + mid % 500);
        bench.tell(&put(mid, &format!("{mid}"), 0, true));
        bench.now += Duration::from_millis(1);
    }
    assert_eq!(bench.endpoint.server.transfers.len(), 256);
    bench.peer.set_port(9999);
    for mid in 2000..2010_u16 {
        bench.tell(&put(mid, &format!("{mid}"), 0, true));
    }
    let kept = (2000..2010_u16).filter(|mid| {
        let code = bench.tell_code(&put(mid + 100, &format!("{mid}"), 1, true));
        code == Some(Code::CONTINUE)
    });
    assert_eq!(kept.count(), 4, "one peer has only so many");
    bench.wait(EXCHANGE_LIFETIME);
    assert_eq!(bench.endpoint.server.transfers.len(), 0);
}

#[test]
fn the_rest_of_an_answer_is_never_asked_of_the_resource_again() {
    let mut bench = Bench::with(open());
    let post = message(Type::Con, Method::Post, 1, 1, "p");
    bench.tell(&block(post.clone(), number::BLOCK2, 0, false, 0));
    let first = bench.answer(Response::content(format::TEXT, body(40)));
    assert_eq!(first.payload, body(16));
    for (mid, num, len) in [(2, 1, 16), (3, 2, 8), (4, 1, 16)] {
        let mut rest = block(post.clone(), number::BLOCK2, num, false, 0);
        rest.mid = mid;
        let rest = bench.tell(&rest).remove(0);
        let start = num as usize * 16;
        assert_eq!(rest.payload, body(40).slice(start..start + len));
    }
    let mut lost = block(post, number::BLOCK2, 1, false, 0);
    lost.options.add(number::URI_QUERY, "other");
    lost.mid = 9;
    assert_eq!(
        bench.tell_code(&lost),
        Some(Code::REQUEST_ENTITY_INCOMPLETE)
    );
    assert!(bench.endpoint.poll_event().is_none());
}

#[test]
fn observers_are_told_one_thing_at_a_time_and_the_newest() {
    let mut bench = Bench::with(open());
    let observer = bench.observe(7, 1).unwrap();
    bench.notify(observer, "1", true);
    let first = bench.next();
    assert_eq!((first.kind, first.token.as_bytes()), (Type::Con, &[7][..]));
    bench.notify(observer, "2", true);
    bench.notify(observer, "3", true);
    assert!(bench.sent().is_empty(), "NSTART");
    let ack = Message::empty(Type::Ack, first.mid);
    let next = bench.tell(&ack).remove(0);
    assert_eq!(&next.payload[..], b"3");
    let sequence = |message: &Message| message.options.uint(number::OBSERVE).unwrap();
    assert!(sequence(&next) > sequence(&first));

    // What is sent again is what is (RFC 7641 section 4.5.2).
    bench.notify(observer, "4", true);
    let again = Message::decode(&bench.wait(Duration::from_secs(3))[0]).unwrap();
    assert_eq!(&again.payload[..], b"4");
    assert_ne!(again.mid, next.mid);
    assert!(bench.tell(&Message::empty(Type::Ack, again.mid)).is_empty());
    assert!(bench.wait(Duration::from_secs(100)).is_empty());
}

#[test]
fn observers_leave_when_they_say_so_or_are_silent() {
    let mut bench = Bench::with(open());
    let left = |bench: &mut Bench| match bench.endpoint.poll_event() {
        Some(Event::ObserverLeft { observer, .. }) => Some(observer),
        _ => None,
    };
    let first = bench.observe(1, 1).unwrap();
    bench.notify(first, "x", true);
    let sent = bench.next();
    bench.tell(&Message::empty(Type::Rst, sent.mid));
    assert_eq!(left(&mut bench), Some(first), "a Reset");

    let second = bench.observe(1, 2).unwrap();
    bench.notify(second, "x", false);
    let sent = bench.next();
    assert_eq!(sent.kind, Type::Non);
    bench.tell(&Message::empty(Type::Rst, sent.mid));
    assert_eq!(left(&mut bench), Some(second), "a Reset of a NON");

    let third = bench.observe(1, 3).unwrap();
    let mut get = message(Type::Con, Method::Get, 4, 1, "obs");
    get.options.add_uint(number::OBSERVE, 1);
    bench.tell(&get);
    assert_eq!(left(&mut bench), Some(third), "Observe: 1");
    let answer = bench.answer(Response::content(format::TEXT, "y"));
    assert_eq!(answer.options.first(number::OBSERVE), None);

    let fourth = bench.observe(1, 5).unwrap();
    bench.notify(fourth, "x", true);
    while let Some(at) = bench.endpoint.poll_timeout() {
        bench.now = at;
        bench.endpoint.handle_timeout(at);
        if let Some(observer) = left(&mut bench) {
            assert_eq!(observer, fourth, "no acknowledgement");
            break;
        }
    }
    bench.sent();
    bench.notify(fourth, "x", true);
    assert!(bench.sent().is_empty());

    let fifth = bench.observe(1, 6).unwrap();
    bench
        .endpoint
        .notify(fifth, Response::new(Code::NOT_FOUND), false, bench.now);
    let sent = bench.next();
    assert_eq!((sent.kind, sent.code), (Type::Con, Code::NOT_FOUND));
    assert_eq!(sent.options, Options::default(), "no Observe option");
    bench.notify(fifth, "x", true);
    assert!(bench.sent().is_empty());
}

#[test]
fn one_token_is_one_observation_and_a_peer_has_only_so_many() {
    let mut bench = Bench::with(open());
    let first = bench.observe(1, 1).unwrap();
    let second = bench.observe(1, 2).unwrap();
    assert_ne!(first, second);
    assert!(matches!(
        bench.endpoint.poll_event(),
        Some(Event::ObserverLeft { observer, .. }) if observer == first
    ));
    let taken = (2..40).filter(|token| bench.observe(*token, 100 + u16::from(*token)).is_some());
    assert_eq!(taken.count(), 15);
}

#[test]
fn a_large_answer_needs_an_address_that_is_not_forged() {
    let mut bench = Bench::new();
    let mut get = message(Type::Con, Method::Get, 1, 9, "large");
    bench.tell(&get);
    let long = Response::content(format::TEXT, body(500));
    let refused = bench.answer(long.clone());
    assert_eq!(refused.code, Code::UNAUTHORIZED);
    let echo = refused.options.first(number::ECHO).unwrap().to_vec();
    assert!(refused.encode().len() <= 3 * get.encode().len());

    get.mid = 2;
    get.options.add(number::ECHO, b"wrong!".as_slice());
    bench.tell(&get);
    assert_eq!(bench.answer(long.clone()).code, Code::UNAUTHORIZED);

    get.mid = 3;
    get.options.remove(number::ECHO);
    get.options.add(number::ECHO, echo);
    bench.tell(&get);
    assert_eq!(bench.answer(long.clone()).payload, body(500));
    get.mid = 4;
    get.options.remove(number::ECHO);
    bench.tell(&get);
    assert_eq!(bench.answer(long).payload, body(500), "known from now on");
}

#[test]
fn an_observer_shows_its_address_first() {
    let mut bench = Bench::new();
    let mut get = message(Type::Con, Method::Get, 1, 9, "obs");
    get.options.add_uint(number::OBSERVE, 0);
    let refused = bench.tell(&get).remove(0);
    assert_eq!(refused.code, Code::UNAUTHORIZED);
    get.mid = 2;
    let echo = refused.options.first(number::ECHO).unwrap();
    get.options.add(number::ECHO, echo);
    assert!(bench.tell(&get).is_empty());
    let (exchange, _) = bench.asked();
    let response = Response::content(format::TEXT, "0");
    let observer = bench
        .endpoint
        .respond_observed(exchange, response, bench.now);
    bench.sent();
    bench.notify(observer.unwrap(), "1", false);
    assert_eq!(bench.next().kind, Type::Non);
}

#[test]
fn no_answer_to_a_stranger_is_larger_than_three_requests() {
    let mut bench = Bench::new();
    let mut port = 1;
    for method in [
        Method::Get,
        Method::Fetch,
        Method::Post,
        Method::Put,
        Method::Delete,
    ] {
        for (path, kind) in [("", Type::Con), ("a", Type::Non), ("a/b?c=d", Type::Con)] {
            for code in [Code::CONTENT, Code::NOT_FOUND, Code::INTERNAL_SERVER_ERROR] {
                for len in [0, 5, 20, 2000] {
                    port += 1;
                    bench.peer.set_port(port);
                    let asked = message(kind, method, port, 1, path).encode();
                    bench.handle(&asked);
                    let (exchange, _) = bench.asked();
                    let response = Response::new(code).with_payload(body(len));
                    bench.endpoint.respond(exchange, response, bench.now);
                    for sent in bench.sent() {
                        assert!(
                            sent.len() <= 3 * asked.len(),
                            "{method:?} {path} {code} {len}"
                        );
                    }
                }
            }
        }
    }
    assert!(bench.dropped("unverified") < 50, "nearly all are answered");
}

#[test]
fn a_peer_that_has_answered_us_is_known() {
    let mut bench = Bench::new();
    let request = bench.ask();
    let answer = [&[0x64, 0x45][..], &request[2..8]].concat();
    bench.handle(&answer);
    bench.answered().unwrap();
    bench.tell(&message(Type::Con, Method::Get, 1, 9, "large"));
    let answer = bench.answer(Response::content(format::TEXT, body(500)));
    assert_eq!(answer.payload, body(500));
}

#[test]
fn a_server_that_wants_an_echo_gets_it() {
    let mut pair = Pair::new(5, Weather::FINE);
    let event = pair.exchange(Request::new(Method::Get, "a"), |_| {
        Response::content(format::TEXT, body(100))
    });
    let Event::Response { result, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!(result.unwrap().payload, body(100));
}

#[test]
fn conditions_are_checked_as_the_rfc_says() {
    let with = |number, value: &[u8]| Request::new(Method::Put, "a").with_option(number, value);
    let any = with(number::IF_MATCH, b"");
    assert!(any.conditions_hold(Some(b"1")) && !any.conditions_hold(None));
    let one = with(number::IF_MATCH, b"1").with_option(number::IF_MATCH, b"2".as_slice());
    assert!(one.conditions_hold(Some(b"2")) && !one.conditions_hold(Some(b"3")));
    let new = with(number::IF_NONE_MATCH, b"");
    assert!(new.conditions_hold(None) && !new.conditions_hold(Some(b"1")));
    assert!(Request::new(Method::Put, "a").conditions_hold(None));
    let known = with(number::ETAG, b"1");
    assert!(known.has_etag(b"1") && !known.has_etag(b"2"));
}
