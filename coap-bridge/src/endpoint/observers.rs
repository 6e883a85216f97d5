//! Peers that observe resources of ours (RFC 7641, section 4).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::blocks;
use super::codec::{Message, Token, Type};
use super::layer::SendId;
use super::message::Response;
use super::metrics::Dropped;
use super::options::{Block, number};
use super::remote::Remote;
use super::{Endpoint, Event};

/// Names a peer's observation of a resource of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObserverId(u64);

/// How many observations one peer has. Full: a further one gets its answer, and no notifications.
const MAX_PER_PEER: usize = 16;
/// How many observations there are. Full: as for one peer.
const MAX_OBSERVERS: usize = 4096;
/// At least so often a notification is Confirmable, to see whether the peer still listens (section
/// 4.5).
const CONFIRM_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Sequence numbers have 24 bits.
const SEQUENCES: u32 = 1 << 24;

#[derive(Debug)]
struct Observer {
    peer: Remote,
    token: Token,
    /// How large the peer wants its blocks.
    block2: Option<Block>,
    sequence: u32,
    /// The notification that waits for its acknowledgement.
    send: Option<SendId>,
    /// The mid of the last Non-confirmable notification.
    mid: Option<u16>,
    confirmed: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Observers {
    next: u64,
    by_id: HashMap<ObserverId, Observer>,
    by_peer: HashMap<Remote, Vec<ObserverId>>,
    sends: HashMap<SendId, ObserverId>,
}

impl Observers {
    fn of_peer(&self, peer: Remote) -> impl Iterator<Item = (ObserverId, &Observer)> {
        let ids = self.by_peer.get(&peer).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.by_id.get(id)?)))
    }

    fn find(&self, peer: Remote, token: Token) -> Option<ObserverId> {
        self.of_peer(peer)
            .find_map(|(id, observer)| (observer.token == token).then_some(id))
    }

    /// Takes a peer in; none when there are too many.
    pub(super) fn register(
        &mut self,
        peer: Remote,
        token: Token,
        block2: Option<Block>,
        now: Instant,
    ) -> Option<ObserverId> {
        if self.by_id.len() >= MAX_OBSERVERS || self.of_peer(peer).count() >= MAX_PER_PEER {
            return None;
        }
        let id = ObserverId(self.next);
        self.next += 1;
        let observer = Observer {
            peer,
            token,
            block2,
            sequence: 0,
            send: None,
            mid: None,
            confirmed: now,
        };
        self.by_id.insert(id, observer);
        self.by_peer.entry(peer).or_default().push(id);
        Some(id)
    }

    #[cfg(test)]
    pub(super) fn skip_sequences(&mut self, to: u32) {
        for observer in self.by_id.values_mut() {
            observer.sequence = to;
        }
    }

    fn remove(&mut self, id: ObserverId) -> Option<Observer> {
        let observer = self.by_id.remove(&id)?;
        if let Some(send) = observer.send {
            self.sends.remove(&send);
        }
        if let Some(ids) = self.by_peer.get_mut(&observer.peer) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_peer.remove(&observer.peer);
            }
        }
        Some(observer)
    }
}

impl Endpoint {
    /// Notifies an observer of the new representation. While one Confirmable notification waits for
    /// its acknowledgement the newest takes the place of those before it, so that a slow peer is
    /// told what is and not what was. A response that is no success, such as 4.04, ends the
    /// observation. An observer that has left is ignored.
    pub fn notify(
        &mut self,
        observer: ObserverId,
        response: Response,
        confirmable: bool,
        now: Instant,
    ) {
        let szx = self.limits.szx;
        let Some(known) = self.observers.by_id.get_mut(&observer) else {
            return;
        };
        let peer = known.peer;
        let ends = !response.code.is_success();
        let mut response = blocks::cut(response, known.block2, szx);
        known.sequence = (known.sequence + 1) % SEQUENCES;
        if !ends {
            response.options.set_uint(number::OBSERVE, known.sequence);
        }
        let message = Message {
            kind: Type::Non,
            code: response.code,
            mid: 0,
            token: known.token,
            options: response.options,
            payload: response.payload,
        };
        let confirm = now.saturating_duration_since(known.confirmed) >= CONFIRM_AFTER;
        let send = known.send;
        if let Some(send) = send
            && self.layer.supersede(peer, send, message.clone())
        {
        } else if confirmable || confirm || ends {
            self.send_notification(observer, message, now);
        } else {
            known.mid = Some(self.layer.send_non(peer, message, now));
        }
        if ends {
            self.observers.remove(observer);
        }
    }

    fn send_notification(&mut self, observer: ObserverId, message: Message, now: Instant) {
        let Some(known) = self.observers.by_id.get_mut(&observer) else {
            return;
        };
        // When the backlog is full, the next notification is as good.
        if let Ok(send) = self.layer.send_con(known.peer, message, now) {
            known.send = Some(send);
            self.observers.sends.insert(send, observer);
        }
    }

    /// Ends an observation from our side without a word.
    pub fn forget_observer(&mut self, observer: ObserverId) {
        self.observers.remove(observer);
    }

    /// A notification has arrived; `newer` has taken its place meanwhile and was not sent.
    pub(super) fn handle_notified(&mut self, send: SendId, newer: Option<Message>, now: Instant) {
        let Some(id) = self.observers.sends.remove(&send) else {
            return;
        };
        if let Some(observer) = self.observers.by_id.get_mut(&id) {
            observer.send = None;
            observer.confirmed = now;
        }
        if let Some(newer) = newer {
            self.send_notification(id, newer, now);
        }
    }

    /// A notification was rejected, or never acknowledged: the peer listens no more (section 4.5).
    pub(super) fn handle_failed_notification(&mut self, send: SendId) {
        if let Some(id) = self.observers.sends.remove(&send) {
            self.leave(id);
        }
    }

    /// A Reset that is for no Confirmable message: maybe for a notification.
    pub(super) fn handle_stray_reset(&mut self, peer: Remote, mid: u16) {
        let found = self
            .observers
            .of_peer(peer)
            .find_map(|(id, observer)| (observer.mid == Some(mid)).then_some(id));
        match found {
            Some(id) => self.leave(id),
            None => self.layer.metrics.dropped(Dropped::Unmatched),
        }
    }

    /// The peer has asked with this token anew, or to be notified no more.
    pub(super) fn handle_deregistration(&mut self, peer: Remote, token: Token) {
        if let Some(id) = self.observers.find(peer, token) {
            self.leave(id);
        }
    }

    fn leave(&mut self, observer: ObserverId) {
        if let Some(known) = self.observers.remove(observer) {
            let peer = known.peer;
            self.events
                .push_back(Event::ObserverLeft { observer, peer });
        }
    }
}
