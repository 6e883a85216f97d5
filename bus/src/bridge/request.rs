//! Requests that wait for their answer: exactly one ack for each, whatever the driver does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Answer, RequestId, Uid};
use crate::id::ResourceId;
use crate::payload::{Ack, AckStatus};
use crate::session::{Message, Publication};
use crate::time::Now;
use crate::topic::Topic;

/// Requests that may wait for one node; further ones are rejected.
const MAX_PER_NODE: usize = 16;
/// Requests that may wait in all; further ones are rejected.
const MAX_WAITING: usize = 4096;
/// How long an asker waits that does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// An asker may ask for no less and no more.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(120);

/// Where the ack of one request goes, and what goes into it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) ack: Topic,
    pub(super) op: &'static str,
    pub(super) resource: Option<ResourceId>,
    pub(super) id: Option<String>,
    response_topic: Option<String>,
    correlation: Option<Bytes>,
    since: Instant,
}

impl Asked {
    pub(super) fn new(ack: Topic, op: &'static str, message: &Message, now: Now) -> Self {
        let resource = match &ack {
            Topic::Ack(_, resource) => Some(resource.clone()),
            _ => None,
        };
        Self {
            ack,
            op,
            resource,
            id: None,
            response_topic: message.response_topic.clone(),
            correlation: message.correlation.clone(),
            since: now.mono,
        }
    }

    /// The ack, on its own topic and where the asker wanted it besides.
    pub(super) fn acks(
        &self,
        answer: &Answer,
        topic: String,
        now: Now,
    ) -> impl Iterator<Item = Publication> + use<> {
        let waited = now.mono.saturating_duration_since(self.since);
        let ack = Ack {
            id: self.id.clone(),
            op: self.op.to_owned(),
            status: answer.status,
            code: answer.code.clone(),
            v: answer.v.clone(),
            ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
            error: answer.error.clone(),
        };
        let payload = Bytes::from(serde_json::to_vec(&ack).unwrap_or_default());
        let publication = |topic| Publication {
            correlation: self.correlation.clone(),
            ..Publication::passing(topic, payload.clone())
        };
        let response = self.response_topic.clone().map(publication);
        std::iter::once(publication(topic)).chain(response)
    }
}

/// The time an asker grants.
pub(super) fn granted(timeout_ms: Option<u64>) -> Duration {
    let wanted = timeout_ms.map_or(DEFAULT_TIMEOUT, Duration::from_millis);
    wanted.clamp(*TIMEOUTS.start(), *TIMEOUTS.end())
}

/// All requests that wait.
#[derive(Debug, Default)]
pub(super) struct Requests {
    next: u64,
    waiting: BTreeMap<RequestId, Waiting>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    per_node: HashMap<Uid, usize>,
}

#[derive(Debug)]
struct Waiting {
    uid: Uid,
    asked: Asked,
    deadline: Instant,
}

impl Requests {
    /// Why no further request of this node can wait, in words.
    pub(super) fn refusal(&self, uid: &Uid) -> Option<&'static str> {
        if self.waiting.len() >= MAX_WAITING {
            return Some("too many requests wait at this bridge");
        }
        let of_node = self.per_node.get(uid).copied().unwrap_or(0);
        (of_node >= MAX_PER_NODE).then_some("too many requests wait for this node")
    }

    /// Takes a request that [`Requests::refusal`] has nothing against.
    pub(super) fn push(&mut self, uid: &Uid, asked: Asked, deadline: Instant) -> RequestId {
        *self.per_node.entry(uid.clone()).or_default() += 1;
        let id = RequestId(self.next);
        self.next += 1;
        self.deadlines.insert((deadline, id));
        self.waiting.insert(
            id,
            Waiting {
                uid: uid.clone(),
                asked,
                deadline,
            },
        );
        id
    }

    /// Ends a request; none when it has ended already.
    pub(super) fn take(&mut self, id: RequestId) -> Option<(Uid, Asked)> {
        let Waiting {
            uid,
            asked,
            deadline,
        } = self.waiting.remove(&id)?;
        self.deadlines.remove(&(deadline, id));
        if let Some(of_node) = self.per_node.get_mut(&uid) {
            *of_node -= 1;
            if *of_node == 0 {
                self.per_node.remove(&uid);
            }
        }
        Some((uid, asked))
    }

    /// The requests of a node that is gone.
    pub(super) fn of(&self, uid: &Uid) -> Vec<RequestId> {
        if !self.per_node.contains_key(uid) {
            return Vec::new();
        }
        self.waiting
            .iter()
            .filter(|(_, w)| &w.uid == uid)
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A request whose time is over.
    pub(super) fn expired(&self, now: Instant) -> Option<RequestId> {
        self.deadlines
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, id)| *id)
    }
}

/// An answer that the bridge gives itself.
pub(super) fn refused(status: AckStatus, error: impl Into<String>) -> Answer {
    Answer {
        status,
        code: None,
        v: None,
        error: Some(error.into()),
    }
}
