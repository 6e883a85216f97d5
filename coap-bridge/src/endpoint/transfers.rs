//! Bodies of peers in blocks (RFC 7959), from the server's side: requests that come block by block,
//! and answers of which the rest will be asked for.
//!
//! An answer to GET is cut anew for each block, from what the resource then is. An answer to
//! anything else is kept, since asking again would do again what was done.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::code::Code;
use super::codec::Message;
use super::message::Response;
use super::options::{Block, Options, number};
use super::parameters::EXCHANGE_LIFETIME;
use super::remote::Remote;
use super::timers::Timers;

/// How many transfers are kept. Full: the one that was silent for longest is dropped, and its next
/// block gets 4.08.
const MAX_TRANSFERS: usize = 256;
/// How many of them are of one peer. Full: its own that was silent for longest is dropped.
const MAX_PER_PEER: usize = 4;

/// What the blocks of one body have in common: peer, method, options (RFC 7959 section 2.5). A keyed
/// hash, so that no peer can find two that are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn new(salt: u64, peer: Remote, message: &Message) -> Self {
        let mut hasher = DefaultHasher::new();
        (salt, peer, message.code).hash(&mut hasher);
        let options = message.options.iter();
        for option in options.filter(|(option, _)| !Options::is_no_key(*option)) {
            option.hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

#[derive(Debug)]
enum Body {
    /// What has come so far.
    Request(BytesMut),
    /// The whole answer.
    Answer(Response),
}

#[derive(Debug, Default)]
pub(super) struct Transfers {
    bodies: HashMap<Key, (Remote, Body)>,
    /// When each is dropped: the first is the one that was silent for longest.
    deadlines: Timers<Key>,
}

/// What follows from a block of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The body is whole.
    Whole(Bytes),
    /// The answer to this block.
    Answer(Response),
}

impl Taken {
    fn answer(code: Code) -> Self {
        Self::Answer(Response::new(code))
    }
}

impl Transfers {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.deadlines.pop_due(now) {
            self.bodies.remove(&key);
        }
    }

    /// Takes a block of a request. `max` is the longest body in bytes.
    pub(super) fn take(
        &mut self,
        key: Key,
        peer: Remote,
        block: Block,
        message: &Message,
        max: usize,
        now: Instant,
    ) -> Taken {
        let payload = &message.payload;
        let announced = message.options.uint(number::SIZE1).unwrap_or(0) as usize;
        if announced > max || block.offset() + payload.len() > max {
            self.remove(key);
            let mut answer = Response::new(Code::REQUEST_ENTITY_TOO_LARGE);
            let max = u32::try_from(max).unwrap_or(u32::MAX);
            answer.options.set_uint(number::SIZE1, max);
            return Taken::Answer(answer);
        }
        if payload.len() > block.size() || block.more && payload.len() != block.size() {
            self.remove(key);
            return Taken::answer(Code::BAD_REQUEST);
        }
        if block.num == 0 {
            if !block.more {
                self.remove(key);
                return Taken::Whole(payload.clone());
            }
            self.insert(key, peer, Body::Request(payload.as_ref().into()), now);
            return Taken::answer(Code::CONTINUE);
        }
        let Some((_, Body::Request(body))) = self.bodies.get_mut(&key) else {
            return Taken::answer(Code::REQUEST_ENTITY_INCOMPLETE);
        };
        let again = body.len() == block.offset() + payload.len() && body.ends_with(payload);
        if body.len() == block.offset() {
            body.extend_from_slice(payload);
        } else if !(again && block.more) {
            self.remove(key);
            return Taken::answer(Code::REQUEST_ENTITY_INCOMPLETE);
        }
        if block.more {
            self.deadlines.set(key, now + EXCHANGE_LIFETIME);
            return Taken::answer(Code::CONTINUE);
        }
        let whole = std::mem::take(body).freeze();
        self.remove(key);
        Taken::Whole(whole)
    }

    /// Keeps an answer for the peer to ask for the rest of it.
    pub(super) fn keep(&mut self, key: Key, peer: Remote, answer: Response, now: Instant) {
        self.insert(key, peer, Body::Answer(answer), now);
    }

    /// An answer that was kept.
    pub(super) fn answer(&mut self, key: Key, now: Instant) -> Option<Response> {
        let (_, Body::Answer(answer)) = self.bodies.get(&key)? else {
            return None;
        };
        self.deadlines.set(key, now + EXCHANGE_LIFETIME);
        Some(answer.clone())
    }

    fn insert(&mut self, key: Key, peer: Remote, body: Body, now: Instant) {
        self.remove(key);
        self.make_room(peer);
        self.bodies.insert(key, (peer, body));
        self.deadlines.set(key, now + EXCHANGE_LIFETIME);
    }

    fn make_room(&mut self, peer: Remote) {
        let own = self.bodies.iter().filter(|(_, (other, _))| *other == peer);
        let own: Vec<Key> = own.map(|(key, _)| *key).collect();
        if own.len() >= MAX_PER_PEER {
            let oldest = own.into_iter().min_by_key(|key| self.deadlines.at(key));
            if let Some(oldest) = oldest {
                self.remove(oldest);
            }
        }
        if self.bodies.len() >= MAX_TRANSFERS
            && let Some((_, key)) = self.deadlines.pop_first()
        {
            self.bodies.remove(&key);
        }
    }

    fn remove(&mut self, key: Key) {
        self.bodies.remove(&key);
        self.deadlines.cancel(&key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bodies.len()
    }
}
