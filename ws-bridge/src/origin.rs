//! Which `Origin` headers may connect (RFC 6455 section 10.2).
//!
//! A browser lets any page open a WebSocket to any host, so a stranger's page could pose as a node
//! from a visitor's browser. Browsers always say whose page it is; most nodes say nothing. Two
//! kinds of nodes do say something:
//!
//! - Arduino's WebSockets library sends `file://`. No page from the web has this origin.
//! - Python's websocket-client, and with it Pyaiot's own test node, repeats the host it connects to.
//!   A page can do so only if it was loaded from here, or if its public name was rebound to this
//!   address; hence only for hosts that are no public names.

use std::net::IpAddr;

/// Why a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: write https://host or https://host:port")]
pub struct InvalidOrigin(String);

/// The origins that may connect besides those of nodes.
#[derive(Debug, Default)]
pub(crate) struct Origins(Vec<String>);

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
    pub(crate) fn new(allowed: &[String]) -> Result<Self, InvalidOrigin> {
        let checked = allowed.iter().map(|text| {
            let origin = text.trim_end_matches('/').to_ascii_lowercase();
            match authority(&origin) {
                Some(_) => Ok(origin),
                None => Err(InvalidOrigin(text.clone())),
            }
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a peer that sent this `Origin` and this `Host` may connect.
    pub(crate) fn allow(&self, origin: Option<&[u8]>, host: Option<&[u8]>) -> bool {
        let Some(origin) = origin else {
            return true;
        };
        let (Ok(origin), Ok(host)) = (
            std::str::from_utf8(origin),
            std::str::from_utf8(host.unwrap_or_default()),
        ) else {
            return false;
        };
        let origin = origin.to_ascii_lowercase();
        let host = host.to_ascii_lowercase();
        origin == "file://"
            || (authority(&origin) == Some(host.as_str()) && is_local(&host))
            || self.0.contains(&origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(origin: &str, host: &str) -> bool {
        let origins = Origins::new(&["https://Lab.example.org/".to_owned()]).unwrap();
        origins.allow(Some(origin.as_bytes()), Some(host.as_bytes()))
    }

    #[test]
    fn nodes_may_connect() {
        assert!(Origins::default().allow(None, Some(b"gateway:8083")));
        assert!(allows("file://", "gateway:8083"));
        for host in [
            "192.168.1.5:8083",
            "[fe80::1]:8083",
            "localhost:8083",
            "pi:8083",
            "pi.local",
        ] {
            assert!(allows(&format!("http://{host}"), host), "{host}");
        }
    }

    #[test]
    fn a_strangers_page_may_not() {
        for (origin, host) in [
            ("https://evil.example", "192.168.1.5:8083"),
            ("null", "localhost:8083"),
            ("http://localhost:8080", "localhost:8083"),
            // A public name that was rebound to a local address.
            ("http://rebound.example:8083", "rebound.example:8083"),
            ("https://lab.example.org.evil.example", "localhost:8083"),
            ("", ""),
            ("http://", ""),
        ] {
            assert!(!allows(origin, host), "{origin}");
        }
        assert!(!Origins::default().allow(Some(b"\xff"), Some(b"\xff")));
    }

    #[test]
    fn a_page_that_the_operator_names_may() {
        assert!(allows("https://lab.example.org", "gateway.example.org"));
        assert!(Origins::new(&["*".to_owned()]).is_err());
        assert!(Origins::new(&["https://a/b".to_owned()]).is_err());
    }
}
