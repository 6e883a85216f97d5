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
pub(crate) use self::disk::Loaded;
pub use self::disk::StoreError;
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
}

/// Writes that are committed together; none removes.
type Batch = HashMap<Key, Option<Bytes>>;

/// The commit that a write is part of. [`Ticket::default`] is part of none.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

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
    /// Sessions whose waiting messages are all removed.
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

    fn write(&self, key: Key, value: Option<Bytes>) -> Ticket {
        self.write_all([(key, value)])
    }

    /// Writes all of it in one commit.
    fn write_all(&self, writes: impl IntoIterator<Item = (Key, Option<Bytes>)>) -> Ticket {
        let Some(shared) = &self.shared else {
            return Ticket::default();
        };
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

    /// Keeps a retained message, or removes it when its payload is empty.
    pub(crate) fn retain(&self, message: &Message) -> Ticket {
        if !self.is_durable() {
            return Ticket::default();
        }
        let is_removal = message.payload().is_empty();
        let value = (!is_removal).then(|| message.clone().into_bytes());
        self.write(Key::Retained(message.topic().to_owned()), value)
    }

    /// Removes the retained message of a topic.
    pub(crate) fn forget(&self, topic: &str) {
        self.write(Key::Retained(topic.to_owned()), None);
    }

    /// Keeps a session.
    pub(crate) fn keep(&self, number: u64, session: Vec<u8>) -> Ticket {
        self.write(Key::Session(number), Some(session.into()))
    }

    /// Removes a session and all that waits for it.
    pub(crate) fn end(&self, number: u64) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.state();
        let of_it = |key: &Key| matches!(key, Key::Queued(of, _) if *of == number);
        state.batch.retain(|key, _| !of_it(key));
        state.ended.push(number);
        drop(state);
        self.write(Key::Session(number), None);
    }

    /// Keeps a message that waits for a session.
    pub(crate) fn queue(&self, number: u64, message: &Message) -> Ticket {
        let key = Key::Queued(number, message.seq());
        self.write(key, Some(message.clone().into_bytes()))
    }

    /// Removes messages that wait for a session no more.
    pub(crate) fn unqueue(&self, number: u64, seqs: impl Iterator<Item = u64>) {
        for seq in seqs {
            self.write(Key::Queued(number, seq), None);
        }
    }

    /// Makes a message that waits for a session wait for another, if that is kept.
    pub(crate) fn requeue(&self, from: u64, to: Option<u64>, message: &Message) {
        let seq = message.seq();
        let to = to.map(|to| (Key::Queued(to, seq), Some(message.clone().into_bytes())));
        let from = (Key::Queued(from, seq), None);
        self.write_all(to.into_iter().chain([from]));
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
        let is_ended = matches!(&key, Key::Queued(of, _) if state.ended.contains(of));
        if !is_ended {
            state.batch.entry(key).or_insert(value);
        }
    }
    state.ended.extend(ended);
}
