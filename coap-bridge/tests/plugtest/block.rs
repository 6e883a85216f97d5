//! `TD_COAP_BLOCK_*`: RFC 7959.

use coap_bridge::endpoint::options::{format, number};
use coap_bridge::endpoint::{Code, Method, Request};
use serde_json::json;

use crate::client::{Client, get, text};
use crate::relay::{Relay, Seen};
use crate::{Ours, aiocoap, libcoap};

/// A text that takes several blocks of any size.
fn long() -> String {
    (0..300).map(|n| format!("{n:04} ")).collect()
}

/// The blocks of a body, as they were sent in one direction.
#[track_caller]
fn check_blocks(seen: &[Seen], number: u16, szx: u32, body: &str) {
    let size = 16 << szx;
    let mut whole = String::new();
    for message in seen {
        let (num, more, actual) = message.block(number).unwrap();
        assert_eq!(actual, szx, "{message:?}");
        assert_eq!(
            num as usize * size,
            whole.len(),
            "no gap, in order: {message:?}"
        );
        if more {
            assert_eq!(message.payload.len(), size, "{message:?}");
        }
        whole += &message.payload;
        assert_eq!(more, whole.len() < body.len(), "{message:?}");
    }
    assert_eq!(whole, body);
}

/// The messages like this, each once.
fn all(relay: &Relay, like: impl Fn(&Seen) -> bool) -> Vec<Seen> {
    let mut seen = relay.seen();
    seen.retain(like);
    seen.dedup_by_key(|seen| seen.mid);
    seen
}

/// A large body was read in blocks of this size.
#[track_caller]
fn check_read(relay: &Relay, szx: u32, body: &str) {
    let responses = all(relay, |seen| seen.code == "2.05");
    assert!(responses.len() > 2);
    check_blocks(&responses, number::BLOCK2, szx, body);
    let requests = all(relay, Seen::is_request);
    assert_eq!(requests.len(), responses.len());
    for (request, response) in requests.iter().zip(&responses).skip(1) {
        let (num, more, size) = request.block(number::BLOCK2).unwrap();
        assert!(!more);
        assert_eq!((num, size), {
            let (num, _, size) = response.block(number::BLOCK2).unwrap();
            (num, size)
        });
    }
}

/// A large body was written in blocks, to the end with this code.
#[track_caller]
fn check_written(relay: &Relay, szx: u32, body: &str, end: &str) -> Seen {
    let requests = all(relay, |seen| {
        seen.is_request() && seen.block(number::BLOCK1).is_some()
    });
    assert!(requests.len() > 2);
    check_blocks(&requests, number::BLOCK1, szx, body);
    let responses = all(relay, |seen| {
        seen.is_response() && seen.block(number::BLOCK1).is_some()
    });
    for (request, response) in requests.iter().zip(&responses) {
        let (num, more, _) = request.block(number::BLOCK1).unwrap();
        let (answered, _, size) = response.block(number::BLOCK1).unwrap();
        assert_eq!((num, size), (answered, szx));
        assert_eq!(response.code, if more { "2.31" } else { end });
    }
    responses.last().unwrap().clone()
}

fn large(server: &Ours) -> String {
    aiocoap::ask(server.address, "GET", "large", "", json!({}))["payload"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn td_coap_block_01_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let shown = libcoap::ask(relay.address, "large", &["-b", "32"]);
    let request = relay.wait(0, "request", Seen::is_request);
    assert_eq!(request.block(number::BLOCK2), Some((0, false, 1)));
    check_read(&relay, 1, &large(&server));
    assert_eq!(shown, large(&server).trim());
}

#[test]
fn td_coap_block_01_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let response = Client::of(relay.address).ask(get("large").with_block_size(2));
    let request = relay.wait(0, "request", Seen::is_request);
    assert_eq!(request.block(number::BLOCK2), Some((0, false, 2)));
    check_read(&relay, 2, &text(&response));
    assert!(text(&response).ends_with("line 40 of forty in a large text\n"));
}

#[test]
fn td_coap_block_02_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let shown = libcoap::ask(relay.address, "large", &[]);
    let request = relay.wait(0, "request", Seen::is_request);
    assert_eq!(request.block(number::BLOCK2), None);
    check_read(&relay, 2, &large(&server));
    assert_eq!(shown, large(&server).trim());
}

#[test]
fn td_coap_block_02_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let response = Client::of(relay.address).ask(get("obs-large"));
    let request = relay.wait(0, "request", Seen::is_request);
    assert_eq!(request.block(number::BLOCK2), None);
    let responses = all(&relay, |seen| seen.code == "2.05");
    check_blocks(&responses, number::BLOCK2, 6, &text(&response));
}

#[test]
fn td_coap_block_03_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let body = long();
    libcoap::ask(
        relay.address,
        "large-update",
        &["-m", "put", "-t", "0", "-b", "64", "-e", &body],
    );
    check_written(&relay, 2, &body, "2.04");
    let shown = libcoap::ask(server.address, "large-update", &[]);
    assert_eq!(shown, body.trim());
}

/// aiocoap sends blocks of 1024 bytes; our smaller wish counts from the second on.
#[test]
fn td_coap_block_03_server_aiocoap() {
    let server = Ours::start();
    let body = long().repeat(2);
    let written = aiocoap::ask(server.address, "PUT", "large-update", &body, json!({}));
    assert_eq!(written["code"], "2.04");
    let read = aiocoap::ask(server.address, "GET", "large-update", "", json!({}));
    assert_eq!(read["payload"], body);
}

#[test]
fn td_coap_block_03_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    let put = Request::new(Method::Put, "large-update").with_format(format::TEXT);
    let response = client.ask(put.with_payload(long()));
    assert_eq!(response.code, Code::CHANGED);
    check_written(&relay, 2, &long(), "2.04");
    assert_eq!(text(&client.ask(get("large-update"))), long());
}

#[test]
fn td_coap_block_03_client_libcoap() {
    let server = libcoap::Server::start(&[]);
    let mut client = Client::of(server.address);
    let put = Request::new(Method::Put, "example_data").with_format(format::TEXT);
    let response = client.ask(put.with_payload(long()));
    assert!(response.code.is_success());
    assert_eq!(text(&client.ask(get("example_data"))), long());
}

#[test]
fn td_coap_block_04_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let body = long();
    libcoap::ask(
        relay.address,
        "large-create",
        &["-m", "post", "-t", "0", "-b", "64", "-e", &body],
    );
    let last = check_written(&relay, 2, &body, "2.01");
    let location = last.texts(number::LOCATION_PATH);
    assert_eq!((location.len(), location[0].as_str()), (2, "large-create"));
    let shown = libcoap::ask(server.address, &location.join("/"), &[]);
    assert_eq!(shown, body.trim());
}

#[test]
fn td_coap_block_04_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    let post = Request::new(Method::Post, "large-create").with_format(format::TEXT);
    let response = client.ask(post.with_payload(long()));
    check_written(&relay, 2, &long(), "2.01");
    let created = get(&response.location().unwrap());
    assert_eq!(text(&client.ask(created)), long());
}

/// The answer is read with the same method, without payload and Block1.
#[track_caller]
fn check_two_ways(relay: &Relay, szx: u32, answer: &str) {
    let responses = all(relay, |seen| seen.code == "2.04");
    check_blocks(&responses, number::BLOCK2, szx, answer);
    let requests = all(relay, |seen| {
        seen.is_request() && seen.block(number::BLOCK2).is_some_and(|(num, ..)| num > 0)
    });
    assert_eq!(requests.len(), responses.len() - 1);
    for request in requests {
        assert_eq!(
            (request.code.as_str(), request.payload.as_str()),
            ("0.02", "")
        );
        assert_eq!(request.option(number::BLOCK1), None);
    }
}

/// aiocoap's client; libcoap's asks for the rest of an answer to POST with GET.
#[test]
fn td_coap_block_05_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let body = long().repeat(2).replace(' ', "x");
    let answer = aiocoap::ask(relay.address, "POST", "large-post", &body, json!({}));
    assert_eq!(answer["payload"], body.to_uppercase());
    check_two_ways(&relay, 2, &body.to_uppercase());
}

#[test]
fn td_coap_block_05_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let body = long().replace(' ', "x");
    let post = Request::new(Method::Post, "large-post").with_format(format::TEXT);
    let response = Client::of(relay.address).ask(post.with_payload(body.clone()));
    assert_eq!(text(&response), body.to_uppercase());
    check_written(&relay, 2, &body, "2.04");
    check_two_ways(&relay, 6, &body.to_uppercase());
}

#[test]
fn td_coap_block_06_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let shown = libcoap::ask(relay.address, "large", &["-b", "16"]);
    check_read(&relay, 0, &large(&server));
    assert_eq!(shown, large(&server).trim());
}

#[test]
fn td_coap_block_06_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let response = Client::of(relay.address).ask(get("large").with_block_size(0));
    check_read(&relay, 0, &text(&response));
}

#[test]
fn td_coap_block_06_client_libcoap() {
    let server = libcoap::Server::start(&[]);
    let mut client = Client::of(server.address);
    let put = Request::new(Method::Put, "example_data").with_payload(long());
    client.ask(put);
    let relay = Relay::to(server.address);
    let response = Client::of(relay.address).ask(get("example_data").with_block_size(0));
    assert_eq!(text(&response), long());
    check_read(&relay, 0, &long());
}
