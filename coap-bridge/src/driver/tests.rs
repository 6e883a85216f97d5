//! The bridge over real UDP, without a bus.

use std::net::{SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::time::Duration;

use bus::bridge::registry::Registry;
use bus::bridge::{Order, Report, Sample, Uid};
use bus::session::Message;
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::*;
use crate::dtls::client::{Client, KEY};
use crate::endpoint::{Code, Endpoint, Event, Limits, Method, Request, Response};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    address: SocketAddr,
    secure: Option<SocketAddr>,
    reports: mpsc::Receiver<Report>,
    orders: mpsc::Sender<Order>,
    settled: watch::Sender<u64>,
    shutdown: Shutdown,
    admin: Admin,
}

impl Bench {
    fn new(listen_at: &str) -> Self {
        Self::with(Config {
            listen: listen_at.parse().unwrap(),
            ..Config::default()
        })
    }

    fn with(config: Config) -> Self {
        let (ends, far) = runtime::detached();
        let (admin, shutdown) = (Admin::default(), Shutdown::new());
        let started = Doors::open(&config).unwrap().serve(ends, &admin, &shutdown);
        Self {
            address: started.address,
            secure: started.secure,
            reports: far.reported,
            orders: far.ordered,
            settled: far.settled,
            shutdown,
            admin,
        }
    }

    /// Waits for a report that `wanted` likes, and gives what it makes of it.
    async fn report<T>(&mut self, mut wanted: impl FnMut(&Report) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                let report = self.reports.recv().await.expect("the driver has ended");
                if let Some(found) = wanted(&report) {
                    return found;
                }
            }
        });
        found.await.expect("no such report came")
    }

    async fn reading(&mut self, resource: &str) -> Value {
        self.report(|report| match report {
            Report::Reading { path, sample, .. } if path == resource => Some(sample.v.clone()),
            _ => None,
        })
        .await
    }
}

/// A node as a firmware would be: a LED and a name.
struct Node {
    endpoint: Endpoint,
    led: String,
}

impl Node {
    /// One that says at once that it is alive.
    fn new(bridge: SocketAddr, uid: &str) -> Self {
        let mut endpoint = Endpoint::new(Limits::default(), StdRng::seed_from_u64(1));
        let alive = Request::new(Method::Post, "alive").with_payload(format!("alive:{uid}"));
        endpoint.tell(bridge, alive.non_confirmable(), now().mono);
        let led = "0".to_owned();
        Self { endpoint, led }
    }

    /// Answers what it was asked.
    fn answer(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            let Event::Request {
                exchange, request, ..
            } = event
            else {
                continue;
            };
            let response = match (request.method, request.path().as_deref()) {
                (Method::Get, Some(".well-known/core")) => Response::content(40, "</led>,</name>"),
                (Method::Get, Some("led")) => Response::content(0, self.led.clone()),
                (Method::Get, Some("name")) => Response::content(0, "node\0\0"),
                (Method::Put, Some("led")) => {
                    self.led = String::from_utf8_lossy(&request.payload).into_owned();
                    Response::new(Code::CHANGED)
                }
                _ => Response::new(Code::NOT_FOUND),
            };
            self.endpoint.respond(exchange, response, now().mono);
        }
    }
}

/// A node behind its own socket.
async fn serve_node(socket: UdpSocket, bridge: SocketAddr, uid: &str) {
    let mut node = Node::new(bridge, uid);
    let mut buffer = [0; 2048];
    loop {
        node.answer();
        while let Some(transmit) = node.endpoint.poll_transmit() {
            socket
                .send_to(&transmit.bytes, transmit.to.address())
                .await
                .unwrap();
        }
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        node.endpoint
            .handle_datagram(from, &buffer[..len], now().mono);
    }
}

/// The same over DTLS.
async fn serve_secure_node(socket: UdpSocket, bridge: SocketAddr, uid: &str) {
    let mut client = Client::psk(uid, KEY, now().mono);
    let mut node = Node::new(bridge, uid);
    let mut buffer = [0; 2048];
    let mut sending = client.act(|_| Ok(()));
    loop {
        for plain in std::mem::take(&mut client.received) {
            node.endpoint.handle_datagram(bridge, &plain, now().mono);
            node.answer();
        }
        while client.connected
            && let Some(transmit) = node.endpoint.poll_transmit()
        {
            let send = |dtls: &mut dimpl::Dtls| dtls.send_application_data(&transmit.bytes);
            sending.extend(client.act(|dtls| send(dtls).map(|_| ())));
        }
        for datagram in sending.drain(..) {
            socket.send_to(&datagram, bridge).await.unwrap();
        }
        let len = socket.recv(&mut buffer).await.unwrap();
        sending = client.act(|dtls| {
            dtls.handle_timeout(now().mono)?;
            dtls.handle_packet(&buffer[..len])
        });
    }
}

#[tokio::test]
async fn a_node_is_discovered_read_and_written() {
    let mut bench = Bench::new("127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let bridge = bench.address;
    bench
        .shutdown
        .spawn(async move { serve_node(socket, bridge, "n1").await });
    assert_eq!(bench.reading("led").await, json!(0));
    assert_eq!(bench.reading("name").await, json!("node"));
}

/// What the registry has a driver do when the bus says `set`.
fn write(node: &str, resource: &str, value: &str) -> Order {
    let config = Config::default();
    let mut registry = Registry::new(config.bridge());
    registry.handle_connected(now());
    let (uid, address) = (Uid::new(node).unwrap(), String::new());
    let announced = Report::Announce {
        uid: uid.clone(),
        address,
        reset: false,
    };
    let reading = Report::Reading {
        uid,
        path: resource.to_owned(),
        sample: Sample::from_text("0"),
        ts: now().wall,
    };
    for report in [announced, reading] {
        registry.handle_report(report, now());
    }
    let message = Message {
        topic: config
            .base
            .join(&format!("nodes/{node}/res/{resource}/set")),
        payload: Bytes::copy_from_slice(value.as_bytes()),
        retain: false,
        response_topic: None,
        correlation: None,
        expiry: None,
    };
    registry.handle_message(&message, now());
    registry.poll_order().expect("the registry takes it")
}

#[tokio::test]
async fn where_neither_keys_nor_certificates_are_named_nothing_listens_for_dtls() {
    let bench = Bench::new("127.0.0.1:0");
    assert_eq!(bench.secure, None);
    let names = bench.admin.listeners();
    assert!(names.iter().all(|listener| listener.scheme == "coap"));
}

#[tokio::test]
async fn a_node_over_dtls_is_discovered_read_and_written() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("kitchen:{KEY}\n")).unwrap();
    let loopback = "127.0.0.1:0".parse().unwrap();
    let mut bench = Bench::with(Config {
        listen: loopback,
        dtls_listen: loopback,
        psk: Some(file.path().to_owned()),
        ..Config::default()
    });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (bridge, own) = (bench.secure.unwrap(), socket.local_addr().unwrap());
    let node = serve_secure_node(socket, bridge, "kitchen");
    bench.shutdown.spawn(node);
    let address = bench.report(|report| match report {
        Report::Announce { address, .. } => Some(address.clone()),
        _ => None,
    });
    assert_eq!(address.await, format!("coaps://{own}"));
    assert_eq!(bench.reading("led").await, json!(0));
    assert_eq!(bench.reading("name").await, json!("node"));
    let set = write("kitchen", "led", "1");
    bench.orders.send(set).await.unwrap();
    assert_eq!(bench.reading("led").await, json!(1));
    let metrics = bench.admin.metrics();
    assert!(metrics.contains("coap_bridge_dtls_sessions 1"), "{metrics}");
}

#[tokio::test]
async fn ipv4_and_ipv6_nodes_share_the_socket_and_floods_of_rubbish_change_nothing() {
    let mut bench = Bench::new("[::]:0");
    let port = bench.address.port();
    for (host, uid) in [("127.0.0.1", "four"), ("::1", "six")] {
        let socket = UdpSocket::bind((host, 0)).await.unwrap();
        for rubbish in [&b""[..], b"\x00", b"\xff\xff\xff\xff\xff", &[0x40; 3000]] {
            socket.send_to(rubbish, (host, port)).await.unwrap();
        }
        let datagram = [b"\x41\x02\x00\x01\x07\xb5alive\xffalive:", uid.as_bytes()].concat();
        socket.send_to(&datagram, (host, port)).await.unwrap();
        let mut buffer = [0; 100];
        let answer = timeout(PATIENCE, async {
            loop {
                let len = socket.recv(&mut buffer).await.unwrap();
                // Not the resets of the rubbish, nor the question for resources.
                if buffer[1] == Code::CHANGED.byte() {
                    return buffer[..len].to_vec();
                }
            }
        });
        let expected = [
            b"\x61\x44\x00\x01\x07\xffReceived 'alive:",
            uid.as_bytes(),
            b"'",
        ]
        .concat();
        assert_eq!(answer.await.unwrap(), expected);
        let announced = bench
            .report(|report| match report {
                Report::Announce { uid, .. } => Some(uid.to_string()),
                _ => None,
            })
            .await;
        assert_eq!(announced, uid);
    }
    assert!(bench.admin.metrics().contains("malformed"));
}

#[tokio::test]
async fn an_address_that_sends_too_much_keeps_nobody_from_being_heard() {
    let bench = Bench::with(Config {
        listen: "0.0.0.0:0".parse().unwrap(),
        max_datagrams_per_address: 5.try_into().unwrap(),
        ..Config::default()
    });
    let port = bench.address.port();
    let loud = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dropped = timeout(PATIENCE, async {
        while !bench.admin.metrics().contains("sort=\"address\"") {
            loud.send_to(b"\x40\x00\x00\x01", ("127.0.0.1", port))
                .await
                .unwrap();
            tokio::task::yield_now().await;
        }
    });
    dropped.await.expect("all of a flood was taken");
    let quiet = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let alive = post(1, "alive", "alive:quiet");
    quiet.send_to(&alive, ("127.0.0.1", port)).await.unwrap();
    let mut answer = [0; 100];
    timeout(PATIENCE, quiet.recv(&mut answer))
        .await
        .expect("no answer")
        .unwrap();
    assert_eq!(answer[1], Code::CHANGED.byte());
}

/// The name of an interface, and its link-local address with the zone.
fn link_local() -> Option<(String, SocketAddr)> {
    let interfaces = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    interfaces.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let ip = u128::from_str_radix(fields.next()?, 16).ok()?;
        let zone = u32::from_str_radix(fields.next()?, 16).ok()?;
        let name = fields.nth(3)?;
        let address = SocketAddrV6::new(ip.into(), 0, 0, zone);
        let is_link_local = address.ip().is_unicast_link_local();
        is_link_local.then(|| (name.to_owned(), address.into()))
    })
}

#[tokio::test]
async fn a_node_with_a_link_local_address_is_answered_and_asked_on_its_interface() {
    let Some((interface, at)) = link_local() else {
        eprintln!("SKIPPED: no interface has a link-local address");
        return;
    };
    let config = Config {
        listen: "[::]:0".parse().unwrap(),
        interface: Some(interface),
        ..Config::default()
    };
    let mut bench = Bench::with(config);
    let socket = UdpSocket::bind(at).await.unwrap();
    let expected = socket.local_addr().unwrap().to_string();
    assert!(expected.contains('%'), "{expected}");
    let mut bridge = at;
    bridge.set_port(bench.address.port());
    // Nodes of other interfaces are not heard.
    let stranger = UdpSocket::bind("[::1]:0").await.unwrap();
    let datagram = b"\x51\x02\x00\x01\x07\xb5alive\xffalive:stranger";
    let sent = stranger.send_to(datagram, ("::1", bridge.port()));
    sent.await.unwrap();
    bench
        .shutdown
        .spawn(async move { serve_node(socket, bridge, "n1").await });
    let announced = bench.report(|report| match report {
        Report::Announce { uid, address, .. } => {
            assert_eq!(uid.as_str(), "n1");
            (*address == expected).then_some(())
        }
        _ => None,
    });
    announced.await;
    assert_eq!(bench.reading("led").await, json!(0));
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        interface: Some("wpan9".to_owned()),
        ..Config::default()
    };
    let opened = runtime
        .unwrap()
        .block_on(async { Doors::open(&config).map(drop) });
    let error = opened.unwrap_err().to_string();
    assert!(
        error.starts_with("there is no network interface wpan9"),
        "{error}"
    );
}

#[tokio::test]
async fn the_stop_answers_what_has_come_and_drops_the_reporter() {
    let mut bench = Bench::new("127.0.0.1:0");
    bench.shutdown.stop();
    assert!(bench.shutdown.drained(PATIENCE).await);
    assert_eq!(bench.reports.recv().await, None);
    assert!(bench.orders.is_closed());
}

/// The group that a test in a network of its own is about.
const GROUP: &str = "NODEBUS_TEST_GROUP";

/// In a network of its own, this time for each group: libcoap's server, which says nothing by itself,
/// is on the other side.
#[tokio::test]
async fn nodes_that_say_nothing_are_found_by_multicast() {
    if std::env::var_os(GROUP).is_some() {
        return find_the_silent_node().await;
    }
    let network = ["--map-root-user", "--net"];
    let mut can = std::process::Command::new("unshare");
    let can = can.args(network).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI has no network namespaces"
        );
        eprintln!("SKIPPED: this machine lets nobody make a network namespace");
        return;
    }
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/peers/coap_network.sh"
    );
    let runs = crate::firmware::ALL_COAP_NODES.map(|group| {
        let mut run = std::process::Command::new("unshare");
        run.args(network).arg(script).arg(group.to_string());
        run.arg(std::env::current_exe().unwrap());
        run.arg("driver::tests::nodes_that_say_nothing_are_found_by_multicast");
        run.args(["--exact", "--nocapture"]);
        run.env(GROUP, group.to_string());
        std::thread::spawn(move || (group, run.output().unwrap()))
    });
    for run in runs {
        let (group, output) = run.join().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{group}: {said}");
    }
}

async fn find_the_silent_node() {
    let mut bench = Bench::with(Config {
        listen: "[::]:5683".parse().unwrap(),
        multicast_interfaces: vec!["v0".to_owned()],
        multicast_interval: Duration::from_secs(10),
        ..Config::default()
    });
    let uid = bench
        .report(|report| match report {
            Report::Announce { uid, .. } => Some(uid.to_string()),
            _ => None,
        })
        .await;
    let ip: std::net::IpAddr = uid.parse().expect("a node is called by its address");
    assert!(!ip.is_multicast());
    let paths = bench
        .report(|report| match report {
            Report::Resources { resources, .. } => Some(resources.clone()),
            _ => None,
        })
        .await;
    assert!(paths.iter().any(|resource| resource.path == "time"));
    // And the bridge is found by others: libcoap's client asks the group for a directory.
    let shown = tokio::task::spawn_blocking(ask_for_directories).await;
    assert_eq!(shown.unwrap().trim(), r#"</rd>;rt="core.rd";ct=40"#);
    bench.shutdown.stop();
}

/// What `coap-client` hears on the other side within more than the leisure.
fn ask_for_directories() -> String {
    let group = std::env::var(GROUP).unwrap();
    let place = match &*group {
        // One of each link, so it has a zone.
        "ff02::fd" => "[ff02::fd%v1]".to_owned(),
        group if group.contains(':') => format!("[{group}]"),
        group => group.to_owned(),
    };
    let other = std::env::var("OTHER").unwrap();
    let mut ask = std::process::Command::new("nsenter");
    ask.args(["--target", &other, "--net", "coap-client-notls", "-N"]);
    let uri = format!("coap://{place}/.well-known/core?rt=core.rd*");
    let output = ask.args(["-B", "8", &uri]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A CoAP message to the bridge, by hand: Confirmable POST.
fn post(mid: u16, path: &str, payload: &str) -> Vec<u8> {
    let [high, low] = mid.to_be_bytes();
    let option = 0xB0 | u8::try_from(path.len()).unwrap();
    let header = [0x40, 2, high, low, option];
    [&header, path.as_bytes(), b"\xff", payload.as_bytes()].concat()
}

/// A node that says what it is told to.
struct Speaker {
    socket: UdpSocket,
    mid: u16,
    buffer: [u8; 2048],
}

impl Speaker {
    async fn new(bench: &Bench) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(bench.address).await.unwrap();
        let (mid, buffer) = (0, [0; 2048]);
        Self {
            socket,
            mid,
            buffer,
        }
    }

    /// Gives the Message ID.
    async fn post(&mut self, path: &str, payload: &str) -> u16 {
        self.mid = self.mid.wrapping_add(1);
        let post = post(self.mid, path, payload);
        self.socket.send(&post).await.unwrap();
        self.mid
    }

    /// The next acknowledgement that is not empty: its Message ID and its code.
    async fn next(&mut self) -> (u16, u8) {
        let found = timeout(PATIENCE, async {
            loop {
                let len = self.socket.recv(&mut self.buffer).await.unwrap();
                if let [0x60, code, high, low, ..] = self.buffer[..len]
                    && code > 0
                {
                    return (u16::from_be_bytes([high, low]), code);
                }
            }
        });
        found.await.expect("no answer came")
    }

    /// The code of the answer to this one.
    async fn answer(&mut self, mid: u16) -> u8 {
        loop {
            let (of, code) = self.next().await;
            if of == mid {
                return code;
            }
        }
    }

    async fn alive(&mut self) -> u8 {
        let mid = self.post("alive", "alive:n").await;
        self.answer(mid).await
    }
}

#[tokio::test]
async fn while_the_bus_is_behind_pushes_wait_and_signs_of_life_do_not() {
    // One node does the work of many.
    let bench = Bench::with(Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        max_datagrams_per_address: NonZeroU32::MAX,
        ..Config::default()
    });
    let mut node = Speaker::new(&bench).await;
    assert_eq!(node.alive().await, 0x44);
    // Nobody takes reports: they fill their queue, then the bridge's.
    let refused = loop {
        for _ in 0..32 {
            node.post("server", "t:1").await;
        }
        let alive = node.post("alive", "alive:n").await;
        match node.next().await {
            (mid, code) if mid == alive => assert_eq!(code, 0x44),
            (_, code) => break code,
        }
    };
    assert_eq!(refused, 0xA3, "5.03 once the bus stays behind");
    // The bus catches up.
    let (mut reports, settled) = (bench.reports, bench.settled);
    bench.shutdown.spawn(async move {
        for taken in 1.. {
            if reports.recv().await.is_none() {
                return;
            }
            settled.send_replace(taken);
        }
    });
    let taken = timeout(PATIENCE, async {
        loop {
            let mid = node.post("server", "t:2").await;
            let answer = timeout(Duration::from_millis(100), node.answer(mid));
            if answer.await == Ok(0x44) {
                return;
            }
        }
    });
    taken.await.expect("pushes are taken again");
}

#[tokio::test]
async fn the_stop_answers_pushes_when_they_are_settled() {
    let mut bench = Bench::new("127.0.0.1:0");
    let mut node = Speaker::new(&bench).await;
    assert_eq!(node.alive().await, 0x44);
    let mid = node.post("server", "t:1").await;
    bench.reading("t").await;
    bench.shutdown.stop();
    bench.settled.send_replace(u64::MAX);
    assert_eq!(node.answer(mid).await, 0x44);
    assert_eq!(bench.reports.recv().await, None, "the reporter is dropped");
}
