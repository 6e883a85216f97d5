//! A server, clients and the link between them, with a virtual clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bus::time::Now;
use bytes::Bytes;
use dimpl::Dtls;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(super) use crate::dtls::client::{Client, KEY, OTHER};
use crate::dtls::{Ended, Event, Keys, Limits, Metrics, Server, Trust};
use crate::endpoint::SessionId;

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn keys(lines: &[(&str, &str)]) -> Keys {
    let lines: Vec<_> = lines
        .iter()
        .map(|(name, key)| format!("{name}:{key}\n"))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.concat()).unwrap();
    Keys::load(file.path()).unwrap()
}

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
        max_delay: Duration::ZERO,
    };
}

pub(super) struct Bench {
    pub(super) server: Server,
    pub(super) metrics: Metrics,
    pub(super) now: Now,
    pub(super) clients: HashMap<SocketAddr, Client>,
    /// Events of the server that no test has looked at yet.
    pub(super) events: VecDeque<Event>,
    /// What the server sent to addresses without a client.
    pub(super) stray: Vec<(SocketAddr, Bytes)>,
    pub(super) weather: Weather,
    rng: StdRng,
    /// By time of arrival: to the server or from it, the client's address, the datagram.
    flying: BTreeMap<(Instant, u64), (bool, SocketAddr, Bytes)>,
    launched: u64,
}

pub(super) fn limits() -> Limits {
    Limits {
        max_sessions: 100,
        max_sessions_per_address: 50,
        max_handshakes: 64,
        idle: Duration::from_secs(3600),
    }
}

impl Bench {
    pub(super) fn new(names: &[(&str, &str)]) -> Self {
        Self::with(1, limits(), keys(names), None)
    }

    pub(super) fn with(seed: u64, limits: Limits, keys: Keys, trust: Option<Trust>) -> Self {
        let now = bus::time::now();
        let metrics = Metrics::default();
        let rng = StdRng::seed_from_u64(seed);
        let server = Server::new(limits, keys, trust, rng, metrics.clone(), now.mono);
        Self {
            server: server.unwrap(),
            metrics,
            now,
            clients: HashMap::new(),
            events: VecDeque::new(),
            stray: Vec::new(),
            weather: Weather::FINE,
            rng: StdRng::seed_from_u64(!seed),
            flying: BTreeMap::new(),
            launched: 0,
        }
    }

    /// A client begins, and everything happens that does so at once.
    pub(super) fn connect(&mut self, at: &str, name: &str, key: &str) {
        let client = Client::psk(name, key, self.now.mono);
        self.start(at, client);
    }

    pub(super) fn start(&mut self, at: &str, client: Client) {
        self.clients.insert(addr(at), client);
        self.act(at, |_| Ok(()));
    }

    pub(super) fn act(
        &mut self,
        at: &str,
        act: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>,
    ) {
        let client = self.clients.get_mut(&addr(at)).unwrap();
        for datagram in client.act(act) {
            self.launch(true, addr(at), datagram);
        }
        self.settle();
    }

    /// A client sends something over its session.
    pub(super) fn say(&mut self, at: &str, what: &[u8]) {
        self.act(at, |dtls| dtls.send_application_data(what).map(|_| ()));
    }

    /// The server sends something over a session.
    pub(super) fn tell(&mut self, session: SessionId, what: &[u8]) {
        self.server.send(session, what, self.now.mono);
        self.settle();
    }

    /// A datagram comes to the server that no client has sent; gives what is sent back at once.
    pub(super) fn forge(&mut self, from: &str, datagram: &[u8]) -> Vec<Bytes> {
        self.stray.clear();
        self.server.handle_datagram(addr(from), datagram, self.now);
        self.settle();
        let back = self.stray.iter().filter(|(to, _)| *to == addr(from));
        back.map(|(_, bytes)| bytes.clone()).collect()
    }

    fn launch(&mut self, to_server: bool, client: SocketAddr, datagram: Bytes) {
        let copies = 1 + u32::from(self.rng.random_bool(self.weather.doubling));
        for _ in 0..copies {
            if self.rng.random_bool(self.weather.loss) {
                continue;
            }
            let delay = self
                .rng
                .random_range(Duration::ZERO..=self.weather.max_delay);
            self.launched += 1;
            let key = (self.now.mono + delay, self.launched);
            self.flying
                .insert(key, (to_server, client, datagram.clone()));
        }
    }

    fn collect(&mut self) {
        while let Some((to, bytes)) = self.server.poll_transmit() {
            if self.clients.contains_key(&to) {
                self.launch(false, to, bytes);
            } else {
                self.stray.push((to, bytes));
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.events.push_back(event);
        }
    }

    /// Everything that happens at this moment.
    pub(super) fn settle(&mut self) {
        self.collect();
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= self.now.mono
        {
            let (to_server, client, datagram) = entry.remove();
            if to_server {
                self.server.handle_datagram(client, &datagram, self.now);
            } else if let Some(one) = self.clients.get_mut(&client) {
                let now = self.now.mono;
                let answers = one.act(|dtls| {
                    dtls.handle_timeout(now)?;
                    dtls.handle_packet(&datagram)
                });
                for answer in answers {
                    self.launch(true, client, answer);
                }
            }
            self.collect();
        }
    }

    /// Lets time pass, from one thing that happens to the next.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now.after(time);
        loop {
            let clients = self.clients.values();
            let clients = clients
                .filter(|client| !client.failed)
                .filter_map(|one| one.deadline);
            let next = clients
                .chain(self.server.poll_timeout())
                .chain(self.flying.keys().next().map(|(at, _)| *at))
                .min();
            let Some(next) = next.filter(|next| *next <= end.mono) else {
                break;
            };
            self.now = self
                .now
                .after(next.saturating_duration_since(self.now.mono));
            self.server.handle_timeout(self.now);
            let now = self.now.mono;
            let mut sent = Vec::new();
            for (address, client) in &mut self.clients {
                if client.deadline.is_some_and(|at| at <= now) {
                    let datagrams = client.act(|dtls| dtls.handle_timeout(now));
                    sent.extend(datagrams.into_iter().map(|datagram| (*address, datagram)));
                }
            }
            for (address, datagram) in sent {
                self.launch(true, address, datagram);
            }
            self.settle();
        }
        self.now = end;
    }

    pub(super) fn client(&self, at: &str) -> &Client {
        &self.clients[&addr(at)]
    }

    /// The session that began next, and whose it is.
    #[track_caller]
    pub(super) fn established(&mut self) -> (SessionId, String) {
        match self.events.pop_front() {
            Some(Event::Established { session, name, .. }) => (session, name.to_string()),
            other => panic!("no session began: {other:?}"),
        }
    }

    /// What came over a session next.
    #[track_caller]
    pub(super) fn data(&mut self) -> (SessionId, Bytes) {
        match self.events.pop_front() {
            Some(Event::Data { session, bytes, .. }) => (session, bytes),
            other => panic!("nothing came: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn ended(&mut self) -> (SessionId, Ended) {
        match self.events.pop_front() {
            Some(Event::Ended { session, why }) => (session, why),
            other => panic!("no session ended: {other:?}"),
        }
    }

    /// A name proves itself, and its session is of use both ways.
    #[track_caller]
    pub(super) fn works(&mut self, at: &str, name: &str, key: &str) -> SessionId {
        self.connect(at, name, key);
        let (session, found) = self.established();
        assert_eq!(found, name);
        assert!(self.client(at).connected);
        self.say(at, b"question");
        assert_eq!(self.data(), (session, Bytes::from_static(b"question")));
        self.tell(session, b"answer");
        assert_eq!(self.client(at).received, [b"answer"]);
        session
    }
}
