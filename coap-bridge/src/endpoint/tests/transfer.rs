//! Block-wise transfer and observation between two endpoints.

use std::time::Duration;

use bytes::Bytes;

use super::link::{Pair, Weather};
use crate::endpoint::options::{Block, format, number};
use crate::endpoint::parameters::MAX_TRANSMIT_WAIT;
use crate::endpoint::{Code, Event, Limits, Method, Request, RequestError, Response};

fn body(len: usize) -> Bytes {
    (0..len)
        .map(|n| b'a' + (n % 23) as u8)
        .collect::<Vec<u8>>()
        .into()
}

fn small_blocks() -> Limits {
    Limits {
        szx: 2,
        ..Limits::default()
    }
}

#[track_caller]
fn result(event: Event) -> Result<Response, RequestError> {
    match event {
        Event::Response { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_large_response_comes_in_blocks_even_when_some_are_lost() {
    let weather = Weather {
        loss: 0.1,
        doubling: 0.2,
        max_delay: Duration::from_millis(300),
        max_losses: u32::MAX,
    };
    for seed in 0..20 {
        let mut pair = Pair::with(seed, weather, Limits::default(), small_blocks());
        let mut asked = 0;
        let event = pair.exchange(Request::new(Method::Get, ".well-known/core"), |_| {
            asked += 1;
            Response::content(format::LINK, body(1000))
        });
        let response = result(event).unwrap();
        assert_eq!(response.payload, body(1000), "seed {seed}");
        assert_eq!(response.format(), Some(format::LINK));
        assert_eq!(asked, 17, "64 bytes each, and first of all an Echo option");
    }
}

#[test]
fn a_body_over_the_cap_is_given_up() {
    let client = Limits {
        max_body: 500,
        ..Limits::default()
    };
    let mut pair = Pair::with(1, Weather::FINE, client, small_blocks());
    let event = pair.exchange(Request::new(Method::Get, "a"), |_| {
        Response::content(format::TEXT, body(501))
    });
    assert_eq!(result(event), Err(RequestError::TooLarge));
}

#[test]
fn a_representation_that_changes_is_read_anew() {
    let mut pair = Pair::with(1, Weather::FINE, Limits::default(), small_blocks());
    let mut asked = 0;
    let event = pair.exchange(Request::new(Method::Get, "a"), |_| {
        asked += 1;
        Response::content(format::TEXT, body(if asked <= 2 { 200 } else { 190 }))
    });
    assert_eq!(result(event).unwrap().payload, body(190));

    let mut version = 200;
    let event = pair.exchange(Request::new(Method::Get, "a"), |_| {
        version += 1;
        Response::content(format::TEXT, body(version))
    });
    assert_eq!(
        result(event),
        Err(RequestError::BrokenBlocks),
        "it never stands still"
    );
}

#[test]
fn blocks_that_do_not_fit_are_refused() {
    let block = |num, more, szx, len| {
        let mut response = Response::content(format::TEXT, body(len));
        Block { num, more, szx }.write(&mut response.options, number::BLOCK2);
        response
    };
    // A first block that is not the first; one that is too short; a gap; no end.
    for answers in [
        vec![block(1, true, 0, 16)],
        vec![block(0, true, 0, 15)],
        vec![block(0, true, 0, 16), block(2, false, 0, 4)],
        vec![block(0, true, 0, 16), block(0, true, 0, 16)],
    ] {
        let mut peer = super::raw::Peer::new(Limits::default());
        peer.endpoint
            .request(
                peer.addr,
                Request::new(Method::Get, "a"),
                MAX_TRANSMIT_WAIT,
                peer.now,
            )
            .unwrap();
        let mut answers = answers.into_iter();
        let event = peer.event(|_| answers.next().unwrap());
        assert_eq!(result(event), Err(RequestError::BrokenBlocks));
    }
}

/// A server that takes Block1 up to a size, as a peer of ours may.
struct Taker {
    body: Vec<u8>,
    szx: u8,
    refuse_whole: bool,
}

impl Taker {
    fn serve(&mut self, request: &Request) -> Response {
        let block = Block::read(&request.options, number::BLOCK1).unwrap();
        let mut refusal = Response::new(Code::REQUEST_ENTITY_TOO_LARGE);
        Block {
            num: 0,
            more: true,
            szx: self.szx,
        }
        .write(&mut refusal.options, number::BLOCK1);
        let Some(block) = block else {
            return if self.refuse_whole {
                refusal
            } else {
                Response::new(Code::CHANGED)
            };
        };
        if self.refuse_whole && block.szx > self.szx {
            return refusal;
        }
        assert_eq!(block.offset(), self.body.len());
        self.body.extend_from_slice(&request.payload);
        let code = if block.more {
            Code::CONTINUE
        } else {
            Code::CHANGED
        };
        let mut response = Response::new(code);
        Block {
            szx: self.szx.min(block.szx),
            ..block
        }
        .write(&mut response.options, number::BLOCK1);
        response
    }
}

/// Joins a client to a [`Taker`] by hand: our own endpoint does not take Block1.
fn upload(len: usize, mut taker: Taker) -> (Vec<u8>, Code) {
    let mut peer = super::raw::Peer::new(Limits::default());
    let request = Request::new(Method::Put, "js").with_payload(body(len));
    peer.endpoint
        .request(peer.addr, request, MAX_TRANSMIT_WAIT, peer.now)
        .unwrap();
    let event = peer.event(|request| taker.serve(request));
    (taker.body, result(event).unwrap().code)
}

#[test]
fn a_large_request_goes_out_in_blocks_of_the_size_the_peer_takes() {
    for (szx, refuse_whole) in [(6, false), (2, false), (2, true), (0, true)] {
        let taker = Taker {
            body: Vec::new(),
            szx,
            refuse_whole,
        };
        let (taken, code) = upload(3000, taker);
        assert_eq!(code, Code::CHANGED);
        assert_eq!(taken, body(3000), "szx {szx}");
    }
}

#[test]
fn a_whole_request_that_is_too_large_is_sent_again_in_blocks() {
    let taker = Taker {
        body: Vec::new(),
        szx: 1,
        refuse_whole: true,
    };
    assert_eq!(upload(100, taker).0, body(100));
}

#[test]
fn a_resource_is_observed_until_it_is_cancelled() {
    let mut peer = super::raw::Peer::new(Limits::default());
    let request = Request::new(Method::Get, "temp");
    let id = peer
        .endpoint
        .observe(peer.addr, request, MAX_TRANSMIT_WAIT, peer.now)
        .unwrap();
    let notification = |sequence, text: &'static str| {
        let mut response = Response::content(format::TEXT, text);
        response.options.add_uint(number::OBSERVE, sequence);
        response
    };
    let event = peer.event(|request| {
        assert_eq!(request.options.uint(number::OBSERVE), Some(0));
        notification(10, "21")
    });
    let Event::Response { observed: true, .. } = event else {
        panic!("{event:?}");
    };
    let token = peer.token.clone();
    let values = |peer: &mut super::raw::Peer| {
        std::iter::from_fn(|| peer.endpoint.poll_event())
            .map(|event| match event {
                Event::Notification { response, last, .. } => (response.payload, last),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    peer.notify(&token, &notification(12, "23"));
    peer.notify(&token, &notification(11, "22"));
    assert_eq!(
        values(&mut peer),
        [(Bytes::from("23"), false)],
        "22 is older"
    );
    assert_eq!((peer.asked(), peer.reset), (None, 0));
    peer.endpoint.cancel(id, peer.now);
    peer.notify(&token, &notification(13, "24"));
    assert!(values(&mut peer).is_empty());
    assert_eq!((peer.asked(), peer.reset), (None, 1), "the peer is told");
}

#[test]
fn a_renewal_keeps_the_token_and_an_error_ends_the_observation() {
    let mut peer = super::raw::Peer::new(Limits::default());
    let request = Request::new(Method::Get, "temp");
    let id = peer
        .endpoint
        .observe(peer.addr, request, MAX_TRANSMIT_WAIT, peer.now)
        .unwrap();
    let observed = |_: &Request| {
        let mut response = Response::content(format::TEXT, "1");
        response.options.add_uint(number::OBSERVE, 1);
        response
    };
    peer.event(observed);
    let token = peer.token.clone();
    peer.endpoint
        .renew(id, MAX_TRANSMIT_WAIT, peer.now)
        .unwrap();
    let event = peer.event(observed);
    assert!(matches!(event, Event::Response { observed: true, .. }));
    assert_eq!(peer.token, token);
    peer.notify(&token, &Response::new(Code::NOT_FOUND));
    let event = peer.endpoint.poll_event();
    assert!(matches!(
        event,
        Some(Event::Notification { last: true, .. })
    ));
    let renewed = peer.endpoint.renew(id, MAX_TRANSMIT_WAIT, peer.now);
    assert_eq!(
        renewed,
        Err(RequestError::Busy),
        "nothing is observed any more"
    );
}

#[test]
fn an_observation_that_has_gone_silent_is_renewed_by_itself() {
    let mut peer = super::raw::Peer::new(Limits::default());
    let request = Request::new(Method::Get, "temp");
    peer.endpoint
        .observe(peer.addr, request, MAX_TRANSMIT_WAIT, peer.now)
        .unwrap();
    let observed = |_: &Request| {
        let mut response = Response::content(format::TEXT, "1").with_max_age(20);
        response.options.add_uint(number::OBSERVE, 1);
        response
    };
    peer.event(observed);
    let token = peer.token.clone();
    for _ in 0..3 {
        peer.token.clear();
        let start = peer.now;
        peer.notify(&token, &observed(&Request::new(Method::Get, "temp")));
        peer.now = peer.endpoint.poll_timeout().unwrap();
        peer.endpoint.handle_timeout(peer.now);
        peer.event(observed);
        let silence = (peer.now - start).as_secs();
        assert!((25..=35).contains(&silence), "{silence} s");
        assert_eq!(peer.token, token);
    }
}

#[test]
fn a_renewal_that_fails_ends_the_observation() {
    let mut peer = super::raw::Peer::new(Limits::default());
    let request = Request::new(Method::Get, "temp");
    let id = peer
        .endpoint
        .observe(peer.addr, request, MAX_TRANSMIT_WAIT, peer.now)
        .unwrap();
    peer.event(|_| {
        let mut response = Response::content(format::TEXT, "1");
        response.options.add_uint(number::OBSERVE, 1);
        response
    });
    let patience = Duration::from_secs(1);
    peer.endpoint.renew(id, patience, peer.now).unwrap();
    peer.endpoint.handle_timeout(peer.now + patience);
    let event = peer.endpoint.poll_event();
    assert!(matches!(
        event,
        Some(Event::Response {
            observed: false,
            ..
        })
    ));
    let token = peer.token.clone();
    peer.notify(&token, &Response::content(format::TEXT, "2"));
    assert_eq!(peer.endpoint.poll_event(), None);
    while peer.asked().is_some() {}
    assert_eq!(
        peer.reset, 1,
        "the node is told that nobody listens any more"
    );
}

/// Of an observed representation, the first of two blocks to a request that begins or renews the
/// observation, and the second to one for that.
fn in_two_blocks(request: &Request) -> Response {
    let num = request.options.uint(number::BLOCK2).unwrap_or(0) >> 4;
    let half = body(32).split_off(16 * usize::from(num != 0));
    let mut response = Response::content(format::TEXT, half.slice(..16)).with_max_age(1);
    let more = num == 0;
    let block = Block { num, more, szx: 0 };
    block.write(&mut response.options, number::BLOCK2);
    if more {
        response.options.add_uint(number::OBSERVE, 1);
    }
    response
}

#[test]
fn nothing_is_renewed_before_the_rest_of_the_first_representation_has_come() {
    let mut peer = super::raw::Peer::new(Limits::default());
    let request = Request::new(Method::Get, "log");
    let id = peer
        .endpoint
        .observe(peer.addr, request, MAX_TRANSMIT_WAIT, peer.now)
        .unwrap();
    let register = peer.asked().unwrap();
    peer.answer(&register, in_two_blocks);
    let rest = peer.asked().unwrap();
    // Max-Age is long over; each time the same is asked again.
    let end = peer.now + Duration::from_secs(40);
    while let Some(at) = peer.endpoint.poll_timeout().filter(|at| *at < end) {
        peer.now = at;
        peer.endpoint.handle_timeout(at);
        while let Some(again) = peer.asked() {
            assert_eq!(again, rest);
        }
    }
    let renewed = peer.endpoint.renew(id, MAX_TRANSMIT_WAIT, peer.now);
    assert_eq!(renewed, Err(RequestError::Busy));
    peer.answer(&rest, in_two_blocks);
    let event = peer.endpoint.poll_event();
    assert!(matches!(
        event,
        Some(Event::Response { result: Ok(ref whole), observed: true, .. }) if whole.payload == body(32)
    ));
    let next = (peer.endpoint.poll_event(), peer.asked());
    assert_eq!(next, (None, None), "it ends once: no renewal is on its way");
}

#[test]
fn a_notification_whose_rest_is_gone_does_not_end_the_observation() {
    let mut peer = super::raw::Peer::new(Limits::default());
    let request = Request::new(Method::Get, "log");
    peer.endpoint
        .observe(peer.addr, request.clone(), MAX_TRANSMIT_WAIT, peer.now)
        .unwrap();
    let register = peer.asked().unwrap();
    peer.answer(&register, in_two_blocks);
    let token = peer.token.clone();
    peer.event(in_two_blocks);
    let notification = |sequence| {
        let mut response = in_two_blocks(&request);
        response.options.set_uint(number::OBSERVE, sequence);
        response
    };
    peer.notify(&token, &notification(2));
    let rest = peer.asked().unwrap();
    peer.answer(&rest, |_| Response::new(Code::NOT_FOUND));
    assert_eq!(peer.endpoint.poll_event(), None);
    peer.notify(&token, &notification(3));
    let event = peer.event(in_two_blocks);
    assert!(matches!(
        event,
        Event::Notification { response, last: false, .. } if response.payload == body(32)
    ));
}
