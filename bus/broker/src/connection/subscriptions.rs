//! SUBSCRIBE, UNSUBSCRIBE, and subscriptions that are taken away.

use bus::time::now;
use bytes::BytesMut;

use super::End;
use super::held::Answer;
use super::packets::Client;
use crate::store::Writes;
use crate::topic;
use crate::wire::{self, FilterRequest, Reason, RetainHandling};

/// No subscription existed (MQTT 5 section 3.11.3).
const NO_SUBSCRIPTION: u8 = 0x11;

impl Client {
    pub(super) async fn subscribe(
        &mut self,
        pid: u16,
        id: Option<u32>,
        filters: Vec<FilterRequest>,
        out: &mut BytesMut,
    ) -> Result<(), End> {
        let mut codes = Vec::with_capacity(filters.len());
        for request in filters {
            let refused = match self.check_filter(&request.filter)? {
                Some(reason) => Some(reason),
                None if topic::shared(&request.filter).is_some() => self.join(&request, id)?,
                None => {
                    self.grant(&request, id).await?;
                    None
                }
            };
            codes.push(refused.map_or(Ok(request.qos), Err));
        }
        let mut suback = BytesMut::new();
        wire::suback(&mut suback, self.version, pid, &codes, self.room());
        self.keep(suback, out)
    }

    /// Why a correctly formed Topic Filter can't be subscribed to.
    fn check_filter(&self, filter: &str) -> Result<Option<Reason>, End> {
        if !topic::is_bounded(filter) {
            return Ok(Some(Reason::TopicFilterInvalid));
        }
        if !self.access.may_subscribe(filter) {
            self.refused("subscribe", filter);
            return Ok(Some(Reason::NotAuthorized));
        }
        let maximum = self.broker.limits.subscriptions;
        let is_full = self.with(|session| {
            session.subscription_count() >= maximum && !session.is_subscribed(filter)
        })?;
        if is_full {
            self.broker.metrics.refused("subscriptions");
            return Ok(Some(Reason::QuotaExceeded));
        }
        Ok(None)
    }

    async fn grant(&self, request: &FilterRequest, id: Option<u32>) -> Result<(), End> {
        let exchange = &self.broker.exchange;
        let is_new = self.with(|session| !session.is_subscribed(&request.filter))?;
        if is_new {
            let subscribed = self.handle.subscribe(exchange, &request.filter).await;
            subscribed.map_err(|_| End::Ended(Reason::ServerUnavailable))?;
        }
        // The fan-out misses nothing from here on, so the order of these two steps leaves no gap.
        let is_told = match request.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => is_new,
            RetainHandling::Never => false,
        };
        let (kept, millis) = (self.handle.kept(), now().wall.unix_millis());
        let (at, snapshot) = exchange.subscribe(kept, request, is_told, millis);
        let subscribed = self.with(|session| session.subscribe(request.clone(), id, at, snapshot));
        self.unless_ended(subscribed, &request.filter)
    }

    /// Makes the session one of those that share a subscription. Retained messages are not sent for
    /// it (MQTT 5 section 4.8.2).
    fn join(&self, request: &FilterRequest, id: Option<u32>) -> Result<Option<Reason>, End> {
        let filter = &request.filter;
        let is_new = self.with(|session| {
            let is_new = !session.is_subscribed(filter);
            session.subscribe(request.clone(), id, 0, None);
            is_new
        })?;
        if self
            .broker
            .exchange
            .join(request, self.handle.joining())
            .is_err()
        {
            if is_new {
                self.with(|session| session.unsubscribe(filter))?;
            }
            self.broker.metrics.refused("group");
            return Ok(Some(Reason::QuotaExceeded));
        }
        let still = self.with(|_| ());
        self.unless_ended(still, filter)?;
        Ok(None)
    }

    /// A session that ended meanwhile was taken out of everything but this.
    fn unless_ended(&self, still: Result<(), End>, filter: &str) -> Result<(), End> {
        if still.is_err() {
            self.broker.exchange.leave(self.handle.number(), [filter]);
        }
        still
    }

    pub(super) fn unsubscribe(
        &mut self,
        pid: u16,
        filters: &[String],
        out: &mut BytesMut,
    ) -> Result<(), End> {
        let mut codes = Vec::with_capacity(filters.len());
        for filter in filters {
            // First, so that nothing is chosen for it that it no more takes.
            self.leave(filter);
            let existed = self.with(|session| session.unsubscribe(filter))?;
            if existed {
                self.unlink(filter)?;
            }
            codes.push(if existed { 0 } else { NO_SUBSCRIPTION });
        }
        let mut unsuback = BytesMut::new();
        wire::unsuback(&mut unsuback, self.version, pid, &codes);
        self.keep(unsuback, out)
    }

    /// Takes subscriptions away, with what waits for them alone.
    pub(super) fn withdraw(&self, filters: &[String]) -> Result<(), End> {
        for filter in filters {
            self.leave(filter);
        }
        let shared = self.with(|session| session.withdraw(filters))?;
        let (number, kept) = (self.handle.number(), self.handle.kept());
        let left = self.broker.exchange.hand_on(number, kept.is_some(), shared);
        let mut writes = Writes::default();
        for (number, message) in kept.iter().flat_map(|n| left.iter().map(move |m| (*n, m))) {
            writes.unqueue(number, message.seq());
        }
        self.broker.store.write(writes);
        for filter in filters {
            self.unlink(filter)?;
        }
        Ok(())
    }

    fn leave(&self, filter: &str) {
        self.broker.exchange.leave(self.handle.number(), [filter]);
    }

    /// Asks the fan-out for a filter no more.
    fn unlink(&self, filter: &str) -> Result<(), End> {
        if topic::shared(filter).is_some() {
            return Ok(());
        }
        let done = self.handle.unsubscribe(filter);
        done.map_err(|_| End::Ended(Reason::ServerUnavailable))
    }

    /// Stores the changed subscriptions of a kept session, and then sends `packet`.
    fn keep(&mut self, packet: BytesMut, out: &mut BytesMut) -> Result<(), End> {
        let ticket = self.broker.sessions.save(&self.session_key, self.epoch);
        self.answer(ticket, Answer::Packet(packet), out)
    }
}
