//! Requests of ours: tokens, blocks, observations, deadlines.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng;

use super::blocks::{Download, DownloadError, Progress, Upload, needs_upload};
use super::codec::{Message, Token, Type};
use super::layer::SendId;
use super::message::{Request, Response};
use super::metrics::Dropped;
use super::observe::{self, Observation};
use super::options::number;
use super::parameters::MAX_TRANSMIT_WAIT;
use super::server::has_unknown_critical_option;
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
    const fn label(self) -> &'static str {
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
enum Purpose {
    Plain,
    /// It begins or renews an observation.
    Register,
    /// It goes on with a response that has begun an observation.
    Registered,
    /// It goes on with a notification.
    Notified,
}

#[derive(Debug)]
struct Outgoing {
    id: RequestId,
    peer: SocketAddr,
    request: Request,
    purpose: Purpose,
    deadline: Instant,
    /// The message that waits for its acknowledgement.
    send: Option<SendId>,
    upload: Option<Upload>,
    download: Option<Download>,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    next: u64,
    requests: HashMap<Token, Outgoing>,
    observations: HashMap<Token, Observation>,
    sends: HashMap<SendId, Token>,
    /// What stands under an id: requests, an observation.
    tokens: HashMap<RequestId, Vec<Token>>,
    deadlines: Timers<Token>,
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
        self.deadlines.next()
    }

    fn is_free(&self, token: &Token) -> bool {
        !self.requests.contains_key(token) && !self.observations.contains_key(token)
    }

    /// Whether we have asked `peer` with this token.
    pub(super) fn has_asked(&self, peer: SocketAddr, token: &Token) -> bool {
        self.requests
            .get(token)
            .is_some_and(|outgoing| outgoing.peer == peer)
    }

    fn insert(&mut self, token: Token, outgoing: Outgoing) {
        self.deadlines.set(token, outgoing.deadline);
        self.note(outgoing.id, token);
        self.requests.insert(token, outgoing);
    }

    fn note(&mut self, id: RequestId, token: Token) {
        let tokens = self.tokens.entry(id).or_default();
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }

    fn remove(&mut self, token: &Token) -> Option<Outgoing> {
        let outgoing = self.requests.remove(token)?;
        self.deadlines.cancel(token);
        if let Some(send) = outgoing.send {
            self.sends.remove(&send);
        }
        self.tidy(outgoing.id, token);
        Some(outgoing)
    }

    fn remove_observation(&mut self, token: &Token) {
        if let Some(observation) = self.observations.remove(token) {
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
            {
                return token;
            }
        }
    }

    pub(super) fn start_request(
        &mut self,
        to: SocketAddr,
        request: Request,
        observe: bool,
        timeout: Duration,
        now: Instant,
    ) -> Result<RequestId, RequestError> {
        if self.client.requests.len() >= self.limits.max_requests {
            return Err(RequestError::Busy);
        }
        let id = RequestId(self.client.next);
        self.client.next += 1;
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
        };
        let token = self.fresh_token();
        self.send(token, outgoing, now)
            .map_err(|(error, _)| error)?;
        Ok(id)
    }

    /// Asks anew what is observed, under the same token (RFC 7641 section 3.3.1), so that the peer
    /// keeps the observation or learns of it again. Ends as [`Endpoint::observe`] does.
    ///
    /// # Errors
    /// [`RequestError::Busy`] when too much waits already, or when nothing is observed under `id`.
    pub fn renew(
        &mut self,
        id: RequestId,
        timeout: Duration,
        now: Instant,
    ) -> Result<(), RequestError> {
        let tokens = self.client.tokens.get(&id).into_iter().flatten();
        let found = tokens
            .copied()
            .find_map(|token| Some((token, self.client.observations.get(&token)?)));
        let (token, observation) = found.ok_or(RequestError::Busy)?;
        if self.client.requests.contains_key(&token) {
            return Err(RequestError::Busy);
        }
        let outgoing = Outgoing {
            id,
            peer: observation.peer,
            request: observation.request.clone(),
            purpose: Purpose::Register,
            deadline: now + timeout,
            send: None,
            upload: None,
            download: None,
        };
        self.send(token, outgoing, now).map_err(|(error, _)| error)
    }

    /// Ends a request or an observation; nothing is heard of it any more. A peer that still notifies
    /// is told with a Reset (RFC 7641 section 3.6).
    pub fn cancel(&mut self, id: RequestId, now: Instant) {
        for token in self.client.tokens.remove(&id).unwrap_or_default() {
            self.client.observations.remove(&token);
            if let Some(outgoing) = self.client.remove(&token)
                && let Some(send) = outgoing.send
            {
                self.layer.cancel(outgoing.peer, send, now);
            }
        }
    }

    /// Sends the next message of a request and keeps it under `token`.
    fn send(
        &mut self,
        token: Token,
        mut outgoing: Outgoing,
        now: Instant,
    ) -> Result<(), (RequestError, Outgoing)> {
        let mut message = message(&outgoing.request, token);
        if outgoing.purpose == Purpose::Register {
            message.options.set_uint(number::OBSERVE, 0);
        }
        if let Some(download) = &outgoing.download {
            download.write(&mut message.options);
            message.payload = Bytes::new();
        } else if let Some(upload) = &outgoing.upload {
            message.payload = upload.write(&outgoing.request.payload, &mut message.options);
        }
        if outgoing.request.confirmable {
            match self.layer.send_con(outgoing.peer, message, now) {
                Ok(send) => {
                    outgoing.send = Some(send);
                    self.client.sends.insert(send, token);
                }
                Err(_) => return Err((RequestError::Busy, outgoing)),
            }
        } else {
            self.layer.send_non(outgoing.peer, message, now);
        }
        self.client.insert(token, outgoing);
        Ok(())
    }

    /// Sends the next message of a request, under a new token so that late answers to the last
    /// message can't be taken for answers to this one.
    fn send_next(&mut self, outgoing: Outgoing, now: Instant) {
        let token = self.fresh_token();
        if let Err((error, outgoing)) = self.send(token, outgoing, now) {
            self.end(&outgoing, Err(error));
        }
    }

    pub(super) fn handle_response(
        &mut self,
        from: SocketAddr,
        message: Message,
        send: Option<SendId>,
        now: Instant,
    ) {
        if let Some(send) = send {
            self.client.acknowledged(send);
        }
        let Message {
            kind,
            code,
            mid,
            token,
            options,
            payload,
        } = message;
        let response = Response {
            code,
            options,
            payload,
        };
        let asked = self.client.has_asked(from, &token);
        let observed = self.client.observations.get(&token);
        let known = asked || observed.is_some_and(|observation| observation.peer == from);
        let bad_option = has_unknown_critical_option(&response.options);
        match (kind, known && !bad_option) {
            (Type::Con, true) => self.layer.acknowledge(from, mid),
            (Type::Con, false) => self.layer.reset(from, mid),
            // A Reset ends an observation that is not ours any more.
            (Type::Non, false) if observe::sequence(&response).is_some() => {
                self.layer.reset(from, mid);
            }
            _ => {}
        }
        if !known {
            self.layer.metrics.dropped(Dropped::Unmatched);
        } else if !asked {
            self.handle_notification(token, response, bad_option, now);
        } else if let Some(mut outgoing) = self.client.remove(&token) {
            if let Some(send) = outgoing.send.take() {
                // The response came before the acknowledgement, and is one (section 5.2.2).
                self.layer.cancel(from, send, now);
            }
            if bad_option {
                self.layer.metrics.dropped(Dropped::CriticalOption);
                self.end(&outgoing, Err(RequestError::BadOption));
            } else {
                self.take_response(token, outgoing, response, now);
            }
        }
    }

    fn take_response(
        &mut self,
        token: Token,
        mut outgoing: Outgoing,
        response: Response,
        now: Instant,
    ) {
        if outgoing.purpose == Purpose::Register {
            self.note_registration(token, &outgoing, &response, now);
        }
        let len = outgoing.request.payload.len();
        if outgoing.download.is_none() {
            let upload = &mut outgoing.upload;
            match upload.as_mut().map(|upload| upload.handle(&response, len)) {
                Some(Progress::Continue) => return self.send_next(outgoing, now),
                Some(Progress::Broken) => {
                    return self.end(&outgoing, Err(RequestError::BrokenBlocks));
                }
                Some(Progress::Done) => {}
                None => {
                    *upload = Upload::after_refusal(&response, len);
                    if upload.is_some() {
                        return self.send_next(outgoing, now);
                    }
                }
            }
        }
        let max = self.limits.max_body;
        let whole = match &mut outgoing.download {
            Some(download) => download.handle(&response, max),
            None => Download::begin(&response, max).map(|download| {
                outgoing.download = download;
                outgoing.download.is_none().then_some(response)
            }),
        };
        match whole {
            Ok(Some(whole)) if whole.payload.len() > max => {
                self.end(&outgoing, Err(RequestError::TooLarge));
            }
            Ok(Some(whole)) => self.end(&outgoing, Ok(whole)),
            Ok(None) => {
                if outgoing.purpose == Purpose::Register {
                    outgoing.purpose = Purpose::Registered;
                }
                self.send_next(outgoing, now);
            }
            Err(error) => self.end(&outgoing, Err(error.into())),
        }
    }

    /// The peer has taken the registration, or it has not (RFC 7641 section 3.1).
    fn note_registration(
        &mut self,
        token: Token,
        outgoing: &Outgoing,
        response: &Response,
        now: Instant,
    ) {
        match observe::sequence(response).filter(|_| response.code.is_success()) {
            Some(sequence) => {
                let Outgoing {
                    id, peer, request, ..
                } = outgoing;
                let observation = Observation::new(*id, *peer, request.clone(), sequence, now);
                self.client.observations.insert(token, observation);
                self.client.note(*id, token);
            }
            None => self.client.remove_observation(&token),
        }
    }

    fn handle_notification(
        &mut self,
        token: Token,
        response: Response,
        bad_option: bool,
        now: Instant,
    ) {
        let Some(observation) = self.client.observations.get_mut(&token) else {
            return;
        };
        let (id, peer) = (observation.id, observation.peer);
        let sequence = observe::sequence(&response).filter(|_| response.code.is_success());
        let Some(sequence) = sequence.filter(|_| !bad_option) else {
            // Section 4.2: an error, or a response that is no notification, ends the observation.
            self.client.remove_observation(&token);
            self.events.push_back(Event::Notification {
                id,
                peer,
                response,
                last: true,
            });
            return;
        };
        if !observation.is_fresh(sequence, now) {
            return;
        }
        let request = observation.request.clone();
        match Download::begin(&response, self.limits.max_body) {
            Ok(None) => self.events.push_back(Event::Notification {
                id,
                peer,
                response,
                last: false,
            }),
            Ok(download) => {
                let outgoing = Outgoing {
                    id,
                    peer,
                    request,
                    purpose: Purpose::Notified,
                    deadline: now + MAX_TRANSMIT_WAIT,
                    send: None,
                    upload: None,
                    download,
                };
                self.send_next(outgoing, now);
            }
            Err(error) => self.layer.metrics.failed(RequestError::from(error).label()),
        }
    }

    pub(super) fn handle_failed_send(&mut self, send: SendId, error: RequestError, now: Instant) {
        if let Some(token) = self.client.sends.remove(&send) {
            self.fail(token, error, now);
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

    fn end(&mut self, outgoing: &Outgoing, result: Result<Response, RequestError>) {
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
        } else if let Ok(response) = result {
            self.events.push_back(Event::Notification {
                id,
                peer,
                last: !response.code.is_success(),
                response,
            });
        }
    }
}
