//! Requests of peers that wait for their answer, and the deadlines of each.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Names a request of a peer until it is answered; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(u64);

/// How long after a deadline was set it comes.
#[derive(Debug)]
struct Line {
    after: Duration,
    /// Oldest first. What has been answered goes when it comes to stand in front, and when it is more
    /// than half.
    deadlines: VecDeque<(Instant, ExchangeId)>,
}

impl Line {
    fn new(after: Duration) -> Self {
        Self {
            after,
            deadlines: VecDeque::new(),
        }
    }

    fn trim<T>(&mut self, open: &BTreeMap<ExchangeId, T>) {
        while let Some((_, id)) = self.deadlines.front()
            && !open.contains_key(id)
        {
            self.deadlines.pop_front();
        }
        if self.deadlines.len() > 2 * open.len() + 64 {
            self.deadlines.retain(|(_, id)| open.contains_key(id));
        }
    }

    fn pop_due<T>(&mut self, open: &BTreeMap<ExchangeId, T>, now: Instant) -> Option<ExchangeId> {
        self.trim(open);
        let (_, id) = self.deadlines.pop_front_if(|(at, _)| *at <= now)?;
        Some(id)
    }
}

/// What waits: each has one deadline, which comes one of two times after it was set.
#[derive(Debug)]
pub(super) struct Exchanges<T> {
    next: u64,
    open: BTreeMap<ExchangeId, T>,
    soon: Line,
    late: Line,
}

impl<T> Exchanges<T> {
    pub(super) fn new(soon: Duration, late: Duration) -> Self {
        Self {
            next: 0,
            open: BTreeMap::new(),
            soon: Line::new(soon),
            late: Line::new(late),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Takes one whose deadline comes soon, or late.
    pub(super) fn insert(&mut self, exchange: T, soon: bool, now: Instant) -> ExchangeId {
        let id = ExchangeId(self.next);
        self.next += 1;
        self.open.insert(id, exchange);
        let line = if soon { &mut self.soon } else { &mut self.late };
        line.deadlines.push_back((now + line.after, id));
        id
    }

    pub(super) fn remove(&mut self, id: ExchangeId) -> Option<T> {
        let exchange = self.open.remove(&id);
        self.soon.trim(&self.open);
        self.late.trim(&self.open);
        exchange
    }

    /// One whose soon deadline has come; it has the late one from now on.
    pub(super) fn pop_soon(&mut self, now: Instant) -> Option<&mut T> {
        let id = self.soon.pop_due(&self.open, now)?;
        let late = &mut self.late;
        late.deadlines.push_back((now + late.after, id));
        self.open.get_mut(&id)
    }

    /// Takes one whose late deadline has come.
    pub(super) fn pop_late(&mut self, now: Instant) -> Option<T> {
        let id = self.late.pop_due(&self.open, now)?;
        self.open.remove(&id)
    }

    /// The next deadline.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let lines = [&self.soon, &self.late].into_iter();
        let next = lines.filter_map(|line| line.deadlines.front());
        next.map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);
    const LATE: Duration = Duration::from_secs(100);

    #[test]
    fn each_comes_soon_and_late_unless_it_is_answered() {
        let mut exchanges = Exchanges::new(SOON, LATE);
        let start = bus::time::now().mono;
        let ids: Vec<_> = (0..3).map(|n| exchanges.insert(n, n != 1, start)).collect();
        assert_eq!(exchanges.poll_timeout(), Some(start + SOON));
        assert_eq!(exchanges.remove(ids[0]), Some(0));
        assert!(exchanges.pop_soon(start).is_none());
        assert_eq!(exchanges.pop_soon(start + SOON), Some(&mut 2));
        assert!(exchanges.pop_soon(start + SOON).is_none());
        assert_eq!(exchanges.poll_timeout(), Some(start + LATE));
        assert_eq!(exchanges.pop_late(start + LATE), Some(1));
        assert_eq!(exchanges.pop_late(start + LATE), None);
        assert_eq!(exchanges.pop_late(start + SOON + LATE), Some(2));
        assert_eq!((exchanges.len(), exchanges.poll_timeout()), (0, None));
    }

    #[test]
    fn one_that_is_never_answered_keeps_no_others() {
        let mut exchanges = Exchanges::new(SOON, LATE);
        let now = bus::time::now().mono;
        exchanges.insert(0, false, now);
        for n in 0..100_000 {
            let id = exchanges.insert(n, false, now);
            exchanges.remove(id);
        }
        assert_eq!(exchanges.len(), 1);
        assert!(exchanges.late.deadlines.len() < 100);
    }
}
