//! Certificates, revocations and the access list change while clients are connected.

use std::io::Write;
use std::sync::Arc;

use bus::watch::stamp;
use bus_broker::Role;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::HandshakeKind;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;

use crate::process::Process;
use crate::support::{
    Options, Raw, TestBroker, TlsClient, authority, certificate, client_config, pem, revocations,
    start, string, tls_handshake,
};

const RELOADS: &str = "bus_broker_reloads_total";

fn labels(what: &str, result: &str) -> String {
    format!("what=\"{what}\",result=\"{result}\"")
}

impl TestBroker {
    fn replace(&self, name: &str, text: &str) {
        // As careful programs do it: the file is whole at every moment.
        let (new, path) = (self.pki.path().join("new"), self.pki.path().join(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    async fn reloaded(&self, what: &str, result: &str, count: f64) {
        let labels = labels(what, result);
        self.metric_reaches(RELOADS, &labels, count).await;
    }

    async fn viewer(&self, name: &str, serial: u64) -> Raw<TlsClient> {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let uri = format!("urn:nodebus:viewer:{name}");
        let identity = certificate(&self.authority, Some(&uri), usage, |params| {
            params.serial_number = Some(serial.into());
        });
        let mut client = self.tls_as(Some(identity)).await.unwrap();
        client.connect(5, name, &Options::default()).await;
        client
    }
}

#[tokio::test]
async fn a_revocation_ends_the_live_sessions_of_its_certificate_only() {
    let authority = authority();
    let none = revocations(&authority, &[]);
    let broker = start(Role::Viewer, authority, Some(none), |_| {}).await;
    let (mut good, mut bad) = (
        broker.viewer("good", 8).await,
        broker.viewer("bad", 7).await,
    );
    broker.replace("crl.pem", &revocations(&broker.authority, &[7]));
    assert_eq!(bad.closed().await, Some(0x87));
    assert_eq!(good.ping().await, []);
    assert!(broker.metric("bus_broker_refused_total", "certificate") >= 1.0);

    // A list that vanished or is broken revokes nothing less.
    broker.replace("crl.pem", "rubbish");
    broker.reloaded("certificates", "kept", 1.0).await;
    std::fs::remove_file(broker.pki.path().join("crl.pem")).unwrap();
    broker.reloaded("certificates", "kept", 2.0).await;
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let uri = Some("urn:nodebus:viewer:bad");
    let again = certificate(&broker.authority, uri, usage, |params| {
        params.serial_number = Some(7_u64.into());
    });
    if let Ok(mut again) = broker.tls_as(Some(again)).await {
        assert_eq!(again.closed().await, None);
    }
    let handshakes = "bus_broker_handshakes_total";
    broker
        .metric_reaches(handshakes, "certificate_revoked", 1.0)
        .await;
    assert_eq!(good.ping().await, []);
}

/// A client that was here comes back by its ticket, however many came meanwhile, and not after it
/// was revoked.
#[tokio::test]
async fn a_session_of_tls_is_taken_up_again_until_a_reload() {
    let authority = authority();
    let none = revocations(&authority, &[]);
    let broker = start(Role::Viewer, authority, Some(none), |_| {}).await;
    let identity = |name: &str, serial: u64| {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let uri = format!("urn:nodebus:viewer:{name}");
        certificate(&broker.authority, Some(&uri), usage, |params| {
            params.serial_number = Some(serial.into());
        })
    };
    let config = Arc::new(broker.client_config(Some(identity("one", 7))));
    let kind = async || {
        let mut client = broker.tls_with(config.clone()).await.unwrap();
        client.connect(5, "one", &Options::default()).await;
        client.into_stream().get_ref().1.handshake_kind()
    };
    assert_eq!(kind().await, Some(HandshakeKind::Full));
    assert_eq!(kind().await, Some(HandshakeKind::Resumed));
    for _ in 0..300 {
        broker.tls_as(Some(identity("other", 8))).await.unwrap();
    }
    assert_eq!(kind().await, Some(HandshakeKind::Resumed));

    broker.replace("crl.pem", &revocations(&broker.authority, &[7]));
    broker.reloaded("certificates", "ok", 1.0).await;
    if let Ok(mut again) = broker.tls_with(config.clone()).await {
        assert_eq!(again.closed().await, None);
    }
    let handshakes = "bus_broker_handshakes_total";
    broker
        .metric_reaches(handshakes, "certificate_revoked", 1.0)
        .await;
}

fn shown(client: Raw<TlsClient>) -> CertificateDer<'static> {
    let stream = client.into_stream();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_client() {
    let broker = start(Role::Viewer, authority(), None, |_| {}).await;
    let mut before = broker.viewer("before", 1).await;
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let uri = Some("urn:nodebus:broker:bus");
    let (renewed, key) = certificate(&broker.authority, uri, usage, |params| {
        params.not_after = rcgen::date_time_ymd(4000, 1, 1);
    });
    // Between the two files the pair does not fit: the old one stays.
    broker.replace("cert.pem", &pem(&renewed));
    broker.reloaded("certificates", "kept", 1.0).await;
    assert_ne!(shown(broker.viewer("between", 2).await), renewed);
    broker.replace("key.pem", &key.serialize_pem());
    broker.reloaded("certificates", "ok", 1.0).await;
    assert_eq!(shown(broker.viewer("after", 3).await), renewed);
    assert_eq!(before.ping().await, []);
    let expiry = "nodebus_certificate_expiry_seconds";
    assert!(broker.metric(expiry, "role=\"broker\",name=\"bus\"") > 60e9);
}

#[tokio::test]
async fn a_new_access_list_holds_for_live_sessions() {
    let acl = tempfile::tempdir().unwrap();
    let path = acl.path().join("acl.toml");
    let rules = |subscribe: &str| {
        let text = format!("[viewer]\npublish = [\"v/#\"]\nsubscribe = [{subscribe}]\n");
        std::fs::write(&path, text).unwrap();
    };
    rules("\"a/#\", \"b/#\"");
    let broker = start(Role::Viewer, authority(), None, |config| {
        config.acl = Some(path.clone());
    })
    .await;
    let (mut one, mut both) = (broker.viewer("one", 1).await, broker.tcp().await);
    assert_eq!(one.subscribe(5, 1, "a/x", 1).await, 1);
    let kept = Options {
        is_kept: true,
        properties: vec![0x11, 0, 0, 0, 60],
        ..Options::default()
    };
    both.connect(5, "both", &kept).await;
    both.subscribe(5, 1, "a/x", 1).await;
    both.subscribe(5, 2, "b/x", 1).await;

    std::fs::write(&path, "rubbish").unwrap();
    broker.reloaded("acl", "kept", 1.0).await;
    assert_eq!(both.ping().await, []);
    rules("\"a/#\"");
    // Who loses a subscription is told, and keeps the rest of its session.
    assert_eq!(both.closed().await, Some(0x87));
    assert_eq!(one.ping().await, []);
    let mut both = broker.tcp().await;
    assert!(both.connect(5, "both", &kept).await);
    assert_eq!(both.subscribe(5, 3, "b/x", 1).await, 0x87);
    let mut body = vec![0, 4, 0];
    body.extend(string("a/x"));
    both.send(&crate::support::packet(0xa2, &body)).await;
    assert_eq!(both.packet().await, (0xb0, vec![0, 4, 0, 0]));
}

#[tokio::test]
async fn a_subscription_that_was_withdrawn_meanwhile_brings_nothing_at_the_return() {
    let acl = tempfile::tempdir().unwrap();
    let path = acl.path().join("acl.toml");
    let rules = |subscribe: &str| {
        let text = format!(
            "[viewer]\nsubscribe = [{subscribe}]\n[admin]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n"
        );
        std::fs::write(&path, text).unwrap();
    };
    rules("\"a/#\", \"b/#\"");
    let broker = start(Role::Viewer, authority(), None, |config| {
        config.acl = Some(path.clone());
    })
    .await;
    let kept = Options {
        is_kept: true,
        ..Options::default()
    };
    let mut client = broker.tcp().await;
    client.connect(4, "c", &kept).await;
    client.subscribe(4, 1, "a", 1).await;
    client.subscribe(4, 2, "b", 1).await;
    client.send(&[0xe0, 0]).await;
    client.closed().await;
    let mut admin = broker.role(Role::Admin, "admin").await;
    admin.publish(5, "a", b"for you", 1, 1, false).await;
    admin.publish(5, "b", b"not for you", 1, 2, false).await;
    admin.ping().await;
    rules("\"a\"");
    broker.reloaded("acl", "ok", 1.0).await;
    let mut client = broker.tcp().await;
    assert!(client.connect(4, "c", &kept).await);
    assert_eq!(client.closed().await, None);
    let mut client = broker.tcp().await;
    assert!(client.connect(4, "c", &kept).await);
    assert_eq!(client.message().await.payload, b"for you");
    assert_eq!(client.ping().await, []);
}

#[tokio::test]
async fn sighup_reads_the_files_again_and_ends_nothing() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    let (mut client, _) = process.client("c", false).await;
    // Without it, files are read again when they changed only.
    for count in [1.0, 2.0] {
        process.signal("-HUP");
        for what in ["certificates", "acl"] {
            process
                .metric_reaches(RELOADS, &labels(what, "ok"), count)
                .await;
        }
    }
    assert_eq!(client.ping().await, []);
    let (mut next, _) = process.client("next", false).await;
    assert_eq!(next.ping().await, []);
}

/// The file is as it was for whoever looks at it only from outside, so SIGHUP alone has it read.
#[tokio::test]
async fn sighup_ends_the_live_sessions_of_a_revoked_certificate() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    let path = data.path().join("pki/crl.pem");
    let list = |serial: u64| {
        let mut list = revocations(&process.authority, &[serial]);
        list.extend(std::iter::repeat_n('\n', 4096 - list.len()));
        list
    };
    std::fs::write(&path, list(9)).unwrap();
    let certificates = labels("certificates", "ok");
    process.metric_reaches(RELOADS, &certificates, 1.0).await;
    let viewer = async |name: &str, serial: u64| {
        let uri = format!("urn:nodebus:viewer:{name}");
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let identity = certificate(&process.authority, Some(&uri), usage, |params| {
            params.serial_number = Some(serial.into());
        });
        let config = client_config(&process.authority, Some(identity));
        let tcp = TcpStream::connect(process.mqtts).await.unwrap();
        let mut client = Raw::new(tls_handshake(tcp, Arc::new(config)).await.unwrap());
        client.connect(5, name, &Options::default()).await;
        client
    };
    let (mut good, mut bad) = (viewer("good", 8).await, viewer("bad", 7).await);

    let before = stamp([path.clone()]);
    let mut file = std::fs::File::options().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all(list(7).as_bytes()).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(stamp([path]), before);
    assert_eq!(bad.ping().await, []);
    process.signal("-HUP");
    assert_eq!(bad.closed().await, Some(0x87));
    assert_eq!(good.ping().await, []);
}
