//! Nodes that speak DTLS: their sessions come and go, and they are asked over the latest.

use std::collections::HashSet;

use bus::bridge::{Report, Uid};
use bus::id::NodeId;
use bus::time::Now;

use super::Bridge;
use super::access::{level, uid_of};
use super::answers::session_ended;
use super::node::Turn;
use super::places::Seat;
use crate::endpoint::{Remote, SessionId};

impl Bridge {
    /// A node has proven over a new session that it is `name`.
    pub(crate) fn handle_session(
        &mut self,
        session: SessionId,
        at: Remote,
        name: &NodeId,
        now: Now,
    ) {
        self.access.open(session, at, name.clone());
        self.access.see(name.clone());
        self.bind(name, now);
        let Some(uid) = uid_of(name) else {
            return;
        };
        let is_lost = |node: &super::node::Node| node.seat.server.is_none();
        if self.nodes.get(&uid).is_some_and(is_lost) {
            self.sit_down(&uid, at, now);
            self.report(Report::Announce {
                uid,
                address: at.to_string(),
                reset: false,
            });
        }
        self.handle_events(now);
    }

    /// Nothing comes over a session any more, and nothing can be sent.
    pub(crate) fn handle_session_end(&mut self, session: SessionId, now: Now) {
        let Some((at, name)) = self.access.close(session) else {
            return;
        };
        let uid = uid_of(&name).filter(|uid| {
            let seat = self.nodes.get(uid).map(|node| node.seat);
            seat.is_some_and(|seat| seat.server == Some(at) || seat.source == Some(at))
        });
        if let Some(uid) = uid {
            match self.access.latest(&name) {
                Some(other) => self.sit_down(&uid, other, now),
                None => self.stand_up(&uid, now),
            }
        }
        self.handle_events(now);
    }

    /// These names have a shared key, and are not believed without DTLS.
    pub(crate) fn handle_keys(&mut self, names: HashSet<NodeId>, now: Now) {
        for name in self.access.replace_keys(names) {
            self.bind(&name, now);
        }
        self.handle_events(now);
    }

    /// Without DTLS nobody is this node any more.
    fn bind(&mut self, name: &NodeId, now: Now) {
        for uid in self.access.impostors(name) {
            tracing::info!(node = %uid, "forgotten: its name belongs to a node that speaks DTLS");
            self.forget(&uid, now);
            let reason = "replaced";
            self.report(Report::Gone { uid, reason });
        }
        let is_plain = |place: &Remote| place.session().is_none();
        if let Some(uid) = uid_of(name)
            && let Some(node) = self.nodes.get(&uid)
            && (node.seat.server.iter().chain(&node.seat.source)).any(is_plain)
        {
            self.stand_up(&uid, now);
        }
    }

    /// A node is asked over this session from here on.
    pub(super) fn sit_down(&mut self, uid: &Uid, at: Remote, now: Now) {
        let Some(node) = self.nodes.get(uid) else {
            return;
        };
        if node.seat.server == Some(at) {
            return;
        }
        self.stand_up(uid, now);
        let seat = Seat {
            server: Some(at),
            source: Some(at),
        };
        self.reseat(uid, seat);
        if let Some(node) = self.nodes.get_mut(uid) {
            node.announced = at.to_string();
            node.seen = Some(now.mono);
        }
        self.arm_poll(uid, now);
    }

    /// A node can't be asked until it has a session again.
    fn stand_up(&mut self, uid: &Uid, now: Now) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let observations = node.drop_observations();
        if !observations.is_empty() {
            // The node knows nothing of them either.
            node.discovery.done = false;
        }
        let current = node.current.take();
        let is_asked = node.discovery.turn != Turn::None;
        self.reseat(uid, Seat::default());
        self.polls.cancel(uid);
        if is_asked {
            self.end_discovery(uid, &session_ended(), "session_ended", now);
        }
        for id in observations {
            self.drop_request(uid, id, now);
        }
        if let Some(current) = current
            && let Some((_, ask)) = self.asked.remove(&current.id)
        {
            self.endpoint.cancel(current.id, now.mono);
            self.refuse(ask, session_ended());
        }
        self.pump(uid, now);
    }

    /// A node that was seen over DTLS before the bridge started is believed over DTLS only.
    pub(super) fn remember_secure(&mut self, uid: &Uid, address: &str) {
        if address.starts_with("coaps:") {
            self.access.see(level(uid));
        }
    }
}
