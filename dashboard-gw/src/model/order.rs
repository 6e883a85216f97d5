//! What changed, in the order of each thing's last change.
//!
//! Holds no values: whoever is behind reads them from the model as they are now, so a page that is
//! far behind costs nothing but the length of its next frame.

use std::collections::{BTreeMap, HashMap};

use bus::id::{BridgeId, NodeId, ResourceId};

/// A thing that changes as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// The connection to the bus.
    Bus,
    /// A bridge, there or gone.
    Bridge(BridgeId),
    /// A node as a whole, there or gone.
    Node(NodeId),
    /// A node's status.
    Status(NodeId),
    /// A value of a node.
    Value(NodeId, ResourceId),
    /// An event, by its change.
    Event(u64),
}

/// The changes, counted from 1, at most `capacity` of them; full means that the oldest are
/// forgotten and whoever was behind them needs a snapshot.
#[derive(Debug)]
pub(crate) struct Order {
    rev: u64,
    /// Nothing up to here is known any more.
    floor: u64,
    keys: BTreeMap<u64, Key>,
    revs: HashMap<Key, u64>,
    capacity: usize,
}

impl Order {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            rev: 0,
            floor: 0,
            keys: BTreeMap::new(),
            revs: HashMap::new(),
            capacity,
        }
    }

    /// The number of the last change.
    pub(crate) fn rev(&self) -> u64 {
        self.rev
    }

    /// The number that the next change will get.
    pub(crate) fn next(&self) -> u64 {
        self.rev + 1
    }

    pub(crate) fn touch(&mut self, key: Key) {
        self.rev += 1;
        self.keys.insert(self.rev, key.clone());
        if let Some(before) = self.revs.insert(key, self.rev) {
            self.keys.remove(&before);
        }
        if self.keys.len() > self.capacity
            && let Some((rev, key)) = self.keys.pop_first()
        {
            self.floor = rev;
            self.revs.remove(&key);
        }
    }

    /// What changed after `rev`, each thing once; none when that is not known (any more).
    pub(crate) fn since(&self, rev: u64) -> Option<impl Iterator<Item = &Key>> {
        (self.floor..=self.rev)
            .contains(&rev)
            .then(|| self.keys.range(rev + 1..).map(|(_, key)| key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str) -> Key {
        Key::Bridge(BridgeId::from_text(name))
    }

    #[test]
    fn each_thing_stands_once_at_its_last_change() {
        let mut order = Order::new(10);
        for name in ["a", "b", "a"] {
            order.touch(bridge(name));
        }
        let keys = |rev| {
            order
                .since(rev)
                .map(|keys| keys.cloned().collect::<Vec<_>>())
        };
        assert_eq!(order.rev(), 3);
        assert_eq!(keys(0), Some(vec![bridge("b"), bridge("a")]));
        assert_eq!(keys(2), Some(vec![bridge("a")]));
        assert_eq!(keys(3), Some(vec![]));
        assert_eq!(keys(4), None, "a change that has not happened");
    }

    #[test]
    fn a_full_order_forgets_the_oldest() {
        let mut order = Order::new(2);
        for name in ["a", "b", "c"] {
            order.touch(bridge(name));
        }
        assert!(order.since(0).is_none());
        assert_eq!(order.since(1).map(Iterator::count), Some(2));
        for _ in 0..100 {
            order.touch(bridge("c"));
        }
        assert_eq!(
            order.since(1).map(Iterator::count),
            Some(2),
            "one busy thing pushes nothing out"
        );
    }
}
