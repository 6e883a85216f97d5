//! A broker with its own certificates, and a client that sends whatever a test wants.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bus::admin::Admin;
use bus::shutdown::Shutdown;
use bus::topic::Base;
use bus_broker::{Config, Limits, Role, Started};
use bytes::{Buf, BytesMut};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// No step of a test takes longer, unless something is wrong.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    // Each its own, so that none is taken for another.
    let name: String = key.public_key_raw()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, key).unwrap()
}

pub(crate) fn certificate(
    authority: &Authority,
    uri: Option<&str>,
    usage: ExtendedKeyUsagePurpose,
    edit: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, KeyPair) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    if let Some(uri) = uri {
        let uri = SanType::URI(uri.try_into().unwrap());
        params.subject_alt_names.push(uri);
    }
    params.extended_key_usages = vec![usage];
    edit(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.der().clone(), key)
}

/// The revocation list of an authority, with these serial numbers, in PEM.
pub(crate) fn revocations(authority: &Authority, serials: &[u64]) -> String {
    let revoked = serials.iter().map(|&serial| RevokedCertParams {
        serial_number: serial.into(),
        revocation_time: rcgen::date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(4000, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(authority).unwrap().pem().unwrap()
}

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

/// Writes what a broker of this authority needs to prove itself into `folder`.
pub(crate) fn server_pki(authority: &Authority, folder: &Path) {
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let (server, key) = certificate(authority, None, usage, |_| {});
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    write("ca.pem", authority.pem());
    write("key.pem", key.serialize_pem());
    write("cert.pem", pem(&server));
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

/// TLS of a client that trusts the authority and shows this certificate.
pub(crate) fn client_config(
    authority: &Authority,
    identity: Option<(CertificateDer<'static>, KeyPair)>,
) -> rustls::ClientConfig {
    client_config_of(authority, identity, rustls::DEFAULT_VERSIONS)
}

fn client_config_of(
    authority: &Authority,
    identity: Option<(CertificateDer<'static>, KeyPair)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(bus::tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
        None => config.with_no_client_auth(),
    }
}

pub(crate) fn pem(der: &CertificateDer<'_>) -> String {
    use std::fmt::Write;
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut line = String::new();
    for chunk in der.chunks(3) {
        let mut bits = 0_u32;
        for i in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0));
        }
        for i in 0..4 {
            let digit = char::from(alphabet[(bits >> (18 - 6 * i) & 63) as usize]);
            line.push(if i <= chunk.len() { digit } else { '=' });
        }
        if line.len() == 64 {
            writeln!(text, "{line}").unwrap();
            line.clear();
        }
    }
    if !line.is_empty() {
        writeln!(text, "{line}").unwrap();
    }
    text + "-----END CERTIFICATE-----\n"
}

impl TestBroker {
    /// Ends the broker as SIGTERM does; its authority may issue for the next one.
    pub(crate) async fn stop(self) -> Authority {
        self.shutdown.stop();
        assert!(self.shutdown.drained(bus::shutdown::GRACE).await);
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

#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) is_kept: bool,
    pub(crate) keep_alive: u16,
    /// Topic, payload, QoS, retain.
    pub(crate) will: Option<(&'static str, &'static str, u8, bool)>,
    /// MQTT 5 properties of CONNECT and of the Will, without their length.
    pub(crate) properties: Vec<u8>,
    pub(crate) will_properties: Vec<u8>,
    /// User name and password.
    pub(crate) login: Option<(&'static str, &'static str)>,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    loop {
        let more = if len > 127 { 0x80 } else { 0 };
        bytes.push(u8::try_from(len & 127).unwrap() | more);
        len >>= 7;
        if len == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

/// Takes the first packet off the input: its first byte and its body.
pub(crate) fn split(input: &mut BytesMut) -> Option<(u8, Vec<u8>)> {
    let (&first, rest) = input.split_first()?;
    let mut len = 0;
    for (i, &byte) in rest.iter().enumerate() {
        len |= usize::from(byte & 127) << (7 * i);
        if byte & 128 != 0 {
            continue;
        }
        let body = rest[i + 1..].get(..len)?.to_vec();
        input.advance(i + 2 + len);
        return Some((first, body));
    }
    None
}

pub(crate) fn connect(level: u8, client_id: &str, options: &Options) -> Vec<u8> {
    let mut body = string("MQTT");
    let mut flags = if options.is_kept { 0 } else { 2 };
    if let Some((_, _, qos, retain)) = options.will {
        flags |= 4 | qos << 3 | u8::from(retain) << 5;
    }
    if options.login.is_some() {
        flags |= 0xc0;
    }
    body.extend([level, flags]);
    body.extend(options.keep_alive.to_be_bytes());
    let properties = |properties: &[u8], body: &mut Vec<u8>| {
        if level == 5 {
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend(properties);
        }
    };
    properties(&options.properties, &mut body);
    body.extend(string(client_id));
    if let Some((topic, payload, _, _)) = options.will {
        properties(&options.will_properties, &mut body);
        body.extend(string(topic));
        body.extend(string(payload));
    }
    if let Some((name, password)) = options.login {
        body.extend(string(name));
        body.extend(string(password));
    }
    packet(0x10, &body)
}

/// A PUBLISH that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) pid: u16,
    pub(crate) properties: Vec<u8>,
}

pub(crate) struct Raw<S> {
    stream: S,
    /// What was read from it and is no whole packet yet, or not asked for.
    input: BytesMut,
    level: u8,
    /// Messages that came before the answer to something else.
    early: VecDeque<(u8, Vec<u8>)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            level: 4,
            early: VecDeque::new(),
        }
    }

    pub(crate) fn into_stream(self) -> S {
        assert!(self.input.is_empty(), "something came that nobody read");
        self.stream
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// As `send`, where the broker may have closed already.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Cancel safe: what was read stays in `input`.
    async fn read_packet(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some(packet) = split(&mut self.input) {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// As `packet`, where the broker may end.
    pub(crate) async fn try_packet(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        match self.early.pop_front() {
            Some(early) => Ok(early),
            None => self.read_packet().await,
        }
    }

    /// The next packet: its first byte and its body.
    pub(crate) async fn packet(&mut self) -> (u8, Vec<u8>) {
        match self.early.pop_front() {
            Some(early) => early,
            None => self.fresh_packet().await,
        }
    }

    async fn fresh_packet(&mut self) -> (u8, Vec<u8>) {
        let read = tokio::time::timeout(DEADLINE, self.read_packet());
        read.await.expect("a packet in time").expect("a packet")
    }

    /// The reason code of a DISCONNECT, if one comes, before the end of the connection.
    pub(crate) async fn closed(&mut self) -> Option<u8> {
        let until_closed = async {
            let mut reason = None;
            while let Ok((first, body)) = self.read_packet().await {
                if first == 0xe0 {
                    reason = Some(body.first().copied().unwrap_or(0));
                }
            }
            reason
        };
        let closed = tokio::time::timeout(DEADLINE, until_closed).await;
        closed.expect("the connection ends")
    }

    /// Sends CONNECT and gives the body of the CONNACK.
    pub(crate) async fn try_connect(&mut self, level: u8, id: &str, options: &Options) -> Vec<u8> {
        self.level = level;
        self.send(&connect(level, id, options)).await;
        let (first, body) = self.packet().await;
        assert_eq!(first, 0x20);
        body
    }

    /// Connects; gives whether the session was present.
    pub(crate) async fn connect(&mut self, level: u8, id: &str, options: &Options) -> bool {
        let connack = self.try_connect(level, id, options).await;
        assert_eq!(connack[1], 0, "refused");
        connack[0] == 1
    }

    /// Subscribes and gives the code of the SUBACK; `options` is the byte behind the filter.
    pub(crate) async fn subscribe(&mut self, level: u8, pid: u16, filter: &str, options: u8) -> u8 {
        let mut body = pid.to_be_bytes().to_vec();
        if level == 5 {
            body.push(0);
        }
        body.extend(string(filter));
        body.push(options);
        self.send(&packet(0x82, &body)).await;
        loop {
            let (first, body) = self.fresh_packet().await;
            if first & 0xf0 == 0x30 {
                self.early.push_back((first, body));
                continue;
            }
            assert_eq!((first, &body[..2]), (0x90, &pid.to_be_bytes()[..]));
            return *body.last().unwrap();
        }
    }

    pub(crate) async fn publish(
        &mut self,
        level: u8,
        topic: &str,
        payload: &[u8],
        qos: u8,
        pid: u16,
        retain: bool,
    ) {
        self.send(&publish(level, topic, payload, qos, pid, retain, &[]))
            .await;
    }

    /// The next packet, which is a PUBLISH.
    pub(crate) async fn message(&mut self) -> Got {
        let (first, body) = self.packet().await;
        assert_eq!(first & 0xf0, 0x30, "{first:x} {body:?}");
        self.parse(first, &body)
    }

    pub(crate) fn parse(&self, first: u8, body: &[u8]) -> Got {
        let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let mut at = 2 + topic_len;
        let (qos, mut pid, mut properties) = ((first >> 1) & 3, 0, Vec::new());
        if qos > 0 {
            pid = u16::from_be_bytes([body[at], body[at + 1]]);
            at += 2;
        }
        if self.level == 5 {
            let len = usize::from(body[at]);
            assert!(len < 128);
            properties = body[at + 1..at + 1 + len].to_vec();
            at += 1 + len;
        }
        Got {
            topic: String::from_utf8(body[2..2 + topic_len].to_vec()).unwrap(),
            payload: body[at..].to_vec(),
            qos,
            retain: first & 1 == 1,
            dup: first & 8 == 8,
            pid,
            properties,
        }
    }

    /// Sends PINGREQ; gives everything that came before the answer to it.
    pub(crate) async fn ping(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.send(&[0xc0, 0]).await;
        let mut before = Vec::new();
        loop {
            match self.packet().await {
                (0xd0, _) => return before,
                other => before.push(other),
            }
        }
    }
}

pub(crate) fn publish(
    level: u8,
    topic: &str,
    payload: &[u8],
    qos: u8,
    pid: u16,
    retain: bool,
    properties: &[u8],
) -> Vec<u8> {
    let mut body = string(topic);
    if qos > 0 {
        body.extend(pid.to_be_bytes());
    }
    if level == 5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
    }
    body.extend(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}
