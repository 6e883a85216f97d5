//! What goes wrong in coap-lite 0.13.3, and in the `coap` crate on top of it, does not here. Of the
//! first we use the codec only.
//!
//! Elsewhere: blocks out of order and without bound (`serve`), unterminated quotes
//! (`crate::link_format`), versions, markers and empty messages that are none (`super::super::codec`),
//! the failed DTLS handshake that ends a listener (`crate::dtls`).

use super::bench::Bench;
use crate::endpoint::codec::{Message, Token, Type};
use crate::endpoint::options::{Block, Options, format, number};
use crate::endpoint::{Code, Limits, Method, Request, Response};

fn get(mid: u16, path: &str) -> Message {
    Message {
        kind: Type::Con,
        code: Method::Get.code(),
        mid,
        token: Token::new(&[9]).unwrap(),
        options: Request::new(Method::Get, path).options,
        payload: bytes::Bytes::new(),
    }
}

fn open() -> Limits {
    Limits {
        amplification: None,
        szx: 0,
        ..Limits::default()
    }
}

/// `BlockHandler` panics on more than 1280 bytes of header and options.
#[test]
fn many_options_do_not_panic() {
    let mut bench = Bench::with(open());
    let mut message = get(1, "");
    for _ in 0..20 {
        message.options.add(number::URI_QUERY, vec![b'q'; 255]);
    }
    bench.handle(&message.encode());
    let (exchange, request) = bench.asked();
    assert_eq!(request.queries().count(), 20);
    let long = Response::content(format::TEXT, vec![b'x'; 100]);
    bench.endpoint.respond(exchange, long, bench.now);
    let answer = Message::decode(&bench.sent()[0]).unwrap();
    assert_eq!(answer.payload.len(), 16);
}

/// `BlockHandler` divides by zero where options leave no room for a block.
#[test]
fn a_long_query_with_block1_does_not_divide_by_zero() {
    let mut bench = Bench::with(open());
    let mut message = get(1, "");
    message.code = Method::Put.code();
    for length in [255, 255, 255, 255, 109] {
        message.options.add(number::URI_QUERY, vec![b'q'; length]);
    }
    message.options.add(number::BLOCK1, [6]);
    bench.handle(&message.encode());
    bench.asked();
}

/// `BlockHandler` answers `?q=2` with what `?q=1` was answered.
#[test]
fn a_block_of_one_query_is_not_given_for_another() {
    let mut bench = Bench::with(open());
    for (mid, query, num) in [(1, "q=1", 0), (2, "q=2", 0), (3, "q=1", 1), (4, "q=2", 1)] {
        let mut message = get(mid, &format!("a?{query}"));
        let block = Block {
            num,
            more: false,
            szx: 0,
        };
        block.write(&mut message.options, number::BLOCK2);
        bench.handle(&message.encode());
        let (exchange, request) = bench.asked();
        let text = request.query("q").unwrap().repeat(40);
        let response = Response::content(format::TEXT, text.clone());
        bench.endpoint.respond(exchange, response, bench.now);
        let answer = Message::decode(&bench.sent()[0]).unwrap();
        assert_eq!(answer.payload, text.as_bytes()[..16]);
    }
}

/// `BlockValue` cuts block numbers to 16 bits (5000 becomes 904) and fails to read three bytes.
#[test]
fn a_block_number_is_not_cut() {
    for num in [904, 4095, 4096, 5000, 65_536, Block::MAX_NUM] {
        let mut options = Options::default();
        let block = Block {
            num,
            more: false,
            szx: 6,
        };
        block.write(&mut options, number::BLOCK2);
        assert_eq!(Block::read(&options, number::BLOCK2), Ok(Some(block)));
    }
}

/// Reserved codes are taken for messages; the `coap` crate answers them.
#[test]
fn reserved_codes_are_rejected_or_ignored() {
    let mut bench = Bench::new();
    for code in [0x20, 0x3f, 0x60, 0x7f, 0xc0, 0xe0, 0xff] {
        assert_eq!(bench.handle(&[0x40, code, 1, code]), [[0x70, 0, 1, code]]);
        for kind in [0x50, 0x60, 0x70] {
            assert!(bench.handle(&[kind, code, 2, code]).is_empty());
        }
    }
    assert!(bench.endpoint.poll_event().is_none());
    assert_eq!(bench.dropped("reserved_code"), 28);
}

/// `Subject` has one mid for all observers, and sequence numbers of four bytes after 2^24.
#[test]
fn observers_have_their_own_mids_and_sequence_numbers_have_24_bits() {
    let mut bench = Bench::with(open());
    let mut observers = Vec::new();
    for mid in [1, 2] {
        let mut message = get(mid, "obs");
        message.token = Token::new(&[mid as u8]).unwrap();
        message.options.add_uint(number::OBSERVE, 0);
        bench.handle(&message.encode());
        let (exchange, _) = bench.asked();
        let response = Response::content(format::TEXT, "0");
        let observer = bench
            .endpoint
            .respond_observed(exchange, response, bench.now);
        observers.push(observer.unwrap());
    }
    bench.sent();
    bench.endpoint.observers.skip_sequences((1 << 24) - 2);
    let mut mids = Vec::new();
    for expected in [0x00FF_FFFF, 0, 1] {
        for observer in &observers {
            let response = Response::content(format::TEXT, "1");
            bench.endpoint.notify(*observer, response, false, bench.now);
            let sent = Message::decode(&bench.sent()[0]).unwrap();
            assert_eq!(sent.options.uint(number::OBSERVE), Some(expected));
            assert!(sent.options.first(number::OBSERVE).unwrap().len() <= 3);
            mids.push(sent.mid);
        }
    }
    mids.dedup();
    assert_eq!(mids.len(), 6);
}

/// Getters hide what they do not know, join segments that hold slashes, and skip those that are not
/// UTF-8; `set_token` takes nine bytes, and panics at sixteen; `set_path("/")` adds an empty segment.
#[test]
fn nothing_is_hidden_or_joined() {
    let unknown = Response::content(60_000, "x");
    assert_eq!(unknown.format(), Some(60_000));
    let mut joined = Request::new(Method::Get, "a/b");
    assert_eq!(joined.path().as_deref(), Some("a/b"));
    joined.options.add(number::URI_PATH, "c/d");
    assert_eq!(joined.path(), None);
    let not_text = Request::new(Method::Get, "a").with_option(number::URI_PATH, [0xff]);
    assert_eq!(not_text.path(), None);
    assert!(Token::new(&[0; 8]).is_some());
    assert!(Token::new(&[0; 9]).is_none() && Token::new(&[0; 16]).is_none());
    let root = Request::new(Method::Get, "/");
    assert_eq!(root.options.all(number::URI_PATH).count(), 0);
}

/// The `coap` crate's client takes any answer with the right 16 bits of token, from anyone.
#[test]
fn tokens_have_32_bits_and_belong_to_a_peer() {
    let mut bench = Bench::new();
    let request = bench.ask();
    assert_eq!(request[0] & 15, 4);
    let answer = [&[0x54, 0x45, 9, 9][..], &request[4..8]].concat();
    bench.peer = "[2001:db8::66]:5683".parse().unwrap();
    bench.handle(&answer);
    assert!(bench.endpoint.poll_event().is_none());
    bench.peer = "[2001:db8::1]:49152".parse().unwrap();
    bench.handle(&answer);
    assert_eq!(bench.answered().unwrap().code, Code::CONTENT);
}
