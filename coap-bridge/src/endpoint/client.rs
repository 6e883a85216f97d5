//! Requests of ours: tokens, blocks, observations, deadlines.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng;

use super::blocks::{Download, DownloadError, Upload, needs_upload};
use super::codec::{Message, Token, Type};
use super::layer::SendId;
use super::message::{Request, Response};
use super::metrics::Dropped;
use super::observe::Observation;
use super::options::number;
use super::remote::Remote;
use super::timers::Timers;
use super::{Endpoint, Event};

/// Names a request of ours, and the observation that it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// Why a request has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No acknowledgement, or no response after it, in time.
    #[error("the node did not answer in time")]
    Timeout,
    /// The peer rejected the message with a Reset.
    #[error("the node rejected the message (Reset)")]
    Reset,
    /// The peer is this endpoint itself.
    #[error("the address is the bridge's own")]
    Looped,
    /// The response has more bytes than are taken.
    #[error("the answer of the node is too large")]
    TooLarge,
    /// The peer's blocks don't make one body.
    #[error("the node's blocks do not fit together")]
    BrokenBlocks,
    /// The response has a critical option that is not known here.
    #[error("the answer of the node has an unknown critical option")]
    BadOption,
    /// Too many requests wait already.
    #[error("too many requests wait already")]
    Busy,
}

impl RequestError {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Looped => "looped",
            Self::TooLarge => "too_large",
            Self::BrokenBlocks => "broken_blocks",
            Self::BadOption => "bad_option",
            Self::Busy => "busy",
        }
    }
}

impl From<DownloadError> for RequestError {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::Broken => Self::BrokenBlocks,
            DownloadError::TooLarge => Self::TooLarge,
        }
    }
}

/// 32 random bits (RFC 7252 section 5.3.1); old firmwares take tokens of this length.
const TOKEN_LENGTH: usize = 4;

/// What the response is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Plain,
    /// It begins or renews an observation.
    Register,
    /// It goes on with a response that has begun an observation.
    Registered,
    /// It goes on with a notification.
    Notified,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) id: RequestId,
    pub(super) peer: Remote,
    pub(super) request: Request,
    pub(super) purpose: Purpose,
    pub(super) deadline: Instant,
    /// The message that waits for its acknowledgement.
    pub(super) send: Option<SendId>,
    pub(super) upload: Option<Upload>,
    pub(super) download: Option<Download>,
    /// What the peer wants to have repeated (RFC 9175 section 2.3).
    pub(super) echo: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    next: u64,
    pings: HashMap<SendId, (RequestId, Remote)>,
    pub(super) requests: HashMap<Token, Outgoing>,
    pub(super) observations: HashMap<Token, Observation>,
    sends: HashMap<SendId, Token>,
    /// What stands under an id: requests, an observation.
    pub(super) tokens: HashMap<RequestId, Vec<Token>>,
    deadlines: Timers<Token>,
    /// When observations are renewed.
    pub(super) renewals: Timers<Token>,
}

/// A request as a message, without mid and type.
pub(super) fn message(request: &Request, token: Token) -> Message {
    Message {
        kind: Type::Non,
        code: request.method.code(),
        mid: 0,
        token,
        options: request.options.clone(),
        payload: request.payload.clone(),
    }
}

/// The length of a request as a datagram.
pub(super) fn encoded_len(request: &Request) -> usize {
    let token = Token::new(&[0; TOKEN_LENGTH]).unwrap_or_default();
    message(request, token).encode().len()
}

impl Client {
    pub(super) fn next_id(&mut self) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        id
    }

    pub(super) fn acknowledged(&mut self, send: SendId) {
        if let Some(outgoing) = self
            .sends
            .remove(&send)
            .and_then(|token| self.requests.get_mut(&token))
        {
            outgoing.send = None;
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.deadlines.next(), self.renewals.next()]
            .into_iter()
            .flatten()
            .min()
    }

    fn is_free(&self, token: &Token) -> bool {
        !self.requests.contains_key(token) && !self.observations.contains_key(token)
    }

    /// Whether we have asked `peer` with this token.
    pub(super) fn has_asked(&self, peer: Remote, token: &Token) -> bool {
        self.requests
            .get(token)
            .is_some_and(|outgoing| outgoing.peer == peer)
    }

    fn insert(&mut self, token: Token, outgoing: Outgoing) {
        self.deadlines.set(token, outgoing.deadline);
        self.note(outgoing.id, token);
        self.requests.insert(token, outgoing);
    }

    pub(super) fn note(&mut self, id: RequestId, token: Token) {
        let tokens = self.tokens.entry(id).or_default();
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }

    pub(super) fn remove(&mut self, token: &Token) -> Option<Outgoing> {
        let outgoing = self.requests.remove(token)?;
        self.deadlines.cancel(token);
        if let Some(send) = outgoing.send {
            self.sends.remove(&send);
        }
        self.tidy(outgoing.id, token);
        Some(outgoing)
    }

    pub(super) fn remove_observation(&mut self, token: &Token) {
        if let Some(observation) = self.observations.remove(token) {
            self.renewals.cancel(token);
            self.tidy(observation.id, token);
        }
    }

    fn tidy(&mut self, id: RequestId, token: &Token) {
        if !self.is_free(token) {
            return;
        }
        if let Some(tokens) = self.tokens.get_mut(&id) {
            tokens.retain(|other| other != token);
            if tokens.is_empty() {
                self.tokens.remove(&id);
            }
        }
    }
}

impl Endpoint {
    /// A random token that is not in use.
    pub(super) fn fresh_token(&mut self) -> Token {
        loop {
            let bytes: [u8; TOKEN_LENGTH] = self.layer.rng().random();
            if let Some(token) = Token::new(&bytes)
                && self.client.is_free(&token)
                && !self.groups.has_asked(&token)
            {
                return token;
            }
        }
    }

    pub(super) fn start_request(
        &mut self,
        to: Remote,
        request: Request,
        observe: bool,
        timeout: Duration,
        now: Instant,
    ) -> Result<RequestId, RequestError> {
        if self.client.requests.len() >= self.limits.max_requests {
            return Err(RequestError::Busy);
        }
        let id = self.client.next_id();
        let szx = self.limits.szx;
        let outgoing = Outgoing {
            id,
            peer: to,
            upload: needs_upload(&request, szx).then(|| Upload::new(szx)),
            request,
            purpose: if observe {
                Purpose::Register
            } else {
                Purpose::Plain
            },
            deadline: now + timeout,
            send: None,
            download: None,
            echo: None,
        };
        let token = self.fresh_token();
        self.send(token, outgoing, now)?;
        Ok(id)
    }

    /// Asks whether there is a CoAP endpoint at an address (RFC 7252 section 4.3). The end comes as
    /// [`Event::Pong`]. Old firmwares don't answer.
    ///
    /// # Errors
    /// [`RequestError::Busy`] when too much waits already.
    pub fn ping(&mut self, to: impl Into<Remote>, now: Instant) -> Result<RequestId, RequestError> {
        let to = to.into();
        let id = self.client.next_id();
        let sent = self.layer.send_con(to, Message::empty(Type::Con, 0), now);
        let send = sent.map_err(|_| RequestError::Busy)?;
        self.client.pings.insert(send, (id, to));
        Ok(id)
    }

    /// A ping has ended; false when `send` is none.
    pub(super) fn handle_pong(&mut self, send: SendId, alive: bool) -> bool {
        let Some((id, peer)) = self.client.pings.remove(&send) else {
            return false;
        };
        self.events.push_back(Event::Pong { id, peer, alive });
        true
    }

    /// Ends a request or an observation; nothing is heard of it any more. The peer of an observation
    /// is told once with a GET, and with a Reset if it still notifies (RFC 7641 section 3.6).
    pub fn cancel(&mut self, id: RequestId, now: Instant) {
        for token in self.client.tokens.remove(&id).unwrap_or_default() {
            self.client.renewals.cancel(&token);
            if let Some(observation) = self.client.observations.remove(&token) {
                let mut message = message(&observation.request, token);
                message.options.set_uint(number::OBSERVE, 1);
                self.layer.send_non(observation.peer, message, now);
            }
            if let Some(outgoing) = self.client.remove(&token)
                && let Some(send) = outgoing.send
            {
                self.layer.cancel(outgoing.peer, send, now);
            }
        }
    }

    /// Sends the next message of a request and keeps it under `token`.
    pub(super) fn send(
        &mut self,
        token: Token,
        mut outgoing: Outgoing,
        now: Instant,
    ) -> Result<(), RequestError> {
        self.send_message(token, &mut outgoing, now)?;
        self.client.insert(token, outgoing);
        Ok(())
    }

    fn send_message(
        &mut self,
        token: Token,
        outgoing: &mut Outgoing,
        now: Instant,
    ) -> Result<(), RequestError> {
        let mut message = message(&outgoing.request, token);
        if outgoing.purpose == Purpose::Register {
            message.options.set_uint(number::OBSERVE, 0);
        }
        if let Some(echo) = &outgoing.echo {
            message.options.remove(number::ECHO);
            message.options.add(number::ECHO, echo.as_slice());
        }
        if let Some(download) = &outgoing.download {
            download.write(&mut message.options);
            message.payload = Bytes::new();
        } else if let Some(upload) = &outgoing.upload {
            message.payload = upload.write(&outgoing.request.payload, &mut message.options);
        }
        if outgoing.request.confirmable {
            let sent = self.layer.send_con(outgoing.peer, message, now);
            let send = sent.map_err(|_| RequestError::Busy)?;
            outgoing.send = Some(send);
            self.client.sends.insert(send, token);
        } else {
            self.layer.send_non(outgoing.peer, message, now);
        }
        Ok(())
    }

    /// Sends the next message of a request, under a new token so that late answers to the last
    /// message can't be taken for answers to this one.
    pub(super) fn send_next(&mut self, outgoing: Outgoing, now: Instant) {
        let token = self.fresh_token();
        self.send_next_as(token, outgoing, now);
    }

    pub(super) fn send_next_as(&mut self, token: Token, mut outgoing: Outgoing, now: Instant) {
        match self.send_message(token, &mut outgoing, now) {
            Ok(()) => self.client.insert(token, outgoing),
            Err(error) => self.end(&outgoing, Err(error)),
        }
    }

    pub(super) fn handle_failed_send(&mut self, send: SendId, error: RequestError, now: Instant) {
        if let Some(token) = self.client.sends.remove(&send) {
            self.fail(token, error, now);
        } else {
            self.handle_failed_notification(send);
        }
    }

    /// A request of ours came back to us: the address is our own.
    pub(super) fn handle_loop(&mut self, token: Token, now: Instant) {
        self.layer.metrics.dropped(Dropped::Looped);
        self.fail(token, RequestError::Looped, now);
    }

    pub(super) fn handle_client_timeout(&mut self, now: Instant) {
        while let Some(token) = self.client.deadlines.pop_due(now) {
            self.fail(token, RequestError::Timeout, now);
        }
        while let Some(token) = self.client.renewals.pop_due(now) {
            self.renew_stale(token, now);
        }
    }

    fn fail(&mut self, token: Token, error: RequestError, now: Instant) {
        let Some(mut outgoing) = self.client.remove(&token) else {
            return;
        };
        if let Some(send) = outgoing.send.take() {
            self.layer.cancel(outgoing.peer, send, now);
        }
        // A renewal that fails leaves an observation that the peer knows nothing of.
        if outgoing.purpose == Purpose::Register {
            self.client.remove_observation(&token);
        }
        self.end(&outgoing, Err(error));
    }

    pub(super) fn end(&mut self, outgoing: &Outgoing, result: Result<Response, RequestError>) {
        let (id, peer) = (outgoing.id, outgoing.peer);
        if let Err(error) = result {
            self.layer.metrics.failed(error.label());
        }
        if outgoing.purpose != Purpose::Notified {
            let mut tokens = self.client.tokens.get(&id).into_iter().flatten();
            let observed = tokens.any(|token| self.client.observations.contains_key(token));
            self.events.push_back(Event::Response {
                id,
                peer,
                result,
                observed,
            });
            return;
        }
        match result {
            Ok(response) if response.code.is_success() => {
                self.events.push_back(Event::Notification {
                    id,
                    peer,
                    last: false,
                    response,
                });
            }
            // The rest of a notification's body could not be had. That is no notification, and ends
            // nothing; a newer one comes, or the observation is renewed.
            Ok(_) => self
                .layer
                .metrics
                .failed(RequestError::BrokenBlocks.label()),
            Err(_) => {}
        }
    }
}
