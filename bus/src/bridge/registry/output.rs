//! What waits for the session: in order while the bus is there, conflated while it is not.

use std::collections::{BTreeSet, VecDeque};

use crate::bridge::Uid;
use crate::bridge::metrics::{Metrics, Reason};
use crate::session::Publication;

/// Publications that wait for room in the session. Full: a node's state is not queued but the node is
/// published anew once the queue is empty, so that its latest values arrive; events and acks are
/// dropped and counted.
const QUEUE: usize = 16_384;
/// Events, acks and removals that wait for the bus to come back. Full: the oldest is dropped and
/// counted.
const HELD: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Output {
    connected: bool,
    queue: VecDeque<Publication>,
    held: VecDeque<Publication>,
    /// Nodes whose whole state is to be published.
    stale: BTreeSet<Uid>,
}

impl Output {
    /// Retained state of a node.
    pub(super) fn state(&mut self, uid: &Uid, publication: Publication, metrics: &Metrics) {
        if self.connected && self.queue.len() < QUEUE && !self.stale.contains(uid) {
            self.queue.push_back(publication);
        } else {
            if self.connected && self.stale.insert(uid.clone()) {
                metrics.resyncs.inc();
            }
        }
    }

    /// What must not be replaced by something newer: an event, an ack, a removal.
    pub(super) fn passing(&mut self, publication: Publication, metrics: &Metrics) {
        if !self.connected {
            if self.held.len() >= HELD {
                self.held.pop_front();
                metrics.dropped(Reason::HeldOverflow);
            }
            self.held.push_back(publication);
        } else if self.queue.len() < QUEUE {
            self.queue.push_back(publication);
        } else {
            metrics.dropped(Reason::HeldOverflow);
        }
    }

    /// The bus is there and knows nothing: `first`, then what was held, then every node anew.
    pub(super) fn connect(&mut self, first: Publication, nodes: impl Iterator<Item = Uid>) {
        self.connected = true;
        self.queue.push_front(first);
        self.queue.append(&mut self.held);
        self.stale.extend(nodes);
    }

    /// The bus is away: what passes is held, state is published anew later.
    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        self.stale.clear();
        self.held.extend(
            self.queue
                .drain(..)
                .filter(|p| !p.retain || p.payload.is_empty()),
        );
    }

    /// The node is gone; nothing of it is to be published any more.
    pub(super) fn forget(&mut self, uid: &Uid) {
        self.stale.remove(uid);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn pop(&mut self) -> Option<Publication> {
        if self.connected {
            self.queue.pop_front()
        } else {
            None
        }
    }

    /// A node to publish anew, once nothing else waits.
    pub(super) fn pop_stale(&mut self) -> Option<Uid> {
        if self.connected && self.queue.is_empty() {
            self.stale.pop_first()
        } else {
            None
        }
    }

    pub(super) fn extend(&mut self, publications: Vec<Publication>) {
        self.queue.extend(publications);
    }
}
