//! How many connections may be open, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places that are taken. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    max: usize,
    max_per_address: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place of one connection; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    address: IpAddr,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("too many connections are open")]
    Full,
    #[error("too many connections are open from this address")]
    FullForAddress,
}

impl Places {
    pub(crate) fn new(max: usize, max_per_address: usize) -> Self {
        Self {
            max,
            max_per_address,
            taken: Arc::default(),
        }
    }

    /// Takes a place for a peer at `address`. All of an IPv6 /64 counts as one: it costs nothing to
    /// have many addresses in it.
    pub(crate) fn take(&self, address: IpAddr) -> Result<Place, NoPlace> {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut taken = self.taken();
        if taken.all >= self.max {
            return Err(NoPlace::Full);
        }
        let here = taken.by_address.entry(address).or_default();
        if *here >= self.max_per_address {
            return Err(NoPlace::FullForAddress);
        }
        *here += 1;
        taken.all += 1;
        drop(taken);
        Ok(Place {
            places: self.clone(),
            address,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let places = Places::new(3, 2);
        let one = places.take(ip("10.0.0.1")).unwrap();
        let _two = places.take(ip("::ffff:10.0.0.1")).unwrap();
        assert_eq!(
            places.take(ip("10.0.0.1")).unwrap_err(),
            NoPlace::FullForAddress
        );
        let _three = places.take(ip("10.0.0.2")).unwrap();
        assert_eq!(places.take(ip("10.0.0.3")).unwrap_err(), NoPlace::Full);
        drop(one);
        assert!(places.take(ip("10.0.0.1")).is_ok());
    }

    #[test]
    fn a_network_counts_as_one_address() {
        let places = Places::new(3, 1);
        let _one = places.take(ip("2001:db8::1")).unwrap();
        assert_eq!(
            places.take(ip("2001:db8::ffff:2")).unwrap_err(),
            NoPlace::FullForAddress
        );
        assert!(places.take(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn no_address_is_remembered_without_a_connection() {
        let places = Places::new(1, 1);
        drop(places.take(ip("10.0.0.1")));
        assert!(places.taken().by_address.is_empty());
    }
}
