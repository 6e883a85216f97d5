//! What waits for the session. State is conflated: a node that could not be shown is shown anew. What
//! must be seen in order - readings, events, acks - goes to the queue when it can't go at once.

use std::collections::{BTreeSet, VecDeque};

use crate::bridge::Uid;
use crate::bridge::metrics::Metrics;
use crate::session::Publication;

/// Publications that wait for room in the session. Full: a node's state is published anew once it is
/// empty; readings and the like go to the queue, and all that follow them.
const LIVE: usize = 16_384;

#[derive(Debug)]
pub(super) struct Output {
    connected: bool,
    live: VecDeque<Publication>,
    /// Nodes whose whole state is to be published.
    stale: BTreeSet<Uid>,
    /// Topics that are to be emptied with the next connection.
    removed: BTreeSet<String>,
    /// What is on its way to the queue.
    to_queue: VecDeque<Publication>,
    /// The queue holds something, or nobody can be told: what is to stay in order goes there.
    behind: bool,
    /// Counts how often there was nothing in the queue any more.
    round: u64,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            connected: false,
            live: VecDeque::new(),
            stale: BTreeSet::new(),
            removed: BTreeSet::new(),
            to_queue: VecDeque::new(),
            behind: true,
            round: 0,
        }
    }
}

impl Output {
    /// Retained state of a node.
    pub(super) fn state(&mut self, uid: &Uid, publication: Publication, metrics: &Metrics) {
        if !self.connected || self.stale.contains(uid) {
            return;
        }
        if self.live.len() < LIVE {
            self.live.push_back(publication);
        } else {
            self.stale.insert(uid.clone());
            metrics.resyncs.inc();
        }
    }

    /// What must be seen, and in order: a reading, an event, an ack. Gives the round of the queue when
    /// it goes there.
    pub(super) fn ordered(&mut self, publication: Publication) -> Option<u64> {
        if !self.behind && self.live.len() < LIVE {
            self.live.push_back(publication);
            return None;
        }
        self.behind = true;
        self.to_queue.push_back(publication);
        Some(self.round)
    }

    /// Something of one's own that only counts now, such as the bridge's status.
    pub(super) fn passing(&mut self, publication: Publication) {
        if self.connected && self.live.len() < LIVE {
            self.live.push_back(publication);
        }
    }

    /// A retained topic that is no more.
    pub(super) fn removal(&mut self, topic: String) {
        if self.connected && self.live.len() < LIVE {
            self.live
                .push_back(Publication::retained(topic, Vec::new()));
        } else {
            self.removed.insert(topic);
        }
    }

    /// The bus is there and knows nothing: `first`, then what is no more, then these nodes anew.
    pub(super) fn connect(&mut self, first: Publication, nodes: impl Iterator<Item = Uid>) {
        self.connected = true;
        self.live.push_back(first);
        let removed = std::mem::take(&mut self.removed).into_iter();
        self.live
            .extend(removed.map(|topic| Publication::retained(topic, Vec::new())));
        self.stale.extend(nodes);
    }

    /// The bus is away. Gives what was not passed on yet.
    pub(super) fn disconnect(&mut self) -> VecDeque<Publication> {
        self.connected = false;
        self.behind = true;
        self.stale.clear();
        std::mem::take(&mut self.live)
    }

    /// There is nothing in the queue any more.
    pub(super) fn caught_up(&mut self) {
        if self.connected && self.to_queue.is_empty() {
            self.behind = false;
            self.round += 1;
        }
    }

    /// These nodes are to be shown anew.
    pub(super) fn show(&mut self, nodes: impl Iterator<Item = Uid>) {
        self.stale.extend(nodes);
    }

    /// The node is gone; nothing of it is to be published any more.
    pub(super) fn forget(&mut self, uid: &Uid) {
        self.stale.remove(uid);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// The round in which a reading waits in the queue, if one does.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    pub(super) fn has_live(&self) -> bool {
        !self.live.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<Publication> {
        if self.connected {
            self.live.pop_front()
        } else {
            None
        }
    }

    pub(super) fn pop_to_queue(&mut self) -> Option<Publication> {
        self.to_queue.pop_front()
    }

    /// A node to publish anew, once nothing else waits.
    pub(super) fn pop_stale(&mut self) -> Option<Uid> {
        if self.connected && self.live.is_empty() {
            self.stale.pop_first()
        } else {
            None
        }
    }

    pub(super) fn extend(&mut self, publications: Vec<Publication>) {
        self.live.extend(publications);
    }
}
