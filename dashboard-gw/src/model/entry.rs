//! What is kept of one node, and the bookkeeping of what is kept.

use std::collections::BTreeMap;

use bus::id::{NodeId, ResourceId};
use bus::payload::{Descriptor, NodeStatus, Reading, Resource};

use crate::message::Node;

/// A payload that is kept.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) value: T,
    /// Its length on the bus, in bytes.
    pub(super) size: usize,
    /// The connection that confirmed it last.
    pub(super) connection: u32,
}

impl<T> Held<T> {
    pub(super) fn new(value: T, size: usize, connection: u32) -> Self {
        Self {
            value,
            size,
            connection,
        }
    }
}

/// What is kept of one node; with nothing in it the node is not there.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) descriptor: Option<Held<Descriptor>>,
    pub(super) status: Option<Held<NodeStatus>>,
    pub(super) resources: Option<Held<Vec<Resource>>>,
    /// Never none; the option makes all slots alike.
    pub(super) values: BTreeMap<ResourceId, Option<Held<Reading>>>,
}

fn size<T>(slot: &Option<Held<T>>) -> usize {
    slot.as_ref().map_or(0, |held| held.size)
}

fn sweep<T>(slot: &mut Option<Held<T>>, connection: u32) {
    slot.take_if(|held| held.connection != connection);
}

impl Entry {
    /// Bytes of all its payloads.
    pub(super) fn size(&self) -> usize {
        let values: usize = self.values.values().map(size).sum();
        size(&self.descriptor) + size(&self.status) + size(&self.resources) + values
    }

    /// How many payloads it has.
    pub(super) fn parts(&self) -> usize {
        usize::from(self.descriptor.is_some())
            + usize::from(self.status.is_some())
            + usize::from(self.resources.is_some())
            + self.values.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes away what another connection confirmed last; all of it when that is the descriptor.
    pub(super) fn sweep(&mut self, connection: u32) {
        let described = self.descriptor.is_some();
        sweep(&mut self.descriptor, connection);
        if described && self.descriptor.is_none() {
            return self.clear();
        }
        sweep(&mut self.status, connection);
        sweep(&mut self.resources, connection);
        self.values.retain(|_, held| {
            held.as_ref()
                .is_some_and(|held| held.connection == connection)
        });
    }

    pub(super) fn readings(&self) -> impl Iterator<Item = (&ResourceId, &Reading)> {
        let values = self.values.iter();
        values.filter_map(|(id, held)| Some((id, &held.as_ref()?.value)))
    }

    /// The node as the page gets it.
    pub(super) fn node(&self, id: &NodeId) -> Node {
        Node {
            id: id.to_string(),
            descriptor: self.descriptor.as_ref().map(|held| held.value.clone()),
            status: self.status.as_ref().map(|held| held.value.clone()),
            resources: (self.resources.as_ref()).map_or_else(Vec::new, |held| held.value.clone()),
            values: self
                .readings()
                .map(|(id, reading)| (id.to_string(), reading.clone()))
                .collect(),
        }
    }
}
