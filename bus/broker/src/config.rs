//! The section `[bus]`, as written and as checked.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use bus::topic::Base;
use serde::{Deserialize, Serialize};

use crate::identity::Role;
use crate::limits::Limits;

/// The section `[bus]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where MQTT over mTLS is served. `[::]` takes IPv4 too.
    pub listen: SocketAddr,
    /// Where MQTT without TLS is served; nowhere unless set. It needs `anonymous`.
    pub plain_listen: Option<SocketAddr>,
    /// The role of every client of `plain_listen`.
    pub anonymous: Option<Role>,
    /// The folder with `ca.pem`, `cert.pem`, `key.pem` and, when there is one, `crl.pem`.
    pub pki: PathBuf,
    /// Where the topic tree stands.
    pub base: Base,
    /// A file that replaces the built-in access list.
    pub acl: Option<PathBuf>,
    /// The folder for what outlives the process: retained messages, kept sessions and what waits
    /// for them. Without it, all of that is in memory only.
    pub data: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8883)),
            plain_listen: None,
            anonymous: None,
            pki: PathBuf::from("pki/bus"),
            base: Base::default(),
            acl: None,
            data: None,
            limits: Limits::default(),
        }
    }
}

/// A setting that leaves the broker no way to work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A listener without TLS and without a role for its clients.
    #[error(
        "bus.plain_listen needs bus.anonymous: name the role that its clients get, such as \"viewer\""
    )]
    PlainWithoutRole,
    /// A limit that is zero or out of range.
    #[error("bus.limits.{0} leaves no work possible: remove it to use the default")]
    Limit(&'static str),
}

impl Config {
    /// What the sections of the settings can't say by their types.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.plain_listen.is_some() && self.anonymous.is_none() {
            return Err(ConfigError::PlainWithoutRole);
        }
        match self.limits.unusable() {
            Some(key) => Err(ConfigError::Limit(key)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_the_key() {
        assert!(Config::default().check().is_ok());
        let plain = Config {
            plain_listen: Some("127.0.0.1:0".parse().unwrap()),
            ..Config::default()
        };
        assert!(
            plain
                .check()
                .unwrap_err()
                .to_string()
                .contains("bus.anonymous")
        );
        let mut none = Config::default();
        none.limits.inflight = 0;
        assert!(none.check().unwrap_err().to_string().contains("inflight"));
    }
}
