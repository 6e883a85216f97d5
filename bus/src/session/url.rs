//! The address of a broker.

use std::fmt;
use std::str::FromStr;

/// `mqtts://host:port` (mutual TLS) or `mqtt://host:port` (plain).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusUrl {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// 8883 or 1883 when the URL has none.
    pub port: u16,
}

impl Default for BusUrl {
    /// The bus on this machine, `mqtts://localhost:8883`.
    fn default() -> Self {
        Self {
            tls: true,
            host: "localhost".to_owned(),
            port: 8883,
        }
    }
}

/// Why a text is no address of a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of a broker: write mqtts://host:8883")]
pub struct InvalidUrl(String);

impl FromStr for BusUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let invalid = || InvalidUrl(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let (tls, default_port) = match scheme {
            "mqtts" => (true, 8883),
            "mqtt" => (false, 1883),
            _ => return Err(invalid()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(invalid)?,
            None => rest.find(':').map_or((rest, ""), |at| rest.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| invalid())?,
            None if port.is_empty() => default_port,
            None => return Err(invalid()),
        };
        let ok = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        if ok {
            Ok(Self {
                tls,
                host: host.to_owned(),
                port,
            })
        } else {
            Err(invalid())
        }
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

impl serde::Serialize for BusUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for BusUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for (text, full) in [
            ("mqtts://bus", "mqtts://bus:8883"),
            ("mqtts://bus:1/", "mqtts://bus:1"),
            ("mqtt://[::1]:1883", "mqtt://[::1]:1883"),
            ("mqtt://127.0.0.1", "mqtt://127.0.0.1:1883"),
        ] {
            assert_eq!(text.parse::<BusUrl>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for bad in [
            "",
            "bus:8883",
            "http://bus",
            "mqtts://",
            "mqtts://a:b",
            "mqtts://[::1",
            "mqtts://u@h",
            "mqtts://[::1]x",
        ] {
            assert!(bad.parse::<BusUrl>().is_err(), "{bad}");
        }
    }
}
