//! Keeps publishers from running ahead of what the hubs have taken from the Router.
//!
//! The Router keeps a bounded number of bytes and drops the oldest unseen, silently. Each hub that
//! asks for messages gets all of them, so how far it is behind is known to the byte.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::{SEGMENT_BYTES, SEGMENTS};

/// Bytes that a hub may be behind before publishers wait. What the Router keeps beyond that is for
/// those who could not wait, and for messages that were on their way while a hub began to ask.
const WINDOW: u64 = (SEGMENT_BYTES * SEGMENTS) as u64 / 8;

/// A hub that asks for nothing.
const ABSENT: u64 = u64::MAX;

/// How far publishers and hubs are.
#[derive(Debug)]
pub(super) struct Pace {
    published: AtomicU64,
    taken: Box<[AtomicU64]>,
    relief: Notify,
}

impl Pace {
    /// For so many hubs, which ask for nothing yet.
    pub(super) fn new(hubs: usize) -> Self {
        Self {
            published: AtomicU64::new(0),
            taken: (0..hubs).map(|_| AtomicU64::new(ABSENT)).collect(),
            relief: Notify::new(),
        }
    }

    /// Notes where the last message that was published ends.
    pub(super) fn published(&self, end: u64) {
        self.published.store(end, Ordering::Relaxed);
    }

    fn set(&self, hub: usize, taken: u64) {
        if let Some(known) = self.taken.get(hub) {
            known.store(taken, Ordering::Relaxed);
            self.relief.notify_waiters();
        }
    }

    /// A hub asks, and gets what is published from now on.
    pub(super) fn begin(&self, hub: usize) {
        self.set(hub, self.published.load(Ordering::Relaxed));
    }

    /// A hub has taken all messages up to the one that ends there.
    pub(super) fn taken(&self, hub: usize, end: u64) {
        self.set(hub, end);
    }

    /// A hub asks no more.
    pub(super) fn end(&self, hub: usize) {
        self.set(hub, ABSENT);
    }

    /// Whether publishers should wait.
    pub(super) fn is_exceeded(&self) -> bool {
        let taken = self.taken.iter().map(|taken| taken.load(Ordering::Relaxed));
        let last = taken.min().unwrap_or(ABSENT);
        self.published.load(Ordering::Relaxed).saturating_sub(last) > WINDOW
    }

    /// Completes when a hub got further. Cancel safe.
    pub(super) fn relieved(&self) -> Notified<'_> {
        self.relief.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_hub_that_asks_counts() {
        let pace = Pace::new(3);
        pace.published(10 * WINDOW);
        assert!(!pace.is_exceeded());
        pace.begin(0);
        pace.begin(1);
        pace.published(11 * WINDOW);
        assert!(!pace.is_exceeded());
        pace.published(11 * WINDOW + 1);
        assert!(pace.is_exceeded());
        pace.taken(0, 11 * WINDOW + 1);
        assert!(pace.is_exceeded());
        pace.taken(1, 10 * WINDOW + 1);
        assert!(!pace.is_exceeded());
        pace.published(20 * WINDOW);
        pace.end(0);
        assert!(pace.is_exceeded());
        pace.end(1);
        assert!(!pace.is_exceeded());
    }
}
