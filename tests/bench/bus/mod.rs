//! The bus beside mosquitto: the same clients, the same certificates, in turns.
//!
//! mosquitto runs without an access list and with every queue open, so that it does the least work
//! and drops nothing. nodebus runs as an operator runs it: with its access list, and with a store.

pub(crate) mod client;
mod connections;
mod messages;
mod retained;

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use bus::tls::Identity;
use rustls::client::Resumption;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use self::client::Dialer;
pub(crate) use self::connections::connections;
pub(crate) use self::messages::messages;
pub(crate) use self::retained::retained;
use crate::program::Program;

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Software {
    Nodebus,
    Mosquitto,
}

const BOTH: [Software; 2] = [Software::Nodebus, Software::Mosquitto];

/// A broker that listens.
pub(crate) struct Broker {
    pub(crate) program: Program,
    plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// What it stores.
    pub(crate) data: PathBuf,
}

/// Who a client is; on the listener without TLS everybody is the bridge.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who {
    Bridge,
    Viewer,
}

/// Certificates for both brokers and their clients.
pub(crate) struct Setting {
    folder: TempDir,
    brokers: u32,
}

pub(crate) fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Setting {
    /// Issues the certificates.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        certs::quickstart(&folder.path().join("pki"), &[])?;
        Ok(Self { folder, brokers: 0 })
    }

    /// Where the identity of this name is.
    pub(crate) fn pki(&self, name: &str) -> PathBuf {
        self.folder.path().join("pki").join(name)
    }

    /// A file for this run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client's side of TLS; it takes up sessions of before if `resumes`.
    fn connector(&self, who: Who, resumes: bool) -> anyhow::Result<TlsConnector> {
        let folder = match who {
            Who::Bridge => "bridge/coap",
            Who::Viewer => "viewer/viewer",
        };
        let mut config = Identity::load(&self.pki(folder))?.client_config()?;
        if !resumes {
            config.resumption = Resumption::disabled();
        }
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// How this client reaches the broker.
    pub(crate) fn dialer(
        &self,
        broker: &Broker,
        who: Who,
        with_tls: bool,
    ) -> anyhow::Result<Dialer> {
        Ok(Dialer {
            address: if with_tls { broker.tls } else { broker.plain },
            tls: with_tls.then(|| self.connector(who, false)).transpose()?,
            name: match who {
                Who::Bridge => "coap",
                Who::Viewer => "viewer",
            },
        })
    }

    /// Starts a broker that stores nothing yet.
    pub(crate) fn start(&mut self, software: Software) -> anyhow::Result<Broker> {
        self.brokers += 1;
        let data = self.folder.path().join(format!("data-{}", self.brokers));
        std::fs::create_dir(&data)?;
        self.start_on(software, data)
    }

    /// Starts a broker on what one before it stored.
    fn start_on(&self, software: Software, data: PathBuf) -> anyhow::Result<Broker> {
        match software {
            Software::Nodebus => self.nodebus(data),
            Software::Mosquitto => self.mosquitto(data),
        }
    }

    fn nodebus(&self, data: PathBuf) -> anyhow::Result<Broker> {
        let log = data.join("log");
        let mut command = nodebus();
        let local = "127.0.0.1:0";
        command.args(["bus", "--listen", local, "--admin", local, "--pki"]);
        command.arg(self.pki("broker/bus"));
        let stored = format!("bus.data={}", data.display());
        for setting in [
            "bus.plain_listen=127.0.0.1:0",
            "bus.anonymous=bridge",
            &stored,
        ] {
            command.args(["--set", setting]);
        }
        let mut program = Program::start("nodebus", &mut command, &log)?;
        let (tls, plain) = program.wait_for(|| {
            let said = std::fs::read_to_string(&log).ok()?;
            let address = |name: &str| {
                let line = said.lines().find(|line| line.contains(name))?;
                line.rsplit_once("address=")?.1.trim().parse().ok()
            };
            Some((address("MQTT over mTLS")?, address("MQTT without TLS")?))
        })?;
        Ok(Broker {
            program,
            plain,
            tls,
            data,
        })
    }

    fn mosquitto(&self, data: PathBuf) -> anyhow::Result<Broker> {
        let (plain, tls) = (free_port()?, free_port()?);
        let file = data.join("mosquitto.conf");
        let mut text = String::from(
            "user root\nper_listener_settings false\nallow_anonymous true\nlog_type error\n\
             set_tcp_nodelay true\nmax_queued_messages 0\nmax_queued_bytes 0\n\
             max_inflight_messages 0\nmax_inflight_bytes 0\nsys_interval 0\n",
        );
        writeln!(
            text,
            "persistence true\npersistence_location {}/",
            data.display()
        )?;
        writeln!(text, "listener {} 127.0.0.1", plain.port())?;
        writeln!(
            text,
            "listener {} 127.0.0.1\nrequire_certificate true",
            tls.port()
        )?;
        let pki = self.pki("broker/bus");
        for (key, name) in [("cafile", "ca"), ("certfile", "cert"), ("keyfile", "key")] {
            writeln!(
                text,
                "{key} {}",
                pki.join(name).with_extension("pem").display()
            )?;
        }
        std::fs::write(&file, text)?;
        let mut command = Command::new(mosquitto_path());
        command.arg("-c").arg(&file);
        let mut program = Program::start("mosquitto", &mut command, &data.join("log"))?;
        program.wait_for(|| {
            let is_up = |address| TcpStream::connect(address).is_ok();
            (is_up(plain) && is_up(tls)).then_some(())
        })?;
        Ok(Broker {
            program,
            plain,
            tls,
            data,
        })
    }
}

/// The binary, without settings of whoever runs this.
pub(crate) fn nodebus() -> Command {
    let mut command = Command::new(program_path());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NODEBUS_")) {
        command.env_remove(name);
    }
    command
}

/// The binary that was built with this one, unless another is named.
fn program_path() -> PathBuf {
    std::env::var_os("BENCH_NODEBUS")
        .map_or_else(|| env!("CARGO_BIN_EXE_nodebus").into(), Into::into)
}

/// Debian keeps it where the paths of users don't go.
fn mosquitto_path() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/mosquitto");
    if debian.exists() {
        debian
    } else {
        "mosquitto".into()
    }
}

/// Runs a future on this thread alone, with tasks of its own.
pub(crate) fn on_one_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().context("no runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
