//! The roles that an identity can have, and what each asks of its certificate.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{Name, San};

/// What the holder of a certificate is to the bus; the bus derives its rights from it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The bus itself: a server
    Broker,
    /// The dashboard's HTTPS listener: a server
    DashboardServer,
    /// The CoAP bridge's DTLS listener: a server
    CoapServer,
    /// Brings nodes to the bus and owns their topics
    Bridge,
    /// The dashboard gateway: reads everything, sends commands
    Dashboard,
    /// A person or program that reads everything and sends commands
    Operator,
    /// A person or program that only reads
    Viewer,
    /// A node that speaks MQTT itself, or CoAP over DTLS, and owns only its own topics
    Node,
    /// Does everything
    Admin,
}

impl Role {
    /// Every role, in the order people read them.
    pub const ALL: [Self; 9] = [
        Self::Broker,
        Self::DashboardServer,
        Self::CoapServer,
        Self::Bridge,
        Self::Dashboard,
        Self::Operator,
        Self::Viewer,
        Self::Node,
        Self::Admin,
    ];

    /// The role as it stands in the certificate, in paths and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::DashboardServer => "dashboard-server",
            Self::CoapServer => "coap-server",
            Self::Bridge => "bridge",
            Self::Dashboard => "dashboard",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Node => "node",
            Self::Admin => "admin",
        }
    }

    /// Who holds it, for people.
    #[must_use]
    pub fn holder(self) -> &'static str {
        match self {
            Self::Broker => "the bus",
            Self::DashboardServer => "the dashboard's HTTPS",
            Self::CoapServer => "the CoAP bridge's DTLS",
            Self::Bridge => "a bridge: owns its nodes' topics",
            Self::Dashboard => "the dashboard gateway",
            Self::Operator => "people and programs that read and command",
            Self::Viewer => "people and programs that only read",
            Self::Node => "a node: owns its own topics",
            Self::Admin => "whoever may do everything",
        }
    }

    /// Whether the holder answers TLS handshakes (serverAuth) or opens them (clientAuth).
    #[must_use]
    pub fn is_server(self) -> bool {
        matches!(
            self,
            Self::Broker | Self::DashboardServer | Self::CoapServer
        )
    }

    /// Whether this and the other role are those of one part, with its certificate for each.
    pub(crate) fn is_same_part(self, other: Self) -> bool {
        let part = |role| match role {
            Self::CoapServer => Self::Bridge,
            Self::DashboardServer => Self::Dashboard,
            role => role,
        };
        part(self) == part(other)
    }

    /// Whether the holder verifies the certificates of others, and needs the list of revocations.
    #[must_use]
    pub fn verifies(self) -> bool {
        matches!(self, Self::Broker | Self::CoapServer)
    }

    /// Days of validity unless told otherwise. Nodes get five years: few can renew themselves.
    #[must_use]
    pub fn default_days(self) -> u32 {
        match self {
            Self::Broker | Self::DashboardServer | Self::CoapServer => 397,
            Self::Node => 5 * 365,
            Self::Bridge | Self::Dashboard | Self::Operator | Self::Viewer | Self::Admin => 365,
        }
    }

    /// The addresses at which a server of this role is usually reached; none for clients.
    ///
    /// A host name without a dot is also known as `<host>.local` to its network (RFC 6762).
    pub(crate) fn default_sans(self, name: &Name, hostname: Option<&str>) -> Vec<San> {
        if !self.is_server() {
            return Vec::new();
        }
        let mut texts = vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        if let Some(host) = hostname {
            texts.push(host.to_owned());
            if !host.contains('.') {
                texts.push(format!("{host}.local"));
            }
        }
        if self == Self::Broker {
            texts.push("bus".to_owned());
        }
        texts.push(name.to_string());
        let mut sans = Vec::new();
        // A host or identity whose name no DNS could carry is left out.
        for san in texts.iter().filter_map(|text| text.parse::<San>().ok()) {
            if !sans.contains(&san) {
                sans.push(san);
            }
        }
        sans
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_role_has_one_spelling_everywhere() {
        for role in Role::ALL {
            assert_eq!(Role::from_str(role.as_str(), false), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        assert_eq!(Role::value_variants(), Role::ALL);
    }

    #[track_caller]
    fn check(role: Role, name: &str, hostname: Option<&str>, expected: &[&str]) {
        let sans = role.default_sans(&name.parse().unwrap(), hostname);
        let texts: Vec<String> = sans.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_server_is_reached_under_its_usual_addresses() {
        check(
            Role::Broker,
            "bus",
            Some("pi4"),
            &["localhost", "127.0.0.1", "::1", "pi4", "pi4.local", "bus"],
        );
        check(
            Role::Broker,
            "backup",
            Some("bus.example.org"),
            &[
                "localhost",
                "127.0.0.1",
                "::1",
                "bus.example.org",
                "bus",
                "backup",
            ],
        );
        // Names that no DNS could carry.
        check(
            Role::DashboardServer,
            "-x-",
            Some("my host"),
            &["localhost", "127.0.0.1", "::1"],
        );
        check(Role::Viewer, "alice", Some("pi4"), &[]);
    }
}
