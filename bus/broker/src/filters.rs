//! Things that stand at Topic Filters, found by the topics that the filters match: a tree of levels.

use std::collections::HashMap;

#[derive(Debug)]
struct Node<T> {
    here: Vec<T>,
    children: HashMap<Box<str>, Self>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            here: Vec::new(),
            children: HashMap::new(),
        }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.children.is_empty()
    }

    /// Works with what stands at a filter, and takes out every node that is empty then.
    fn edit<'a, R>(
        &mut self,
        mut levels: impl Iterator<Item = &'a str>,
        work: impl FnOnce(&mut Vec<T>) -> R,
    ) -> R {
        let Some(level) = levels.next() else {
            return work(&mut self.here);
        };
        let child = self.children.entry(level.into()).or_default();
        let done = child.edit(levels, work);
        if child.is_empty() {
            self.children.remove(level);
        }
        done
    }

    fn matching<'a>(&'a self, levels: &[&str], is_root: bool, visit: &mut impl FnMut(&'a T)) {
        // A wildcard in front says nothing about topics that begin with $ (MQTT-4.7.2-1).
        let is_hidden = is_root && levels.first().is_some_and(|level| level.starts_with('$'));
        if !is_hidden && let Some(all) = self.children.get("#") {
            all.here.iter().for_each(&mut *visit);
        }
        let [level, rest @ ..] = levels else {
            self.here.iter().for_each(visit);
            return;
        };
        if let Some(child) = self.children.get(*level) {
            child.matching(rest, false, visit);
        }
        if !is_hidden && let Some(child) = self.children.get("+") {
            child.matching(rest, false, visit);
        }
    }
}

/// A tree of filters; it holds no node that nothing stands at or below.
#[derive(Debug)]
pub(crate) struct Filters<T>(Node<T>);

impl<T> Default for Filters<T> {
    fn default() -> Self {
        Self(Node::default())
    }
}

impl<T> Filters<T> {
    /// Whether nothing stands at any filter.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Works with what stands at a valid Topic Filter.
    pub(crate) fn edit<R>(&mut self, filter: &str, work: impl FnOnce(&mut Vec<T>) -> R) -> R {
        self.0.edit(filter.split('/'), work)
    }

    /// Everything that stands at a filter that matches this valid Topic Name.
    pub(crate) fn matching(&self, topic: &str) -> Vec<&T> {
        let mut found = Vec::new();
        if !self.is_empty() {
            let levels: Vec<&str> = topic.split('/').collect();
            self.0.matching(&levels, true, &mut |item| found.push(item));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic;

    #[test]
    fn an_emptied_tree_holds_nothing() {
        let mut filters = Filters::default();
        filters.edit("a/+/#", |here| here.push(1));
        filters.edit("a/+", |here| here.push(2));
        filters.edit("a/+/#", Vec::clear);
        assert_eq!(filters.matching("a/b"), [&2]);
        filters.edit("a/+", Vec::clear);
        filters.edit("x/y", |here| assert!(here.is_empty()));
        assert!(filters.is_empty());
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
            let mut tree = Filters::default();
            let mut expected = Vec::new();
            for (number, filter) in filters.iter().enumerate() {
                tree.edit(filter, |here| here.push(number));
                if topic::matches(filter, &name) {
                    expected.push(number);
                }
            }
            let mut found: Vec<usize> = tree.matching(&name).into_iter().copied().collect();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
