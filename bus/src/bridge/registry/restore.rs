//! What the bus still knows from before: our own nodes, and which levels other bridges hold.
//!
//! After the first connect the bridge reads its own retained topics back, so that a restart makes no
//! node vanish and none new, even when what it kept itself is lost. The end of that reading is marked by the bridge's own status, which is
//! subscribed to last and so arrives last.

use std::time::Duration;

use super::{Holder, Registry};
use crate::bridge::node::Node;
use crate::bridge::{BridgeConfig, Order, Uid};
use crate::id::NodeId;
use crate::payload::{Descriptor, NodeStatus, Resource};
use crate::session::Message;
use crate::time::Now;

/// Reports wait so long for what the bus knows; after that they are taken as they come, and what is
/// read back later is merged.
pub const RESTORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Filters that are needed while restoring only, in this order, the mark last.
#[must_use]
pub fn restore_filters(config: &BridgeConfig) -> Vec<String> {
    let mark = format!("bridges/{}/status", config.name);
    ["nodes/+/status", "nodes/+/resources", &mark]
        .map(|rest| config.base.join(rest))
        .to_vec()
}

/// Filters that are needed all the time.
#[must_use]
pub fn filters(config: &BridgeConfig) -> Vec<String> {
    [
        "nodes/+/res/+/set",
        "nodes/+/res/+/get",
        "nodes/+/cmd/+",
        "nodes/+",
    ]
    .map(|rest| config.base.join(rest))
    .to_vec()
}

impl Registry {
    /// Whether the bus has not been read back yet.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        self.restoring
    }

    /// Everything that the bus knew was read.
    pub fn finish_restoring(&mut self) {
        if !std::mem::replace(&mut self.restoring, false) {
            return;
        }
        let new = self.nodes.iter_mut().filter_map(|(uid, node)| {
            let is_new = std::mem::take(&mut node.maybe_new);
            is_new.then(|| (node.descriptor.first_seen, uid.clone()))
        });
        let mut new: Vec<_> = new.collect();
        new.sort();
        for (ts, uid) in new {
            self.tell_new(&uid, ts);
        }
        let restored = self.nodes.iter().filter(|(_, node)| node.is_restored());
        let uids: Vec<Uid> = restored.map(|(uid, _)| uid.clone()).collect();
        if !uids.is_empty() {
            tracing::info!(
                nodes = uids.len(),
                "nodes are known from before the restart"
            );
        }
        for uid in uids {
            if let Some(node) = self.nodes.get(&uid) {
                self.orders.push_back(Order::Restore {
                    uid: uid.clone(),
                    address: node.descriptor.address.clone(),
                    resources: node.listed(true),
                });
            }
            self.publish_whole(&uid);
        }
    }

    pub(super) fn restore_descriptor(&mut self, id: &NodeId, message: &Message, now: Now) {
        if message.payload.is_empty() {
            if matches!(self.ids.get(id), Some(Holder::Other { .. })) {
                self.ids.remove(id);
            }
            return;
        }
        let Ok(descriptor) = serde_json::from_slice::<Descriptor>(&message.payload) else {
            return;
        };
        if descriptor.id != *id {
            return;
        }
        if descriptor.bridge == self.config.name {
            self.restore_own(descriptor, now);
        } else {
            self.note_other(id, descriptor);
        }
    }

    fn restore_own(&mut self, descriptor: Descriptor, now: Now) {
        let Ok(uid) = Uid::new(&descriptor.uid) else {
            return;
        };
        if !self.restoring {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&uid) {
            // Heard of before the bus came: the same node, and not a new one.
            node.descriptor.first_seen = node.descriptor.first_seen.min(descriptor.first_seen);
            node.descriptor.epoch = node.descriptor.epoch.max(descriptor.epoch);
            node.maybe_new = false;
        } else if self.nodes.len() < self.config.max_nodes {
            self.unsaved.insert(uid.clone());
            self.insert(uid, Node::restored(descriptor, now));
        }
    }

    /// Another bridge publishes this node. If we had it, it has moved there.
    fn note_other(&mut self, id: &NodeId, descriptor: Descriptor) {
        if let Some(Holder::Ours(uid)) = self.ids.get(id) {
            let same =
                uid.as_str() == descriptor.uid && self.config.protocol == descriptor.protocol;
            if !same {
                tracing::warn!(node.id = %id, other = %descriptor.bridge, "two bridges publish different nodes under one id");
                return;
            }
            let uid = uid.clone();
            tracing::info!(node.id = %id, bridge = %descriptor.bridge, "node has moved to another bridge");
            self.release(&uid);
        }
        let Descriptor { uid, protocol, .. } = descriptor;
        self.ids.insert(id.clone(), Holder::Other { uid, protocol });
    }

    /// Drops a node without touching its topics: they are another bridge's now.
    fn release(&mut self, uid: &Uid) {
        let Some(node) = self.nodes.remove(uid) else {
            return;
        };
        if let Some(at) = node.timer {
            self.timers.remove(&(at, uid.clone()));
        }
        self.unsaved.insert(uid.clone());
        self.output.forget(uid);
        self.orders.push_back(Order::Forget { uid: uid.clone() });
    }

    pub(super) fn restore_status(&mut self, id: &NodeId, message: &Message, now: Now) {
        let max_time = self.config.max_time;
        let Some((uid, node)) = self.restored_node(id) else {
            return;
        };
        if node.was_kept_alone(now) {
            // The bus was away at the restart: what it knows is older than what was kept.
            return;
        }
        if let Ok(status) = serde_json::from_slice::<NodeStatus>(&message.payload) {
            node.restore_status(&status, max_time, now);
            self.schedule(&uid);
        }
    }

    pub(super) fn restore_resources(&mut self, id: &NodeId, message: &Message) {
        // What the bridge kept itself says more: which of them are in the node's own list.
        let node = self.restored_node(id).map(|(_, node)| node);
        let Some(node) = node.filter(|node| node.entries.is_empty()) else {
            return;
        };
        if let Ok(resources) = serde_json::from_slice::<Vec<Resource>>(&message.payload) {
            node.restore_resources(resources, Vec::new());
        }
    }

    fn restored_node(&mut self, id: &NodeId) -> Option<(Uid, &mut Node)> {
        if !self.restoring {
            return None;
        }
        let Some(Holder::Ours(uid)) = self.ids.get(id) else {
            return None;
        };
        let uid = uid.clone();
        let node = self.nodes.get_mut(&uid).filter(|node| node.is_restored())?;
        Some((uid, node))
    }
}
