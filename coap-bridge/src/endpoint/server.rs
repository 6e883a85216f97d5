//! Requests of peers: what is answered here, what goes up, and how the response goes back.

use std::collections::HashMap;
use std::time::Instant;

use super::blocks;
use super::code::{Code, Method};
use super::codec::{Message, Token, Type};
use super::message::{Request, Response};
use super::metrics::Dropped;
use super::options::{Block, Options, number};
use super::parameters::{EMPTY_ACK_DELAY, EXCHANGE_LIFETIME};
use super::remote::Remote;
use super::timers::Timers;
use super::{Endpoint, Event};

/// Names a request of a peer until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(u64);

/// What an answer needs of the request.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    peer: Remote,
    kind: Type,
    mid: u16,
    token: Token,
    /// The empty acknowledgement is out: the response goes separately.
    acknowledged: bool,
    block1: Option<Block>,
    block2: Option<Block>,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    next: u64,
    exchanges: HashMap<ExchangeId, Exchange>,
    deadlines: Timers<ExchangeId>,
}

impl Server {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }
}

/// A peer that is told 5.03 should try again after so many seconds.
const BUSY_MAX_AGE: u32 = 5;

/// Whether a message has a critical option that this endpoint does not know (RFC 7252 section 5.4.1).
pub(super) fn has_unknown_critical_option(options: &Options) -> bool {
    options.iter().any(|(option, _)| {
        option & 1 == 1
            && !matches!(
                option,
                number::URI_HOST
                    | number::URI_PORT
                    | number::URI_PATH
                    | number::URI_QUERY
                    | number::ACCEPT
                    | number::BLOCK1
                    | number::BLOCK2
                    | number::PROXY_URI
                    | number::PROXY_SCHEME
            )
    })
}

/// A refusal with a diagnostic text (RFC 7252 section 5.5.2).
fn refusal(code: Code, text: &'static str) -> Response {
    Response::new(code).with_payload(text)
}

impl Endpoint {
    pub(super) fn handle_request(&mut self, from: Remote, message: Message, now: Instant) {
        if self.client.has_asked(from, &message.token) {
            return self.handle_loop(message.token, now);
        }
        let mut exchange = Exchange {
            peer: from,
            kind: message.kind,
            mid: message.mid,
            token: message.token,
            acknowledged: false,
            block1: None,
            block2: None,
        };
        let request = match self.check(&message, &mut exchange) {
            Ok(request) => request,
            Err(Some(response)) => return self.send_response(exchange, response, now),
            Err(None) => return,
        };
        if self.server.exchanges.len() >= self.limits.max_exchanges {
            self.layer.metrics.dropped(Dropped::Overload);
            let busy = Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(BUSY_MAX_AGE);
            return self.send_response(exchange, busy, now);
        }
        let id = ExchangeId(self.server.next);
        self.server.next += 1;
        self.server.exchanges.insert(id, exchange);
        let patience = match exchange.kind {
            Type::Con => EMPTY_ACK_DELAY,
            _ => EXCHANGE_LIFETIME,
        };
        self.server.deadlines.set(id, now + patience);
        self.events.push_back(Event::Request {
            exchange: id,
            peer: from,
            request,
        });
    }

    /// Reads a request, or says what is wrong with it, if that may be said.
    fn check(
        &self,
        message: &Message,
        exchange: &mut Exchange,
    ) -> Result<Request, Option<Response>> {
        let options = &message.options;
        let Some(method) = Method::from_code(message.code) else {
            return Err(Some(refusal(Code::METHOD_NOT_ALLOWED, "unknown method")));
        };
        if has_unknown_critical_option(options) {
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
        match exchange.block1 {
            // Large requests are not put together here (RFC 7959 sections 2.9.2 and 2.9.3).
            Some(block) if block.num > 0 => {
                return Err(Some(Response::new(Code::REQUEST_ENTITY_INCOMPLETE)));
            }
            Some(block) if block.more => {
                return Err(Some(Response::new(Code::REQUEST_ENTITY_TOO_LARGE)));
            }
            _ => {}
        }
        Ok(Request {
            method,
            confirmable: message.kind == Type::Con,
            options: options.clone(),
            payload: message.payload.clone(),
        })
    }

    /// Answers a peer. A response that is too long for one message goes out block by block: the peer
    /// asks again for each, and is to be answered with the whole each time. An exchange that has
    /// ended is ignored.
    pub fn respond(&mut self, exchange: ExchangeId, response: Response, now: Instant) {
        if let Some(open) = self.server.exchanges.remove(&exchange) {
            self.server.deadlines.cancel(&exchange);
            self.send_response(open, response, now);
        }
    }

    /// Leaves a Non-confirmable request without an answer.
    pub fn ignore(&mut self, exchange: ExchangeId) {
        if self.server.exchanges.remove(&exchange).is_some() {
            self.server.deadlines.cancel(&exchange);
        }
    }

    fn send_response(&mut self, exchange: Exchange, response: Response, now: Instant) {
        let Exchange {
            peer, mid, token, ..
        } = exchange;
        let mut response = blocks::cut(response, exchange.block2, self.limits.szx);
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
        if exchange.kind != Type::Con {
            self.layer.send_non(peer, message, now);
        } else if !exchange.acknowledged {
            self.layer.piggyback(peer, mid, message);
        } else if self.layer.send_con(peer, message, now).is_err() {
            self.layer.metrics.dropped(Dropped::Overload);
        }
    }

    pub(super) fn handle_server_timeout(&mut self, now: Instant) {
        while let Some(id) = self.server.deadlines.pop_due(now) {
            let Some(exchange) = self.server.exchanges.get_mut(&id) else {
                continue;
            };
            if exchange.kind == Type::Con && !exchange.acknowledged {
                exchange.acknowledged = true;
                let (peer, mid) = (exchange.peer, exchange.mid);
                self.layer.acknowledge(peer, mid);
                self.server.deadlines.set(id, now + EXCHANGE_LIFETIME);
            } else {
                // Nobody has answered it, and the peer has stopped waiting.
                self.server.exchanges.remove(&id);
            }
        }
    }
}
