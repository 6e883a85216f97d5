//! What Pyaiot's firmwares and a bridge say to each other, without IO: signs of life, discovery,
//! pushes, reads and writes.
//!
//! - `serve`: what nodes ask of us: `POST /alive`, `POST /server`.
//! - `settled`: answers that wait until what was pushed can't be lost.
//! - `directory`: nodes that register (RFC 9176). `search`: nodes that say nothing by themselves.
//! - `discovery`: where a node's own server is, and what it has.
//! - `work`, `results`, `answers`: what is asked of a node, one request at a time; what it answered;
//!   and how that is told.
//! - `access`, `secure`: who may speak for which node, and nodes that speak DTLS.
//! - `node`, `places`: the state of one node, and where nodes are.
//! - `wire`, `write`: what nodes say, and how a value is written to one.
//! - `sort`: what may be dropped first, told before it is decoded.
//!
//! What it refuses to do: it decides nothing about liveness, topics and acks, which is the bridge
//! runtime's ([`bus::bridge`]); it believes no node's new address before that has answered.

mod access;
mod answers;
mod directory;
mod discovery;
mod node;
mod places;
mod results;
mod search;
mod secure;
mod serve;
mod settled;
mod sort;
#[cfg(test)]
mod tests;
mod wire;
mod work;
mod write;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bus::bridge::{Lifetime, Order, Report, Uid};
use bus::payload::Resource;
use bus::time::Now;
use rand::rngs::StdRng;

use crate::endpoint::{self, Endpoint, Event, Limits, Remote, RequestId, Timers, Transmit};
use crate::metrics::Metrics;
use crate::network::Network;
use access::Access;
use directory::Directory;
use discovery::Queue;
use node::Node;
use places::{Places, Seat};
pub(crate) use search::ALL_COAP_NODES;
use search::Search;
use settled::Unsettled;
pub(crate) use sort::is_push;
use work::Ask;

/// The port of a node's CoAP server, unless its signs of life come from another one.
const COAP_PORT: u16 = 5683;

/// Non-confirmable pushes are shed when so many reports wait for the bus.
const SHED_NON: usize = 1024;
/// Confirmable pushes are answered 5.03 when so many reports wait.
const SHED_CON: usize = 2048;
/// When so many wait, further ones are dropped, but for answers to requests. More than what is pushed
/// in the longest body, which has at least three bytes for each value.
const MAX_REPORTS: usize = 32_768;
/// Requests of nodes that wait for their answer. Pushes, which wait for the bus or the disk, take only
/// some of that.
const MAX_EXCHANGES: usize = 16_384;

/// How nodes are treated.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// A node that is silent for so long is not polled.
    pub(crate) max_time: Duration,
    /// A resource is read when its value is so old.
    pub(crate) poll_interval: Duration,
    /// A node is asked for its list again when that is so old.
    pub(crate) rediscover_interval: Duration,
    /// How many nodes are taken.
    pub(crate) max_nodes: usize,
    /// How many nodes are taken at one address, or one /64.
    pub(crate) max_nodes_per_address: usize,
    /// How many nodes are asked for their resources at a time.
    pub(crate) max_discoveries: usize,
    /// Where nodes may speak without DTLS.
    pub(crate) plain_from: Vec<Network>,
    /// So often all nodes are asked who is there, if they are.
    pub(crate) search_interval: Duration,
}

/// The machine: datagrams, orders and time in; datagrams, reports and a deadline out.
///
/// After each `handle_*` drain [`Bridge::poll_transmit`] and, as far as the runtime has room,
/// [`Bridge::poll_report`], and say how many of those are settled with [`Bridge::handle_settled`]:
/// pushes are answered then. Call [`Bridge::handle_timeout`] when [`Bridge::poll_timeout`] has come.
/// Time must not go back.
#[derive(Debug)]
pub(crate) struct Bridge {
    rules: Rules,
    endpoint: Endpoint,
    nodes: HashMap<Uid, Node>,
    places: Places,
    access: Access,
    /// What our requests and observations are for.
    asked: HashMap<RequestId, (Uid, Ask)>,
    queue: Queue,
    directory: Directory,
    search: Search,
    /// When the next place is tried for a node's server.
    stagger: Timers<Uid>,
    polls: Timers<Uid>,
    reports: VecDeque<Report>,
    unsettled: Unsettled,
    metrics: Metrics,
}

impl Bridge {
    pub(crate) fn new(rules: Rules, rng: StdRng, metrics: Metrics) -> Self {
        let limits = Limits {
            // Each node waits for one request, its observations wait for none.
            max_requests: rules.max_nodes.saturating_mul(2).max(1024),
            max_exchanges: MAX_EXCHANGES,
            ..Limits::default()
        };
        Self {
            queue: Queue::new(rules.max_discoveries),
            access: Access::new(rules.plain_from.clone()),
            rules,
            endpoint: Endpoint::new(limits, rng),
            nodes: HashMap::new(),
            places: Places::default(),
            asked: HashMap::new(),
            directory: Directory::default(),
            search: Search::default(),
            stagger: Timers::default(),
            polls: Timers::default(),
            reports: VecDeque::new(),
            unsettled: Unsettled::default(),
            metrics,
        }
    }

    /// The counters of the endpoint.
    pub(crate) fn endpoint_metrics(&self) -> &endpoint::Metrics {
        self.endpoint.metrics()
    }

    /// A datagram has come in.
    pub(crate) fn handle_datagram(&mut self, from: impl Into<Remote>, datagram: &[u8], now: Now) {
        self.endpoint.handle_datagram(from, datagram, now.mono);
        self.handle_events(now);
    }

    /// A datagram has come in that was sent to a multicast group.
    pub(crate) fn handle_group_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Now) {
        self.endpoint
            .handle_group_datagram(from, datagram, now.mono);
        self.handle_events(now);
    }

    /// Some deadline has come.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.endpoint.handle_timeout(now.mono);
        self.handle_events(now);
        while let Some(uid) = self.stagger.pop_due(now.mono) {
            self.probe_next(&uid, now);
        }
        while let Some(uid) = self.polls.pop_due(now.mono) {
            self.poll(&uid, now);
        }
        self.handle_expiries(now);
        self.handle_search(now);
    }

    /// The runtime wants something.
    pub(crate) fn handle_order(&mut self, order: Order, now: Now) {
        match order {
            Order::Execute(request) => self.execute(request, now),
            Order::Restore {
                uid,
                address,
                resources,
                lifetime,
            } => self.restore(uid, address, &resources, lifetime, now),
            Order::Forget { uid } => self.forget(&uid, now),
        }
        self.handle_events(now);
    }

    fn handle_events(&mut self, now: Now) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request {
                    exchange,
                    peer,
                    request,
                    multicast,
                } => self.serve(exchange, peer, &request, multicast, now),
                Event::Response {
                    id,
                    result,
                    observed,
                    ..
                } => self.handle_response(id, result, observed, now),
                Event::Notification {
                    id, response, last, ..
                } => self.handle_notification(id, &response, last, now),
                Event::GroupResponse { peer, response, .. } => {
                    self.handle_found(peer, &response, now);
                }
                // Nothing here is pinged or observed.
                Event::Pong { .. } | Event::ObserverLeft { .. } => {}
            }
        }
    }

    /// The next datagram to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.endpoint.poll_transmit()
    }

    /// Whether [`Bridge::poll_report`] has one.
    pub(crate) fn has_report(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Whether so much waits for the bus that further pushes are better left waiting.
    pub(crate) fn is_behind(&self) -> bool {
        self.sheds(false)
    }

    /// Takes the next report.
    pub(crate) fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// When [`Bridge::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let own = [
            self.stagger.next(),
            self.polls.next(),
            self.directory.poll_timeout(),
            self.search.next,
        ];
        own.into_iter()
            .chain([self.endpoint.poll_timeout()])
            .flatten()
            .min()
    }

    fn report(&mut self, report: Report) {
        let must = matches!(report, Report::Answer { .. });
        if must || self.reports.len() < MAX_REPORTS {
            self.unsettled.reported();
            self.reports.push_back(report);
        } else {
            self.metrics.reports_dropped.inc();
        }
    }

    /// A node was known before the bridge started: pushes and writes work at once. It is not asked
    /// whether it is still there, unless it is registered: then it may be silent for long.
    fn restore(
        &mut self,
        uid: Uid,
        address: String,
        resources: &[Resource],
        lifetime: Option<Lifetime>,
        now: Now,
    ) {
        if self.nodes.contains_key(&uid) || self.nodes.len() >= self.rules.max_nodes {
            return;
        }
        self.remember_secure(&uid, &address);
        let server = address.parse().ok().map(Remote::Plain);
        let may_be = |server: &Remote| {
            let speaks = self.access.speaker(*server, uid.clone()).is_ok();
            let admitted = self.access.admits(*server).is_ok();
            speaks && admitted && self.places.server(*server).is_none()
        };
        let seat = Seat {
            server: server.filter(may_be),
            source: None,
        };
        self.places.reseat(&uid, Seat::default(), seat);
        let mut node = Node::new(seat, address);
        node.list(resources);
        node.reads.clear();
        let is_registered = self.directory.restore(&uid, seat.server, lifetime, now);
        self.insert(uid.clone(), node);
        if is_registered {
            self.discover(&uid, None, false, now);
        }
    }

    fn insert(&mut self, uid: Uid, node: Node) {
        self.access.arrived(&uid);
        self.nodes.insert(uid, node);
        self.count_nodes();
    }

    fn count_nodes(&self) {
        let nodes = i64::try_from(self.nodes.len()).unwrap_or(i64::MAX);
        self.metrics.nodes.set(nodes);
    }

    fn forget(&mut self, uid: &Uid, now: Now) {
        let Some(node) = self.nodes.remove(uid) else {
            return;
        };
        self.access.left(uid);
        self.places.reseat(uid, node.seat, Seat::default());
        self.stagger.cancel(uid);
        self.polls.cancel(uid);
        self.directory.forget(uid);
        for id in node.requests() {
            self.asked.remove(&id);
            self.endpoint.cancel(id, now.mono);
        }
        self.count_nodes();
        self.queue.leave(node.discovery.turn);
        self.start_discoveries(now);
    }

    /// Gives up a request or an observation.
    fn drop_request(&mut self, uid: &Uid, id: RequestId, now: Now) {
        self.asked.remove(&id);
        self.endpoint.cancel(id, now.mono);
        if let Some(node) = self.nodes.get_mut(uid) {
            node.current.take_if(|current| current.id == id);
        }
    }

    fn reseat(&mut self, uid: &Uid, to: Seat) {
        if let Some(node) = self.nodes.get_mut(uid) {
            self.places.reseat(uid, node.seat, to);
            node.seat = to;
        }
    }
}
