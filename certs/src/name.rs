//! Names and addresses as a certificate carries them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::role::Role;

/// The name of an identity, unique within its role: `[a-z0-9_-]{1,64}`.
///
/// It is a Common Name (at most 64 characters, RFC 5280 appendix A.1), a level of a topic and a
/// folder, and has a meaning of its own in none of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::InvalidName(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A DNS name or an IP address under which a server is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum San {
    /// A DNS name in lower case, perhaps with `*` as its first label.
    Dns(String),
    /// An address of either family.
    Ip(IpAddr),
}

/// Whether `text` is a host name (RFC 1123 section 2.1), plus `_`, which container networks use.
fn is_dns_name(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 253
        && host.split('.').all(is_label)
        && !host.rsplit('.').next().is_some_and(numeric)
}

impl FromStr for San {
    type Err = Error;

    /// Guesses from the text what it is, an IPv6 address may stand in brackets.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Ip(address));
        }
        let host = text.strip_suffix('.').unwrap_or(text);
        if is_dns_name(host) {
            Ok(Self::Dns(host.to_ascii_lowercase()))
        } else {
            Err(Error::InvalidSan(text.to_owned()))
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(host) => f.write_str(host),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl Serialize for San {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for San {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Who a certificate speaks for: the URI SAN `urn:nodebus:<role>:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// What it is to the bus.
    pub role: Role,
    /// Which of that role.
    pub name: Name,
}

impl Identity {
    /// The URI as it stands in the certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("urn:nodebus:{}:{}", self.role, self.name)
    }

    /// The identity that a URI names, if it is one of ours.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        let (role, name) = uri.strip_prefix("urn:nodebus:")?.split_once(':')?;
        let role = Role::ALL.into_iter().find(|known| known.as_str() == role)?;
        Some(Self {
            role,
            name: name.parse().ok()?,
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let san: San = text.parse().unwrap();
        let kind = match san {
            San::Dns(_) => "dns",
            San::Ip(_) => "ip",
        };
        assert_eq!(format!("{kind} {san}"), expected);
    }

    #[test]
    fn the_kind_of_a_san_is_guessed() {
        check("localhost", "dns localhost");
        check("Bus.Example.ORG.", "dns bus.example.org");
        check("*.example.org", "dns *.example.org");
        check("coap_bridge", "dns coap_bridge");
        check("3com.example", "dns 3com.example");
        check("192.168.1.20", "ip 192.168.1.20");
        check("fd00::1", "ip fd00::1");
        check("[::1]", "ip ::1");
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "localhost:8883",
            "mqtts://localhost",
            "192.168.1.300",
            "1.2.3",
            "a.*.b",
            "*",
            "tür.example",
            "fe80::1%eth0",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<San>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_identity_survives_its_uri() {
        for role in Role::ALL {
            let identity = Identity {
                role,
                name: "a_b-1".parse().unwrap(),
            };
            assert_eq!(Identity::from_uri(&identity.uri()), Some(identity));
        }
        for bad in [
            "urn:nodebus:bridge:",
            "urn:nodebus:bridge:A",
            "urn:nodebus:king:a",
            "urn:nodebus:bridge:a:b",
            "urn:other:bridge:a",
            "",
        ] {
            assert_eq!(Identity::from_uri(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_names_are_taken() {
        for bad in ["", "A", "a/b", "..", "a b", "é", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!("x".repeat(64).parse::<Name>().is_ok());
    }
}
