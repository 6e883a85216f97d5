//! A session as its connection, the fan-out and its groups share it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::exchange::Exchange;
use crate::fanout::{Link, Sink, Stopped};
use crate::message::Message;
use crate::metrics::Metrics;
use crate::session::{Bounds, Note, Pushed, Session};
use crate::shares::{Joining, Member, Readiness};
use crate::store::{Store, Writes};

/// Of no connection: the session has ended.
const ENDED: u64 = u64::MAX;

/// A session as its connection and the fan-out share it.
pub(crate) struct Handle {
    bound: Mutex<Bound>,
    /// Its number, as [`Session::number`].
    number: u64,
    /// There is something to send, or to look at.
    pub(crate) wake: Notify,
    /// Its place at the fan-out, from the first filter on.
    link: OnceLock<Box<dyn Link>>,
    metrics: Arc<Metrics>,
    /// Where the messages that wait for it are, when it outlives the process.
    store: Option<Arc<Store>>,
}

pub(super) struct Bound {
    pub(super) session: Session,
    /// The connection that has the session now.
    epoch: u64,
}

impl Handle {
    pub(super) fn new(
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
            link: OnceLock::new(),
            metrics,
            store,
        })
    }

    /// Its number, when the session outlives the process.
    pub(crate) fn kept(&self) -> Option<u64> {
        self.store.as_ref().map(|_| self.number)
    }

    /// Writes down what the session did to its flows.
    pub(super) fn settle(&self, bound: &mut Bound) {
        if let Some(store) = &self.store {
            let mut writes = Writes::default();
            for note in bound.session.take_notes() {
                match note {
                    Note::Sent(pid, seq) => writes.send(self.number, pid, seq),
                    Note::Completed(pid) => writes.complete(self.number, pid),
                    Note::Finished(seq) => writes.unqueue(self.number, seq),
                }
            }
            let ticket = store.write(writes);
            bound.session.handle_written(ticket);
        }
    }

    /// The session's number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn bound(&self) -> MutexGuard<'_, Bound> {
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

    /// Ends the session: no connection has it any more, and none ever will. Gives its filters.
    pub(super) fn end(&self) -> Vec<String> {
        let mut bound = self.bound();
        bound.epoch = ENDED;
        bound.session.filters().map(str::to_owned).collect()
    }

    /// Takes back what no other session of a group has room for.
    pub(super) fn take_back(&self, messages: &[Message]) {
        self.deliver(messages);
    }

    /// What a group is told of the session.
    pub(crate) fn joining(self: &Arc<Self>) -> Joining {
        let this: Arc<dyn Member> = self.clone();
        Joining {
            number: self.number,
            is_kept: self.store.is_some(),
            member: Arc::downgrade(&this),
        }
    }

    /// Asks the fan-out for a filter.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        exchange: &Exchange,
        filter: &str,
    ) -> Result<(), Stopped> {
        let attach = || {
            let this: Arc<dyn Sink> = self.clone();
            exchange.fanout().attach(Arc::downgrade(&this))
        };
        self.link.get_or_init(attach).subscribe(filter).await
    }

    /// Asks for a filter no more.
    pub(crate) fn unsubscribe(&self, filter: &str) -> Result<(), Stopped> {
        let link = self.link.get();
        link.map_or(Ok(()), |link| link.unsubscribe(filter))
    }
}

impl Sink for Handle {
    fn deliver(&self, messages: &[Message]) {
        let (mut dropped, mut oldest, mut is_queued) = (0, 0, false);
        let mut bound = self.bound();
        for message in messages {
            match bound.session.handle_message(message) {
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

impl Member for Handle {
    fn readiness(&self) -> Readiness {
        self.bound().session.readiness()
    }

    fn take(&self, message: Message) {
        self.deliver(&[message]);
    }
}
