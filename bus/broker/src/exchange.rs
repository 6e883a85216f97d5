//! Where messages get their order: numbered, kept when they are retained, and handed to the
//! fan-out and to one session of each group that asks for them, as one step. So what a snapshot tells and what follows it never contradict.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fanout::{Fanout, Stopped};
use crate::kept::Waiting;
use crate::message::{Draft, Message};
use crate::metrics::Metrics;
use crate::retained::Retained;
use crate::shares::{Full, Joining, Shares};
use crate::store::{Loaded, Store, Ticket, Writes};
use crate::sys;
use crate::topic;
use crate::wire::{FilterRequest, Qos};

/// The most topics with a retained message; a message for one more is refused.
pub(crate) const MAX_RETAINED: usize = 1_000_000;

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("too many topics have a retained message")]
    RetainedFull,
    #[error("the store can't be written")]
    Unstorable,
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The QoS 2 flow of a kept session that a message comes in by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    /// The session's number.
    pub(crate) session: u64,
    /// The Packet Identifier.
    pub(crate) pid: u16,
}

#[derive(Default)]
struct State {
    seq: u64,
    position: u64,
    retained: Retained,
    /// Which kept sessions a message is to wait for.
    waiting: Waiting,
    shares: Shares,
}

/// The order of all messages.
pub(crate) struct Exchange {
    state: Mutex<State>,
    fanout: Arc<dyn Fanout>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

impl Exchange {
    /// Nothing published and nothing retained yet.
    pub(crate) fn new(fanout: Arc<dyn Fanout>, store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            fanout,
            store,
            metrics,
        }
    }

    /// Takes in what outlived the process before. Later messages get higher numbers.
    pub(crate) fn restore(&self, loaded: &mut Loaded) {
        let mut state = self.state();
        state.seq = loaded.last_seq();
        for message in loaded.retained.drain(..) {
            state.retained.apply(message);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fan-out behind it.
    pub(crate) fn fanout(&self) -> &Arc<dyn Fanout> {
        &self.fanout
    }

    /// Publishes a message whose topic is valid and allowed. Acknowledge it once the ticket's write
    /// is stored.
    pub(crate) fn publish(&self, draft: Draft) -> Result<Ticket, ExchangeError> {
        self.publish_as(draft, None)
    }

    /// Publishes a message as [`Exchange::publish`] does, and notes in the same commit the QoS 2
    /// flow that brought it.
    pub(crate) fn publish_as(
        &self,
        draft: Draft,
        flow: Option<Flow>,
    ) -> Result<Ticket, ExchangeError> {
        let mut state = self.state();
        let len = draft.len() as u64;
        let message = draft.seal(state.seq + 1, state.position);
        let is_promised = message.qos() > Qos::AtMostOnce;
        let waiting = if is_promised {
            state.waiting.matching(message.topic(), message.origin())
        } else {
            Vec::new()
        };
        let (chosen, unserved) = state.shares.choose(&message);
        let is_stored = message.is_retain()
            || !waiting.is_empty()
            || chosen.iter().any(|chosen| chosen.is_stored)
            || flow.is_some();
        if is_promised && is_stored && self.store.is_failing() {
            return Err(ExchangeError::Unstorable);
        }
        let mut writes = Writes::default();
        if message.is_retain() {
            let is_more = !message.payload().is_empty() && state.retained.len() >= MAX_RETAINED;
            if is_more && !state.retained.contains(message.topic()) {
                return Err(ExchangeError::RetainedFull);
            }
            state.retained.apply(message.clone());
            if self.store.is_durable() && !message.topic().starts_with(sys::PREFIX) {
                writes.retain(&message);
            }
        }
        for number in waiting {
            writes.queue(number, &message);
        }
        if let Some(flow) = flow {
            writes.receive(flow.session, flow.pid);
        }
        state.seq += 1;
        state.position += len;
        let mut copies = Vec::with_capacity(chosen.len());
        for chosen in chosen {
            state.seq += 1;
            let copy = message.copy_for(&chosen.share, state.seq);
            if chosen.is_stored {
                writes.queue(chosen.number, &copy);
            }
            copies.push((chosen.member, copy));
        }
        // Before anybody can be done with it.
        let ticket = self.store.write(writes);
        self.metrics.dropped("queue_full", unserved);
        self.fanout.publish(message)?;
        for (member, copy) in copies {
            member.take(copy);
        }
        Ok(ticket)
    }

    /// Notes what a session asks for, as one step in the order of messages: gives the number of the
    /// last message before it and, with `is_told`, all retained messages for it.
    ///
    /// For a kept session, named by its number, later messages with QoS 1 and 2 are stored.
    pub(crate) fn subscribe(
        &self,
        kept: Option<u64>,
        request: &FilterRequest,
        is_told: bool,
        now_millis: i64,
    ) -> (u64, Option<Vec<Message>>) {
        let mut state = self.state();
        if let Some(number) = kept {
            state.waiting.insert(number, request);
        }
        let told = is_told.then(|| state.retained.matching(&request.filter, now_millis));
        (state.seq, told)
    }

    /// Makes a session one of those that share a subscription; gives the number of the last message
    /// before it. It gets messages from then on, so its subscription must stand already.
    pub(crate) fn join(&self, request: &FilterRequest, joining: Joining) -> Result<u64, Full> {
        let mut state = self.state();
        state.shares.join(request, joining)?;
        Ok(state.seq)
    }

    /// Chooses and stores nothing more for these filters of a session.
    pub(crate) fn leave<'a>(&self, number: u64, filters: impl IntoIterator<Item = &'a str>) {
        let mut state = self.state();
        for filter in filters {
            if topic::shared(filter).is_some() {
                state.shares.leave(filter, number);
            } else {
                state.waiting.remove(number, filter);
            }
        }
    }

    /// Gives what a session lets go of to others of its groups, in the store as one step; gives back
    /// what no other session has room for.
    pub(crate) fn hand_on(
        &self,
        number: u64,
        is_kept: bool,
        messages: Vec<Message>,
    ) -> Vec<Message> {
        let mut left = Vec::new();
        for message in messages {
            // Others come in between.
            let state = self.state();
            let Some(chosen) = state.shares.choose_other(&message, number) else {
                left.push(message);
                continue;
            };
            let mut writes = Writes::default();
            if chosen.is_stored {
                writes.queue(chosen.number, &message);
            }
            if is_kept {
                writes.unqueue(number, message.seq());
            }
            self.store.write(writes);
            chosen.member.take(message);
        }
        left
    }

    /// Removes what expired, and says how much is there.
    pub(crate) fn handle_timeout(&self, now_millis: i64) {
        let mut state = self.state();
        let expired = state.retained.expire(now_millis);
        for topic in &expired {
            self.store.forget(topic);
        }
        let (count, bytes) = (state.retained.len(), state.retained.bytes());
        drop(state);
        if !expired.is_empty() {
            tracing::debug!(expired = expired.len(), "retained messages expired");
        }
        self.metrics
            .retained
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        self.metrics
            .retained_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests;
