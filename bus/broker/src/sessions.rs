//! All sessions, by identity and Client Identifier: opening, taking over, waiting for absent clients, ending.

mod durable;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus::time::Now;
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};

use crate::exchange::Exchange;
use crate::fanout::{Link, Sink, Stopped};
use crate::message::Message;
use crate::metrics::Metrics;
use crate::session::{Bounds, Pushed, Session};
use crate::store::Store;
use crate::will::{self, Delayed, Fate, SessionFate};
use crate::wire::Will;

/// A session as its connection and the fan-out share it.
pub(crate) struct Handle {
    bound: Mutex<Bound>,
    /// Its number, as [`Session::number`].
    number: u64,
    /// There is something to send, or to look at.
    pub(crate) wake: Notify,
    link: AsyncMutex<Option<Box<dyn Link>>>,
    metrics: Arc<Metrics>,
    /// Where the messages that wait for it are, when it outlives the process.
    store: Option<Arc<Store>>,
}

struct Bound {
    session: Session,
    /// The connection that has the session now.
    epoch: u64,
}

impl Handle {
    fn new(
        number: u64,
        bounds: Bounds,
        metrics: Arc<Metrics>,
        store: Option<Arc<Store>>,
    ) -> Arc<Self> {
        let mut session = Session::new(number, bounds);
        if store.is_some() {
            session.track();
        }
        Arc::new(Self {
            bound: Mutex::new(Bound { session, epoch: 0 }),
            number,
            wake: Notify::new(),
            link: AsyncMutex::new(None),
            metrics,
            store,
        })
    }

    /// Its number, when the session outlives the process.
    pub(crate) fn kept(&self) -> Option<u64> {
        self.store.as_ref().map(|_| self.number)
    }

    /// Removes from the store what waits no more.
    fn settle(&self, bound: &mut Bound) {
        if let Some(store) = &self.store {
            let finished = bound.session.take_finished();
            store.unqueue(self.number, finished.into_iter());
        }
    }

    /// The session's number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `epoch` the connection that has the session.
    pub(crate) fn bind(&self, epoch: u64, with: impl FnOnce(&mut Session)) {
        let mut bound = self.bound();
        if bound.epoch <= epoch {
            bound.epoch = epoch;
            with(&mut bound.session);
            self.settle(&mut bound);
        }
    }

    /// Works with the session; none when another connection has it by now.
    pub(crate) fn with<T>(&self, epoch: u64, work: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut bound = self.bound();
        if bound.epoch != epoch {
            return None;
        }
        let done = work(&mut bound.session);
        self.settle(&mut bound);
        Some(done)
    }

    /// Asks the fan-out for a filter; the first one makes the link.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        exchange: &Exchange,
        filter: &str,
    ) -> Result<(), Stopped> {
        let mut link = self.link.lock().await;
        if link.is_none() {
            let this: Arc<dyn Sink> = self.clone();
            *link = Some(exchange.fanout().attach(Arc::downgrade(&this)).await?);
        }
        match &*link {
            Some(link) => link.subscribe(filter).await,
            None => Err(Stopped),
        }
    }

    /// Asks for a filter no more; the last one ends the link.
    pub(crate) async fn unsubscribe(&self, filter: &str, is_last: bool) -> Result<(), Stopped> {
        let mut link = self.link.lock().await;
        if is_last {
            *link = None;
        }
        match &*link {
            Some(link) => link.unsubscribe(filter).await,
            None => Ok(()),
        }
    }
}

impl Sink for Handle {
    fn deliver(&self, messages: &mut Vec<Message>) {
        let (mut dropped, mut oldest, mut is_queued) = (0, 0, false);
        let mut bound = self.bound();
        for message in messages.drain(..) {
            match bound.session.handle_message(&message) {
                Pushed::NotAsked => {}
                Pushed::Queued => is_queued = true,
                Pushed::Dropped => dropped += 1,
                Pushed::DroppedOldest => oldest += 1,
                Pushed::Overflow => {
                    dropped += 1;
                    is_queued = true;
                }
            }
        }
        self.settle(&mut bound);
        drop(bound);
        self.metrics.dropped("queue_full", dropped);
        self.metrics.dropped("oldest_of_absent", oldest);
        if is_queued {
            self.wake.notify_one();
        }
    }
}

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
        let (mut gone_before, mut due, mut kept) = (None, None, None);
        if let Some(mut before) = before {
            if let Some(present) = before.present.take() {
                // It may just have ended by itself.
                present.kick.send(()).unwrap_or_default();
                gone_before = Some(present.gone);
            }
            // A session that was to end with its connection ends with the take-over.
            if clean_start || before.expiry.is_zero() {
                due = before.will.take().map(|d| (d.will, before.handle.number()));
                self.end(&before.handle);
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
            handle.with(epoch, Session::disconnect).unwrap_or_default();
            let due = match fate {
                Some(Fate::Later(delayed)) => {
                    entry.will = Some(delayed);
                    None
                }
                Some(Fate::Now(will)) => Some(will),
                _ => None,
            };
            if entry.expiry.is_zero() {
                registry.entries.remove(key);
                self.end(handle);
            } else {
                self.keep(key, entry, Some(now.wall.unix_millis()));
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
        let mut due = Vec::new();
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
                self.end(&entry.handle);
            }
            is_kept
        });
        let count = registry.entries.len();
        let present = registry.entries.values().filter(|e| e.present.is_some());
        let clients = present.count();
        drop(registry);
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
