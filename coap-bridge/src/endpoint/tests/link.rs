//! Two endpoints joined by a link that loses, doubles, delays and reorders.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::endpoint::parameters::{MAX_RETRANSMIT, MAX_TRANSMIT_WAIT};
use crate::endpoint::{
    Code, Endpoint, Event, ExchangeId, Limits, Method, Request, RequestId, Response,
};

/// How bad the link is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss: f64,
    pub(super) doubling: f64,
    pub(super) max_delay: Duration,
    /// No datagram is lost so often in a row.
    pub(super) max_losses: u32,
}

impl Weather {
    pub(super) const FINE: Self = Self {
        loss: 0.0,
        doubling: 0.0,
        max_delay: Duration::from_millis(10),
        max_losses: u32::MAX,
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
    lost: HashMap<(SocketAddr, Bytes), u32>,
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
            lost: HashMap::new(),
            flying: BTreeMap::new(),
            sent: 0,
        }
    }

    fn launch(&mut self, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        let copies = 1 + u32::from(self.rng.random_bool(self.weather.doubling));
        for _ in 0..copies {
            let lost = self.lost.entry((to, bytes.clone())).or_default();
            if *lost + 1 < self.weather.max_losses && self.rng.random_bool(self.weather.loss) {
                *lost += 1;
                continue;
            }
            *lost = 0;
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

/// Every request ends once, is executed at most once, and succeeds only when it was executed; where no
/// datagram is lost MAX_RETRANSMIT times in a row, every Confirmable one is executed. Each third one is
/// Non-confirmable.
fn run(seed: u64, weather: Weather, slow: bool) -> (u32, u32) {
    const REQUESTS: u32 = 12;
    let mut pair = Pair::new(seed, weather);
    let mut executed: HashMap<Bytes, u32> = HashMap::new();
    let mut ended: HashMap<RequestId, u32> = HashMap::new();
    let (mut asked, mut good) = (HashMap::new(), 0);
    let mut later: Vec<(Instant, ExchangeId, Response)> = Vec::new();
    for n in 0..REQUESTS {
        let payload = Bytes::from(n.to_string());
        let mut request = Request::new(Method::Post, "server").with_payload(payload.clone());
        request.confirmable = n % 3 != 2;
        // Each waits for those before it.
        let patience = MAX_TRANSMIT_WAIT * REQUESTS;
        let (to, now) = (pair.server_addr, pair.now);
        let id = pair.client.request(to, request, patience, now).unwrap();
        asked.insert(id, payload);
    }
    let end = pair.now + Duration::from_secs(7200);
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
    if weather.max_losses <= MAX_RETRANSMIT {
        for n in (0..REQUESTS).filter(|n| n % 3 != 2) {
            let payload = Bytes::from(n.to_string());
            assert!(executed.contains_key(&payload), "seed {seed}: {n} is lost");
        }
    }
    (good, REQUESTS)
}

/// Whatever the weather: each seed has its own.
#[test]
fn each_request_ends_once_and_is_executed_at_most_once() {
    for seed in 0..1000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let weather = Weather {
            loss: rng.random_range(0.0..0.6),
            doubling: rng.random_range(0.0..0.4),
            max_delay: Duration::from_millis(rng.random_range(1..4000)),
            max_losses: u32::MAX,
        };
        run(seed, weather, seed % 2 == 0);
    }
}

#[test]
fn a_confirmable_reading_arrives_when_losses_are_fewer_than_its_retransmissions() {
    for seed in 0..1000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let weather = Weather {
            loss: rng.random_range(0.3..1.0),
            doubling: rng.random_range(0.0..0.4),
            max_delay: Duration::from_millis(rng.random_range(1..1500)),
            max_losses: MAX_RETRANSMIT,
        };
        run(seed, weather, seed % 2 == 0);
    }
}

#[test]
fn on_a_usual_bad_link_nearly_everything_succeeds() {
    let weather = Weather {
        loss: 0.2,
        doubling: 0.2,
        max_delay: Duration::from_millis(1500),
        max_losses: u32::MAX,
    };
    let (mut good, mut all) = (0, 0);
    for seed in 0..100 {
        let (succeeded, asked) = run(seed, weather, seed % 2 == 0);
        good += succeeded;
        all += asked;
    }
    // Of the Non-confirmable third, one in three is lost.
    assert!(good * 100 >= all * 80, "{good} of {all} succeeded");
}

/// What an observer is told rises, and ends with what is.
#[test]
fn an_observer_learns_what_is_and_never_what_was() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let weather = Weather {
            loss: rng.random_range(0.0..0.3),
            doubling: rng.random_range(0.0..0.4),
            max_delay: Duration::from_millis(rng.random_range(1..3000)),
            max_losses: MAX_RETRANSMIT - 1,
        };
        observe(seed, weather);
    }
}

fn observe(seed: u64, weather: Weather) {
    const LAST: u32 = 30;
    let open = Limits {
        amplification: None,
        ..Limits::default()
    };
    let mut pair = Pair::with(seed, weather, Limits::default(), open);
    let content = |state: u32| Response::content(0, state.to_string());
    let (to, now) = (pair.server_addr, pair.now);
    let request = Request::new(Method::Get, "obs");
    pair.client
        .observe(to, request, MAX_TRANSMIT_WAIT, now)
        .unwrap();
    let (mut state, mut observer, mut told) = (0, None, Vec::new());
    let mut change_at = pair.now + Duration::from_secs(1);
    let end = pair.now + Duration::from_secs(600);
    while pair.now < end && pair.step(Some(change_at.min(end))) {
        if change_at <= pair.now {
            let next = pair
                .rng
                .random_range(Duration::ZERO..Duration::from_secs(6));
            change_at = if state == LAST { end } else { pair.now + next };
            state = (state + 1).min(LAST);
            if let Some(observer) = observer {
                let confirmable = state == LAST || pair.rng.random_bool(0.5);
                pair.server
                    .notify(observer, content(state), confirmable, pair.now);
            }
        }
        while let Some(event) = pair.server.poll_event() {
            match event {
                Event::Request { exchange, .. } => {
                    let response = content(state);
                    let taken = pair.server.respond_observed(exchange, response, pair.now);
                    observer = taken.or(observer);
                }
                Event::ObserverLeft { observer: left, .. } => {
                    observer.take_if(|known| *known == left);
                }
                other => panic!("{other:?}"),
            }
        }
        while let Some(event) = pair.client.poll_event() {
            let response = match event {
                Event::Response { result, .. } => result.ok(),
                Event::Notification { response, .. } => Some(response),
                other => panic!("{other:?}"),
            };
            let text =
                response.map(|response| String::from_utf8_lossy(&response.payload).into_owned());
            told.extend(text.and_then(|text| text.parse::<u32>().ok()));
        }
    }
    assert!(told.is_sorted(), "seed {seed}: {told:?}");
    assert_eq!(told.last(), Some(&LAST), "seed {seed}: {told:?}");
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
