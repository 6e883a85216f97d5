//! What limits count as one place.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An IPv4 address, or a /64 of IPv6, whose holder has as many addresses as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Block(IpAddr);

impl Block {
    pub(crate) fn of(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V6(ip) => {
                let prefix = ip.to_bits() >> 64 << 64;
                Self(Ipv6Addr::from_bits(prefix).into())
            }
            ip @ IpAddr::V4(_) => Self(ip),
        }
    }
}

/// How many of something there are at each place.
#[derive(Debug, Default)]
pub(crate) struct Tally(HashMap<Block, usize>);

impl Tally {
    pub(crate) fn count(&self, block: Block) -> usize {
        self.0.get(&block).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, block: Block) {
        *self.0.entry(block).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, block: Block) {
        if let Some(count) = self.0.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&block);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
