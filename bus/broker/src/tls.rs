//! How the broker proves itself and verifies its clients: TLS 1.2 and 1.3, certificates on both sides.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::tls::{ClientVerifier, Expiry, Identity, TlsError, VerifierError, provider};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;

/// Why the listener for mTLS can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// Files of the broker's identity.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// What clients are verified by.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// There was a revocation list when the broker started.
    #[error("{} is gone: put it back, or restart the bus to do without", .0.display())]
    RevocationsGone(PathBuf),
}

/// How the broker proves itself, and whom it lets in.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// When the broker's own certificate ends.
    pub(crate) expiry: Option<Expiry>,
    pub(crate) has_revocations: bool,
}

impl Trust {
    /// Reads `ca.pem`, `cert.pem`, `key.pem` and, when it is there, `crl.pem` of `folder`.
    pub(crate) fn load(folder: &Path) -> Result<Self, ServerTlsError> {
        let identity = Identity::load(folder)?;
        let ClientVerifier {
            verifier,
            has_revocations,
        } = identity.client_verifier()?;
        // With a configuration of its own come session tickets of its own: none outlives a reload.
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| identity.unusable(source))?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|source| identity.unusable(source))?;
        Ok(Self {
            config: Arc::new(config),
            verifier,
            expiry: identity.expiry(),
            has_revocations,
        })
    }
}
