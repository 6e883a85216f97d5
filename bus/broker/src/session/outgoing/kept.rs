//! What outlives the process: which messages are done with, and what was under way.
//!
//! A QoS 2 message is sent once its Packet Identifier is written down, and PUBREL once that is: so
//! that a crash at any time makes neither a message come twice nor an identifier mean two.

use super::{Delivery, Flow, Inflight, Outgoing};
use crate::message::Message;
use crate::store::Ticket;
use crate::wire::Qos;

/// What is to be written down of a session's flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// A QoS 2 message with this number is sent under this Packet Identifier; or PUBREL is.
    Sent(u16, Option<u64>),
    /// The QoS 2 flow with this Packet Identifier is over.
    Completed(u16),
    /// The message with this number waits no more: it was delivered, or dropped.
    Finished(u64),
}

impl Outgoing {
    /// From now on, makes notes.
    pub(in crate::session) fn track(&mut self) {
        self.is_tracked = true;
    }

    pub(super) fn note(&mut self, note: Note) {
        if self.is_tracked {
            self.notes.push(note);
        }
    }

    /// Takes a message for done with.
    pub(in crate::session) fn finish(&mut self, message: &Message) {
        self.note(Note::Finished(message.seq()));
    }

    /// The commit that the next packet of a QoS 2 flow waits for, when it was noted just now.
    pub(super) fn unwritten(&self) -> Ticket {
        if self.is_tracked {
            Ticket::UNWRITTEN
        } else {
            Ticket::default()
        }
    }

    pub(in crate::session) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(in crate::session) fn handle_written(&mut self, ticket: Ticket) {
        for pid in std::mem::take(&mut self.unwritten) {
            if let Some(inflight) = self.inflight.get_mut(&pid) {
                inflight.ticket = ticket;
            }
        }
    }

    /// What was sent with QoS 1 and is unacknowledged, oldest first: Packet Identifiers with the
    /// numbers of their messages. Messages of a snapshot are left out.
    pub(in crate::session) fn inflight(&self) -> Vec<(u16, u64)> {
        let inflight = self.inflight.iter();
        let mut found: Vec<_> = inflight
            .filter_map(|(&pid, inflight)| match &inflight.flow {
                Flow::Published(delivery)
                    if inflight.bytes > 0 && delivery.qos == Qos::AtLeastOnce =>
                {
                    Some((inflight.order, pid, delivery.message.seq()))
                }
                _ => None,
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
                is_sent: true,
                ticket: Ticket::default(),
                is_parked: false,
            },
        );
    }
}
