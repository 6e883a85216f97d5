//! Datagrams that have come in and wait for their turn. Pushed values wait for everything else, and
//! are the first to be dropped: under a flood of them nodes stay alive, registered and answerable.
//!
//! What the system drops, when nobody takes datagrams from it in time, it drops without looking at
//! it; so the driver takes them faster than it handles them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::firmware::is_push;
use crate::metrics::{Metrics, Shed};

/// Datagrams of each sort that wait. Full: a further one is dropped and counted; a Confirmable one is
/// sent again by its node.
const CAPACITY: usize = 4096;
/// Bytes of each sort that wait, with the same rule.
const BYTES: usize = 4 * 1024 * 1024;

/// Datagrams one after another, so that none costs an allocation.
#[derive(Debug, Default)]
struct Queue {
    /// From whom each is, and how long it is.
    datagrams: VecDeque<(SocketAddr, usize)>,
    bytes: VecDeque<u8>,
}

impl Queue {
    fn push(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let bytes = self.bytes.len() + datagram.len();
        let has_room = self.datagrams.len() < CAPACITY && bytes <= BYTES;
        if has_room {
            self.bytes.extend(datagram);
            self.datagrams.push_back((from, datagram.len()));
        }
        has_room
    }

    fn pop(&mut self, into: &mut Vec<u8>) -> Option<SocketAddr> {
        let (from, len) = self.datagrams.pop_front()?;
        into.clear();
        let (first, second) = self.bytes.as_slices();
        let at = len.min(first.len());
        into.extend_from_slice(&first[..at]);
        into.extend_from_slice(&second[..len - at]);
        self.bytes.drain(..len);
        Some(from)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pushes: Queue,
    others: Queue,
    metrics: Metrics,
}

impl Inbox {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Whether [`Inbox::pop`] has one.
    pub(crate) fn has_next(&self, pushes: bool) -> bool {
        !self.others.datagrams.is_empty() || (pushes && !self.pushes.datagrams.is_empty())
    }

    /// Takes a datagram, or drops it for want of room.
    pub(crate) fn push(&mut self, from: SocketAddr, datagram: &[u8]) {
        let (queue, sort) = if is_push(datagram) {
            (&mut self.pushes, Shed::Push)
        } else {
            (&mut self.others, Shed::Other)
        };
        if !queue.push(from, datagram) {
            self.metrics.shed(sort);
        }
    }

    /// Puts the datagram whose turn it is into a buffer, and gives from whom it is; pushes only if they
    /// are wanted now.
    pub(crate) fn pop(&mut self, pushes: bool, into: &mut Vec<u8>) -> Option<SocketAddr> {
        let other = self.others.pop(into);
        other.or_else(|| if pushes { self.pushes.pop(into) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: &[u8] = b"\x40\x02\x00\x01\xb6server\xfft:1";
    const ALIVE: &[u8] = b"\x40\x02\x00\x02\xb5alive\xffalive:1";

    fn from() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 5683))
    }

    #[test]
    fn in_a_flood_of_pushes_signs_of_life_are_first_and_none_is_dropped() {
        let metrics = Metrics::default();
        let mut inbox = Inbox::new(metrics.clone());
        for _ in 0..2 * CAPACITY {
            inbox.push(from(), PUSH);
        }
        for _ in 0..10 {
            inbox.push(from(), ALIVE);
        }
        let mut datagram = Vec::new();
        for _ in 0..10 {
            assert_eq!(inbox.pop(true, &mut datagram), Some(from()));
            assert_eq!(datagram, ALIVE);
        }
        assert!(!inbox.has_next(false) && inbox.pop(false, &mut datagram).is_none());
        let mut pushes = 0;
        while inbox.pop(true, &mut datagram).is_some() {
            assert_eq!(datagram, PUSH);
            pushes += 1;
        }
        assert!(!inbox.has_next(true));
        assert_eq!(pushes, CAPACITY);
        assert_eq!(metrics.shed_of(Shed::Push), CAPACITY as u64);
        assert_eq!(metrics.shed_of(Shed::Other), 0);
    }

    #[test]
    fn long_datagrams_are_bounded_by_their_bytes() {
        let mut inbox = Inbox::default();
        let long = vec![0; 65_507];
        for _ in 0..CAPACITY {
            inbox.push(from(), &long);
        }
        assert!(inbox.others.bytes.len() <= BYTES);
        let mut datagram = Vec::new();
        while inbox.pop(true, &mut datagram).is_some() {
            assert_eq!(datagram, long);
        }
        assert!(inbox.others.bytes.is_empty());
    }

    #[test]
    fn datagrams_come_out_as_they_went_in_however_often_the_ring_turns() {
        let (mut inbox, mut datagram) = (Inbox::default(), Vec::new());
        let sample = |n: usize| vec![n.to_le_bytes()[0]; n % 97];
        let mut next = 0;
        for n in 0..10_000 {
            inbox.push(from(), &sample(n));
            while next + n % 50 < n {
                assert!(inbox.pop(true, &mut datagram).is_some());
                assert_eq!(datagram, sample(next));
                next += 1;
            }
        }
        assert!(next > 9_000);
    }
}
