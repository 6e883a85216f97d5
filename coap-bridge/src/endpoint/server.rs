//! Requests of peers: what is answered here, what goes up, and how the response goes back.

use std::time::Instant;

use super::blocks;
use super::code::{Code, Method};
use super::codec::{Message, Token, Type};
use super::exchanges::{ExchangeId, Exchanges};
use super::message::{Request, Response};
use super::metrics::Dropped;
use super::observers::ObserverId;
use super::options::{Block, block_size, number};
use super::parameters::{EMPTY_ACK_DELAY, EXCHANGE_LIFETIME};
use super::remote::Remote;
use super::transfers::{Key, Taken, Transfers};
use super::{Endpoint, Event};

/// How a request has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// The length of the datagram.
    len: usize,
    /// It was sent to a group.
    multicast: bool,
}

impl Arrival {
    pub(super) fn new(datagram: &[u8], multicast: bool) -> Self {
        let len = datagram.len();
        Self { len, multicast }
    }
}

/// What an answer needs of the request.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    peer: Remote,
    kind: Type,
    mid: u16,
    token: Token,
    arrival: Arrival,
    /// What its blocks have in common.
    key: Key,
    /// Asking again does no harm.
    safe: bool,
    /// The empty acknowledgement is out: the response goes separately.
    acknowledged: bool,
    block1: Option<Block>,
    block2: Option<Block>,
    /// It wants to be notified.
    observe: bool,
}

#[derive(Debug)]
pub(super) struct Server {
    exchanges: Exchanges<Exchange>,
    pub(super) transfers: Transfers,
    /// Goes into the keys of transfers.
    salt: u64,
}

impl Server {
    pub(super) fn new(salt: u64) -> Self {
        Self {
            exchanges: Exchanges::new(EMPTY_ACK_DELAY, EXCHANGE_LIFETIME),
            transfers: Transfers::default(),
            salt,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.exchanges.poll_timeout(), self.transfers.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// A peer that is told 5.03 should try again after so many seconds.
const BUSY_MAX_AGE: u32 = 5;

/// A refusal with a diagnostic text (RFC 7252 section 5.5.2).
fn refusal(code: Code, text: &'static str) -> Response {
    Response::new(code).with_payload(text)
}

impl Endpoint {
    pub(super) fn handle_request(
        &mut self,
        from: Remote,
        message: Message,
        arrival: Arrival,
        now: Instant,
    ) {
        if self.client.has_asked(from, &message.token) {
            return self.handle_loop(message.token, now);
        }
        if self.groups.has_asked(&message.token) {
            // Our own question to a group, of which we are a member.
            return self.layer.metrics.dropped(Dropped::Looped);
        }
        let mut exchange = Exchange {
            peer: from,
            kind: message.kind,
            mid: message.mid,
            token: message.token,
            arrival,
            key: Key::new(self.server.salt, from, &message),
            safe: Method::from_code(message.code).is_none_or(Method::is_safe),
            acknowledged: false,
            block1: None,
            block2: None,
            observe: false,
        };
        let request = match self.read_request(message, &mut exchange, now) {
            Ok(request) => request,
            Err(Some(response)) => return self.send_response(exchange, response, now),
            Err(None) => return,
        };
        if self.server.exchanges.len() >= self.limits.max_exchanges {
            self.layer.metrics.dropped(Dropped::Overload);
            let busy = Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(BUSY_MAX_AGE);
            return self.send_response(exchange, busy, now);
        }
        let is_con = exchange.kind == Type::Con;
        let id = self.server.exchanges.insert(exchange, is_con, now);
        self.events.push_back(Event::Request {
            exchange: id,
            peer: from,
            request,
            multicast: arrival.multicast,
        });
    }

    /// Reads a request; or gives the answer that needs nobody else, if there is to be one.
    fn read_request(
        &mut self,
        message: Message,
        exchange: &mut Exchange,
        now: Instant,
    ) -> Result<Request, Option<Response>> {
        let options = &message.options;
        let Some(method) = Method::from_code(message.code) else {
            return Err(Some(refusal(Code::METHOD_NOT_ALLOWED, "unknown method")));
        };
        if options.has_bad_critical() {
            self.layer.metrics.dropped(Dropped::CriticalOption);
            let response = refusal(Code::BAD_OPTION, "unknown critical option");
            return Err((message.kind == Type::Con).then_some(response));
        }
        let proxy = [number::PROXY_URI, number::PROXY_SCHEME];
        if proxy.iter().any(|option| options.first(*option).is_some()) {
            return Err(Some(Response::new(Code::PROXYING_NOT_SUPPORTED)));
        }
        let block = |number| {
            Block::read(options, number)
                .map_err(|_| Some(refusal(Code::BAD_REQUEST, "invalid block option")))
        };
        exchange.block2 = block(number::BLOCK2)?;
        exchange.block1 = block(number::BLOCK1)?;
        if let Some(echo) = options.first(number::ECHO) {
            self.layer.handle_echo(exchange.peer, echo);
        }
        if exchange.safe {
            match options.uint(number::OBSERVE) {
                Some(0) if exchange.arrival.multicast => {}
                // One registration is answered with many notifications (RFC 7641 section 7).
                Some(0) if !self.trusts(exchange.peer) => {
                    return Err(Some(self.echo_request(exchange.peer, now)));
                }
                Some(0) => exchange.observe = true,
                Some(1) => self.handle_deregistration(exchange.peer, exchange.token),
                _ => {}
            }
        } else if exchange.block2.is_some_and(|block| block.num > 0) {
            // The rest of an answer that was given: nothing is done again for it.
            let kept = self.server.transfers.answer(exchange.key, now);
            let lost = || Response::new(Code::REQUEST_ENTITY_INCOMPLETE);
            return Err(Some(kept.unwrap_or_else(lost)));
        }
        let payload = self.take_block(&message, exchange, now)?;
        let mut options = message.options;
        options.remove(number::BLOCK1);
        Ok(Request {
            method,
            confirmable: message.kind == Type::Con,
            options,
            payload,
        })
    }

    /// The payload of a request; or the answer to a block of it, when more are to come.
    fn take_block(
        &mut self,
        message: &Message,
        exchange: &mut Exchange,
        now: Instant,
    ) -> Result<bytes::Bytes, Option<Response>> {
        let Some(block) = exchange.block1 else {
            return Ok(message.payload.clone());
        };
        let (key, peer, max) = (exchange.key, exchange.peer, self.limits.max_body);
        let taken = self
            .server
            .transfers
            .take(key, peer, block, message, max, now);
        // Smaller blocks, if they are to be smaller, from the first answer on (RFC 7959 section 2.3).
        let szx = block.szx.min(self.limits.szx);
        exchange.block1 = Some(Block { szx, ..block });
        match taken {
            Taken::Whole(payload) => Ok(payload),
            Taken::Answer(answer) => Err(Some(answer)),
        }
    }

    /// Answers a peer. A response that is too long for one message goes out block by block. To GET
    /// and FETCH, the peer asks again for each block, and is to be answered with the whole each time;
    /// to other methods the endpoint keeps the rest. An exchange that has ended is ignored.
    pub fn respond(&mut self, exchange: ExchangeId, response: Response, now: Instant) {
        if let Some(open) = self.take_exchange(exchange) {
            self.send_response(open, response, now);
        }
    }

    /// As [`Endpoint::respond`]; and if the peer has asked to be notified of changes (RFC 7641) and
    /// the response is a success, it is from now on with [`Endpoint::notify`], until
    /// [`Event::ObserverLeft`]. None when it is not: the peer did not ask for it, or there are too
    /// many observers.
    pub fn respond_observed(
        &mut self,
        exchange: ExchangeId,
        mut response: Response,
        now: Instant,
    ) -> Option<ObserverId> {
        let open = self.take_exchange(exchange)?;
        let first = open.block2.is_none_or(|block| block.num == 0);
        let mut observer = None;
        if open.observe && first && response.code.is_success() {
            // A peer that asks under the same token again has renewed or replaced its observation.
            self.handle_deregistration(open.peer, open.token);
            let observers = &mut self.observers;
            observer = observers.register(open.peer, open.token, open.block2, now);
            if observer.is_some() {
                response.options.set_uint(number::OBSERVE, 0);
            }
        }
        self.send_response(open, response, now);
        observer
    }

    /// Leaves a Non-confirmable request without an answer.
    pub fn ignore(&mut self, exchange: ExchangeId) {
        self.take_exchange(exchange);
    }

    fn take_exchange(&mut self, exchange: ExchangeId) -> Option<Exchange> {
        self.server.exchanges.remove(exchange)
    }

    fn send_response(&mut self, exchange: Exchange, response: Response, now: Instant) {
        let Exchange {
            peer, mid, token, ..
        } = exchange;
        let wanted = exchange.block2;
        let long = response.payload.len() > block_size(0);
        let whole = (long && !exchange.safe).then(|| response.clone());
        let mut response = blocks::cut(response, wanted, self.limits.szx);
        if let Some(whole) = whole.filter(|whole| whole.payload.len() > response.payload.len()) {
            let transfers = &mut self.server.transfers;
            transfers.keep(exchange.key, peer, whole, now);
        }
        if let Some(block) = exchange.block1 {
            block.write(&mut response.options, number::BLOCK1);
        }
        let message = Message {
            kind: exchange.kind,
            code: response.code,
            mid: 0,
            token,
            options: response.options,
            payload: response.payload,
        };
        let Some(message) = self.within_bounds(&exchange, message, now) else {
            return self.layer.metrics.dropped(Dropped::Unverified);
        };
        if exchange.arrival.multicast {
            if message.code.is_success() {
                self.send_at_leisure(peer, message, now);
            } else {
                self.layer.metrics.dropped(Dropped::Multicast);
            }
        } else if exchange.kind != Type::Con {
            self.layer.send_non(peer, message, now);
        } else if !exchange.acknowledged {
            self.layer.piggyback(peer, mid, message);
        } else if self.layer.send_con(peer, message, now).is_err() {
            self.layer.metrics.dropped(Dropped::Overload);
        }
    }

    /// Whether a peer may get any answer.
    fn trusts(&self, peer: Remote) -> bool {
        self.limits.amplification.is_none() || self.layer.is_verified(peer)
    }

    /// Asks the peer to show that its address is its own (RFC 9175 section 2.4).
    fn echo_request(&mut self, peer: Remote, now: Instant) -> Response {
        let mut response = Response::new(Code::UNAUTHORIZED);
        response
            .options
            .add(number::ECHO, self.layer.echo(peer, now));
        response
    }

    /// What may be sent to an address that may be forged: the answer, or a shorter one, or none
    /// ([`super::Limits::amplification`]).
    fn within_bounds(
        &mut self,
        exchange: &Exchange,
        message: Message,
        now: Instant,
    ) -> Option<Message> {
        let (peer, Arrival { len, multicast }) = (exchange.peer, exchange.arrival);
        let factor = self.limits.amplification.unwrap_or(usize::MAX);
        let allowed = len.saturating_mul(factor);
        let fits =
            |message: &Message| message.max_len() <= allowed || message.encode().len() <= allowed;
        if fits(&message) || self.trusts(peer) {
            return Some(message);
        }
        let mut short = Message::empty(message.kind, 0);
        short.token = message.token;
        if multicast {
            return None;
        }
        if exchange.safe && message.code.is_success() {
            let Response { code, options, .. } = self.echo_request(peer, now);
            (short.code, short.options) = (code, options);
        } else {
            short.code = message.code;
            for option in [number::BLOCK1, number::MAX_AGE, number::LOCATION_PATH] {
                for value in message.options.all(option) {
                    short.options.add(option, value);
                }
            }
        }
        fits(&short).then_some(short)
    }

    pub(super) fn handle_server_timeout(&mut self, now: Instant) {
        self.server.transfers.handle_timeout(now);
        while let Some(exchange) = self.server.exchanges.pop_soon(now) {
            exchange.acknowledged = true;
            self.layer.acknowledge(exchange.peer, exchange.mid);
        }
        // Nobody has answered these, and the peer has stopped waiting.
        while self.server.exchanges.pop_late(now).is_some() {}
    }
}
