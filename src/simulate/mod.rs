//! `nodebus simulate`: nodes for people who try the system or load it.
//!
//! Each behaves as the firmwares do and goes over the network like any node; nothing here knows
//! more of the bridges than their addresses. It is no test double.

mod coap_node;
mod kinds;
mod model;
mod pace;
mod session;
mod stats;
mod ws_node;

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bus::shutdown::{GRACE, Shutdown};
use bus::time::{now, sleep_until};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

use crate::process::say;
use model::{Device, Firmware};
use pace::Pace;
use session::Session;
use stats::{Stats, count, plural};

/// Nodes are started one after the other, not in one burst.
const START_INTERVAL: Duration = Duration::from_millis(2);
/// How often the status line is written.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// More pushes a second than a node could make.
const MAX_RATE: f64 = 1000.0;

/// `nodebus simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many CoAP nodes [default: 3, or 0 with --ws]
    #[arg(long, value_name = "N")]
    coap: Option<usize>,
    /// How many WebSocket nodes [default: 1, or 0 with --coap]
    #[arg(long, value_name = "M")]
    ws: Option<usize>,
    /// How many values each node pushes a second
    #[arg(long, value_name = "RATE", default_value_t = 0.2)]
    rate: f64,
    /// Where CoAP nodes send [default: 127.0.0.1:5683, or 127.0.0.1:5684 with --psk]
    #[arg(long, value_name = "HOST:PORT")]
    coap_server: Option<String>,
    /// A file of keys, as `certgen psk` writes it: the CoAP nodes have its names and speak DTLS
    #[arg(long, value_name = "FILE")]
    psk: Option<PathBuf>,
    /// Where WebSocket nodes connect
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8083/node")]
    ws_server: String,
    /// Ends after this time, such as 30s or 5m; never when it is left out
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// The same seed makes the same nodes; another seed makes others beside them
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Nodes with the quirks of RIOT 2019.07: requests of 128 bytes at the most, no answer to pings, no
    /// memory for duplicates, no notifications, NULs behind values, and a LED that a long write kills;
    /// WebSocket nodes without a hello
    #[arg(long)]
    old_firmware: bool,
}

/// A fleet and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    coap: usize,
    ws: usize,
    rate: f64,
    coap_server: SocketAddr,
    /// By name; as many as there are CoAP nodes, or none.
    keys: Vec<(String, Vec<u8>)>,
    ws_server: String,
    seed: u64,
    firmware: Firmware,
}

impl Options {
    /// One node of every kind, for bridges in this process that listen at these addresses.
    pub(crate) fn demo(coap: SocketAddr, ws: SocketAddr) -> Self {
        Self {
            coap: model::COAP_KIND_COUNT,
            ws: model::WS_KIND_COUNT,
            rate: 0.2,
            coap_server: local(coap),
            keys: Vec::new(),
            ws_server: format!("ws://{}/node", local(ws)),
            // Not that of `nodebus simulate`, whose nodes may come besides.
            seed: 0,
            firmware: Firmware::New,
        }
    }

    /// What will be simulated, in one line.
    fn summary(&self) -> String {
        let nodes = |n: usize, what, server: &dyn Display| {
            (n > 0).then(|| format!("{} at {server}", plural(n as u64, what)))
        };
        let nodes = [
            nodes(self.coap, "CoAP node", &self.coap_server),
            nodes(self.ws, "WebSocket node", &self.ws_server),
        ];
        let nodes: Vec<_> = nodes.into_iter().flatten().collect();
        let rate = self.rate;
        format!(
            "simulating {}, each pushing {rate} values a second",
            nodes.join(" and ")
        )
    }
}

/// An address that can be sent to, for one that is listened on.
fn local(listens: SocketAddr) -> SocketAddr {
    if listens.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, listens.port()))
    } else {
        listens
    }
}

fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    bus::config::duration::deserialize(text.into_deserializer())
}

/// Runs a fleet until it is told to stop, or its time is over.
///
/// # Errors
/// The options make no sense, or the CoAP server's name is not known.
pub(crate) async fn run(args: Args, shutdown: &Shutdown) -> anyhow::Result<()> {
    let options = args.options().await?;
    let stats = start(&options, shutdown)?;
    say(options.summary());
    let end = args.duration.map(|duration| now().mono + duration);
    let server = options.coap_server.to_string();
    loop {
        tokio::select! {
            () = shutdown.stopping() => break,
            () = sleep_until(end) => shutdown.stop(),
            () = tokio::time::sleep(STATUS_INTERVAL) => say(stats.line(&server, now().wall)),
        }
    }
    shutdown.drained(GRACE).await;
    say(stats.line(&server, now().wall));
    Ok(())
}

impl Args {
    async fn options(&self) -> anyhow::Result<Options> {
        let keys = match &self.psk {
            Some(file) => coap_bridge::shared_keys(file)?,
            None => Vec::new(),
        };
        let (coap, ws) = match (self.coap, self.ws, &self.psk) {
            (None, ws, Some(_)) => (keys.len(), ws.unwrap_or(0)),
            (None, None, None) => (3, 1),
            (coap, ws, _) => (coap.unwrap_or(0), ws.unwrap_or(0)),
        };
        if self.psk.is_some() && coap > keys.len() {
            bail!(
                "there are {} keys for {coap} CoAP nodes: give --coap less",
                keys.len()
            );
        }
        let port = if self.psk.is_some() { 5684 } else { 5683 };
        let server = self.coap_server.clone();
        let server = server.unwrap_or_else(|| format!("127.0.0.1:{port}"));
        if coap + ws == 0 {
            bail!("there is nothing to simulate: give --coap N or --ws M");
        }
        if !(0.0..=MAX_RATE).contains(&self.rate) {
            bail!("--rate must be from 0 to {MAX_RATE} pushes a second");
        }
        Ok(Options {
            coap,
            ws,
            rate: self.rate,
            coap_server: resolve(&server).await?,
            keys,
            ws_server: self.ws_server.clone(),
            seed: self.seed,
            firmware: if self.old_firmware {
                Firmware::Old
            } else {
                Firmware::New
            },
        })
    }
}

async fn resolve(server: &str) -> anyhow::Result<SocketAddr> {
    let wrong = || {
        format!("--coap-server {server:?} can't be used: write host:port, such as localhost:5683")
    };
    let mut found = tokio::net::lookup_host(server).await.with_context(wrong)?;
    found.next().with_context(wrong)
}

/// Starts a fleet on `shutdown` and returns at once.
///
/// # Errors
/// The WebSocket server's address is no `ws://` URL.
pub(crate) fn start(options: &Options, shutdown: &Shutdown) -> anyhow::Result<Arc<Stats>> {
    if options.ws > 0 && !options.ws_server.starts_with("ws://") {
        bail!(
            "{:?} can't be used: write ws://host:port/node",
            options.ws_server
        );
    }
    let stats = Arc::new(Stats::default());
    let fleet = launch(options.clone(), stats.clone(), shutdown.clone());
    shutdown.spawn(fleet);
    Ok(stats)
}

/// Starts the nodes one after the other.
async fn launch(options: Options, stats: Arc<Stats>, shutdown: Shutdown) {
    let mut rng = SmallRng::seed_from_u64(options.seed);
    let url: Arc<str> = Arc::from(options.ws_server.as_str());
    for index in 0..options.coap.max(options.ws) {
        if shutdown.is_stopping() {
            return;
        }
        let at = now();
        if index < options.coap {
            let mut device = Device::coap(index, options.seed, options.firmware, at.wall);
            let mut session = None;
            if let Some((name, key)) = options.keys.get(index) {
                device = device.named(name);
                match Session::new(name, key.clone(), at.mono) {
                    Ok(new) => session = Some(new),
                    Err(error) => return stats.error(format!("no DTLS: {error}")),
                }
            }
            let pace = Pace::new(options.rate, at.mono, &mut rng);
            let (server, counters) = (options.coap_server, stats.clone());
            match coap_node::Node::new(device, server, session, pace, counters, &mut rng).await {
                Ok(node) => shutdown.spawn(node.run(shutdown.clone())),
                Err(error) => {
                    let why = format!("no further socket ({error}): allow more with `ulimit -n`");
                    return stats.error(why);
                }
            }
            count(&stats.coap_nodes);
        }
        if index < options.ws {
            let node = ws_node::Node {
                device: Device::ws(index, options.seed, options.firmware, at.wall),
                url: url.clone(),
                pace: Pace::new(options.rate, at.mono, &mut rng),
                stats: stats.clone(),
                rng: SmallRng::from_rng(&mut rng),
            };
            count(&stats.ws_nodes);
            shutdown.spawn(node.run(shutdown.clone()));
        }
        tokio::time::sleep(START_INTERVAL).await;
    }
}
