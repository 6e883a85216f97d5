//! A broker in a process of its own, which can be killed, told to stop, and weighed: this test's
//! program once more, or `nodebus bus` where [`BINARY`] names the binary.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bus::admin::Admin;
use bus::shutdown::{GRACE, Shutdown};
use bus::topic::Base;
use bus_broker::{Config, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::support::{Authority, DEADLINE, Options, Raw, authority, metric, server_pki};

/// Tells the other process where its data is.
const DATA: &str = "NODEBUS_TEST_DATA";

/// Names the binary `nodebus` (see `make soak`).
const BINARY: &str = "NODEBUS_BINARY";

/// Not a test: what the other process runs, as `nodebus bus` would.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests that start it"]
async fn the_other_process() {
    let Some(data) = std::env::var_os(DATA) else {
        return;
    };
    let data = Path::new(&data);
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        listen: loopback,
        plain_listen: Some(loopback),
        anonymous: Some(Role::Admin),
        pki: data.join("pki"),
        base: Base::new("b").unwrap(),
        data: Some(data.join("bus")),
        ..Config::default()
    };
    let (admin, shutdown) = (Admin::default(), Shutdown::new());
    let mut term = signal(SignalKind::terminate()).unwrap();
    admin.serve(loopback, &shutdown).await.unwrap();
    bus_broker::start(config, &admin, &shutdown).await.unwrap();
    for listener in admin.listeners() {
        // As the binary logs it.
        let (name, address) = (listener.name, listener.address);
        eprintln!("listening name={name:?} address={address}");
    }
    tokio::select! {
        _ = term.recv() => shutdown.stop(),
        () = shutdown.stopping() => {}
    }
    let is_clean = shutdown.drained(GRACE).await && shutdown.failure().is_none();
    std::process::exit(if is_clean { 0 } else { 1 });
}

/// What to run.
fn command(data: &Path) -> Command {
    let Some(binary) = std::env::var_os(BINARY) else {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["process::the_other_process", "--exact", "--ignored"])
            .arg("--nocapture")
            .env(DATA, data);
        return command;
    };
    let mut command = Command::new(binary);
    let any = "127.0.0.1:0";
    command
        .args(["bus", "--log", "info", "--listen", any, "--admin", any])
        .arg("--pki")
        .arg(data.join("pki"))
        .args(["--set", "bus.base=b", "--set", "bus.anonymous=admin"])
        .args(["--set", "bus.plain_listen=127.0.0.1:0", "--set"])
        .arg(format!("bus.data={}", data.join("bus").display()));
    command
}

/// Where the listener of this name is, once the log says so.
fn listening(log: &str, name: &str) -> Option<SocketAddr> {
    let word = format!("listening name={name:?} address=");
    let (_, rest) = log.split_once(&word)?;
    rest.split_once('\n')?.0.parse().ok()
}

pub(crate) struct Process {
    child: Child,
    pub(crate) plain: SocketAddr,
    pub(crate) mqtts: SocketAddr,
    admin: SocketAddr,
    pub(crate) authority: Authority,
}

impl Process {
    /// Starts it; what it keeps is in `data`, and is there for the next one.
    pub(crate) async fn start(data: &Path) -> Self {
        let authority = authority();
        server_pki(&authority, &data.join("pki"));
        let log = data.join("log");
        let child = command(data)
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let told = async {
            loop {
                let log = std::fs::read_to_string(&log).unwrap();
                let address = |name| listening(&log, name);
                if let (Some(plain), Some(mqtts), Some(admin)) = (
                    address("MQTT without TLS"),
                    address("MQTT over mTLS"),
                    address("admin"),
                ) {
                    return (plain, mqtts, admin);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (plain, mqtts, admin) = tokio::time::timeout(3 * DEADLINE, told).await.unwrap();
        Self {
            child,
            plain,
            mqtts,
            admin,
            authority,
        }
    }

    /// A client of MQTT 3.1.1, and whether its session was present.
    pub(crate) async fn client(&self, id: &str, is_kept: bool) -> (Raw<TcpStream>, bool) {
        let mut raw = Raw::new(TcpStream::connect(self.plain).await.unwrap());
        let options = Options {
            is_kept,
            ..Options::default()
        };
        let is_present = raw.connect(4, id, &options).await;
        (raw, is_present)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.unwrap()
    }

    /// As [`crate::support::metric`].
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let question = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(question).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        metric(&text, name, label)
    }

    /// Waits until a metric is at least this.
    pub(crate) async fn metric_reaches(&self, name: &str, label: &str, least: f64) {
        let reached = async {
            while self.metric(name, label).await < least {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, reached).await;
        assert!(waited.is_ok(), "{name}{{{label}}} stays below {least}");
    }

    /// Its resident memory, bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
