//! Acknowledgements that wait for the store, in the order of what they acknowledge (MQTT-4.6.0-2).

use std::collections::VecDeque;

use bytes::BytesMut;
use tokio::sync::watch;

use crate::store::{Outcome, Progress, Store, Ticket};
use crate::wire::{Qos, Reason};

/// Acknowledgements that may wait; with more, nothing further is read from the client. It is the
/// number of Packet Identifiers.
const MAXIMUM: usize = u16::MAX as usize;

/// What is to be acknowledged.
#[derive(Debug)]
pub(super) enum Answer {
    /// A PUBLISH.
    Publish {
        qos: Qos,
        pid: u16,
        /// It was refused, whatever the store says.
        refused: Option<Reason>,
    },
    /// What must be stored to be answered at all; the packet that says so.
    Packet(BytesMut),
}

impl Answer {
    pub(super) fn publish(qos: Qos, pid: u16, refused: Option<Reason>) -> Self {
        Self::Publish { qos, pid, refused }
    }

    /// Whether there is nothing to send.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(
            self,
            Self::Publish {
                qos: Qos::AtMostOnce,
                ..
            }
        )
    }
}

/// The acknowledgements of one connection.
#[derive(Debug, Default)]
pub(super) struct Held {
    waiting: VecDeque<(Ticket, Answer)>,
    /// None until something waits for the first time.
    progress: Option<watch::Receiver<Progress>>,
}

impl Held {
    /// How far the store is.
    pub(super) fn progress(&mut self, store: &Store) -> Progress {
        if self.progress.is_none() {
            self.progress = store.progress();
        }
        // Not as seen: what came since the last answer was taken out is still to be looked at.
        self.progress
            .as_ref()
            .map(|progress| *progress.borrow())
            .unwrap_or_default()
    }

    /// Takes an acknowledgement that depends on a write.
    pub(super) fn push(&mut self, store: &Store, ticket: Ticket, answer: Answer) {
        if self.progress.is_none() {
            self.progress = store.progress();
        }
        self.waiting.push_back((ticket, answer));
    }

    /// Takes out the oldest acknowledgement whose time has come, and what became of its write.
    pub(super) fn pop(&mut self) -> Option<(Answer, Outcome)> {
        let &(ticket, _) = self.waiting.front()?;
        let outcome = match &mut self.progress {
            Some(progress) => progress.borrow_and_update().outcome(ticket),
            None => Outcome::Stored,
        };
        if outcome == Outcome::Pending {
            return None;
        }
        let (_, answer) = self.waiting.pop_front()?;
        if self.waiting.is_empty() && self.waiting.capacity() > 64 {
            self.waiting = VecDeque::new();
        }
        Some((answer, outcome))
    }

    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether no more may be read.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAXIMUM
    }

    /// Completes when the store got further. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let changed = match &mut self.progress {
            Some(progress) => progress.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending().await
        }
    }
}
