//! The bridge machine: which nodes there are, how they are, and what is asked of them.
//!
//! Inputs are `handle_*`, each with the time. After each input drain [`Registry::poll_to_queue`],
//! [`Registry::poll_kept`], [`Registry::poll_publication`] as far as the session has room, and
//! [`Registry::poll_order`], and ask [`Registry::poll_timeout`] when [`Registry::handle_timeout`] is
//! due. Time must not go back.
//!
//! What it refuses to do: it keeps no values but the latest of each resource - those that the bus has
//! not seen wait in the queue - and it never publishes on a topic of a node that another bridge owns.

mod commands;
mod kept;
mod life;
mod others;
mod output;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::metrics::Metrics;
use super::node::Node;
use super::request::Requests;
use super::{BridgeConfig, Order, Uid};
use crate::admin::Admin;
use crate::id::NodeId;
use crate::payload::{BridgeStatus, Event, EventType, State};
use crate::session::{Message, Publication};
use crate::time::{Now, Timestamp};
use crate::topic::Topic;
use others::{Other, Others};
use output::Output;
pub use restore::{RESTORE_TIMEOUT, filters, restore_filters, status_filter};

/// The bridge's own status follows the number of its nodes after so long at the most.
const STATUS_DELAY: Duration = Duration::from_secs(1);

/// Who has a level of `nodes/<n>`.
#[derive(Debug)]
enum Holder {
    Ours(Uid),
    Other(Other),
}

/// The machine. See the module for the order of calls.
#[derive(Debug)]
pub struct Registry {
    config: BridgeConfig,
    nodes: HashMap<Uid, Node>,
    ids: HashMap<NodeId, Holder>,
    others: Others,
    timers: BTreeSet<(Instant, Uid)>,
    requests: Requests,
    output: Output,
    orders: VecDeque<Order>,
    status_due: Option<Instant>,
    restoring: bool,
    /// Nodes of which what is kept on disk is not what is known.
    unsaved: BTreeSet<Uid>,
    metrics: Metrics,
}

impl Registry {
    /// A bridge that knows no nodes yet; see [`Registry::is_restoring`].
    #[must_use]
    pub fn new(config: BridgeConfig) -> Self {
        Self {
            config,
            nodes: HashMap::new(),
            ids: HashMap::new(),
            others: Others::default(),
            timers: BTreeSet::new(),
            requests: Requests::default(),
            output: Output::default(),
            orders: VecDeque::new(),
            status_due: None,
            restoring: true,
            unsaved: BTreeSet::new(),
            metrics: Metrics::default(),
        }
    }

    /// Announces the counters.
    pub fn register_metrics(&self, admin: &Admin) {
        self.metrics.register(admin, self.config.protocol);
    }

    /// The Will Message, and the last publication of a clean stop: the bridge is offline.
    #[must_use]
    pub fn offline(config: &BridgeConfig, ts: Option<Timestamp>) -> Publication {
        Self::status(config, State::Offline, 0, ts)
    }

    fn status(
        config: &BridgeConfig,
        state: State,
        nodes: usize,
        ts: Option<Timestamp>,
    ) -> Publication {
        let status = BridgeStatus {
            state,
            protocol: config.protocol.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
            ts,
        };
        let topic = config.base.topic(&Topic::BridgeStatus(config.name.clone()));
        Publication::retained(topic, serde_json::to_vec(&status).unwrap_or_default())
    }

    /// What is counted, for the queue beside this.
    pub(super) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The session stands; the bus may know nothing of us.
    pub fn handle_connected(&mut self, now: Now) {
        let first = Self::status(
            &self.config,
            State::Online,
            self.nodes.len(),
            Some(now.wall),
        );
        let restoring = self.restoring;
        let known = self.nodes.iter_mut();
        // What was kept is shown when the bus has told what it knows, which may be newer.
        let shown = known.filter(|(_, node)| !(restoring && node.is_restored()));
        let shown = shown.map(|(uid, node)| {
            node.on_bus = true;
            uid.clone()
        });
        self.output.connect(first, shown);
    }

    /// The session is lost.
    pub fn handle_disconnected(&mut self) {
        for publication in self.output.disconnect() {
            if let Some(publication) = self.keep_in_order(publication) {
                self.output.ordered(publication);
            }
        }
    }

    /// What becomes of a publication that the session could not deliver: readings, events and acks
    /// wait in the queue; state is published anew with the next connection.
    pub fn keep_in_order(&mut self, publication: Publication) -> Option<Publication> {
        if !publication.retain {
            return Some(publication);
        }
        if publication.payload.is_empty() {
            self.output.removal(publication.topic);
            return None;
        }
        let Some(Topic::Reading(node, resource)) = self.config.base.parse(&publication.topic)
        else {
            return None;
        };
        let round = self.output.round();
        if let Some(node) = self.node_mut(&node) {
            node.queued(&resource, round);
        }
        Some(publication)
    }

    /// A publication out of the queue, as it may be published now: a reading stays in its topic only
    /// while the node has the resource.
    #[must_use]
    pub fn from_queue(&mut self, publication: Publication) -> Publication {
        let Some(Topic::Reading(node, resource)) = self.config.base.parse(&publication.topic)
        else {
            return publication;
        };
        let node = self.node_mut(&node);
        let retain = node.is_some_and(|node| node.resource(&resource).is_some());
        Publication {
            retain,
            ..publication
        }
    }

    /// Everything that was in the queue is on its way, `lost`: but for the oldest, for which there
    /// was no room.
    pub fn handle_caught_up(&mut self, lost: bool) {
        self.output.caught_up();
        if lost {
            // The last value of a resource may be among what was dropped.
            self.output.show(self.nodes.keys().cloned());
        }
    }

    /// Whether readings go to the queue, and not to the bus at once.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.output.is_behind()
    }

    /// Whether there is a session.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.output.is_connected()
    }

    /// The next publication for the queue.
    pub fn poll_to_queue(&mut self) -> Option<Publication> {
        self.output.pop_to_queue()
    }

    fn node_mut(&mut self, id: &NodeId) -> Option<&mut Node> {
        match self.ids.get(id)? {
            Holder::Ours(uid) => self.nodes.get_mut(uid),
            Holder::Other(_) => None,
        }
    }

    /// A message of one of our subscriptions.
    pub fn handle_message(&mut self, message: &Message, now: Now) {
        let Some(topic) = self.config.base.parse(&message.topic) else {
            return;
        };
        match topic {
            Topic::Node(id) => self.restore_descriptor(&id, message, now),
            Topic::NodeStatus(id) => {
                self.handle_other_status(&id, message);
                self.restore_status(&id, message, now);
            }
            Topic::Resources(id) => self.restore_resources(&id, message),
            Topic::BridgeStatus(bridge) => self.handle_bridge_status(bridge, message),
            topic @ (Topic::Set(..) | Topic::Get(..) | Topic::Command(..)) => {
                self.handle_request(topic, message, now);
            }
            Topic::Reading(..) | Topic::Ack(..) | Topic::CommandAck(..) | Topic::Events => {}
        }
    }

    /// Some deadline has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(id) = self.requests.expired(now.mono) {
            self.time_out(id, now);
        }
        while let Some((at, _)) = self.timers.first()
            && *at <= now.mono
        {
            let Some((_, uid)) = self.timers.pop_first() else {
                break;
            };
            self.handle_node_timer(&uid, now);
        }
        if self.status_due.is_some_and(|due| due <= now.mono) {
            self.status_due = None;
            if self.output.is_connected() {
                let status = Self::status(
                    &self.config,
                    State::Online,
                    self.nodes.len(),
                    Some(now.wall),
                );
                self.output.passing(status);
            }
        }
    }

    /// When [`Registry::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.requests.next_deadline(), self.status_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether anything that was to be published at once still waits for room in the session.
    #[must_use]
    pub fn has_publications(&self) -> bool {
        self.output.has_live()
    }

    /// The next message to publish; none while the bus is away.
    pub fn poll_publication(&mut self) -> Option<Publication> {
        loop {
            if let Some(publication) = self.output.pop() {
                return Some(publication);
            }
            let uid = self.output.pop_stale()?;
            if let Some(node) = self.nodes.get_mut(&uid) {
                let round = self.output.round();
                let all = node.publish_all(&self.config.base, round);
                self.output.extend(all);
            }
        }
    }

    /// Whether [`Registry::poll_order`] has an order.
    #[must_use]
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// The next order for the driver. Requests wait here up to [`ORDER_QUEUE`](super::ORDER_QUEUE).
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The bridge's own status says how many there are.
    fn count_nodes(&mut self, now: Now) {
        let nodes = i64::try_from(self.nodes.len()).unwrap_or(i64::MAX);
        self.metrics.nodes.set(nodes);
        self.status_due.get_or_insert(now.mono + STATUS_DELAY);
    }

    fn publish_whole(&mut self, uid: &Uid) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        for publication in node.publish_all(&self.config.base, self.output.round()) {
            self.output.state(uid, publication, &self.metrics);
        }
    }

    fn event<const N: usize>(
        &mut self,
        kind: EventType,
        uid: &Uid,
        detail: [(&str, Value); N],
        ts: Timestamp,
    ) {
        let node = self.nodes.get(uid).map(|node| node.descriptor.id.clone());
        let detail: Map<String, Value> = detail
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let bridge = Some(self.config.name.clone());
        let event = Event {
            kind,
            node,
            bridge,
            ts,
            detail,
        };
        let payload = serde_json::to_vec(&event).unwrap_or_default();
        let topic = self.config.base.topic(&Topic::Events);
        self.output.ordered(Publication::passing(topic, payload));
    }
}
