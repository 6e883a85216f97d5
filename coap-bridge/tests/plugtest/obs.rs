//! `TD_COAP_OBS_*`: RFC 7641. There is no number 3.

use std::time::Duration;

use coap_bridge::endpoint::options::{format, number};
use coap_bridge::endpoint::{Code, Method, Request};
use serde_json::{Value, json};

use crate::client::{Client, get, text};
use crate::relay::{ACK, CON, NON, RST, Relay, Seen};
use crate::{Ours, aiocoap, libcoap, now, server, wait_for};

/// Notifications of one observation: same token, same format, rising numbers.
#[track_caller]
fn check_notifications(relay: &Relay, kind: u8, at_least: usize) {
    let register = relay.wait(0, "registration", Seen::is_request);
    assert_eq!(register.option(number::OBSERVE), Some(&[][..]));
    wait_for("notifications", || {
        (notifications(relay, &register).len() > at_least).then_some(())
    });
    let came = notifications(relay, &register);
    let mut last = None;
    for (nth, seen) in came.iter().enumerate() {
        let expected = match (nth, register.kind) {
            (0, CON) => ACK,
            _ => kind,
        };
        assert_eq!(
            (seen.kind, seen.code.as_str()),
            (expected, "2.05"),
            "{seen:?}"
        );
        let format = |seen: &Seen| seen.uint(number::CONTENT_FORMAT);
        assert_eq!(format(seen), format(&came[0]));
        let sequence = seen.uint(number::OBSERVE).unwrap();
        assert!(last.is_none_or(|last| last < sequence), "{came:#?}");
        last = Some(sequence);
    }
}

/// What came under the token of a registration, each message once.
fn notifications(relay: &Relay, register: &Seen) -> Vec<Seen> {
    let mut seen = relay.seen();
    seen.retain(|seen| seen.is_response() && seen.token == register.token);
    seen.dedup_by_key(|seen| seen.mid);
    seen
}

/// Waits until a Confirmable notification was acknowledged, `skip` messages left out.
#[track_caller]
fn wait_for_ack(relay: &Relay, skip: usize) {
    relay.wait(skip, "acknowledgement", |seen| seen.out && seen.kind == ACK);
}

/// No notification has come since `from`, while another observer got three.
#[track_caller]
fn check_silence(server: &Ours, relay: &Relay, token: &[u8], from: usize) {
    let other = aiocoap::observe(server.address, "obs-non");
    for _ in 0..4 {
        other.next();
    }
    let seen = relay.seen();
    let late = seen.iter().skip(from);
    let late: Vec<_> = late
        .filter(|seen| seen.is_response() && seen.token == token)
        .collect();
    assert!(late.is_empty(), "{late:#?}");
}

#[test]
fn td_coap_obs_01_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let client = libcoap::Running::observe(relay.address, "obs", &[]);
    check_notifications(&relay, CON, 3);
    wait_for_ack(&relay, 0);
    let shown = client.interrupt();
    assert!(shown.matches("change ").count() >= 3, "{shown}");
}

#[test]
fn td_coap_obs_01_server_aiocoap() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let observation = aiocoap::observe(relay.address, "obs");
    let payloads: Vec<Value> = (0..4)
        .map(|_| observation.next()["payload"].clone())
        .collect();
    assert!(
        payloads.windows(2).all(|pair| pair[0] != pair[1]),
        "{payloads:?}"
    );
    check_notifications(&relay, CON, 3);
}

#[test]
fn td_coap_obs_01_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    let (_, first) = client.observe(get("obs"));
    assert_eq!(text(&first), "change 0\n");
    for n in 1..=3 {
        assert_eq!(server.change("obs", "", None), 1);
        let (response, last) = client.notification();
        assert_eq!((text(&response), last), (format!("change {n}\n"), false));
    }
    check_notifications(&relay, CON, 3);
    wait_for_ack(&relay, 0);
}

/// libcoap's clock.
#[test]
fn td_coap_obs_01_client_libcoap() {
    let server = libcoap::Server::start(&[]);
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    let (_, first) = client.observe(get("time"));
    let (second, last) = client.notification();
    assert_ne!(text(&first), text(&second));
    assert!(!last);
}

#[test]
fn td_coap_obs_02_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let _client = libcoap::Running::observe(relay.address, "obs-non", &["-N"]);
    check_notifications(&relay, NON, 3);
}

/// libcoap's server with Non-confirmable notifications; each fifth of its is Confirmable.
#[test]
fn td_coap_obs_02_client() {
    let server = libcoap::Server::start(&["-N"]);
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    client.observe(get("time").non_confirmable());
    client.notification();
    let register = relay.only(Seen::is_request);
    assert_eq!(register.kind, NON);
    let came = notifications(&relay, &register);
    assert!(came.iter().all(|seen| seen.kind == NON), "{came:#?}");
}

/// The registration is renewed under the same token when Max-Age has passed in silence.
#[track_caller]
fn check_renewal(relay: &Relay) -> Seen {
    let register = relay.wait(0, "registration", Seen::is_request);
    let renewed = relay.wait(0, "second registration", |seen| {
        seen.is_request() && seen.mid != register.mid
    });
    assert_eq!(renewed.token, register.token);
    assert_eq!(renewed.option(number::OBSERVE), Some(&[][..]));
    renewed
}

/// RFC 7641 section 3.3.1 has the client wait for 5 to 15 s beyond Max-Age.
#[test]
fn td_coap_obs_04_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    client.observe(get("obs"));
    server.change("obs", "", Some(0));
    client.notification();
    server.forget("obs");
    let renewed = client.event();
    check_renewal(&relay);
    assert!(
        format!("{renewed:?}").contains("observed: true"),
        "{renewed:?}"
    );
    assert_eq!(server.change("obs", "new", None), 1);
    assert_eq!(text(&client.notification().0), "new");
}

/// A server that has lost its observers takes them in again: libcoap's client is restarted under the
/// same port and token.
#[test]
fn td_coap_obs_04_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let register = b"\x44\x01\x00\x01abcd\x60\x53obs";
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for mid in 1..=2 {
        let mut register = register.to_vec();
        register[3] = mid;
        let skip = relay.seen().len();
        socket.send_to(&register, relay.address).unwrap();
        let taken = relay.wait(skip, "registration", |seen| {
            seen.kind == ACK && seen.mid == u16::from(mid)
        });
        assert!(taken.uint(number::OBSERVE).is_some());
        relay.wait(skip, "notification", |seen| {
            seen.kind == CON && seen.token == b"abcd"
        });
    }
    // One observation, not two: one notification at a time.
    check_never_two(&relay);
}

/// A peer that is not there any more gets one notification with its retransmissions, each with what is
/// new by then, and no more.
#[test]
fn td_coap_obs_05_server() {
    let server = Ours::with(server::Settings {
        change_every: Duration::from_millis(100),
        ack_timeout: Duration::from_millis(100),
        ..server::Settings::default()
    });
    let relay = Relay::to(server.address);
    let mut client = libcoap::Running::observe(relay.address, "obs", &[]);
    wait_for_ack(&relay, 0);
    relay.lose(|_| true);
    client.kill();
    let token = relay.wait(0, "registration", Seen::is_request).token;
    let unheard = |relay: &Relay| {
        let mut seen = relay.seen();
        seen.retain(|seen| seen.lost && seen.kind == CON && seen.token == token);
        seen
    };
    // The first transmission and MAX_RETRANSMIT others.
    wait_for("the last retransmission", || {
        (unheard(&relay).len() >= 5).then_some(())
    });
    let sent = unheard(&relay);
    let sequences: Vec<_> = sent.iter().map(|seen| seen.uint(number::OBSERVE)).collect();
    assert!(
        sequences.windows(2).all(|pair| pair[0] < pair[1]),
        "{sequences:?}"
    );
    // It waits once more, twice as long as before the last, and then it is over.
    let end = now() + Duration::from_millis(100 * 16 * 3 / 2 * 2);
    wait_for("the end", || (now() > end).then_some(()));
    assert_eq!(unheard(&relay).len(), 5);
}

/// Our client leaves: the server hears of it with the next notification.
#[test]
fn td_coap_obs_05_client() {
    let server = aiocoap::Server::start();
    let mut client = Client::of(server.address);
    client.observe(get("obs"));
    assert_eq!(server.change("obs", "", None), 1);
    client.notification();
    // A client of the same port that knows of nothing rejects what comes.
    client.endpoint = Client::of(server.address).endpoint;
    server.change("obs", "", None);
    wait_for("the end of the observation", || {
        client.event_within(Duration::from_millis(20));
        (server.change("obs", "", None) == 0).then_some(())
    });
}

#[test]
fn td_coap_obs_06_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let register = b"\x44\x01\x00\x01abcd\x60\x53obs";
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(register, relay.address).unwrap();
    let notification = relay.wait(0, "notification", |seen| !seen.out && seen.kind == CON);
    let [high, low] = notification.mid.to_be_bytes();
    socket
        .send_to(&[0x70, 0, high, low], relay.address)
        .unwrap();
    relay.wait(0, "reset", |seen| seen.kind == RST);
    let from = relay.seen().len();
    check_silence(&server, &relay, b"abcd", from);
}

#[test]
fn td_coap_obs_06_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    client.observe(get("obs"));
    client.endpoint = Client::of(relay.address).endpoint;
    server.change("obs", "", None);
    assert!(client.event_within(Duration::from_millis(500)).is_none());
    let notification = relay.wait(0, "notification", |seen| !seen.out && seen.kind == CON);
    let reset = relay.wait(0, "reset", |seen| seen.out && seen.kind == RST);
    assert_eq!(reset.mid, notification.mid);
    wait_for("the end of the observation", || {
        (server.change("obs", "", None) == 0).then_some(())
    });
}

/// The observers of a resource get this code, without Observe, and then nothing.
#[track_caller]
fn server_ends(change: impl Fn(&Ours), code: &str) {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let _client = libcoap::Running::observe(relay.address, "obs", &[]);
    wait_for_ack(&relay, 0);
    let token = relay.wait(0, "registration", Seen::is_request).token;
    change(&server);
    let last = relay.wait(0, "last notification", |seen| seen.code == code);
    assert_eq!((last.kind, &last.token), (CON, &token));
    assert_eq!(last.option(number::OBSERVE), None);
    wait_for("acknowledgement", || {
        let seen = relay.seen();
        seen.iter().find(|seen| seen.out && seen.mid == last.mid)?;
        Some(())
    });
    let from = relay.seen().len();
    check_silence(&server, &relay, &token, from);
}

/// An observation of ours ends with an answer of this code from aiocoap.
#[track_caller]
fn client_ends(observation: &mut Client, code: Code) {
    let (response, last) = observation.notification();
    assert_eq!((response.code, last), (code, true));
}

#[test]
fn td_coap_obs_07_server() {
    let delete = |server: &Ours| {
        libcoap::ask(server.address, "obs", &["-m", "delete"]);
    };
    server_ends(delete, "4.04");
}

/// libcoap's server tells the observers of what was removed.
#[test]
fn td_coap_obs_07_client() {
    let server = libcoap::Server::start(&[]);
    let mut writer = Client::of(server.address);
    let put = Request::new(Method::Put, "mine").with_format(format::TEXT);
    assert_eq!(writer.ask(put.with_payload("1")).code, Code::CREATED);
    let mut client = Client::of(server.address);
    client.observe(get("mine"));
    writer.ask(Request::new(Method::Delete, "mine"));
    client_ends(&mut client, Code::NOT_FOUND);
}

#[test]
fn td_coap_obs_08_server() {
    let rewrite = |server: &Ours| {
        let put = ["-m", "put", "-t", "50", "-e", "{}"];
        libcoap::ask(server.address, "obs", &put);
    };
    server_ends(rewrite, "4.06");
}

/// By hand, for no peer here ends an observation with 4.06.
#[test]
fn td_coap_obs_08_client() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut client = Client::of(socket.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let mut buffer = [0; 100];
        let (_, from) = socket.recv_from(&mut buffer).unwrap();
        let (mid, token) = (&buffer[2..4], &buffer[4..8]);
        let first = [&[0x64, 0x45], mid, token, b"\x60\x60\xff1"].concat();
        socket.send_to(&first, from).unwrap();
        let last = [&[0x44, 0x86, 0, 1], token].concat();
        socket.send_to(&last, from).unwrap();
        let len = socket.recv(&mut buffer).unwrap();
        buffer[..len].to_vec()
    });
    client.observe(get("obs"));
    client_ends(&mut client, Code::NOT_ACCEPTABLE);
    client.event_within(Duration::from_millis(100));
    assert_eq!(serving.join().unwrap(), [0x60, 0, 0, 1], "acknowledged");
}

#[test]
fn td_coap_obs_09_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let client = libcoap::Running::observe(relay.address, "obs", &[]);
    wait_for_ack(&relay, 0);
    let put = ["-m", "put", "-t", "0", "-e", "the new value"];
    libcoap::ask(server.address, "obs", &put);
    let new = relay.wait(0, "the new value", |seen| seen.payload == "the new value");
    assert!(new.kind == CON && new.uint(number::OBSERVE).is_some());
    wait_for("acknowledgement", || {
        let seen = relay.seen();
        seen.iter().find(|seen| seen.out && seen.mid == new.mid)?;
        Some(())
    });
    let shown = client.interrupt();
    assert!(shown.contains("the new value"), "{shown}");
}

#[test]
fn td_coap_obs_09_client() {
    let server = aiocoap::Server::start();
    let mut client = Client::of(server.address);
    client.observe(get("obs"));
    server.change("obs", "the new value", None);
    assert_eq!(text(&client.notification().0), "the new value");
}

/// aiocoap's `/obs`, by libcoap's server: what is written is what is notified.
#[test]
fn td_coap_obs_09_client_libcoap() {
    let server = libcoap::Server::start(&[]);
    let mut writer = Client::of(server.address);
    let put = |text: &'static str| {
        Request::new(Method::Put, "mine")
            .with_format(format::TEXT)
            .with_payload(text)
    };
    writer.ask(put("1"));
    let mut client = Client::of(server.address);
    client.observe(get("mine"));
    assert_eq!(writer.ask(put("2")).code, Code::CHANGED);
    assert_eq!(text(&client.notification().0), "2");
}

#[test]
fn td_coap_obs_10_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .send_to(b"\x44\x01\x00\x01abcd\x60\x53obs", relay.address)
        .unwrap();
    let ack = |seen: &Seen| [0x60, 0, (seen.mid >> 8) as u8, seen.mid as u8];
    let first = relay.wait(0, "notification", |seen| !seen.out && seen.kind == CON);
    socket.send_to(&ack(&first), relay.address).unwrap();
    socket
        .send_to(b"\x44\x01\x00\x02efgh\xb3obs", relay.address)
        .unwrap();
    let read = relay.wait(0, "response", |seen| !seen.out && seen.token == b"efgh");
    assert_eq!(read.option(number::OBSERVE), None);
    let skip = relay.seen().len();
    relay.wait(skip, "notification after that", |seen| {
        !seen.out && seen.kind == CON && seen.token == b"abcd" && seen.mid != first.mid
    });
}

#[test]
fn td_coap_obs_10_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    client.observe(get("obs"));
    client.ask(get("obs"));
    server.change("obs", "still", None);
    assert_eq!(text(&client.notification().0), "still");
    let mut requests = relay.seen();
    requests.retain(Seen::is_request);
    assert_ne!(requests[0].token, requests[1].token);
    assert_eq!(requests[1].option(number::OBSERVE), None);
}

/// There is never more than one notification on its way.
#[track_caller]
fn check_never_two(relay: &Relay) {
    let mut open: Option<u16> = None;
    for seen in relay.seen() {
        if !seen.out && seen.kind == CON {
            assert!(
                open.is_none_or(|mid| mid == seen.mid),
                "{:#?}",
                relay.seen()
            );
            open = Some(seen.mid);
        } else if seen.out && matches!(seen.kind, ACK | RST) && !seen.lost {
            open.take_if(|mid| *mid == seen.mid);
        }
    }
}

#[test]
fn td_coap_obs_11_server() {
    let server = Ours::start();
    let mut nth = 0;
    // Each third notification and each fourth acknowledgement is lost.
    let relay = Relay::losing(server.address, move |seen| {
        nth += 1;
        seen.kind == CON && !seen.out && nth % 3 == 0
            || seen.kind == ACK && seen.out && nth % 4 == 0
    });
    let observation = aiocoap::observe(relay.address, "obs");
    let mut last = String::new();
    for _ in 0..6 {
        let payload = observation.next()["payload"].as_str().unwrap().to_owned();
        assert_ne!(payload, last);
        last = payload;
    }
    assert!(relay.seen().iter().any(|seen| seen.lost));
    let register = relay.wait(0, "registration", Seen::is_request);
    let mut sequences = Vec::new();
    for seen in notifications(&relay, &register) {
        sequences.extend(seen.uint(number::OBSERVE));
    }
    assert!(sequences.is_sorted(), "{sequences:?}");
}

#[test]
fn td_coap_obs_11_client() {
    let server = aiocoap::Server::start();
    let mut lost = 0;
    let relay = Relay::losing(server.address, move |seen| {
        let notification = !seen.out && seen.kind == CON && lost == 0;
        let ack = seen.out && seen.kind == ACK && lost == 1;
        lost += u32::from(notification || ack);
        notification || ack
    });
    let mut client = Client::of(relay.address);
    client.observe(get("obs"));
    server.change("obs", "one", None);
    assert_eq!(text(&client.notification().0), "one");
    // The acknowledgement is lost: the notification comes again, and is one.
    let again = |relay: &Relay| {
        let seen = relay.seen();
        let acks = seen.iter().filter(|seen| seen.out && seen.kind == ACK);
        acks.count() >= 2
    };
    wait_for("the second acknowledgement", || {
        assert!(client.event_within(Duration::from_millis(20)).is_none());
        again(&relay).then_some(())
    });
    server.change("obs", "two", None);
    assert_eq!(text(&client.notification().0), "two");
}

#[test]
fn td_coap_obs_12_server() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let client = libcoap::Running::observe(relay.address, "obs", &[]);
    wait_for_ack(&relay, 0);
    let register = relay.wait(0, "registration", Seen::is_request);
    client.interrupt();
    let cancel = relay.wait(0, "cancellation", |seen| {
        seen.is_request() && seen.uint(number::OBSERVE) == Some(1)
    });
    assert_eq!(cancel.token, register.token);
    let skip = relay.seen().iter().position(|seen| seen.mid == cancel.mid);
    let answer = relay.wait(skip.unwrap(), "answer", |seen| {
        !seen.out && seen.token == cancel.token && seen.option(number::OBSERVE).is_none()
    });
    assert_eq!(answer.code, "2.05");
    let from = relay.seen().len();
    check_silence(&server, &relay, &register.token, from);
}

/// aiocoap cancels with a GET, too.
#[test]
fn td_coap_obs_12_server_aiocoap() {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let observation = aiocoap::observe(relay.address, "obs");
    observation.next();
    observation.next();
    observation.cancel();
    let register = relay.wait(0, "registration", Seen::is_request);
    relay.wait(0, "word of the end", |seen| {
        seen.out && (seen.kind == RST || seen.uint(number::OBSERVE) == Some(1))
    });
    let from = relay.seen().len();
    check_silence(&server, &relay, &register.token, from);
}

#[test]
fn td_coap_obs_12_client() {
    let server = aiocoap::Server::start();
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    let (id, _) = client.observe(get("obs"));
    client.endpoint.cancel(id, now());
    assert!(client.event_within(Duration::from_millis(300)).is_none());
    let register = relay.wait(0, "registration", Seen::is_request);
    let cancel = relay.wait(0, "cancellation", |seen| {
        seen.uint(number::OBSERVE) == Some(1)
    });
    assert_eq!(cancel.token, register.token);
    wait_for("the end of the observation", || {
        (server.change("obs", "", None) == 0).then_some(())
    });
}

/// A text that takes several blocks.
fn large(n: u32) -> String {
    format!("state {n} ").repeat(300)
}

#[test]
fn td_coap_obs_13_server() {
    // Changes slowly, so that a client has the time to read the blocks of one state.
    let server = Ours::with(server::Settings {
        change_every: Duration::from_secs(1),
        ..server::Settings::default()
    });
    let observation = aiocoap::observe(server.address, "obs-large");
    for _ in 0..3 {
        let payload = observation.next()["payload"].as_str().unwrap().to_owned();
        assert!(payload.starts_with("change "), "{payload}");
        assert!(
            payload.ends_with("line 40 of forty in a large text\n"),
            "{payload}"
        );
    }
}

/// libcoap's server, for aiocoap's notifies without blocks.
#[test]
fn td_coap_obs_13_client() {
    let server = libcoap::Server::start(&[]);
    let mut writer = Client::of(server.address);
    let put = |n: u32| {
        let put = Request::new(Method::Put, "mine").with_format(format::TEXT);
        put.with_payload(large(n))
    };
    writer.ask(put(0));
    let relay = Relay::to(server.address);
    let mut client = Client::of(relay.address);
    let (_, first) = client.observe(get("mine"));
    assert_eq!(text(&first), large(0));
    for n in 1..=2 {
        writer.ask(put(n));
        assert_eq!(text(&client.notification().0), large(n));
    }
    // The rest is asked for under another token, without Observe.
    let register = relay.wait(0, "registration", Seen::is_request);
    let mut rest = relay.seen();
    rest.retain(|seen| seen.is_request() && seen.mid != register.mid);
    assert!(!rest.is_empty());
    assert!(
        rest.iter()
            .all(|seen| seen.option(number::OBSERVE).is_none())
    );
}

/// The size of what is observed varies: now one message, now blocks.
#[test]
fn td_coap_obs_14_server() {
    let server = Ours::with(server::Settings {
        change_every: Duration::from_secs(3600),
        ..server::Settings::default()
    });
    let observation = aiocoap::observe(server.address, "obs");
    observation.next();
    for text in ["short", &"long ".repeat(200), "short again"] {
        let put = aiocoap::ask(
            server.address,
            "PUT",
            "obs",
            text,
            json!({"content_format": 0}),
        );
        assert_eq!(put["code"], "2.04");
        assert_eq!(observation.next()["payload"], text);
    }
}

#[test]
fn td_coap_obs_14_client() {
    let server = aiocoap::Server::start();
    let mut client = Client::of(server.address);
    client.observe(get("obs"));
    for payload in ["short", &"long ".repeat(500), "short again"] {
        server.change("obs", payload, None);
        assert_eq!(text(&client.notification().0), payload);
    }
}
