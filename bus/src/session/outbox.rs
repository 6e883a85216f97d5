//! What was taken for publishing and is not acknowledged yet.
//!
//! Publications leave in the order they came. A lost connection puts all of them back: the next one
//! sends them again, in the same order (MQTT 5 section 4.4 asks as much only of a kept session;
//! here it holds without one, so a subscriber may see a message twice and never misses one).

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Publication;

/// Names a publication that was taken; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// How many publications may wait; full means that [`Outbox::push`] refuses.
pub const CAPACITY: usize = 16_384;

/// The machine. The wire tells it which publication got which Packet Identifier.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: BTreeMap<u64, Publication>,
    next: u64,
    /// Handed to the wire, which will name them in this order.
    handed: VecDeque<u64>,
    /// On the wire, by Packet Identifier.
    sent: HashMap<u16, u64>,
}

impl Outbox {
    /// Whether no further publication is taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= CAPACITY
    }

    /// Whether everything is acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many publications wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a publication unless the outbox is full, and gives its number; `handed` says that the
    /// caller gives it to the wire now.
    pub fn push(&mut self, publication: Publication, handed: bool) -> Option<Ticket> {
        if self.is_full() {
            return None;
        }
        let number = self.next;
        if handed {
            self.handed.push_back(number);
        }
        self.waiting.insert(number, publication);
        self.next += 1;
        Some(Ticket(number))
    }

    /// Whether this publication and all before it are acknowledged.
    #[must_use]
    pub fn is_done(&self, ticket: Ticket) -> bool {
        let oldest = self.waiting.first_key_value();
        oldest.is_none_or(|(oldest, _)| ticket.0 < *oldest)
    }

    /// Gives back everything that waits, oldest first, while there is no connection.
    pub fn take_back(&mut self) -> Vec<(Ticket, Publication)> {
        self.handle_disconnect();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        waiting.map(|(number, p)| (Ticket(number), p)).collect()
    }

    /// The wire sent the oldest publication handed to it, with this Packet Identifier; 0 means QoS 0,
    /// of which nobody hears again.
    pub fn handle_sent(&mut self, packet_id: u16) {
        let Some(number) = self.handed.pop_front() else {
            return;
        };
        if packet_id == 0 {
            self.waiting.remove(&number);
        } else {
            self.sent.insert(packet_id, number);
        }
    }

    /// The broker answered for this Packet Identifier; gives the publication, if there was one.
    pub fn handle_ack(&mut self, packet_id: u16) -> Option<Publication> {
        self.waiting.remove(&self.sent.remove(&packet_id)?)
    }

    /// The connection is lost: whatever is not acknowledged waits for the next one.
    pub fn handle_disconnect(&mut self) {
        self.handed.clear();
        self.sent.clear();
    }

    /// Hands everything that waits to a new connection, oldest first.
    pub fn hand_all(&mut self) -> impl Iterator<Item = &Publication> {
        self.handed = self.waiting.keys().copied().collect();
        self.waiting.values()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn publication(n: u32) -> Publication {
        Publication::passing(format!("t/{n}"), n.to_string())
    }

    #[test]
    fn a_lost_connection_loses_nothing() {
        let mut outbox = Outbox::default();
        for n in 0..4 {
            outbox.push(publication(n), true).unwrap();
        }
        for id in 1..=3 {
            outbox.handle_sent(id);
        }
        assert_eq!(outbox.handle_ack(2), Some(publication(1)));
        outbox.handle_disconnect();
        assert_eq!(
            outbox.handle_ack(1),
            None,
            "an id of the old connection means nothing now"
        );
        let again: Vec<_> = outbox.hand_all().cloned().collect();
        assert_eq!(again, [publication(0), publication(2), publication(3)]);
    }

    #[test]
    fn what_is_sent_with_qos_0_is_done() {
        let mut outbox = Outbox::default();
        outbox.push(publication(0), true).unwrap();
        outbox.handle_sent(0);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_waits_can_be_taken_back() {
        let mut outbox = Outbox::default();
        let tickets: Vec<_> = (0..3)
            .map(|n| outbox.push(publication(n), true).unwrap())
            .collect();
        (1..=3).for_each(|id| outbox.handle_sent(id));
        outbox.handle_ack(2);
        assert!(!outbox.is_done(tickets[1]), "one before it is not");
        outbox.handle_ack(1);
        assert!(outbox.is_done(tickets[1]));
        assert_eq!(outbox.take_back(), [(tickets[2], publication(2))]);
        assert_eq!(outbox.handle_ack(3), None);
        assert!(outbox.is_empty() && outbox.is_done(tickets[2]));
        assert!(outbox.push(publication(3), false) > Some(tickets[2]));
    }

    #[test]
    fn it_is_bounded() {
        let mut outbox = Outbox::default();
        for n in 0..CAPACITY {
            outbox
                .push(publication(u32::try_from(n).unwrap()), false)
                .unwrap();
        }
        assert_eq!(outbox.push(publication(7), false), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Send,
        Ack(usize),
        Reconnect,
    }

    proptest! {
        /// Whatever happens, each publication is acknowledged or still there, and the order stays.
        #[test]
        fn nothing_is_lost_or_turned_around(steps in prop::collection::vec(prop_oneof![
            3 => Just(Step::Push),
            3 => Just(Step::Send),
            2 => (0usize..8).prop_map(Step::Ack),
            1 => Just(Step::Reconnect),
        ], 0..200)) {
            let mut outbox = Outbox::default();
            let (mut pushed, mut acked, mut id, mut wire) = (0u32, Vec::new(), 0u16, Vec::new());
            for step in steps {
                match step {
                    Step::Push => {
                        prop_assert!(outbox.push(publication(pushed), true).is_some());
                        pushed += 1;
                    }
                    Step::Send if !outbox.handed.is_empty() => {
                        id += 1;
                        wire.push(id);
                        outbox.handle_sent(id);
                    }
                    Step::Ack(at) if at < wire.len() => {
                        acked.push(outbox.handle_ack(wire.remove(at)).unwrap());
                    }
                    Step::Reconnect => {
                        wire.clear();
                        outbox.handle_disconnect();
                        let again: Vec<_> = outbox.hand_all().cloned().collect();
                        prop_assert!(again.is_sorted_by_key(|p| p.topic[2..].parse::<u32>().unwrap()));
                    }
                    Step::Send | Step::Ack(_) => {}
                }
            }
            let mut all: Vec<_> = acked.iter().chain(outbox.waiting.values()).map(|p| &p.topic).collect();
            all.sort_by_key(|topic| topic[2..].parse::<u32>().unwrap());
            prop_assert_eq!(all.len(), pushed as usize);
            all.dedup();
            prop_assert_eq!(all.len(), pushed as usize);
        }
    }
}
