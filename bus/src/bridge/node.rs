//! One node as the registry knows it: state in, the publications that show it out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::registry::RESTORE_TIMEOUT;
use super::{BridgeConfig, Lifetime, Sample, Uid};
use crate::id::{NodeId, ResourceId};
use crate::payload::{Descriptor, NodeStatus, Reading, Resource, State};
use crate::session::Publication;
use crate::time::{Now, Timestamp};
use crate::topic::{Base, Topic};

/// Resources of one node; further ones are refused.
pub(super) const MAX_RESOURCES: usize = 256;
/// The longest path of a resource, in bytes.
const MAX_PATH: usize = 255;
/// The longest text taken over into a descriptor, in bytes.
const MAX_FACT: usize = 128;
/// `last_seen` is published at most so often while nothing else changes.
const SEEN_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) resource: Resource,
    /// It came from the node's own list, not from a push.
    listed: bool,
    pub(super) last: Option<Reading>,
    /// The round of the queue in which the last reading waits.
    queued: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) descriptor: Descriptor,
    pub(super) state: State,
    reason: &'static str,
    /// Known from before the restart, and not heard of since.
    restored: bool,
    /// Heard of before the bus has told whom it knows.
    pub(super) maybe_new: bool,
    /// How long it is registered, if it is.
    pub(super) lifetime: Option<Lifetime>,
    /// The bus may hold retained messages of it.
    pub(super) on_bus: bool,
    /// It is not forgotten for what was before this.
    kept_since: Instant,
    last_seen: Now,
    published_seen: Timestamp,
    pub(super) entries: BTreeMap<ResourceId, Entry>,
    /// The one deadline that stands for this node in the registry's table.
    pub(super) timer: Option<Instant>,
}

fn json(payload: &impl serde::Serialize) -> Vec<u8> {
    // These types have only string keys and finite numbers, which always serialize.
    serde_json::to_vec(payload).unwrap_or_default()
}

impl Node {
    pub(super) fn new(descriptor: Descriptor, now: Now) -> Self {
        Self {
            descriptor,
            state: State::Online,
            reason: "alive",
            restored: false,
            maybe_new: false,
            lifetime: None,
            on_bus: true,
            kept_since: now.mono,
            last_seen: now,
            published_seen: now.wall,
            entries: BTreeMap::new(),
            timer: None,
        }
    }

    /// As it was before the restart: offline until its own status says otherwise.
    pub(super) fn restored(descriptor: Descriptor, now: Now) -> Self {
        let mut node = Self::new(descriptor, now);
        node.restored = true;
        node.restore_state(false);
        node.last_seen.wall = node.descriptor.first_seen;
        node
    }

    pub(super) fn is_restored(&self) -> bool {
        self.restored
    }

    /// Whether it was taken back from what the bridge kept, long before the bus could tell.
    pub(super) fn was_kept_alone(&self, now: Now) -> bool {
        let age = now.mono.saturating_duration_since(self.kept_since);
        self.restored && age > RESTORE_TIMEOUT
    }

    /// Takes over the status from before the restart, as the bus knows it; `max_time` decides whether
    /// it still holds.
    pub(super) fn restore_status(
        &mut self,
        status: &NodeStatus,
        max_time: Option<Duration>,
        now: Now,
    ) {
        if status.last_seen < self.last_seen.wall {
            return;
        }
        let silent = now.wall.saturating_since(status.last_seen);
        let seen = now.mono.checked_sub(silent).unwrap_or(now.mono);
        self.last_seen = Now {
            mono: seen,
            wall: status.last_seen,
        };
        let holds = status.state == State::Online && max_time.is_some_and(|max| silent < max);
        self.restore_state(holds);
    }

    fn restore_state(&mut self, online: bool) {
        (self.state, self.reason) = match online {
            true => (State::Online, "restored"),
            false => (State::Offline, "restarted"),
        };
    }

    /// Takes over the status that the bridge kept itself. It does not say how long the node was
    /// silent, so `max_time` begins anew.
    pub(super) fn restore_kept_status(
        &mut self,
        status: &NodeStatus,
        max_time: Option<Duration>,
        now: Now,
    ) {
        self.last_seen = Now {
            mono: now.mono,
            wall: status.last_seen,
        };
        self.restore_state(status.state == State::Online && max_time.is_some());
    }

    /// A sign of life; gives whether the status is worth publishing.
    pub(super) fn seen(&mut self, now: Now) -> bool {
        self.last_seen = now;
        self.restored = false;
        let came_back = self.state == State::Offline || self.reason != "alive";
        self.state = State::Online;
        self.reason = "alive";
        came_back || now.wall.saturating_since(self.published_seen) >= SEEN_INTERVAL
    }

    /// Gives whether the node was online until now.
    pub(super) fn lost(&mut self, reason: &'static str) -> bool {
        let was_online = self.state == State::Online;
        if was_online {
            self.state = State::Offline;
            self.reason = reason;
        }
        was_online
    }

    /// When its state changes by itself.
    pub(super) fn deadline(&self, config: &BridgeConfig) -> Option<Instant> {
        match self.state {
            State::Online => config.max_time.map(|max| self.last_seen.mono + max),
            // A bridge that was away for long forgets no node for that.
            State::Offline => {
                let since = self.last_seen.mono.max(self.kept_since);
                Some(since + config.forget_after)
            }
        }
    }

    pub(super) fn resource(&self, id: &ResourceId) -> Option<&Entry> {
        self.entries.get(id)
    }

    pub(super) fn resources(&self) -> Vec<Resource> {
        self.entries
            .values()
            .map(|entry| entry.resource.clone())
            .collect()
    }

    /// The resources that are in the node's own list, or those that are not.
    pub(super) fn listed(&self, listed: bool) -> Vec<Resource> {
        let entries = self.entries.values();
        let wanted = entries.filter(|entry| entry.listed == listed);
        wanted.map(|entry| entry.resource.clone()).collect()
    }

    /// Takes back what was kept, each with the name that it had.
    pub(super) fn restore_resources(&mut self, listed: Vec<Resource>, pushed: Vec<Resource>) {
        let listed = listed.into_iter().map(|resource| (resource, true));
        let pushed = pushed.into_iter().map(|resource| (resource, false));
        for (resource, listed) in listed.chain(pushed).take(MAX_RESOURCES) {
            let Ok(id) = ResourceId::new(&resource.name) else {
                continue;
            };
            let entry = Entry {
                resource,
                listed,
                last: None,
                queued: None,
            };
            self.entries.insert(id, entry);
        }
    }

    /// Finds or makes the entry of a path; none when the node has too many or the path is no path.
    fn entry(&mut self, path: &str) -> Option<(ResourceId, bool)> {
        let wanted = ResourceId::from_text(path);
        if let Some(id) = self.find(path, &wanted) {
            return Some((id, false));
        }
        if path.is_empty() || path.len() > MAX_PATH || self.entries.len() >= MAX_RESOURCES {
            return None;
        }
        let id = std::iter::once(wanted.clone())
            .chain((2..).map(|n| wanted.numbered(n)))
            .find(|id| !self.entries.contains_key(id))?;
        let resource = Resource {
            name: id.as_str().to_owned(),
            path: path.to_owned(),
            ..Resource::default()
        };
        self.entries.insert(
            id.clone(),
            Entry {
                resource,
                listed: false,
                last: None,
                queued: None,
            },
        );
        Some((id, true))
    }

    /// The level of a path: the one `wanted` for it, unless other paths fall on that too. Nodes are
    /// many, so none has a table of its paths.
    fn find(&self, path: &str, wanted: &ResourceId) -> Option<ResourceId> {
        let has_path = |entry: &Entry| entry.resource.path == path;
        if self.entries.get(wanted).is_some_and(has_path) {
            return Some(wanted.clone());
        }
        let mut entries = self.entries.iter();
        let found = entries.find(|(_, entry)| has_path(entry));
        found.map(|(id, _)| id.clone())
    }

    /// Takes the node's list in place of the one before.
    pub(super) fn list(&mut self, listed: Vec<Resource>) -> ListChange {
        let before = self.resources();
        let mut kept = Vec::new();
        let mut refused = 0;
        for resource in listed {
            let Some((id, _)) = self.entry(&resource.path) else {
                refused += 1;
                continue;
            };
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.resource = Resource {
                    name: id.as_str().to_owned(),
                    ..resource
                };
                entry.listed = true;
            }
            kept.push(id);
        }
        let gone: Vec<ResourceId> = self
            .entries
            .iter()
            .filter(|(id, entry)| entry.listed && !kept.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            self.entries.remove(id);
        }
        ListChange {
            changed: self.resources() != before,
            gone,
            refused,
        }
    }

    /// Takes a value. None when the node has too many resources.
    pub(super) fn reading(
        &mut self,
        path: &str,
        sample: Sample,
        ts: Timestamp,
    ) -> Option<ReadingChange> {
        let (id, is_new) = self.entry(path)?;
        let facts_changed = self.take_fact(path, &sample.v);
        let reading = Reading {
            v: sample.v,
            u: sample.u,
            ts,
            raw: sample.raw,
            ct: sample.ct,
        };
        let entry = self.entries.get_mut(&id)?;
        entry.last = Some(reading);
        entry.queued = None;
        Some(ReadingChange {
            id,
            new_resource: is_new,
            facts_changed,
        })
    }

    /// The last reading of a resource waits in the queue, in this round.
    pub(super) fn queued(&mut self, id: &ResourceId, round: u64) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.queued = Some(round);
        }
    }

    /// What a node says about itself belongs into its descriptor too.
    fn take_fact(&mut self, path: &str, value: &Value) -> bool {
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return false,
        };
        if text.is_empty() || text.len() > MAX_FACT {
            return false;
        }
        let descriptor = &mut self.descriptor;
        let fact = match path {
            "name" => {
                let changed = descriptor.name != text;
                descriptor.name = text;
                return changed;
            }
            "os" => &mut descriptor.os,
            "board" => &mut descriptor.board,
            "mcu" => &mut descriptor.mcu,
            "vendor" => &mut descriptor.vendor,
            "version" => &mut descriptor.version,
            _ => return false,
        };
        let changed = fact.as_ref() != Some(&text);
        *fact = Some(text);
        changed
    }

    pub(super) fn publish_descriptor(&self, base: &Base) -> Publication {
        let topic = base.topic(&Topic::Node(self.descriptor.id.clone()));
        Publication::retained(topic, json(&self.descriptor))
    }

    pub(super) fn status(&self) -> NodeStatus {
        NodeStatus {
            state: self.state,
            reason: self.reason.to_owned(),
            last_seen: self.last_seen.wall,
        }
    }

    pub(super) fn publish_status(&mut self, base: &Base) -> Publication {
        let topic = base.topic(&Topic::NodeStatus(self.descriptor.id.clone()));
        self.published_seen = self.last_seen.wall;
        Publication::retained(topic, json(&self.status()))
    }

    pub(super) fn publish_resources(&self, base: &Base) -> Publication {
        let topic = base.topic(&Topic::Resources(self.descriptor.id.clone()));
        Publication::retained(topic, json(&self.resources()))
    }

    pub(super) fn publish_reading(&self, base: &Base, id: &ResourceId) -> Option<Publication> {
        let reading = self.entries.get(id)?.last.as_ref()?;
        let topic = base.topic(&Topic::Reading(self.descriptor.id.clone(), id.clone()));
        Some(Publication::retained(topic, json(reading)))
    }

    /// Everything that a subscriber needs to know it, but for readings that wait in this round of the
    /// queue: they come with those before them.
    pub(super) fn publish_all(&mut self, base: &Base, round: u64) -> Vec<Publication> {
        let mut all = vec![self.publish_descriptor(base), self.publish_status(base)];
        all.push(self.publish_resources(base));
        let readings: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.queued != Some(round))
            .filter_map(|(id, _)| self.publish_reading(base, id))
            .collect();
        all.extend(readings);
        all
    }

    /// Everything retained of it, the descriptor last.
    pub(super) fn topics(&self, base: &Base) -> Vec<String> {
        let id = &self.descriptor.id;
        let readings = self
            .entries
            .keys()
            .map(|r| Topic::Reading(id.clone(), r.clone()));
        readings
            .chain([
                Topic::Resources(id.clone()),
                Topic::NodeStatus(id.clone()),
                Topic::Node(id.clone()),
            ])
            .map(|topic| base.topic(&topic))
            .collect()
    }
}

/// What a new list changed.
pub(super) struct ListChange {
    pub(super) changed: bool,
    pub(super) gone: Vec<ResourceId>,
    pub(super) refused: u64,
}

/// What a value changed beside the value.
pub(super) struct ReadingChange {
    pub(super) id: ResourceId,
    pub(super) new_resource: bool,
    pub(super) facts_changed: bool,
}

/// The first descriptor of a node.
pub(super) fn descriptor(
    id: NodeId,
    uid: &Uid,
    address: String,
    config: &BridgeConfig,
    now: Now,
) -> Descriptor {
    Descriptor {
        id,
        uid: uid.as_str().to_owned(),
        name: uid.as_str().to_owned(),
        protocol: config.protocol.to_owned(),
        bridge: config.name.clone(),
        address,
        os: None,
        board: None,
        mcu: None,
        vendor: None,
        version: None,
        first_seen: now.wall,
        epoch: 0,
    }
}
