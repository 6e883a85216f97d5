//! What others read of the model: single things, all there is, what changed.

use std::collections::HashSet;

use bus::id::{BridgeId, NodeId, ResourceId};
use bus::payload::{Descriptor, NodeStatus, Reading, Resource, State};
use bus::topic::Base;

use super::Model;
use super::entry::Entry;
use super::order::Key;
use crate::message::{Bridge, BusState, Change, Node, ServerMessage};

impl Model {
    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    pub(crate) fn bus(&self) -> &BusState {
        &self.bus
    }

    /// The number of the last change.
    pub(crate) fn rev(&self) -> u64 {
        self.order.rev()
    }

    /// Whether the changes after `rev` are still known.
    pub(crate) fn knows(&self, rev: u64) -> bool {
        self.order.since(rev).is_some()
    }

    pub(crate) fn node_ids(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.keys()
    }

    pub(crate) fn knows_node(&self, id: &NodeId) -> bool {
        self.nodes.contains_key(id)
    }

    pub(crate) fn node_descriptor(&self, id: &NodeId) -> Option<&Descriptor> {
        Some(&self.nodes.get(id)?.descriptor.as_ref()?.value)
    }

    pub(crate) fn status(&self, id: &NodeId) -> Option<&NodeStatus> {
        Some(&self.nodes.get(id)?.status.as_ref()?.value)
    }

    pub(crate) fn node_resources(&self, id: &NodeId) -> &[Resource] {
        let resources = self.nodes.get(id).and_then(|node| node.resources.as_ref());
        resources.map_or(&[], |held| &held.value)
    }

    pub(crate) fn values(&self, id: &NodeId) -> impl Iterator<Item = (&ResourceId, &Reading)> {
        self.nodes.get(id).into_iter().flat_map(Entry::readings)
    }

    pub(crate) fn value(&self, id: &NodeId, resource: &ResourceId) -> Option<&Reading> {
        let held = self.nodes.get(id)?.values.get(resource)?;
        Some(&held.as_ref()?.value)
    }

    /// Whether a bridge is connected; none when it was never heard of.
    pub(crate) fn bridge_is_online(&self, id: &BridgeId) -> Option<bool> {
        Some(self.bridges.get(id)?.value.state == State::Online)
    }

    /// A node as the page gets it.
    pub(crate) fn node(&self, id: &NodeId) -> Option<Node> {
        Some(self.nodes.get(id)?.node(id))
    }

    /// All nodes as the page gets them.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = Node> {
        self.nodes.iter().map(|(id, entry)| entry.node(id))
    }

    /// All there is.
    pub(crate) fn snapshot(&self) -> ServerMessage {
        ServerMessage::Snapshot {
            rev: self.rev(),
            bus: self.bus.clone(),
            bridges: self
                .bridges
                .keys()
                .filter_map(|id| self.bridge(id))
                .collect(),
            nodes: self.nodes().collect(),
            events: self.events.iter().map(|(_, event)| event.clone()).collect(),
        }
    }

    /// What changed after `rev`, each thing as it is now; none when that is not known any more.
    ///
    /// A node that comes as a whole carries its status and values, so these don't come again.
    pub(crate) fn since(&self, rev: u64) -> Option<Vec<Change>> {
        let whole: HashSet<&NodeId> = (self.order.since(rev)?)
            .filter_map(|key| match key {
                Key::Node(id) => Some(id),
                _ => None,
            })
            .collect();
        let needed = |key: &&Key| match key {
            Key::Status(id) | Key::Value(id, _) => !whole.contains(id),
            _ => true,
        };
        let keys = self.order.since(rev)?.filter(needed);
        Some(keys.filter_map(|key| self.change(key)).collect())
    }

    fn bridge(&self, id: &BridgeId) -> Option<Bridge> {
        Some(Bridge {
            id: id.to_string(),
            status: self.bridges.get(id)?.value.clone(),
        })
    }

    fn change(&self, key: &Key) -> Option<Change> {
        Some(match key {
            Key::Bus => Change::Bus {
                bus: self.bus.clone(),
            },
            Key::Bridge(id) => match self.bridge(id) {
                Some(bridge) => Change::Bridge { bridge },
                None => Change::BridgeGone { id: id.to_string() },
            },
            Key::Node(id) => match self.node(id) {
                Some(node) => Change::Node {
                    node: Box::new(node),
                },
                None => Change::NodeGone { id: id.to_string() },
            },
            Key::Status(id) => Change::Status {
                id: id.to_string(),
                status: self.status(id)?.clone(),
            },
            Key::Value(id, resource) => Change::Value {
                id: id.to_string(),
                resource: resource.to_string(),
                reading: self.value(id, resource)?.clone(),
            },
            Key::Event(rev) => {
                let at = self
                    .events
                    .binary_search_by_key(rev, |(rev, _)| *rev)
                    .ok()?;
                Change::Event {
                    event: self.events.get(at)?.1.clone(),
                }
            }
        })
    }
}
