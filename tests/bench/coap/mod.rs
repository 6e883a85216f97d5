//! The CoAP bridge, as it runs beside a bus; and its endpoint alone beside libcoap and aiocoap.

mod endpoint;
mod fleet;
mod line;
mod load;
mod mosquitto_sub;
mod requests;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tokio::io::AsyncWriteExt;

pub(crate) use self::endpoint::serve;
pub(crate) use self::fleet::fleet;
pub(crate) use self::line::Addresses;
pub(crate) use self::load::load;
pub(crate) use self::requests::requests;
use crate::bus::client::{self, Client};
use crate::bus::{Broker, Setting, Software, Who, free_port, nodebus};
use crate::program::Program;

/// Where a program that has said where it listens does so; what follows `mark` on its line.
fn said(log: &Path, line: &str, mark: &str) -> Option<SocketAddr> {
    let said = std::fs::read_to_string(log).ok()?;
    let line = said.lines().find(|said| said.contains(line))?;
    line.rsplit_once(mark)?.1.trim().parse().ok()
}

/// A bridge and its bus, each in its process.
struct Bridge {
    program: Program,
    bus: Broker,
    address: SocketAddr,
}

impl Bridge {
    /// Starts both, as an operator runs them, and waits until the bridge has reached the bus.
    fn start(setting: &mut Setting) -> anyhow::Result<Self> {
        let bus = setting.start(Software::Nodebus)?;
        let log = bus.data.join("coap-bridge.log");
        let mut command = nodebus();
        let url = format!("mqtts://localhost:{}", bus.tls.port());
        let local = "127.0.0.1:0";
        command.args(["coap-bridge", "--listen", local, "--admin", local]);
        command.args(["--bus", &url, "--pki"]);
        command.arg(setting.pki("bridge/coap"));
        let kept = bus.data.join("coap-bridge");
        let data = format!("coap_bridge.data={}", kept.display());
        command.args(["--set", &data]);
        let mut program = Program::start("coap-bridge", &mut command, &log)?;
        let address = program.wait_for(|| {
            let text = std::fs::read_to_string(&log).ok()?;
            text.contains("connected to the bus").then_some(())?;
            said(&log, "CoAP", "address=")
        })?;
        Ok(Self {
            program,
            bus,
            address,
        })
    }

    /// A client of its bus, with mTLS, that gets every value that nodes push as `t`, with QoS 1.
    async fn subscriber(&self, setting: &Setting, id: &str) -> anyhow::Result<Client> {
        let dialer = setting.dialer(&self.bus, Who::Viewer, true)?;
        let mut client = dialer.client(id).await?;
        client.subscribe("nodebus/v1/nodes/+/res/t", 1).await?;
        Ok(client)
    }
}

/// Gives each payload to `take`, except what is retained from before; never ends.
async fn receive(mut client: Client, mut take: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let mut acks = Vec::new();
    loop {
        client
            .read(|first, body| {
                if first & 0xf0 != client::PUBLISH {
                    return;
                }
                let mut at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                if first & 0b110 != 0 {
                    acks.extend_from_slice(&[client::PUBACK, 2, body[at], body[at + 1]]);
                    at += 2;
                }
                if first & 1 == 0 {
                    take(&body[at..]);
                }
            })
            .await?;
        if !acks.is_empty() {
            client.stream.write_all(&acks).await?;
            client.stream.flush().await?;
            acks.clear();
        }
    }
}

/// libcoap's server.
fn libcoap(setting: &Setting) -> anyhow::Result<(Program, SocketAddr)> {
    let address = free_port()?;
    let mut command = Command::new("coap-server-notls");
    command.args(["-A", "127.0.0.1", "-p", &address.port().to_string()]);
    let log = setting.file("libcoap.log");
    let program = Program::start("libcoap", &mut command, &log)?;
    Ok((program, address))
}

/// A server on aiocoap.
fn aiocoap(setting: &Setting) -> anyhow::Result<(Program, SocketAddr)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let address = free_port()?;
    let mut command = Command::new(root.join(".venv/bin/python"));
    command.arg(root.join("tests/peers/coap_server.py"));
    command.args(["127.0.0.1", &address.port().to_string()]);
    let log = setting.file("aiocoap.log");
    let mut program = Program::start("aiocoap", &mut command, &log)?;
    program.wait_for(|| {
        let said = std::fs::read_to_string(&log).ok()?;
        said.contains("ready").then_some(())
    })?;
    Ok((program, address))
}

/// The endpoint of the bridge, without a bridge.
fn endpoint_alone(setting: &Setting) -> anyhow::Result<(Program, SocketAddr)> {
    let log = setting.file("endpoint.log");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--serve-endpoint");
    let mut program = Program::start("endpoint", &mut command, &log)?;
    let address = program.wait_for(|| said(&log, "coap://", "coap://"))?;
    Ok((program, address))
}
