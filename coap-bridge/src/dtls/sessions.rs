//! The sessions there are: by address, by name, and which was silent for longest.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bus::id::NodeId;
use bus::time::Timestamp;

use super::association::Association;
use super::keys::Key;
use crate::block::{Block, Tally};
use crate::endpoint::{SessionId, Timers};

/// A name has so many sessions at the most, so that whoever holds its key can't push out others. Full:
/// the one that was silent for longest ends. A node that crashed leaves one behind.
const MAX_PER_NAME: usize = 4;
/// A sign of life within this time of the last one changes nothing.
const PRECISION: Duration = Duration::from_secs(1);

/// By what a node has proven who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Key(Key),
    /// In DER, and until when it is valid.
    Certificate(Vec<u8>, Timestamp),
}

impl Credential {
    /// Whether its time is over.
    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        matches!(self, Self::Certificate(_, until) if *until < now)
    }
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) association: Association,
    pub(super) name: NodeId,
    pub(super) credential: Credential,
    /// When something came over it.
    heard: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    next: u64,
    by_address: HashMap<SocketAddr, Session>,
    addresses: HashMap<SessionId, SocketAddr>,
    by_name: HashMap<NodeId, Vec<SessionId>>,
    blocks: Tally,
    /// When a session has been silent for too long; so the first is the one that was silent for
    /// longest.
    idle: Timers<SessionId>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.by_address.len()
    }

    /// How many there are in one place.
    pub(super) fn at(&self, block: Block) -> usize {
        self.blocks.count(block)
    }

    pub(super) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Session> {
        self.by_address.get_mut(&address)
    }

    pub(super) fn get(&self, address: SocketAddr) -> Option<&Session> {
        self.by_address.get(&address)
    }

    pub(super) fn address(&self, id: SessionId) -> Option<SocketAddr> {
        self.addresses.get(&id).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_address.values()
    }

    /// A session that must make room before a further one of this name is taken.
    pub(super) fn surplus(&self, name: &NodeId, max: usize) -> Option<SessionId> {
        let of_name = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        if of_name.len() >= MAX_PER_NAME {
            let heard = |id: &&SessionId| {
                let address = self.addresses.get(id)?;
                Some(self.by_address.get(address)?.heard)
            };
            return of_name.iter().min_by_key(heard).copied();
        }
        let oldest = || self.idle.peek().map(|(_, id)| *id);
        (self.len() >= max).then(oldest)?
    }

    /// Takes a session in; there is none at its address.
    pub(super) fn insert(
        &mut self,
        address: SocketAddr,
        association: Association,
        name: NodeId,
        credential: Credential,
        (now, idle): (Instant, Duration),
    ) -> SessionId {
        let id = SessionId(self.next);
        self.next += 1;
        self.addresses.insert(id, address);
        self.by_name.entry(name.clone()).or_default().push(id);
        self.blocks.add(Block::of(address));
        self.idle.set(id, now + idle);
        let session = Session {
            id,
            association,
            name,
            credential,
            heard: now,
        };
        self.by_address.insert(address, session);
        id
    }

    pub(super) fn remove(&mut self, address: SocketAddr) -> Option<Session> {
        let session = self.by_address.remove(&address)?;
        self.addresses.remove(&session.id);
        self.blocks.remove(Block::of(address));
        self.idle.cancel(&session.id);
        if let Some(ids) = self.by_name.get_mut(&session.name) {
            ids.retain(|id| *id != session.id);
            if ids.is_empty() {
                self.by_name.remove(&session.name);
            }
        }
        Some(session)
    }

    /// Something came over a session.
    pub(super) fn heard(&mut self, address: SocketAddr, now: Instant, idle: Duration) {
        if let Some(session) = self.by_address.get_mut(&address)
            && now.saturating_duration_since(session.heard) >= PRECISION
        {
            session.heard = now;
            self.idle.set(session.id, now + idle);
        }
    }

    /// The next time at which a session has been silent for too long.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.idle.next()
    }

    /// A session that has been silent for too long.
    pub(super) fn pop_idle(&mut self, now: Instant) -> Option<SocketAddr> {
        let id = self.idle.pop_due(now)?;
        self.address(id)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_address.is_empty()
            && self.addresses.is_empty()
            && self.by_name.is_empty()
            && self.blocks.is_empty()
            && self.idle.next().is_none()
    }
}
