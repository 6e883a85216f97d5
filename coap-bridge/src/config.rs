//! The settings of the bridge, section `[coap_bridge]`.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bus::bridge::{BridgeConfig, QueueConfig};
use bus::config::duration;
use bus::id::BridgeId;
use bus::session::{BusUrl, SessionConfig};
use bus::topic::Base;
use serde::{Deserialize, Serialize};

use crate::allowance::Allowance;
use crate::dtls;
use crate::firmware::Rules;
use crate::metrics::Metrics;
use crate::network::Network;

/// One a second of each node that may be at an address.
const DATAGRAMS_PER_ADDRESS: NonZeroU32 = NonZeroU32::new(20_000).unwrap();

/// What the bridge is told: raw, checked when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its name on the bus, and in its certificate.
    pub name: BridgeId,
    /// Where nodes send to, and from where they are asked; `[::]` takes IPv4 too.
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
    /// A node that gives no sign of life for so long is offline; 1 s to 24 h.
    #[serde(with = "duration")]
    pub max_time: Duration,
    /// A node that is offline for so long is forgotten; 1 s or more.
    #[serde(with = "duration")]
    pub forget_after: Duration,
    /// A resource that neither pushes nor notifies is read so often; 1 s to 24 h.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// A node is asked for its list of resources again so often, to see whether it has changed; 10 s to
    /// 24 h.
    #[serde(with = "duration")]
    pub rediscover_interval: Duration,
    /// The network interface on which nodes are heard and asked, such as `wpan0`; left out: all.
    pub interface: Option<String>,
    /// How many nodes are known at the most, about 2 KiB each.
    pub max_nodes: usize,
    /// How many of them are at one address (IPv6: one /64) at the most.
    pub max_nodes_per_address: usize,
    /// How many datagrams a second are taken from one address (IPv6: one /64) on each port, and as many at
    /// once; more are dropped and counted. One gateway may bring many busy nodes.
    pub max_datagrams_per_address: NonZeroU32,
    /// How many nodes are asked for their resources at a time.
    pub max_discoveries: usize,
    /// Where nodes may speak without DTLS; empty: nowhere. A node that has a key, or was ever seen over
    /// DTLS, may not anywhere.
    pub plain_from: Vec<Network>,
    /// The file of keys that nodes share with the bridge, as `certgen psk` writes it; with it nodes
    /// are heard over DTLS. Read again on SIGHUP and when it changes; it may be made later.
    pub psk: Option<PathBuf>,
    /// The folder with the certificate that the bridge shows to nodes, of role `coap-server`; with it
    /// nodes are heard over DTLS, and prove by a certificate of role `node` who they are. Read again
    /// as `psk` is, and may be made later.
    pub dtls_pki: Option<PathBuf>,
    /// Where nodes send to over DTLS, given `psk` or `dtls_pki`.
    pub dtls_listen: SocketAddr,
    /// How many DTLS sessions there are at the most, about 10 KiB each; past it the one that was silent for
    /// longest ends.
    pub max_sessions: usize,
    /// How many of them are from one address (IPv6: one /64) at the most.
    pub max_sessions_per_address: usize,
    /// How many DTLS handshakes are under way at a time, a quarter of them from one address.
    pub max_handshakes: usize,
    /// A DTLS session over which nothing came for so long ends; 1 min or more.
    #[serde(with = "duration")]
    pub session_idle: Duration,
    /// Names of network interfaces, such as `eth0`, on which all CoAP nodes are asked who is there, and
    /// such questions of others are answered. None: no multicast.
    pub multicast_interfaces: Vec<String>,
    /// All CoAP nodes there are asked so often; 10 s to 24 h.
    #[serde(with = "duration")]
    pub multicast_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: BridgeId::from_text("coap"),
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5683)),
            bus: BusUrl::default(),
            pki: PathBuf::from("pki"),
            base: Base::default(),
            data: None,
            max_queue_bytes: QueueConfig::default().max_bytes,
            max_time: Duration::from_secs(120),
            forget_after: Duration::from_secs(24 * 3600),
            poll_interval: Duration::from_secs(30),
            rediscover_interval: Duration::from_secs(600),
            interface: None,
            max_nodes: 100_000,
            max_nodes_per_address: 20_000,
            max_datagrams_per_address: DATAGRAMS_PER_ADDRESS,
            max_discoveries: 256,
            plain_from: Network::EVERYWHERE.to_vec(),
            psk: None,
            dtls_pki: None,
            dtls_listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5684)),
            max_sessions: 10_000,
            max_sessions_per_address: 5_000,
            max_handshakes: 1024,
            session_idle: Duration::from_secs(24 * 3600),
            multicast_interfaces: Vec::new(),
            multicast_interval: Duration::from_secs(300),
        }
    }
}

/// Why settings can't be taken; names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("coap_bridge.{key} must be {range}")]
pub struct InvalidConfig {
    key: &'static str,
    range: &'static str,
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
    pub(crate) fn checked(&self) -> Result<Rules, InvalidConfig> {
        let day = |time: Duration| (1..=24 * 3600).contains(&time.as_secs());
        let ranges = [
            ("max_time", day(self.max_time), "1s to 24h"),
            ("poll_interval", day(self.poll_interval), "1s to 24h"),
            (
                "rediscover_interval",
                (10..=24 * 3600).contains(&self.rediscover_interval.as_secs()),
                "10s to 24h",
            ),
            (
                "forget_after",
                self.forget_after.as_secs() >= 1,
                "1s or more",
            ),
            ("max_nodes", self.max_nodes > 0, "1 or more"),
            (
                "max_queue_bytes",
                self.max_queue_bytes >= 64 * 1024,
                "65536 or more",
            ),
            (
                "max_nodes_per_address",
                self.max_nodes_per_address > 0,
                "1 or more",
            ),
            (
                "max_discoveries",
                (1..=10_000).contains(&self.max_discoveries),
                "1 to 10000",
            ),
            ("max_sessions", self.max_sessions > 0, "1 or more"),
            (
                "max_sessions_per_address",
                self.max_sessions_per_address > 0,
                "1 or more",
            ),
            (
                "max_handshakes",
                (4..=100_000).contains(&self.max_handshakes),
                "4 to 100000",
            ),
            (
                "session_idle",
                self.session_idle.as_secs() >= 60,
                "1m or more",
            ),
            (
                "multicast_interval",
                day(self.multicast_interval) && self.multicast_interval.as_secs() >= 10,
                "10s to 24h",
            ),
        ];
        if let Some(&(key, _, range)) = ranges.iter().find(|(_, ok, _)| !ok) {
            return Err(InvalidConfig { key, range });
        }
        Ok(Rules {
            max_time: self.max_time,
            poll_interval: self.poll_interval,
            rediscover_interval: self.rediscover_interval,
            max_nodes: self.max_nodes,
            max_nodes_per_address: self.max_nodes_per_address,
            max_discoveries: self.max_discoveries,
            plain_from: self.plain_from.clone(),
            search_interval: self.multicast_interval,
        })
    }

    /// What one port takes from each address.
    pub(crate) fn allowance(&self, metrics: &Metrics) -> Allowance {
        Allowance::new(self.max_datagrams_per_address, metrics.clone())
    }

    pub(crate) fn dtls(&self) -> dtls::Limits {
        dtls::Limits {
            max_sessions: self.max_sessions,
            max_sessions_per_address: self.max_sessions_per_address,
            max_handshakes: self.max_handshakes,
            idle: self.session_idle,
        }
    }

    pub(crate) fn bridge(&self) -> BridgeConfig {
        BridgeConfig {
            name: self.name.clone(),
            protocol: "coap",
            base: self.base.clone(),
            max_time: Some(self.max_time),
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
        let config = Config {
            poll_interval: Duration::ZERO,
            ..Config::default()
        };
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "coap_bridge.poll_interval must be 1s to 24h");
        let config = Config {
            max_discoveries: 0,
            ..Config::default()
        };
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .contains("max_discoveries")
        );
    }
}
