//! The life of a node: from its first sign of life to its end, as its bridge reports it and as time
//! passes.

use super::{Holder, Registry, STATUS_DELAY};
use crate::bridge::metrics::Reason;
use crate::bridge::node::{self, Node};
use crate::bridge::{Order, Report, Sample, Uid};
use crate::id::NodeId;
use crate::payload::{EventType, Resource, State};
use crate::time::{Now, Timestamp};
use crate::topic::Topic;

impl Registry {
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

    pub(super) fn tell_new(&mut self, uid: &Uid, ts: Timestamp) {
        tracing::info!(node.uid = %uid, "node is new");
        self.event(EventType::NodeNew, uid, [], ts);
    }

    pub(super) fn insert(&mut self, uid: Uid, node: Node) {
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

    pub(super) fn forget(&mut self, uid: &Uid, now: Now) {
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

    /// One timer stands for a node; it is moved only when it must fire earlier, and moves itself on
    /// when it fires too early.
    pub(super) fn schedule(&mut self, uid: &Uid) {
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

    pub(super) fn handle_node_timer(&mut self, uid: &Uid, now: Now) {
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
}
