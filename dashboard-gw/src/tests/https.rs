use std::sync::Arc;

use bus::tls::Identity;
use certs::{Existing, Pki, Request, Surroundings};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::rig::{Rig, rig_with, within};
use crate::Config;

/// A gateway with a certificate for browsers, and the PKI that made it.
struct Site {
    rig: Rig,
    folder: TempDir,
    /// Of browsers that trust the authority.
    trust: Arc<ClientConfig>,
}

fn issue(folder: &TempDir, days: u32) {
    let mut surroundings = Surroundings::of_this_machine();
    let pki = Pki::new(folder.path());
    pki.init(&mut surroundings).unwrap();
    let request = Request {
        days: Some(days),
        existing: Existing::Replace,
        ..Request::new(certs::Identity::from_uri("urn:nodebus:dashboard-server:page").unwrap())
    };
    pki.issue(&request, &mut surroundings).unwrap();
}

impl Site {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        issue(&folder, 20);
        let pki = folder.path().join("dashboard-server/page");
        let trust = Identity::load(&pki).unwrap().client_config().unwrap();
        let config = Config {
            https_pki: Some(pki),
            ..Config::default()
        };
        Self {
            rig: rig_with(config).await,
            folder,
            trust: Arc::new(trust),
        }
    }

    /// A browser's connection.
    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.rig.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connected = within(TlsConnector::from(self.trust.clone()).connect(name, stream)).await;
        connected.unwrap()
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    let request = "GET /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("UID-n1") {
        let mut some = [0; 4096];
        let n = within(stream.read(&mut some)).await.unwrap();
        assert_ne!(n, 0, "{answer}");
        answer += &String::from_utf8_lossy(&some[..n]);
    }
    answer
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_browser() {
    let site = Site::start().await;
    let mut before = site.connect().await;
    assert!(ask(&mut before).await.starts_with("HTTP/1.1 200 "));
    let day = "nodebus_certificate_expiry_seconds{role=\"dashboard-server\",name=\"page\"} ";
    let left = |rig: &Rig| -> i64 {
        let text = rig.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(day));
        line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    };
    assert!(left(&site.rig) < 21 * 86_400);
    issue(&site.folder, 300);
    within(async { while shown(&site.connect().await) == shown(&before) {} }).await;
    assert!(left(&site.rig) > 299 * 86_400);
    // What was open goes on.
    ask(&mut before).await;

    // What can't be used changes nothing.
    let key = site.folder.path().join("dashboard-server/page/key.pem");
    std::fs::write(&key, "rubbish").unwrap();
    let mut after = site.connect().await;
    ask(&mut after).await;
    assert_ne!(shown(&after), shown(&before));
}

#[tokio::test]
async fn who_makes_no_handshake_makes_nobody_wait() {
    let site = Site::start().await;
    let silent = TcpStream::connect(site.rig.address).await.unwrap();
    let mut plain = TcpStream::connect(site.rig.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // An alert, or nothing at all.
    drop(within(plain.read_to_end(&mut answer)).await);
    assert!(!answer.starts_with(b"HTTP"));
    ask(&mut site.connect().await).await;
    drop(silent);
}

#[tokio::test]
async fn a_page_connects_from_its_own_https_origin() {
    let site = Site::start().await;
    let mut stream = site.connect().await;
    let host = format!("localhost:{}", site.rig.address.port());
    for (origin, status) in [("http", "403"), ("https", "101")] {
        let host = if origin == "https" {
            host.as_str()
        } else {
            "evil.example"
        };
        let request = format!(
            "GET /api/stream HTTP/1.1\r\nHost: localhost:{}\r\nOrigin: {origin}://{host}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            site.rig.address.port()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        within(stream.read_exact(&mut head)).await.unwrap();
        assert_eq!(head, format!("HTTP/1.1 {status}").as_bytes());
        stream = site.connect().await;
    }
}
