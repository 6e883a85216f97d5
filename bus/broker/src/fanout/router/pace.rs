//! Keeps publishers from running ahead of what the Router has handed on.
//!
//! Every so many bytes a mark follows the messages through the Router and comes back like any
//! message. The Router serves links in turns, so when a mark is back, every link was served since;
//! and a link that reads too slowly for its turns says so itself.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::super::Sink;
use super::{SEGMENT_BYTES, SEGMENTS, Shared};
use crate::message::{Draft, Message, Parts};
use crate::wire::Qos;

/// No client can publish to it or subscribe to it.
pub(super) const TOPIC: &str = "$nodebus/pace";

/// Bytes that the Router keeps of a filter.
const KEPT: u64 = (SEGMENT_BYTES * SEGMENTS) as u64;
/// Bytes between two marks.
const MARK: u64 = KEPT / 32;
/// Bytes published since the last mark that came back, before publishers wait.
const WINDOW: u64 = KEPT / 8;
/// Bytes that a link may be behind before publishers wait for it.
const LAG: u64 = KEPT / 4;

/// How far publishers and links are.
#[derive(Debug, Default)]
pub(super) struct Pace {
    published: AtomicU64,
    marked: AtomicU64,
    back: AtomicU64,
    lagging: AtomicUsize,
    relief: Notify,
}

impl Pace {
    /// Notes how many bytes are published; gives a mark when one is due. Callers take turns.
    pub(super) fn published(&self, bytes: u64) -> Option<Message> {
        self.published.store(bytes, Ordering::Relaxed);
        if bytes - self.marked.load(Ordering::Relaxed) < MARK {
            return None;
        }
        self.marked.store(bytes, Ordering::Relaxed);
        let mark = Draft::new(&Parts {
            topic: TOPIC,
            payload: &[],
            qos: Qos::AtMostOnce,
            retain: false,
            origin: 0,
            expires: None,
            properties: &[],
        });
        Some(mark.seal(0, bytes))
    }

    /// Whether publishers should wait.
    pub(super) fn is_exceeded(&self) -> bool {
        let published = self.published.load(Ordering::Relaxed);
        self.lagging.load(Ordering::Relaxed) > 0
            || published.saturating_sub(self.back.load(Ordering::Relaxed)) > WINDOW
    }

    /// Completes when things may have become better. Cancel safe.
    pub(super) fn relieved(&self) -> Notified<'_> {
        self.relief.notified()
    }

    fn mark_is_back(&self, bytes: u64) {
        self.back.store(bytes, Ordering::Relaxed);
        self.relief.notify_waiters();
    }

    /// Whether a link whose next message stands there is too far behind.
    pub(super) fn is_lagging(&self, position: u64) -> bool {
        let published = self.published.load(Ordering::Relaxed);
        published.saturating_sub(position) > LAG
    }

    /// A link began or ceased to lag.
    pub(super) fn set_lagging(&self, is_lagging: bool) {
        if is_lagging {
            self.lagging.fetch_add(1, Ordering::Relaxed);
        } else {
            self.lagging.fetch_sub(1, Ordering::Relaxed);
            self.relief.notify_waiters();
        }
    }
}

/// Takes marks that came back.
pub(super) struct Marks(Weak<Shared>);

impl Marks {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }
}

impl Sink for Marks {
    fn deliver(&self, messages: &[Message]) {
        let last = messages.iter().rfind(|message| message.topic() == TOPIC);
        if let (Some(mark), Some(shared)) = (last, self.0.upgrade()) {
            shared.pace.mark_is_back(mark.position());
        }
    }
}
