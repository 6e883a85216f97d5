//! Which node is where: from an address to the node that a push without a uid belongs to.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use bus::bridge::Uid;

use crate::block::{Block, Tally};
use crate::endpoint::{Remote, SessionId};

/// Where one node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seat {
    /// Its own CoAP server, once it has answered there.
    pub(super) server: Option<Remote>,
    /// Where its last sign of life came from.
    pub(super) source: Option<Remote>,
}

impl Seat {
    fn place(self) -> Option<Remote> {
        self.server.or(self.source)
    }
}

/// An address without its port; link-local addresses are told apart by their interface. A DTLS
/// session is a place of its own.
pub(super) type Host = (IpAddr, u32, Option<SessionId>);

pub(super) fn host(remote: Remote) -> Host {
    let scope = match remote.address() {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    (remote.address().ip(), scope, remote.session())
}

#[derive(Debug, Default)]
pub(super) struct Places {
    servers: HashMap<Remote, Uid>,
    sources: HashMap<Remote, Uid>,
    hosts: HashMap<Host, BTreeSet<Uid>>,
    /// Of those without DTLS, whom anybody can make up.
    blocks: Tally,
    plain: usize,
}

impl Places {
    /// Moves a node from one seat to another.
    pub(super) fn reseat(&mut self, uid: &Uid, from: Seat, to: Seat) {
        for (map, old, new) in [
            (&mut self.servers, from.server, to.server),
            (&mut self.sources, from.source, to.source),
        ] {
            if let Some(old) = old.filter(|old| map.get(old) == Some(uid)) {
                map.remove(&old);
            }
            if let Some(new) = new {
                map.insert(new, uid.clone());
            }
        }
        let (old, new) = (from.place(), to.place());
        if old.map(host) == new.map(host) {
            return;
        }
        if let Some(old) = old {
            self.leave(uid, old);
        }
        if let Some(new) = new {
            self.hosts.entry(host(new)).or_default().insert(uid.clone());
            if new.session().is_none() {
                self.blocks.add(Block::of(new.address()));
                self.plain += 1;
            }
        }
    }

    fn leave(&mut self, uid: &Uid, place: Remote) {
        if let Some(uids) = self.hosts.get_mut(&host(place)) {
            uids.remove(uid);
            if uids.is_empty() {
                self.hosts.remove(&host(place));
            }
        }
        if place.session().is_none() {
            self.blocks.remove(Block::of(place.address()));
            self.plain -= 1;
        }
    }

    /// The node that a message without a uid belongs to: the one at that address and port, else the
    /// only one at that address.
    pub(super) fn find(&self, from: Remote) -> Option<&Uid> {
        let exact = self.servers.get(&from).or_else(|| self.sources.get(&from));
        exact.or_else(|| {
            let uids = self.hosts.get(&host(from))?;
            uids.first().filter(|_| uids.len() == 1)
        })
    }

    /// The node whose server is there.
    pub(super) fn server(&self, place: Remote) -> Option<&Uid> {
        self.servers.get(&place)
    }

    /// How many nodes there are without DTLS.
    pub(super) fn plain(&self) -> usize {
        self.plain
    }

    /// How many of them are in the same place.
    pub(super) fn count(&self, place: Remote) -> usize {
        self.blocks.count(Block::of(place.address()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn seat(server: &str, source: &str) -> Seat {
        Seat {
            server: server.parse().ok().map(Remote::Plain),
            source: source.parse().ok().map(Remote::Plain),
        }
    }

    #[track_caller]
    fn check(places: &Places, from: &str, expected: Option<&str>) {
        let found = places.find(Remote::Plain(from.parse().unwrap()));
        assert_eq!(found.map(Uid::as_str), expected, "{from}");
    }

    #[test]
    fn a_push_belongs_to_the_exact_address_or_to_the_only_node_there() {
        let mut places = Places::default();
        places.reseat(
            &uid("a"),
            Seat::default(),
            seat("10.0.0.1:5683", "10.0.0.1:49152"),
        );
        check(&places, "10.0.0.1:5683", Some("a"));
        check(&places, "10.0.0.1:49152", Some("a"));
        check(&places, "10.0.0.1:60000", Some("a"));
        check(&places, "10.0.0.2:5683", None);
        places.reseat(&uid("b"), Seat::default(), seat("10.0.0.1:7000", ""));
        check(&places, "10.0.0.1:7000", Some("b"));
        check(&places, "10.0.0.1:49152", Some("a"));
        check(&places, "10.0.0.1:60000", None);
        let place = Remote::Plain("10.0.0.1:1".parse().unwrap());
        assert_eq!(places.count(place), 2);
    }

    #[test]
    fn moving_and_leaving_leaves_nothing_behind() {
        let mut places = Places::default();
        let (here, there) = (
            seat("[2001:db8::1]:5683", ""),
            seat("", "[2001:db8:0:1::1]:9"),
        );
        places.reseat(&uid("a"), Seat::default(), here);
        places.reseat(&uid("a"), here, there);
        check(&places, "[2001:db8::1]:5683", None);
        check(&places, "[2001:db8:0:1::1]:10", Some("a"));
        places.reseat(&uid("a"), there, Seat::default());
        assert!(places.hosts.is_empty() && places.blocks.is_empty());
        assert!(places.servers.is_empty() && places.sources.is_empty());
    }

    #[test]
    fn interfaces_tell_link_local_addresses_apart() {
        let mut places = Places::default();
        places.reseat(&uid("a"), Seat::default(), seat("[fe80::1%1]:5683", ""));
        check(&places, "[fe80::1%1]:9", Some("a"));
        check(&places, "[fe80::1%2]:9", None);
    }
}
