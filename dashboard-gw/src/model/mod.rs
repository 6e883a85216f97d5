//! What the gateway knows of the bus: made from the messages of the base, nothing else.
//!
//! A machine: messages and times in, changes out. After [`Model::handle_message`] and the other
//! `handle_*`, drain [`Model::poll_change`]. It refuses to grow beyond its [`Limits`], whatever is
//! published.
//!
//! After a reconnect the broker sends what it kept again. What was removed meanwhile does not come,
//! so everything that is not confirmed once the replay has been quiet for [`SETTLE`] is taken away.

mod entry;
pub(crate) mod order;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bus::id::{BridgeId, NodeId, ResourceId};
use bus::payload::{Ack, BridgeStatus, Descriptor, Event, Reading, Resource};
use bus::time::Now;
use bus::topic::{Base, Topic};
use prometheus_client::encoding::EncodeLabelValue;
use serde::de::DeserializeOwned;

use self::entry::{Entry, Held};
use self::order::{Key, Order};
use crate::message::BusState;

/// The latest events that a snapshot carries.
pub(crate) const EVENTS: usize = 200;
/// The longest event, in bytes.
const MAX_EVENT: usize = 4096;
/// The most bridges.
const MAX_BRIDGES: usize = 256;
/// How many things' changes are remembered for pages that are behind; 10 MiB at most.
const ORDER: usize = 32_768;
/// Longer than a session's longest back-off (15 s): when the broker itself forgot everything, the
/// bridges have republished it by then.
pub(crate) const SETTLE: Duration = Duration::from_secs(20);

/// How much is kept at the most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Nodes.
    pub(crate) nodes: usize,
    /// Resources of a node, and values of a node.
    pub(crate) resources: usize,
    /// Bytes of one payload.
    pub(crate) payload: usize,
    /// Bytes of all payloads that are kept.
    pub(crate) total: usize,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Dropped {
    /// Its topic is not of the tree.
    Topic,
    /// Its payload is not what its topic says.
    Malformed,
    /// Its payload is too long.
    TooLong,
    /// There is no room for one more.
    Full,
    /// It was retained though its topic never is.
    Retained,
}

/// What became of a message that was taken.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken {
    /// It is in the model now.
    State,
    /// A request ended.
    Ack(Topic, Ack),
    /// It is for others.
    Other,
}

/// The state of the bus as far as the gateway has heard.
#[derive(Debug)]
pub(crate) struct Model {
    base: Base,
    limits: Limits,
    bus: BusState,
    bridges: BTreeMap<BridgeId, Held<BridgeStatus>>,
    nodes: BTreeMap<NodeId, Entry>,
    events: VecDeque<(u64, Event)>,
    order: Order,
    changes: VecDeque<Key>,
    /// Bytes of all payloads that are kept.
    held: usize,
    /// Counts the connections; what is kept carries the one that confirmed it last.
    connection: u32,
    settled_at: Option<Instant>,
}

impl Model {
    pub(crate) fn new(base: Base, limits: Limits, now: Now) -> Self {
        Self {
            base,
            limits,
            bus: BusState {
                connected: false,
                since: now.wall.to_string(),
            },
            bridges: BTreeMap::new(),
            nodes: BTreeMap::new(),
            events: VecDeque::new(),
            order: Order::new(ORDER),
            changes: VecDeque::new(),
            held: 0,
            connection: 0,
            settled_at: None,
        }
    }

    /// The session to the bus stands; the broker's replay follows.
    pub(crate) fn handle_connected(&mut self, now: Now) {
        self.connection = self.connection.wrapping_add(1);
        self.settled_at = Some(now.mono + SETTLE);
        self.set_connected(true, now);
    }

    /// The session to the bus is lost; what is known stays.
    pub(crate) fn handle_disconnected(&mut self, now: Now) {
        self.settled_at = None;
        self.set_connected(false, now);
    }

    fn set_connected(&mut self, connected: bool, now: Now) {
        if self.bus.connected != connected {
            self.bus = BusState {
                connected,
                since: now.wall.to_string(),
            };
            self.touch(Key::Bus);
        }
    }

    /// Takes a message of the bus.
    ///
    /// # Errors
    /// Why it was not taken; the model is as before.
    pub(crate) fn handle_message(
        &mut self,
        topic: &str,
        payload: &[u8],
        retain: bool,
        now: Now,
    ) -> Result<Taken, Dropped> {
        if retain && let Some(settled_at) = &mut self.settled_at {
            *settled_at = now.mono + SETTLE;
        }
        let topic = self.base.parse(topic).ok_or(Dropped::Topic)?;
        if payload.len() > self.limits.payload {
            return Err(Dropped::TooLong);
        }
        match topic {
            Topic::BridgeStatus(id) => self.bridge_status(id, payload)?,
            Topic::Node(id) => self.descriptor(&id, payload)?,
            Topic::NodeStatus(id) => self.node_status(&id, payload)?,
            Topic::Resources(id) => self.resources(&id, payload)?,
            Topic::Reading(id, resource) => self.reading(&id, resource, payload)?,
            Topic::Events | Topic::Ack(..) | Topic::CommandAck(..) if retain => {
                return Err(Dropped::Retained);
            }
            Topic::Events => self.event(payload)?,
            Topic::Ack(..) | Topic::CommandAck(..) => {
                return Ok(Taken::Ack(topic, parse(payload)?));
            }
            Topic::Set(..) | Topic::Get(..) | Topic::Command(..) => return Ok(Taken::Other),
        }
        Ok(Taken::State)
    }

    /// When to call [`Model::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.settled_at
    }

    /// Takes away what the broker did not confirm.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if self.settled_at.is_none_or(|at| now.mono < at) {
            return;
        }
        self.settled_at = None;
        let connection = self.connection;
        let stale = self.bridges.iter();
        let stale = stale.filter(|(_, held)| held.connection != connection);
        let stale: Vec<_> = stale.map(|(id, _)| id.clone()).collect();
        for id in stale {
            self.remove_bridge(&id);
        }
        let ids: Vec<_> = self.nodes.keys().cloned().collect();
        for id in ids {
            self.change_entry(&id, |entry| entry.sweep(connection));
        }
    }

    /// The next thing that changed since the last call.
    pub(crate) fn poll_change(&mut self) -> Option<Key> {
        self.changes.pop_front()
    }

    fn touch(&mut self, key: Key) {
        self.order.touch(key.clone());
        self.changes.push_back(key);
    }

    /// Whether there is room for `new` bytes in place of `old`.
    fn room(&self, old: usize, new: usize) -> Result<(), Dropped> {
        let fits = self.held - old + new <= self.limits.total;
        if fits { Ok(()) } else { Err(Dropped::Full) }
    }

    fn bridge_status(&mut self, id: BridgeId, payload: &[u8]) -> Result<(), Dropped> {
        if payload.is_empty() {
            self.remove_bridge(&id);
            return Ok(());
        }
        let status: BridgeStatus = parse(payload)?;
        let old = self.bridges.get(&id);
        if old.is_none() && self.bridges.len() >= MAX_BRIDGES {
            return Err(Dropped::Full);
        }
        let old_size = old.map_or(0, |held| held.size);
        self.room(old_size, payload.len())?;
        let changed = old.is_none_or(|held| held.value != status);
        let held = Held::new(status, payload.len(), self.connection);
        self.held = self.held - old_size + held.size;
        self.bridges.insert(id.clone(), held);
        if changed {
            self.touch(Key::Bridge(id));
        }
        Ok(())
    }

    fn remove_bridge(&mut self, id: &BridgeId) {
        if let Some(held) = self.bridges.remove(id) {
            self.held -= held.size;
            self.touch(Key::Bridge(id.clone()));
        }
    }

    fn event(&mut self, payload: &[u8]) -> Result<(), Dropped> {
        if payload.len() > MAX_EVENT {
            return Err(Dropped::TooLong);
        }
        let event = parse(payload)?;
        let rev = self.order.next();
        self.events.push_back((rev, event));
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
        self.touch(Key::Event(rev));
        Ok(())
    }

    fn descriptor(&mut self, id: &NodeId, payload: &[u8]) -> Result<(), Dropped> {
        if payload.is_empty() {
            self.change_entry(id, Entry::clear);
            return Ok(());
        }
        let value: Descriptor = parse(payload)?;
        if value.id != *id {
            return Err(Dropped::Malformed);
        }
        let held = Held::new(value, payload.len(), self.connection);
        let key = Key::Node(id.clone());
        self.put(id, key, held, |entry| &mut entry.descriptor)
    }

    fn node_status(&mut self, id: &NodeId, payload: &[u8]) -> Result<(), Dropped> {
        if payload.is_empty() {
            self.change_entry(id, |entry| entry.status = None);
            return Ok(());
        }
        let held = Held::new(parse(payload)?, payload.len(), self.connection);
        let key = Key::Status(id.clone());
        self.put(id, key, held, |entry| &mut entry.status)
    }

    fn resources(&mut self, id: &NodeId, payload: &[u8]) -> Result<(), Dropped> {
        if payload.is_empty() {
            self.change_entry(id, |entry| entry.resources = None);
            return Ok(());
        }
        let value: Vec<Resource> = parse(payload)?;
        if value.len() > self.limits.resources {
            return Err(Dropped::Full);
        }
        let held = Held::new(value, payload.len(), self.connection);
        let key = Key::Node(id.clone());
        self.put(id, key, held, |entry| &mut entry.resources)
    }

    fn reading(
        &mut self,
        id: &NodeId,
        resource: ResourceId,
        payload: &[u8],
    ) -> Result<(), Dropped> {
        if payload.is_empty() {
            self.change_entry(id, |entry| drop(entry.values.remove(&resource)));
            return Ok(());
        }
        let reading: Reading = parse(payload)?;
        if let Some(entry) = self.nodes.get(id)
            && !entry.values.contains_key(&resource)
            && entry.values.len() >= self.limits.resources
        {
            return Err(Dropped::Full);
        }
        let held = Held::new(reading, payload.len(), self.connection);
        let key = Key::Value(id.clone(), resource.clone());
        self.put(id, key, held, |entry| {
            entry.values.entry(resource).or_default()
        })
    }

    /// Puts `held` into its slot of the node, making the node when it is new.
    fn put<T: PartialEq>(
        &mut self,
        id: &NodeId,
        key: Key,
        held: Held<T>,
        slot: impl FnOnce(&mut Entry) -> &mut Option<Held<T>>,
    ) -> Result<(), Dropped> {
        let is_new = !self.nodes.contains_key(id);
        if is_new && self.nodes.len() >= self.limits.nodes {
            return Err(Dropped::Full);
        }
        // What is replaced counts as well until it is: a limit, not an account.
        self.room(0, held.size)?;
        let slot = slot(self.nodes.entry(id.clone()).or_default());
        let changed = slot.as_ref().is_none_or(|old| old.value != held.value);
        self.held -= slot.as_ref().map_or(0, |old| old.size);
        self.held += held.size;
        *slot = Some(held);
        if is_new {
            self.touch(Key::Node(id.clone()));
        } else if changed {
            self.touch(key);
        }
        Ok(())
    }

    /// Takes something away from a node, and the node itself when nothing of it is left.
    fn change_entry(&mut self, id: &NodeId, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        let (size, parts) = (entry.size(), entry.parts());
        change(entry);
        self.held = self.held - size + entry.size();
        let left = entry.parts();
        if left == 0 {
            self.nodes.remove(id);
        }
        if left != parts {
            self.touch(Key::Node(id.clone()));
        }
    }
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Dropped> {
    serde_json::from_slice(payload).map_err(|_| Dropped::Malformed)
}
