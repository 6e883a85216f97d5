//! Certificates: how the bridge proves itself to nodes, and which nodes it believes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::id::NodeId;
use bus::time::Timestamp;
use bus::tls::{ClientVerifier, Expiry, Identity, TlsError, VerifierError};
use dimpl::DtlsCertificate;
use dimpl::crypto::aws_lc_rs::default_provider;
use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::metrics::Refused;

/// The SAN of a node's certificate is `urn:nodebus:node:<name>`, as on the bus.
const NODE: &str = "urn:nodebus:node:";
/// What identities have in common.
const PREFIX: &str = "urn:nodebus:";

/// Why nodes can't be asked for certificates.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The files of the bridge's identity.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// What nodes are verified by.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// There was a list of revocations when the bridge started.
    #[error("{} is gone: put it back, or restart the bridge to do without", .0.display())]
    RevocationsGone(PathBuf),
    /// DTLS here is made with keys on P-256 and P-384 only.
    #[error("the key in {} is of another kind than DTLS takes: issue it again as `certgen issue coap-server` does", .0.display())]
    Key(PathBuf),
}

/// Whose certificate it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) name: NodeId,
    /// The last moment at which it is valid.
    pub(super) until: Timestamp,
}

/// The bridge's own certificate, and what nodes' are verified by.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(super) certificate: Arc<DtlsCertificate>,
    verifier: ClientVerifier,
    /// When the bridge's own certificate ends.
    pub(crate) expiry: Option<Expiry>,
}

impl Trust {
    /// Reads `ca.pem`, `cert.pem`, `key.pem` and, when it is there, `crl.pem` of `folder`.
    pub(crate) fn load(folder: &Path) -> Result<Self, TrustError> {
        let identity = Identity::load(folder)?;
        let leaf = identity.chain.first().map(|leaf| leaf.to_vec());
        let private_key = identity.key.secret_der().to_vec();
        // dimpl would panic at the first handshake.
        let keys = default_provider().key_provider;
        if keys.load_private_key(&private_key).is_err() {
            return Err(TrustError::Key(folder.join("key.pem")));
        }
        Ok(Self {
            certificate: Arc::new(DtlsCertificate {
                certificate: leaf.unwrap_or_default(),
                private_key,
            }),
            verifier: identity.client_verifier()?,
            expiry: identity.expiry(),
        })
    }

    /// Whether revocations are known.
    pub(crate) fn has_revocations(&self) -> bool {
        self.verifier.has_revocations
    }

    /// Whose certificate this is, and until when, if it is good now: issued by our authority, for
    /// clients, neither expired nor revoked, and a node's.
    pub(super) fn identify(&self, certificate: &[u8], now: Timestamp) -> Result<Holder, Refused> {
        let since = u64::try_from(now.unix_millis()).unwrap_or(0) / 1000;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(since));
        let leaf = CertificateDer::from(certificate);
        let verified = self.verifier.verifier.verify_client_cert(&leaf, &[], now);
        verified.map_err(|error| refused(&error))?;
        named(certificate)
    }
}

fn refused(error: &rustls::Error) -> Refused {
    let rustls::Error::InvalidCertificate(error) = error else {
        return Refused::BadCertificate;
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Refused::CertificateExpired
        }
        CertificateError::Revoked => Refused::CertificateRevoked,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Refused::UnknownAuthority
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Refused::WrongRole
        }
        _ => Refused::BadCertificate,
    }
}

/// The name in the one URI SAN of ours, and the end.
fn named(certificate: &[u8]) -> Result<Holder, Refused> {
    let bad = |_| Refused::BadCertificate;
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| Refused::BadCertificate)?;
    let names = parsed.subject_alternative_name().map_err(bad)?;
    let uris = names.iter().flat_map(|san| &san.value.general_names);
    let mut ours = uris.filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with(PREFIX) => Some(*uri),
        _ => None,
    });
    match (ours.next(), ours.next()) {
        (Some(uri), None) => {
            let name = uri.strip_prefix(NODE).ok_or(Refused::WrongRole)?;
            let seconds = parsed.validity().not_after.timestamp();
            Ok(Holder {
                name: NodeId::new(name).map_err(|_| Refused::BadCertificate)?,
                until: Timestamp::from_unix_millis(seconds.saturating_mul(1000)),
            })
        }
        (None, _) => Err(Refused::WrongRole),
        (Some(_), Some(_)) => Err(Refused::BadCertificate),
    }
}
