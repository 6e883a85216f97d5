//! What must outlive the process: retained messages, kept sessions and what waits for them.
//!
//! Writes gather in memory and are committed together by one thread, the last value of a key only.
//! A write gives a [`Ticket`]; what depends on it is acknowledged once [`Progress`] has passed the
//! ticket. While the disk takes nothing, writes are kept, and whoever asks is told so.

mod disk;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use self::disk::Disk;
pub use self::disk::StoreError;
pub(crate) use self::disk::{Flows, Loaded};
use crate::message::Message;
use crate::metrics::Metrics;

/// How long writes gather before they are committed.
const WINDOW: Duration = Duration::from_millis(10);
/// Between two tries while the disk takes nothing.
const RETRY: Duration = Duration::from_secs(1);

/// What is stored under which name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// The retained message of a topic.
    Retained(String),
    /// A session, by its number.
    Session(u64),
    /// A message that waits for a session: the session's number, the message's.
    Queued(u64, u64),
    /// A QoS 2 message that came from a session and was not released: the session's number, the
    /// Packet Identifier.
    Received(u64, u16),
    /// A QoS 2 message that a session is sent: the session's number, the Packet Identifier.
    Sent(u64, u16),
}

impl Key {
    /// The session that it ends with; of a session itself, none.
    fn of_session(&self) -> Option<u64> {
        match *self {
            Self::Retained(_) | Self::Session(_) => None,
            Self::Queued(number, _) | Self::Received(number, _) | Self::Sent(number, _) => {
                Some(number)
            }
        }
    }
}

/// Writes that are committed together; none removes.
type Batch = HashMap<Key, Option<Bytes>>;

/// What is to be written in one commit, the last one of a key.
#[derive(Debug, Default)]
pub(crate) struct Writes(Vec<(Key, Option<Bytes>)>);

impl Writes {
    /// A retained message takes the place of the one of its topic, or removes it when its payload
    /// is empty.
    pub(crate) fn retain(&mut self, message: &Message) {
        let is_removal = message.payload().is_empty();
        let value = (!is_removal).then(|| message.clone().into_bytes());
        let topic = message.topic().to_owned();
        self.0.push((Key::Retained(topic), value));
    }

    /// A message waits for a session.
    pub(crate) fn queue(&mut self, number: u64, message: &Message) {
        let value = message.clone().into_bytes();
        self.0
            .push((Key::Queued(number, message.seq()), Some(value)));
    }

    /// A message waits for a session no more.
    pub(crate) fn unqueue(&mut self, number: u64, seq: u64) {
        self.0.push((Key::Queued(number, seq), None));
    }

    /// A QoS 2 message came from a session.
    pub(crate) fn receive(&mut self, number: u64, pid: u16) {
        self.0
            .push((Key::Received(number, pid), Some(Bytes::new())));
    }

    /// A QoS 2 message that came from a session is released, or was refused.
    pub(crate) fn release(&mut self, number: u64, pid: u16) {
        self.0.push((Key::Received(number, pid), None));
    }

    /// A session is sent a QoS 2 message that waits for it; or, with none, what it is sent is PUBREL.
    pub(crate) fn send(&mut self, number: u64, pid: u16, seq: Option<u64>) {
        let value = Bytes::copy_from_slice(&seq.unwrap_or(0).to_be_bytes());
        self.0.push((Key::Sent(number, pid), Some(value)));
    }

    /// A QoS 2 message is done with.
    pub(crate) fn complete(&mut self, number: u64, pid: u16) {
        self.0.push((Key::Sent(number, pid), None));
    }
}

/// The commit that a write is part of. [`Ticket::default`] is part of none.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Of what is not written yet.
    pub(crate) const UNWRITTEN: Self = Self(u64::MAX);

    /// A certain commit.
    #[cfg(test)]
    pub(crate) fn number(number: u64) -> Self {
        Self(number)
    }
}

/// How far commits are.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Progress {
    committed: Ticket,
    failed: Ticket,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pending,
    /// It is on disk.
    Stored,
    /// It is not on disk, and must not be acknowledged.
    Failed,
}

impl Progress {
    /// Everything up to this commit is stored.
    #[cfg(test)]
    pub(crate) fn at(number: u64) -> Self {
        Self {
            committed: Ticket(number),
            ..Self::default()
        }
    }

    /// What became of the write with this ticket.
    pub(crate) fn outcome(self, ticket: Ticket) -> Outcome {
        if ticket <= self.committed {
            Outcome::Stored
        } else if ticket <= self.failed {
            Outcome::Failed
        } else {
            Outcome::Pending
        }
    }
}

#[derive(Debug)]
struct State {
    batch: Batch,
    /// Sessions of which everything is removed.
    ended: Vec<u64>,
    /// The commit that the next write is part of.
    next: u64,
    /// Something was written since the last commit, even if nothing of it is left to be done.
    is_due: bool,
    is_failing: bool,
    is_closing: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    written: Condvar,
    progress: watch::Sender<Progress>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store. Without a folder it holds nothing, and everything written counts as stored.
#[derive(Debug, Default)]
pub(crate) struct Store {
    shared: Option<Arc<Shared>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in `folder`, or makes it there; gives all that it holds.
    pub(crate) fn open(folder: &Path, metrics: Arc<Metrics>) -> Result<(Self, Loaded), StoreError> {
        let (disk, loaded) = Disk::open(folder)?;
        Ok((Self::start(disk, metrics)?, loaded))
    }

    fn start(disk: Disk, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                batch: Batch::new(),
                ended: Vec::new(),
                next: 1,
                is_due: false,
                is_failing: false,
                is_closing: false,
            }),
            written: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
        });
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("bus-store".to_owned())
            .spawn(move || run(&theirs, disk, &metrics))
            .map_err(StoreError::Thread)?;
        Ok(Self {
            shared: Some(shared),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether anything outlives the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether its thread has ended, although nobody closed it.
    pub(crate) fn has_died(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Whether the disk takes nothing now.
    pub(crate) fn is_failing(&self) -> bool {
        let shared = self.shared.as_ref();
        shared.is_some_and(|shared| shared.state().is_failing)
    }

    /// How far commits are; completes with each of them. None when nothing is stored.
    pub(crate) fn progress(&self) -> Option<watch::Receiver<Progress>> {
        let shared = self.shared.as_ref()?;
        Some(shared.progress.subscribe())
    }

    /// Writes all of it in one commit.
    pub(crate) fn write(&self, Writes(writes): Writes) -> Ticket {
        let Some(shared) = &self.shared else {
            return Ticket::default();
        };
        if writes.is_empty() {
            return Ticket::default();
        }
        let mut state = shared.state();
        for (key, value) in writes {
            match (&key, &value) {
                // Written once under this name: what was not committed yet needs no removal.
                (Key::Queued(..), None)
                    if state.batch.remove(&key).is_some_and(|v| v.is_some()) => {}
                _ => {
                    state.batch.insert(key, value);
                }
            }
        }
        state.is_due = true;
        let ticket = Ticket(state.next);
        drop(state);
        shared.written.notify_one();
        ticket
    }

    /// Removes the retained message of a topic.
    pub(crate) fn forget(&self, topic: &str) {
        self.write(Writes(vec![(Key::Retained(topic.to_owned()), None)]));
    }

    /// Keeps a session.
    pub(crate) fn keep(&self, number: u64, session: Vec<u8>) -> Ticket {
        self.write(Writes(vec![(Key::Session(number), Some(session.into()))]))
    }

    /// Removes a session and all that waits for it.
    pub(crate) fn end(&self, number: u64) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.state();
        state
            .batch
            .retain(|key, _| key.of_session() != Some(number));
        state.ended.push(number);
        drop(state);
        self.write(Writes(vec![(Key::Session(number), None)]));
    }

    /// Commits what is left and ends the thread. Blocks until it has.
    pub(crate) fn close(&self) {
        if let Some(shared) = &self.shared {
            shared.state().is_closing = true;
            shared.written.notify_one();
        }
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread ended with a panic");
        }
    }
}

/// Commits until the store is closed.
fn run(shared: &Shared, mut disk: Disk, metrics: &Metrics) {
    loop {
        let (is_failing, is_closing) = gather(shared);
        let (batch, ended, ticket) = {
            let mut state = shared.state();
            let taken = (
                std::mem::take(&mut state.batch),
                std::mem::take(&mut state.ended),
                Ticket(state.next),
            );
            state.next += 1;
            state.is_due = false;
            taken
        };
        let is_empty = batch.is_empty() && ended.is_empty() && !is_failing;
        let committed = if is_empty {
            Ok(())
        } else {
            disk.commit(&batch, &ended)
        };
        let is_ok = committed.is_ok();
        match committed {
            Ok(()) => {
                metrics.commits.inc();
                if is_failing {
                    tracing::info!("the store can be written again");
                }
                shared.state().is_failing = false;
                shared.progress.send_modify(|at| at.committed = ticket);
            }
            Err(error) => {
                metrics.failed_commits.inc();
                if !is_failing {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(
                        error,
                        "the store can't be written: retained messages and messages for absent clients are refused until it can; make room on the disk"
                    );
                }
                put_back(&mut shared.state(), batch, ended);
                shared.progress.send_modify(|at| at.failed = ticket);
            }
        }
        if is_closing {
            if !is_ok {
                tracing::error!("what was written last is not on disk");
            }
            return;
        }
    }
}

/// Waits until there is something to commit and its window is over; gives whether the last commit
/// failed, and whether this one is the last.
fn gather(shared: &Shared) -> (bool, bool) {
    let mut state = shared.state();
    while !state.is_due && !state.is_closing {
        let waited = shared.written.wait(state);
        state = waited.unwrap_or_else(PoisonError::into_inner);
    }
    let window = if state.is_failing { RETRY } else { WINDOW };
    // Nothing but closing cuts the window short.
    let waited = shared
        .written
        .wait_timeout_while(state, window, |state| !state.is_closing);
    let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    (state.is_failing, state.is_closing)
}

/// Takes a batch that failed up again, below what was written since.
fn put_back(state: &mut State, batch: Batch, ended: Vec<u64>) {
    state.is_failing = true;
    state.is_due = true;
    for (key, value) in batch {
        let is_ended = |of| state.ended.contains(&of);
        if !key.of_session().is_some_and(is_ended) {
            state.batch.entry(key).or_insert(value);
        }
    }
    state.ended.extend(ended);
}
