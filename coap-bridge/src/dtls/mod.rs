//! DTLS 1.2 for nodes (RFC 6347, RFC 7252 section 9), without IO: datagrams and time in; datagrams,
//! what nodes said over their sessions, and a deadline out. The handshake itself is dimpl's.
//!
//! - `record`, `cookie`, `provider`: the door. Nothing is kept of an address and no key is touched
//!   before it has shown that it receives what is sent to it.
//! - `handshakes`: handshakes of verified addresses, up to a proven identity.
//! - `sessions`: what has come of them.
//! - `association`: one connection of dimpl, with a wall around it.
//! - `keys`, `trust`: by what nodes prove who they are: a shared key, or a certificate.
//!
//! What it refuses to do: it knows no CoAP and no node; it is never the client, keeps no session for
//! resumption (a new handshake takes its place), and takes no Connection ID and no raw public key.

mod association;
#[cfg(any(test, fuzzing))]
pub(crate) mod client;
mod cookie;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handshakes;
mod keys;
mod metrics;
mod provider;
mod record;
mod sessions;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::id::NodeId;
use bus::time::Now;
use bytes::Bytes;
use rand::rngs::StdRng;

use association::{Failure, Outcome, Scratch};
use cookie::Cookies;
use handshakes::{Configs, Handshakes};
pub(crate) use keys::Keys;
use keys::Resolver;
pub use keys::{KeysError, shared_keys};
use metrics::Dropped;
pub(crate) use metrics::{Ended, Metrics};
use record::{ContentType, Record, records};
use sessions::{Credential, Sessions};
pub(crate) use trust::Trust;
pub use trust::TrustError;

use crate::endpoint::{SessionId, Timers};

/// Longer datagrams are not taken: no CoAP message and no flight of a node is as long.
const MAX_DATAGRAM: usize = 4096;

/// What the server keeps at the most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Sessions in all. Full: the one that was silent for longest ends.
    pub(crate) max_sessions: usize,
    /// Sessions in one place. Full: a further handshake is refused.
    pub(crate) max_sessions_per_address: usize,
    /// Handshakes under way, a quarter of them in one place. Full: a further one is refused.
    pub(crate) max_handshakes: usize,
    /// A session over which nothing came for so long ends.
    pub(crate) idle: Duration,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A node has proven who it is.
    Established {
        session: SessionId,
        address: SocketAddr,
        name: NodeId,
    },
    /// It sent something.
    Data {
        session: SessionId,
        address: SocketAddr,
        bytes: Bytes,
    },
    /// Nothing comes over the session any more, and nothing can be sent.
    Ended { session: SessionId, why: Ended },
}

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Handshake(SocketAddr),
    Session(SocketAddr),
}

/// The server.
///
/// After each input drain [`Server::poll_event`] and [`Server::poll_transmit`]; call
/// [`Server::handle_timeout`] when [`Server::poll_timeout`] has come. Time must not go back. Addresses
/// are compared as they are.
#[derive(Debug)]
pub(crate) struct Server {
    limits: Limits,
    cookies: Cookies,
    resolver: Arc<Resolver>,
    configs: Configs,
    trust: Option<Trust>,
    handshakes: Handshakes,
    sessions: Sessions,
    deadlines: Timers<Stage>,
    scratch: Scratch,
    transmits: VecDeque<(SocketAddr, Bytes)>,
    events: VecDeque<Event>,
    metrics: Metrics,
}

impl Server {
    /// A server that believes those who have a key of `keys`, or a certificate that `trust` takes, and
    /// says nothing at all while it can believe nobody.
    ///
    /// # Errors
    /// dimpl can't be used, and says why.
    pub(crate) fn new(
        limits: Limits,
        keys: Keys,
        trust: Option<Trust>,
        mut rng: StdRng,
        metrics: Metrics,
        now: Instant,
    ) -> Result<Self, dimpl::Error> {
        let resolver = Arc::new(Resolver::default());
        resolver.replace(keys);
        Ok(Self {
            limits,
            cookies: Cookies::new(&mut rng, now),
            configs: Configs::new(resolver.clone())?,
            resolver,
            trust,
            handshakes: Handshakes::default(),
            sessions: Sessions::default(),
            deadlines: Timers::default(),
            scratch: Box::new([0; 8192]),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            metrics,
        })
    }

    /// A datagram has come in.
    pub(crate) fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Now) {
        self.metrics.received.inc();
        if from.port() == 0 {
            return self.metrics.dropped(Dropped::PortZero);
        }
        if datagram.len() > MAX_DATAGRAM {
            return self.metrics.dropped(Dropped::TooLarge);
        }
        let Some(records) = records(datagram) else {
            return self.metrics.dropped(Dropped::Malformed);
        };
        match records.first() {
            Some(first) if first.is_client_hello() => {
                self.handle_hello(from, first, datagram, now);
            }
            Some(first) => self.route(from, first, datagram, now),
            None => {}
        }
    }

    /// A session and the handshake that will take its place may be under way from one address
    /// (RFC 6347 section 4.2.8): protected data and alerts are the session's, the rest the
    /// handshake's.
    fn route(&mut self, from: SocketAddr, first: &Record<'_>, datagram: &[u8], now: Now) {
        let protected = first.epoch > 0
            && matches!(
                first.kind,
                ContentType::ApplicationData | ContentType::Alert
            );
        let is_session = self.sessions.get(from).is_some();
        if self.handshakes.contains(from) && !(protected && is_session) {
            self.handle_handshake(from, datagram, now);
        } else if is_session {
            self.handle_session(from, first.kind, datagram, now);
        } else {
            self.metrics.dropped(Dropped::NoSession);
        }
    }

    fn handle_session(&mut self, from: SocketAddr, kind: ContentType, datagram: &[u8], now: Now) {
        let Some(session) = self.sessions.get_mut(from) else {
            return;
        };
        if session.credential.has_ended(now.wall) {
            return self.end(from, Ended::Withdrawn, Some(now.mono));
        }
        let association = &mut session.association;
        let result = association.handle(datagram, &mut self.scratch, now.mono);
        let is_silent = result.as_ref().is_ok_and(Vec::is_empty);
        if is_silent && kind == ContentType::ApplicationData {
            self.metrics.dropped(Dropped::Unreadable);
        }
        self.take_session(from, result, now.mono);
    }

    /// What has come of a call for a session.
    fn take_session(
        &mut self,
        address: SocketAddr,
        result: Result<Vec<Outcome>, Failure>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get(address) else {
            return;
        };
        let (session, deadline) = (session.id, session.association.deadline());
        self.arm(Stage::Session(address), deadline);
        let outcomes = match result {
            Ok(outcomes) => outcomes,
            Err(failure) => return self.end(address, ended(&failure), None),
        };
        for outcome in outcomes {
            match outcome {
                Outcome::Transmit(bytes) => self.transmit(address, bytes),
                Outcome::Data(bytes) => {
                    self.sessions.heard(address, now, self.limits.idle);
                    self.events.push_back(Event::Data {
                        session,
                        address,
                        bytes,
                    });
                }
                Outcome::Closed => return self.end(address, Ended::Closed, Some(now)),
                Outcome::Certificate(_) | Outcome::Connected => {}
            }
        }
    }

    /// Ends a session; with a goodbye when the time is given.
    fn end(&mut self, address: SocketAddr, why: Ended, goodbye: Option<Instant>) {
        let Some(mut session) = self.sessions.remove(address) else {
            return;
        };
        self.deadlines.cancel(&Stage::Session(address));
        if let Some(now) = goodbye
            && let Ok(outcomes) = session.association.close(&mut self.scratch, now)
        {
            for outcome in outcomes {
                if let Outcome::Transmit(bytes) = outcome {
                    self.transmit(address, bytes);
                }
            }
        }
        self.metrics.ended(why);
        self.count();
        let session = session.id;
        self.events.push_back(Event::Ended { session, why });
    }

    /// Sends something over a session. What can't be sent is lost, as any datagram may be.
    pub(crate) fn send(&mut self, session: SessionId, data: &[u8], now: Instant) {
        let Some(address) = self.sessions.address(session) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(address) {
            let result = session.association.send(data, &mut self.scratch, now);
            self.take_session(address, result, now);
        }
    }

    /// Some deadline has come.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        while let Some(stage) = self.deadlines.pop_due(now.mono) {
            match stage {
                Stage::Handshake(address) => self.handle_handshake_timeout(address, now),
                Stage::Session(address) => {
                    if let Some(session) = self.sessions.get_mut(address) {
                        let association = &mut session.association;
                        let result = association.handle_timeout(&mut self.scratch, now.mono);
                        self.take_session(address, result, now.mono);
                    }
                }
            }
        }
        while let Some(address) = self.sessions.pop_idle(now.mono) {
            self.end(address, Ended::Idle, Some(now.mono));
        }
    }

    /// Puts other keys in force. Sessions of keys that are gone or changed end.
    pub(crate) fn handle_keys(&mut self, keys: Keys, now: Now) {
        self.resolver.replace(keys);
        self.withdraw(now);
    }

    /// Puts other certificates and revocations in force. Sessions of nodes that would not be believed
    /// any more end.
    pub(crate) fn handle_trust(&mut self, trust: Trust, now: Now) {
        self.trust = Some(trust);
        self.withdraw(now);
    }

    fn withdraw(&mut self, now: Now) {
        let lost =
            |session: &&sessions::Session| !self.is_good(&session.name, &session.credential, now);
        let lost = self.sessions.iter().filter(lost).map(|session| session.id);
        for id in lost.collect::<Vec<_>>() {
            if let Some(address) = self.sessions.address(id) {
                self.end(address, Ended::Withdrawn, Some(now.mono));
            }
        }
        self.withdraw_handshakes(now);
    }

    /// Whether this credential makes a node believable now.
    fn is_good(&self, name: &NodeId, credential: &Credential, now: Now) -> bool {
        match credential {
            Credential::Key(key) => self.resolver.has(name, key),
            Credential::Certificate(der, _) => {
                let trust = self.trust.as_ref();
                trust.is_some_and(|trust| trust.identify(der, now.wall).is_ok())
            }
        }
    }

    /// Says goodbye to all nodes.
    pub(crate) fn close(&mut self, now: Instant) {
        let all = self.sessions.iter().map(|session| session.id);
        for id in all.collect::<Vec<_>>() {
            if let Some(address) = self.sessions.address(id) {
                self.end(address, Ended::Stopped, Some(now));
            }
        }
    }

    /// The next thing that happened.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next datagram to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.transmits.pop_front()
    }

    /// When [`Server::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let own = [self.deadlines.next(), self.sessions.poll_timeout()];
        own.into_iter().flatten().min()
    }

    fn transmit(&mut self, to: SocketAddr, bytes: Bytes) {
        self.metrics.sent.inc();
        self.transmits.push_back((to, bytes));
    }

    fn arm(&mut self, stage: Stage, deadline: Option<Instant>) {
        match deadline {
            Some(at) => self.deadlines.set(stage, at),
            None => self.deadlines.cancel(&stage),
        }
    }

    fn count(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.sessions.set(gauge(self.sessions.len()));
        self.metrics.handshakes.set(gauge(self.handshakes.len()));
    }
}

fn ended(failure: &Failure) -> Ended {
    match failure {
        Failure::Dtls(dimpl::Error::SecurityError(dimpl::SecurityError::FatalAlert { .. })) => {
            Ended::Alert
        }
        _ => Ended::Protocol,
    }
}
