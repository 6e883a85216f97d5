//! How the broker proves itself and verifies its clients: TLS 1.2 and 1.3, certificates on both sides.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::tls::{Expiry, Identity, TlsError, provider};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;

/// Why the listener for mTLS can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// Files of the broker's identity.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// The revocation list is there but can't be used.
    #[error("{} is no revocation list in PEM: write it again with certgen", .0.display())]
    Revocations(PathBuf),
    /// The revocation list can't be read.
    #[error("{} can't be read: give the user that runs nodebus the right to read it", path.display())]
    RevocationsUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There was a revocation list when the broker started.
    #[error("{} is gone: put it back, or restart the bus to do without", .0.display())]
    RevocationsGone(PathBuf),
    /// The trust anchors or revocation lists don't fit.
    #[error("the certificates in {} can't verify clients", path.display())]
    Verifier {
        /// The folder.
        path: PathBuf,
        /// What rustls said.
        source: VerifierBuilderError,
    },
}

fn revocations(
    folder: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, ServerTlsError> {
    let path = folder.join("crl.pem");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ServerTlsError::RevocationsUnreadable { path, source }),
    };
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(ServerTlsError::Revocations(path)),
    }
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
    ///
    /// Every certificate of `ca.pem` is a trust anchor, so that an authority can be replaced
    /// without a gap.
    pub(crate) fn load(folder: &Path) -> Result<Self, ServerTlsError> {
        let identity = Identity::load(folder)?;
        let roots = Arc::new(identity.root_store()?);
        let revocations = revocations(folder)?;
        let has_revocations = !revocations.is_empty();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .with_crls(revocations)
            .only_check_end_entity_revocation()
            // An anchor without a list of its own has revoked nothing.
            .allow_unknown_revocation_status()
            .build()
            .map_err(|source| ServerTlsError::Verifier {
                path: folder.to_owned(),
                source,
            })?;
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
