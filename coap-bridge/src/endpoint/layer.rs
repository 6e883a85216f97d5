//! The message layer (RFC 7252 section 4): mids, deduplication, acknowledgement, retransmission and
//! NSTART. It never looks at resources, options or tokens.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;

use super::code::Code;
use super::codec::{Malformed, Message, Type};
use super::metrics::{Dropped, Metrics};
use super::parameters::{ACK_RANDOM_FACTOR, EXCHANGE_LIFETIME, MAX_RETRANSMIT, NON_LIFETIME};
use super::peer::{Active, Echo, Peer, Queued, Sight};
use super::remote::Remote;
use super::timers::Timers;
use super::{Limits, Transmit};

/// Names a Confirmable message of ours until its [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SendId(u64);

/// What a datagram brought, for the layer above.
#[derive(Debug)]
pub(super) enum Received {
    /// A request that did not come before.
    Request(Message),
    /// A response that did not come before; a Confirmable one wants
    /// [`MessageLayer::acknowledge`] or [`MessageLayer::reset`].
    Response(Message, Option<SendId>),
    /// A Reset that is for no Confirmable message of ours: maybe for a Non-confirmable one.
    Reset(u16),
}

/// How a Confirmable message of ours ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The peer has it; this newer message was never sent.
    Acknowledged(SendId, Option<Message>),
    Reset(SendId),
    TimedOut(SendId),
}

/// The backlog of a peer is full: the message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BacklogFull;

#[derive(Debug)]
pub(super) struct MessageLayer {
    peers: HashMap<Remote, Peer>,
    /// How many mids are remembered in all.
    seen: usize,
    /// Which peer's message is to be sent again.
    retransmit: Timers<Remote>,
    /// When a peer may be forgotten; may be earlier than its own `expires`, which it grows behind.
    idle: Timers<Remote>,
    transmits: VecDeque<Transmit>,
    outcomes: VecDeque<Outcome>,
    next_send: u64,
    limits: Limits,
    rng: StdRng,
    pub(super) metrics: Metrics,
}

impl MessageLayer {
    pub(super) fn new(limits: Limits, rng: StdRng) -> Self {
        Self {
            peers: HashMap::new(),
            seen: 0,
            retransmit: Timers::default(),
            idle: Timers::default(),
            transmits: VecDeque::new(),
            outcomes: VecDeque::new(),
            next_send: 0,
            limits,
            rng,
            metrics: Metrics::default(),
        }
    }

    pub(super) fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    pub(super) fn handle_datagram(
        &mut self,
        from: Remote,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Received> {
        self.metrics.received.inc();
        // Nothing can be sent there, so nothing from there can be honest.
        if from.address().port() == 0 {
            self.metrics.dropped(Dropped::PortZero);
            return None;
        }
        let message = match Message::decode(datagram) {
            Ok(message) => message,
            Err(Malformed { reset }) => {
                self.metrics.dropped(Dropped::Malformed);
                if let Some(mid) = reset {
                    self.transmit(from, Message::empty(Type::Rst, mid).encode());
                }
                return None;
            }
        };
        match (message.code.class(), message.code.byte(), message.kind) {
            (_, 0, kind) => self.handle_empty(from, kind, message.mid, now),
            (0, _, Type::Con | Type::Non) => self
                .is_new(from, &message, now)
                .then_some(Received::Request(message)),
            (2 | 4 | 5, _, Type::Con | Type::Non) => self
                .is_new(from, &message, now)
                .then_some(Received::Response(message, None)),
            (2 | 4 | 5, _, Type::Ack) => {
                let Some(done) = self.take_active(from, message.mid, now) else {
                    self.metrics.dropped(Dropped::Unmatched);
                    return None;
                };
                Some(Received::Response(message, Some(done.id)))
            }
            (1 | 3 | 6 | 7, _, kind) => {
                self.metrics.dropped(Dropped::Reserved);
                if kind == Type::Con {
                    self.transmit(from, Message::empty(Type::Rst, message.mid).encode());
                }
                None
            }
            _ => {
                self.metrics.dropped(Dropped::UnexpectedType);
                None
            }
        }
    }

    /// A datagram that was sent to a group (RFC 7252 section 8.1): only Non-confirmable requests
    /// are taken, and nothing is sent because of anything else.
    pub(super) fn handle_group_datagram(
        &mut self,
        from: Remote,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Message> {
        self.metrics.received.inc();
        let message = Message::decode(datagram).ok().filter(|message| {
            from.address().port() != 0
                && message.kind == Type::Non
                && message.code.class() == 0
                && message.code != Code::EMPTY
        });
        let Some(message) = message else {
            self.metrics.dropped(Dropped::Multicast);
            return None;
        };
        self.is_new(from, &message, now).then_some(message)
    }

    fn handle_empty(
        &mut self,
        from: Remote,
        kind: Type,
        mid: u16,
        now: Instant,
    ) -> Option<Received> {
        match kind {
            // CoAP ping (RFC 7252 section 4.3).
            Type::Con => {
                self.metrics.pings.inc();
                self.transmit(from, Message::empty(Type::Rst, mid).encode());
            }
            Type::Non => self.metrics.dropped(Dropped::UnexpectedType),
            Type::Ack | Type::Rst => match self.take_active(from, mid, now) {
                Some(done) if kind == Type::Ack => {
                    let outcome = Outcome::Acknowledged(done.id, done.newer);
                    self.outcomes.push_back(outcome);
                }
                Some(done) => self.outcomes.push_back(Outcome::Reset(done.id)),
                None if kind == Type::Rst => return Some(Received::Reset(mid)),
                None => self.metrics.dropped(Dropped::Unmatched),
            },
        }
        None
    }

    /// Remembers the mid of a Confirmable or Non-confirmable message; a duplicate gets what the
    /// first one got (RFC 7252 section 4.5).
    fn is_new(&mut self, from: Remote, message: &Message, now: Instant) -> bool {
        let lifetime = match message.kind {
            Type::Con => EXCHANGE_LIFETIME,
            _ => NON_LIFETIME,
        };
        while self.seen >= self.limits.max_seen && self.evict(from, now) {}
        let peer = self.peer(from, now);
        let before = peer.seen_len();
        let sight = peer.see(message.mid, now, lifetime);
        let after = peer.seen_len();
        self.seen = self.seen + after - before;
        match sight {
            Sight::New { forgotten } => {
                self.metrics.forgotten.inc_by(u64::from(forgotten));
                true
            }
            Sight::Duplicate(answer) => {
                self.metrics.duplicates.inc();
                if let Some(answer) = answer {
                    self.transmit(from, answer);
                }
                false
            }
        }
    }

    /// Forgets the mids of the peer that was silent for longest, which is not `keep`.
    fn evict(&mut self, keep: Remote, now: Instant) -> bool {
        // Each turn moves a peer to its true deadline or forgets one, so this ends.
        while let Some((at, addr)) = self.idle.pop_first() {
            let Some(peer) = self.peers.get_mut(&addr) else {
                continue;
            };
            if peer.expires() > at {
                self.idle.set(addr, peer.expires());
                continue;
            }
            let forgotten = peer.forget_seen();
            self.seen -= forgotten;
            self.metrics
                .forgotten
                .inc_by(u64::try_from(forgotten).unwrap_or(0));
            if addr == keep || peer.is_busy() {
                peer.keep_until(now + EXCHANGE_LIFETIME);
                self.idle.set(addr, now + EXCHANGE_LIFETIME);
            } else {
                self.peers.remove(&addr);
            }
            return true;
        }
        false
    }

    fn peer(&mut self, addr: Remote, now: Instant) -> &mut Peer {
        let Self {
            peers,
            idle,
            rng,
            limits,
            ..
        } = self;
        peers.entry(addr).or_insert_with(|| {
            idle.set(addr, now + NON_LIFETIME);
            Peer::new(rng.random(), limits.max_seen_per_peer, now)
        })
    }

    fn transmit(&mut self, to: Remote, bytes: Bytes) {
        self.metrics.sent.inc();
        self.transmits.push_back(Transmit { to, bytes });
    }

    /// Sends a message as the acknowledgement of `mid`, and keeps it for duplicates.
    pub(super) fn piggyback(&mut self, to: Remote, mid: u16, message: Message) {
        let bytes = Message {
            kind: Type::Ack,
            mid,
            ..message
        }
        .encode();
        self.answer(to, mid, bytes);
    }

    /// Acknowledges a Confirmable message.
    pub(super) fn acknowledge(&mut self, to: Remote, mid: u16) {
        self.answer(to, mid, Message::empty(Type::Ack, mid).encode());
    }

    /// Rejects a message.
    pub(super) fn reset(&mut self, to: Remote, mid: u16) {
        self.answer(to, mid, Message::empty(Type::Rst, mid).encode());
    }

    fn answer(&mut self, to: Remote, mid: u16, bytes: Bytes) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.remember_answer(mid, &bytes);
        }
        self.transmit(to, bytes);
    }

    /// Sends a Non-confirmable message, once; gives its mid.
    pub(super) fn send_non(&mut self, to: Remote, message: Message, now: Instant) -> u16 {
        let peer = self.peer(to, now);
        peer.keep_until(now + NON_LIFETIME);
        let mid = peer.next_mid();
        let message = Message {
            kind: Type::Non,
            mid,
            ..message
        };
        self.transmit(to, message.encode());
        mid
    }

    /// Sends a Confirmable message, at once or when those before it are done.
    pub(super) fn send_con(
        &mut self,
        to: Remote,
        message: Message,
        now: Instant,
    ) -> Result<SendId, BacklogFull> {
        let max_backlog = self.limits.max_backlog;
        let id = SendId(self.next_send);
        self.peer(to, now)
            .enqueue(Queued { id, message }, max_backlog)
            .map_err(|_| BacklogFull)?;
        self.next_send += 1;
        self.start_next(to, now);
        Ok(id)
    }

    fn start_next(&mut self, to: Remote, now: Instant) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let Some(Queued { id, message }) = peer.dequeue() else {
            return;
        };
        let mid = peer.next_mid();
        peer.keep_until(now + EXCHANGE_LIFETIME);
        let bytes = Message {
            kind: Type::Con,
            mid,
            ..message
        }
        .encode();
        let factor = self.rng.random_range(1.0..=ACK_RANDOM_FACTOR);
        let timeout = self.limits.ack_timeout.mul_f64(factor);
        peer.active = Some(Active {
            id,
            mid,
            bytes: bytes.clone(),
            retransmissions: 0,
            timeout,
            newer: None,
        });
        self.retransmit.set(to, now + timeout);
        self.transmit(to, bytes);
    }

    fn take_active(&mut self, from: Remote, mid: u16, now: Instant) -> Option<Active> {
        let peer = self.peers.get_mut(&from)?;
        let done = peer.active.take_if(|active| active.mid == mid)?;
        self.retransmit.cancel(&from);
        self.start_next(from, now);
        Some(done)
    }

    /// Puts a newer message in the place of one that is not acknowledged yet: it goes out instead of
    /// the next retransmission (RFC 7641 section 4.5.2). False when `id` has ended.
    pub(super) fn supersede(&mut self, to: Remote, id: SendId, message: Message) -> bool {
        let peer = self.peers.get_mut(&to);
        peer.is_some_and(|peer| peer.supersede(id, message))
    }

    /// Whether the peer was seen to be where it says: it has answered what only it was told.
    pub(super) fn is_verified(&self, peer: Remote) -> bool {
        peer.session().is_some() || self.peers.get(&peer).is_some_and(|peer| peer.verified)
    }

    /// The peer is where it says.
    pub(super) fn verify(&mut self, addr: Remote, now: Instant) {
        self.peer(addr, now).verified = true;
    }

    /// What the peer has to repeat in an Echo option (RFC 9175 section 2.3).
    pub(super) fn echo(&mut self, addr: Remote, now: Instant) -> Echo {
        let fresh = self.rng.random();
        *self.peer(addr, now).echo.get_or_insert(fresh)
    }

    /// The peer has sent this Echo option.
    pub(super) fn handle_echo(&mut self, addr: Remote, value: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&addr)
            && peer.echo.is_some_and(|echo| echo == value)
        {
            peer.verified = true;
        }
    }

    /// Stops sending a message; it has no [`Outcome`] any more.
    pub(super) fn cancel(&mut self, to: Remote, id: SendId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        if peer.active.take_if(|active| active.id == id).is_some() {
            self.retransmit.cancel(&to);
            self.start_next(to, now);
        } else {
            peer.remove_queued(id);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(addr) = self.retransmit.pop_due(now) {
            self.handle_retransmit(addr, now);
        }
        while let Some(addr) = self.idle.pop_due(now) {
            let Some(peer) = self.peers.get_mut(&addr) else {
                continue;
            };
            if peer.is_busy() {
                self.idle.set(addr, now + EXCHANGE_LIFETIME);
            } else if peer.expires() > now {
                self.idle.set(addr, peer.expires());
            } else {
                self.seen -= peer.forget_seen();
                self.peers.remove(&addr);
            }
        }
    }

    fn handle_retransmit(&mut self, addr: Remote, now: Instant) {
        let Some(peer) = self.peers.get_mut(&addr) else {
            return;
        };
        let Some(active) = &mut peer.active else {
            return;
        };
        if active.retransmissions < MAX_RETRANSMIT {
            active.retransmissions += 1;
            active.timeout *= 2;
            let timeout = active.timeout;
            let bytes = peer.refresh_active();
            self.metrics.retransmissions.inc();
            self.retransmit.set(addr, now + timeout);
            self.transmit(addr, bytes);
        } else {
            self.outcomes.push_back(Outcome::TimedOut(active.id));
            peer.active = None;
            self.start_next(addr, now);
        }
    }

    #[cfg(test)]
    pub(super) fn seen(&self) -> usize {
        self.seen
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub(super) fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.retransmit.next(), self.idle.next()]
            .into_iter()
            .flatten()
            .min()
    }
}
