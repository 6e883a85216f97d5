//! Messages on their way to one client: the queue, the window, and what waits for acknowledgement.

mod kept;

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;

use super::Terms;
use crate::message::Message;
use crate::wire::{self, Acknowledgement, Delivered, Qos, Version};

/// A message with the options of the subscriptions that asked for it.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message: Message,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) ids: Vec<u32>,
}

/// How much may wait for one session.
///
/// Full means: QoS 0 is dropped at the bound; at twice the bound a connected client is
/// disconnected, and an absent one loses its oldest message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// No subscription asks for it.
    NotAsked,
    /// It waits.
    Queued,
    /// It was QoS 0 and the queue is full.
    Dropped,
    /// It waits, and the oldest one that did is gone.
    DroppedOldest,
    /// The second bound is passed: the client is to be disconnected.
    Overflow,
}

/// What one call of [`Outgoing::poll`] did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Messages written.
    pub(crate) messages: u64,
    /// Messages that were of no use any more.
    pub(crate) expired: u64,
    /// Messages over the client's Maximum Packet Size.
    pub(crate) too_large: u64,
}

#[derive(Debug)]
struct Queued {
    delivery: Delivery,
    /// It counts against the bounds; messages of a snapshot don't.
    counted: bool,
}

#[derive(Debug)]
enum Flow {
    /// PUBLISH was sent, PUBACK or PUBREC is awaited.
    Published(Delivery),
    /// PUBREL was sent, PUBCOMP is awaited.
    Released,
}

#[derive(Debug)]
struct Inflight {
    /// Its place among all that were ever sent, for sending again in order (MQTT-4.6.0-1).
    order: u64,
    /// Bytes counted against the bounds.
    bytes: usize,
    flow: Flow,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    bounds: Bounds,
    queue: VecDeque<Queued>,
    inflight: HashMap<u16, Inflight>,
    /// Packet Identifiers whose packets are to be sent again, oldest first.
    resend: VecDeque<u16>,
    last_pid: u16,
    order: u64,
    /// Whether it is told when a message is done with.
    is_tracked: bool,
    /// Numbers of counted messages that are done with: delivered, or dropped.
    finished: Vec<u64>,
    /// Counted messages in the queue.
    messages: usize,
    /// Counted bytes in the queue and unacknowledged.
    bytes: usize,
}

impl Outgoing {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queue: VecDeque::new(),
            inflight: HashMap::new(),
            resend: VecDeque::new(),
            last_pid: 0,
            order: 0,
            is_tracked: false,
            finished: Vec::new(),
            messages: 0,
            bytes: 0,
        }
    }

    fn is_over(&self, factor: usize) -> bool {
        self.messages >= self.bounds.messages.saturating_mul(factor)
            || self.bytes >= self.bounds.bytes.saturating_mul(factor)
    }

    pub(super) fn push(&mut self, delivery: Delivery, is_connected: bool) -> Pushed {
        if delivery.qos == Qos::AtMostOnce && self.is_over(1) {
            return Pushed::Dropped;
        }
        let mut pushed = Pushed::Queued;
        if self.is_over(2) {
            if is_connected {
                return Pushed::Overflow;
            }
            self.drop_oldest();
            pushed = Pushed::DroppedOldest;
        }
        self.messages += 1;
        self.bytes += delivery.message.len();
        self.queue.push_back(Queued {
            delivery,
            counted: true,
        });
        pushed
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.queue.pop_front() {
            self.uncount(&oldest);
        }
    }

    fn uncount(&mut self, queued: &Queued) {
        if queued.counted {
            self.messages -= 1;
            self.bytes -= queued.delivery.message.len();
            if queued.delivery.qos > Qos::AtMostOnce {
                self.finish(&queued.delivery.message);
            }
        }
    }

    pub(super) fn push_snapshot(&mut self, delivery: Delivery) {
        self.queue.push_back(Queued {
            delivery,
            counted: false,
        });
    }

    /// Forgets what is of no use any more, sent or not.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&Message) -> bool) {
        for queued in std::mem::take(&mut self.queue) {
            if is_kept(&queued.delivery.message) {
                self.queue.push_back(queued);
            } else {
                self.uncount(&queued);
            }
        }
        let ended = self.inflight.iter().filter(|(_, inflight)| {
            matches!(&inflight.flow, Flow::Published(delivery) if !is_kept(&delivery.message))
        });
        let ended: Vec<u16> = ended.map(|(&pid, _)| pid).collect();
        for pid in ended {
            self.abandon(pid);
        }
    }

    /// Whether the first bound is reached.
    pub(super) fn is_full(&self) -> bool {
        self.is_over(1)
    }

    /// Whether a message would go to the client at once.
    pub(super) fn is_idle(&self, terms: &Terms) -> bool {
        self.queue.is_empty() && self.inflight.len() < window(terms)
    }

    /// Takes out messages of Shared Subscriptions, oldest first: those that were not sent yet, and
    /// with `is_end` those that were sent with QoS 1. QoS 2 that was sent is nobody else's
    /// (MQTT-4.8.2-5). None of them counts as done with.
    pub(super) fn take_shared(
        &mut self,
        which: impl Fn(&str) -> bool,
        is_end: bool,
    ) -> Vec<Message> {
        let asked = |delivery: &Delivery| delivery.message.share().is_some_and(&which);
        let mut sent: Vec<(u64, u16)> = Vec::new();
        if is_end {
            let inflight = self.inflight.iter();
            sent.extend(
                inflight.filter_map(|(&pid, inflight)| match &inflight.flow {
                    Flow::Published(delivery) if delivery.qos == Qos::AtLeastOnce => {
                        asked(delivery).then_some((inflight.order, pid))
                    }
                    _ => None,
                }),
            );
        }
        sent.sort_unstable();
        let mut taken = Vec::new();
        for (_, pid) in sent {
            if let Some(Inflight {
                bytes,
                flow: Flow::Published(delivery),
                ..
            }) = self.inflight.remove(&pid)
            {
                self.bytes -= bytes;
                taken.push(delivery.message);
            }
        }
        for queued in std::mem::take(&mut self.queue) {
            if asked(&queued.delivery) {
                self.messages -= 1;
                self.bytes -= queued.delivery.message.len();
                taken.push(queued.delivery.message);
            } else {
                self.queue.push_back(queued);
            }
        }
        taken
    }

    /// Makes everything unacknowledged due again.
    pub(super) fn resume(&mut self) {
        let mut pids: Vec<(u64, u16)> = self
            .inflight
            .iter()
            .map(|(&pid, inflight)| (inflight.order, pid))
            .collect();
        pids.sort_unstable();
        self.resend = pids.into_iter().map(|(_, pid)| pid).collect();
    }

    /// Keeps only what an absent client is owed.
    pub(super) fn suspend(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        for queued in queue {
            if queued.counted && queued.delivery.qos > Qos::AtMostOnce {
                self.queue.push_back(queued);
            } else {
                self.uncount(&queued);
            }
        }
        self.resend.clear();
    }

    pub(super) fn handle_puback(&mut self, pid: u16) {
        if let Some(Inflight {
            flow: Flow::Published(delivery),
            ..
        }) = self.inflight.get(&pid)
            && delivery.qos == Qos::AtLeastOnce
        {
            self.abandon(pid);
        }
    }

    /// Gives whether the Packet Identifier is one of a QoS 2 message under way.
    pub(super) fn handle_pubrec(&mut self, pid: u16) -> bool {
        let Some(inflight) = self.inflight.get_mut(&pid) else {
            return false;
        };
        match &inflight.flow {
            Flow::Released => true,
            Flow::Published(delivery) if delivery.qos == Qos::ExactlyOnce => {
                if inflight.bytes > 0 && self.is_tracked {
                    self.finished.push(delivery.message.seq());
                }
                self.bytes -= inflight.bytes;
                inflight.bytes = 0;
                inflight.flow = Flow::Released;
                true
            }
            Flow::Published(_) => false,
        }
    }

    pub(super) fn handle_pubcomp(&mut self, pid: u16) {
        let inflight = self.inflight.get(&pid);
        if inflight.is_some_and(|inflight| matches!(inflight.flow, Flow::Released)) {
            self.abandon(pid);
        }
    }

    /// Ends the flow of a Packet Identifier.
    pub(super) fn abandon(&mut self, pid: u16) {
        if let Some(inflight) = self.inflight.remove(&pid) {
            self.bytes -= inflight.bytes;
            if let Flow::Published(delivery) = &inflight.flow
                && inflight.bytes > 0
            {
                self.finish(&delivery.message);
            }
        }
    }

    fn next_pid(&mut self) -> u16 {
        loop {
            self.last_pid = self.last_pid.checked_add(1).unwrap_or(1);
            if !self.inflight.contains_key(&self.last_pid) {
                return self.last_pid;
            }
        }
    }

    pub(super) fn poll(
        &mut self,
        terms: &Terms,
        now_millis: i64,
        budget: usize,
        out: &mut BytesMut,
    ) -> Sent {
        let mut sent = Sent::default();
        while out.len() < budget {
            let Some(pid) = self.resend.pop_front() else {
                break;
            };
            self.send_again(pid, terms, now_millis, out, &mut sent);
        }
        if !self.resend.is_empty() {
            return sent;
        }
        let window = window(terms);
        while out.len() < budget {
            let Some(head) = self.queue.front() else {
                break;
            };
            if head.delivery.qos > Qos::AtMostOnce && self.inflight.len() >= window {
                break;
            }
            if let Some(head) = self.queue.pop_front() {
                self.send(head, terms, now_millis, out, &mut sent);
            }
        }
        // After a burst, its memory goes back.
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        if self.inflight.is_empty() && self.inflight.capacity() > 64 {
            self.inflight = HashMap::new();
        }
        sent
    }

    fn send(
        &mut self,
        queued: Queued,
        terms: &Terms,
        now_millis: i64,
        out: &mut BytesMut,
        sent: &mut Sent,
    ) {
        let pid = match queued.delivery.qos {
            Qos::AtMostOnce => 0,
            _ => self.next_pid(),
        };
        let is_written = write(&queued.delivery, pid, false, terms, now_millis, out, sent);
        if !is_written || pid == 0 {
            self.uncount(&queued);
            return;
        }
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
            },
        );
    }

    fn send_again(
        &mut self,
        pid: u16,
        terms: &Terms,
        now_millis: i64,
        out: &mut BytesMut,
        sent: &mut Sent,
    ) {
        let Some(inflight) = self.inflight.get(&pid) else {
            return;
        };
        match &inflight.flow {
            Flow::Published(delivery) => {
                if !write(delivery, pid, true, terms, now_millis, out, sent) {
                    self.abandon(pid);
                }
            }
            Flow::Released => {
                wire::acknowledgement(out, terms.version, Acknowledgement::Pubrel, pid, 0);
            }
        }
    }
}

/// Unacknowledged messages at a time. One Packet Identifier always stays free, so that `next_pid` ends.
fn window(terms: &Terms) -> usize {
    usize::from(terms.window.min(u16::MAX - 1))
}

/// Writes one PUBLISH, unless it is of no use any more or too large for the client
/// (MQTT-3.1.2-24, MQTT-3.3.2-5).
fn write(
    delivery: &Delivery,
    pid: u16,
    dup: bool,
    terms: &Terms,
    now_millis: i64,
    out: &mut BytesMut,
    sent: &mut Sent,
) -> bool {
    let message = &delivery.message;
    let mut expiry = None;
    if let Some(at) = message.expires() {
        let left = at - now_millis;
        if left <= 0 {
            sent.expired += 1;
            return false;
        }
        // Rounded up, so that a message is never said to be useless while it is not.
        expiry = u32::try_from((left + 999) / 1000).ok();
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
