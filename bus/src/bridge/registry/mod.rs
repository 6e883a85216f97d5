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
mod others;
mod output;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::metrics::{Metrics, Reason};
use super::node::{self, Node};
use super::request::Requests;
use super::{BridgeConfig, Order, Report, Sample, Uid};
use crate::admin::Admin;
use crate::id::NodeId;
use crate::payload::{BridgeStatus, Event, EventType, Resource, State};
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

    /// What the driver tells.
    pub fn handle_report(&mut self, report: Report, now: Now) {
        match report {
            Report::Announce {
                uid,
                address,
                reset,
            } => self.announce(uid, address, reset, now),
            Report::Registered { uid, lifetime } => self.registered(&uid, Some(lifetime)),
            Report::Seen { uid } => self.seen(&uid, now),
            Report::Resources { uid, resources } => self.resources(&uid, resources, now),
            Report::Reading {
                uid,
                path,
                sample,
                ts,
            } => self.reading(&uid, &path, sample, ts, now),
            Report::Lost { uid, reason } => {
                self.lost(&uid, reason, now);
                self.registered(&uid, None);
            }
            Report::Gone { uid, reason } => {
                self.lost(&uid, reason, now);
                self.forget(&uid, now);
            }
            Report::Answer { id, answer } => self.handle_answer(id, &answer, now),
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

    fn announce(&mut self, uid: Uid, address: String, reset: bool, now: Now) {
        let base = &self.config.base;
        if let Some(node) = self.nodes.get_mut(&uid) {
            let moved = node.descriptor.address != address;
            node.descriptor.address = address;
            node.descriptor.epoch += u32::from(reset);
            if moved || reset {
                self.unsaved.insert(uid.clone());
                self.output
                    .state(&uid, node.publish_descriptor(base), &self.metrics);
            }
            if reset {
                self.event(EventType::NodeReset, &uid, [], now.wall);
            }
            self.seen(&uid, now);
            return;
        }
        if self.is_held_elsewhere(&uid) {
            return self.leave_to_other(&uid);
        }
        if self.nodes.len() >= self.config.max_nodes {
            self.metrics.dropped(Reason::TooManyNodes);
            return;
        }
        let id = self.free_id(&uid);
        let mut node = Node::new(node::descriptor(id, &uid, address, &self.config, now), now);
        let known_since = self.known_elsewhere_since(&uid);
        node.descriptor.first_seen = known_since.unwrap_or(now.wall);
        // Whether it is new is known when the bus has told what it knows.
        node.maybe_new = self.restoring && known_since.is_none();
        node.on_bus = self.output.is_connected();
        self.insert(uid.clone(), node);
        self.unsaved.insert(uid.clone());
        self.publish_whole(&uid);
        if !self.restoring && known_since.is_none() {
            self.tell_new(&uid, now.wall);
        }
        self.status_due.get_or_insert(now.mono + STATUS_DELAY);
    }

    fn tell_new(&mut self, uid: &Uid, ts: Timestamp) {
        tracing::info!(node.uid = %uid, "node is new");
        self.event(EventType::NodeNew, uid, [], ts);
    }

    fn insert(&mut self, uid: Uid, node: Node) {
        self.ids
            .insert(node.descriptor.id.clone(), Holder::Ours(uid.clone()));
        self.nodes.insert(uid.clone(), node);
        self.others.forget(&uid);
        self.metrics
            .nodes
            .set(i64::try_from(self.nodes.len()).unwrap_or(i64::MAX));
        self.schedule(&uid);
    }

    /// The level for a uid: free, or held elsewhere for this very node, which has come over to us.
    fn free_id(&self, uid: &Uid) -> NodeId {
        let wanted = NodeId::from_text(uid.as_str());
        let usable = |id: &NodeId| match self.ids.get(id) {
            None => true,
            Some(Holder::Ours(holder)) => holder == uid,
            Some(Holder::Other(other)) => {
                other.uid == uid.as_str() && other.protocol == self.config.protocol
            }
        };
        if usable(&wanted) {
            return wanted;
        }
        let mut n = 2;
        loop {
            let id = wanted.numbered(n);
            if usable(&id) {
                return id;
            }
            n += 1;
        }
    }

    fn seen(&mut self, uid: &Uid, now: Now) {
        let Some(node) = self.nodes.get_mut(uid) else {
            self.metrics.dropped(Reason::UnknownNode);
            return;
        };
        let was_offline = node.state == State::Offline;
        if node.seen(now) {
            if was_offline {
                self.unsaved.insert(uid.clone());
            }
            self.output
                .state(uid, node.publish_status(&self.config.base), &self.metrics);
        }
        self.schedule(uid);
    }

    fn resources(&mut self, uid: &Uid, resources: Vec<Resource>, now: Now) {
        self.seen(uid, now);
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let change = node.list(resources);
        for _ in 0..change.refused {
            self.metrics.dropped(Reason::TooManyResources);
        }
        for resource in change.gone {
            let topic = Topic::Reading(node.descriptor.id.clone(), resource);
            self.output.removal(self.config.base.topic(&topic));
        }
        if change.changed {
            self.unsaved.insert(uid.clone());
            self.output.state(
                uid,
                node.publish_resources(&self.config.base),
                &self.metrics,
            );
        }
    }

    fn reading(&mut self, uid: &Uid, path: &str, sample: Sample, ts: Timestamp, now: Now) {
        self.seen(uid, now);
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let Some(change) = node.reading(path, sample, ts) else {
            self.metrics.dropped(Reason::TooManyResources);
            return;
        };
        self.metrics.readings.inc();
        if change.facts_changed || change.new_resource {
            self.unsaved.insert(uid.clone());
        }
        let base = &self.config.base;
        if change.facts_changed {
            self.output
                .state(uid, node.publish_descriptor(base), &self.metrics);
        }
        if change.new_resource {
            self.output
                .state(uid, node.publish_resources(base), &self.metrics);
        }
        if let Some(reading) = node.publish_reading(base, &change.id)
            && let Some(round) = self.output.ordered(reading)
        {
            node.queued(&change.id, round);
        }
    }

    fn lost(&mut self, uid: &Uid, reason: &'static str, now: Now) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        if !node.lost(reason) {
            return;
        }
        tracing::info!(node.id = %node.descriptor.id, reason, "node is offline");
        self.output
            .state(uid, node.publish_status(&self.config.base), &self.metrics);
        self.unsaved.insert(uid.clone());
        let detail = [("reason", reason.into())];
        self.event(EventType::NodeLost, uid, detail, now.wall);
        self.schedule(uid);
        for id in self.requests.of(uid) {
            self.fail_request(id, "the node went offline", now);
        }
    }

    fn forget(&mut self, uid: &Uid, now: Now) {
        let Some(node) = self.nodes.get(uid) else {
            return;
        };
        if node.maybe_new {
            self.tell_new(uid, node.descriptor.first_seen);
        }
        self.event(EventType::NodeForgotten, uid, [], now.wall);
        let Some(node) = self.nodes.remove(uid) else {
            return;
        };
        tracing::info!(node.id = %node.descriptor.id, "node is forgotten");
        if let Some(at) = node.timer {
            self.timers.remove(&(at, uid.clone()));
        }
        self.ids.remove(&node.descriptor.id);
        self.output.forget(uid);
        self.unsaved.insert(uid.clone());
        if node.on_bus {
            for topic in node.topics(&self.config.base) {
                self.output.removal(topic);
            }
        }
        self.count_nodes(now);
        self.orders.push_back(Order::Forget { uid: uid.clone() });
        for id in self.requests.of(uid) {
            self.fail_request(id, "the node was forgotten", now);
        }
    }

    /// The bridge's own status says how many there are.
    fn count_nodes(&mut self, now: Now) {
        let nodes = i64::try_from(self.nodes.len()).unwrap_or(i64::MAX);
        self.metrics.nodes.set(nodes);
        self.status_due.get_or_insert(now.mono + STATUS_DELAY);
    }

    /// One timer stands for a node; it is moved only when it must fire earlier, and moves itself on
    /// when it fires too early.
    fn schedule(&mut self, uid: &Uid) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let wanted = node.deadline(&self.config);
        let earlier = match (wanted, node.timer) {
            (Some(wanted), Some(set)) => wanted < set,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            if let Some(at) = node.timer.take() {
                self.timers.remove(&(at, uid.clone()));
            }
            node.timer = wanted;
            self.timers.extend(wanted.map(|at| (at, uid.clone())));
        }
    }

    fn handle_node_timer(&mut self, uid: &Uid, now: Now) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        node.timer = None;
        match node.deadline(&self.config) {
            Some(due) if due > now.mono => self.schedule(uid),
            Some(_) if node.state == State::Online => self.lost(uid, "timeout", now),
            Some(_) => self.forget(uid, now),
            None => {}
        }
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
