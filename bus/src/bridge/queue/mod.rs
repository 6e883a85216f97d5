//! What the bus has not got yet, and what a bridge knows of its nodes: in order, bounded, on disk.
//!
//! - `order` is the machine, without IO: numbers, bounds, what is under way.
//! - `record` is a publication as bytes; `store` the thread that has the file.
//!
//! A record stays until the bus has acknowledged it. Past [`QueueConfig::max_bytes`] the oldest goes.

mod order;
mod record;
mod store;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;

use bytes::Bytes;

use super::metrics::{Metrics, Reason};
use crate::session::{Publication, Ticket};
use order::Order;
pub use store::StoreError;
use store::{KeptNode, Store};

/// Where a bridge keeps what must outlive it, and how much.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// The folder; without one everything is in memory.
    pub folder: Option<PathBuf>,
    /// How many bytes wait for the bus at the most, as they are published; on disk it is more, see
    /// redb. Full: the oldest goes.
    pub max_bytes: u64,
}

impl Default for QueueConfig {
    /// 64 MiB in memory.
    fn default() -> Self {
        Self {
            folder: None,
            max_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The queue and its store. Nothing here blocks but [`Queue::open`] and [`Queue::close`].
#[derive(Debug)]
pub(super) struct Queue {
    order: Order,
    store: Store,
    /// Records that were read and not sent yet.
    read: VecDeque<(u64, Bytes)>,
    /// Records from here on were asked for.
    wanted: Option<u64>,
    /// They could not be read; the next commit is a reason to ask again.
    stalled: bool,
    max_bytes: u64,
    /// How often the store was appended to.
    appended: u64,
    /// Something was dropped since [`Queue::take_lost`].
    lost: bool,
    metrics: Metrics,
}

impl Queue {
    /// Opens the queue; gives what is kept of nodes, by their uids.
    pub(super) fn open(
        config: &QueueConfig,
        metrics: Metrics,
    ) -> Result<(Self, Vec<KeptNode>), StoreError> {
        let (store, loaded) = Store::open(config.folder.as_deref(), metrics.clone())?;
        let order = Order::new(loaded.first, loaded.sizes, config.max_bytes);
        if order.len() > 0 {
            tracing::info!(
                messages = order.len(),
                "messages wait for the bus since before the restart"
            );
        }
        let queue = Self {
            order,
            store,
            read: VecDeque::new(),
            wanted: None,
            stalled: false,
            max_bytes: config.max_bytes,
            appended: 0,
            lost: false,
            metrics,
        };
        queue.count();
        Ok((queue, loaded.nodes))
    }

    fn count(&self) {
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.waiting.set(gauge(self.order.len() as u64));
        self.metrics.waiting_bytes.set(gauge(self.order.bytes()));
    }

    /// Takes a publication behind all others.
    pub(super) fn push(&mut self, publication: &Publication) {
        let Some(record) = record::encode(publication) else {
            return;
        };
        let (number, dropped) = self.order.push(record.len());
        self.appended = self.store.append(number, record);
        if dropped > 0 {
            self.store.remove_below(self.order.first());
            self.drop_oldest(dropped);
        }
        self.metrics.queued.inc();
        self.count();
    }

    fn drop_oldest(&mut self, count: u64) {
        if !self.lost {
            tracing::warn!(
                max_bytes = self.max_bytes,
                "the queue for the bus is full: the oldest readings and events are dropped"
            );
        }
        self.lost = true;
        self.metrics.dropped_many(Reason::QueueFull, count);
    }

    /// The connection is lost. `unsent` is what the session gives back: what is in the queue is sent
    /// again from there; `keep` says what becomes of the rest, which keeps its place.
    pub(super) fn rewind(
        &mut self,
        unsent: Vec<(Ticket, Publication)>,
        mut keep: impl FnMut(Publication) -> Option<Publication>,
    ) {
        let oldest = self.order.oldest_under_way();
        let ours = self.order.under_way();
        self.order.rewind();
        self.read.clear();
        self.wanted = None;
        let others = unsent
            .into_iter()
            .filter(|(ticket, _)| !ours.contains(ticket));
        let is_before = |ticket| match oldest {
            Some(oldest) => ticket < oldest,
            None => true,
        };
        let (before, after): (Vec<_>, Vec<_>) = others.partition(|(ticket, _)| is_before(*ticket));
        let before: Vec<_> = before.into_iter().filter_map(|(_, p)| keep(p)).collect();
        for publication in before.iter().rev() {
            self.push_front(publication);
        }
        for (_, publication) in after {
            if let Some(publication) = keep(publication) {
                self.push(&publication);
            }
        }
    }

    fn push_front(&mut self, publication: &Publication) {
        let Some(record) = record::encode(publication) else {
            return;
        };
        match self.order.push_front(record.len()) {
            Some(number) => self.appended = self.store.append(number, record),
            None => self.drop_oldest(1),
        }
        self.metrics.queued.inc();
        self.count();
    }

    /// The next publication to send; none when there is none, or when it is still being read.
    pub(super) fn next(&mut self) -> Option<(u64, Publication)> {
        loop {
            let wanted = self.order.unsent()?;
            while self
                .read
                .front()
                .is_some_and(|(number, _)| *number < wanted)
            {
                self.read.pop_front();
            }
            match self.read.front() {
                Some((number, record)) if *number == wanted => {
                    if let Some(publication) = record::decode(record.clone()) {
                        return Some((wanted, publication));
                    }
                    tracing::error!("the queue holds something that is no message: it is left out");
                    self.sent(wanted, None);
                }
                _ => {
                    self.read.clear();
                    if self.wanted != Some(wanted) {
                        self.wanted = Some(wanted);
                        self.store.want(wanted);
                    }
                    return None;
                }
            }
        }
    }

    /// The next publication was sent; without a ticket it never can be.
    pub(super) fn sent(&mut self, number: u64, ticket: Option<Ticket>) {
        let first = self.order.first();
        self.order.sent(number, ticket);
        self.read.pop_front();
        if self.order.first() != first {
            self.store.remove_below(self.order.first());
            self.count();
        }
    }

    /// Whether there is nothing left to send; it may still be under way.
    pub(super) fn is_sent(&self) -> bool {
        self.order.unsent().is_none()
    }

    /// The ticket with which [`Queue::acknowledge`] is worth calling.
    pub(super) fn awaited(&self) -> Option<Ticket> {
        self.order.awaited()
    }

    /// Removes what the bus has.
    pub(super) fn acknowledge(&mut self, done: impl Fn(Ticket) -> bool) {
        if self.order.acknowledge(done) {
            self.store.remove_below(self.order.first());
            self.count();
        }
    }

    /// Whether further publications are taken: not while the disk takes nothing.
    pub(super) fn has_room(&self) -> bool {
        self.store.has_room()
    }

    /// How many publications were taken since the start.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// How many of them, the oldest, can't be lost with the process: they are on disk, or have left
    /// the queue. Without a folder there is nothing that outlives the process, and memory counts.
    pub(super) fn written(&self) -> u64 {
        self.store.committed()
    }

    /// Whether the store is of no use any more; a new start may be.
    pub(super) fn has_died(&self) -> bool {
        self.store.has_died()
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.order.bytes() > self.max_bytes / 2
    }

    /// Whether something was dropped since the last time.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Keeps what is known of a node; none removes it.
    pub(super) fn keep(&self, uid: String, node: Option<Vec<u8>>) {
        self.store.keep(uid, node);
    }

    /// Completes when it is worth calling [`Queue::next`], [`Queue::has_room`] or [`Queue::written`]
    /// again. Cancel safe.
    pub(super) async fn changed(&self) {
        self.store.changed().await;
    }

    /// Takes over what was read.
    pub(super) fn handle_changed(&mut self) {
        match self.store.take_read() {
            Some(chunk) if self.wanted == Some(chunk.from) => {
                self.stalled = chunk.records.is_empty();
                if !self.stalled {
                    self.wanted = None;
                }
                self.read = chunk.records;
            }
            Some(_) => {}
            None if std::mem::take(&mut self.stalled) => self.wanted = None,
            None => {}
        }
    }

    /// Writes what is left. Blocks until it has.
    pub(super) fn close(self) {
        if self.order.len() > 0 && !self.store.is_durable() {
            tracing::warn!(
                messages = self.order.len(),
                "messages that the bus has not got are lost: without `data` they are in memory only"
            );
        }
        self.store.close();
    }
}
