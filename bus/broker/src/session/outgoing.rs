//! Messages on their way to one client: the queue, the window, and what waits for acknowledgement.

mod acknowledge;
mod kept;
mod transmit;

use std::collections::{HashMap, VecDeque};

pub(crate) use self::kept::Note;
pub(super) use self::transmit::Turn;
use self::transmit::window;
use super::Terms;
use crate::message::Message;
use crate::store::Ticket;
use crate::wire::Qos;

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
    /// The next packet waits for a commit.
    pub(crate) is_held: bool,
}

#[derive(Debug)]
struct Queued {
    delivery: Delivery,
    /// It counts against the bounds; messages of a snapshot don't.
    counted: bool,
}

#[derive(Debug)]
enum Flow {
    /// PUBLISH is or was sent, PUBACK or PUBREC is awaited.
    Published(Delivery),
    /// PUBREL is or was sent, PUBCOMP is awaited.
    Released,
}

#[derive(Debug)]
struct Inflight {
    /// Its place among all that were ever sent, for sending again in order (MQTT-4.6.0-1).
    order: u64,
    /// Bytes counted against the bounds.
    bytes: usize,
    flow: Flow,
    /// Its PUBLISH was sent, so that it would be a repetition (MQTT-3.3.1-1).
    is_sent: bool,
    /// What is to be stored before its next packet is sent.
    ticket: Ticket,
    /// It is of an earlier connection, and in [`Outgoing::resend`].
    is_parked: bool,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    bounds: Bounds,
    queue: VecDeque<Queued>,
    inflight: HashMap<u16, Inflight>,
    /// Packet Identifiers of an earlier connection that become due as the window allows, oldest
    /// first (MQTT-3.3.4-9).
    resend: VecDeque<u16>,
    /// Packet Identifiers whose packets are to be sent before anything of the queue, oldest first.
    due: VecDeque<u16>,
    last_pid: u16,
    order: u64,
    /// Whether the session outlives the process.
    is_tracked: bool,
    /// What is to be written down.
    notes: Vec<Note>,
    /// Packet Identifiers whose last notes are not written yet.
    unwritten: Vec<u16>,
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
            due: VecDeque::new(),
            last_pid: 0,
            order: 0,
            is_tracked: false,
            notes: Vec::new(),
            unwritten: Vec::new(),
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
            self.give_up(pid);
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
                flow: Flow::Published(delivery),
                ..
            }) = self.remove(pid)
            {
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

    /// Makes everything unacknowledged due again, as the window allows.
    pub(super) fn resume(&mut self) {
        let mut pids: Vec<(u64, u16)> = self
            .inflight
            .iter()
            .map(|(&pid, inflight)| (inflight.order, pid))
            .collect();
        pids.sort_unstable();
        self.due.clear();
        self.resend = pids.into_iter().map(|(_, pid)| pid).collect();
        let inflight = self.inflight.values_mut();
        inflight.for_each(|inflight| inflight.is_parked = true);
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
        self.due.clear();
        self.resend.clear();
    }

    /// Makes a packet due, whatever the window says.
    fn make_due(&mut self, pid: u16) {
        if let Some(inflight) = self.inflight.get_mut(&pid)
            && std::mem::take(&mut inflight.is_parked)
        {
            self.resend.retain(|known| *known != pid);
        }
        if !self.due.contains(&pid) {
            self.due.push_back(pid);
        }
    }

    /// Makes of an earlier connection due what the window has room for.
    fn refill(&mut self, window: usize) {
        while self.inflight.len() - self.resend.len() < window
            && let Some(pid) = self.resend.pop_front()
        {
            if let Some(inflight) = self.inflight.get_mut(&pid) {
                inflight.is_parked = false;
            }
            self.due.push_back(pid);
        }
    }

    /// Takes a flow out.
    fn remove(&mut self, pid: u16) -> Option<Inflight> {
        let inflight = self.inflight.remove(&pid)?;
        if inflight.is_parked {
            self.resend.retain(|known| *known != pid);
        }
        self.bytes -= inflight.bytes;
        Some(inflight)
    }

    fn next_pid(&mut self) -> u16 {
        loop {
            self.last_pid = self.last_pid.checked_add(1).unwrap_or(1);
            if !self.inflight.contains_key(&self.last_pid) {
                return self.last_pid;
            }
        }
    }
}
