//! A session as the store keeps it, and which kept sessions wait for a topic.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::wire::{FilterRequest, Qos, RetainHandling};

/// A session without the messages that wait for it, which are stored one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// What the registry of sessions knows it by.
    pub(crate) key: String,
    /// How long it waits for its client, seconds.
    pub(crate) expiry: u64,
    /// When its client left, in milliseconds since 1970; none while it is there.
    pub(crate) left: Option<i64>,
    pub(crate) subscriptions: Vec<KeptSubscription>,
    /// Packet Identifiers of QoS 2 messages from the client that were not released.
    pub(crate) incoming: Vec<u16>,
    /// Packet Identifiers that the client was sent, with the numbers of their messages; none when
    /// PUBCOMP is awaited. Of the last time that the client left.
    pub(crate) inflight: Vec<(u16, Option<u64>)>,
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

#[derive(Debug, Default)]
struct Node {
    asked: Vec<Asked>,
    children: HashMap<Box<str>, Self>,
}

impl Node {
    fn remove<'a>(&mut self, mut levels: impl Iterator<Item = &'a str>, number: u64) {
        let Some(level) = levels.next() else {
            self.asked.retain(|asked| asked.number != number);
            return;
        };
        if let Some(child) = self.children.get_mut(level) {
            child.remove(levels, number);
            if child.asked.is_empty() && child.children.is_empty() {
                self.children.remove(level);
            }
        }
    }

    fn matching<'a>(&'a self, levels: &[&str], is_root: bool, found: &mut Vec<&'a Asked>) {
        // A wildcard in front says nothing about topics that begin with $ (MQTT-4.7.2-1).
        let is_hidden = is_root && levels.first().is_some_and(|level| level.starts_with('$'));
        if !is_hidden && let Some(all) = self.children.get("#") {
            found.extend(&all.asked);
        }
        let [level, rest @ ..] = levels else {
            found.extend(&self.asked);
            return;
        };
        if let Some(child) = self.children.get(*level) {
            child.matching(rest, false, found);
        }
        if !is_hidden && let Some(child) = self.children.get("+") {
            child.matching(rest, false, found);
        }
    }
}

/// Which kept sessions ask for a topic with QoS 1 or 2, as a tree of their filters' levels.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Node);

impl Waiting {
    /// Adds a subscription, or replaces the one with the same filter.
    pub(crate) fn insert(&mut self, number: u64, request: &FilterRequest) {
        self.remove(number, &request.filter);
        if request.qos == Qos::AtMostOnce {
            return;
        }
        let mut node = &mut self.0;
        for level in request.filter.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        node.asked.push(Asked {
            number,
            no_local: request.no_local,
        });
    }

    /// Removes a subscription.
    pub(crate) fn remove(&mut self, number: u64, filter: &str) {
        self.0.remove(filter.split('/'), number);
    }

    /// The sessions that a message of this topic and this origin is to wait for, each once.
    pub(crate) fn matching(&self, topic: &str, origin: u64) -> Vec<u64> {
        if self.0.children.is_empty() {
            return Vec::new();
        }
        let levels: Vec<&str> = topic.split('/').collect();
        let mut found = Vec::new();
        self.0.matching(&levels, true, &mut found);
        let asked = found.into_iter();
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
    use proptest::prelude::*;

    use super::*;
    use crate::topic;

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
        assert!(waiting.0.children.is_empty());
    }

    fn filter() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]?|\\+|#|\\$c", 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a filter", |filter| topic::is_topic_filter(filter))
    }

    proptest! {
        #[test]
        fn it_finds_what_matches(
            filters in proptest::collection::vec(filter(), 0..8),
            name in "([ab]?|\\$c)(/([ab]?|\\$c)){0,2}",
        ) {
            prop_assume!(topic::is_topic_name(&name));
            let mut waiting = Waiting::default();
            let mut expected = Vec::new();
            for (number, filter) in filters.iter().enumerate() {
                waiting.insert(number as u64, &request(filter, false));
                if topic::matches(filter, &name) {
                    expected.push(number as u64);
                }
            }
            prop_assert_eq!(waiting.matching(&name, 0), expected);
        }
    }
}
