//! Who may speak for which node.
//!
//! A node that has a shared key, or was ever seen over DTLS, is believed over DTLS only. Its name is
//! what it has proven; the uid that it sends must become that level of a topic.

use std::collections::{HashMap, HashSet};

use bus::bridge::Uid;
use bus::id::NodeId;

use crate::endpoint::{Remote, SessionId};
use crate::metrics::Refused;
use crate::network::Network;

#[derive(Debug)]
pub(super) struct Access {
    /// Where nodes may speak without DTLS.
    plain_from: Vec<Network>,
    /// Who has a shared key.
    keys: HashSet<NodeId>,
    /// Who was seen over DTLS, until the node is forgotten. As many as there are certificates and
    /// keys at the most.
    seen: HashSet<NodeId>,
    /// How many there are of both.
    bound: usize,
    /// Whose session it is.
    sessions: HashMap<SessionId, (Remote, NodeId)>,
    /// The sessions of a node, the latest last.
    by_name: HashMap<NodeId, Vec<SessionId>>,
    /// Nodes whose uid is spelled otherwise than its level of a topic.
    spelled: HashMap<NodeId, HashSet<Uid>>,
}

/// The level of a topic that a uid becomes.
pub(super) fn level(uid: &Uid) -> NodeId {
    NodeId::from_text(uid.as_str())
}

/// What a node with a proven name is called.
pub(super) fn uid_of(name: &NodeId) -> Option<Uid> {
    Uid::new(name.as_str()).ok()
}

impl Access {
    pub(super) fn new(plain_from: Vec<Network>) -> Self {
        Self {
            plain_from,
            keys: HashSet::new(),
            seen: HashSet::new(),
            bound: 0,
            sessions: HashMap::new(),
            by_name: HashMap::new(),
            spelled: HashMap::new(),
        }
    }

    /// Whether anything is taken from there at all.
    pub(super) fn admits(&self, peer: Remote) -> Result<(), Refused> {
        let ip = peer.address().ip();
        let is_ours = |network: &Network| network.contains(ip);
        if peer.session().is_some() || self.plain_from.iter().any(is_ours) {
            Ok(())
        } else {
            Err(Refused::DtlsRequired)
        }
    }

    /// The node that `peer` speaks for when it says that it is `uid`.
    pub(super) fn speaker(&self, peer: Remote, uid: Uid) -> Result<Uid, Refused> {
        let name = level(&uid);
        match peer.session() {
            None if self.is_bound(&name) => Err(Refused::BoundToDtls),
            None => Ok(uid),
            Some(session) => {
                let proven = self.name(session).filter(|proven| **proven == name);
                proven.and_then(uid_of).ok_or(Refused::WrongIdentity)
            }
        }
    }

    /// The name that was proven for a session.
    pub(super) fn name(&self, session: SessionId) -> Option<&NodeId> {
        self.sessions.get(&session).map(|(_, name)| name)
    }

    /// Whether a node is believed over DTLS only.
    pub(super) fn is_bound(&self, name: &NodeId) -> bool {
        self.keys.contains(name) || self.seen.contains(name)
    }

    /// The latest session of a node.
    pub(super) fn latest(&self, name: &NodeId) -> Option<Remote> {
        let session = self.by_name.get(name)?.last()?;
        self.sessions.get(session).map(|(remote, _)| *remote)
    }

    /// How many nodes there could be that are believed over DTLS only.
    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    /// Other names have keys now; gives those that had none before.
    pub(super) fn replace_keys(&mut self, keys: HashSet<NodeId>) -> Vec<NodeId> {
        let before = std::mem::replace(&mut self.keys, keys);
        self.bound = self.keys.union(&self.seen).count();
        self.keys.difference(&before).cloned().collect()
    }

    /// A node was seen over DTLS.
    pub(super) fn see(&mut self, name: NodeId) {
        self.bound += usize::from(!self.is_bound(&name));
        self.seen.insert(name);
    }

    pub(super) fn open(&mut self, session: SessionId, remote: Remote, name: NodeId) {
        self.by_name.entry(name.clone()).or_default().push(session);
        self.sessions.insert(session, (remote, name));
    }

    /// A session has ended; gives whose it was.
    pub(super) fn close(&mut self, session: SessionId) -> Option<(Remote, NodeId)> {
        let (remote, name) = self.sessions.remove(&session)?;
        if let Some(sessions) = self.by_name.get_mut(&name) {
            sessions.retain(|other| *other != session);
            if sessions.is_empty() {
                self.by_name.remove(&name);
            }
        }
        Some((remote, name))
    }

    /// There is a node of this uid.
    pub(super) fn arrived(&mut self, uid: &Uid) {
        let name = level(uid);
        if name.as_str() != uid.as_str() {
            self.spelled.entry(name).or_default().insert(uid.clone());
        }
    }

    /// There is none any more.
    pub(super) fn left(&mut self, uid: &Uid) {
        let name = level(uid);
        if let Some(uids) = self.spelled.get_mut(&name) {
            uids.remove(uid);
            if uids.is_empty() {
                self.spelled.remove(&name);
            }
        }
        if !self.by_name.contains_key(&name) && self.seen.remove(&name) {
            self.bound -= usize::from(!self.is_bound(&name));
        }
    }

    /// The nodes that took the level of this name with another spelling.
    pub(super) fn impostors(&self, name: &NodeId) -> Vec<Uid> {
        self.spelled
            .get(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}
