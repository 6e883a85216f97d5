//! A session that outlives the process: what is written of it, and taking it up again.

use std::collections::{HashMap, HashSet};

use super::{Delivery, Note, Pushed, Session, Subscription};
use crate::kept::{Kept, KeptSubscription};
use crate::message::Message;
use crate::store::{Flows, Ticket};
use crate::wire::Qos;

impl Session {
    /// From now on, tells which of the messages that wait are done with.
    pub(crate) fn track(&mut self) {
        self.outgoing.track();
    }

    /// Takes out what is to be written down, in order; then tell it by [`Session::handle_written`].
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        self.outgoing.take_notes()
    }

    /// What was noted so far is part of this commit.
    pub(crate) fn handle_written(&mut self, ticket: Ticket) {
        self.outgoing.handle_written(ticket);
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
            inflight: self.outgoing.inflight(),
        }
    }

    /// Takes up what was written of it; gives how many messages were dropped. Call it once, on a new
    /// session.
    pub(crate) fn restore(&mut self, kept: &Kept, flows: Flows) -> u64 {
        for known in &kept.subscriptions {
            self.subscriptions.push(Subscription {
                request: known.request(),
                id: known.id,
                // Whatever comes, comes later.
                since: 0,
                snapshot: 0,
            });
        }
        self.incoming.extend(flows.received);
        let sent = kept
            .inflight
            .iter()
            .map(|&(pid, seq)| (pid, seq, Qos::AtLeastOnce));
        let mut sent: Vec<(u16, u64, Qos)> = sent.collect();
        let waiting: HashSet<u64> = flows.queued.iter().map(Message::seq).collect();
        for (pid, seq) in flows.sent {
            // Where both know a Packet Identifier, the other is out of date.
            sent.retain(|&(other, ..)| other != pid);
            match seq.filter(|seq| waiting.contains(seq)) {
                Some(seq) => sent.push((pid, seq, Qos::ExactlyOnce)),
                None => self.outgoing.restore(pid, None),
            }
        }
        let mut sent: HashMap<u64, (u16, Qos)> = sent
            .into_iter()
            .map(|(pid, seq, qos)| (seq, (pid, qos)))
            .collect();
        let mut dropped = 0;
        for message in flows.queued {
            let delivery = self.matched(&message);
            match (sent.remove(&message.seq()), delivery) {
                // It is completed as it was begun, whatever became of its subscription.
                (Some((pid, qos)), Some(delivery)) => {
                    self.outgoing
                        .restore(pid, Some(Delivery { qos, ..delivery }));
                }
                (Some((pid, qos)), None) => {
                    let delivery = Delivery {
                        message,
                        qos,
                        retain: false,
                        ids: Vec::new(),
                    };
                    self.outgoing.restore(pid, Some(delivery));
                }
                (None, Some(delivery)) => {
                    let pushed = self.outgoing.push(delivery, false);
                    dropped += u64::from(pushed == Pushed::DroppedOldest);
                }
                (None, None) => self.outgoing.finish(&message),
            }
        }
        dropped
    }
}
