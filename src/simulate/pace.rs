//! When a node pushes its next value.

use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::SmallRng;

/// Pushes at a rate, each node at its own phase so that a fleet does not push in one burst.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Option<Duration>,
    next: Option<Instant>,
}

impl Pace {
    /// `rate` pushes a second; none at all at 0.
    pub(crate) fn new(rate: f64, now: Instant, rng: &mut SmallRng) -> Self {
        let interval = (rate > 0.0).then(|| Duration::from_secs_f64(1.0 / rate));
        let next = interval.map(|interval| now + interval.mul_f64(rng.random::<f64>()));
        Self { interval, next }
    }

    /// When the next push is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether a push is due; the next one is then set. Pushes that were missed by more than a
    /// second are not made up for.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let (Some(interval), Some(due)) = (self.interval, self.next) else {
            return false;
        };
        if now < due {
            return false;
        }
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        self.next = Some((due + interval).max(earliest));
        true
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_rate_is_kept_and_zero_is_never() {
        let mut rng = SmallRng::seed_from_u64(1);
        let start = bus::time::now().mono;
        let mut pace = Pace::new(4.0, start, &mut rng);
        let ticks = (0..10_000).map(|ms| start + Duration::from_millis(ms));
        let pushes = ticks.filter(|now| pace.take(*now)).count();
        assert!((39..=41).contains(&pushes), "{pushes}");
        let mut never = Pace::new(0.0, start, &mut rng);
        assert!(never.next().is_none() && !never.take(start));
    }
}
