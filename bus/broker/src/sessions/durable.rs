//! Sessions that outlive the process: writing them, removing them, and taking them up at the start.

use std::sync::Arc;
use std::time::Duration;

use bus::time::Now;

use super::{Entry, Handle, Sessions};
use crate::fanout::Stopped;
use crate::kept::Kept;
use crate::store::{Flows, Loaded, Ticket};
use crate::topic;

impl Sessions {
    /// Stores what a session is now; nothing when another connection has it, or it ends with the
    /// process.
    pub(crate) fn save(&self, key: &str, epoch: u64) -> Ticket {
        let registry = self.registry();
        match registry.entries.get(key) {
            Some(entry) if entry.epoch == epoch => self.keep(key, entry, None),
            _ => Ticket::default(),
        }
    }

    pub(super) fn keep(&self, key: &str, entry: &Entry, left: Option<i64>) -> Ticket {
        let Some(number) = entry.handle.kept() else {
            return Ticket::default();
        };
        let expiry = entry.expiry.as_secs();
        let kept = entry.handle.bound().session.keep(key, expiry, left);
        match serde_json::to_vec(&kept) {
            Ok(kept) => self.store.keep(number, kept),
            Err(error) => {
                tracing::error!(%error, "a session can't be written down");
                Ticket::default()
            }
        }
    }

    /// Takes a session that ended out of everything, once nobody finds it any more. What it leaves
    /// of Shared Subscriptions is for others of them.
    pub(super) fn end(&self, handle: &Handle) {
        let (number, filters) = (handle.number(), handle.end());
        self.exchange
            .leave(number, filters.iter().map(String::as_str));
        let shared = handle.bound().session.take_shared(true);
        let is_kept = handle.kept().is_some();
        let lost = self.exchange.hand_on(number, is_kept, shared).len();
        self.metrics.dropped("session_ended", lost as u64);
        if is_kept {
            self.store.end(number);
        }
    }

    /// Takes up the sessions of the process before, whose clients are all absent.
    ///
    /// # Errors
    /// The message core has ended.
    pub(crate) async fn restore(
        &self,
        mut loaded: Loaded,
        last_number: u64,
        now: Now,
    ) -> Result<(), Stopped> {
        self.registry().last_number = last_number;
        for (number, written) in std::mem::take(&mut loaded.sessions) {
            let flows = loaded.flows.remove(&number).unwrap_or_default();
            match serde_json::from_slice(&written) {
                Ok(kept) => self.take_up(number, kept, flows, now).await?,
                Err(error) => {
                    tracing::error!(%error, "a stored session can't be read: it is left out");
                    self.store.end(number);
                }
            }
        }
        // What is left waits for nobody.
        for number in loaded.flows.into_keys() {
            self.store.end(number);
        }
        Ok(())
    }

    async fn take_up(
        &self,
        number: u64,
        kept: Kept,
        flows: Flows,
        now: Now,
    ) -> Result<(), Stopped> {
        let millis = now.wall.unix_millis();
        // With a crash, its client left now.
        let left = kept.left.unwrap_or(millis);
        let away = u64::try_from(millis.saturating_sub(left)).unwrap_or(0);
        let expiry = Duration::from_secs(kept.expiry);
        let remaining = expiry.saturating_sub(Duration::from_millis(away));
        if remaining.is_zero() {
            self.store.end(number);
            return Ok(());
        }
        let handle = self.handle(number, &kept, flows);
        for known in &kept.subscriptions {
            let request = known.request();
            if topic::shared(&request.filter).is_some() {
                let joined = self.exchange.join(&request, handle.joining());
                joined.unwrap_or_default();
                continue;
            }
            handle.subscribe(&self.exchange, &request.filter).await?;
            let kept = Some(number);
            self.exchange.subscribe(kept, &request, false, millis);
        }
        let entry = Entry {
            handle,
            epoch: 0,
            present: None,
            expiry,
            expires: Some(now.mono + remaining),
            will: None,
        };
        self.keep(&kept.key, &entry, Some(left));
        self.registry().entries.insert(kept.key, entry);
        Ok(())
    }

    fn handle(&self, number: u64, kept: &Kept, flows: Flows) -> Arc<Handle> {
        let store = Some(self.store.clone());
        let handle = Handle::new(number, self.bounds, self.metrics.clone(), store);
        let mut bound = handle.bound();
        let dropped = bound.session.restore(kept, flows);
        handle.settle(&mut bound);
        drop(bound);
        self.metrics.dropped("oldest_of_absent", dropped);
        handle
    }
}
