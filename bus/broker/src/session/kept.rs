//! A session that outlives the process: what is written of it, and taking it up again.

use super::{Session, Subscription};
use crate::kept::{Kept, KeptSubscription};
use crate::message::Message;
use crate::session::Pushed;

impl Session {
    /// From now on, tells which of the messages that wait are done with.
    pub(crate) fn track(&mut self) {
        self.outgoing.track();
    }

    /// Takes out the numbers of messages that wait no more.
    pub(crate) fn take_finished(&mut self) -> Vec<u64> {
        self.outgoing.take_finished()
    }

    /// What is to be written of it, for a client that has it or left it at `left`.
    pub(crate) fn keep(&self, key: &str, expiry: u64, left: Option<i64>) -> Kept {
        let subscriptions = self.subscriptions.iter();
        Kept {
            key: key.to_owned(),
            expiry,
            left,
            subscriptions: subscriptions
                .map(|known| KeptSubscription::new(&known.request, known.id))
                .collect(),
            incoming: self.incoming.iter().copied().collect(),
            inflight: self.outgoing.inflight(),
        }
    }

    /// Takes up what was written of it and what waited for it, oldest first; gives how many
    /// messages were dropped. Call it once, on a new session.
    pub(crate) fn restore(&mut self, kept: &Kept, waiting: Vec<Message>) -> u64 {
        for known in &kept.subscriptions {
            self.subscriptions.push(Subscription {
                request: known.request(),
                id: known.id,
                // Whatever comes, comes later.
                since: 0,
                snapshot: 0,
            });
        }
        self.incoming.extend(&kept.incoming);
        let mut inflight = kept.inflight.clone();
        for &(pid, seq) in &kept.inflight {
            if seq.is_none() {
                self.outgoing.restore(pid, None);
            }
        }
        let mut dropped = 0;
        for message in waiting {
            let Some(delivery) = self.matched(&message) else {
                self.outgoing.finish(&message);
                continue;
            };
            let sent = inflight
                .iter()
                .position(|(_, seq)| *seq == Some(message.seq()));
            match sent {
                Some(sent) => {
                    let (pid, _) = inflight.remove(sent);
                    self.outgoing.restore(pid, Some(delivery));
                }
                None => {
                    let pushed = self.outgoing.push(delivery, false);
                    dropped += u64::from(pushed == Pushed::DroppedOldest);
                }
            }
        }
        dropped
    }
}
