//! Nodes that say nothing by themselves: all CoAP nodes of the networks that the operator names are
//! asked for their resources, now and then (RFC 7252 sections 8 and 12.8, RFC 6690 section 4).
//!
//! Who answers becomes a node under its address, unless it is known there already.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bus::bridge::{Report, Uid};
use bus::time::Now;

use super::discovery::is_list;
use super::{Bridge, COAP_PORT};
use crate::endpoint::parameters::DEFAULT_LEISURE;
use crate::endpoint::{Method, Remote, Request, Response};
use crate::metrics::Refused;

/// All CoAP Nodes: IPv4, and IPv6 on the link and in the site.
pub(crate) const ALL_COAP_NODES: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(224, 0, 1, 187)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfd)),
    IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfd)),
];

/// Answers are taken for so long: the leisure of a node, and a slow network's time.
const PATIENCE: Duration = DEFAULT_LEISURE.saturating_mul(2);

/// When all nodes are asked.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// None when they are not.
    pub(super) next: Option<Instant>,
}

impl Bridge {
    /// From now on all nodes are asked, with [`super::Rules::search_interval`].
    pub(crate) fn start_search(&mut self, now: Now) {
        self.search.next = Some(now.mono);
        self.handle_search(now);
    }

    pub(super) fn handle_search(&mut self, now: Now) {
        if self.search.next.is_none_or(|next| next > now.mono) {
            return;
        }
        self.search.next = Some(now.mono + self.rules.search_interval);
        for group in ALL_COAP_NODES {
            let group = SocketAddr::new(group, COAP_PORT);
            let question = Request::new(Method::Get, ".well-known/core");
            self.endpoint.ask_group(group, question, PATIENCE, now.mono);
        }
    }

    /// Somebody has answered.
    pub(super) fn handle_found(&mut self, peer: Remote, response: &Response, now: Now) {
        if !is_list(response) {
            return;
        }
        if let Some(uid) = self.places.server(peer).cloned() {
            if let Some(node) = self.nodes.get_mut(&uid) {
                node.seen = Some(now.mono);
            }
            self.report(Report::Seen { uid: uid.clone() });
            return self.arm_poll(&uid, now);
        }
        if let Some(uid) = self.places.find(peer).cloned()
            && self
                .nodes
                .get(&uid)
                .is_some_and(|node| node.seat.server.is_none())
        {
            // It has said who it is, and its server was not found yet.
            return self.consider(&uid, peer, false, now);
        }
        let Some(uid) = uid(peer) else { return };
        if let Err(refused) = self.take_found(uid, peer, now) {
            self.metrics.refused(refused);
        }
    }

    fn take_found(&mut self, uid: Uid, peer: Remote, now: Now) -> Result<(), Refused> {
        self.access.admits(peer)?;
        let uid = self.access.speaker(peer, uid)?;
        if self.nodes.contains_key(&uid) {
            self.consider_at(&uid, [peer].into(), peer, now);
            return Ok(());
        }
        self.admit(&uid, peer, Some(peer), now)
    }
}

/// The name of a node that has none: its address, with the port if that is not the standard one.
fn uid(peer: Remote) -> Option<Uid> {
    let address = peer.address();
    let text = match (address.port(), address.ip()) {
        (COAP_PORT, ip) => ip.to_string(),
        (port, IpAddr::V4(ip)) => format!("{ip}:{port}"),
        (port, IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
    };
    Uid::new(&text).ok()
}
