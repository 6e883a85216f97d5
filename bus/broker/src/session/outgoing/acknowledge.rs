//! What the client says to the messages it was sent: PUBACK, PUBREC, PUBCOMP.

use super::{Flow, Inflight, Note, Outgoing};
use crate::wire::Qos;

impl Outgoing {
    pub(in crate::session) fn handle_puback(&mut self, pid: u16) {
        if let Some(Inflight {
            flow: Flow::Published(delivery),
            ..
        }) = self.inflight.get(&pid)
            && delivery.qos == Qos::AtLeastOnce
        {
            self.abandon(pid);
        }
    }

    /// Takes a PUBREC; gives whether the Packet Identifier is one of a QoS 2 message under way.
    pub(in crate::session) fn handle_pubrec(&mut self, pid: u16) -> bool {
        match self.inflight.get(&pid).map(|inflight| &inflight.flow) {
            Some(Flow::Released) => {
                self.make_due(pid);
                true
            }
            Some(Flow::Published(delivery)) if delivery.qos == Qos::ExactlyOnce => {
                self.release(pid);
                true
            }
            _ => false,
        }
    }

    /// Takes a PUBACK or PUBREC that refuses a message, which is then as good as acknowledged
    /// (MQTT-4.4.0-2).
    pub(in crate::session) fn handle_refusal(&mut self, pid: u16) {
        let flow = self.inflight.get(&pid).map(|inflight| &inflight.flow);
        if matches!(flow, Some(Flow::Published(_))) {
            self.abandon(pid);
        }
    }

    /// PUBREL is next, and the message itself is done with.
    fn release(&mut self, pid: u16) {
        let ticket = self.unwritten();
        let Some(inflight) = self.inflight.get_mut(&pid) else {
            return;
        };
        let flow = std::mem::replace(&mut inflight.flow, Flow::Released);
        inflight.ticket = ticket;
        let bytes = std::mem::take(&mut inflight.bytes);
        self.bytes -= bytes;
        if self.is_tracked {
            self.unwritten.push(pid);
        }
        self.note(Note::Sent(pid, None));
        if let Flow::Published(delivery) = &flow
            && bytes > 0
        {
            self.finish(&delivery.message);
        }
        self.make_due(pid);
    }

    /// Ends the flow of a message that is of no use any more. Its client may have a QoS 2 message
    /// already, and then waits for PUBREL.
    pub(super) fn give_up(&mut self, pid: u16) {
        match self.inflight.get(&pid).map(|inflight| &inflight.flow) {
            Some(Flow::Published(delivery)) if delivery.qos == Qos::ExactlyOnce => {
                self.release(pid);
            }
            _ => self.abandon(pid),
        }
    }

    pub(in crate::session) fn handle_pubcomp(&mut self, pid: u16) {
        let inflight = self.inflight.get(&pid);
        if inflight.is_some_and(|inflight| matches!(inflight.flow, Flow::Released)) {
            self.abandon(pid);
        }
    }

    /// Ends the flow of a Packet Identifier.
    pub(in crate::session) fn abandon(&mut self, pid: u16) {
        if let Some(inflight) = self.remove(pid) {
            let delivery = match &inflight.flow {
                Flow::Published(delivery) => Some(delivery),
                Flow::Released => None,
            };
            if delivery.is_none_or(|delivery| delivery.qos == Qos::ExactlyOnce) {
                self.note(Note::Completed(pid));
            }
            if let Some(delivery) = delivery
                && inflight.bytes > 0
            {
                self.finish(&delivery.message);
            }
        }
    }
}
