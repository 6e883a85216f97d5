//! Who a client is: a role and a name, from the URI SAN of its certificate or the file of passwords.
//!
//! Subject fields are never read: what a person may write there says nothing about rights.

use std::fmt;
use std::sync::Arc;

use bus::id::NodeId;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::passwords::Login;

/// What a client of the bus is for; the access list says what that allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Translates another protocol to topics.
    Bridge,
    /// The dashboard gateway.
    Dashboard,
    /// A person or program that sees and controls.
    Operator,
    /// A person or program that sees.
    Viewer,
    /// A device that speaks MQTT itself.
    Node,
    /// Everything.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Bridge,
        Self::Dashboard,
        Self::Operator,
        Self::Viewer,
        Self::Node,
        Self::Admin,
    ];

    /// The word for it in certificates, configuration and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Dashboard => "dashboard",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Node => "node",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A client that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) role: Role,
    /// A level of `[a-z0-9_-]{1,64}`, so that it can stand in a filter.
    pub(crate) name: String,
    /// It proved its name; then its Client Identifier is bound to that.
    pub(crate) is_proven: bool,
}

/// How a client proved who it is; looked at again when the rules change.
#[derive(Debug)]
pub(crate) enum Proof {
    /// The certificate it showed, and its intermediates.
    Certificate(Vec<CertificateDer<'static>>),
    /// The line of the file of passwords whose password it knew.
    Password(Arc<Login>),
    /// None is asked for where it came in.
    Nothing,
}

/// A client that proved who it is.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) identity: Identity,
    pub(crate) proof: Proof,
    /// The generation of the rules under which it was let in.
    pub(crate) generation: u64,
}

/// A client before its CONNECT, as its listener knows it.
#[derive(Debug)]
pub(crate) enum Guest {
    Known(Known),
    /// Its CONNECT has to say who it is, and prove it by a password.
    Stranger,
}

/// Why a certificate names no client of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoIdentity {
    #[error("the certificate can't be read")]
    Unreadable,
    #[error("the certificate names no role: issue one with certgen issue <role> <name>")]
    NoRole,
    #[error("the certificate names more than one role")]
    Ambiguous,
}

impl Guest {
    /// One who need not say who it is.
    pub(crate) fn anonymous(role: Role, generation: u64) -> Self {
        Self::Known(Known {
            identity: Identity::anonymous(role),
            proof: Proof::Nothing,
            generation,
        })
    }
}

/// The SAN of an identity is `urn:nodebus:<role>:<name>`.
const PREFIX: &str = "urn:nodebus:";

fn parse_uri(uri: &str) -> Option<(Role, &str)> {
    let (role, name) = uri.strip_prefix(PREFIX)?.split_once(':')?;
    let role = Role::ALL.into_iter().find(|known| known.as_str() == role)?;
    NodeId::new(name).ok()?;
    Some((role, name))
}

impl Identity {
    /// The client of a listener without TLS.
    pub(crate) fn anonymous(role: Role) -> Self {
        Self {
            role,
            name: "anonymous".to_owned(),
            is_proven: false,
        }
    }

    /// Reads the role SAN of an end-entity certificate that was verified already.
    pub(crate) fn from_certificate(der: &[u8]) -> Result<Self, NoIdentity> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| NoIdentity::Unreadable)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| NoIdentity::Unreadable)?;
        let uris = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
        Self::from_uris(uris)
    }

    fn from_uris<'a>(uris: impl Iterator<Item = &'a str>) -> Result<Self, NoIdentity> {
        let mut found = uris.filter(|uri| uri.starts_with(PREFIX)).map(parse_uri);
        match (found.next(), found.next()) {
            (Some(Some((role, name))), None) => Ok(Self {
                role,
                name: name.to_owned(),
                is_proven: true,
            }),
            (_, Some(_)) => Err(NoIdentity::Ambiguous),
            _ => Err(NoIdentity::NoRole),
        }
    }

    /// The key of its session with this Client Identifier.
    ///
    /// Deviation: a Client Identifier is unique within its identity, not within the broker, so that
    /// nobody takes over the session of another role or of one who proved its name.
    pub(crate) fn session_key(&self, client_id: &str) -> String {
        let proof = if self.is_proven { "" } else { "?" };
        // Client Identifiers hold no U+0000.
        format!("{proof}{self}\0{client_id}")
    }

    /// Whether it may use this Client Identifier: its name, or `<name>:` and anything.
    pub(crate) fn may_be(&self, client_id: &str) -> bool {
        !self.is_proven
            || client_id
                .strip_prefix(&self.name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uris: &[&str], expected: Result<(Role, &str), NoIdentity>) {
        let found = Identity::from_uris(uris.iter().copied());
        assert_eq!(
            found.map(|found| (found.role, found.name)),
            expected.map(|(r, n)| (r, n.to_owned()))
        );
    }

    #[test]
    fn a_role_stands_in_one_uri() {
        check(&["urn:nodebus:bridge:coap"], Ok((Role::Bridge, "coap")));
        check(
            &["https://x", "urn:nodebus:node:n-1"],
            Ok((Role::Node, "n-1")),
        );
        check(&[], Err(NoIdentity::NoRole));
        check(&["urn:nodebus:root:x"], Err(NoIdentity::NoRole));
        check(&["urn:nodebus:node:+"], Err(NoIdentity::NoRole));
        check(&["urn:nodebus:node:a/b"], Err(NoIdentity::NoRole));
        check(&["urn:nodebus:node:"], Err(NoIdentity::NoRole));
        check(
            &["urn:nodebus:node:a", "urn:nodebus:admin:a"],
            Err(NoIdentity::Ambiguous),
        );
    }

    #[test]
    fn a_client_identifier_is_bound_to_the_name() {
        let mut identity = Identity::anonymous(Role::Viewer);
        assert!(identity.may_be("anything"));
        identity.is_proven = true;
        identity.name = "ws".to_owned();
        for good in ["ws", "ws:1", "ws:"] {
            assert!(identity.may_be(good), "{good}");
        }
        for bad in ["", "w", "ws2", "coap", "WS"] {
            assert!(!identity.may_be(bad), "{bad}");
        }
    }
}
