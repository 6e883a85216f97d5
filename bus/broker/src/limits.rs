//! What one broker and one peer may use, and counting it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `[bus.limits]`. The defaults carry 10,000 clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections in total; one more is closed at once.
    pub connections: usize,
    /// Open connections from one address; one more is closed at once.
    pub connections_per_address: usize,
    /// TLS handshakes at a time; further ones wait within `connect_timeout`.
    pub handshakes: usize,
    /// From the accepted connection to its CONNECT.
    #[serde(with = "bus::config::duration")]
    pub connect_timeout: Duration,
    /// The largest packet from a client, bytes; a larger one ends its connection.
    pub packet_bytes: u32,
    /// Unacknowledged messages towards one client, at most its Receive Maximum.
    pub inflight: u16,
    /// Messages waiting for one session. Above, QoS 0 is dropped; above twice as many, a connected
    /// client is disconnected, and an absent one loses its oldest message.
    pub queue_messages: usize,
    /// As `queue_messages`, in bytes.
    pub queue_bytes: usize,
    /// Topic Filters of one session.
    pub subscriptions: usize,
    /// Sessions kept, with their clients absent or present; one more is refused.
    pub sessions: usize,
    /// The longest Session Expiry Interval; a longer one is cut to it.
    #[serde(with = "bus::config::duration")]
    pub session_expiry: Duration,
    /// Topic aliases that a client may set.
    pub topic_aliases: u16,
    /// The longest Keep Alive of a client of MQTT 5, at most 65535 s; one that asks for a longer one,
    /// or for none, is told this.
    #[serde(with = "bus::config::duration")]
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 12_000,
            connections_per_address: 10_000,
            handshakes: 512,
            connect_timeout: Duration::from_secs(5),
            packet_bytes: 1024 * 1024,
            inflight: u16::MAX,
            queue_messages: 16_384,
            queue_bytes: 16 * 1024 * 1024,
            subscriptions: 1_000,
            sessions: 20_000,
            session_expiry: Duration::from_secs(7 * 24 * 3600),
            topic_aliases: 16,
            keep_alive: Duration::from_secs(3600),
        }
    }
}

impl Limits {
    /// The key of the first limit that leaves no work possible.
    pub(crate) fn unusable(&self) -> Option<&'static str> {
        [
            ("connections", self.connections == 0),
            ("connections_per_address", self.connections_per_address == 0),
            ("handshakes", self.handshakes == 0),
            ("connect_timeout", self.connect_timeout.is_zero()),
            (
                "packet_bytes",
                !(128..=268_435_455).contains(&self.packet_bytes),
            ),
            ("inflight", self.inflight == 0),
            ("queue_messages", self.queue_messages == 0),
            ("queue_bytes", self.queue_bytes == 0),
            ("subscriptions", self.subscriptions == 0),
            ("sessions", self.sessions == 0),
            (
                "keep_alive",
                !(1..=65_535).contains(&self.keep_alive.as_secs()),
            ),
        ]
        .into_iter()
        .find_map(|(key, unusable)| unusable.then_some(key))
    }
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Counts open connections.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    counts: Arc<Mutex<Counts>>,
    total: usize,
    per_address: usize,
}

/// One counted connection; dropping it counts it off.
#[derive(Debug)]
pub(crate) struct Permit {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
}

/// Which limit a connection went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Total,
    Address,
}

impl Admission {
    /// Nothing counted yet.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            counts: Arc::default(),
            total: limits.connections,
            per_address: limits.connections_per_address,
        }
    }

    /// Counts one more connection from `address`.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<Permit, Full> {
        let address = address.to_canonical();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.total {
            return Err(Full::Total);
        }
        let here = counts.by_address.entry(address).or_default();
        if *here >= self.per_address {
            return Err(Full::Address);
        }
        *here += 1;
        counts.total += 1;
        drop(counts);
        Ok(Permit {
            counts: self.counts.clone(),
            address,
        })
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        if let Some(here) = counts.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_in_and_out() {
        let admission = Admission::new(&Limits {
            connections: 3,
            connections_per_address: 2,
            ..Limits::default()
        });
        let (one, two) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = admission.admit(one).unwrap();
        let mapped = admission.admit("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(admission.admit(one).err(), Some(Full::Address));
        let third = admission.admit(two).unwrap();
        assert_eq!(admission.admit(two).err(), Some(Full::Total));
        drop((first, mapped, third));
        assert_eq!(admission.open(), 0);
        assert!(admission.admit(one).is_ok());
    }
}
