//! What is known of one node, and what is to be asked of it.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use bus::bridge as orders;
use bus::payload::Resource;

use super::Rules;
use super::places::{self, Host, Seat};
use super::write::Profile;
use crate::block::Block;
use crate::endpoint::{Remote, RequestId};

/// Further resources of a node are not taken.
const MAX_RESOURCES: usize = 256;

/// What the bridge needs of what a node's list says about a resource; the rest is the registry's.
#[derive(Debug)]
pub(super) struct Listed {
    /// Content-Formats.
    pub(super) formats: Box<[u16]>,
    /// It says that it can be observed.
    pub(super) obs: bool,
}

/// The bridge's side of one resource.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// As the node's list says; none when it was only pushed.
    pub(super) listed: Option<Listed>,
    /// When a value came last, or was asked for in vain.
    pub(super) fresh: Option<Instant>,
    /// The node does not let it be read.
    pub(super) unreadable: bool,
    /// The node said that it has no such resource, although its list has.
    pub(super) missing: bool,
    /// The Content-Format of the last response.
    pub(super) format: Option<u16>,
    /// The node notifies of it under this request.
    pub(super) observation: Option<RequestId>,
}

impl Entry {
    /// When it is to be read again; none when it is not to be.
    fn due(&self, interval: Duration, now: Instant) -> Option<Instant> {
        let polled = self.listed.is_some() && !self.unreadable;
        polled.then(|| self.fresh.map_or(now, |fresh| fresh + interval))
    }
}

/// Whether a node is being asked for its resources; the block whose turns it counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Turn {
    #[default]
    None,
    Waiting(Block),
    Running(Block),
}

/// The question for the resources of a node.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    pub(super) turn: Turn,
    /// Where the node's server may be and has not been looked for yet.
    pub(super) candidates: VecDeque<Remote>,
    /// Where it is being looked for.
    pub(super) probes: Vec<(RequestId, Remote)>,
    /// The next candidate is asked only when the last has failed.
    pub(super) patient: bool,
    /// A server that answered, but not with a list.
    pub(super) fallback: Option<Remote>,
    /// Where the sign of life came from that made us ask, when that is a new place.
    pub(super) source: Option<Remote>,
    /// The node has said there that it started anew.
    pub(super) reset: bool,
    /// Requests from the bus that wait for the end.
    pub(super) asked_by: Vec<orders::RequestId>,
    /// Signs of life begin no other one before this.
    pub(super) not_before: Option<Instant>,
    /// How many have failed in a row.
    pub(super) failures: u32,
    /// One has succeeded since the bridge knows the node.
    pub(super) done: bool,
    /// When the node gave its list last.
    pub(super) listed_at: Option<Instant>,
    /// It was begun to see whether the list has changed, and for nothing else.
    pub(super) routine: bool,
}

/// What a node is being asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Current {
    pub(super) id: RequestId,
    /// The path that is read by routine: the request may be given up for something urgent.
    pub(super) routine: Option<String>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) seat: Seat,
    /// The address that the bus knows.
    pub(super) announced: String,
    /// The last sign of life; none since it was restored.
    pub(super) seen: Option<Instant>,
    /// When it started, as far as is known.
    pub(super) started: Option<Instant>,
    /// Another node has answered at its address; it may not take that back while the other lives.
    pub(super) replaced: bool,
    pub(super) resources: BTreeMap<String, Entry>,
    pub(super) profile: Profile,
    /// Of the last list that it gave: nodes are many, and a list is long.
    fingerprint: u64,
    pub(super) discovery: Discovery,
    pub(super) current: Option<Current>,
    /// Requests from the bus; the bridge runtime bounds them per node.
    pub(super) urgent: VecDeque<orders::Request>,
    /// Paths to read, each once.
    pub(super) reads: VecDeque<String>,
}

impl Node {
    pub(super) fn new(seat: Seat, announced: String) -> Self {
        Self {
            seat,
            announced,
            seen: None,
            started: None,
            replaced: false,
            resources: BTreeMap::new(),
            profile: Profile::of(&[]),
            fingerprint: fingerprint(&[]),
            discovery: Discovery::default(),
            current: None,
            urgent: VecDeque::new(),
            reads: VecDeque::new(),
        }
    }

    /// Whether it is at this address, as far as is known.
    pub(super) fn is_at(&self, host: Host) -> bool {
        let place = self.seat.server.or(self.seat.source);
        place.is_some_and(|place| places::host(place) == host)
    }

    /// Notes a value; false when the node has too many resources for it.
    pub(super) fn note_value(&mut self, path: &str, now: Instant) -> bool {
        if let Some(entry) = self.resources.get_mut(path) {
            entry.fresh = Some(now);
            return true;
        }
        if self.resources.len() >= MAX_RESOURCES {
            return false;
        }
        let entry = Entry {
            fresh: Some(now),
            ..Entry::default()
        };
        self.resources.insert(path.to_owned(), entry);
        true
    }

    /// Takes the node's list in place of the last one; gives the observations that are of no use
    /// any more. Resources that are only pushed stay.
    pub(super) fn list(&mut self, listed: &[Resource]) -> Vec<RequestId> {
        let observations = self.drop_observations();
        self.resources
            .retain(|_, entry| entry.listed.take().is_none());
        for resource in listed {
            if self.resources.len() < MAX_RESOURCES || self.resources.contains_key(&resource.path) {
                let entry = self.resources.entry(resource.path.clone()).or_default();
                entry.listed = Some(Listed {
                    formats: resource.ct.as_slice().into(),
                    obs: resource.obs,
                });
            }
        }
        self.profile = Profile::of(listed);
        self.fingerprint = fingerprint(listed);
        self.reads = listed
            .iter()
            .map(|resource| resource.path.clone())
            .filter(|path| self.resources.contains_key(path))
            .collect();
        observations
    }

    /// Gives up all observations.
    pub(super) fn drop_observations(&mut self) -> Vec<RequestId> {
        let entries = self.resources.values_mut();
        entries
            .filter_map(|entry| entry.observation.take())
            .collect()
    }

    /// Whether this is the list that it gave before.
    pub(super) fn has_list(&self, list: &[Resource]) -> bool {
        self.fingerprint == fingerprint(list)
    }

    /// Nothing is being asked of it, or waits to be.
    pub(super) fn is_idle(&self) -> bool {
        self.current.is_none() && self.reads.is_empty() && self.discovery.turn == Turn::None
    }

    /// When something is to be read again, or the list.
    pub(super) fn next_poll(&self, rules: &Rules, now: Instant) -> Option<Instant> {
        let entries = self.resources.values();
        let values = entries.filter_map(|entry| entry.due(rules.poll_interval, now));
        values.chain(self.list_due(rules)).min()
    }

    /// When it is to be asked for its list again.
    pub(super) fn list_due(&self, rules: &Rules) -> Option<Instant> {
        let listed_at = self.discovery.listed_at.filter(|_| self.discovery.done)?;
        let due = listed_at + rules.rediscover_interval;
        Some(self.discovery.not_before.map_or(due, |at| at.max(due)))
    }

    /// Queues what is to be read by `until`.
    pub(super) fn queue_reads(&mut self, interval: Duration, until: Instant, now: Instant) {
        let current = self
            .current
            .as_ref()
            .and_then(|current| current.routine.as_ref());
        for (path, entry) in &self.resources {
            let due = entry.due(interval, now).is_some_and(|due| due <= until);
            if due && current != Some(path) && !self.reads.contains(path) {
                self.reads.push_back(path.clone());
            }
        }
    }

    /// Everything that is being asked of the node.
    pub(super) fn requests(&self) -> Vec<RequestId> {
        let current = self.current.iter().map(|current| current.id);
        let probes = self.discovery.probes.iter().map(|(id, _)| *id);
        let entries = self.resources.values();
        let observations = entries.filter_map(|entry| entry.observation);
        current.chain(probes).chain(observations).collect()
    }
}

/// The same for lists with the same resources in whatever order.
fn fingerprint(list: &[Resource]) -> u64 {
    let mut list: Vec<_> = list.iter().collect();
    list.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = DefaultHasher::new();
    list.hash(&mut hasher);
    hasher.finish()
}
