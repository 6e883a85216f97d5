//! What the message layer remembers of one peer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::codec::{Message, Type};
use super::layer::SendId;

/// A Confirmable message that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) id: SendId,
    pub(super) mid: u16,
    pub(super) bytes: Bytes,
    pub(super) retransmissions: u32,
    pub(super) timeout: Duration,
    /// Goes out in the place of the next retransmission.
    pub(super) newer: Option<Message>,
}

/// What a peer repeats to show that it gets what is sent to its address: as long as an answer of
/// three times the shortest request has room for (RFC 9175 section 2.2.1).
pub(super) type Echo = [u8; 6];

/// A Confirmable message that waits for its turn.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) id: SendId,
    pub(super) message: Message,
}

/// Whether a mid came before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// It did not; so many others had to be forgotten for it before their time.
    New { forgotten: u32 },
    /// It did; the answer then, if it has been given.
    Duplicate(Option<Bytes>),
}

#[derive(Debug)]
struct Seen {
    mid: u16,
    expires: Instant,
    answer: Option<Box<[u8]>>,
}

#[derive(Debug)]
pub(super) struct Peer {
    next_mid: u16,
    /// The last mids that came. Full: the oldest is forgotten.
    seen: VecDeque<Seen>,
    max_seen: usize,
    /// NSTART = 1.
    pub(super) active: Option<Active>,
    /// Full: a further message is refused.
    backlog: VecDeque<Queued>,
    /// When nothing here matters any more.
    expires: Instant,
    /// What it was asked to repeat.
    pub(super) echo: Option<Echo>,
    /// It has shown that its address is its own.
    pub(super) verified: bool,
}

impl Peer {
    pub(super) fn new(next_mid: u16, max_seen: usize, now: Instant) -> Self {
        Self {
            next_mid,
            seen: VecDeque::new(),
            max_seen: max_seen.max(1),
            active: None,
            backlog: VecDeque::new(),
            expires: now,
            echo: None,
            verified: false,
        }
    }

    pub(super) fn next_mid(&mut self) -> u16 {
        let mid = self.next_mid;
        self.next_mid = mid.wrapping_add(1);
        mid
    }

    pub(super) fn expires(&self) -> Instant {
        self.expires
    }

    pub(super) fn keep_until(&mut self, at: Instant) {
        self.expires = self.expires.max(at);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.active.is_some() || !self.backlog.is_empty()
    }

    pub(super) fn seen_len(&self) -> usize {
        self.seen.len()
    }

    /// Forgets which mids came; gives how many there were.
    pub(super) fn forget_seen(&mut self) -> usize {
        std::mem::take(&mut self.seen).len()
    }

    pub(super) fn see(&mut self, mid: u16, now: Instant, lifetime: Duration) -> Sight {
        let known = self.seen.iter().rev().find(|seen| seen.mid == mid);
        if let Some(seen) = known.filter(|seen| seen.expires > now) {
            let answer = seen.answer.as_deref().map(Bytes::copy_from_slice);
            return Sight::Duplicate(answer);
        }
        while self.seen.front().is_some_and(|seen| seen.expires <= now) {
            self.seen.pop_front();
        }
        let mut forgotten = 0;
        while self.seen.len() >= self.max_seen {
            self.seen.pop_front();
            forgotten += 1;
        }
        let expires = now + lifetime;
        self.keep_until(expires);
        self.seen.push_back(Seen {
            mid,
            expires,
            answer: None,
        });
        Sight::New { forgotten }
    }

    /// Keeps the answer to a message for its duplicates.
    pub(super) fn remember_answer(&mut self, mid: u16, answer: &[u8]) {
        if let Some(seen) = self.seen.iter_mut().rev().find(|seen| seen.mid == mid) {
            seen.answer = Some(answer.into());
        }
    }

    pub(super) fn enqueue(&mut self, queued: Queued, max_backlog: usize) -> Result<(), Queued> {
        // The backlog is not counted while nothing is active: it goes out at once.
        if self.active.is_some() && self.backlog.len() >= max_backlog {
            return Err(queued);
        }
        self.backlog.push_back(queued);
        Ok(())
    }

    /// The next message to send, unless one waits for its acknowledgement.
    pub(super) fn dequeue(&mut self) -> Option<Queued> {
        if self.active.is_some() {
            return None;
        }
        self.backlog.pop_front()
    }

    /// See [`super::layer::MessageLayer::supersede`].
    pub(super) fn supersede(&mut self, id: SendId, message: Message) -> bool {
        if let Some(active) = self.active.as_mut().filter(|active| active.id == id) {
            active.newer = Some(message);
            return true;
        }
        let queued = self.backlog.iter_mut().find(|queued| queued.id == id);
        queued.is_some_and(|queued| {
            queued.message = message;
            true
        })
    }

    /// What is to be sent again: the active message, or the newer one from now on.
    pub(super) fn refresh_active(&mut self) -> Bytes {
        let newer = self
            .active
            .as_mut()
            .and_then(|active| active.newer.take())
            .map(|newer| (self.next_mid(), newer));
        let Some(active) = &mut self.active else {
            return Bytes::new();
        };
        if let Some((mid, newer)) = newer {
            active.mid = mid;
            active.bytes = Message {
                kind: Type::Con,
                mid,
                ..newer
            }
            .encode();
        }
        active.bytes.clone()
    }

    pub(super) fn remove_queued(&mut self, id: SendId) {
        self.backlog.retain(|queued| queued.id != id);
    }
}
