//! What the owner of a session holds: its two ends, and the state that they share with the driver.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::outbox::{Outbox, Ticket};
use super::{Publication, PublishError, SessionEvent, wire};

/// Subscriptions and their ends that wait for the wire. What comes when there are as many is left to
/// the next connect, which subscribes to all filters.
const REQUESTS: usize = 1024;

/// A change of the subscriptions, by its Topic Filter.
#[derive(Debug)]
pub(super) enum Request {
    Subscribe(String),
    Unsubscribe(String),
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) outbox: Outbox,
    pub(super) filters: Vec<String>,
    /// For the connection there is.
    pub(super) requests: VecDeque<Request>,
    pub(super) connected: bool,
    /// A DISCONNECT is under way only to connect anew with a renewed certificate.
    pub(super) renewing: bool,
    pub(super) closing: bool,
    ended: bool,
    /// The driver waits for something to send.
    pub(super) idle: bool,
    /// Somebody waits for room.
    room_awaited: bool,
    /// The first that somebody waits for.
    ticket_awaited: Option<Ticket>,
}

impl State {
    fn has_room(&mut self) -> bool {
        let has_room = self.ended || !self.outbox.is_full();
        self.room_awaited |= !has_room;
        has_room
    }

    fn is_done(&mut self, ticket: Ticket) -> bool {
        let is_done = self.ended || self.outbox.is_done(ticket);
        if !is_done {
            let first = self
                .ticket_awaited
                .map_or(ticket, |first| first.min(ticket));
            self.ticket_awaited = Some(first);
        }
        is_done
    }

    /// Whether one who waits has what it waits for; its next wait says so anew.
    fn take_progress(&mut self) -> bool {
        let room = self.room_awaited && !self.outbox.is_full();
        let ticket = self.ticket_awaited;
        let done = ticket.is_some_and(|ticket| self.outbox.is_done(ticket));
        if room {
            self.room_awaited = false;
        }
        if done {
            self.ticket_awaited = None;
        }
        room || done
    }

    /// Whether DISCONNECT is all that is left to send.
    pub(super) fn is_leaving(&self) -> bool {
        self.renewing || self.closing && self.outbox.is_empty()
    }

    fn request(&mut self, request: Request) {
        if self.requests.len() < REQUESTS {
            self.requests.push_back(request);
        } else {
            tracing::error!("too many changes of subscriptions wait for the bus");
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the driver: there is something to send, or to leave for.
    pub(super) work: Notify,
    /// Wakes who waits for room or an acknowledgement.
    progress: Notify,
    /// Wakes who waits for the session to close or to end.
    turn: Notify,
}

impl Shared {
    pub(super) fn new(filters: Vec<String>) -> Self {
        let state = State {
            filters,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            ..Self::default()
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the state back after the outbox may have shrunk, and wakes whom that concerns.
    pub(super) fn progressed(&self, mut state: MutexGuard<'_, State>) {
        let progress = state.take_progress();
        drop(state);
        if progress {
            self.progress.notify_waiters();
        }
    }

    /// The session is over.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.progress.notify_waiters();
        self.turn.notify_waiters();
    }

    /// Completes when the session is to close, or has ended. Cancel safe.
    pub(super) async fn closing(&self) {
        until(&self.turn, || {
            let state = self.state();
            state.closing || state.ended
        })
        .await;
    }

    /// Completes when the session has ended. Cancel safe.
    pub(super) async fn ended(&self) {
        until(&self.turn, || self.state().ended).await;
    }
}

async fn until(changed: &Notify, mut is_so: impl FnMut() -> bool) {
    loop {
        // Made first: from here on no wake-up is missed.
        let change = changed.notified();
        if is_so() {
            return;
        }
        change.await;
    }
}

/// The sending end of a session. Clones share it.
#[derive(Debug, Clone)]
pub struct Session(pub(super) Arc<Shared>);

impl Session {
    /// Takes a publication: from here on it reaches the broker, over as many connections as it takes.
    ///
    /// # Errors
    /// The outbox is full, the session has ended, or the topic is not valid.
    pub fn try_publish(&self, publication: Publication) -> Result<Ticket, PublishError> {
        if !wire::is_topic_name(&publication.topic) {
            return Err(PublishError::Topic);
        }
        let mut state = self.0.state();
        if state.ended || state.closing {
            return Err(PublishError::Closed);
        }
        let ticket = state.outbox.push(publication).ok_or(PublishError::Full)?;
        let wake = std::mem::take(&mut state.idle);
        drop(state);
        if wake {
            self.0.work.notify_one();
        }
        Ok(ticket)
    }

    /// Whether this publication and all that were taken before it are acknowledged.
    #[must_use]
    pub fn is_done(&self, ticket: Ticket) -> bool {
        self.0.state().outbox.is_done(ticket)
    }

    /// Completes when this publication and all before it are acknowledged or taken back, or the
    /// session has ended. Cancel safe.
    pub async fn done(&self, ticket: Ticket) {
        until(&self.0.progress, || self.0.state().is_done(ticket)).await;
    }

    /// Gives back what is not acknowledged, oldest first, for an owner that keeps it elsewhere while
    /// the broker is away; none while there is a connection, over which it is on its way.
    #[must_use]
    pub fn take_back(&self) -> Option<Vec<(Ticket, Publication)>> {
        let mut state = self.0.state();
        if state.connected {
            return None;
        }
        let taken = state.outbox.take_back();
        self.0.progressed(state);
        Some(taken)
    }

    /// Whether the outbox has room now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.0.state().outbox.is_full()
    }

    /// Completes when the outbox has room or the session has ended. Cancel safe.
    pub async fn room(&self) {
        until(&self.0.progress, || self.0.state().has_room()).await;
    }

    /// Subscribes to a further filter, now and after each connect, with QoS 1.
    pub fn subscribe(&self, filter: &str) {
        let mut state = self.0.state();
        if state.filters.iter().any(|known| known == filter) {
            return;
        }
        state.filters.push(filter.to_owned());
        if state.connected {
            state.request(Request::Subscribe(filter.to_owned()));
            self.0.work.notify_one();
        }
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, filter: &str) {
        let mut state = self.0.state();
        state.filters.retain(|known| known != filter);
        if state.connected {
            state.request(Request::Unsubscribe(filter.to_owned()));
            self.0.work.notify_one();
        }
    }

    /// Ends the session: waits until everything taken is acknowledged, then sends DISCONNECT, so
    /// that the Will stays silent. Ends at once when there is no connection.
    ///
    /// Cancel safe: the session goes on closing.
    pub async fn close(&self) {
        {
            let mut state = self.0.state();
            state.closing = true;
            // While the certificate is renewed it leaves once it is back: the DISCONNECT has silenced
            // the Will.
            state.ended |= !state.connected && !state.renewing;
        }
        self.0.turn.notify_waiters();
        self.0.progress.notify_waiters();
        self.0.work.notify_one();
        self.0.ended().await;
    }

    /// Leaves the bus and comes back, with what the files of the identity hold by then.
    pub(super) fn renew(&self) {
        let mut state = self.0.state();
        if state.connected && !state.closing && !state.renewing {
            state.renewing = true;
            self.0.work.notify_one();
        }
    }
}

/// The receiving end of a session.
#[derive(Debug)]
pub struct Inbox(pub(super) mpsc::Receiver<SessionEvent>);

impl Inbox {
    /// The next event; none when the session has ended. Cancel safe.
    ///
    /// While nobody receives, the session takes no further messages from the broker, nor what the
    /// broker sends after them: never wait for [`Session::room`] or [`Session::close`] without
    /// receiving here too. What is published meanwhile still leaves, as far as the broker takes it
    /// without having acknowledged what went before.
    pub async fn recv(&mut self) -> Option<SessionEvent> {
        self.0.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication() -> Publication {
        Publication::passing("t".to_owned(), "")
    }

    #[test]
    fn only_what_somebody_waits_for_wakes() {
        let mut state = State::default();
        let tickets: Vec<Ticket> = (0..3)
            .map(|_| state.outbox.push(publication()).unwrap())
            .collect();
        let ids: Vec<u16> = (0..3)
            .map(|_| {
                let id = state.outbox.to_send(9).unwrap().0;
                state.outbox.handle_sent();
                id
            })
            .collect();
        assert!(!state.is_done(tickets[2]) && !state.is_done(tickets[1]));
        state.outbox.handle_ack(ids[0]);
        assert!(!state.take_progress(), "nobody waits for the first");
        state.outbox.handle_ack(ids[1]);
        assert!(state.take_progress());
        assert!(state.is_done(tickets[1]) && !state.is_done(tickets[2]));
        state.outbox.handle_ack(ids[2]);
        assert!(state.take_progress(), "the other one asked anew");
        assert!(!state.take_progress());
    }

    #[test]
    fn room_wakes_once_there_is_some() {
        let mut state = State::default();
        while state.outbox.push(publication()).is_some() {}
        assert!(!state.has_room() && !state.take_progress());
        let id = state.outbox.to_send(9).unwrap().0;
        state.outbox.handle_sent();
        state.outbox.handle_ack(id);
        assert!(state.take_progress() && !state.take_progress());
        assert!(state.has_room());
    }
}
