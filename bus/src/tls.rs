//! The files of an identity, as rustls takes them.
//!
//! A folder holds `ca.pem` (trust anchors), `cert.pem` (end-entity certificate, then intermediates)
//! and `key.pem`; `certgen` writes it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientCertVerifierBuilder, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::time::{Timestamp, now};

/// Why an identity's files can't be used; names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{} can't be read: {remedy}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A file holds no PEM of the kind it should.
    #[error("{} holds no usable {what}: issue it again with certgen", path.display())]
    NoPem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key don't fit, or the certificate can't be used.
    #[error("the certificate in {} can't be used", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
}

/// Why clients can't be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// A trust anchor.
    #[error(transparent)]
    Anchor(#[from] TlsError),
    /// The revocation list is there but can't be used.
    #[error("{} is no revocation list in PEM: write it again with certgen", .0.display())]
    Revocations(PathBuf),
    /// The revocation list can't be read.
    #[error("{} can't be read: give the user that runs nodebus the right to read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The trust anchors or revocation lists don't fit.
    #[error("the certificates in {} can't verify clients", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What rustls said.
        source: VerifierBuilderError,
    },
}

/// What clients' certificates are verified by.
#[derive(Debug, Clone)]
pub struct ClientVerifier {
    /// Looks for a chain to one of the trust anchors, for client authentication, that is valid now
    /// and not revoked.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// The same, for where a client may come without a certificate.
    pub optional: Arc<dyn ClientCertVerifier>,
    /// Whether there was a list of revocations.
    pub has_revocations: bool,
}

/// The files of one identity, read.
#[derive(Debug)]
pub struct Identity {
    /// The trust anchors of `ca.pem`, all of them.
    pub roots: Vec<CertificateDer<'static>>,
    /// The end-entity certificate, then its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    folder: PathBuf,
}

fn read(path: PathBuf) -> Result<(PathBuf, Vec<u8>), TlsError> {
    match std::fs::read(&path) {
        Ok(bytes) => Ok((path, bytes)),
        Err(source) => {
            let remedy = match source.kind() {
                io::ErrorKind::NotFound => "make it with `certgen bundle quickstart`",
                io::ErrorKind::PermissionDenied => {
                    "give the user that runs nodebus the right to read it"
                }
                _ => "check the path and the disk",
            };
            Err(TlsError::Unreadable {
                path,
                source,
                remedy,
            })
        }
    }
}

fn certificates(path: PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (path, bytes) = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::NoPem {
            path,
            what: "certificate",
        }),
    }
}

fn revocations(folder: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, VerifierError> {
    let path = folder.join("crl.pem");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(VerifierError::Unreadable { path, source }),
    };
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(VerifierError::Revocations(path)),
    }
}

impl Identity {
    /// Reads the files of `folder`.
    ///
    /// # Errors
    /// A file is missing, unreadable or holds something else.
    pub fn load(folder: &Path) -> Result<Self, TlsError> {
        // certgen swaps all three with one link; following it once keeps them of one generation.
        let files = folder.join("..live").canonicalize();
        let files = files.unwrap_or_else(|_| folder.to_owned());
        let roots = certificates(files.join("ca.pem"))?;
        let chain = certificates(files.join("cert.pem"))?;
        let (path, key) = read(files.join("key.pem"))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| TlsError::NoPem {
            path,
            what: "private key",
        })?;
        Ok(Self {
            roots,
            chain,
            key,
            folder: folder.to_owned(),
        })
    }

    /// The trust anchors as a store.
    ///
    /// # Errors
    /// One of them is not a certificate.
    pub fn root_store(&self) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store
                .add(root.clone())
                .map_err(|source| self.unusable(source))?;
        }
        Ok(store)
    }

    /// What verifies the clients of a server with this identity: by its trust anchors and, when it is
    /// there, `crl.pem` of its folder. Every certificate of `ca.pem` is an anchor, so that an
    /// authority can be replaced without a gap; one without a list of its own has revoked nothing.
    ///
    /// # Errors
    /// An anchor or the list of revocations can't be used.
    pub fn client_verifier(&self) -> Result<ClientVerifier, VerifierError> {
        let roots = Arc::new(self.root_store()?);
        let revocations = revocations(&self.folder)?;
        let has_revocations = !revocations.is_empty();
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .with_crls(revocations)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
        let build = |builder: ClientCertVerifierBuilder| {
            builder.build().map_err(|source| VerifierError::Unusable {
                path: self.folder.clone(),
                source,
            })
        };
        Ok(ClientVerifier {
            optional: build(builder.clone().allow_unauthenticated())?,
            verifier: build(builder)?,
            has_revocations,
        })
    }

    /// A configuration that proves this identity and trusts only its own trust anchors.
    ///
    /// # Errors
    /// Certificate and key don't fit each other.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| self.unusable(source))?
            .with_root_certificates(self.root_store()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|source| self.unusable(source))
    }

    /// A configuration of a server that proves this identity and asks its clients for none.
    ///
    /// # Errors
    /// Certificate and key don't fit each other.
    pub fn server_config(&self) -> Result<ServerConfig, TlsError> {
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| self.unusable(source))?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|source| self.unusable(source))
    }

    /// When the end-entity certificate ends, and whose it is: the role and the name of its URI SAN,
    /// empty without one. None when it can't be parsed.
    #[must_use]
    pub fn expiry(&self) -> Option<Expiry> {
        let (_, certificate) = X509Certificate::from_der(self.chain.first()?).ok()?;
        let not_after = certificate.validity().not_after.timestamp();
        let names = certificate.subject_alternative_name().ok()?;
        let uri = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .find_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix("urn:nodebus:")?.split_once(':'),
                _ => None,
            });
        let (role, name) = uri.unwrap_or_default();
        Some(Expiry {
            role: role.to_owned(),
            name: name.to_owned(),
            not_after: Timestamp::from_unix_millis(not_after.saturating_mul(1000)),
        })
    }

    /// Wraps an error of rustls with the folder it is about.
    #[must_use]
    pub fn unusable(&self, source: rustls::Error) -> TlsError {
        TlsError::Unusable {
            path: self.folder.clone(),
            source,
        }
    }
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The role that it names.
    pub role: String,
    /// The name that it names.
    pub name: String,
    /// The last moment at which it is valid.
    pub not_after: Timestamp,
}

/// The metric `nodebus_certificate_expiry_seconds{role,name}`: how long the certificates of this
/// process are still valid, as of the moment of asking. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expiries(Arc<Mutex<BTreeMap<(String, String), Timestamp>>>);

impl Expiries {
    /// Takes a certificate in, in place of the one before it of that role and name.
    pub(crate) fn set(&self, expiry: Expiry) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((expiry.role, expiry.name), expiry.not_after);
    }
}

impl Collector for Expiries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            "nodebus_certificate_expiry",
            "Time until the certificate ends",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        let now = now().wall.unix_millis();
        for ((role, name), not_after) in &*known {
            let seconds = not_after.unix_millis().saturating_sub(now) / 1000;
            let labels = [("role", role.as_str()), ("name", name.as_str())];
            ConstGauge::new(seconds).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The one crypto provider of the process.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
