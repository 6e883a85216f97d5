//! The certificate that a session shows: read before each connect, and watched in between.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;

use super::SessionConfig;
use crate::admin::Admin;
use crate::tls::{Identity, TlsError};
use crate::watch::Watch;

/// Whose files a session uses. Clones share what is shown.
#[derive(Debug, Clone)]
pub(super) struct SessionIdentity {
    /// None on a connection without TLS.
    pki: Option<PathBuf>,
    /// What was shown at the last connect, or will be at the next.
    shown: Arc<Mutex<Option<CertificateDer<'static>>>>,
    admin: Admin,
}

impl SessionIdentity {
    pub(super) fn new(config: &SessionConfig, admin: &Admin) -> Self {
        Self {
            pki: config.url.tls.then(|| config.pki.clone()),
            shown: Arc::default(),
            admin: admin.clone(),
        }
    }

    /// Reads the files for the next connect, and tells until when the certificate is valid; none
    /// without TLS.
    pub(super) fn tls(&self) -> Result<Option<Arc<ClientConfig>>, TlsError> {
        let Some(pki) = &self.pki else {
            return Ok(None);
        };
        let identity = Identity::load(pki)?;
        let tls = identity.client_config()?;
        if let Some(expiry) = identity.expiry() {
            self.admin.certificate(expiry);
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = identity.chain.into_iter().next();
        Ok(Some(Arc::new(tls)))
    }

    /// The files from now on; none without TLS.
    pub(super) fn watch(&self) -> Option<Watch> {
        self.pki.as_deref().map(Watch::new)
    }

    /// Completes when the files hold another certificate than is shown, which can be used.
    pub(super) async fn replaced(&self, watch: &mut Watch) {
        loop {
            watch.changed().await;
            let this = self.clone();
            let read = tokio::task::spawn_blocking(move || this.is_replaced()).await;
            match read {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    let error: &dyn Error = &error;
                    tracing::warn!(error, "the old certificate is used on");
                }
                Err(_) => tracing::error!("the files of the certificate could not be looked at"),
            }
        }
    }

    fn is_replaced(&self) -> Result<bool, TlsError> {
        let Some(pki) = &self.pki else {
            return Ok(false);
        };
        let identity = Identity::load(pki)?;
        identity.client_config()?;
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(identity.chain.first() != shown.as_ref())
    }
}
