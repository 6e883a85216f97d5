//! Where messages get their order: numbered, kept when they are retained, and handed to the
//! fan-out, as one step. So what a snapshot tells and what follows it never contradict.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fanout::{Fanout, Stopped};
use crate::message::{Draft, Message};
use crate::metrics::Metrics;
use crate::retained::Retained;
use crate::store::{Loaded, Store, Ticket};
use crate::wire::Qos;

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

#[derive(Debug, Default)]
struct State {
    seq: u64,
    position: u64,
    retained: Retained,
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
    pub(crate) fn restore(&self, loaded: Loaded) {
        let mut state = self.state();
        for message in loaded.retained {
            state.seq = state.seq.max(message.seq());
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
        let mut state = self.state();
        let len = draft.len() as u64;
        let message = draft.seal(state.seq + 1, state.position);
        let mut ticket = Ticket::default();
        if message.is_retain() {
            let is_more = !message.payload().is_empty() && state.retained.len() >= MAX_RETAINED;
            if is_more && !state.retained.contains(message.topic()) {
                return Err(ExchangeError::RetainedFull);
            }
            if message.qos() > Qos::AtMostOnce && self.store.is_failing() {
                return Err(ExchangeError::Unstorable);
            }
            state.retained.apply(message.clone());
            ticket = self.store.retain(&message);
        }
        state.seq += 1;
        state.position += len;
        self.fanout.publish(message)?;
        Ok(ticket)
    }

    /// The number of the last message.
    pub(crate) fn last(&self) -> u64 {
        self.state().seq
    }

    /// All retained messages that a valid filter asks for, and the number of the last message that
    /// they can contain.
    pub(crate) fn snapshot(&self, filter: &str, now_millis: i64) -> (u64, Vec<Message>) {
        let state = self.state();
        (state.seq, state.retained.matching(filter, now_millis))
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
