//! A network of nodes and one bridge, with a virtual clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bus::bridge::registry::Registry;
use bus::bridge::{BridgeConfig, QueueConfig};
use bus::id::{BridgeId, NodeId};
use bus::session::Message;
use bus::time::Now;
use bus::topic::Base;
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::endpoint::options::number;
use crate::endpoint::{
    Code, Endpoint, Event, Limits, Method, Remote, Request, Response, SessionId,
};
use crate::firmware::{Bridge, Rules};
use crate::metrics::Metrics;
use crate::network::Network;

/// Where the bridge is.
pub(super) const BRIDGE: &str = "10.0.0.254:5683";

/// One CoAP server somewhere.
pub(super) struct Server {
    endpoint: Endpoint,
    /// The answer to `GET /.well-known/core`.
    pub(super) list: String,
    pub(super) values: BTreeMap<String, String>,
    /// What was asked, as `GET led`, with Observe as `OBS led`, and with the payload: `PUT led 1`.
    pub(super) asked: Vec<String>,
    /// The Content-Format of the last request.
    pub(super) format: Option<u16>,
    /// What a PUT is answered with.
    pub(super) put: Code,
    /// Paths that can't be read.
    pub(super) write_only: BTreeSet<String>,
    /// Paths whose answer never comes.
    pub(super) mute: BTreeSet<String>,
    /// Datagrams are lost on the way to it.
    pub(super) dead: bool,
    /// The value of Observe in answers to `OBS`.
    pub(super) observe: Option<u32>,
}

impl Server {
    pub(super) fn new(list: &str, values: &[(&str, &str)]) -> Self {
        Self::with(Limits::default(), list, values)
    }

    pub(super) fn with(limits: Limits, list: &str, values: &[(&str, &str)]) -> Self {
        Self {
            endpoint: Endpoint::new(limits, StdRng::seed_from_u64(5)),
            list: list.to_owned(),
            values: values
                .iter()
                .map(|(path, value)| ((*path).to_owned(), (*value).to_owned()))
                .collect(),
            asked: Vec::new(),
            format: None,
            put: Code::CHANGED,
            write_only: BTreeSet::new(),
            mute: BTreeSet::new(),
            dead: false,
            observe: None,
        }
    }

    fn answer(&mut self, request: &Request) -> Response {
        let path = request.path().unwrap();
        self.format = request.format().or(self.format);
        let observes = request.options.uint(number::OBSERVE) == Some(0);
        let payload = String::from_utf8_lossy(&request.payload).into_owned();
        self.asked.push(match (request.method, observes) {
            (Method::Get, false) => format!("GET {path}"),
            (Method::Get, true) => format!("OBS {path}"),
            (method, _) => format!("{method:?} {path} {payload}").to_uppercase(),
        });
        if path == ".well-known/core" {
            return match self.list.is_empty() {
                true => Response::new(Code::NOT_FOUND),
                false => Response::content(40, self.list.clone()),
            };
        }
        if request.method == Method::Get && self.write_only.contains(&path) {
            return Response::new(Code::METHOD_NOT_ALLOWED);
        }
        match (request.method, self.values.get_mut(&path)) {
            (Method::Get, Some(value)) => {
                let mut response = Response::content(0, value.clone());
                if let Some(sequence) = self.observe.filter(|_| observes) {
                    response.options.add_uint(number::OBSERVE, sequence);
                }
                response
            }
            (Method::Fetch, Some(value)) => Response::content(0, format!("{payload}={value}")),
            (Method::Put | Method::Post | Method::Patch | Method::IPatch, Some(value)) => {
                if self.put.is_success() {
                    *value = payload;
                }
                Response::new(self.put)
            }
            _ => Response::new(Code::NOT_FOUND),
        }
    }

    /// What was asked since the last time.
    pub(super) fn take_asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }
}

pub(super) struct Bench {
    pub(super) bridge: Bridge,
    registry: Registry,
    pub(super) now: Now,
    pub(super) servers: HashMap<Remote, Server>,
    /// The last payload of each topic below the base, and how many events of each type came.
    pub(super) topics: BTreeMap<String, Value>,
    pub(super) events: BTreeMap<String, u32>,
    pub(super) acks: u32,
    /// What the bridge sent to addresses without a server.
    pub(super) stray: Vec<(Remote, Bytes)>,
    /// Reports stay in the bridge.
    pub(super) bus_is_behind: bool,
    /// The bus takes reports and acknowledges none.
    pub(super) bus_is_slow: bool,
    reported: u64,
    pub(super) metrics: Metrics,
    mid: u16,
}

pub(super) fn rules() -> Rules {
    Rules {
        max_time: Duration::from_secs(120),
        poll_interval: Duration::from_secs(30),
        rediscover_interval: Duration::from_secs(600),
        max_nodes: 1000,
        max_nodes_per_address: 1000,
        max_discoveries: 16,
        plain_from: Network::EVERYWHERE.to_vec(),
        search_interval: Duration::from_secs(300),
    }
}

/// `10.0.0.1:5683`, or with the number of a DTLS session in front: `7@10.0.0.1:61000`.
pub(super) fn addr(text: &str) -> Remote {
    match text.split_once('@') {
        None => Remote::Plain(text.parse().unwrap()),
        Some((session, address)) => {
            let session = SessionId(session.parse().unwrap());
            Remote::Secure(session, address.parse().unwrap())
        }
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(rules())
    }

    pub(super) fn with(rules: Rules) -> Self {
        let now = bus::time::now();
        let config = BridgeConfig {
            name: BridgeId::from_text("coap"),
            protocol: "coap",
            base: Base::default(),
            max_time: Some(rules.max_time),
            forget_after: Duration::from_secs(24 * 3600),
            max_nodes: rules.max_nodes,
            queue: QueueConfig::default(),
        };
        let mut registry = Registry::new(config);
        registry.handle_connected(now);
        registry.finish_restoring();
        registry.handle_caught_up(false);
        let metrics = Metrics::default();
        Self {
            bridge: Bridge::new(rules, StdRng::seed_from_u64(11), metrics.clone()),
            registry,
            now,
            servers: HashMap::new(),
            topics: BTreeMap::new(),
            events: BTreeMap::new(),
            acks: 0,
            stray: Vec::new(),
            bus_is_behind: false,
            bus_is_slow: false,
            reported: 0,
            metrics,
            mid: 0,
        }
    }

    pub(super) fn server(&mut self, at: &str) -> &mut Server {
        self.servers.get_mut(&addr(at)).unwrap()
    }

    /// A datagram comes to the bridge, and everything that follows at once happens. Gives what the
    /// bridge sent back to an address without a server.
    pub(super) fn datagram(&mut self, from: &str, datagram: &[u8]) -> Vec<Bytes> {
        self.stray.clear();
        self.bridge.handle_datagram(addr(from), datagram, self.now);
        self.settle();
        let back = self.stray.iter().filter(|(to, _)| *to == addr(from));
        back.map(|(_, bytes)| bytes.clone()).collect()
    }

    fn post(&mut self, from: &str, first: u8, path: &str, payload: &str) -> Option<Code> {
        self.mid += 1;
        let [high, low] = self.mid.to_be_bytes();
        let length = u8::try_from(path.len()).unwrap();
        let header = [first, 2, high, low, 0xb0 | length];
        let datagram = [&header, path.as_bytes(), b"\xff", payload.as_bytes()].concat();
        let back = self.datagram(from, &datagram);
        let answer = back.iter().find(|bytes| bytes[1] >> 5 >= 2)?;
        Some(Code::from_byte(answer[1]))
    }

    /// `NON POST /alive`, as firmwares send it.
    pub(super) fn alive(&mut self, from: &str, payload: &str) {
        self.post(from, 0x50, "alive", payload);
    }

    /// `CON POST`; gives the code of the answer, when it does not go to a [`Server`].
    pub(super) fn con(&mut self, from: &str, path: &str, payload: &str) -> Option<Code> {
        self.post(from, 0x40, path, payload)
    }

    /// `NON POST /server`.
    pub(super) fn push(&mut self, from: &str, payload: &str) -> Option<Code> {
        self.post(from, 0x50, "server", payload)
    }

    /// The holder of a name begins a DTLS session.
    pub(super) fn session(&mut self, at: &str, name: &str) {
        let (at, name) = (addr(at), NodeId::new(name).unwrap());
        let session = at.session().unwrap();
        self.bridge.handle_session(session, at, &name, self.now);
        self.settle();
    }

    pub(super) fn session_ends(&mut self, at: &str) {
        let session = addr(at).session().unwrap();
        self.bridge.handle_session_end(session, self.now);
        self.settle();
    }

    /// These names have a shared key.
    pub(super) fn keys(&mut self, names: &[&str]) {
        let names = names.iter().map(|name| NodeId::new(name).unwrap());
        self.bridge.handle_keys(names.collect(), self.now);
        self.settle();
    }

    /// A message of the bus, such as a `set`.
    pub(super) fn bus(&mut self, topic: &str, payload: &str) {
        let message = Message {
            topic: Base::default().join(topic),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            retain: false,
            response_topic: None,
            correlation: None,
            expiry: None,
        };
        self.registry.handle_message(&message, self.now);
        self.settle();
    }

    /// Lets time pass, from deadline to deadline.
    pub(super) fn wait(&mut self, time: Duration) {
        self.settle();
        let end = self.now.after(time);
        loop {
            let servers = self
                .servers
                .values()
                .map(|server| server.endpoint.poll_timeout());
            let own = [self.bridge.poll_timeout(), self.registry.poll_timeout()];
            let next = servers.chain(own).flatten().min();
            let Some(next) = next.filter(|next| *next <= end.mono) else {
                break;
            };
            self.now = self
                .now
                .after(next.saturating_duration_since(self.now.mono));
            for server in self.servers.values_mut() {
                server.endpoint.handle_timeout(self.now.mono);
            }
            self.bridge.handle_timeout(self.now);
            self.registry.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// Everything that follows from what has happened.
    fn settle(&mut self) {
        let mut flying = VecDeque::new();
        loop {
            while let Some(order) = self.registry.poll_order() {
                self.bridge.handle_order(order, self.now);
            }
            while !self.bus_is_behind
                && let Some(report) = self.bridge.poll_report()
            {
                self.registry.handle_report(report, self.now);
                self.reported += 1;
            }
            self.read_bus();
            if !self.bus_is_slow {
                self.bridge.handle_settled(self.reported, self.now);
            }
            while let Some(transmit) = self.bridge.poll_transmit() {
                flying.push_back((addr(BRIDGE), transmit.to, transmit.bytes));
            }
            let Some((from, to, bytes)) = flying.pop_front() else {
                if self.registry.has_orders() {
                    continue;
                }
                return;
            };
            if to == addr(BRIDGE) {
                self.bridge.handle_datagram(from, &bytes, self.now);
            } else if let Some(server) = self.servers.get_mut(&to) {
                if !server.dead {
                    server.endpoint.handle_datagram(from, &bytes, self.now.mono);
                    while let Some(event) = server.endpoint.poll_event() {
                        if let Event::Request {
                            exchange, request, ..
                        } = event
                        {
                            let response = server.answer(&request);
                            if request
                                .path()
                                .is_some_and(|path| server.mute.contains(&path))
                            {
                                continue;
                            }
                            server.endpoint.respond(exchange, response, self.now.mono);
                        }
                    }
                    while let Some(transmit) = server.endpoint.poll_transmit() {
                        self.bridge.handle_datagram(to, &transmit.bytes, self.now);
                    }
                }
            } else {
                self.stray.push((to, bytes));
            }
        }
    }

    fn read_bus(&mut self) {
        let prefix = Base::default().join("");
        while let Some(publication) = self.registry.poll_publication() {
            let topic = publication.topic.strip_prefix(&prefix).unwrap().to_owned();
            let payload: Value = serde_json::from_slice(&publication.payload).unwrap_or_default();
            if topic == "events" {
                let kind = &payload["type"];
                *self
                    .events
                    .entry(kind.as_str().unwrap().to_owned())
                    .or_default() += 1;
            }
            self.acks += u32::from(topic.ends_with("/ack"));
            self.topics.insert(topic, payload);
        }
    }

    /// The last payload of a topic.
    #[track_caller]
    pub(super) fn topic(&self, topic: &str) -> &Value {
        self.topics
            .get(topic)
            .unwrap_or_else(|| panic!("nothing on {topic}: {:#?}", self.topics))
    }

    /// The value of a resource, null when it has none.
    pub(super) fn value(&self, node: &str, resource: &str) -> Value {
        let topic = format!("nodes/{node}/res/{resource}");
        self.topics
            .get(&topic)
            .map_or(Value::Null, |reading| reading["v"].clone())
    }

    pub(super) fn address(&self, node: &str) -> &str {
        self.topic(&format!("nodes/{node}"))["address"]
            .as_str()
            .unwrap()
    }
}
