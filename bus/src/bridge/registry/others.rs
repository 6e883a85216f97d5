//! Nodes of other bridges, and who holds a node that several bridges hear.
//!
//! The bridge that published a node's descriptor first holds it, as long as it is online and hears the
//! node: others that hear the node too say nothing of it. When the holder is offline, or says that the
//! node is, the next one that hears it takes it over. Two that took it at once, for they could not see
//! each other, agree without a word: the one whose name comes first keeps it.

use std::collections::HashMap;

use super::{Holder, Registry};
use crate::bridge::metrics::Reason;
use crate::bridge::{Order, Uid};
use crate::id::{BridgeId, NodeId};
use crate::payload::{BridgeStatus, Descriptor, NodeStatus, State};
use crate::session::Message;
use crate::time::{Now, Timestamp};

/// More bridges than these are not told apart from bridges that are offline.
const MAX_BRIDGES: usize = 1024;

/// A node of another bridge.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) uid: String,
    pub(super) protocol: String,
    bridge: BridgeId,
    first_seen: Timestamp,
    /// Its bridge does not hear it any more.
    is_offline: bool,
}

/// What is known of other bridges.
#[derive(Debug, Default)]
pub(super) struct Others {
    bridges: HashMap<BridgeId, State>,
    /// Nodes of our protocol, by their uids.
    ids: HashMap<String, NodeId>,
    /// Some node is heard here too: it must be known how nodes are.
    overlap: bool,
}

impl Others {
    /// The node is ours.
    pub(super) fn forget(&mut self, uid: &Uid) {
        self.ids.remove(uid.as_str());
    }
}

impl Registry {
    /// Whether the status of all nodes is wanted, for other bridges hear the same ones.
    #[must_use]
    pub fn wants_all_statuses(&self) -> bool {
        self.others.overlap
    }

    /// Whether another bridge holds this node, which is heard here too.
    pub(super) fn is_held_elsewhere(&mut self, uid: &Uid) -> bool {
        let id = self.others.ids.get(uid.as_str());
        let Some(Holder::Other(other)) = id.and_then(|id| self.ids.get(id)) else {
            return false;
        };
        self.others.overlap = true;
        let is_there = self.others.bridges.get(&other.bridge) == Some(&State::Online);
        // Until the bus has told everything, whoever has the descriptor has the node.
        self.restoring || (is_there && !other.is_offline)
    }

    /// When a node was first seen that another bridge held until now; none when it is new.
    pub(super) fn known_elsewhere_since(&self, uid: &Uid) -> Option<Timestamp> {
        match self.ids.get(self.others.ids.get(uid.as_str())?)? {
            Holder::Other(other) => Some(other.first_seen),
            Holder::Ours(_) => None,
        }
    }

    /// A node that another bridge holds has said something here.
    pub(super) fn leave_to_other(&mut self, uid: &Uid) {
        self.metrics.dropped(Reason::HeldElsewhere);
        self.orders.push_back(Order::Forget { uid: uid.clone() });
    }

    pub(super) fn handle_bridge_status(&mut self, bridge: BridgeId, message: &Message) {
        if bridge == self.config.name {
            return self.finish_restoring();
        }
        let status = serde_json::from_slice::<BridgeStatus>(&message.payload);
        let state = status.map_or(State::Offline, |status| status.state);
        let bridges = &mut self.others.bridges;
        if bridges.len() < MAX_BRIDGES || bridges.contains_key(&bridge) {
            bridges.insert(bridge, state);
        }
    }

    /// The status of a node of another bridge.
    pub(super) fn handle_other_status(&mut self, id: &NodeId, message: &Message) {
        if let Some(Holder::Other(other)) = self.ids.get_mut(id)
            && let Ok(status) = serde_json::from_slice::<NodeStatus>(&message.payload)
        {
            other.is_offline = status.state == State::Offline;
        }
    }

    /// Another bridge publishes this node.
    pub(super) fn handle_other(&mut self, id: &NodeId, descriptor: Descriptor, now: Now) {
        if let Some(Holder::Ours(uid)) = self.ids.get(id) {
            let same =
                uid.as_str() == descriptor.uid && self.config.protocol == descriptor.protocol;
            if !same {
                tracing::warn!(node.id = %id, other = %descriptor.bridge, "two bridges publish different nodes under one id");
                return;
            }
            let uid = uid.clone();
            if self.keeps(&uid, &descriptor.bridge) {
                tracing::info!(node.id = %id, bridge = %descriptor.bridge, "another bridge hears the node too; it stays here");
                return self.publish_whole(&uid);
            }
            tracing::info!(node.id = %id, bridge = %descriptor.bridge, "node is another bridge's now");
            self.release(&uid, now);
        }
        let Descriptor {
            uid,
            protocol,
            bridge,
            first_seen,
            ..
        } = descriptor;
        if protocol == self.config.protocol {
            self.others.ids.insert(uid.clone(), id.clone());
        }
        let is_offline = match self.ids.get(id) {
            Some(Holder::Other(known)) if known.bridge == bridge => known.is_offline,
            _ => false,
        };
        let other = Other {
            uid,
            protocol,
            bridge,
            first_seen,
            is_offline,
        };
        self.ids.insert(id.clone(), Holder::Other(other));
    }

    /// Whether our node stays ours, although another bridge claims it.
    fn keeps(&self, uid: &Uid, other: &BridgeId) -> bool {
        let node = self.nodes.get(uid);
        let hears = node.is_some_and(|node| node.state == State::Online && !node.is_restored());
        hears && !self.restoring && self.config.name < *other
    }

    /// The topics of a node of another bridge are gone.
    pub(super) fn forget_other(&mut self, id: &NodeId) {
        if let Some(Holder::Other(other)) = self.ids.get(id) {
            if self.others.ids.get(&other.uid) == Some(id) {
                self.others.ids.remove(&other.uid);
            }
            self.ids.remove(id);
        }
    }

    /// Drops a node without touching its topics: they are another bridge's now.
    fn release(&mut self, uid: &Uid, now: Now) {
        let Some(node) = self.nodes.remove(uid) else {
            return;
        };
        if let Some(at) = node.timer {
            self.timers.remove(&(at, uid.clone()));
        }
        self.unsaved.insert(uid.clone());
        self.output.forget(uid);
        self.orders.push_back(Order::Forget { uid: uid.clone() });
        self.count_nodes(now);
        for id in self.requests.of(uid) {
            self.fail_request(id, "the node is another bridge's now", now);
        }
    }
}
