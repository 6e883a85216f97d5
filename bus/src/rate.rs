//! How often something may happen: so many times at once, and then so many per second.
//!
//! A token bucket, kept as the one moment at which it is full again (ITU-T I.371, the generic cell
//! rate algorithm), so that it costs one comparison and holds no number that can drift.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// After each of these one more is allowed.
    interval: Duration,
    /// How far one may be ahead: one interval less than the burst, since the last of it is allowed.
    ahead: Duration,
}

impl Rate {
    /// `burst` at once, at least one, and one more after each `interval`.
    #[must_use]
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self {
            interval,
            ahead: interval * burst.saturating_sub(1),
        }
    }

    /// `count` in each `period`, all of them at once if need be.
    #[must_use]
    pub fn of(count: NonZeroU32, period: Duration) -> Self {
        Self::new(count.get(), period / count.get())
    }
}

/// What was used of a [`Rate`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    full: Option<Instant>,
}

impl Meter {
    /// Counts one, allowed or not.
    pub fn count(&mut self, rate: &Rate, now: Instant) {
        let full = self.full.map_or(now, |full| full.max(now));
        self.full = Some(full + rate.interval);
    }

    /// When one more is allowed; none when it is now.
    #[must_use]
    pub fn blocked_until(&self, rate: &Rate, now: Instant) -> Option<Instant> {
        let until = self.full?.checked_sub(rate.ahead)?;
        (until > now).then_some(until)
    }

    /// When it is as if nothing had been counted.
    #[must_use]
    pub fn full(&self) -> Option<Instant> {
        self.full
    }

    /// Whether it is as if nothing had been counted.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        crate::time::now().mono
    }

    #[test]
    fn a_burst_and_then_one_after_each_interval() {
        let (rate, start) = (Rate::new(3, Duration::from_secs(2)), start());
        let mut meter = Meter::default();
        for _ in 0..3 {
            assert_eq!(meter.blocked_until(&rate, start), None);
            meter.count(&rate, start);
        }
        let next = start + Duration::from_secs(2);
        assert_eq!(meter.blocked_until(&rate, start), Some(next));
        assert_eq!(meter.blocked_until(&rate, next), None);
        meter.count(&rate, next);
        assert!(meter.blocked_until(&rate, next).is_some());
        let rested = start + Duration::from_secs(8);
        assert!(!meter.is_full(next) && meter.is_full(rested));
    }

    #[test]
    fn an_hour_at_any_pace_allows_no_more_than_the_rate() {
        let rate = Rate::of(NonZeroU32::new(10).unwrap(), Duration::from_secs(1));
        for step in [1, 7, 99, 100, 1_000] {
            let (mut meter, mut allowed, start) = (Meter::default(), 0_u32, start());
            for millis in (0..3_600_000).step_by(step) {
                let now = start + Duration::from_millis(millis);
                if meter.blocked_until(&rate, now).is_none() {
                    meter.count(&rate, now);
                    allowed += 1;
                }
            }
            let tries = 3_600_000_u32.div_ceil(u32::try_from(step).unwrap());
            assert!(allowed <= 36_010, "{allowed} with a try each {step} ms");
            assert!(
                allowed * 20 >= tries.min(36_000) * 19,
                "{allowed} of {tries}"
            );
        }
    }
}
