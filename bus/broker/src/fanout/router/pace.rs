//! Keeps publishers from running ahead of what the hubs have taken.
//!
//! Every so many bytes a mark follows the messages through the Router and comes back over every hub
//! like any message. The Router serves the filters of a link in turns, so when a mark is back, each
//! had a turn since; and a hub that turns of this length don't suffice says so itself.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
/// Bytes published since the last mark that came back over every hub, before publishers wait.
const WINDOW: u64 = KEPT / 8;
/// Bytes that a hub may be behind before publishers wait for it.
const LAG: u64 = KEPT / 4;

/// The mark that came back last over one hub.
#[derive(Debug, Default)]
struct Back {
    number: AtomicU64,
    bytes: AtomicU64,
}

/// How far publishers and hubs are.
#[derive(Debug)]
pub(super) struct Pace {
    published: AtomicU64,
    marked: AtomicU64,
    marks: AtomicU64,
    back: Vec<Back>,
    lagging: AtomicUsize,
    relief: Notify,
}

impl Pace {
    pub(super) fn new(hubs: usize) -> Self {
        Self {
            published: AtomicU64::new(0),
            marked: AtomicU64::new(0),
            marks: AtomicU64::new(0),
            back: (0..hubs).map(|_| Back::default()).collect(),
            lagging: AtomicUsize::new(0),
            relief: Notify::new(),
        }
    }

    /// Notes how many bytes are published; gives a mark when one is due. Callers take turns.
    pub(super) fn published(&self, bytes: u64) -> Option<Message> {
        self.published.store(bytes, Ordering::Relaxed);
        if bytes - self.marked.load(Ordering::Relaxed) < MARK {
            return None;
        }
        self.marked.store(bytes, Ordering::Relaxed);
        Some(self.mark())
    }

    /// A mark to be published now; its number is that of the message.
    pub(super) fn mark(&self) -> Message {
        let mark = Draft::new(&Parts {
            topic: TOPIC,
            payload: &[],
            qos: Qos::AtMostOnce,
            retain: false,
            origin: 0,
            expires: None,
            properties: &[],
        });
        let number = self.marks.fetch_add(1, Ordering::Relaxed) + 1;
        mark.seal(number, self.published.load(Ordering::Relaxed))
    }

    /// Whether publishers should wait.
    pub(super) fn is_exceeded(&self) -> bool {
        let published = self.published.load(Ordering::Relaxed);
        let ahead = |back: &Back| published.saturating_sub(back.bytes.load(Ordering::Relaxed));
        self.lagging.load(Ordering::Relaxed) > 0 || self.back.iter().any(|b| ahead(b) > WINDOW)
    }

    /// Completes when things may have become better. Cancel safe.
    pub(super) fn relieved(&self) -> Notified<'_> {
        self.relief.notified()
    }

    fn mark_is_back(&self, hub: usize, mark: &Message) {
        if let Some(back) = self.back.get(hub) {
            back.number.store(mark.seq(), Ordering::Relaxed);
            back.bytes.store(mark.position(), Ordering::Relaxed);
        }
        self.relief.notify_waiters();
    }

    /// Whether the mark with this number came back over a hub.
    pub(super) fn is_back(&self, hub: usize, mark: u64) -> bool {
        let back = self.back.get(hub);
        back.is_none_or(|back| back.number.load(Ordering::Relaxed) >= mark)
    }

    /// Whether a hub whose next message stands there is too far behind.
    pub(super) fn is_lagging(&self, position: u64) -> bool {
        let published = self.published.load(Ordering::Relaxed);
        published.saturating_sub(position) > LAG
    }

    /// A hub began or ceased to lag.
    pub(super) fn set_lagging(&self, is_lagging: bool) {
        if is_lagging {
            self.lagging.fetch_add(1, Ordering::Relaxed);
        } else {
            self.lagging.fetch_sub(1, Ordering::Relaxed);
            self.relief.notify_waiters();
        }
    }
}

/// Takes marks that came back over one hub.
pub(super) struct Marks {
    pub(super) shared: Weak<Shared>,
    pub(super) hub: usize,
}

impl Sink for Marks {
    fn deliver(&self, messages: &[Message]) {
        let last = messages.iter().rfind(|message| message.topic() == TOPIC);
        if let (Some(mark), Some(shared)) = (last, self.shared.upgrade()) {
            shared.pace.mark_is_back(self.hub, mark);
        }
    }
}
