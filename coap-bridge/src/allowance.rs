//! How many datagrams are taken from one address, so that no single one keeps the bridge busy.
//!
//! Addresses fall into a fixed number of cells by a hash that nobody outside can foretell: a flood from
//! forged addresses makes nothing grow, and two addresses that share a cell share what is allowed.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use bus::rate::{Meter, Rate};

use crate::block::Block;
use crate::metrics::{Metrics, Shed};

/// 256 KiB.
const CELLS: usize = 16_384;
/// Where too much comes from is told so often at the most.
const TELL: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Allowance {
    rate: Rate,
    cells: Box<[Meter]>,
    hasher: RandomState,
    /// Not before then is it told again.
    silent_until: Option<Instant>,
    metrics: Metrics,
}

impl Allowance {
    /// So many datagrams a second from each IPv4 address or /64 of IPv6, all of them at once if need be.
    pub(crate) fn new(per_second: NonZeroU32, metrics: Metrics) -> Self {
        Self {
            rate: Rate::of(per_second, Duration::from_secs(1)),
            cells: vec![Meter::default(); CELLS].into(),
            hasher: RandomState::new(),
            silent_until: None,
            metrics,
        }
    }

    /// Whether a datagram from there is taken; if not, it is counted.
    pub(crate) fn admits(&mut self, from: SocketAddr, now: Instant) -> bool {
        let cell = self.cell(from);
        let Some(meter) = self.cells.get_mut(cell) else {
            return true;
        };
        if meter.blocked_until(&self.rate, now).is_none() {
            meter.count(&self.rate, now);
            return true;
        }
        self.metrics.shed(Shed::Address);
        if self.silent_until.is_none_or(|until| until <= now) {
            self.silent_until = Some(now + TELL);
            tracing::warn!(
                peer.addr = %from,
                "datagrams are dropped: more come from there than coap_bridge.max_datagrams_per_address a second"
            );
        }
        false
    }

    fn cell(&self, from: SocketAddr) -> usize {
        let cells = CELLS as u64;
        usize::try_from(self.hasher.hash_one(Block::of(from)) % cells).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use bus::time::now;

    use super::*;

    fn from(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn allowance(per_second: u32) -> Allowance {
        Allowance::new(NonZeroU32::new(per_second).unwrap(), Metrics::default())
    }

    #[test]
    fn who_sends_too_much_is_held_to_the_rate_and_nobody_else() {
        let (mut allowance, start) = (allowance(100), now().mono);
        let taken = |allowance: &mut Allowance, from, now| {
            (0..1000).filter(|_| allowance.admits(from, now)).count()
        };
        let loud = from("10.0.0.1:1");
        assert_eq!(taken(&mut allowance, loud, start), 100);
        // Another port is the same address.
        assert_eq!(taken(&mut allowance, from("10.0.0.1:2"), start), 0);
        assert_eq!(allowance.metrics.shed_of(Shed::Address), 1900);
        let later = start + Duration::from_millis(500);
        assert_eq!(taken(&mut allowance, loud, later), 50);
        let quiet = (2..250).map(|n| from(&format!("10.0.0.{n}:1")));
        let cell = allowance.cell(loud);
        let mut quiet = quiet.filter(|quiet| allowance.cell(*quiet) != cell);
        let quiet = quiet.next().unwrap();
        assert_eq!(taken(&mut allowance, quiet, later), 100);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (mut allowance, now) = (allowance(2), now().mono);
        assert!(allowance.admits(from("[2001:db8::1]:1"), now));
        assert!(allowance.admits(from("[2001:db8::2]:1"), now));
        assert!(!allowance.admits(from("[2001:db8::3]:1"), now));
    }

    #[test]
    fn a_flood_from_forged_addresses_leaves_most_cells_free() {
        let (mut allowance, now) = (allowance(1000), now().mono);
        for n in 0..200_000_u32 {
            assert!(allowance.admits(SocketAddr::from((n.to_be_bytes(), 1)), now));
        }
        assert_eq!(allowance.cells.len(), CELLS);
    }
}
