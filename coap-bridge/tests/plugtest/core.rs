//! `TD_COAP_CORE_*`: RFC 7252.

use std::net::UdpSocket;
use std::time::Duration;

use coap_bridge::endpoint::options::{format, number};
use coap_bridge::endpoint::{Code, Event, Method, Request};
use serde_json::{Value, json};

use crate::client::{Client, get, text};
use crate::relay::{ACK, CON, NON, RST, Relay, Seen};
use crate::{Ours, aiocoap, libcoap, now, server};

/// One exchange: the request, and the response to it.
#[track_caller]
fn exchange(relay: &Relay, method: &str) -> (Seen, Seen) {
    let request = relay.only(|seen| seen.code == method);
    let response = relay.only(|seen| seen.is_response() && seen.token == request.token);
    (request, response)
}

/// A transaction that is answered in one message: piggybacked to CON, in a NON to NON.
#[track_caller]
fn check_simple(relay: &Relay, kind: u8, method: &str, codes: &[&str]) {
    let (request, response) = exchange(relay, method);
    assert_eq!(request.kind, kind);
    assert!(codes.contains(&response.code.as_str()), "{response:?}");
    match kind {
        CON => assert_eq!((response.kind, response.mid), (ACK, request.mid)),
        _ => assert_eq!(response.kind, NON),
    }
    let has_format = response.option(number::CONTENT_FORMAT).is_some();
    assert_eq!(has_format, !response.payload.is_empty(), "{response:?}");
}

/// `coap-client` does one thing to `/test`.
#[track_caller]
fn server_simple(arguments: &[&str], kind: u8, method: &str, codes: &[&str]) {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let arguments = match kind {
        NON => &[arguments, &["-N"]].concat(),
        _ => arguments,
    };
    let shown = libcoap::ask(relay.address, "test", arguments);
    check_simple(&relay, kind, method, codes);
    assert_eq!(shown, if method == "0.01" { "a test" } else { "" });
}

/// Our client does one thing to aiocoap's `/test`.
#[track_caller]
fn client_simple(method: Method, kind: u8, codes: &[&str]) {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let mut request = Request::new(method, "test");
    if matches!(method, Method::Put | Method::Post) {
        request = request.with_format(format::TEXT).with_payload("arbitrary");
    }
    request.confirmable = kind == CON;
    let response = Client::of(relay.address).ask(request);
    let (_, seen) = exchange(&relay, &method.code().to_string());
    assert!(codes.contains(&seen.code.as_str()));
    assert_eq!(response.code.to_string(), seen.code);
    assert_eq!(text(&response), seen.payload);
    assert_eq!(seen.kind, if kind == CON { ACK } else { NON });
}

const PUT: &[&str] = &["-m", "put", "-t", "0", "-e", "arbitrary"];
const POST: &[&str] = &["-m", "post", "-t", "0", "-e", "arbitrary"];
const WRITTEN: &[&str] = &["2.01", "2.04"];

#[test]
fn td_coap_core_01_server() {
    server_simple(&[], CON, "0.01", &["2.05"]);
}

#[test]
fn td_coap_core_01_client() {
    client_simple(Method::Get, CON, &["2.05"]);
}

#[test]
fn td_coap_core_02_server() {
    server_simple(&["-m", "delete"], CON, "0.04", &["2.02"]);
}

#[test]
fn td_coap_core_02_client() {
    client_simple(Method::Delete, CON, &["2.02"]);
}

#[test]
fn td_coap_core_03_server() {
    server_simple(PUT, CON, "0.03", WRITTEN);
}

#[test]
fn td_coap_core_03_client() {
    client_simple(Method::Put, CON, WRITTEN);
}

#[test]
fn td_coap_core_04_server() {
    server_simple(POST, CON, "0.02", WRITTEN);
}

#[test]
fn td_coap_core_04_client() {
    client_simple(Method::Post, CON, WRITTEN);
}

#[test]
fn td_coap_core_05_server() {
    server_simple(&[], NON, "0.01", &["2.05"]);
}

#[test]
fn td_coap_core_05_client() {
    client_simple(Method::Get, NON, &["2.05"]);
}

#[test]
fn td_coap_core_06_server() {
    server_simple(&["-m", "delete"], NON, "0.04", &["2.02"]);
}

#[test]
fn td_coap_core_06_client() {
    client_simple(Method::Delete, NON, &["2.02"]);
}

#[test]
fn td_coap_core_07_server() {
    server_simple(PUT, NON, "0.03", WRITTEN);
}

#[test]
fn td_coap_core_07_client() {
    client_simple(Method::Put, NON, WRITTEN);
}

#[test]
fn td_coap_core_08_server() {
    server_simple(POST, NON, "0.02", WRITTEN);
}

#[test]
fn td_coap_core_08_client() {
    client_simple(Method::Post, NON, WRITTEN);
}

/// A separate response: the empty acknowledgement, the response, and its acknowledgement.
#[track_caller]
fn check_separate(relay: &Relay) {
    let request = relay.only(|seen| seen.code == "0.01");
    let ack = relay.only(|seen| seen.kind == ACK && !seen.out);
    assert_eq!(
        (ack.mid, ack.code.as_str(), ack.len),
        (request.mid, "0.00", 4)
    );
    let response = relay.only(|seen| seen.code == "2.05");
    assert_eq!((response.kind, &response.token), (CON, &request.token));
    assert!(!response.payload.is_empty());
    let ack = relay.wait(0, "acknowledgement", |seen| seen.kind == ACK && seen.out);
    assert_eq!((ack.mid, ack.len), (response.mid, 4));
}

#[test]
fn td_coap_core_09_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let shown = libcoap::ask(relay.address, "separate", &[]);
    assert_eq!(shown, "that took a while");
    check_separate(&relay);
}

#[test]
fn td_coap_core_09_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let response = Client::of(relay.address).ask(get("separate"));
    assert_eq!(text(&response), "that took a while");
    check_separate(&relay);
}

/// libcoap's own slow resource.
#[test]
fn td_coap_core_09_client_libcoap() {
    let server = libcoap::Server::start(&[]);
    let relay = Relay::to(server.address);
    let response = Client::of(relay.address).ask(get("async?1"));
    assert_eq!(response.code, Code::CONTENT);
    assert!(!text(&response).is_empty());
    check_separate(&relay);
}

#[test]
fn td_coap_core_10_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    libcoap::ask(relay.address, "test", &["-T", "12345678"]);
    check_simple(&relay, CON, "0.01", &["2.05"]);
    let (request, _) = exchange(&relay, "0.01");
    assert!((1..=8).contains(&request.token.len()), "{request:?}");
}

#[test]
fn td_coap_core_10_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    Client::of(relay.address).ask(get("test"));
    let (request, response) = exchange(&relay, "0.01");
    assert_eq!(request.token.len(), 4);
    assert_eq!(response.token, request.token);
}

#[test]
fn td_coap_core_11_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let shown = libcoap::ask(relay.address, "separate", &["-T", "1234"]);
    assert_eq!(shown, "that took a while");
    check_separate(&relay);
    assert!(!relay.only(|seen| seen.code == "0.01").token.is_empty());
}

#[test]
fn td_coap_core_11_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    Client::of(relay.address).ask(get("separate"));
    check_separate(&relay);
    assert_eq!(relay.only(|seen| seen.code == "0.01").token.len(), 4);
}

/// By hand: neither libcoap, aiocoap nor we send an empty token (RFC 7252 section 5.3.1 wants random
/// ones), and a server has to take it.
#[test]
fn td_coap_core_12_server() {
    let server = Ours::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let request = b"\x40\x01\x12\x34\xb4test";
    socket.send_to(request, server.address).unwrap();
    let mut buffer = [0; 100];
    let len = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..4], b"\x60\x45\x12\x34", "ACK 2.05 without token");
    assert!(buffer[..len].ends_with(b"\xffa test"));
}

#[test]
fn td_coap_core_13_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let shown = libcoap::ask(relay.address, "seg1/seg2/seg3", &[]);
    assert_eq!(shown, "three segments");
    let (request, _) = exchange(&relay, "0.01");
    assert_eq!(request.texts(number::URI_PATH), ["seg1", "seg2", "seg3"]);
}

#[test]
fn td_coap_core_13_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let response = Client::of(relay.address).ask(get("seg1/seg2/seg3"));
    assert_eq!(text(&response), "three segments");
    let (request, _) = exchange(&relay, "0.01");
    assert_eq!(request.texts(number::URI_PATH), ["seg1", "seg2", "seg3"]);
}

const QUERY: &str = "query?first=1&second=2&third=3";
const ARGUMENTS: [&str; 3] = ["first=1", "second=2", "third=3"];

#[test]
fn td_coap_core_14_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let shown = libcoap::ask(relay.address, QUERY, &[]);
    assert_eq!(shown, ARGUMENTS.join("\n"));
    let (request, _) = exchange(&relay, "0.01");
    assert_eq!(request.texts(number::URI_QUERY), ARGUMENTS);
}

#[test]
fn td_coap_core_14_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let response = Client::of(relay.address).ask(get(QUERY));
    assert_eq!(text(&response), ARGUMENTS.join("\n"));
    let (request, _) = exchange(&relay, "0.01");
    assert_eq!(request.texts(number::URI_QUERY), ARGUMENTS);
}

/// Loses the first message like this.
fn first(like: impl Fn(&Seen) -> bool + Send + 'static) -> impl FnMut(&Seen) -> bool + Send {
    let mut lost = false;
    move |seen| !lost && like(seen) && !std::mem::replace(&mut lost, true)
}

/// The message that was lost was sent again as it was.
#[track_caller]
fn check_sent_again(relay: &Relay) -> Seen {
    let seen = relay.seen();
    let lost = seen.iter().find(|seen| seen.lost).unwrap();
    let again = seen
        .iter()
        .filter(|seen| seen.mid == lost.mid && seen.code == lost.code);
    assert!(again.count() >= 2, "{seen:#?}");
    lost.clone()
}

#[test]
fn td_coap_core_15_server() {
    std::thread::scope(|scope| {
        for out in [true, false] {
            scope.spawn(move || {
                let server = Ours::start();
                let relay = Relay::losing(server.address, first(move |seen| seen.out == out));
                assert_eq!(libcoap::ask(relay.address, "test", &[]), "a test");
                assert_eq!(check_sent_again(&relay).out, out);
            });
        }
    });
}

#[test]
fn td_coap_core_15_client() {
    for out in [true, false] {
        let server = aiocoap::Server::start();
        let relay = Relay::losing(server.address, first(move |seen| seen.out == out));
        let response = Client::of(relay.address).ask(get("test"));
        assert_eq!(text(&response), "a test");
        assert_eq!(check_sent_again(&relay).out, out);
    }
}

/// What may be lost of an exchange with a separate response.
const LOSSES: [fn(&Seen) -> bool; 4] = [
    |seen| seen.is_request(),
    |seen| seen.kind == ACK && !seen.out,
    |seen| seen.is_response(),
    |seen| seen.kind == ACK && seen.out,
];

/// Waits until what was lost has been sent again, or need not be.
#[track_caller]
fn check_separate_again(relay: &Relay, nth: usize) {
    let lost = relay.seen().into_iter().find(|seen| seen.lost).unwrap();
    match nth {
        // The acknowledgement of the request: the response ends its retransmission as well.
        1 => {
            let response = relay.wait(0, "response", |seen| seen.is_response());
            let seen = relay.seen();
            let after = seen.iter().skip_while(|seen| !seen.is_response());
            assert!(!after.into_iter().any(Seen::is_request), "{response:?}");
        }
        // The acknowledgement of the response: that comes again, and is answered again (aiocoap,
        // which has forgotten it by then, with a Reset).
        3 => {
            relay.wait(0, "second answer", |seen| {
                let ends = matches!(seen.kind, ACK | RST);
                seen.out && ends && seen.mid == lost.mid && !seen.lost
            });
        }
        _ => {
            check_sent_again(relay);
        }
    }
}

#[test]
fn td_coap_core_16_server() {
    std::thread::scope(|scope| {
        for (nth, like) in LOSSES.into_iter().enumerate() {
            scope.spawn(move || {
                let server = Ours::start();
                let relay = Relay::losing(server.address, first(like));
                // coap-client leaves at once, and hears nothing that is sent again.
                let shown = match nth {
                    3 => aiocoap::ask_and_stay(relay.address, "separate"),
                    _ => libcoap::ask(relay.address, "separate", &[]),
                };
                assert_eq!(shown, "that took a while");
                check_separate_again(&relay, nth);
            });
        }
    });
}

#[test]
fn td_coap_core_16_client() {
    std::thread::scope(|scope| {
        for (nth, like) in LOSSES.into_iter().enumerate() {
            scope.spawn(move || {
                let server = aiocoap::Server::start();
                let relay = Relay::losing(server.address, first(like));
                let mut client = Client::of(relay.address);
                let response = client.ask(get("separate"));
                assert_eq!(text(&response), "that took a while");
                if nth == 3 {
                    let end = now() + Duration::from_secs(20);
                    let acks = |relay: &Relay| {
                        let seen = relay.seen();
                        seen.iter()
                            .filter(|seen| seen.out && seen.kind == ACK)
                            .count()
                    };
                    while acks(&relay) < 2 && now() < end {
                        client.event_within(Duration::from_millis(50));
                    }
                }
                check_separate_again(&relay, nth);
            });
        }
    });
}

#[track_caller]
fn check_separate_non(relay: &Relay) {
    let request = relay.only(|seen| seen.code == "0.01");
    assert_eq!(request.kind, NON);
    let response = relay.only(|seen| seen.code == "2.05");
    assert_eq!((response.kind, &response.token), (NON, &request.token));
    let seen = relay.seen();
    assert!(!seen.iter().any(|seen| seen.kind == ACK), "{seen:#?}");
}

#[test]
fn td_coap_core_17_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let shown = libcoap::ask(relay.address, "separate", &["-N"]);
    assert_eq!(shown, "that took a while");
    check_separate_non(&relay);
}

#[test]
fn td_coap_core_17_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let response = Client::of(relay.address).ask(get("separate").non_confirmable());
    assert_eq!(text(&response), "that took a while");
    check_separate_non(&relay);
}

#[track_caller]
fn check_location(relay: &Relay, path: &[&str], query: &[&str]) {
    let (_, response) = exchange(relay, "0.02");
    assert_eq!(response.code, "2.01");
    assert_eq!(response.texts(number::LOCATION_PATH), path);
    assert_eq!(response.texts(number::LOCATION_QUERY), query);
}

const LOCATION: [&str; 3] = ["location1", "location2", "location3"];

#[test]
fn td_coap_core_18_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    libcoap::ask(relay.address, "test", POST);
    check_location(&relay, &LOCATION, &[]);
    let shown = libcoap::ask(server.address, &LOCATION.join("/"), &[]);
    assert_eq!(shown, "arbitrary");
}

#[test]
fn td_coap_core_18_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let request = Request::new(Method::Post, "test").with_payload("arbitrary");
    let response = Client::of(relay.address).ask(request.with_format(format::TEXT));
    check_location(&relay, &LOCATION, &[]);
    assert_eq!(
        response.location().unwrap(),
        "/location1/location2/location3"
    );
}

#[test]
fn td_coap_core_19_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    libcoap::ask(relay.address, "location-query", POST);
    check_location(&relay, &["location-query"], &["first=1", "second=2"]);
}

#[test]
fn td_coap_core_19_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let request = Request::new(Method::Post, "location-query").with_payload("arbitrary");
    let response = Client::of(relay.address).ask(request.with_format(format::TEXT));
    check_location(&relay, &["location-query"], &["first=1", "second=2"]);
    assert_eq!(
        response.location().unwrap(),
        "/location-query?first=1&second=2"
    );
}

#[test]
fn td_coap_core_20_server() {
    let server = Ours::start();
    for (accept, shown) in [("0", "text"), ("41", "<xml/>")] {
        let relay = Relay::to(server.address);
        let got = libcoap::ask(relay.address, "multi-format", &["-A", accept]);
        assert_eq!(got, shown);
        let (request, response) = exchange(&relay, "0.01");
        let wanted = request.uint(number::ACCEPT);
        assert_eq!(wanted, accept.parse().ok());
        assert_eq!(response.uint(number::CONTENT_FORMAT), wanted);
    }
    let relay = Relay::to(server.address);
    let got = libcoap::ask(relay.address, "multi-format", &["-A", "50"]);
    assert!(got.contains("4.06"), "{got}");
}

#[test]
fn td_coap_core_20_client() {
    let server = aiocoap::Server::start();
    let mut client = Client::of(server.address);
    for (accept, shown) in [(format::TEXT, "text"), (format::XML, "<xml/>")] {
        let response = client.ask(get("multi-format").with_accept(accept));
        assert_eq!(text(&response), shown);
        assert_eq!(response.format(), Some(accept));
    }
    let response = client.ask(get("multi-format").with_accept(format::JSON));
    assert_eq!(response.code, Code::NOT_ACCEPTABLE);
}

fn option(answer: &Value, number: u16) -> &Value {
    &answer["options"][number.to_string()][0]
}

/// aiocoap's client, for `coap-client` can't be given the bytes of an ETag that it has just got.
#[test]
fn td_coap_core_21_server() {
    let server = Ours::start();
    let ask = |method, payload, options| {
        aiocoap::ask(server.address, method, "validate", payload, options)
    };
    let first = ask("GET", "", json!({}));
    assert_eq!(first["code"], "2.05");
    let etag = option(&first, number::ETAG).as_str().unwrap().to_owned();
    let has = json!({"etags": format!("hex:{etag}")});
    let valid = ask("GET", "", has.clone());
    assert_eq!(
        (&valid["code"], &valid["payload"]),
        (&json!("2.03"), &json!(""))
    );
    assert_eq!(option(&valid, number::ETAG), &json!(etag));
    assert_eq!(ask("PUT", "another", json!({}))["code"], "2.04");
    let changed = ask("GET", "", has);
    assert_eq!(
        (&changed["code"], &changed["payload"]),
        (&json!("2.05"), &json!("another"))
    );
    assert_ne!(option(&changed, number::ETAG), &json!(etag));
}

#[test]
fn td_coap_core_21_client() {
    let server = aiocoap::Server::start();
    let mut client = Client::of(server.address);
    let first = client.ask(get("validate"));
    let etag = first.options.first(number::ETAG).unwrap().to_vec();
    let known = get("validate").with_option(number::ETAG, etag.clone());
    let valid = client.ask(known.clone());
    assert_eq!((valid.code, valid.payload.len()), (Code::VALID, 0));
    assert_eq!(valid.options.first(number::ETAG), Some(&etag[..]));
    let written = client.ask(Request::new(Method::Put, "validate").with_payload("another"));
    assert_eq!(written.code, Code::CHANGED);
    let changed = client.ask(known);
    assert_eq!(
        (changed.code, text(&changed).as_str()),
        (Code::CONTENT, "another")
    );
    assert_ne!(changed.options.first(number::ETAG), Some(&etag[..]));
}

#[test]
fn td_coap_core_22_server() {
    let server = Ours::start();
    let ask = |method, payload, options| {
        aiocoap::ask(server.address, method, "validate", payload, options)
    };
    let etag = || {
        let read = ask("GET", "", json!({}));
        format!("hex:{}", option(&read, number::ETAG).as_str().unwrap())
    };
    let first = etag();
    let written = ask("PUT", "two", json!({"if_match": first}));
    assert_eq!(written["code"], "2.04");
    let second = etag();
    assert_ne!(first, second);
    assert_eq!(ask("PUT", "three", json!({}))["code"], "2.04");
    let late = ask("PUT", "four", json!({"if_match": second}));
    assert_eq!(late["code"], "4.12");
    assert_eq!(ask("GET", "", json!({}))["payload"], "three");
}

#[test]
fn td_coap_core_22_client() {
    let server = aiocoap::Server::start();
    let mut client = Client::of(server.address);
    let put = |payload: &'static str| Request::new(Method::Put, "validate").with_payload(payload);
    let etag = |client: &mut Client| {
        let read = client.ask(get("validate"));
        read.options.first(number::ETAG).unwrap().to_vec()
    };
    let first = etag(&mut client);
    let written = client.ask(put("two").with_option(number::IF_MATCH, first));
    assert_eq!(written.code, Code::CHANGED);
    let second = etag(&mut client);
    assert_eq!(client.ask(put("three")).code, Code::CHANGED);
    let late = client.ask(put("four").with_option(number::IF_MATCH, second));
    assert_eq!(late.code, Code::PRECONDITION_FAILED);
    assert_eq!(text(&client.ask(get("validate"))), "three");
}

#[test]
fn td_coap_core_23_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let put = ["-m", "put", "-e", "x", "-O", "5,"];
    libcoap::ask(relay.address, "create1", &put);
    let (request, response) = exchange(&relay, "0.03");
    assert_eq!(request.option(number::IF_NONE_MATCH), Some(&[][..]));
    assert_eq!(response.code, "2.01");
    let shown = libcoap::ask(relay.address, "create1", &put);
    assert!(shown.contains("4.12"), "{shown}");
}

#[test]
fn td_coap_core_23_client() {
    let server = aiocoap::Server::start();
    let mut client = Client::of(server.address);
    let put = Request::new(Method::Put, "create1").with_payload("x");
    let put = put.with_option(number::IF_NONE_MATCH, "");
    assert_eq!(client.ask(put.clone()).code, Code::CREATED);
    assert_eq!(client.ask(put).code, Code::PRECONDITION_FAILED);
}

#[test]
fn td_coap_core_31_server() {
    let server = Ours::with(server::Settings::default());
    let relay = Relay::to(server.address);
    // It pings after a second without traffic.
    let _client = libcoap::Running::observe(relay.address, "obs", &["-K", "1"]);
    let is_ping = |seen: &Seen| seen.out && seen.kind == CON && seen.code == "0.00";
    let ping = relay.wait(0, "ping", is_ping);
    assert_eq!(ping.len, 4);
    let reset = relay.wait(0, "reset", |seen| !seen.out && seen.kind == RST);
    assert_eq!((reset.mid, reset.len), (ping.mid, 4));
}

#[test]
fn td_coap_core_31_client() {
    let aiocoap = aiocoap::Server::start();
    let libcoap = libcoap::Server::start(&[]);
    for server in [aiocoap.address, libcoap.address] {
        let relay = Relay::to(server);
        let mut client = Client::of(relay.address);
        client.endpoint.ping(client.server, now()).unwrap();
        assert!(matches!(client.event(), Event::Pong { alive: true, .. }));
        let ping = relay.only(|seen| seen.out);
        let reset = relay.only(|seen| !seen.out);
        assert_eq!((ping.kind, ping.len), (CON, 4));
        assert_eq!((reset.kind, reset.mid, reset.len), (RST, ping.mid, 4));
    }
}
