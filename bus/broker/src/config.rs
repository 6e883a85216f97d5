//! The section `[bus]`, as written and as checked.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use bus::origin::{InvalidOrigin, Origins};
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
    /// Where MQTT over TLS is served to clients with a name and password instead of a certificate;
    /// nowhere unless set. It needs `passwords`.
    pub password_listen: Option<SocketAddr>,
    /// Where MQTT over WebSocket and TLS is served; nowhere unless set. Clients show a certificate
    /// or, with `passwords`, a name and password.
    pub wss_listen: Option<SocketAddr>,
    /// Where MQTT without TLS is served; nowhere unless set. It needs `anonymous`.
    pub plain_listen: Option<SocketAddr>,
    /// Where MQTT over WebSocket without TLS is served; nowhere unless set. It needs `anonymous`.
    pub ws_listen: Option<SocketAddr>,
    /// The role of every client of `plain_listen` and `ws_listen`.
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
    /// The names, roles and hashed passwords of clients without a certificate, as `certgen passwd`
    /// writes them.
    pub passwords: Option<PathBuf>,
    /// Pages that may open a WebSocket besides those of the same host and port, as
    /// `https://host:port`.
    pub allowed_origins: Vec<String>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8883)),
            password_listen: None,
            wss_listen: None,
            plain_listen: None,
            ws_listen: None,
            anonymous: None,
            pki: PathBuf::from("pki/bus"),
            base: Base::default(),
            acl: None,
            data: None,
            passwords: None,
            allowed_origins: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// A setting that leaves the broker no way to work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A listener without TLS and without a role for its clients.
    #[error("bus.{0} needs bus.anonymous: name the role that its clients get, such as \"viewer\"")]
    WithoutRole(&'static str),
    /// A listener for passwords without passwords.
    #[error("bus.password_listen needs bus.passwords: name the file that certgen passwd wrote")]
    WithoutPasswords,
    /// Passwords without a listener for them.
    #[error(
        "bus.passwords is of no use without a listener: set bus.password_listen, such as \"[::]:8884\", or bus.wss_listen"
    )]
    WithoutListener,
    /// An entry of the allowed origins is none.
    #[error("bus.allowed_origins: {0}")]
    Origin(#[from] InvalidOrigin),
    /// A limit that is zero or out of range.
    #[error("bus.limits.{0} leaves no work possible: remove it to use the default")]
    Limit(&'static str),
}

impl Config {
    /// Checks what types alone can't, as starting does.
    ///
    /// # Errors
    /// The first setting that can't be taken.
    pub fn check(&self) -> Result<(), ConfigError> {
        let plain = [
            ("plain_listen", self.plain_listen),
            ("ws_listen", self.ws_listen),
        ];
        if let (Some((key, _)), None) = (
            plain.iter().find(|(_, address)| address.is_some()),
            self.anonymous,
        ) {
            return Err(ConfigError::WithoutRole(key));
        }
        if self.passwords.is_none() && self.password_listen.is_some() {
            return Err(ConfigError::WithoutPasswords);
        }
        let is_used = self.password_listen.is_some() || self.wss_listen.is_some();
        if self.passwords.is_some() && !is_used {
            return Err(ConfigError::WithoutListener);
        }
        Origins::new(&self.allowed_origins)?;
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
        let check = |edit: fn(&mut Config), word: &str| {
            let mut config = Config::default();
            edit(&mut config);
            let wrong = config.check().unwrap_err().to_string();
            assert!(wrong.contains(word), "{wrong}");
        };
        let any: Option<SocketAddr> = Some("127.0.0.1:0".parse().unwrap());
        for edit in [
            (|c| c.plain_listen = Some(([127, 0, 0, 1], 0).into())) as fn(&mut Config),
            |c| c.ws_listen = Some(([127, 0, 0, 1], 0).into()),
        ] {
            check(edit, "bus.anonymous");
        }
        check(
            |c| c.password_listen = Some(([127, 0, 0, 1], 0).into()),
            "bus.passwords",
        );
        check(|c| c.passwords = Some("x".into()), "bus.password_listen");
        check(
            |c| c.allowed_origins = vec!["example.org".to_owned()],
            "https://",
        );
        check(|c| c.limits.inflight = 0, "inflight");
        check(|c| c.limits.password_checks = 0, "password_checks");
        let whole = Config {
            password_listen: any,
            wss_listen: any,
            passwords: Some("x".into()),
            ..Config::default()
        };
        assert!(whole.check().is_ok());
    }
}
