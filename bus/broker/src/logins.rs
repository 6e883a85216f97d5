//! Checking passwords without being worn down by those who guess: few checks at a time, and per
//! address a bounded rate of failures.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::time::now;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;

use crate::limits::network;
use crate::metrics::{Counted, Metrics};
use crate::passwords::{Login, Passwords, Secret};
use bus::rate::{Meter, Rate};

/// Networks whose failures are remembered; with more, the one that failed longest ago is forgotten.
const NETWORKS: usize = 4096;
const MINUTE: Duration = Duration::from_secs(60);

/// Why a login is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No such name, or another password.
    Wrong,
    /// Too many failures came from the address: nothing was looked at.
    TooMany,
}

/// Failures by [`network`].
#[derive(Debug)]
struct Failures {
    rate: Rate,
    meters: HashMap<IpAddr, Meter>,
    maximum: usize,
}

impl Failures {
    fn are_too_many(&self, address: IpAddr, now: Instant) -> bool {
        let meter = self.meters.get(&network(address));
        meter.is_some_and(|meter| meter.blocked_until(&self.rate, now).is_some())
    }

    fn count(&mut self, address: IpAddr, now: Instant) {
        let network = network(address);
        if self.meters.len() >= self.maximum && !self.meters.contains_key(&network) {
            self.meters.retain(|_, meter| !meter.is_full(now));
            if self.meters.len() >= self.maximum {
                let oldest = self.meters.iter().min_by_key(|(_, meter)| meter.full());
                if let Some(oldest) = oldest.map(|(&network, _)| network) {
                    self.meters.remove(&oldest);
                }
            }
        }
        self.meters
            .entry(network)
            .or_default()
            .count(&self.rate, now);
    }
}

/// Checks passwords.
pub(crate) struct Logins {
    slots: Arc<Semaphore>,
    failures: Arc<Mutex<Failures>>,
    metrics: Arc<Metrics>,
}

impl Logins {
    /// So many checks at a time, and so many failures in a minute from one address.
    pub(crate) fn new(checks: usize, failures: NonZeroU32, metrics: Arc<Metrics>) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(checks.min(Semaphore::MAX_PERMITS))),
            failures: Arc::new(Mutex::new(Failures {
                rate: Rate::of(failures, MINUTE),
                meters: HashMap::new(),
                maximum: NETWORKS,
            })),
            metrics,
        }
    }

    /// Whose password this is; it waits for its turn.
    ///
    /// A password that was right before costs nothing and is taken even from an address with too
    /// many failures. Cancel safe: a check under way comes to its end, and its result counts.
    pub(crate) async fn verify(
        &self,
        passwords: Arc<Passwords>,
        address: IpAddr,
        name: &str,
        password: Secret,
    ) -> Result<Arc<Login>, Refused> {
        let recall = || {
            let login = passwords.recall(name, &password.0)?;
            self.metrics.login("recalled");
            Some(login)
        };
        if let Some(login) = recall() {
            return Ok(login);
        }
        let waiting = Counted::new(&self.metrics.waiting_logins);
        let slot = self.slots.clone().acquire_owned().await;
        drop(waiting);
        // Others may have failed, or this one have been right, while it waited.
        if let Some(login) = recall() {
            return Ok(login);
        }
        if self.lock().are_too_many(address, now().mono) {
            self.metrics.login("too_many_failures");
            return Err(Refused::TooMany);
        }
        let (name, failures) = (name.to_owned(), self.failures.clone());
        let check = tokio::task::spawn_blocking(move || {
            // The slot is given back when the work is done, even when nobody waits for it.
            let _slot = slot;
            let login = passwords.verify(&name, &password.0, &mut StdRng::from_os_rng());
            if login.is_none() {
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.count(address, now().mono);
            }
            login
        });
        let login = check.await.ok().flatten();
        let result = if login.is_some() { "ok" } else { "wrong" };
        self.metrics.login(result);
        login.ok_or(Refused::Wrong)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(maximum: usize) -> Failures {
        Failures {
            rate: Rate::of(NonZeroU32::new(3).unwrap(), MINUTE),
            meters: HashMap::new(),
            maximum,
        }
    }

    #[test]
    fn who_fails_too_often_waits_and_nobody_else() {
        let (mut failures, start) = (failures(10), now().mono);
        let (guesser, neighbour) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8:0:1::1".parse().unwrap(),
        );
        for _ in 0..3 {
            assert!(!failures.are_too_many(guesser, start));
            failures.count(guesser, start);
        }
        assert!(failures.are_too_many(guesser, start));
        // Another address of the same network, and the same written otherwise.
        assert!(failures.are_too_many("2001:db8::2".parse().unwrap(), start));
        assert!(!failures.are_too_many(neighbour, start));
        assert!(!failures.are_too_many(guesser, start + MINUTE / 3));
        let (mapped, plain) = (
            "::ffff:10.0.0.1".parse().unwrap(),
            "10.0.0.1".parse().unwrap(),
        );
        for _ in 0..3 {
            failures.count(mapped, start);
        }
        assert!(failures.are_too_many(plain, start));
    }

    #[test]
    fn a_guesser_with_many_addresses_fills_nothing() {
        let (mut failures, start) = (failures(10), now().mono);
        for host in 0..1000_u32 {
            let address = IpAddr::V4((0x0a00_0000 + host).into());
            failures.count(address, start + Duration::from_millis(host.into()));
        }
        assert_eq!(failures.meters.len(), 10);
        let last = IpAddr::V4((0x0a00_0000 + 999_u32).into());
        assert!(failures.meters.contains_key(&last));
    }
}
