//! One MQTT session, without IO: its subscriptions and the flows of its messages in both directions.
//!
//! It outlives connections. A connection lends it [`Terms`]; while there is none, QoS 1 and 2
//! wait. It never asks who may do what: that is decided before anything comes here.

mod kept;
mod outgoing;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};

use bytes::BytesMut;

pub(crate) use self::outgoing::{Bounds, Note, Pushed, Sent};
use self::outgoing::{Delivery, Outgoing, Turn};
use crate::message::Message;
use crate::shares::Readiness;
use crate::store::Progress;
use crate::topic;
use crate::wire::{self, Acknowledgement, FilterRequest, Qos, Version};

/// What the present connection agreed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    /// Unacknowledged messages that the client takes at a time.
    pub(crate) window: u16,
    /// The largest packet that the client takes, bytes.
    pub(crate) maximum_packet: u32,
}

#[derive(Debug)]
struct Subscription {
    request: FilterRequest,
    /// Subscription Identifier (MQTT 5 section 3.8.2.1.2).
    id: Option<u32>,
    /// Messages up to this number came before the subscription.
    since: u64,
    /// Retained messages up to this number were covered by its snapshot.
    snapshot: u64,
}

/// Snapshots remembered of subscriptions that were given up. What they covered has long come when
/// there were so many since.
const COVERED: usize = 16;

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its number, which its own messages carry as their origin.
    number: u64,
    subscriptions: Vec<Subscription>,
    /// Filters that were given up, with the last message that their snapshots covered: other filters
    /// may still bring it, and older ones.
    covered: VecDeque<(String, u64)>,
    outgoing: Outgoing,
    /// QoS 2 messages that came in and were not released yet.
    incoming: HashSet<u16>,
    terms: Option<Terms>,
    /// The bounds were passed; the connection is to end.
    overflowed: bool,
}

impl Session {
    /// A session without subscriptions.
    pub(crate) fn new(number: u64, bounds: Bounds) -> Self {
        Self {
            number,
            subscriptions: Vec::new(),
            covered: VecDeque::new(),
            outgoing: Outgoing::new(bounds),
            incoming: HashSet::new(),
            terms: None,
            overflowed: false,
        }
    }

    /// A connection takes the session up: what was unacknowledged is sent again (MQTT-4.4.0-1).
    pub(crate) fn connect(&mut self, terms: Terms) {
        self.terms = Some(terms);
        self.overflowed = false;
        self.outgoing.resume();
    }

    /// The connection is gone: QoS 0 and what only a snapshot held are dropped.
    pub(crate) fn disconnect(&mut self) {
        self.terms = None;
        self.outgoing.suspend();
    }

    /// Whether its queue went over the second bound.
    pub(crate) fn is_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Topic Filters subscribed to.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        let subscriptions = self.subscriptions.iter();
        subscriptions.map(|subscription| subscription.request.filter.as_str())
    }

    /// How many subscriptions it has.
    pub(crate) fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether it has a subscription with exactly this filter.
    pub(crate) fn is_subscribed(&self, filter: &str) -> bool {
        self.filters().any(|known| known == filter)
    }

    /// Adds a subscription, or replaces the one with the same filter (MQTT-3.8.4-3).
    ///
    /// `at` is the number of the last message before it. With a snapshot, those retained messages
    /// are delivered first, all of them, in order, outside the bounds of the queue.
    pub(crate) fn subscribe(
        &mut self,
        request: FilterRequest,
        id: Option<u32>,
        at: u64,
        snapshot: Option<Vec<Message>>,
    ) {
        let covered = if snapshot.is_some() { at } else { 0 };
        for message in snapshot.into_iter().flatten() {
            if request.no_local && message.origin() == self.number {
                continue;
            }
            self.outgoing.push_snapshot(Delivery {
                qos: message.qos().min(request.qos),
                message,
                retain: true,
                ids: id.into_iter().collect(),
            });
        }
        let known = self
            .subscriptions
            .iter_mut()
            .find(|known| known.request.filter == request.filter);
        match known {
            Some(known) => {
                known.request = request;
                known.id = id;
                known.snapshot = known.snapshot.max(covered);
            }
            None => self.subscriptions.push(Subscription {
                request,
                id,
                since: at,
                snapshot: covered,
            }),
        }
    }

    /// Removes a subscription; gives whether there was one.
    pub(crate) fn unsubscribe(&mut self, filter: &str) -> bool {
        let mut known = self.subscriptions.iter();
        let Some(at) = known.position(|known| known.request.filter == filter) else {
            return false;
        };
        let known = self.subscriptions.remove(at);
        if known.snapshot > 0 {
            self.covered.truncate(COVERED - 1);
            self.covered
                .push_front((known.request.filter, known.snapshot));
        }
        true
    }

    /// Removes the subscriptions that are not allowed any more, and what waits for them alone;
    /// gives what others of Shared Subscriptions may have of that, oldest first.
    pub(crate) fn withdraw(&mut self, filters: &[String]) -> Vec<Message> {
        self.subscriptions
            .retain(|known| !filters.contains(&known.request.filter));
        let is_withdrawn = |share: &str| filters.iter().any(|filter| filter == share);
        let shared = self.outgoing.take_shared(is_withdrawn, true);
        let left = &self.subscriptions;
        self.outgoing.retain(|message| {
            let mut left = left.iter().map(|known| known.request.filter.as_str());
            left.any(|filter| match message.share() {
                Some(share) => filter == share,
                None => topic::matches(filter, message.topic()),
            })
        });
        shared
    }

    /// Takes out what others of its Shared Subscriptions may have, oldest first: what was not sent
    /// yet, and when the session ends, what was sent with QoS 1 and is unacknowledged.
    pub(crate) fn take_shared(&mut self, is_end: bool) -> Vec<Message> {
        self.outgoing.take_shared(|_| true, is_end)
    }

    /// How ready it is for one more message of a Shared Subscription.
    pub(crate) fn readiness(&self) -> Readiness {
        match &self.terms {
            _ if self.outgoing.is_full() => Readiness::Full,
            Some(terms) if self.outgoing.is_idle(terms) => Readiness::Idle,
            Some(_) => Readiness::Busy,
            None => Readiness::Absent,
        }
    }

    /// Takes a message from the fan-out or a group, once, whatever the number of its filters that match
    /// (MQTT 5 section 3.3.4).
    pub(crate) fn handle_message(&mut self, message: &Message) -> Pushed {
        let Some(delivery) = self.matched(message) else {
            if message.qos() > Qos::AtMostOnce {
                self.outgoing.finish(message);
            }
            return Pushed::NotAsked;
        };
        if self.terms.is_none() && delivery.qos == Qos::AtMostOnce {
            return Pushed::NotAsked;
        }
        let pushed = self.outgoing.push(delivery, self.terms.is_some());
        if pushed == Pushed::Overflow {
            self.overflowed = true;
            self.outgoing.finish(message);
        }
        pushed
    }

    /// What the subscription makes of a message that was chosen for this session.
    fn shared(&self, message: &Message, share: &str) -> Option<Delivery> {
        let mut known = self.subscriptions.iter();
        let known = known.find(|known| known.request.filter == share)?;
        Some(Delivery {
            qos: message.qos().min(known.request.qos),
            retain: known.request.retain_as_published && message.is_retain(),
            ids: known.id.into_iter().collect(),
            message: message.clone(),
        })
    }

    fn matched(&self, message: &Message) -> Option<Delivery> {
        if let Some(share) = message.share() {
            return self.shared(message, share);
        }
        let (name, seq) = (message.topic(), message.seq());
        let mut covered = self.covered.iter();
        let is_covered =
            |(filter, snapshot): &(String, u64)| seq <= *snapshot && topic::matches(filter, name);
        if message.is_retain() && covered.any(is_covered) {
            return None;
        }
        let mut delivery: Option<Delivery> = None;
        for known in &self.subscriptions {
            if !topic::matches(&known.request.filter, name) {
                continue;
            }
            // A snapshot told this topic's value of then: an older one must not follow it.
            if message.is_retain() && seq <= known.snapshot {
                return None;
            }
            let own = known.request.no_local && message.origin() == self.number;
            if seq <= known.since || own {
                continue;
            }
            let retain = known.request.retain_as_published && message.is_retain();
            let qos = message.qos().min(known.request.qos);
            match &mut delivery {
                None => {
                    delivery = Some(Delivery {
                        message: message.clone(),
                        qos,
                        retain,
                        ids: known.id.into_iter().collect(),
                    });
                }
                Some(delivery) => {
                    delivery.qos = delivery.qos.max(qos);
                    delivery.retain |= retain;
                    delivery.ids.extend(known.id);
                }
            }
        }
        delivery
    }

    /// Takes a QoS 2 PUBLISH; gives whether it is new, and not a repetition (MQTT-4.3.3-10).
    pub(crate) fn handle_qos2(&mut self, pid: u16) -> bool {
        self.incoming.insert(pid)
    }

    /// Forgets a QoS 2 PUBLISH that was refused.
    pub(crate) fn refuse_qos2(&mut self, pid: u16) {
        self.incoming.remove(&pid);
    }

    /// Takes a PUBREL; gives whether its message was known.
    pub(crate) fn handle_pubrel(&mut self, pid: u16) -> bool {
        self.incoming.remove(&pid)
    }

    /// Takes a PUBACK. One that nobody waits for is ignored.
    pub(crate) fn handle_puback(&mut self, pid: u16) {
        self.outgoing.handle_puback(pid);
    }

    /// Takes a PUBREC. Its PUBREL is written by [`Session::poll_transmit`]; one that nobody waits
    /// for is answered at once.
    pub(crate) fn handle_pubrec(&mut self, pid: u16, failed: bool, out: &mut BytesMut) {
        let Some(terms) = self.terms else { return };
        if failed {
            self.outgoing.handle_refusal(pid);
        } else if !self.outgoing.handle_pubrec(pid) {
            // Packet Identifier not found
            wire::acknowledgement(out, terms.version, Acknowledgement::Pubrel, pid, 0x92);
        }
    }

    /// Takes a PUBCOMP. One that nobody waits for is ignored.
    pub(crate) fn handle_pubcomp(&mut self, pid: u16) {
        self.outgoing.handle_pubcomp(pid);
    }

    /// Writes what may go to the client now, until `out` holds `budget` bytes.
    ///
    /// Call it again when the client acknowledged something, when the output was sent, when a
    /// message came in, or, if something is held, when the store got further than `progress`.
    pub(crate) fn poll_transmit(
        &mut self,
        now_millis: i64,
        progress: Progress,
        budget: usize,
        out: &mut BytesMut,
    ) -> Sent {
        let Some(terms) = &self.terms else {
            return Sent::default();
        };
        let turn = Turn {
            terms,
            now_millis,
            progress,
            budget,
        };
        self.outgoing.poll(&turn, out)
    }
}
