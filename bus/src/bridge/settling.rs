//! Which of the reports that were taken can't be lost any more, without IO.
//!
//! A checkpoint stands for all reports taken so far, once everything that they caused was passed on:
//! to the session, to the queue, or to both. It is over when the bus has acknowledged the one and the
//! disk has the other. Checkpoints are over in their order, so one number says it all.

use std::collections::VecDeque;

use crate::session::Ticket;

#[derive(Debug)]
struct Checkpoint {
    reports: u64,
    /// What the bus must have acknowledged.
    ticket: Option<Ticket>,
    /// How many appends of the queue must be on disk.
    appended: u64,
}

/// The machine. There are never more checkpoints than publications that wait.
#[derive(Debug, Default)]
pub(super) struct Settling {
    taken: u64,
    settled: u64,
    /// Oldest first.
    checkpoints: VecDeque<Checkpoint>,
}

impl Settling {
    /// Further reports were taken.
    pub(super) fn take(&mut self, reports: usize) {
        self.taken += reports as u64;
    }

    /// All that the reports taken so far have caused was passed on: the last of it that went to the
    /// session has this ticket, and the queue was appended to so often.
    pub(super) fn mark(&mut self, ticket: Option<Ticket>, appended: u64) {
        match self.checkpoints.back_mut() {
            Some(last) if (last.ticket, last.appended) == (ticket, appended) => {
                last.reports = self.taken;
            }
            Some(last) if last.reports == self.taken => {}
            None if self.settled == self.taken => {}
            _ => self.checkpoints.push_back(Checkpoint {
                reports: self.taken,
                ticket,
                appended,
            }),
        }
    }

    /// The session has given back what was not acknowledged: what waits for that waits for the next
    /// [`Settling::mark`], which tells where it went.
    pub(super) fn taken_back(&mut self) {
        self.checkpoints.clear();
    }

    /// The ticket for which the oldest checkpoint waits.
    pub(super) fn awaited(&self) -> Option<Ticket> {
        self.checkpoints.front()?.ticket
    }

    /// How many reports, in the order in which they were taken, are settled; `written`: so many
    /// appends of the queue are on disk.
    pub(super) fn settle(
        &mut self,
        done: impl Fn(Ticket) -> bool,
        written: impl Fn() -> u64,
    ) -> u64 {
        while let Some(oldest) = self.checkpoints.front_mut() {
            oldest.ticket.take_if(|ticket| done(*ticket));
            if oldest.ticket.is_some() || oldest.appended > written() {
                break;
            }
            self.settled = oldest.reports;
            self.checkpoints.pop_front();
        }
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Publication;
    use crate::session::outbox::Outbox;

    fn push(outbox: &mut Outbox) -> Option<Ticket> {
        outbox.push(Publication::passing("t".to_owned(), ""))
    }

    /// Sends the next; gives its Packet Identifier.
    fn send(outbox: &mut Outbox) -> u16 {
        let (id, _) = outbox.to_send(100).unwrap();
        outbox.handle_sent();
        id
    }

    fn settled(settling: &mut Settling, outbox: &Outbox, written: u64) -> u64 {
        settling.settle(|ticket| outbox.is_done(ticket), || written)
    }

    #[test]
    fn what_goes_to_the_bus_waits_for_its_acknowledgement() {
        let (mut settling, mut outbox) = (Settling::default(), Outbox::default());
        settling.take(2);
        assert_eq!(settled(&mut settling, &outbox, 0), 0, "not passed on yet");
        let first = push(&mut outbox);
        settling.mark(first, 0);
        settling.take(1);
        let second = push(&mut outbox);
        settling.mark(second, 0);
        let ids = [send(&mut outbox), send(&mut outbox)];
        outbox.handle_ack(ids[1]);
        assert_eq!(settled(&mut settling, &outbox, 0), 0);
        assert_eq!(settling.awaited(), first);
        outbox.handle_ack(ids[0]);
        assert_eq!(settled(&mut settling, &outbox, 0), 3);
        assert_eq!(settling.awaited(), None);
    }

    #[test]
    fn what_goes_to_the_queue_waits_for_the_disk() {
        let (mut settling, mut outbox) = (Settling::default(), Outbox::default());
        settling.take(5);
        let ticket = push(&mut outbox);
        settling.mark(ticket, 7);
        let id = send(&mut outbox);
        outbox.handle_ack(id);
        assert_eq!(settled(&mut settling, &outbox, 6), 0);
        assert_eq!(settling.awaited(), None, "the disk only");
        assert_eq!(settled(&mut settling, &outbox, 7), 5);
    }

    #[test]
    fn what_is_taken_back_waits_for_the_disk_instead() {
        let (mut settling, mut outbox) = (Settling::default(), Outbox::default());
        settling.take(1);
        let ticket = push(&mut outbox);
        settling.mark(ticket, 0);
        assert_eq!(outbox.take_back().len(), 1);
        settling.taken_back();
        assert_eq!(settled(&mut settling, &outbox, 0), 0, "it is nowhere yet");
        settling.mark(ticket, 1);
        assert_eq!(settled(&mut settling, &outbox, 0), 0);
        assert_eq!(settled(&mut settling, &outbox, 1), 1);
    }

    #[test]
    fn what_causes_nothing_settles_with_what_was_before_it() {
        let (mut settling, mut outbox) = (Settling::default(), Outbox::default());
        settling.take(1);
        settling.mark(None, 0);
        assert_eq!(settled(&mut settling, &outbox, 0), 1);
        let ticket = push(&mut outbox);
        settling.take(1);
        settling.mark(ticket, 0);
        for _ in 0..1000 {
            settling.take(1);
            settling.mark(ticket, 0);
        }
        assert_eq!(settling.checkpoints.len(), 1);
        assert_eq!(settled(&mut settling, &outbox, 0), 1);
        let id = send(&mut outbox);
        outbox.handle_ack(id);
        assert_eq!(settled(&mut settling, &outbox, 0), 1002);
    }
}
