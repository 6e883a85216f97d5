//! All sessions, by identity and Client Identifier: opening, taking over, waiting for absent clients, ending.

mod durable;
mod handle;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus::time::Now;
use tokio::sync::oneshot;

pub(crate) use self::handle::Handle;
use crate::exchange::Exchange;
use crate::metrics::Metrics;
use crate::session::Bounds;
use crate::store::Store;
use crate::will::{self, Delayed, Fate, SessionFate};
use crate::wire::Will;

/// The connection that has a session.
struct Present {
    kick: oneshot::Sender<()>,
    gone: oneshot::Receiver<()>,
}

struct Entry {
    handle: Arc<Handle>,
    epoch: u64,
    present: Option<Present>,
    /// How long it waits for its client; zero ends it with the connection.
    expiry: Duration,
    expires: Option<Instant>,
    will: Option<Delayed>,
}

/// What a new connection gets.
pub(crate) struct Opened {
    pub(crate) handle: Arc<Handle>,
    /// There was a session, and it goes on.
    pub(crate) is_present: bool,
    pub(crate) epoch: u64,
    /// Completes when another connection takes the session over.
    pub(crate) kicked: oneshot::Receiver<()>,
    /// To be dropped when this connection's Will was dealt with.
    pub(crate) gone: oneshot::Sender<()>,
    /// Completes when the connection before has dealt with its Will.
    pub(crate) before: Option<oneshot::Receiver<()>>,
    /// A Will that a clean start made due.
    pub(crate) due: Option<(Will, u64)>,
}

/// There are as many sessions as allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Default)]
struct Registry {
    entries: HashMap<String, Entry>,
    last_number: u64,
    last_epoch: u64,
}

/// All sessions.
pub(crate) struct Sessions {
    registry: Mutex<Registry>,
    bounds: Bounds,
    maximum: usize,
    exchange: Arc<Exchange>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

impl Sessions {
    /// None yet.
    pub(crate) fn new(
        bounds: Bounds,
        maximum: usize,
        exchange: Arc<Exchange>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            registry: Mutex::default(),
            bounds,
            maximum,
            exchange,
            store,
            metrics,
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the session of a client, and takes it from the connection that has it.
    pub(crate) fn open(
        &self,
        key: &str,
        clean_start: bool,
        expiry: Duration,
    ) -> Result<Opened, Full> {
        let mut registry = self.registry();
        let before = registry.entries.remove(key);
        if before.is_none() && registry.entries.len() >= self.maximum {
            return Err(Full);
        }
        registry.last_epoch += 1;
        let epoch = registry.last_epoch;
        let (mut gone_before, mut due, mut kept, mut ended) = (None, None, None, None);
        if let Some(mut before) = before {
            if let Some(present) = before.present.take() {
                // It may just have ended by itself.
                present.kick.send(()).unwrap_or_default();
                gone_before = Some(present.gone);
            }
            // A session that was to end with its connection ends with the take-over.
            if clean_start || before.expiry.is_zero() {
                due = before.will.take().map(|d| (d.will, before.handle.number()));
                ended = Some(before.handle);
            } else {
                kept = Some(before.handle);
            }
        }
        let is_present = kept.is_some();
        let handle = kept.unwrap_or_else(|| {
            registry.last_number += 1;
            let is_kept = self.store.is_durable() && !expiry.is_zero();
            let store = is_kept.then(|| self.store.clone());
            Handle::new(
                registry.last_number,
                self.bounds,
                self.metrics.clone(),
                store,
            )
        });
        let (kick, kicked) = oneshot::channel();
        let (gone, wait) = oneshot::channel();
        let entry = Entry {
            handle: handle.clone(),
            epoch,
            present: Some(Present { kick, gone: wait }),
            expiry,
            expires: None,
            will: None,
        };
        self.keep(key, &entry, None);
        registry.entries.insert(key.to_owned(), entry);
        drop(registry);
        ended.iter().for_each(|handle| self.end(handle));
        Ok(Opened {
            handle,
            is_present,
            epoch,
            kicked,
            gone,
            before: gone_before,
            due,
        })
    }

    /// Changes how long the session waits for its client (MQTT 5 section 3.14.2.2.2).
    pub(crate) fn set_expiry(&self, key: &str, epoch: u64, expiry: Duration) {
        if let Some(entry) = self.registry().entries.get_mut(key)
            && entry.epoch == epoch
        {
            entry.expiry = expiry;
        }
    }

    /// A connection ended; gives its Will when that is due now.
    pub(crate) fn close(
        &self,
        key: &str,
        handle: &Arc<Handle>,
        epoch: u64,
        will: Option<Will>,
        now: Now,
    ) -> Option<Will> {
        let mut registry = self.registry();
        let entry = registry.entries.get_mut(key);
        let fate_of_session = match &entry {
            Some(entry) if entry.epoch != epoch && Arc::ptr_eq(&entry.handle, handle) => {
                SessionFate::Resumed
            }
            Some(entry) if entry.epoch == epoch && !entry.expiry.is_zero() => {
                SessionFate::Waits(entry.expiry)
            }
            _ => SessionFate::Ended,
        };
        let fate = will.map(|will| will::fate(will, fate_of_session, now.mono));
        if let Some(entry) = entry
            && entry.epoch == epoch
        {
            entry.present = None;
            entry.expires = Some(now.mono + entry.expiry);
            let shared = handle.with(epoch, |session| {
                let shared = session.take_shared(false);
                session.disconnect();
                shared
            });
            let due = match fate {
                Some(Fate::Later(delayed)) => {
                    entry.will = Some(delayed);
                    None
                }
                Some(Fate::Now(will)) => Some(will),
                _ => None,
            };
            let is_over = entry.expiry.is_zero();
            if is_over {
                registry.entries.remove(key);
            } else {
                self.keep(key, entry, Some(now.wall.unix_millis()));
            }
            drop(registry);
            // Whoever is there need not wait for one who left.
            let is_kept = handle.kept().is_some();
            let shared = shared.unwrap_or_default();
            let left = self.exchange.hand_on(handle.number(), is_kept, shared);
            handle.take_back(&left);
            if is_over {
                self.end(handle);
            }
            return due;
        }
        match fate {
            Some(Fate::Now(will)) => Some(will),
            _ => None,
        }
    }

    /// Ends sessions whose clients did not come back; gives the Wills that are due.
    pub(crate) fn handle_timeout(&self, now: Instant) -> Vec<(Will, u64)> {
        let (mut due, mut ended) = (Vec::new(), Vec::new());
        let mut registry = self.registry();
        registry.entries.retain(|_, entry| {
            if entry
                .will
                .as_ref()
                .is_some_and(|delayed| delayed.due <= now)
            {
                let will = entry.will.take();
                due.extend(will.map(|delayed| (delayed.will, entry.handle.number())));
            }
            let is_kept = entry.expires.is_none_or(|at| at > now);
            if !is_kept {
                ended.push(entry.handle.clone());
            }
            is_kept
        });
        let count = registry.entries.len();
        let present = registry.entries.values().filter(|e| e.present.is_some());
        let clients = present.count();
        drop(registry);
        ended.iter().for_each(|handle| self.end(handle));
        self.metrics.expired_sessions.inc_by(ended.len() as u64);
        self.metrics
            .clients
            .set(i64::try_from(clients).unwrap_or(i64::MAX));
        self.metrics
            .sessions
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        due
    }

    /// Makes every connection look at what it should do.
    pub(crate) fn wake_all(&self) {
        for entry in self.registry().entries.values() {
            entry.handle.wake.notify_one();
        }
    }

    /// Ends all of them.
    pub(crate) fn clear(&self) {
        self.registry().entries.clear();
    }
}
