//! The settings of the bridge, section `[ws_bridge]`.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bus::bridge::{BridgeConfig, QueueConfig};
use bus::config::duration;
use bus::id::BridgeId;
use bus::origin::{InvalidOrigin, Origins};
use bus::session::{BusUrl, SessionConfig};
use bus::topic::Base;
use serde::{Deserialize, Serialize};

use crate::node::Limits;

/// What the bridge is told: raw, checked when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its name on the bus, and in its certificate.
    pub name: BridgeId,
    /// Where nodes connect; `[::]` takes IPv4 too.
    pub listen: SocketAddr,
    /// The broker.
    pub bus: BusUrl,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem`.
    pub pki: PathBuf,
    /// Where the topic tree stands.
    pub base: Base,
    /// The folder in which readings and events wait for the bus and what is known of nodes is kept;
    /// left out, both are in memory and end with the process.
    pub data: Option<PathBuf>,
    /// How many bytes of readings and events wait for the bus at the most, 64 KiB or more; the oldest
    /// are dropped. On disk they take about twice as much.
    pub max_queue_bytes: u64,
    /// A node is pinged so often, and lost when it leaves two pings unanswered; 1 s to 1 h.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// A node that is gone for so long is forgotten.
    #[serde(with = "duration")]
    pub forget_after: Duration,
    /// How many nodes are known at the most, connected or not.
    pub max_nodes: usize,
    /// How many connections are open at the most. Each costs about 25 KiB, with its node.
    pub max_connections: usize,
    /// How many of them come from one address (IPv6: one /64) at the most.
    pub max_connections_per_address: usize,
    /// A connection must have asked for its upgrade within this time.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// The longest message of a node, in bytes.
    pub max_message_bytes: usize,
    /// How many messages a second are read from a node, after a burst of twice as many; further
    /// ones wait in its own socket.
    pub max_messages_per_second: u32,
    /// Web pages that may act as nodes, as `https://host[:port]`. Nodes need no entry.
    pub allowed_origins: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: BridgeId::from_text("ws"),
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8083)),
            bus: BusUrl::default(),
            pki: PathBuf::from("pki"),
            base: Base::default(),
            data: None,
            max_queue_bytes: QueueConfig::default().max_bytes,
            ping_interval: Duration::from_secs(15),
            forget_after: Duration::from_secs(24 * 3600),
            max_nodes: 10_000,
            max_connections: 10_000,
            max_connections_per_address: 1_000,
            handshake_timeout: Duration::from_secs(10),
            max_message_bytes: 64 * 1024,
            max_messages_per_second: 100,
            allowed_origins: Vec::new(),
        }
    }
}

/// Why settings can't be taken; names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// A number or a time is out of its range.
    #[error("ws_bridge.{key} must be {range}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// An entry is no origin.
    #[error("ws_bridge.allowed_origins: {0}")]
    Origin(#[from] InvalidOrigin),
}

/// What the bridge works with.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) limits: Limits,
    pub(crate) origins: Origins,
}

impl Config {
    /// Checks what types alone can't, as starting does.
    ///
    /// # Errors
    /// The first setting that can't be taken.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        self.checked().map(drop)
    }

    /// What follows from settings that can be taken.
    pub(crate) fn checked(&self) -> Result<Checked, InvalidConfig> {
        let ranges = [
            (
                "ping_interval",
                (1..=3600).contains(&self.ping_interval.as_secs()),
                "1s to 1h",
            ),
            (
                "handshake_timeout",
                (1..=60).contains(&self.handshake_timeout.as_secs()),
                "1s to 60s",
            ),
            ("max_nodes", self.max_nodes > 0, "1 or more"),
            (
                "max_queue_bytes",
                self.max_queue_bytes >= 64 * 1024,
                "65536 or more",
            ),
            (
                "max_connections",
                (1..=1_000_000).contains(&self.max_connections),
                "1 to 1000000",
            ),
            (
                "max_connections_per_address",
                self.max_connections_per_address > 0,
                "1 or more",
            ),
            (
                "max_message_bytes",
                (256..=1024 * 1024).contains(&self.max_message_bytes),
                "256 to 1048576",
            ),
            (
                "max_messages_per_second",
                (1..=100_000).contains(&self.max_messages_per_second),
                "1 to 100000",
            ),
        ];
        if let Some(&(key, _, range)) = ranges.iter().find(|(_, ok, _)| !ok) {
            return Err(InvalidConfig::OutOfRange { key, range });
        }
        Ok(Checked {
            limits: Limits {
                ping_interval: self.ping_interval,
                messages_per_second: self.max_messages_per_second,
            },
            origins: Origins::new(&self.allowed_origins)?,
        })
    }

    pub(crate) fn bridge(&self) -> BridgeConfig {
        BridgeConfig {
            name: self.name.clone(),
            protocol: "websocket",
            base: self.base.clone(),
            max_time: None,
            forget_after: self.forget_after,
            max_nodes: self.max_nodes,
            queue: QueueConfig {
                folder: self.data.clone(),
                max_bytes: self.max_queue_bytes,
            },
        }
    }

    /// Will and filters are added by the bridge runtime.
    pub(crate) fn session(&self) -> SessionConfig {
        SessionConfig::new(self.bus.clone(), self.pki.clone(), self.name.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert!(Config::default().check().is_ok());
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        let error = |config: Config| config.check().unwrap_err().to_string();
        let config = Config {
            ping_interval: Duration::ZERO,
            ..Config::default()
        };
        assert!(error(config).contains("ws_bridge.ping_interval"));
        let config = Config {
            max_message_bytes: 0,
            ..Config::default()
        };
        assert!(error(config).contains("ws_bridge.max_message_bytes"));
        let config = Config {
            allowed_origins: vec!["example.org".to_owned()],
            ..Config::default()
        };
        assert!(error(config).contains("example.org"));
    }
}
