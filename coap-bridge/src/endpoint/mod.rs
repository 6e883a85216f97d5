//! A CoAP endpoint without IO, client and server at once: RFC 7252 with requests to groups, Observe
//! (RFC 7641), block-wise transfer (RFC 7959), FETCH and PATCH (RFC 8132) and Echo (RFC 9175).
//!
//! Two layers: `layer` knows mids, types, duplicates and retransmission; the rest knows tokens,
//! options, blocks and observations: `client`, `responses` and `observe` what we ask, `server`,
//! `exchanges`, `transfers` and `observers` what we are asked, `group` both. Neither knows a resource.
//!
//! What it refuses to do: it opens no socket, reads no clock, starts no task; it keeps nothing about
//! a peer beyond [`Limits`]; it is no proxy.

mod blocks;
mod client;
mod code;
mod codec;
mod exchanges;
mod group;
mod layer;
mod message;
mod metrics;
mod observe;
mod observers;
pub mod options;
pub mod parameters;
mod peer;
mod remote;
mod responses;
mod server;
#[cfg(test)]
mod tests;
mod timers;
mod transfers;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;

use client::Client;
pub use client::{RequestError, RequestId};
pub use code::{Code, Method};
pub use exchanges::ExchangeId;
use group::Groups;
use layer::{MessageLayer, Outcome, Received};
pub(crate) use message::percent_decoded;
pub use message::{Request, Response};
pub use metrics::Metrics;
pub use observers::ObserverId;
use observers::Observers;
pub use remote::{Remote, SessionId};
use server::{Arrival, Server};
pub(crate) use timers::Timers;

/// What an endpoint remembers at the most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Message IDs that are remembered in all, about 50 bytes each. Full: those of the peer that was
    /// silent for longest are forgotten.
    pub max_seen: usize,
    /// Message IDs that are remembered of one peer. Full: the oldest is forgotten.
    pub max_seen_per_peer: usize,
    /// Confirmable messages that wait for their turn to one peer. Full: a further one is refused.
    pub max_backlog: usize,
    /// Requests of ours that wait for their response. Full: a further one is refused.
    pub max_requests: usize,
    /// Requests of peers that wait for [`Endpoint::respond`]. Full: a further one gets 5.03.
    pub max_exchanges: usize,
    /// The longest body that is put together from blocks, in bytes. Up to 256 requests of peers are
    /// put together at a time.
    pub max_body: usize,
    /// The size exponent of the blocks we send, 0 (16 bytes) to 6 (1024 bytes).
    pub szx: u8,
    /// The least time before the first retransmission (RFC 7252 section 4.8.1). The lifetimes in
    /// [`parameters`] do not follow it: they are right for the default and for anything shorter.
    pub ack_timeout: Duration,
    /// An answer may have so many times the bytes of its request, as long as the peer has not shown
    /// that its address is its own (RFC 7252 section 11.3); none: no such limit.
    ///
    /// Instead of a longer answer to GET and FETCH, and when it wants to observe, the peer gets 4.01
    /// with an Echo option, and what it wants when it asks again with that (RFC 9175 section 2.4).
    /// Other answers lose their payload. One that knows no Echo can still read what is long, in blocks
    /// that are small enough.
    pub amplification: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_seen: 262_144,
            max_seen_per_peer: 64,
            max_backlog: 16,
            max_requests: 65_536,
            max_exchanges: 4096,
            max_body: 64 * 1024,
            szx: options::MAX_SZX,
            ack_timeout: parameters::ACK_TIMEOUT,
            amplification: Some(3),
        }
    }
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Remote,
    /// The datagram.
    pub bytes: Bytes,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer asks; answer with [`Endpoint::respond`].
    Request {
        /// Goes into the answer.
        exchange: ExchangeId,
        /// Who asks.
        peer: Remote,
        /// What is asked, put together from its blocks.
        request: Request,
        /// It was sent to a group: errors are not answered, and nobody minds if nothing is
        /// ([`Endpoint::ignore`]).
        multicast: bool,
    },
    /// A request of ours has ended. It comes exactly once for each request that was taken and not
    /// cancelled.
    Response {
        /// Which one.
        id: RequestId,
        /// Who was asked.
        peer: Remote,
        /// The response, put together from its blocks; or why there is none.
        result: Result<Response, RequestError>,
        /// Notifications will follow, until one with `last` or [`Endpoint::cancel`].
        observed: bool,
    },
    /// An observed resource has changed.
    Notification {
        /// The request that began the observation.
        id: RequestId,
        /// Who notifies.
        peer: Remote,
        /// The new representation, put together from its blocks.
        response: Response,
        /// The peer has ended the observation.
        last: bool,
    },
    /// A member of a group has answered.
    GroupResponse {
        /// The question.
        id: RequestId,
        /// Who answers.
        peer: Remote,
        /// Its answer, or the first block of it.
        response: Response,
    },
    /// A ping has ended.
    Pong {
        /// Which one.
        id: RequestId,
        /// Who was asked.
        peer: Remote,
        /// Whether there was an answer.
        alive: bool,
    },
    /// A peer observes a resource of ours no more: it said so, or does not answer.
    ObserverLeft {
        /// As [`Endpoint::respond_observed`] gave it.
        observer: ObserverId,
        /// Who it was.
        peer: Remote,
    },
}

/// The endpoint.
///
/// After each input (`handle_*`, [`Endpoint::request`], [`Endpoint::respond`] ...) drain
/// [`Endpoint::poll_event`], then [`Endpoint::poll_transmit`]; call [`Endpoint::handle_timeout`]
/// when [`Endpoint::poll_timeout`] has come. Time must not go back. Remotes are compared as they
/// are: pass IPv4 addresses as such (not mapped into IPv6), and IPv6 ones without flow information.
#[derive(Debug)]
pub struct Endpoint {
    limits: Limits,
    layer: MessageLayer,
    client: Client,
    server: Server,
    observers: Observers,
    groups: Groups,
    events: VecDeque<Event>,
}

impl Endpoint {
    /// An endpoint that knows nobody. `rng` makes tokens, mids and jitter: seed it from the
    /// operating system, for tokens must not be guessed (RFC 7252 section 5.3.1).
    #[must_use]
    pub fn new(limits: Limits, rng: StdRng) -> Self {
        let mut layer = MessageLayer::new(limits.clone(), rng);
        Self {
            client: Client::default(),
            server: Server::new(layer.rng().random()),
            layer,
            observers: Observers::default(),
            groups: Groups::default(),
            events: VecDeque::new(),
            limits,
        }
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.layer.metrics
    }

    /// A datagram has come in.
    pub fn handle_datagram(&mut self, from: impl Into<Remote>, datagram: &[u8], now: Instant) {
        let from = from.into();
        match self.layer.handle_datagram(from, datagram, now) {
            Some(Received::Request(message)) => {
                let arrival = Arrival::new(datagram, false);
                self.handle_request(from, message, arrival, now);
            }
            Some(Received::Response(message, send)) => {
                self.handle_response(from, message, send, now);
            }
            Some(Received::Reset(mid)) => self.handle_stray_reset(from, mid),
            None => {}
        }
        self.handle_outcomes(now);
    }

    /// A datagram has come in that was sent to a multicast group (RFC 7252 section 8).
    pub fn handle_group_datagram(
        &mut self,
        from: impl Into<Remote>,
        datagram: &[u8],
        now: Instant,
    ) {
        let from = from.into();
        if let Some(message) = self.layer.handle_group_datagram(from, datagram, now) {
            let arrival = Arrival::new(datagram, true);
            self.handle_request(from, message, arrival, now);
        }
    }

    /// The peer is known to be where it says, for instance from a handshake: see
    /// [`Limits::amplification`].
    pub fn verify(&mut self, peer: impl Into<Remote>, now: Instant) {
        self.layer.verify(peer.into(), now);
    }

    /// Some deadline has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        self.handle_outcomes(now);
        self.handle_client_timeout(now);
        self.handle_server_timeout(now);
        self.handle_group_timeout(now);
    }

    fn handle_outcomes(&mut self, now: Instant) {
        while let Some(outcome) = self.layer.poll_outcome() {
            match outcome {
                Outcome::Acknowledged(send, newer) => {
                    self.client.acknowledged(send);
                    self.handle_pong(send, true);
                    self.handle_notified(send, newer, now);
                }
                // A Reset is what a ping is for.
                Outcome::Reset(send) if self.handle_pong(send, true) => {}
                Outcome::TimedOut(send) if self.handle_pong(send, false) => {}
                Outcome::Reset(send) => self.handle_failed_send(send, RequestError::Reset, now),
                Outcome::TimedOut(send) => {
                    self.handle_failed_send(send, RequestError::Timeout, now);
                }
            }
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.layer.poll_transmit()
    }

    /// When [`Endpoint::handle_timeout`] is due; none while nothing waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.layer.poll_timeout(),
            self.client.poll_timeout(),
            self.server.poll_timeout(),
            self.groups.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Asks `to`. The end comes as [`Event::Response`], at the latest after `timeout`
    /// ([`parameters::MAX_TRANSMIT_WAIT`] is the time that RFC 7252 grants an acknowledgement). A
    /// payload that is longer than a block is sent block by block.
    ///
    /// # Errors
    /// [`RequestError::Busy`] when too much waits already.
    pub fn request(
        &mut self,
        to: impl Into<Remote>,
        request: Request,
        timeout: Duration,
        now: Instant,
    ) -> Result<RequestId, RequestError> {
        self.start_request(to.into(), request, false, timeout, now)
    }

    /// As [`Endpoint::request`], and asks to be notified of changes (RFC 7641). When the response
    /// says `observed`, the observation lasts until the peer ends it or it is cancelled.
    ///
    /// # Errors
    /// [`RequestError::Busy`] when too much waits already.
    pub fn observe(
        &mut self,
        to: impl Into<Remote>,
        request: Request,
        timeout: Duration,
        now: Instant,
    ) -> Result<RequestId, RequestError> {
        self.start_request(to.into(), request, true, timeout, now)
    }

    /// Sends a Non-confirmable request and waits for nothing; a response to it is dropped.
    pub fn tell(&mut self, to: impl Into<Remote>, request: Request, now: Instant) {
        let token = self.fresh_token();
        self.layer
            .send_non(to.into(), client::message(&request, token), now);
    }
}
