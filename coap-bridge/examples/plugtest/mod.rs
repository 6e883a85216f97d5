//! A server on [`coap_bridge::endpoint`], and the loop that drives it with a socket and a clock.

mod resources;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coap_bridge::endpoint::{
    Endpoint, Event, ExchangeId, Limits, ObserverId, Request, Response, Transmit,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use resources::{Answer, Resources};

/// How the server behaves in time.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// What is observed changes so often.
    pub(crate) change_every: Duration,
    /// `/separate` takes so long.
    pub(crate) separate_after: Duration,
    /// The first retransmission of notifications and separate responses comes after this time.
    pub(crate) ack_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            change_every: Duration::from_secs(5),
            separate_after: Duration::from_secs(2),
            ack_timeout: Duration::from_secs(2),
        }
    }
}

/// The server, without IO.
struct Plugtest {
    endpoint: Endpoint,
    resources: Resources,
    /// Who observes what.
    observers: BTreeMap<ObserverId, String>,
    /// What is answered later.
    later: Vec<(Instant, ExchangeId, Response)>,
    change_at: Instant,
    settings: Settings,
}

impl Plugtest {
    fn new(settings: Settings, now: Instant) -> Self {
        let limits = Limits {
            // The tests ask for long answers, and their clients know nothing of Echo.
            amplification: None,
            // Blocks that make several messages of what is large here.
            szx: 2,
            ack_timeout: settings.ack_timeout,
            ..Limits::default()
        };
        Self {
            endpoint: Endpoint::new(limits, StdRng::from_os_rng()),
            resources: Resources::new(),
            observers: BTreeMap::new(),
            later: Vec::new(),
            change_at: now + settings.change_every,
            settings,
        }
    }

    fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        self.endpoint.handle_datagram(from, datagram, now);
        self.handle_events(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.change_at <= now {
            self.change_at = now + self.settings.change_every;
            for path in self.resources.change() {
                self.notify(path, now);
            }
        }
        for (_, exchange, response) in self.later.extract_if(.., |(at, ..)| *at <= now) {
            self.endpoint.respond(exchange, response, now);
        }
        self.endpoint.handle_timeout(now);
        self.handle_events(now);
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request {
                    exchange, request, ..
                } => self.answer(exchange, &request, now),
                Event::ObserverLeft { observer, .. } => {
                    self.observers.remove(&observer);
                }
                // It asks nothing.
                _ => {}
            }
        }
    }

    fn answer(&mut self, exchange: ExchangeId, request: &Request, now: Instant) {
        match self.resources.answer(request) {
            Answer::Now(response) => self.endpoint.respond(exchange, response, now),
            Answer::Later(response) => {
                let at = now + self.settings.separate_after;
                self.later.push((at, exchange, response));
            }
            Answer::Observable(path, response) => {
                let observer = self.endpoint.respond_observed(exchange, response, now);
                if let Some(observer) = observer {
                    self.observers.insert(observer, path);
                }
            }
            Answer::Changed(path, response) => {
                self.endpoint.respond(exchange, response, now);
                self.notify(&path, now);
            }
            Answer::Ended(path, response, last) => {
                self.endpoint.respond(exchange, response, now);
                for (observer, _) in self.observers.extract_if(.., |_, of| *of == path) {
                    self.endpoint.notify(observer, last.clone(), true, now);
                }
            }
        }
    }

    fn notify(&mut self, path: &str, now: Instant) {
        let Some(response) = self.resources.read(path) else {
            return;
        };
        let confirmable = path != resources::OBSERVED_NON;
        for (observer, _) in self.observers.iter().filter(|(_, of)| *of == path) {
            let response = response.clone();
            self.endpoint.notify(*observer, response, confirmable, now);
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.endpoint.poll_transmit()
    }

    fn poll_timeout(&self) -> Instant {
        let later = self.later.iter().map(|(at, ..)| *at);
        let next = later.chain(self.endpoint.poll_timeout()).min();
        next.map_or(self.change_at, |next| next.min(self.change_at))
    }
}

/// The longest time in which a stop is noticed.
const PATIENCE: Duration = Duration::from_millis(100);

/// Serves on a bound socket until `running` is false.
pub(crate) fn serve(
    socket: &UdpSocket,
    settings: Settings,
    running: &AtomicBool,
) -> io::Result<()> {
    let now = || bus::time::now().mono;
    let mut server = Plugtest::new(settings, now());
    let mut buffer = vec![0; 65_536];
    while running.load(Ordering::Relaxed) {
        while let Some(transmit) = server.poll_transmit() {
            // What can't be sent is lost, as any datagram may be.
            socket.send_to(&transmit.bytes, transmit.to.address()).ok();
        }
        let wait = server.poll_timeout().saturating_duration_since(now());
        socket.set_read_timeout(Some(wait.clamp(Duration::from_millis(1), PATIENCE)))?;
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            server.handle_datagram(from, &buffer[..len], now());
        }
        server.handle_timeout(now());
    }
    Ok(())
}
