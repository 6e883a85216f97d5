//! A session as the store keeps it, and which kept sessions wait for a topic.

use serde::{Deserialize, Serialize};

use crate::filters::Filters;
use crate::wire::{FilterRequest, Qos, RetainHandling};

/// A session without its messages and their QoS 2 flows, which are stored one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// What the registry of sessions knows it by.
    pub(crate) key: String,
    /// How long it waits for its client, seconds.
    pub(crate) expiry: u64,
    /// When its client left, in milliseconds since 1970; none while it is there.
    pub(crate) left: Option<i64>,
    pub(crate) subscriptions: Vec<KeptSubscription>,
    /// Packet Identifiers of QoS 1 messages that the client was sent, with their numbers. Of the last
    /// time that the client left: after a crash they are sent again under others.
    pub(crate) inflight: Vec<(u16, u64)>,
}

/// A subscription of a kept session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptSubscription {
    filter: String,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    /// Subscription Identifier.
    pub(crate) id: Option<u32>,
}

impl KeptSubscription {
    pub(crate) fn new(request: &FilterRequest, id: Option<u32>) -> Self {
        Self {
            filter: request.filter.clone(),
            qos: request.qos as u8,
            no_local: request.no_local,
            retain_as_published: request.retain_as_published,
            id,
        }
    }

    /// What was asked for. How retained messages were to be handled does not matter any more.
    pub(crate) fn request(&self) -> FilterRequest {
        FilterRequest {
            filter: self.filter.clone(),
            qos: Qos::from_bits(self.qos).unwrap_or(Qos::AtMostOnce),
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: RetainHandling::Never,
        }
    }
}

/// A kept session that asks for a filter.
#[derive(Debug)]
struct Asked {
    /// The session's number.
    number: u64,
    no_local: bool,
}

/// Which kept sessions ask for a topic with QoS 1 or 2.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Filters<Asked>);

impl Waiting {
    /// Adds a subscription, or replaces the one with the same filter.
    pub(crate) fn insert(&mut self, number: u64, request: &FilterRequest) {
        let asked = (request.qos > Qos::AtMostOnce).then_some(Asked {
            number,
            no_local: request.no_local,
        });
        self.0.edit(&request.filter, |here| {
            here.retain(|asked| asked.number != number);
            here.extend(asked);
        });
    }

    /// Removes a subscription.
    pub(crate) fn remove(&mut self, number: u64, filter: &str) {
        self.0
            .edit(filter, |here| here.retain(|asked| asked.number != number));
    }

    /// The sessions that a message of this topic and this origin is to wait for, each once.
    pub(crate) fn matching(&self, topic: &str, origin: u64) -> Vec<u64> {
        let asked = self.0.matching(topic).into_iter();
        let mut numbers: Vec<u64> = asked
            .filter(|asked| !(asked.no_local && asked.number == origin))
            .map(|asked| asked.number)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(filter: &str, no_local: bool) -> FilterRequest {
        FilterRequest {
            filter: filter.to_owned(),
            qos: Qos::AtLeastOnce,
            no_local,
            retain_as_published: false,
            retain_handling: RetainHandling::Never,
        }
    }

    #[test]
    fn a_session_is_found_once_and_not_for_its_own() {
        let mut waiting = Waiting::default();
        waiting.insert(1, &request("a/#", false));
        waiting.insert(1, &request("a/+", false));
        waiting.insert(2, &request("a/b", true));
        assert_eq!(waiting.matching("a/b", 0), [1, 2]);
        assert_eq!(waiting.matching("a/b", 2), [1]);
        assert_eq!(waiting.matching("a", 0), [1]);
        let mut quiet = request("a/b", true);
        quiet.qos = Qos::AtMostOnce;
        waiting.insert(2, &quiet);
        assert_eq!(waiting.matching("a/b", 0), [1]);
        waiting.remove(1, "a/#");
        waiting.remove(1, "a/+");
        assert!(waiting.0.is_empty());
    }
}
