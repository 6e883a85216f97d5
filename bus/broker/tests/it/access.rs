//! Who gets in, and who may do what.

use bus_broker::Role;
use rcgen::ExtendedKeyUsagePurpose;

use tokio::net::TcpStream;

use crate::support::{Log, Options, Raw, authority, broker, certificate, revocations, start};

const STATE: &str = "b/nodes/n/res/led";
const SET: &str = "b/nodes/n/res/led/set";

/// PUBACK's reason code.
fn code(puback: (u8, Vec<u8>)) -> u8 {
    assert_eq!(puback.0, 0x40);
    puback.1.get(2).copied().unwrap_or(0)
}

#[tokio::test]
async fn each_role_publishes_what_it_may() {
    let broker = broker(Role::Viewer).await;
    let table = [
        (Role::Bridge, STATE, SET),
        (Role::Bridge, "b/bridges/me/status", "b/bridges/you/status"),
        (Role::Dashboard, SET, STATE),
        (Role::Operator, "b/nodes/n/cmd/ping", "b/events"),
        (Role::Node, "b/nodes/me/status", "b/nodes/you/status"),
        (Role::Admin, "anything", "$SYS/x"),
    ];
    for (role, allowed, refused) in table {
        let mut client = broker.role(role, "me").await;
        client.publish(5, allowed, b"x", 1, 1, false).await;
        assert_eq!(code(client.packet().await), 0, "{role} {allowed}");
        // A topic of the broker's own is refused by its name, whoever asks.
        let expected = if refused.starts_with('$') { 0x90 } else { 0x87 };
        client.publish(5, refused, b"x", 1, 2, false).await;
        assert_eq!(code(client.packet().await), expected, "{role} {refused}");
        client.publish(5, refused, b"x", 2, 3, false).await;
        let (first, body) = client.packet().await;
        assert_eq!((first, &body[..3]), (0x50, &[0, 3, expected][..]));
        // QoS 0 is dropped and the client stays.
        client.publish(5, refused, b"x", 0, 0, false).await;
        assert_eq!(client.ping().await, []);
    }
    let mut viewer = broker.role(Role::Viewer, "me").await;
    viewer.publish(5, SET, b"x", 1, 1, false).await;
    assert_eq!(code(viewer.packet().await), 0x87);
    // MQTT 3.1.1 has no word for it.
    let mut old = broker.v4("old").await;
    old.publish(4, SET, b"x", 0, 0, false).await;
    old.closed().await;
    assert!(broker.metric("bus_broker_refused_total", "publish") >= 17.0);
}

#[tokio::test]
async fn each_role_subscribes_to_what_it_may() {
    let broker = broker(Role::Viewer).await;
    let table = [
        (Role::Bridge, "b/nodes/+/res/+/set", "b/#"),
        (Role::Dashboard, "b/#", "#"),
        (Role::Operator, "b/replies/#", "$SYS/#"),
        (Role::Viewer, "b/#", "other"),
        (Role::Node, "b/nodes/me/res/+/set", "b/nodes/+/res/+/set"),
        (Role::Admin, "$SYS/#", "$other"),
    ];
    for (role, allowed, refused) in table {
        let mut client = broker.role(role, "me").await;
        assert_eq!(
            client.subscribe(5, 1, allowed, 1).await,
            1,
            "{role} {allowed}"
        );
        assert_eq!(
            client.subscribe(5, 2, refused, 1).await,
            0x87,
            "{role} {refused}"
        );
        // Of a Shared Subscription, what it is of counts.
        for (filter, code) in [(allowed, 1), (refused, 0x87)] {
            let shared = format!("$share/g/{filter}");
            assert_eq!(client.subscribe(5, 3, &shared, 1).await, code, "{shared}");
        }
    }
    let mut old = broker.v4("old").await;
    assert_eq!(old.subscribe(4, 1, "#", 1).await, 0x80);
}

#[tokio::test]
async fn a_refusal_is_an_event() {
    let broker = broker(Role::Admin).await;
    let mut watcher = broker.v5("w").await;
    watcher.subscribe(5, 1, "b/events", 0).await;
    let mut viewer = broker.role(Role::Viewer, "eve").await;
    viewer.publish(5, SET, b"x", 0, 0, false).await;
    let event: serde_json::Value =
        serde_json::from_slice(&watcher.message().await.payload).unwrap();
    assert_eq!(event["type"], "auth_failed");
    assert_eq!(event["identity"], "viewer:eve");
    assert_eq!(event["asked_for"], SET);
}

#[tokio::test]
async fn a_client_identifier_belongs_to_its_name() {
    let broker = broker(Role::Viewer).await;
    let uri = Some("urn:nodebus:bridge:coap");
    for (id, refused) in [("coap", 0), ("coap:1", 0), ("ws", 0x85), ("coap2", 0x85)] {
        let mut client = broker.tls(uri).await.unwrap();
        let connack = client.try_connect(5, id, &Options::default()).await;
        assert_eq!(connack[1], refused, "{id}");
    }
    let mut client = broker.tls(uri).await.unwrap();
    let connack = client.try_connect(5, "", &Options::default()).await;
    assert!(connack.windows(5).any(|w| w == b"coap:"));
    let mut client = broker.tls(uri).await.unwrap();
    assert_eq!(
        client.try_connect(4, "ws", &Options::default()).await,
        [0, 2]
    );
}

#[tokio::test]
async fn nobody_takes_over_the_session_of_another_identity() {
    let broker = broker(Role::Viewer).await;
    let options = Options {
        is_kept: true,
        ..Options::default()
    };
    let mut bridge = broker.tls(Some("urn:nodebus:bridge:x")).await.unwrap();
    bridge.connect(4, "x", &options).await;
    let mut viewer = broker.tls(Some("urn:nodebus:viewer:x")).await.unwrap();
    assert!(!viewer.connect(4, "x", &options).await);
    let mut anonymous = broker.tcp().await;
    assert!(!anonymous.connect(4, "x", &options).await);
    assert_eq!(bridge.ping().await, []);
    assert_eq!(viewer.ping().await, []);
}

#[tokio::test]
async fn certificates_that_say_nothing_or_the_wrong_thing_are_refused() {
    let log = Log::capture();
    let broker = broker(Role::Viewer).await;
    let client_auth = ExtendedKeyUsagePurpose::ClientAuth;
    let uri = Some("urn:nodebus:admin:eve");
    let ours = &broker.authority;
    let past = |p: &mut rcgen::CertificateParams| p.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let future = |p: &mut rcgen::CertificateParams| p.not_before = rcgen::date_time_ymd(4000, 1, 1);
    let cases = [
        ("certificate_missing", None),
        (
            "certificate_unknown_issuer",
            Some(certificate(&authority(), uri, client_auth.clone(), |_| {})),
        ),
        (
            "certificate_expired",
            Some(certificate(ours, uri, client_auth.clone(), past)),
        ),
        (
            "certificate_not_valid_yet",
            Some(certificate(ours, uri, client_auth.clone(), future)),
        ),
        (
            "certificate_wrong_purpose",
            Some(certificate(
                ours,
                uri,
                ExtendedKeyUsagePurpose::ServerAuth,
                |_| {},
            )),
        ),
        (
            "no_role",
            Some(certificate(ours, None, client_auth.clone(), |_| {})),
        ),
        (
            "no_role",
            Some(certificate(
                ours,
                Some("urn:nodebus:root:eve"),
                client_auth,
                |_| {},
            )),
        ),
    ];
    let handshakes = "bus_broker_handshakes_total";
    for (result, identity) in cases {
        let before = broker.metric(handshakes, result);
        // With TLS 1.3 the client learns of it with its first read.
        if let Ok(mut client) = broker.tls_as(identity).await {
            client
                .try_send(&crate::support::connect(5, "eve", &Options::default()))
                .await;
            assert_eq!(client.closed().await, None);
        }
        broker
            .metric_reaches(handshakes, result, before + 1.0)
            .await;
        // Each with a line of its own, which says what was wrong and from where it came.
        let lines = log.take();
        let mut refused = lines.lines().filter(|line| line.contains("refused"));
        let line = refused
            .next()
            .unwrap_or_else(|| panic!("{result}: {lines:?}"));
        for word in ["INFO", "kind=\"certificate\"", "127.0.0.1", result] {
            assert!(line.contains(word), "no {word} in {line}");
        }
        assert_eq!(refused.next(), None);
    }
    assert_eq!(broker.metric(handshakes, "ok"), 0.0);
    assert!(broker.metric("bus_broker_refused_total", "certificate") >= 7.0);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let authority = authority();
    let list = revocations(&authority, &[7]);
    let broker = start(Role::Viewer, authority, Some(list), |_| {}).await;
    let identity = |serial: u64| {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let uri = Some("urn:nodebus:viewer:eve");
        let number = |p: &mut rcgen::CertificateParams| p.serial_number = Some(serial.into());
        Some(certificate(&broker.authority, uri, usage, number))
    };
    let mut good = broker.tls_as(identity(8)).await.unwrap();
    good.connect(5, "eve", &Options::default()).await;
    if let Ok(mut client) = broker.tls_as(identity(7)).await {
        assert_eq!(client.closed().await, None);
    }
    let handshakes = "bus_broker_handshakes_total";
    broker
        .metric_reaches(handshakes, "certificate_revoked", 1.0)
        .await;
}

#[tokio::test]
async fn only_tls_1_2_and_1_3_are_spoken() {
    let broker = broker(Role::Viewer).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tcp = TcpStream::connect(broker.started.mqtts).await.unwrap();
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let uri = Some("urn:nodebus:viewer:ann");
        let identity = certificate(&broker.authority, uri, usage, |_| {});
        let config = broker.client_config_of(Some(identity), &[version]);
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let name = "localhost".try_into().unwrap();
        let tls = connector.connect(name, tcp).await.unwrap();
        assert_eq!(tls.get_ref().1.protocol_version(), Some(version.version));
        let mut client = Raw::new(tls);
        client.connect(5, "ann", &Options::default()).await;
    }
}
