//! How the broker proves itself and verifies its clients: TLS 1.2 and 1.3, certificates on both sides.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::tls::{Identity, TlsError, provider};
use rustls::ServerConfig;
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
    let Ok(bytes) = std::fs::read(&path) else {
        return Ok(Vec::new());
    };
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(ServerTlsError::Revocations(path)),
    }
}

/// Reads `ca.pem`, `cert.pem`, `key.pem` and, when it is there, `crl.pem` of `folder`.
///
/// Every certificate of `ca.pem` is a trust anchor, so that an authority can be replaced without a gap.
pub(crate) fn server_config(folder: &Path) -> Result<ServerConfig, ServerTlsError> {
    let identity = Identity::load(folder)?;
    let roots = Arc::new(identity.root_store()?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .with_crls(revocations(folder)?)
        .only_check_end_entity_revocation()
        // An anchor without a list of its own has revoked nothing.
        .allow_unknown_revocation_status()
        .build()
        .map_err(|source| ServerTlsError::Verifier {
            path: folder.to_owned(),
            source,
        })?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| identity.unusable(source))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|source| identity.unusable(source))?;
    Ok(config)
}
