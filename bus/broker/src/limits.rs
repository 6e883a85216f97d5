//! What one broker and one peer may use, and counting it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use bus::rate::Rate;

/// The section `[bus.limits]`. The defaults carry 10,000 clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections in total; one more is closed at once.
    pub connections: usize,
    /// Open connections from one address, of IPv6 from one /64; one more is closed at once.
    pub connections_per_address: usize,
    /// Clients connected at a time that proved the same name; one more is refused.
    pub connections_per_identity: usize,
    /// TLS handshakes at a time, for each listener; further ones wait within `connect_timeout`.
    pub handshakes: usize,
    /// Passwords checked at a time; each check takes some 20 ms of a processor and 19 MiB, and
    /// further ones wait within `connect_timeout`.
    pub password_checks: usize,
    /// Failed logins in a minute from one address, of IPv6 from one /64; with more, no password from there is looked at
    /// unless it was right before.
    pub failed_logins_per_minute: NonZeroU32,
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
    /// Messages that one client may publish in a second, on average over a second; beyond, it is
    /// read no faster. 0 is no bound.
    pub publish_rate: u32,
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
            connections_per_identity: 10_000,
            handshakes: 512,
            password_checks: 2,
            failed_logins_per_minute: NonZeroU32::MIN.saturating_add(19),
            connect_timeout: Duration::from_secs(5),
            packet_bytes: 1024 * 1024,
            inflight: u16::MAX,
            queue_messages: 16_384,
            queue_bytes: 16 * 1024 * 1024,
            subscriptions: 1_000,
            sessions: 20_000,
            session_expiry: Duration::from_secs(7 * 24 * 3600),
            publish_rate: 0,
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
            (
                "connections_per_identity",
                self.connections_per_identity == 0,
            ),
            ("handshakes", self.handshakes == 0),
            ("password_checks", self.password_checks == 0),
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

    /// How fast one client may publish; none is no bound.
    pub(crate) fn publish_rate(&self) -> Option<Rate> {
        let count = NonZeroU32::new(self.publish_rate)?;
        Some(Rate::of(count, Duration::from_secs(1)))
    }
}

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 address, since one peer may
/// have all addresses of that.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Client Identifiers connected, by identity. One that is taken over stands there twice for a
    /// moment, and once among those that are bounded.
    by_identity: HashMap<String, HashMap<String, usize>>,
}

/// Counts open connections.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    counts: Arc<Mutex<Counts>>,
    total: usize,
    per_address: usize,
    per_identity: usize,
}

/// One counted connection; dropping it counts it off.
#[derive(Debug)]
pub(crate) struct Permit {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
}

/// One counted client; dropping it counts it off.
#[derive(Debug)]
pub(crate) struct Presence {
    counts: Arc<Mutex<Counts>>,
    identity: String,
    client_id: String,
}

/// Which limit a connection went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Total,
    Address,
    Identity,
}

impl Admission {
    /// Nothing counted yet.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            counts: Arc::default(),
            total: limits.connections,
            per_address: limits.connections_per_address,
            per_identity: limits.connections_per_identity,
        }
    }

    /// Counts one more connection from `address`.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<Permit, Full> {
        let address = network(address);
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

    /// Counts a client of `identity`; none where nobody proves a name, since there is nobody whom
    /// the count could be held against. A take-over is no client more.
    pub(crate) fn welcome(
        &self,
        identity: &Identity,
        client_id: &str,
    ) -> Result<Option<Presence>, Full> {
        if !identity.is_proven {
            return Ok(None);
        }
        let identity = identity.to_string();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = counts.by_identity.entry(identity.clone()).or_default();
        if clients.len() >= self.per_identity && !clients.contains_key(client_id) {
            return Err(Full::Identity);
        }
        *clients.entry(client_id.to_owned()).or_default() += 1;
        drop(counts);
        Ok(Some(Presence {
            counts: self.counts.clone(),
            identity,
            client_id: client_id.to_owned(),
        }))
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

impl Drop for Presence {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(clients) = counts.by_identity.get_mut(&self.identity) else {
            return;
        };
        if let Some(here) = clients.get_mut(&self.client_id) {
            *here -= 1;
            if *here == 0 {
                clients.remove(&self.client_id);
            }
        }
        if clients.is_empty() {
            counts.by_identity.remove(&self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;

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

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let admission = Admission::new(&Limits {
            connections_per_address: 1,
            ..Limits::default()
        });
        let admit = |address: &str| admission.admit(address.parse().unwrap());
        let _first = admit("2001:db8::1").unwrap();
        assert_eq!(admit("2001:db8::2").err(), Some(Full::Address));
        assert!(admit("2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn clients_of_a_name_are_counted_and_a_take_over_is_none_more() {
        let admission = Admission::new(&Limits {
            connections_per_identity: 2,
            ..Limits::default()
        });
        let identity = |role, name: &str| Identity {
            role,
            name: name.to_owned(),
            is_proven: true,
        };
        let ann = identity(Role::Viewer, "ann");
        let one = admission.welcome(&ann, "ann:1").unwrap();
        let two = admission.welcome(&ann, "ann:2").unwrap();
        assert_eq!(admission.welcome(&ann, "ann:3").err(), Some(Full::Identity));
        let again = admission.welcome(&ann, "ann:2").unwrap();
        drop(two);
        assert_eq!(admission.welcome(&ann, "ann:3").err(), Some(Full::Identity));
        assert!(
            admission
                .welcome(&identity(Role::Node, "ann"), "ann")
                .is_ok()
        );
        let anybody = Identity::anonymous(Role::Viewer);
        for id in ["1", "2", "3"] {
            assert!(admission.welcome(&anybody, id).unwrap().is_none());
        }
        drop(again);
        assert!(admission.welcome(&ann, "ann:3").is_ok());
        drop(one);
        assert!(admission.counts.lock().unwrap().by_identity.is_empty());
    }
}
