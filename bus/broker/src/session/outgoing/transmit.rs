//! Writing packets: what is due again first, then the queue, as far as the window and the store allow.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;

use super::{Delivery, Flow, Inflight, Note, Outgoing, Queued, Sent, Terms};
use crate::store::{Outcome, Progress, Ticket};
use crate::wire::{self, Acknowledgement, Delivered, Qos, Version};

impl Outgoing {
    pub(in crate::session) fn poll(&mut self, turn: &Turn<'_>, out: &mut BytesMut) -> Sent {
        let mut sent = Sent::default();
        let window = window(turn.terms);
        self.refill(window);
        while out.len() < turn.budget {
            let Some(&pid) = self.due.front() else {
                break;
            };
            if self.is_held(pid, turn) {
                break;
            }
            self.due.pop_front();
            self.send_due(pid, turn, out, &mut sent);
        }
        while out.len() < turn.budget {
            let Some(head) = self.queue.front() else {
                break;
            };
            let qos = head.delivery.qos;
            let is_noted = self.is_tracked && qos == Qos::ExactlyOnce;
            // What is noted goes behind what is due; nothing else overtakes that.
            let is_behind = !self.resend.is_empty() || (!is_noted && !self.due.is_empty());
            if is_behind || (qos > Qos::AtMostOnce && self.inflight.len() >= window) {
                break;
            }
            let Some(head) = self.queue.pop_front() else {
                break;
            };
            if is_noted {
                self.reserve(head);
            } else {
                self.send(head, turn, out, &mut sent);
            }
        }
        sent.is_held = self.due.front().is_some_and(|&pid| self.is_held(pid, turn));
        // After a burst, its memory goes back.
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        if self.inflight.is_empty() && self.inflight.capacity() > 64 {
            self.inflight = HashMap::new();
        }
        sent
    }

    /// Whether a packet waits for a commit. One that failed is waited for no longer: the disk has
    /// what it had, and a crash now could repeat this message.
    fn is_held(&self, pid: u16, turn: &Turn<'_>) -> bool {
        let inflight = self.inflight.get(&pid);
        inflight.is_some_and(|inflight| turn.progress.outcome(inflight.ticket) == Outcome::Pending)
    }

    fn insert(&mut self, queued: Queued, pid: u16, is_sent: bool, ticket: Ticket) {
        let bytes = if queued.counted {
            self.messages -= 1;
            queued.delivery.message.len()
        } else {
            0
        };
        self.order += 1;
        self.inflight.insert(
            pid,
            Inflight {
                order: self.order,
                bytes,
                flow: Flow::Published(queued.delivery),
                is_sent,
                ticket,
                is_parked: false,
            },
        );
    }

    /// Gives a message its Packet Identifier, to be sent once that is written down.
    fn reserve(&mut self, queued: Queued) {
        let (pid, seq) = (self.next_pid(), queued.delivery.message.seq());
        self.note(Note::Sent(pid, queued.counted.then_some(seq)));
        self.unwritten.push(pid);
        self.due.push_back(pid);
        self.insert(queued, pid, false, Ticket::UNWRITTEN);
    }

    fn send(&mut self, queued: Queued, turn: &Turn<'_>, out: &mut BytesMut, sent: &mut Sent) {
        let pid = match queued.delivery.qos {
            Qos::AtMostOnce => 0,
            _ => self.next_pid(),
        };
        let is_written = write(&queued.delivery, pid, false, turn, out, sent);
        if !is_written || pid == 0 {
            self.uncount(&queued);
            return;
        }
        self.insert(queued, pid, true, Ticket::default());
    }

    fn send_due(&mut self, pid: u16, turn: &Turn<'_>, out: &mut BytesMut, sent: &mut Sent) {
        let Some(inflight) = self.inflight.get_mut(&pid) else {
            return;
        };
        match &inflight.flow {
            Flow::Published(delivery) => {
                let dup = std::mem::replace(&mut inflight.is_sent, true);
                if !write(delivery, pid, dup, turn, out, sent) {
                    if dup {
                        self.give_up(pid);
                    } else {
                        self.abandon(pid);
                    }
                }
            }
            Flow::Released => {
                let (version, kind) = (turn.terms.version, Acknowledgement::Pubrel);
                wire::acknowledgement(out, version, kind, pid, 0);
            }
        }
    }
}

/// What holds for one call of [`Outgoing::poll`].
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct Turn<'a> {
    pub(in crate::session) terms: &'a Terms,
    pub(in crate::session) now_millis: i64,
    /// Where commits are.
    pub(in crate::session) progress: Progress,
    /// Output that is enough, bytes.
    pub(in crate::session) budget: usize,
}

/// Unacknowledged messages at a time. One Packet Identifier always stays free, so that `next_pid` ends.
pub(super) fn window(terms: &Terms) -> usize {
    usize::from(terms.window.min(u16::MAX - 1))
}

/// Writes one PUBLISH, unless it is of no use any more or too large for the client
/// (MQTT-3.1.2-24, MQTT-3.3.2-5). A QoS 2 message that was sent does not expire (MQTT-4.3.3-7).
fn write(
    delivery: &Delivery,
    pid: u16,
    dup: bool,
    turn: &Turn<'_>,
    out: &mut BytesMut,
    sent: &mut Sent,
) -> bool {
    let (message, terms) = (&delivery.message, turn.terms);
    let mut expiry = None;
    if let Some(at) = message.expires() {
        let left = at - turn.now_millis;
        if left <= 0 && !(dup && delivery.qos == Qos::ExactlyOnce) {
            sent.expired += 1;
            return false;
        }
        // Rounded up, so that a message is never said to be useless while it is not.
        expiry = u32::try_from((left.max(0) + 999) / 1000).ok();
    }
    let packet = Delivered {
        topic: message.topic(),
        payload: message.payload(),
        properties: message.properties(),
        expiry,
        subscription_ids: &delivery.ids,
        qos: delivery.qos as u8,
        retain: delivery.retain,
        dup,
        pid,
    };
    let is_large = wire::publish_size(terms.version, &packet) > terms.maximum_packet as usize;
    if terms.version == Version::V5 && is_large {
        sent.too_large += 1;
        return false;
    }
    wire::publish(out, terms.version, &packet);
    sent.messages += 1;
    true
}
