//! The settings of the gateway, section `[dashboard_gw]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bus::config::duration;
use bus::id::BridgeId;
use bus::session::{BusUrl, SessionConfig};
use bus::topic::Base;
use serde::{Deserialize, Serialize};

use crate::guard::{Guard, InvalidOrigin};
use crate::model::Limits;

/// What the gateway is told: raw, checked when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its name on the bus, and in its certificate.
    pub name: BridgeId,
    /// Where browsers connect.
    pub listen: SocketAddr,
    /// The broker.
    pub bus: BusUrl,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem`.
    pub pki: PathBuf,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem` of a certificate for browsers, as
    /// `certgen issue dashboard-server NAME` makes it. With it, browsers are served over HTTPS.
    pub https_pki: Option<PathBuf>,
    /// Where the topic tree stands.
    pub base: Base,
    /// Whether everybody who reaches a listener beyond loopback may write. Without it, only a
    /// listener on loopback lets its clients write.
    pub allow_write_without_login: bool,
    /// Web pages of elsewhere that may connect, as `https://host[:port]`, such as Pyaiot's own
    /// dashboard; their hosts are names of this dashboard, too. Also needed behind a reverse proxy.
    pub allowed_origins: Vec<String>,
    /// The command that attaches a simulated node, as the page shows it.
    pub demo_command: String,
    /// Where a CoAP node must send, as the page shows it; empty when unknown.
    pub coap_address: String,
    /// How long a bridge may take to answer a request; 100 ms to 5 min.
    #[serde(with = "duration")]
    pub command_timeout: Duration,
    /// The most pages and Pyaiot clients at once. Each costs about 50 KiB, and as much as all values
    /// together while it is sent its first frame, for 20 s at the most.
    pub max_clients: usize,
    /// The most connections at once.
    pub max_connections: usize,
    /// The most nodes that are shown.
    pub max_nodes: usize,
    /// The most resources of a node that are shown.
    pub max_resources: usize,
    /// The longest value that is shown, in bytes.
    pub max_value_bytes: usize,
    /// The most that all values together may take, in bytes as they are on the bus.
    pub max_total_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: BridgeId::from_text("dashboard"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            bus: BusUrl::default(),
            pki: PathBuf::from("pki"),
            https_pki: None,
            base: Base::default(),
            allow_write_without_login: false,
            allowed_origins: Vec::new(),
            demo_command: "nodebus simulate --coap 3".to_owned(),
            coap_address: String::new(),
            command_timeout: Duration::from_secs(5),
            max_clients: 256,
            max_connections: 1024,
            max_nodes: 10_000,
            max_resources: 128,
            max_value_bytes: 64 * 1024,
            max_total_bytes: 256 * 1024 * 1024,
        }
    }
}

/// Why settings can't be taken; names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// A number or a time is out of its range.
    #[error("dashboard_gw.{key} must be {range}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// An entry is no origin.
    #[error("dashboard_gw.allowed_origins: {0}")]
    Origin(#[from] InvalidOrigin),
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
    pub(crate) fn checked(&self) -> Result<Guard, InvalidConfig> {
        let timeout = Duration::from_millis(100)..=Duration::from_secs(300);
        let number = |n: usize, most: usize| (1..=most).contains(&n);
        let ranges = [
            (
                "command_timeout",
                timeout.contains(&self.command_timeout),
                "100ms to 5min",
            ),
            (
                "max_clients",
                number(self.max_clients, 100_000),
                "1 to 100000",
            ),
            (
                "max_connections",
                number(self.max_connections, 100_000),
                "1 to 100000",
            ),
            (
                "max_nodes",
                number(self.max_nodes, 1_000_000),
                "1 to 1000000",
            ),
            (
                "max_resources",
                number(self.max_resources, 10_000),
                "1 to 10000",
            ),
            (
                "max_value_bytes",
                number(self.max_value_bytes, 1 << 20),
                "1 to 1048576",
            ),
            ("max_total_bytes", self.max_total_bytes > 0, "1 or more"),
        ];
        if let Some(&(key, _, range)) = ranges.iter().find(|(_, ok, _)| !ok) {
            return Err(InvalidConfig::OutOfRange { key, range });
        }
        Ok(Guard::new(self.listen.ip(), &self.allowed_origins)?)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            nodes: self.max_nodes,
            resources: self.max_resources,
            payload: self.max_value_bytes,
            total: self.max_total_bytes,
        }
    }

    /// Whether clients may write.
    pub(crate) fn can_write(&self) -> bool {
        self.listen.ip().is_loopback() || self.allow_write_without_login
    }

    /// What browsers type before its address.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.https_pki.is_some() {
            "https"
        } else {
            "http"
        }
    }

    pub(crate) fn session(&self) -> SessionConfig {
        SessionConfig {
            url: self.bus.clone(),
            pki: self.pki.clone(),
            client_id: self.name.to_string(),
            will: None,
            filters: vec![self.base.join("#")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_writing_is_for_loopback() {
        let mut config = Config::default();
        assert!(config.check().is_ok());
        assert!(config.can_write());
        config.listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080));
        assert!(!config.can_write());
        config.allow_write_without_login = true;
        assert!(config.can_write());
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        let error = |config: Config| config.check().unwrap_err().to_string();
        let config = Config {
            max_clients: 0,
            ..Config::default()
        };
        assert!(error(config).contains("dashboard_gw.max_clients"));
        let config = Config {
            allowed_origins: vec!["example.org".to_owned()],
            ..Config::default()
        };
        assert!(error(config).contains("example.org"));
    }
}
