//! A broker with its own certificates, and a client that sends whatever a test wants.

mod pki;
mod raw;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::admin::Admin;
use bus::shutdown::Shutdown;
use bus::topic::Base;
use bus_broker::{Config, Limits, Role, Started};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::pki::client_config_of;
pub(crate) use self::pki::{
    Authority, authority, certificate, client_config, pem, revocations, server_pki,
};
pub(crate) use self::raw::{Options, Raw, connect, packet, publish, split, string};

/// No step of a test takes longer, unless something is wrong.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct TestBroker {
    pub(crate) started: Started,
    pub(crate) admin: Admin,
    pub(crate) shutdown: Shutdown,
    pub(crate) authority: Authority,
    pub(crate) pki: TempDir,
}

/// A broker whose plain listener gives everybody this role.
pub(crate) async fn broker(role: Role) -> TestBroker {
    broker_with(role, |_| {}).await
}

pub(crate) async fn broker_with(role: Role, edit: impl FnOnce(&mut Limits)) -> TestBroker {
    start(role, authority(), None, |config| edit(&mut config.limits)).await
}

/// A broker of this authority, with this revocation list.
pub(crate) async fn start(
    role: Role,
    authority: Authority,
    revoked: Option<String>,
    edit: impl FnOnce(&mut Config),
) -> TestBroker {
    let pki = tempfile::tempdir().unwrap();
    server_pki(&authority, pki.path());
    if let Some(revoked) = revoked {
        std::fs::write(pki.path().join("crl.pem"), revoked).unwrap();
    }
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = Config {
        listen: loopback,
        plain_listen: Some(loopback),
        anonymous: Some(role),
        pki: pki.path().to_owned(),
        base: Base::new("b").unwrap(),
        ..Config::default()
    };
    edit(&mut config);
    let (admin, shutdown) = (Admin::default(), Shutdown::new());
    let started = bus_broker::start(config, &admin, &shutdown).await.unwrap();
    TestBroker {
        started,
        admin,
        shutdown,
        authority,
        pki,
    }
}

pub(crate) async fn tls_handshake(
    tcp: TcpStream,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<TlsClient> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, tcp).await
}

impl TestBroker {
    /// Ends the broker as SIGTERM does; its authority may issue for the next one.
    pub(crate) async fn stop(self) -> Authority {
        self.shutdown.stop();
        assert!(self.shutdown.drained(DEADLINE).await);
        assert_eq!(self.shutdown.failure(), None);
        self.authority
    }

    pub(crate) fn plain(&self) -> SocketAddr {
        self.started.mqtt.unwrap()
    }

    /// A TCP connection without a byte sent.
    pub(crate) async fn tcp(&self) -> Raw<TcpStream> {
        Raw::new(TcpStream::connect(self.plain()).await.unwrap())
    }

    /// Whether a client gets in now.
    pub(crate) async fn tries(&self, client_id: &str) -> bool {
        let mut raw = self.tcp().await;
        raw.try_send(&connect(4, client_id, &Options::default()))
            .await
            && raw
                .try_packet()
                .await
                .is_ok_and(|(first, body)| first == 0x20 && body == [0, 0])
    }

    /// A client of MQTT 3.1.1, connected, clean session, keep alive off.
    pub(crate) async fn v4(&self, client_id: &str) -> Raw<TcpStream> {
        let mut raw = self.tcp().await;
        raw.connect(4, client_id, &Options::default()).await;
        raw
    }

    /// A client of MQTT 5, connected, clean start, keep alive off.
    pub(crate) async fn v5(&self, client_id: &str) -> Raw<TcpStream> {
        let mut raw = self.tcp().await;
        raw.connect(5, client_id, &Options::default()).await;
        raw
    }

    /// A TLS connection with a client certificate with this URI.
    pub(crate) async fn tls(&self, uri: Option<&str>) -> std::io::Result<Raw<TlsClient>> {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let identity = certificate(&self.authority, uri, usage, |_| {});
        self.tls_as(Some(identity)).await
    }

    pub(crate) async fn tls_as(
        &self,
        identity: Option<(CertificateDer<'static>, KeyPair)>,
    ) -> std::io::Result<Raw<TlsClient>> {
        let config = Arc::new(self.client_config(identity));
        self.tls_with(config).await
    }

    /// With a configuration that may know sessions of TLS from before.
    pub(crate) async fn tls_with(
        &self,
        config: Arc<rustls::ClientConfig>,
    ) -> std::io::Result<Raw<TlsClient>> {
        let tcp = TcpStream::connect(self.started.mqtts).await?;
        tls_handshake(tcp, config).await.map(Raw::new)
    }

    /// The TLS handshake on a connection to whichever listener.
    pub(crate) async fn tls_over(
        &self,
        tcp: TcpStream,
        identity: Option<(CertificateDer<'static>, KeyPair)>,
    ) -> std::io::Result<TlsClient> {
        tls_handshake(tcp, Arc::new(self.client_config(identity))).await
    }

    pub(crate) fn client_config(
        &self,
        identity: Option<(CertificateDer<'static>, KeyPair)>,
    ) -> rustls::ClientConfig {
        self.client_config_of(identity, rustls::DEFAULT_VERSIONS)
    }

    pub(crate) fn client_config_of(
        &self,
        identity: Option<(CertificateDer<'static>, KeyPair)>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ClientConfig {
        client_config_of(&self.authority, identity, versions)
    }

    /// A client of MQTT 5 over mTLS with this role and name, connected.
    pub(crate) async fn role(&self, role: Role, name: &str) -> Raw<TlsClient> {
        let uri = format!("urn:nodebus:{role}:{name}");
        let mut raw = self.tls(Some(&uri)).await.unwrap();
        raw.connect(5, name, &Options::default()).await;
        raw
    }

    /// The sum of a metric over its values whose labels contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        metric(&self.admin.metrics(), name, label)
    }

    /// Waits until a metric is at least this.
    pub(crate) async fn metric_reaches(&self, name: &str, labels: &str, least: f64) {
        let reached = async {
            while self.metric(name, labels) < least {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, reached).await;
        assert!(
            waited.is_ok(),
            "{name}{{{labels}}} stays below {least}:\n{}",
            self.admin.metrics()
        );
    }

    /// Waits until a gauge is at most this.
    pub(crate) async fn metric_sinks(&self, name: &str, most: f64) {
        let sunk = async {
            while self.metric(name, "") > most {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, sunk).await;
        assert!(waited.is_ok(), "{name} stays above {most}");
    }

    /// A new client connects, subscribes, publishes and gets its message: the broker lives.
    pub(crate) async fn lives(&self) {
        let mut client = self.v4("are-you-alive").await;
        client.subscribe(4, 1, "alive", 1).await;
        client.publish(4, "alive", b"yes", 1, 7, false).await;
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.push(client.packet().await.0 & 0xf0);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0x30, 0x40]);
        client.send(&[0xe0, 0]).await;
    }
}

/// The sum of a metric over its values whose labels contain `label`, in what Prometheus reads.
pub(crate) fn metric(text: &str, name: &str, label: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let (key, value) = line.rsplit_once(' ')?;
        let (found, labels) = key.split_once('{').unwrap_or((key, ""));
        (found == name && labels.contains(label)).then_some(value)
    });
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

/// What the broker of a test logs, at INFO and above; each test has a thread of its own.
pub(crate) struct Log;

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Log {
    pub(crate) fn capture() -> Self {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(|| Self);
        // One for all, since what is enabled is remembered for all threads.
        subscriber.try_init().unwrap_or_default();
        Self
    }

    /// What was logged since the last time.
    pub(crate) fn take(&self) -> String {
        String::from_utf8(LOG.take()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) type TlsClient = tokio_rustls::client::TlsStream<TcpStream>;
