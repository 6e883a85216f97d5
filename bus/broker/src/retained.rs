//! Retained Messages: the latest message of every topic that has one, as a tree of levels.
//!
//! It holds what it is given, in memory; it knows neither subscribers nor disks.

use std::collections::HashMap;

use crate::message::Message;

#[derive(Debug, Default)]
struct Node {
    message: Option<Message>,
    children: HashMap<Box<str>, Self>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.message.is_none() && self.children.is_empty()
    }

    /// Takes out the message of the topic and every node that is of no use without it.
    fn remove<'a>(&mut self, mut levels: impl Iterator<Item = &'a str>) -> Option<Message> {
        let Some(level) = levels.next() else {
            return self.message.take();
        };
        let child = self.children.get_mut(level)?;
        let removed = child.remove(levels);
        if child.is_empty() {
            self.children.remove(level);
        }
        removed
    }

    fn all(&self, visit: &mut impl FnMut(&Message)) {
        self.message.iter().for_each(&mut *visit);
        for child in self.children.values() {
            child.all(visit);
        }
    }

    fn matching(&self, levels: &[&str], is_root: bool, visit: &mut impl FnMut(&Message)) {
        // A wildcard in front says nothing about topics that begin with $ (MQTT-4.7.2-1).
        let visible = |name: &str| !(is_root && name.starts_with('$'));
        match levels {
            [] => self.message.iter().for_each(visit),
            ["#"] => {
                self.message.iter().for_each(&mut *visit);
                for (name, child) in &self.children {
                    if visible(name) {
                        child.all(visit);
                    }
                }
            }
            ["+", rest @ ..] => {
                for (name, child) in &self.children {
                    if visible(name) {
                        child.matching(rest, false, visit);
                    }
                }
            }
            [level, rest @ ..] => {
                if let Some(child) = self.children.get(*level) {
                    child.matching(rest, false, visit);
                }
            }
        }
    }
}

/// The retained messages of a broker.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    root: Node,
    count: usize,
    bytes: usize,
}

impl Retained {
    /// How many topics have a message.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The sum of their sizes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a message in place of the one before it, or removes that when the payload is empty
    /// (MQTT-3.3.1-6). Call it with messages that carry the retain flag only.
    pub(crate) fn apply(&mut self, message: Message) {
        if message.payload().is_empty() {
            self.remove(message.topic());
            return;
        }
        let mut node = &mut self.root;
        for level in message.topic().split('/') {
            // Two look-ups, so that a level that is there costs no allocation.
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), Node::default());
            }
            let Some(child) = node.children.get_mut(level) else {
                return;
            };
            node = child;
        }
        self.bytes += message.len();
        match node.message.replace(message) {
            Some(old) => self.bytes -= old.len(),
            None => self.count += 1,
        }
    }

    /// Whether the topic has a message.
    pub(crate) fn contains(&self, topic: &str) -> bool {
        let mut node = &self.root;
        for level in topic.split('/') {
            match node.children.get(level) {
                Some(child) => node = child,
                None => return false,
            }
        }
        node.message.is_some()
    }

    fn remove(&mut self, topic: &str) {
        if let Some(old) = self.root.remove(topic.split('/')) {
            self.count -= 1;
            self.bytes -= old.len();
        }
    }

    /// All messages that a valid Topic Filter asks for and that are still of use, oldest first.
    pub(crate) fn matching(&self, filter: &str, now_millis: i64) -> Vec<Message> {
        let levels: Vec<&str> = filter.split('/').collect();
        let mut found = Vec::new();
        self.root.matching(&levels, true, &mut |message| {
            if message.expires().is_none_or(|at| at > now_millis) {
                found.push(message.clone());
            }
        });
        found.sort_unstable_by_key(Message::seq);
        found
    }

    /// Removes what is of no use any more; gives their topics.
    pub(crate) fn expire(&mut self, now_millis: i64) -> Vec<String> {
        let mut expired = Vec::new();
        self.root.all(&mut |message| {
            if message.expires().is_some_and(|at| at <= now_millis) {
                expired.push(message.topic().to_owned());
            }
        });
        for topic in &expired {
            self.remove(topic);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::message::{Draft, Parts};
    use crate::topic;
    use crate::wire::Qos;

    fn message(seq: u64, topic: &str, payload: &str, expires: Option<i64>) -> Message {
        Draft::new(&Parts {
            topic,
            payload: payload.as_bytes(),
            qos: Qos::AtLeastOnce,
            retain: true,
            origin: 0,
            expires,
            properties: &[],
        })
        .seal(seq, 0)
    }

    fn topics(retained: &Retained, filter: &str, now: i64) -> Vec<String> {
        let found = retained.matching(filter, now);
        found.iter().map(|m| m.topic().to_owned()).collect()
    }

    #[test]
    fn what_expired_is_not_told_and_then_gone() {
        let mut retained = Retained::default();
        retained.apply(message(1, "a", "x", Some(10)));
        retained.apply(message(2, "b", "x", None));
        assert_eq!(topics(&retained, "#", 9), ["a", "b"]);
        assert_eq!(topics(&retained, "#", 10), ["b"]);
        assert_eq!(retained.expire(10), ["a"]);
        assert_eq!(retained.len(), 1);
    }

    #[test]
    fn an_emptied_tree_holds_nothing() {
        let mut retained = Retained::default();
        for seq in 0..100 {
            retained.apply(message(seq, &format!("a/{seq}/c"), "x", None));
        }
        for seq in 0..100 {
            retained.apply(message(seq, &format!("a/{seq}/c"), "", None));
        }
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
        assert!(retained.root.is_empty());
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]?|\\$c", 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a name", |name| topic::is_topic_name(name))
    }

    fn filter() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]?|\\+|#|\\$c", 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a filter", |filter| topic::is_topic_filter(filter))
    }

    proptest! {
        #[test]
        fn it_is_a_map_of_topics(
            steps in proptest::collection::vec((name(), "[xy]?"), 0..40),
            filter in filter(),
        ) {
            let (mut retained, mut model) = (Retained::default(), BTreeMap::new());
            for (seq, (name, payload)) in steps.iter().enumerate() {
                retained.apply(message(seq as u64, name, payload, None));
                if payload.is_empty() {
                    model.remove(name);
                } else {
                    model.insert(name.clone(), payload.clone());
                }
            }
            prop_assert_eq!(retained.len(), model.len());
            let found: BTreeMap<_, _> = retained
                .matching(&filter, 0)
                .iter()
                .map(|m| (m.topic().to_owned(), String::from_utf8_lossy(m.payload()).into_owned()))
                .collect();
            model.retain(|name, _| topic::matches(&filter, name));
            prop_assert_eq!(found, model);
        }
    }
}
