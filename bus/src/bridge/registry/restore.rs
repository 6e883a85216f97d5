//! What the bus still knows from before: our own nodes, and which levels other bridges hold.
//!
//! After the first connect the bridge reads its own retained topics back, so that a restart makes no
//! node vanish and none new, even when what it kept itself is lost. The end of that reading is marked
//! by the bridge's own status: the status of bridges is subscribed to last and so arrives last.

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

/// Filters that are needed while restoring only.
#[must_use]
pub fn restore_filters(config: &BridgeConfig) -> Vec<String> {
    [NODE_STATUS, "nodes/+/resources"]
        .map(|rest| config.base.join(rest))
        .to_vec()
}

const NODE_STATUS: &str = "nodes/+/status";

/// The filter of what [`Registry::wants_all_statuses`] wants.
#[must_use]
pub fn status_filter(config: &BridgeConfig) -> String {
    config.base.join(NODE_STATUS)
}

/// All filters, in the order in which they are to be subscribed to.
#[must_use]
pub fn filters(config: &BridgeConfig) -> Vec<String> {
    let always = [
        "nodes/+/res/+/set",
        "nodes/+/res/+/get",
        "nodes/+/cmd/+",
        "nodes/+",
    ];
    let always = always.map(|rest| config.base.join(rest)).into_iter();
    let mark = config.base.join("bridges/+/status");
    always
        .chain(restore_filters(config))
        .chain([mark])
        .collect()
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
                    lifetime: node.lifetime,
                });
            }
            self.publish_whole(&uid);
        }
    }

    pub(super) fn restore_descriptor(&mut self, id: &NodeId, message: &Message, now: Now) {
        if message.payload.is_empty() {
            return self.forget_other(id);
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
            self.handle_other(id, descriptor, now);
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
