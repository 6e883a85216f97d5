//! What outlives the process: which messages are done with, and what was under way.

use super::{Delivery, Flow, Inflight, Outgoing};
use crate::message::Message;

impl Outgoing {
    /// From now on, tells what is done with.
    pub(in crate::session) fn track(&mut self) {
        self.is_tracked = true;
    }

    /// Takes a message for done with.
    pub(in crate::session) fn finish(&mut self, message: &Message) {
        if self.is_tracked {
            self.finished.push(message.seq());
        }
    }

    /// Takes out the numbers of messages that are done with since the last time.
    pub(in crate::session) fn take_finished(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.finished)
    }

    /// What is unacknowledged, oldest first: Packet Identifiers with the numbers of their messages,
    /// none when PUBCOMP is awaited. Messages of a snapshot are left out.
    pub(in crate::session) fn inflight(&self) -> Vec<(u16, Option<u64>)> {
        let mut found: Vec<_> = self
            .inflight
            .iter()
            .filter_map(|(&pid, inflight)| match &inflight.flow {
                Flow::Released => Some((inflight.order, pid, None)),
                Flow::Published(_) if inflight.bytes == 0 => None,
                Flow::Published(delivery) => {
                    Some((inflight.order, pid, Some(delivery.message.seq())))
                }
            })
            .collect();
        found.sort_unstable();
        let found = found.into_iter();
        found.map(|(_, pid, seq)| (pid, seq)).collect()
    }

    /// Takes up what was unacknowledged in a life before; without a delivery, PUBCOMP is awaited.
    pub(in crate::session) fn restore(&mut self, pid: u16, delivery: Option<Delivery>) {
        self.order += 1;
        self.last_pid = pid;
        let bytes = delivery.as_ref().map_or(0, |d| d.message.len());
        self.bytes += bytes;
        self.inflight.insert(
            pid,
            Inflight {
                order: self.order,
                bytes,
                flow: delivery.map_or(Flow::Released, Flow::Published),
            },
        );
    }
}
