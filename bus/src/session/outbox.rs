//! What was taken for publishing and is not acknowledged yet.
//!
//! Publications leave in the order they came. A lost connection puts all of them back: the next one
//! sends them again, in the same order (MQTT 5 section 4.4 asks as much only of a kept session;
//! here it holds without one, so a subscriber may see a message twice and never misses one).

use std::collections::VecDeque;

use super::{Publication, Qos};

/// Names a publication that was taken; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// How many publications may wait; full means that [`Outbox::push`] refuses. One that is
/// acknowledged counts until all before it are.
pub const CAPACITY: usize = 16_384;

/// Packet Identifiers of publications are 1 to this, each made of the publication's number. As less
/// than so many wait, none stands for two; greater ones are for subscriptions.
pub const LAST_ID: u16 = 32_768;

/// The machine: a ring of publications by number, as acknowledgements come nearly in their order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// From the oldest on, which is there; none stands for one that is done before an older one.
    waiting: VecDeque<Option<Publication>>,
    /// The number of the oldest.
    first: u64,
    /// The number of the next one to send on this connection.
    unsent: u64,
    /// Sent on this connection, with QoS 1, and not acknowledged.
    in_flight: u16,
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

    /// Whether nothing waits for being sent.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.unsent >= self.end()
    }

    /// Takes a publication unless the outbox is full, and gives its number.
    pub fn push(&mut self, publication: Publication) -> Option<Ticket> {
        if self.is_full() {
            return None;
        }
        let ticket = Ticket(self.end());
        self.waiting.push_back(Some(publication));
        Some(ticket)
    }

    /// Whether this publication and all before it are acknowledged.
    #[must_use]
    pub fn is_done(&self, ticket: Ticket) -> bool {
        ticket.0 < self.first
    }

    /// Gives back everything that waits, oldest first, while there is no connection.
    pub fn take_back(&mut self) -> Vec<(Ticket, Publication)> {
        let (first, end) = (self.first, self.end());
        let waiting = std::mem::take(&mut self.waiting);
        self.first = end;
        self.handle_disconnect();
        let numbered = (first..).zip(waiting);
        numbered
            .filter_map(|(number, waiting)| Some((Ticket(number), waiting?)))
            .collect()
    }

    /// What is to be sent next and its Packet Identifier, 0 with QoS 0; none while `receive_maximum`
    /// are in flight. [`Outbox::handle_sent`] or [`Outbox::refuse`] leads to the one after it.
    pub fn to_send(&mut self, receive_maximum: u16) -> Option<(u16, &Publication)> {
        while matches!(self.slot(self.unsent), Some(None)) {
            self.unsent += 1;
        }
        let number = self.unsent;
        let in_flight = self.in_flight;
        let publication = self.slot(number)?.as_ref()?;
        match publication.qos {
            Qos::AtMostOnce => Some((0, publication)),
            Qos::AtLeastOnce if in_flight >= receive_maximum => None,
            Qos::AtLeastOnce => Some((id(number), publication)),
        }
    }

    /// What [`Outbox::to_send`] gave is sent; of one with QoS 0 nobody hears again.
    pub fn handle_sent(&mut self) {
        let number = self.unsent;
        let Some(Some(publication)) = self.slot(number) else {
            return;
        };
        let qos = publication.qos;
        self.unsent += 1;
        match qos {
            Qos::AtMostOnce => drop(self.take(number)),
            Qos::AtLeastOnce => self.in_flight += 1,
        }
    }

    /// Takes out what [`Outbox::to_send`] gave, as it can't be sent.
    pub fn refuse(&mut self) -> Option<Publication> {
        self.take(self.unsent)
    }

    /// The broker answered for this Packet Identifier; gives the publication, if there was one.
    pub fn handle_ack(&mut self, packet_id: u16) -> Option<Publication> {
        if packet_id == 0 || packet_id > LAST_ID {
            return None;
        }
        let ids = u64::from(LAST_ID);
        let behind_first = (u64::from(packet_id) - 1 + ids - self.first % ids) % ids;
        let number = self.first + behind_first;
        if number >= self.unsent || self.slot(number)?.as_ref()?.qos == Qos::AtMostOnce {
            return None;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.take(number)
    }

    /// The connection is lost: whatever is not acknowledged waits for the next one, oldest first.
    pub fn handle_disconnect(&mut self) {
        self.unsent = self.first;
        self.in_flight = 0;
    }

    /// The number that the next publication gets.
    fn end(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    fn slot(&mut self, number: u64) -> Option<&mut Option<Publication>> {
        let at = number.checked_sub(self.first)?;
        self.waiting.get_mut(usize::try_from(at).ok()?)
    }

    fn take(&mut self, number: u64) -> Option<Publication> {
        let taken = self.slot(number)?.take();
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
        self.unsent = self.unsent.max(self.first);
        taken
    }
}

/// Distinct for all that can wait at once.
fn id(number: u64) -> u16 {
    u16::try_from(number % u64::from(LAST_ID)).unwrap_or_default() + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn publication(n: u32) -> Publication {
        Publication::passing(format!("t/{n}"), n.to_string())
    }

    fn number(publication: &Publication) -> u32 {
        publication.topic[2..].parse().unwrap()
    }

    fn filled(count: u32) -> (Outbox, Vec<Ticket>) {
        let mut outbox = Outbox::default();
        let tickets = (0..count).map(|n| outbox.push(publication(n)).unwrap());
        let tickets = tickets.collect();
        (outbox, tickets)
    }

    /// Sends the next one; gives its Packet Identifier and which it was.
    fn send(outbox: &mut Outbox) -> Option<(u16, u32)> {
        let (id, publication) = outbox.to_send(u16::MAX)?;
        let sent = (id, number(publication));
        outbox.handle_sent();
        Some(sent)
    }

    fn send_all(outbox: &mut Outbox) -> Vec<(u16, u32)> {
        std::iter::from_fn(|| send(outbox)).collect()
    }

    #[test]
    fn a_lost_connection_loses_nothing() {
        let (mut outbox, _) = filled(4);
        let ids: Vec<u16> = (0..3).map(|_| send(&mut outbox).unwrap().0).collect();
        assert_eq!(outbox.handle_ack(ids[1]), Some(publication(1)));
        outbox.handle_disconnect();
        assert_eq!(
            outbox.handle_ack(ids[0]),
            None,
            "an id of the old connection means nothing now"
        );
        let again = send_all(&mut outbox);
        assert_eq!(
            again.iter().map(|sent| sent.1).collect::<Vec<_>>(),
            [0, 2, 3]
        );
        for (id, _) in again {
            assert!(outbox.handle_ack(id).is_some());
        }
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_is_sent_with_qos_0_is_done() {
        let mut outbox = Outbox::default();
        let unsure = Publication {
            qos: Qos::AtMostOnce,
            ..publication(0)
        };
        let ticket = outbox.push(unsure).unwrap();
        assert_eq!(send(&mut outbox), Some((0, 0)));
        assert!(outbox.is_empty() && outbox.is_done(ticket));
    }

    #[test]
    fn what_waits_can_be_taken_back() {
        let (mut outbox, tickets) = filled(4);
        let sent = send_all(&mut outbox);
        outbox.handle_ack(sent[1].0);
        assert!(!outbox.is_done(tickets[1]), "one before it is not");
        outbox.handle_ack(sent[0].0);
        assert!(outbox.is_done(tickets[1]));
        outbox.handle_ack(sent[3].0);
        assert_eq!(outbox.take_back(), [(tickets[2], publication(2))]);
        assert_eq!(outbox.handle_ack(sent[2].0), None);
        assert!(outbox.is_empty() && outbox.is_done(tickets[3]));
        assert!(outbox.push(publication(4)) > Some(tickets[3]));
    }

    #[test]
    fn it_is_bounded() {
        let (mut outbox, _) = filled(u32::try_from(CAPACITY).unwrap());
        assert_eq!(outbox.push(publication(7)), None);
        let sent = send_all(&mut outbox);
        outbox.handle_ack(sent[1].0);
        assert!(outbox.is_full(), "an older one waits");
        outbox.handle_ack(sent[0].0);
        assert!(outbox.push(publication(7)).is_some() && outbox.push(publication(8)).is_some());
        assert!(outbox.is_full());
    }

    #[test]
    fn a_packet_identifier_is_never_in_use_twice() {
        let (mut outbox, _) = filled(0);
        let mut in_use = std::collections::HashSet::new();
        let mut sent = VecDeque::new();
        for n in 0..100_000 {
            if outbox.is_full() {
                let id = sent.pop_front().unwrap();
                assert!(outbox.handle_ack(id).is_some() && in_use.remove(&id));
            }
            outbox.push(publication(n)).unwrap();
            let (id, _) = send(&mut outbox).unwrap();
            assert!((1..=LAST_ID).contains(&id) && in_use.insert(id));
            sent.push_back(id);
        }
    }

    #[test]
    fn no_more_is_in_flight_than_the_broker_takes() {
        let (mut outbox, _) = filled(3);
        let first = outbox.to_send(1).unwrap().0;
        outbox.handle_sent();
        assert_eq!(outbox.to_send(1), None);
        for stray in [0, first + 1, first + 2, LAST_ID + 1, u16::MAX] {
            assert_eq!(outbox.handle_ack(stray), None, "{stray} was not sent");
        }
        assert_eq!(outbox.to_send(1), None);
        outbox.handle_ack(first);
        assert!(outbox.to_send(1).is_some());
    }

    #[test]
    fn what_cannot_be_sent_is_passed_over() {
        let (mut outbox, tickets) = filled(3);
        let first = send(&mut outbox).unwrap().0;
        assert_eq!(outbox.refuse(), Some(publication(1)));
        outbox.handle_ack(first);
        assert!(outbox.is_done(tickets[1]));
        assert_eq!(send(&mut outbox).map(|sent| sent.1), Some(2));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Send,
        Ack(usize),
        Refuse,
        Reconnect,
    }

    proptest! {
        /// Whatever happens, each publication is acknowledged or still there, and the order stays.
        #[test]
        fn nothing_is_lost_or_turned_around(steps in prop::collection::vec(prop_oneof![
            6 => Just(Step::Push),
            6 => Just(Step::Send),
            4 => (0usize..8).prop_map(Step::Ack),
            1 => Just(Step::Refuse),
            2 => Just(Step::Reconnect),
        ], 0..200)) {
            let mut outbox = Outbox::default();
            let (mut pushed, mut done, mut wire, mut last) = (0u32, Vec::new(), Vec::new(), None);
            for step in steps {
                match step {
                    Step::Push => {
                        prop_assert!(outbox.push(publication(pushed)).is_some());
                        pushed += 1;
                    }
                    Step::Send => if let Some((id, n)) = send(&mut outbox) {
                        prop_assert!(last < Some(n), "in order on each connection");
                        last = Some(n);
                        wire.push((id, n));
                    },
                    Step::Ack(at) => if at < wire.len() {
                        let (id, n) = wire.remove(at);
                        prop_assert_eq!(outbox.handle_ack(id), Some(publication(n)));
                        done.push(n);
                    },
                    Step::Refuse => if outbox.to_send(u16::MAX).is_some() {
                        done.push(number(&outbox.refuse().unwrap()));
                    },
                    Step::Reconnect => {
                        wire.clear();
                        last = None;
                        outbox.handle_disconnect();
                    }
                }
            }
            let left = outbox.take_back();
            prop_assert!(left.is_sorted_by_key(|(ticket, _)| *ticket));
            done.extend(left.iter().map(|(_, publication)| number(publication)));
            done.sort_unstable();
            prop_assert_eq!(done, (0..pushed).collect::<Vec<_>>());
        }
    }
}
