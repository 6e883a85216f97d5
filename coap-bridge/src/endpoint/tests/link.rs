//! Two endpoints joined by a link that loses, doubles, delays and reorders.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::endpoint::parameters::MAX_TRANSMIT_WAIT;
use crate::endpoint::{
    Code, Endpoint, Event, ExchangeId, Limits, Method, Request, RequestId, Response,
};

/// How bad the link is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss: f64,
    pub(super) doubling: f64,
    pub(super) max_delay: Duration,
}

impl Weather {
    pub(super) const FINE: Self = Self {
        loss: 0.0,
        doubling: 0.0,
        max_delay: Duration::from_millis(10),
    };
}

/// A client and a server; what the server gets is answered by the test.
pub(super) struct Pair {
    pub(super) client: Endpoint,
    pub(super) server: Endpoint,
    pub(super) now: Instant,
    pub(super) client_addr: SocketAddr,
    pub(super) server_addr: SocketAddr,
    weather: Weather,
    rng: StdRng,
    flying: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Bytes)>,
    sent: u64,
}

impl Pair {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self::with(seed, weather, Limits::default(), Limits::default())
    }

    pub(super) fn with(seed: u64, weather: Weather, client: Limits, server: Limits) -> Self {
        Self {
            client: Endpoint::new(client, StdRng::seed_from_u64(seed)),
            server: Endpoint::new(server, StdRng::seed_from_u64(!seed)),
            now: bus::time::now().mono,
            client_addr: "10.0.0.1:5683".parse().unwrap(),
            server_addr: "10.0.0.2:5683".parse().unwrap(),
            weather,
            rng: StdRng::seed_from_u64(seed ^ 0x5EED),
            flying: BTreeMap::new(),
            sent: 0,
        }
    }

    fn launch(&mut self, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        let copies = 1 + u32::from(self.rng.random_bool(self.weather.doubling));
        for _ in 0..copies {
            if self.rng.random_bool(self.weather.loss) {
                continue;
            }
            let delay = self
                .rng
                .random_range(Duration::ZERO..=self.weather.max_delay);
            self.sent += 1;
            self.flying
                .insert((self.now + delay, self.sent), (from, to, bytes.clone()));
        }
    }

    fn collect(&mut self) {
        while let Some(transmit) = self.client.poll_transmit() {
            self.launch(self.client_addr, transmit.to.address(), &transmit.bytes);
        }
        while let Some(transmit) = self.server.poll_transmit() {
            self.launch(self.server_addr, transmit.to.address(), &transmit.bytes);
        }
    }

    /// Goes on to the next thing that happens, or to `alarm`; false when nothing will.
    pub(super) fn step(&mut self, alarm: Option<Instant>) -> bool {
        self.collect();
        let arrival = self.flying.keys().next().map(|(at, _)| *at);
        let next = [
            alarm,
            arrival,
            self.client.poll_timeout(),
            self.server.poll_timeout(),
        ];
        let Some(next) = next.into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival.is_some_and(|at| at <= self.now) {
            let (_, (from, to, bytes)) = self.flying.pop_first().unwrap();
            let endpoint = match to == self.client_addr {
                true => &mut self.client,
                false => &mut self.server,
            };
            endpoint.handle_datagram(from, &bytes, self.now);
        }
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        true
    }

    pub(super) fn ask(&mut self, request: Request) -> RequestId {
        self.client
            .request(self.server_addr, request, MAX_TRANSMIT_WAIT, self.now)
            .unwrap()
    }

    /// Runs until the client has an event; the server answers with `serve`.
    #[track_caller]
    pub(super) fn event(&mut self, mut serve: impl FnMut(&Request) -> Response) -> Event {
        for _ in 0..100_000 {
            while let Some(event) = self.server.poll_event() {
                if let Event::Request {
                    exchange, request, ..
                } = event
                {
                    self.server.respond(exchange, serve(&request), self.now);
                }
            }
            if let Some(event) = self.client.poll_event() {
                return event;
            }
            if !self.step(None) {
                break;
            }
        }
        panic!("nothing came of it");
    }

    #[track_caller]
    pub(super) fn exchange(
        &mut self,
        request: Request,
        serve: impl FnMut(&Request) -> Response,
    ) -> Event {
        self.ask(request);
        self.event(serve)
    }
}

/// Every request ends once, is executed at most once, and succeeds only when it was executed.
fn run(seed: u64, weather: Weather, slow: bool) -> (u32, u32) {
    const REQUESTS: u32 = 12;
    let mut pair = Pair::new(seed, weather);
    let mut executed: HashMap<Bytes, u32> = HashMap::new();
    let mut ended: HashMap<RequestId, u32> = HashMap::new();
    let (mut asked, mut good) = (HashMap::new(), 0);
    let mut later: Vec<(Instant, ExchangeId, Response)> = Vec::new();
    for n in 0..REQUESTS {
        let payload = Bytes::from(n.to_string());
        let id = pair.ask(Request::new(Method::Post, "server").with_payload(payload.clone()));
        asked.insert(id, payload);
    }
    let end = pair.now + Duration::from_secs(3600);
    while pair.step(later.iter().map(|(at, ..)| *at).min()) && pair.now < end {
        while let Some(event) = pair.server.poll_event() {
            let Event::Request {
                exchange, request, ..
            } = event
            else {
                panic!("the server asked nothing");
            };
            *executed.entry(request.payload.clone()).or_default() += 1;
            let response = Response::new(Code::CHANGED).with_payload(request.payload);
            if slow && pair.rng.random_bool(0.5) {
                later.push((pair.now + Duration::from_millis(700), exchange, response));
            } else {
                pair.server.respond(exchange, response, pair.now);
            }
        }
        let now = pair.now;
        for (_, exchange, response) in later.extract_if(.., |(at, ..)| *at <= now) {
            pair.server.respond(exchange, response, now);
        }
        while let Some(event) = pair.client.poll_event() {
            let Event::Response { id, result, .. } = event else {
                panic!("nothing was observed");
            };
            *ended.entry(id).or_default() += 1;
            if let Ok(response) = result {
                assert_eq!(
                    response.payload, asked[&id],
                    "seed {seed}: the answer to another"
                );
                assert_eq!(executed.get(&response.payload), Some(&1), "seed {seed}");
                good += 1;
            }
        }
    }
    assert_eq!(ended.len(), asked.len(), "seed {seed}: each request ends");
    assert!(ended.values().all(|times| *times == 1), "seed {seed}: once");
    assert!(
        executed.values().all(|times| *times == 1),
        "seed {seed}: executed once"
    );
    (good, REQUESTS)
}

#[test]
fn each_request_ends_once_and_is_executed_at_most_once() {
    let weather = Weather {
        loss: 0.2,
        doubling: 0.2,
        max_delay: Duration::from_millis(1500),
    };
    let (mut good, mut all) = (0, 0);
    for seed in 0..300 {
        let (succeeded, asked) = run(seed, weather, seed % 2 == 0);
        good += succeeded;
        all += asked;
    }
    // One in three exchanges is lost per try; five tries leave about one in 170.
    assert!(good * 100 >= all * 90, "{good} of {all} succeeded");
}

#[test]
fn without_loss_everything_succeeds() {
    for seed in 0..50 {
        let (good, all) = run(seed, Weather::FINE, seed % 2 == 0);
        assert_eq!(good, all, "seed {seed}");
    }
}

#[test]
fn a_dead_link_ends_every_request() {
    let weather = Weather {
        loss: 1.0,
        ..Weather::FINE
    };
    assert_eq!(run(1, weather, false).0, 0);
}
