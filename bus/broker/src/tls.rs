//! How the broker proves itself and verifies its clients, with TLS 1.2 and 1.3.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::tls::{ClientVerifier, Expiry, Identity, TlsError, VerifierError, provider};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::WebPkiClientVerifier;
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

/// What a listener asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A certificate.
    Certificate,
    /// A certificate, or else a password later.
    Either,
    /// A password later.
    Nothing,
}

/// How the broker proves itself, and whom it lets in.
#[derive(Debug)]
pub(crate) struct Trust {
    /// One for each thing that a listener may ask of its clients.
    pub(crate) certificate: Arc<ServerConfig>,
    pub(crate) either: Arc<ServerConfig>,
    pub(crate) nothing: Arc<ServerConfig>,
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
            optional,
            has_revocations,
        } = identity.client_verifier()?;
        Ok(Self {
            certificate: server(&identity, verifier.clone())?,
            either: server(&identity, optional)?,
            nothing: server(&identity, WebPkiClientVerifier::no_client_auth())?,
            verifier,
            expiry: identity.expiry(),
            has_revocations,
        })
    }

    /// The configuration of a listener that asks this of its clients.
    pub(crate) fn config(&self, asked: Asked) -> Arc<ServerConfig> {
        let config = match asked {
            Asked::Certificate => &self.certificate,
            Asked::Either => &self.either,
            Asked::Nothing => &self.nothing,
        };
        config.clone()
    }
}

/// Each configuration has a key of its own for its tickets: none outlives a reload, and none opens a
/// listener that asks for more.
fn server(
    identity: &Identity,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, ServerTlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| identity.unusable(source))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|source| identity.unusable(source))?;
    // What a client needs to come back without a full handshake is with the client, however many
    // there are. One ticket is enough, since each connection brings the next.
    config.ticketer = Ticketer::new().map_err(|source| identity.unusable(source))?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
