//! The system under test: all in one process, or a process per part.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Identity, Process, Subscriber, run, wait_for};

/// A port that nothing uses now.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub(super) fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub(super) fn nodebus() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodebus"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NODEBUS_")) {
        command.env_remove(name);
    }
    command
}

/// Runs certgen.
pub(crate) fn certgen(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_nodebus")).with_file_name("certgen");
    run(Command::new(binary).args(args).arg("--dir").arg(dir))
}

/// GET over plain HTTP/1.0: the status line and headers, and the body.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer
        .split_once("\r\n\r\n")
        .map(|(head, body)| (head.to_owned(), body.to_owned()))
}

/// The listeners that a system may have, by their names in the greeting.
const MTLS: &str = "MQTT over mTLS";
const PASSWORD: &str = "MQTT with password";
const WSS: &str = "MQTT over WSS";
const PLAIN: &str = "MQTT without TLS";
const WS: &str = "MQTT over WS";

/// `nodebus up` on free ports, with its own data folder.
pub(crate) struct System {
    pub(crate) process: Process,
    listeners: HashMap<String, SocketAddr>,
    data: tempfile::TempDir,
}

impl System {
    /// Starts it with further arguments and waits until it says that it is up.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_after(|_| {}, args)
    }

    /// The same, after its folder for certificates and keys was prepared.
    pub(crate) fn start_after(prepare: impl FnOnce(&Path), args: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        prepare(&data.path().join("pki"));
        let (process, listeners) = start_up(data.path(), args);
        Self {
            process,
            listeners,
            data,
        }
    }

    /// Starts it with the listeners that need a password: root, an admin, has the one `secret`.
    pub(crate) fn with_password(args: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        add_password(&data.path().join("pki"), "admin", "root", "secret");
        let open = ["bus.password_listen", "bus.wss_listen"].map(free);
        let args: Vec<_> = open
            .iter()
            .flatten()
            .map(String::as_str)
            .chain(args.iter().copied())
            .collect();
        let (process, listeners) = start_up(data.path(), &args);
        Self {
            process,
            listeners,
            data,
        }
    }

    /// Ends it without a warning and starts it again with the same data folder.
    pub(crate) fn kill_and_restart(&mut self) {
        self.process.kill();
        self.process.wait();
        (self.process, self.listeners) = start_up(self.data.path(), &[]);
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.listeners[name]
    }

    pub(crate) fn mqtts(&self) -> SocketAddr {
        self.address(MTLS)
    }

    pub(crate) fn password(&self) -> SocketAddr {
        self.address(PASSWORD)
    }

    pub(crate) fn mqtt_wss(&self) -> SocketAddr {
        self.address(WSS)
    }

    pub(crate) fn mqtt(&self) -> SocketAddr {
        self.address(PLAIN)
    }

    pub(crate) fn mqtt_ws(&self) -> SocketAddr {
        self.address(WS)
    }

    pub(crate) fn coap(&self) -> SocketAddr {
        self.address("CoAP")
    }

    pub(crate) fn coaps(&self) -> SocketAddr {
        self.address("CoAP over DTLS")
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.data.path().join("pki")
    }

    pub(crate) fn ws(&self) -> SocketAddr {
        self.address("WebSocket nodes")
    }

    pub(crate) fn dashboard(&self) -> SocketAddr {
        self.address("dashboard")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    pub(crate) fn identity(&self, role: &str, name: &str) -> Identity {
        Identity::new(
            self.mqtts().port(),
            &self.data.path().join("pki"),
            role,
            name,
        )
    }

    /// Issues a further certificate.
    pub(crate) fn issue(&self, role: &str, name: &str) -> Identity {
        self.certgen(&["issue", role, name]);
        self.identity(role, name)
    }

    /// Runs certgen on the system's certificates.
    #[track_caller]
    pub(crate) fn certgen(&self, args: &[&str]) -> String {
        let (code, out, err) = certgen(&self.data.path().join("pki"), args);
        assert_eq!(code, 0, "{out}{err}");
        out
    }

    /// Subscribes with the viewer's certificate.
    pub(crate) fn subscribe(&self, filter: &str) -> Subscriber {
        Subscriber::start(&self.identity("viewer", "viewer"), filter, &[])
    }

    /// The sum of a counter or gauge over all its labels that contain `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(self.admin(), name, labels)
    }
}

/// The arguments for any free port.
fn free(key: &str) -> [String; 2] {
    ["--set".to_owned(), format!("{key}=127.0.0.1:0")]
}

/// Gives a name a password by certgen.
pub(crate) fn add_password(pki: &Path, role: &str, name: &str, password: &str) {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), password).unwrap();
    let file = secret.path().to_str().unwrap();
    let args = ["passwd", "add", role, name, "--password-file", file];
    let (code, out, err) = certgen(pki, &args);
    assert_eq!(code, 0, "{out}{err}");
}

fn start_up(data: &Path, args: &[&str]) -> (Process, HashMap<String, SocketAddr>) {
    let mut command = nodebus();
    command.arg("up").arg("--data").arg(data);
    for key in [
        "admin.listen",
        "bus.listen",
        "bus.plain_listen",
        "coap_bridge.listen",
        "coap_bridge.dtls_listen",
        "ws_bridge.listen",
        "dashboard_gw.listen",
    ] {
        command.args(free(key));
    }
    command.args(args);
    let mut process = Process::start("nodebus up", &mut command);
    process.wait_for_line("the greeting", |line| line.contains("Stop:").then_some(()));
    let listeners = process
        .lines()
        .iter()
        .filter_map(|line| listener(line))
        .collect();
    (process, listeners)
}

pub(super) fn metric(admin: SocketAddr, name: &str, labels: &str) -> f64 {
    let (_, body) = http_get(admin, "/metrics").unwrap();
    body.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| series.split('{').next() == Some(name) && series.contains(labels))
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

/// `  <name>  <scheme>://<address>/...` of the greeting.
fn listener(line: &str) -> Option<(String, SocketAddr)> {
    let (name, url) = line.trim().rsplit_once(' ')?;
    let (_, rest) = url.split_once("://")?;
    let address = rest.split('/').next()?.parse().ok()?;
    Some((name.trim().to_owned(), address))
}

/// A process per part, on one machine, each with only its own key.
pub(crate) struct Distributed {
    pub(crate) bus: Process,
    pub(crate) coap_bridge: Process,
    pub(crate) dashboard_gw: Process,
    pub(crate) mqtts: u16,
    pub(crate) coap: u16,
    pub(crate) dashboard: u16,
    pki: tempfile::TempDir,
}

impl Distributed {
    /// Starts bus, CoAP bridge and dashboard gateway.
    pub(crate) fn start() -> Self {
        let pki = tempfile::tempdir().unwrap();
        let (code, out, err) = certgen(pki.path(), &["bundle", "quickstart"]);
        assert_eq!(code, 0, "{out}{err}");
        let (mqtts, coap, dashboard) = (free_port(), free_udp_port(), free_port());
        let bus = start_bus(pki.path(), mqtts);
        let coap_bridge = start_coap_bridge(pki.path(), mqtts, coap);
        let dashboard_gw = start_dashboard_gw(pki.path(), mqtts, dashboard);
        Self {
            bus,
            coap_bridge,
            dashboard_gw,
            mqtts,
            coap,
            dashboard,
            pki,
        }
    }

    pub(crate) fn identity(&self, role: &str, name: &str) -> Identity {
        Identity::new(self.mqtts, self.pki.path(), role, name)
    }

    pub(crate) fn subscribe(&self, filter: &str) -> Subscriber {
        Subscriber::start(&self.identity("viewer", "viewer"), filter, &[])
    }

    pub(crate) fn restart_bus(&mut self) {
        self.bus = start_bus(self.pki.path(), self.mqtts);
    }

    pub(crate) fn restart_coap_bridge(&mut self) {
        self.coap_bridge = start_coap_bridge(self.pki.path(), self.mqtts, self.coap);
    }

    /// A second CoAP bridge, of this name, and its port.
    pub(crate) fn second_coap_bridge(&self, name: &str) -> (Process, u16) {
        let (code, out, err) = certgen(self.pki.path(), &["issue", "bridge", name]);
        assert_eq!(code, 0, "{out}{err}");
        let port = free_udp_port();
        let pki = self.pki.path().join("bridge").join(name);
        let url = format!("mqtts://localhost:{}", self.mqtts);
        let name = format!("coap_bridge.name={name}");
        let process = part("coap-bridge", pki, port, &["--bus", &url, "--set", &name]);
        (process, port)
    }

    pub(crate) fn restart_dashboard_gw(&mut self) {
        self.dashboard_gw = start_dashboard_gw(self.pki.path(), self.mqtts, self.dashboard);
    }
}

fn part(name: &str, pki: PathBuf, listen: u16, args: &[&str]) -> Process {
    let admin = free_port();
    let mut command = nodebus();
    command.arg(name).arg("--pki").arg(pki).args(args);
    command.args(["--listen", &format!("127.0.0.1:{listen}")]);
    command.args(["--admin", &format!("127.0.0.1:{admin}")]);
    let process = Process::start(name, &mut command);
    wait_for(&format!("{name} to be ready"), || {
        let (code, _, _) =
            run(nodebus().args(["health", "--admin", &format!("127.0.0.1:{admin}")]));
        (code == 0).then_some(())
    });
    process
}

fn start_bus(pki: &Path, mqtts: u16) -> Process {
    part("bus", pki.join("broker/bus"), mqtts, &[])
}

fn start_coap_bridge(pki: &Path, mqtts: u16, coap: u16) -> Process {
    let url = format!("mqtts://localhost:{mqtts}");
    part(
        "coap-bridge",
        pki.join("bridge/coap"),
        coap,
        &["--bus", &url],
    )
}

fn start_dashboard_gw(pki: &Path, mqtts: u16, dashboard: u16) -> Process {
    let url = format!("mqtts://localhost:{mqtts}");
    part(
        "dashboard-gw",
        pki.join("dashboard/dashboard"),
        dashboard,
        &["--bus", &url],
    )
}

/// `nodebus simulate` at a running system.
pub(crate) struct Fleet(#[expect(dead_code, reason = "held so that it runs")] Process);

impl Fleet {
    /// CoAP nodes that speak DTLS.
    pub(crate) fn secure(system: &System, args: &[&str]) -> Self {
        let mut command = nodebus();
        command.arg("simulate").args(args);
        command.args(["--coap-server", &system.coaps().to_string()]);
        Self(Process::start("nodebus simulate", &mut command))
    }

    pub(crate) fn start(system: &System, args: &[&str]) -> Self {
        let mut command = nodebus();
        command.arg("simulate").args(args);
        command.args(["--coap-server", &system.coap().to_string()]);
        command.args(["--ws-server", &format!("ws://{}/node", system.ws())]);
        Self(Process::start("nodebus simulate", &mut command))
    }
}
