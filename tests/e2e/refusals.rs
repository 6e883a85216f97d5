//! Strangers and rubbish: refused, counted, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::{
    CoapNode, Identity, PATIENCE, Subscriber, System, WsNode, certgen, publish, run, wait_for,
};

/// Everything still works: what a well-behaved node pushes now arrives.
fn assert_alive(system: &System) {
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "alive");
    all.wait_for_member("nodes/alive/res/led", "v", &json!(0));
    node.push("temperature", "1.5°C");
    all.wait_for_member("nodes/alive/res/temperature", "v", &json!(1.5));
}

#[track_caller]
fn wait_for_metric(system: &System, name: &str, labels: &str) {
    wait_for(&format!("{name} {labels}"), || {
        (system.metric(name, labels) >= 1.0).then_some(())
    });
}

#[test]
fn a_client_without_a_certificate() {
    let system = System::start(&[]);
    let viewer = system.identity("viewer", "viewer");
    let mut command = Command::new("mosquitto_pub");
    command.args([
        "-h",
        "localhost",
        "-p",
        &viewer.port.to_string(),
        "-t",
        "x",
        "-m",
        "x",
        "--cafile",
    ]);
    let (code, _, err) = run(command.arg(viewer.folder.join("ca.pem")));
    assert_ne!(code, 0, "{err}");
    wait_for_metric(
        &system,
        "bus_broker_handshakes_total",
        "certificate_missing",
    );
    assert_alive(&system);
}

#[test]
fn a_certificate_of_another_authority() {
    let system = System::start(&[]);
    let other = tempfile::tempdir().unwrap();
    assert_eq!(certgen(other.path(), &["bundle", "quickstart"]).0, 0);
    // The stranger trusts our bus, but the bus has no reason to trust the stranger.
    let stranger = Identity::new(system.mqtts().port(), other.path(), "operator", "operator");
    let ours = system.identity("viewer", "viewer").folder.join("ca.pem");
    let bundle = stranger.folder.join("ca.pem");
    std::fs::remove_file(&bundle).unwrap();
    std::fs::copy(ours, &bundle).unwrap();
    let (code, err) = publish(&stranger, "nodebus/v1/nodes/x/res/led/set", "1", &[]);
    assert_ne!(code, 0, "{err}");
    wait_for_metric(
        &system,
        "bus_broker_handshakes_total",
        "certificate_unknown_issuer",
    );
    assert_alive(&system);
}

#[test]
fn a_revoked_certificate_loses_its_connection_and_gets_no_other() {
    let system = System::start(&[]);
    let alice = system.issue("operator", "alice");
    // It connects again by itself when it is put out.
    let connected = Subscriber::start(&alice, "nodebus/v1/#", &[]);
    system.certgen(&["revoke", "alice"]);
    wait_for_metric(
        &system,
        "bus_broker_handshakes_total",
        "certificate_revoked",
    );
    let before = connected.messages().len();
    assert_alive(&system);
    assert_eq!(
        connected.messages().len(),
        before,
        "the revoked client still hears the bus"
    );
}

#[test]
fn a_bridge_that_publishes_outside_its_topics() {
    let system = System::start(&[]);
    let events = system.subscribe("nodebus/v1/events");
    let all = system.subscribe("nodebus/v1/#");
    let bridge = system.issue("bridge", "attic");
    for topic in [
        "nodebus/v1/bridges/coap/status",
        "nodebus/v1/nodes/x/res/led/set",
        "elsewhere",
    ] {
        let (_, err) = publish(&bridge, topic, "forged", &["-V", "mqttv5", "-d"]);
        assert!(
            err.contains("135") || err.to_lowercase().contains("not authorized"),
            "{topic}: {err}"
        );
    }
    let (_, err) = publish(
        &bridge,
        "nodebus/v1/bridges/attic/status",
        "{}",
        &["-V", "mqttv5"],
    );
    assert_eq!(err, "", "its own topics are open to it");
    all.wait_for("bridges/attic/status", |_| Some(()));
    assert!(
        all.messages()
            .iter()
            .all(|(_, _, payload)| payload != "forged")
    );
    events.wait_for_member("events", "type", &json!("auth_failed"));
    wait_for_metric(&system, "bus_broker_refused_total", "publish");
}

#[test]
fn a_viewer_that_publishes() {
    let system = System::start(&[]);
    let mut node = CoapNode::start(system.coap(), "safe");
    let all = system.subscribe("nodebus/v1/#");
    all.wait_for_member("nodes/safe/res/led", "v", &json!(0));
    let viewer = system.identity("viewer", "viewer");
    let topic = "nodebus/v1/nodes/safe/res/led/set";
    let (_, err) = publish(&viewer, topic, "1", &["-V", "mqttv5", "-d"]);
    assert!(
        err.contains("135") || err.to_lowercase().contains("not authorized"),
        "{err}"
    );
    let (_, _) = publish(&viewer, topic, "1", &["-V", "mqttv311"]);
    // So may nobody on the open port of this machine.
    let mqtt = system.mqtt();
    let mut command = Command::new("mosquitto_pub");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &mqtt.port().to_string(),
        "-q",
        "1",
        "-V",
        "mqttv5",
    ]);
    let (_, _, err) = run(command.args(["-t", topic, "-m", "1"]));
    assert!(err.to_lowercase().contains("not authorized"), "{err}");
    node.push("temperature", "2.5°C");
    all.wait_for_member("nodes/safe/res/temperature", "v", &json!(2.5));
    assert!(
        all.messages()
            .iter()
            .all(|(t, _, _)| t != "nodes/safe/res/led/set")
    );
}

fn closed_by_the_other_side(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "still open: {error}"
        );
    }
}

#[test]
fn plain_bytes_on_the_tls_port() {
    let system = System::start(&[]);
    let mut stream = TcpStream::connect(system.mqtts()).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    closed_by_the_other_side(stream);
    wait_for_metric(&system, "bus_broker_handshakes_total", "\"tls\"");
    assert_alive(&system);
}

#[test]
fn a_malformed_mqtt_packet() {
    let system = System::start(&[]);
    let watching = system.subscribe("nodebus/v1/#");
    // A CONNECT of MQTT 3.1.1, then a PUBLISH with QoS 3 [MQTT-3.3.1-4].
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x";
    let mut stream = TcpStream::connect(system.mqtt()).unwrap();
    stream.write_all(connect).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream.write_all(b"\x36\x05\x00\x01a\x00\x01").unwrap();
    closed_by_the_other_side(stream);
    wait_for_metric(&system, "bus_broker_malformed_packets_total", "");
    for rubbish in [
        &b"\xff\xff\xff\xff\xff\xff"[..],
        b"\x10\xff\xff\xff\xff\x7f",
        b"\x00\x00",
        b"\x30\x01\x00",
    ] {
        let mut stream = TcpStream::connect(system.mqtt()).unwrap();
        stream.write_all(rubbish).unwrap();
        closed_by_the_other_side(stream);
    }
    let mut node = CoapNode::start(system.coap(), "on");
    watching.wait_for_member("nodes/on/res/led", "v", &json!(0));
    node.push("temperature", "3.5°C");
    watching.wait_for_member("nodes/on/res/temperature", "v", &json!(3.5));
}

#[test]
fn malformed_coap_datagrams() {
    let system = System::start(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let many_options = [&[0x40, 1, 0, 9][..], &[0x11, b'a'].repeat(700)].concat();
    let rubbish: [&[u8]; 7] = [
        b"",
        b"\x00",
        b"\x40",
        b"\xff\xff\xff\xff",
        b"\x4f\x01\x00\x01",
        b"\x40\x01\x00\x02\xff",
        &many_options,
    ];
    for datagram in rubbish {
        socket.send_to(datagram, system.coap()).unwrap();
    }
    wait_for_metric(&system, "coap_bridge_messages_dropped_total", "malformed");
    assert_alive(&system);
}

#[test]
fn malformed_websocket_messages() {
    let system = System::start(&[]);
    let mut good = WsNode::connect(system.ws(), "/node");
    good.send(&json!({"type": "hello", "uid": "good"}));
    for (message, word) in [
        ("not json", "JSON"),
        ("{\"type\":\"update\"}", "data"),
        ("[1]", "object"),
    ] {
        let mut bad = WsNode::connect(system.ws(), "/node");
        bad.send_text(message);
        let (code, reason) = bad.wait_for_close();
        assert_eq!(code, 1003, "{message}");
        assert!(reason.contains(word), "{message}: {reason}");
    }
    let all = system.subscribe("nodebus/v1/#");
    good.send(&json!({"type": "update", "data": {"count": 1}}));
    all.wait_for_member("nodes/good/res/count", "v", &json!(1));
    wait_for_metric(&system, "ws_bridge_messages_invalid_total", "");
}

#[test]
fn the_pages_streams_are_closed_to_other_sites() {
    let system = System::start(&[]);
    for path in ["/api/stream", "/ws"] {
        let status = upgrade(system.dashboard(), path, "http://evil.example");
        assert!(status.contains(" 403 "), "{path}: {status}");
        let own = format!("http://{}", system.dashboard());
        let status = upgrade(system.dashboard(), path, &own);
        assert!(status.contains(" 101 "), "{path}: {status}");
    }
}

/// The status line of an opening handshake with this Origin.
fn upgrade(address: SocketAddr, path: &str, origin: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    .unwrap();
    let mut head = [0; 64];
    let n = stream.read(&mut head).unwrap();
    String::from_utf8_lossy(&head[..n])
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_part_gets_no_key_but_its_own() {
    let system = System::start(&[]);
    let bridge = system.identity("bridge", "coap");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(Path::new(&bridge.folder).join("key.pem"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}
