//! The files by which nodes are believed: read at the start, and again when they change.

use std::error::Error;
use std::path::{Path, PathBuf};

use bus::admin::Admin;
use bus::shutdown::Shutdown;
use bus::watch::Watch;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::StartError;
use crate::config::Config;
use crate::dtls::{Keys, Trust, TrustError};
use crate::metrics::Metrics;

/// What was read. When the driver is behind, the next one waits.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) keys: Option<Keys>,
    pub(super) trust: Option<Trust>,
}

/// Where they are.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    psk: Option<PathBuf>,
    pki: Option<PathBuf>,
}

impl Sources {
    /// None when nodes are not to be heard over DTLS.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let (psk, pki) = (config.psk.clone(), config.dtls_pki.clone());
        (psk.is_some() || pki.is_some()).then_some(Self { psk, pki })
    }

    fn paths(&self) -> Vec<PathBuf> {
        let names = ["ca.pem", "cert.pem", "key.pem", "crl.pem"];
        let pki = self.pki.iter();
        let pki = pki.flat_map(|folder| names.map(|name| folder.join(name)));
        self.psk.iter().cloned().chain(pki).collect()
    }

    pub(super) fn watch(&self) -> Watch {
        Watch::over(self.paths())
    }

    /// Reads them for the first time; they may be made later.
    pub(super) fn read(&self) -> Result<Credentials, StartError> {
        for path in self
            .psk
            .iter()
            .chain(&self.pki)
            .filter(|path| is_absent(path))
        {
            tracing::info!(path = %path.display(), "not there yet: no node can join over DTLS by it");
        }
        let (psk, pki) = self.present(Had::default());
        Ok(Credentials {
            keys: psk.map(Keys::load).transpose()?,
            trust: pki.map(Trust::load).transpose()?,
        })
    }

    /// The keys and the folder of certificates that are there, or should be.
    fn present(&self, had: Had) -> (Option<&Path>, Option<&Path>) {
        let psk = self.psk.as_deref();
        let pki = self.pki.as_deref();
        (
            psk.filter(|file| had.keys || !is_absent(file)),
            pki.filter(|folder| had.trust || !is_absent(folder)),
        )
    }

    /// Reads them again; what can't be used is told and counted, and what was in force stays. What
    /// was there does not just go away, nor does a list of revocations.
    fn read_again(&self, had: Had, metrics: &Metrics) -> Credentials {
        let (psk, pki) = self.present(had);
        let keys = psk.map(Keys::load);
        let trust = pki.map(|folder| {
            let trust = Trust::load(folder)?;
            match had.revocations && !trust.has_revocations() {
                true => Err(TrustError::RevocationsGone(folder.join("crl.pem"))),
                false => Ok(trust),
            }
        });
        Credentials {
            keys: keys.and_then(|keys| taken("keys", keys, metrics)),
            trust: trust.and_then(|trust| taken("certificates", trust, metrics)),
        }
    }
}

/// What has been read so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Had {
    keys: bool,
    trust: bool,
    revocations: bool,
}

impl Had {
    pub(super) fn note(&mut self, read: &Credentials) {
        self.keys |= read.keys.is_some();
        if let Some(trust) = &read.trust {
            self.trust = true;
            self.revocations = trust.has_revocations();
        }
    }
}

/// Whether there is nothing; what can't be looked at is something.
fn is_absent(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

fn taken<T, E: Error + 'static>(
    what: &'static str,
    read: Result<T, E>,
    metrics: &Metrics,
) -> Option<T> {
    let result = if read.is_ok() { "ok" } else { "kept" };
    metrics.reloaded(what, result);
    match read {
        Ok(read) => {
            tracing::info!(what, "read again");
            Some(read)
        }
        Err(error) => {
            let error: &dyn Error = &error;
            tracing::error!(what, error, "can't be read again: what was in force stays");
            None
        }
    }
}

/// Completes at a SIGHUP, never when the system gives none.
async fn asked(hangup: &mut Option<Signal>) {
    let came = match hangup {
        Some(hangup) => hangup.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending().await
    }
}

/// Passes the credentials on at each SIGHUP and whenever they have changed, until the stop.
pub(super) async fn keep(
    sources: Sources,
    mut watch: Watch,
    mut had: Had,
    to: mpsc::Sender<Credentials>,
    (admin, metrics): (Admin, Metrics),
    shutdown: Shutdown,
) {
    let mut hangup = signal(SignalKind::hangup())
        .inspect_err(|error| tracing::warn!(%error, "SIGHUP can't be listened to"))
        .ok();
    loop {
        tokio::select! {
            () = watch.changed() => {}
            () = asked(&mut hangup) => {}
            () = shutdown.stopping() => return,
        }
        let (files, counters) = (sources.clone(), metrics.clone());
        let read = move || files.read_again(had, &counters);
        let Ok(read) = tokio::task::spawn_blocking(read).await else {
            tracing::error!("the files of the bridge could not be looked at");
            continue;
        };
        had.note(&read);
        if let Some(expiry) = read.trust.as_ref().and_then(|trust| trust.expiry.clone()) {
            admin.certificate(expiry);
        }
        if to.send(read).await.is_err() {
            return;
        }
    }
}
