//! The certificates in use by programs that are not ours: mosquitto as server and as client, and
//! curl.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::command::{done, folder, json, peer, refused};

/// A program that serves until the test is over.
pub(crate) struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    /// Starts a program on a free port and waits until it listens there.
    fn start(program: &str, args: impl FnOnce(u16) -> Vec<String>) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = Command::new(program)
            .args(args(port))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("{program} can't be run ({error}): run scripts/install-test-deps")
        });
        let mut server = Self { child, port };
        for _ in 0..100_000 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            assert!(
                server.child.try_wait().unwrap().is_none(),
                "{program} ended"
            );
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("{program} doesn't listen");
    }

    /// openssl's server, which asks for a certificate, with those of `who`.
    pub(crate) fn openssl(dir: &Path, who: &str) -> Self {
        let file = |name: &str| dir.join(who).join(name).display().to_string();
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        Self::start("openssl", |port| {
            let port = port.to_string();
            let args = ["s_server", "-accept", &port, "-www", "-Verify", "1"];
            let with = ["-cert", &cert, "-key", &key, "-CAfile", &ca];
            let all = args.iter().chain(&with).chain(&["-verify_return_error"]);
            all.map(|arg| (*arg).to_owned()).collect()
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Has it read its files again.
    pub(crate) fn reload(&self) {
        let pid = self.child.id().to_string();
        assert!(peer("kill", &["-HUP", &pid]).status.success());
    }

    /// mosquitto, with the certificates of `broker/bus` and, when there are any, revocations.
    pub(crate) fn mosquitto(dir: &Path) -> Self {
        let bus = dir.join("broker/bus");
        Self::start(mosquitto(), |port| {
            let mut config = format!(
                "listener {port} 127.0.0.1\ncafile {0}/ca.pem\ncertfile {0}/cert.pem\n\
                 keyfile {0}/key.pem\nrequire_certificate true\nuse_identity_as_username true\n\
                 allow_anonymous false\n",
                bus.display()
            );
            if bus.join("crl.pem").exists() {
                config += &format!("crlfile {}/crl.pem\n", bus.display());
            }
            // It gives up root for a user who may not read the keys, unless told otherwise.
            config += "user root\n";
            let file = dir.join("mosquitto.conf");
            std::fs::write(&file, config).unwrap();
            vec!["-c".to_owned(), file.display().to_string()]
        })
    }

    /// Publishes as the identity in `who`, at the address `host`.
    pub(crate) fn publish(&self, dir: &Path, who: &str, host: &str) -> Output {
        let file = |name: &str| dir.join(who).join(name).display().to_string();
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        let port = self.port.to_string();
        let to = [
            "-h", host, "-p", &port, "-t", "greeting", "-m", "hello", "-q", "1",
        ];
        let with = ["--cafile", &ca, "--cert", &cert, "--key", &key];
        peer("mosquitto_pub", &[&to[..], &with].concat())
    }
}

fn mosquitto() -> &'static str {
    let place = "/usr/sbin/mosquitto";
    if Path::new(place).exists() {
        place
    } else {
        "mosquitto"
    }
}

#[test]
fn mosquitto_serves_and_logs_in_with_them() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    for kind in ["p256", "rsa", "ed25519"] {
        done(path, &["issue", "viewer", kind, "--key-type", kind]);
    }
    let server = Server::mosquitto(path);
    for who in [
        "viewer/viewer",
        "bridge/coap",
        "viewer/p256",
        "viewer/rsa",
        "viewer/ed25519",
    ] {
        for host in ["localhost", "127.0.0.1"] {
            let output = server.publish(path, who, host);
            assert!(output.status.success(), "{who}: {output:?}");
        }
    }
    // The certificate of a server can't log in.
    assert!(
        !server
            .publish(path, "broker/bus", "localhost")
            .status
            .success()
    );

    let shown = json(
        path,
        &["show", "--json", &format!("localhost:{}", server.port)],
    );
    let bus = json(path, &["show", "--json", "bus"]);
    assert_eq!(shown[0]["serial"], bus[0]["serial"]);
    drop(server);
    let said = refused(path, &["show", "localhost:1"], 1);
    assert!(said.contains("localhost:1 shows no certificate"), "{said}");
}

#[test]
fn mosquitto_refuses_the_revoked_and_takes_the_others() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    done(path, &["revoke", "viewer"]);
    let server = Server::mosquitto(path);
    let publish = |who| server.publish(path, who, "localhost").status.success();
    assert!(publish("operator/operator"));
    assert!(!publish("viewer/viewer"));
    done(path, &["issue", "viewer", "viewer", "--force"]);
    assert!(publish("viewer/viewer"), "made anew");
}

#[test]
fn curl_trusts_the_authority_and_shows_its_certificate() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    done(path, &["issue", "dashboard-server", "page"]);
    let file = |name: &str| path.join(name).display().to_string();
    let ca = file("ca/ca.pem");
    let server = Server::openssl(path, "dashboard-server/page");
    let get = |anchors: &str, who: &str| {
        let url = format!("https://localhost:{}/", server.port);
        let (cert, key) = (
            file(&format!("{who}/cert.pem")),
            file(&format!("{who}/key.pem")),
        );
        let with = ["--cacert", anchors, "--cert", &cert, "--key", &key];
        let output = peer(
            "curl",
            &[&["-sS", "--max-time", "20", &url][..], &with].concat(),
        );
        output.status.success()
    };
    assert!(get(&ca, "operator/operator"));
    assert!(!get(&ca, "dashboard-server/page"), "a server is no client");
    let elsewhere = folder();
    done(elsewhere.path(), &["init"]);
    let other = elsewhere.path().join("ca/ca.pem").display().to_string();
    assert!(!get(&other, "operator/operator"), "a stranger's server");
}
