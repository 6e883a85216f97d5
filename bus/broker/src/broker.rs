//! What all connections share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::shutdown::Shutdown;
use bus::time::Now;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::events::{Events, Refusal};
use crate::exchange::Exchange;
use crate::gate::Gate;
use crate::identity::Identity;
use crate::limits::{Admission, Limits};
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::store::Store;
use crate::will;
use crate::wire::{Version, Will};

/// The broker without its sockets.
pub(crate) struct Broker {
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) sessions: Sessions,
    pub(crate) store: Arc<Store>,
    pub(crate) admission: Admission,
    pub(crate) logins: Logins,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
    pub(crate) random: Mutex<StdRng>,
}

impl Broker {
    /// Counts a refusal and tells of it.
    pub(crate) fn refuse(&self, refusal: &Refusal<'_>, now: Now) {
        self.metrics.refused(refusal.kind);
        if let Some(event) = self.events.auth_failed(refusal, now)
            && let Err(error) = self.exchange.publish(event)
        {
            tracing::debug!(%error, "an event was not published");
        }
    }

    /// Publishes a Will that is due.
    pub(crate) fn publish_will(&self, will: Will, origin: u64, now: Now) {
        if let Err(error) = self.exchange.publish(will::message(will, origin, now)) {
            tracing::warn!(%error, "a will was not published");
        }
    }

    /// A Client Identifier for a client that left that to the broker.
    pub(crate) fn assign_client_id(&self, identity: &Identity) -> String {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let unique: u128 = random.random();
        format!("{}:{unique:032x}", identity.name)
    }

    /// How long a session may wait for its client, of what the client asked for in seconds.
    pub(crate) fn session_expiry(&self, seconds: u32) -> Duration {
        Duration::from_secs(u64::from(seconds)).min(self.limits.session_expiry)
    }

    /// The Keep Alive in force, of what the client asked for, in seconds. Only a client of MQTT 5 can
    /// be told another one (MQTT-3.2.2-21).
    pub(crate) fn keep_alive(&self, version: Version, asked: u16) -> u16 {
        let longest = self.limits.keep_alive.as_secs();
        let longest = u16::try_from(longest).unwrap_or(u16::MAX);
        match (version, asked) {
            (Version::V4, _) => asked,
            (Version::V5, 0) => longest,
            (Version::V5, _) => asked.min(longest),
        }
    }

    /// Randomness for Client Identifiers.
    pub(crate) fn seed() -> Mutex<StdRng> {
        Mutex::new(StdRng::from_os_rng())
    }
}
