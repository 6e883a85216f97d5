//! Which pages may open a WebSocket here, by their `Origin` header (RFC 6455 section 10.2).
//!
//! A browser lets any page open a WebSocket to any host, so a stranger's page could act from a
//! visitor's browser. Browsers always say whose page it is; other programs mostly say nothing. Some
//! programs do, such as paho-mqtt and Python's websocket-client: they repeat the host they connect
//! to. A page can do so only if it was loaded from here, or if its public name was rebound to this
//! address. Where no certificate proves the name to the browser, the same host therefore counts only
//! when it is no public name.

use std::net::IpAddr;

/// Why a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: write https://host or https://host:port")]
pub struct InvalidOrigin(String);

/// The origins that may connect besides the same host.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<String>);

fn authority(origin: &str) -> Option<&str> {
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))?;
    let ok = !authority.is_empty() && !authority.contains(['/', '?', '#', '@', ' ']);
    ok.then_some(authority)
}

/// Whether a host, with its port or without, is an address or a name that only a local network
/// can resolve.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || [".local", ".localhost", ".home.arpa", ".internal"]
            .iter()
            .any(|domain| name.ends_with(domain))
}

impl Origins {
    /// Those that an operator listed, as `https://host` or `https://host:port`.
    ///
    /// # Errors
    /// An entry is no origin.
    pub fn new(allowed: &[String]) -> Result<Self, InvalidOrigin> {
        let checked = allowed.iter().map(|text| {
            let origin = text.trim_end_matches('/').to_ascii_lowercase();
            match authority(&origin) {
                Some(_) => Ok(origin),
                None => Err(InvalidOrigin(text.clone())),
            }
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a peer that sent this `Origin` and this `Host` may connect. `is_proven` says that it
    /// verified the name of this host, by TLS.
    #[must_use]
    pub fn allow(&self, origin: Option<&[u8]>, host: Option<&[u8]>, is_proven: bool) -> bool {
        let Some(origin) = origin else {
            return true;
        };
        let (Ok(origin), Ok(host)) = (
            std::str::from_utf8(origin),
            std::str::from_utf8(host.unwrap_or_default()),
        ) else {
            return false;
        };
        let (origin, host) = (origin.to_ascii_lowercase(), host.to_ascii_lowercase());
        let is_same = authority(&origin) == Some(host.as_str());
        (is_same && (is_proven || is_local(&host))) || self.0.contains(&origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(origin: &str, host: &str, is_proven: bool) -> bool {
        let origins = Origins::new(&["https://Lab.example.org/".to_owned()]).unwrap();
        origins.allow(Some(origin.as_bytes()), Some(host.as_bytes()), is_proven)
    }

    #[test]
    fn programs_may_connect() {
        assert!(Origins::default().allow(None, Some(b"gateway:8083"), false));
        for host in [
            "192.168.1.5:8083",
            "[fe80::1]:8083",
            "localhost:8083",
            "pi:8083",
            "pi.local",
        ] {
            assert!(allows(&format!("http://{host}"), host, false), "{host}");
        }
        let public = "bus.example.org:8084";
        assert!(allows(&format!("https://{public}"), public, true));
    }

    #[test]
    fn a_strangers_page_may_not() {
        for (origin, host) in [
            ("https://evil.example", "192.168.1.5:8083"),
            ("null", "localhost:8083"),
            ("file://", "localhost:8083"),
            ("http://localhost:8080", "localhost:8083"),
            ("https://lab.example.org.evil.example", "localhost:8083"),
            ("", ""),
            ("http://", ""),
        ] {
            for is_proven in [false, true] {
                assert!(!allows(origin, host, is_proven), "{origin}");
            }
        }
        // A public name that was rebound to a local address.
        let rebound = "rebound.example:8083";
        assert!(!allows(&format!("http://{rebound}"), rebound, false));
        assert!(!Origins::default().allow(Some(b"\xff"), Some(b"\xff"), true));
    }

    #[test]
    fn a_page_that_the_operator_names_may() {
        let named = "https://lab.example.org";
        assert!(allows(named, "gateway.example.org", false));
        assert!(Origins::new(&["*".to_owned()]).is_err());
        assert!(Origins::new(&["https://a/b".to_owned()]).is_err());
    }
}
