//! A peer made of messages, for what our own endpoint does not do: Block1 and Observe as a server.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::endpoint::codec::{Message, Token, Type};
use crate::endpoint::{Endpoint, Event, Limits, Method, Request, Response};

pub(super) struct Peer {
    pub(super) endpoint: Endpoint,
    pub(super) addr: SocketAddr,
    pub(super) now: Instant,
    /// Of the last request.
    pub(super) token: Vec<u8>,
    /// How many Resets came.
    pub(super) reset: u32,
    mid: u16,
}

impl Peer {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            endpoint: Endpoint::new(limits, StdRng::seed_from_u64(3)),
            addr: "10.0.0.9:5683".parse().unwrap(),
            now: bus::time::now().mono,
            token: Vec::new(),
            reset: 0,
            mid: 0,
        }
    }

    fn send(&mut self, message: &Message) {
        self.endpoint
            .handle_datagram(self.addr, &message.encode(), self.now);
    }

    /// Answers a request with `serve`.
    pub(super) fn answer(&mut self, request: &[u8], serve: impl FnOnce(&Request) -> Response) {
        let asked = Message::decode(request).unwrap();
        self.token = asked.token.as_bytes().to_vec();
        let response = serve(&Request {
            method: Method::from_code(asked.code).unwrap(),
            confirmable: asked.kind == Type::Con,
            options: asked.options,
            payload: asked.payload,
        });
        self.send(&Message {
            kind: Type::Ack,
            code: response.code,
            mid: asked.mid,
            token: asked.token,
            options: response.options,
            payload: response.payload,
        });
    }

    /// Answers every request with `serve` until an event comes.
    #[track_caller]
    pub(super) fn event(&mut self, mut serve: impl FnMut(&Request) -> Response) -> Event {
        while let Some(request) = self.asked() {
            self.answer(&request, &mut serve);
        }
        self.endpoint.poll_event().unwrap()
    }

    /// Sends a Confirmable notification.
    pub(super) fn notify(&mut self, token: &[u8], response: &Response) {
        self.mid += 1;
        self.send(&Message {
            kind: Type::Con,
            code: response.code,
            mid: self.mid,
            token: Token::new(token).unwrap(),
            options: response.options.clone(),
            payload: response.payload.clone(),
        });
    }

    /// The next request; Resets that come before it are counted.
    pub(super) fn asked(&mut self) -> Option<Bytes> {
        loop {
            let bytes = self.endpoint.poll_transmit()?.bytes;
            let message = Message::decode(&bytes).unwrap();
            self.reset += u32::from(message.kind == Type::Rst);
            if message.kind == Type::Con {
                return Some(bytes);
            }
        }
    }
}
