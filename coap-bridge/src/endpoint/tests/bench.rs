//! One endpoint and a peer that is made of datagrams.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::endpoint::parameters::MAX_TRANSMIT_WAIT;
use crate::endpoint::{
    Endpoint, Event, ExchangeId, Limits, Method, Request, RequestError, Response,
};

pub(super) struct Bench {
    pub(super) endpoint: Endpoint,
    pub(super) now: Instant,
    pub(super) peer: SocketAddr,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        Self {
            endpoint: Endpoint::new(limits, StdRng::seed_from_u64(7)),
            now: bus::time::now().mono,
            peer: "[2001:db8::1]:49152".parse().unwrap(),
        }
    }

    /// What goes out after a datagram has come in.
    pub(super) fn handle(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.endpoint.handle_datagram(self.peer, datagram, self.now);
        self.sent()
    }

    pub(super) fn sent(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.endpoint.poll_transmit())
            .map(|transmit| transmit.bytes.to_vec())
            .collect()
    }

    pub(super) fn wait(&mut self, time: Duration) -> Vec<Vec<u8>> {
        self.now += time;
        self.endpoint.handle_timeout(self.now);
        self.sent()
    }

    #[track_caller]
    pub(super) fn asked(&mut self) -> (ExchangeId, Request) {
        match self.endpoint.poll_event() {
            Some(Event::Request {
                exchange, request, ..
            }) => (exchange, request),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn ask(&mut self) -> Vec<u8> {
        let request = Request::new(Method::Get, "a");
        self.endpoint
            .request(self.peer, request, MAX_TRANSMIT_WAIT, self.now)
            .unwrap();
        self.sent().remove(0)
    }

    #[track_caller]
    pub(super) fn answered(&mut self) -> Result<Response, RequestError> {
        match self.endpoint.poll_event() {
            Some(Event::Response { result, .. }) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn is_quiet(&mut self) -> bool {
        self.endpoint.poll_event().is_none() && self.endpoint.poll_transmit().is_none()
    }

    pub(super) fn dropped(&self, reason: &'static str) -> u64 {
        self.endpoint.metrics().dropped_for(reason)
    }
}
