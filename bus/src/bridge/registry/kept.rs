//! What the bridge keeps of its nodes itself, so that a restart while the bus is away makes none
//! vanish, none new, and gives none another topic.

use serde::{Deserialize, Serialize};

use super::Registry;
use crate::bridge::node::Node;
use crate::bridge::{Lifetime, Order, Uid};
use crate::payload::{Descriptor, NodeStatus, Resource};
use crate::time::Now;

/// What is kept of one node.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    descriptor: Descriptor,
    status: NodeStatus,
    /// From the node's own list.
    listed: Vec<Resource>,
    /// From pushes alone.
    pushed: Vec<Resource>,
    #[serde(default)]
    lifetime: Option<Lifetime>,
}

impl Registry {
    /// A node is registered for so long, or no more.
    pub(super) fn registered(&mut self, uid: &Uid, lifetime: Option<Lifetime>) {
        if let Some(node) = self.nodes.get_mut(uid)
            && node.lifetime != lifetime
        {
            node.lifetime = lifetime;
            self.unsaved.insert(uid.clone());
        }
    }

    /// A node that is to be kept as it is now, or no more (none).
    pub fn poll_kept(&mut self) -> Option<(Uid, Option<Vec<u8>>)> {
        let uid = self.unsaved.pop_first()?;
        let kept = self.nodes.get(&uid).map(|node| Kept {
            descriptor: node.descriptor.clone(),
            status: node.status(),
            listed: node.listed(true),
            pushed: node.listed(false),
            lifetime: node.lifetime,
        });
        // These types have only string keys and finite numbers, which always serialize.
        let kept = kept.map(|kept| serde_json::to_vec(&kept).unwrap_or_default());
        Some((uid, kept))
    }

    /// Takes back what was kept, before anything else is handled.
    pub fn restore_kept(&mut self, kept: &[(String, Vec<u8>)], now: Now) {
        for (uid, kept) in kept {
            let (Ok(uid), Ok(kept)) = (Uid::new(uid), serde_json::from_slice::<Kept>(kept)) else {
                tracing::warn!(node.uid = uid, "what was kept of a node can't be read");
                continue;
            };
            let ours = kept.descriptor.bridge == self.config.name;
            if !ours || self.nodes.len() >= self.config.max_nodes {
                continue;
            }
            let mut node = Node::restored(kept.descriptor, now);
            node.restore_kept_status(&kept.status, self.config.max_time, now);
            node.restore_resources(kept.listed, kept.pushed);
            node.lifetime = kept.lifetime;
            self.orders.push_back(Order::Restore {
                uid: uid.clone(),
                address: node.descriptor.address.clone(),
                resources: node.listed(true),
                lifetime: node.lifetime,
            });
            self.insert(uid, node);
        }
    }
}
