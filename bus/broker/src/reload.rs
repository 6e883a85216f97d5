//! Reading certificates, revocations and the access list again: on SIGHUP, and when a file changed.
//!
//! What can't be used is told and counted, and what was in force stays.

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use bus::admin::Admin;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::broker::Broker;
use crate::gate::Sources;
use crate::tls::{ServerTlsError, Trust};

/// Between two looks at the files. A change is taken up when the next look finds no further one, so
/// that a file is not read while it is written.
const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of the files from another: device time of change, size and inode.
pub(crate) type Stamp = Vec<Option<(i64, i64, u64, u64)>>;

/// How the files are now.
pub(crate) fn stamp(sources: &Sources) -> Stamp {
    let stamp = |path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.size(), file.ino()))
    };
    sources.paths().map(stamp).collect()
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
        let old = broker.gate.rules().trust;
        // A file system may keep one waiting.
        let read = tokio::task::spawn_blocking(move || {
            let now = stamp(&files);
            let is_due = is_asked || (now != before && now == last);
            (now, is_due.then(|| (again(&files, &old), files.acl())))
        });
        let Ok((now, read)) = read.await else {
            tracing::error!("the files of the bus could not be looked at");
            continue;
        };
        looked = now;
        if let Some((trust, acl)) = read {
            taken_up.clone_from(&looked);
            let trust = taken(&broker, "certificates", trust);
            if let Some(expiry) = trust.as_ref().and_then(|trust| trust.expiry.clone()) {
                admin.certificate(expiry);
            }
            let acl = taken(&broker, "acl", acl);
            broker.gate.replace(trust, acl);
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
