//! `TD_COAP_LINK_*`: RFC 6690.

use coap_bridge::endpoint::Code;
use coap_bridge::endpoint::options::{format, number};
use coap_bridge::link_format;

use crate::client::{Client, get, text};
use crate::relay::Relay;
use crate::{Ours, aiocoap, libcoap};

/// What the links of a list point to.
#[track_caller]
fn targets(list: &str) -> Vec<String> {
    let links = link_format::parse(list);
    assert_eq!(links.len(), list.matches('<').count(), "{list}");
    links.into_iter().map(|link| link.target).collect()
}

/// What `coap-client` gets from us for a query.
#[track_caller]
fn server(query: &str) -> Vec<String> {
    let server = Ours::start();
    let relay = Relay::to(server.address);
    let path = format!(".well-known/core{query}");
    let shown = libcoap::ask(relay.address, &path, &[]);
    let response = relay.wait(0, "response", |seen| seen.code == "2.05");
    assert_eq!(response.uint(number::CONTENT_FORMAT), Some(40));
    targets(&shown)
}

/// What we get from aiocoap for a query.
#[track_caller]
fn client(query: &str) -> Vec<String> {
    let server = aiocoap::Server::start();
    let response = Client::of(server.address).ask(get(&format!(".well-known/core{query}")));
    assert_eq!(response.code, Code::CONTENT);
    assert_eq!(response.format(), Some(format::LINK));
    targets(&text(&response))
}

#[test]
fn td_coap_link_01_server() {
    let targets = server("");
    for path in [
        "/test",
        "/separate",
        "/large",
        "/obs",
        "/link1",
        "/path/sub1",
        "/create1",
    ] {
        assert!(targets.iter().any(|target| target == path), "{targets:?}");
    }
}

#[test]
fn td_coap_link_01_client() {
    let targets = client("");
    for path in [
        "/test",
        "/separate",
        "/large",
        "/obs",
        "/link1",
        "/path/sub1",
    ] {
        assert!(targets.iter().any(|target| target == path), "{targets:?}");
    }
}

#[test]
fn td_coap_link_01_client_libcoap() {
    let server = libcoap::Server::start(&[]);
    let response = Client::of(server.address).ask(get(".well-known/core"));
    let resources = link_format::resources(&text(&response));
    let time = resources.iter().find(|resource| resource.path == "time");
    let time = time.unwrap();
    assert!(
        time.obs && time.rt == ["ticks"] && time.ct == [0],
        "{time:?}"
    );
    assert_eq!(time.title.as_deref(), Some("Internal Clock"));
    let response = Client::of(server.address).ask(get(".well-known/core?href=/time"));
    assert_eq!(targets(&text(&response)), ["/time"]);
}

#[test]
fn td_coap_link_02_server() {
    assert_eq!(server("?rt=Type1"), ["/link1", "/link3"]);
}

#[test]
fn td_coap_link_02_client() {
    assert_eq!(client("?rt=Type1"), ["/link1", "/link3"]);
}

#[test]
fn td_coap_link_03_server() {
    let typed = ["/large-create", "/large-post", "/link1", "/link2", "/link3"];
    assert_eq!(server("?rt=*"), typed);
}

/// libcoap's server, for aiocoap's takes an absent `rt` for an empty one.
#[test]
fn td_coap_link_03_client() {
    let server = libcoap::Server::start(&[]);
    let response = Client::of(server.address).ask(get(".well-known/core?rt=*"));
    assert_eq!(targets(&text(&response)), ["/time"]);
}

#[test]
fn td_coap_link_04_server() {
    assert_eq!(server("?rt=Type2"), ["/link1", "/link2"]);
}

#[test]
fn td_coap_link_04_client() {
    assert_eq!(client("?rt=Type2"), ["/link1", "/link2"]);
}

#[test]
fn td_coap_link_05_server() {
    assert_eq!(server("?if=If*"), ["/link1", "/link2"]);
}

#[test]
fn td_coap_link_05_client() {
    assert_eq!(client("?if=If*"), ["/link1", "/link2"]);
}

#[test]
fn td_coap_link_06_server() {
    assert_eq!(server("?sz=*"), ["/large", "/obs-large"]);
}

#[test]
fn td_coap_link_06_client() {
    assert_eq!(client("?sz=*"), ["/large"]);
}

#[test]
fn td_coap_link_07_server() {
    assert_eq!(server("?href=/link1"), ["/link1"]);
}

#[test]
fn td_coap_link_07_client() {
    assert_eq!(client("?href=/link1"), ["/link1"]);
}

#[test]
fn td_coap_link_08_server() {
    assert_eq!(server("?href=/link*"), ["/link1", "/link2", "/link3"]);
}

#[test]
fn td_coap_link_08_client() {
    assert_eq!(client("?href=/link*"), ["/link1", "/link2", "/link3"]);
}

#[test]
fn td_coap_link_09_server() {
    let server = Ours::start();
    let list = libcoap::ask(server.address, ".well-known/core?href=/path", &[]);
    assert_eq!(list, "</path>;ct=40");
    let sub = targets(&libcoap::ask(server.address, "path", &[]));
    assert_eq!(sub, ["/path/sub1", "/path/sub2", "/path/sub3"]);
    assert_eq!(libcoap::ask(server.address, "path/sub1", &[]), "/path/sub1");
}

#[test]
fn td_coap_link_09_client() {
    let server = aiocoap::Server::start();
    let mut client = Client::of(server.address);
    let list = client.ask(get(".well-known/core?href=/path"));
    assert_eq!(link_format::resources(&text(&list))[0].ct, [40]);
    let path = client.ask(get("path"));
    assert_eq!(path.format(), Some(format::LINK));
    let sub = targets(&text(&path));
    assert_eq!(sub, ["/path/sub1", "/path/sub2", "/path/sub3"]);
    assert_eq!(text(&client.ask(get(&sub[0]))), "/path/sub1");
}
