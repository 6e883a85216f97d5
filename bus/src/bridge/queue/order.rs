//! Which records the queue holds, which of them are under way, and which must go: numbers and sizes,
//! without IO.

use std::collections::{HashSet, VecDeque};

use crate::session::Ticket;

/// The number of the first record ever; others may come to stand before it.
const START: u64 = 1 << 32;

/// The machine. Records have consecutive numbers, in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Order {
    /// The number of the oldest record.
    first: u64,
    sizes: VecDeque<u32>,
    bytes: u64,
    max_bytes: u64,
    /// The next record to send.
    cursor: u64,
    /// Sent and not acknowledged, oldest first.
    under_way: VecDeque<(Ticket, u64)>,
}

impl Order {
    /// A queue that holds records of these sizes, the first with this number.
    pub(super) fn new(first: Option<u64>, sizes: VecDeque<u32>, max_bytes: u64) -> Self {
        let first = first.unwrap_or(START);
        Self {
            first,
            bytes: sizes.iter().copied().map(u64::from).sum(),
            sizes,
            max_bytes,
            cursor: first,
            under_way: VecDeque::new(),
        }
    }

    /// The number of the oldest record, or of the next one when there is none.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    fn end(&self) -> u64 {
        self.first + self.sizes.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.sizes.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a record behind all others; gives its number, and how many of the oldest went for it.
    pub(super) fn push(&mut self, size: usize) -> (u64, u64) {
        let number = self.end();
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.sizes.push_back(size);
        self.bytes += u64::from(size);
        let mut dropped = 0;
        // The newest stays, whatever its size.
        while self.bytes > self.max_bytes && self.sizes.len() > 1 {
            self.pop();
            dropped += 1;
        }
        (number, dropped)
    }

    /// Takes a record before all others, while none is under way; none when there is no room.
    pub(super) fn push_front(&mut self, size: usize) -> Option<u64> {
        let size = u32::try_from(size).ok()?;
        let fits = self.bytes + u64::from(size) <= self.max_bytes;
        let untouched = self.under_way.is_empty() && self.cursor == self.first;
        let number = self.first.checked_sub(1).filter(|_| fits && untouched)?;
        self.first = number;
        self.cursor = number;
        self.sizes.push_front(size);
        self.bytes += u64::from(size);
        Some(number)
    }

    fn pop(&mut self) {
        if let Some(size) = self.sizes.pop_front() {
            self.bytes -= u64::from(size);
            self.first += 1;
            self.cursor = self.cursor.max(self.first);
        }
    }

    /// The next record to send.
    pub(super) fn unsent(&self) -> Option<u64> {
        (self.cursor < self.end()).then_some(self.cursor)
    }

    /// A record was sent, or can't be sent ever (no ticket).
    pub(super) fn sent(&mut self, number: u64, ticket: Option<Ticket>) {
        self.cursor = self.cursor.max(number + 1);
        match ticket {
            Some(ticket) => self.under_way.push_back((ticket, number)),
            None if self.under_way.is_empty() => self.remove_to(number),
            None => {}
        }
    }

    /// The oldest that is under way.
    pub(super) fn oldest_under_way(&self) -> Option<Ticket> {
        self.under_way.front().map(|(ticket, _)| *ticket)
    }

    /// All that are under way.
    pub(super) fn under_way(&self) -> HashSet<Ticket> {
        self.under_way.iter().map(|(ticket, _)| *ticket).collect()
    }

    /// The one with whose acknowledgement it is worth looking again.
    pub(super) fn awaited(&self) -> Option<Ticket> {
        const STEP: usize = 256;
        let at = self.under_way.len().checked_sub(1)?.min(STEP);
        self.under_way.get(at).map(|(ticket, _)| *ticket)
    }

    /// Removes what is `done`; gives whether that is anything.
    pub(super) fn acknowledge(&mut self, done: impl Fn(Ticket) -> bool) -> bool {
        let mut any = false;
        while let Some(&(ticket, number)) = self.under_way.front()
            && done(ticket)
        {
            self.under_way.pop_front();
            self.remove_to(number);
            any = true;
        }
        any
    }

    fn remove_to(&mut self, number: u64) {
        while self.first <= number && !self.sizes.is_empty() {
            self.pop();
        }
    }

    /// The connection is lost: what is not acknowledged is sent again.
    pub(super) fn rewind(&mut self) {
        self.under_way.clear();
        self.cursor = self.first;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::Publication;
    use crate::session::outbox::Outbox;

    fn tickets(n: usize) -> Vec<Ticket> {
        let mut outbox = Outbox::default();
        let one = || Publication::passing("t".into(), "");
        (0..n).map(|_| outbox.push(one()).unwrap()).collect()
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_stays() {
        let mut order = Order::new(None, VecDeque::new(), 10);
        assert_eq!(order.push(4).1, 0);
        assert_eq!(order.push(4).1, 0);
        let (number, dropped) = order.push(4);
        assert_eq!((number, dropped, order.bytes()), (START + 2, 1, 8));
        let (_, dropped) = order.push(100);
        assert_eq!((dropped, order.len(), order.bytes()), (2, 1, 100));
        assert_eq!(order.unsent(), Some(START + 3));
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again() {
        let tickets = tickets(3);
        let mut order = Order::new(None, VecDeque::new(), 100);
        for ticket in &tickets {
            let (number, _) = order.push(1);
            order.sent(number, Some(*ticket));
        }
        assert_eq!(order.unsent(), None);
        assert!(order.acknowledge(|ticket| ticket == tickets[0]));
        assert!(!order.acknowledge(|ticket| ticket == tickets[0]));
        order.rewind();
        assert_eq!((order.unsent(), order.len()), (Some(START + 1), 2));
        assert_eq!(order.push_front(1), Some(START));
        assert_eq!(order.unsent(), Some(START));
        assert_eq!(order.push_front(100), None);
        order.sent(START, None);
        assert_eq!(
            (order.first(), order.unsent()),
            (START + 1, Some(START + 1))
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Send,
        Ack,
        Rewind,
    }

    proptest! {
        /// Against a list of numbers: order, bounds and sums hold whatever happens.
        #[test]
        fn it_is_a_bounded_list(steps in prop::collection::vec(prop_oneof![
            3 => (1usize..6).prop_map(Step::Push), 2 => Just(Step::Send), 2 => Just(Step::Ack),
            1 => Just(Step::Rewind),
        ], 0..200)) {
            let tickets = tickets(200);
            let mut order = Order::new(None, VecDeque::new(), 20);
            let (mut held, mut flying, mut sent) = (VecDeque::new(), VecDeque::new(), 0);
            for step in steps {
                match step {
                    Step::Push(size) => {
                        let (number, dropped) = order.push(size);
                        held.push_back((number, size as u64));
                        held.drain(..usize::try_from(dropped).unwrap());
                    }
                    Step::Send => if let Some(number) = order.unsent() {
                        order.sent(number, Some(tickets[sent]));
                        flying.push_back((tickets[sent], number));
                        sent += 1;
                    },
                    Step::Ack => if let Some((ticket, number)) = flying.pop_front() {
                        prop_assert!(order.acknowledge(|other| other <= ticket));
                        held.retain(|(other, _)| *other > number);
                    },
                    Step::Rewind => {
                        order.rewind();
                        flying.clear();
                    }
                }
                prop_assert_eq!(order.len(), held.len());
                prop_assert_eq!(order.bytes(), held.iter().map(|(_, size)| size).sum::<u64>());
                prop_assert!(order.bytes() <= 20 || order.len() == 1);
                let last = flying.back().map(|(_, number)| *number);
                let next = held.iter().map(|(number, _)| *number).find(|n| last.is_none_or(|l| *n > l));
                prop_assert_eq!(order.unsent(), next);
            }
        }
    }
}
