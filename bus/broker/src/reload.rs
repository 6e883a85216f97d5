//! Reading certificates, revocations, the access list and passwords again: on SIGHUP, and when a
//! file changed.
//!
//! What can't be used is told and counted, and what was in force stays.

use std::error::Error;
use std::sync::Arc;

use bus::admin::Admin;
use bus::watch::{LOOK, Stamp};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::broker::Broker;
use crate::gate::Sources;
use crate::tls::{ServerTlsError, Trust};

/// How the files are now.
pub(crate) fn stamp(sources: &Sources) -> Stamp {
    bus::watch::stamp(sources.paths())
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

/// Runs until the stop. `taken_up` is how the files were before they were first read.
pub(crate) async fn run(broker: Arc<Broker>, admin: Admin, sources: Sources, mut taken_up: Stamp) {
    let mut looked = taken_up.clone();
    let mut hangup = signal(SignalKind::hangup())
        .inspect_err(|error| tracing::warn!(%error, "SIGHUP can't be listened to"))
        .ok();
    loop {
        let is_asked = tokio::select! {
            () = tokio::time::sleep(LOOK) => false,
            () = asked(&mut hangup) => true,
            () = broker.shutdown.stopping() => return,
        };
        let (files, before, last) = (sources.clone(), taken_up.clone(), looked.clone());
        let old = broker.gate.rules();
        // A file system may keep one waiting.
        let read = tokio::task::spawn_blocking(move || {
            let now = stamp(&files);
            let is_due = is_asked || (now != before && now == last);
            let read = || {
                let passwords = files.passwords(&old.passwords);
                (again(&files, &old.trust), files.acl(), passwords)
            };
            (now, is_due.then(read))
        });
        let Ok((now, read)) = read.await else {
            tracing::error!("the files of the bus could not be looked at");
            continue;
        };
        looked = now;
        if let Some((trust, acl, passwords)) = read {
            taken_up.clone_from(&looked);
            let trust = taken(&broker, "certificates", trust);
            if let Some(expiry) = trust.as_ref().and_then(|trust| trust.expiry.clone()) {
                admin.certificate(expiry);
            }
            let acl = taken(&broker, "acl", acl);
            let passwords = taken(&broker, "passwords", passwords);
            broker.gate.replace(trust, acl, passwords);
            broker.sessions.wake_all();
        }
    }
}

/// Reads the certificates again. A list of revocations does not just go away.
fn again(sources: &Sources, old: &Trust) -> Result<Trust, ServerTlsError> {
    let trust = sources.trust()?;
    if old.has_revocations && !trust.has_revocations {
        return Err(ServerTlsError::RevocationsGone(sources.pki.join("crl.pem")));
    }
    Ok(trust)
}

fn taken<T, E: Error + 'static>(
    broker: &Broker,
    what: &'static str,
    read: Result<T, E>,
) -> Option<T> {
    let result = if read.is_ok() { "ok" } else { "kept" };
    broker.metrics.reloaded(what, result);
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
