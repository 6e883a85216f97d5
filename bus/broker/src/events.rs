//! `auth_failed` on the topic `events`: who was refused what, at a limited rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::payload::{Event, EventType};
use bus::time::Now;
use bus::topic::{Base, Topic};
use serde_json::{Map, Value};

use crate::message::{Draft, Parts};
use crate::wire::Qos;
use bus::rate::{Meter, Rate};

/// Events that may come at once.
const BURST: u32 = 10;
/// One more is allowed after each of these.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest text of a peer that an event repeats, characters.
const MAX_TEXT: usize = 128;

/// A refusal, in words of this crate, and what the peer asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    /// `publish`, `subscribe`, `will`, `client_id`, `certificate` or `password`.
    pub(crate) kind: &'static str,
    /// Who, as `role:name`; or the address of one without an identity.
    pub(crate) who: &'a str,
    /// The topic, filter, Client Identifier or user name.
    pub(crate) what: &'a str,
}

#[derive(Debug, Default)]
struct Allowance {
    meter: Meter,
    suppressed: u64,
}

impl Allowance {
    /// Takes one; gives how many were suppressed since the last, or none when this one is too.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let rate = Rate::new(BURST, INTERVAL);
        if self.meter.blocked_until(&rate, now).is_some() {
            self.suppressed += 1;
            return None;
        }
        self.meter.count(&rate, now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Makes events of refusals.
#[derive(Debug)]
pub(crate) struct Events {
    topic: String,
    allowance: Mutex<Allowance>,
}

impl Events {
    /// Events on the topic `events` of this tree.
    pub(crate) fn new(base: &Base) -> Self {
        Self {
            topic: base.topic(&Topic::Events),
            allowance: Mutex::default(),
        }
    }

    /// The event of a refusal; none while there were too many.
    pub(crate) fn auth_failed(&self, refusal: &Refusal<'_>, now: Now) -> Option<Draft> {
        let mut allowance = self
            .allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let suppressed = allowance.take(now.mono)?;
        drop(allowance);
        tracing::info!(
            kind = refusal.kind,
            who = refusal.who,
            what = %refusal.what.escape_debug(),
            suppressed,
            "refused"
        );
        let cut: String = refusal.what.chars().take(MAX_TEXT).collect();
        let mut detail = Map::new();
        detail.insert("reason".to_owned(), Value::from(refusal.kind));
        detail.insert("identity".to_owned(), Value::from(refusal.who));
        detail.insert("asked_for".to_owned(), Value::from(cut));
        if suppressed > 0 {
            detail.insert("suppressed".to_owned(), Value::from(suppressed));
        }
        let event = Event {
            kind: EventType::AuthFailed,
            node: None,
            bridge: None,
            ts: now.wall,
            detail,
        };
        let payload = serde_json::to_vec(&event).ok()?;
        Some(Draft::new(&Parts {
            topic: &self.topic,
            payload: &payload,
            qos: Qos::AtLeastOnce,
            retain: false,
            origin: 0,
            expires: None,
            properties: &[],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_becomes_few_events() {
        let events = Events::new(&Base::default());
        let refusal = Refusal {
            kind: "publish",
            who: "viewer:v",
            what: "a/b",
        };
        let start = bus::time::now();
        let made = (0..1000).filter(|_| events.auth_failed(&refusal, start).is_some());
        assert_eq!(made.count(), BURST as usize);
        let later = events.auth_failed(&refusal, start.after(INTERVAL)).unwrap();
        let message = later.seal(1, 0);
        let event: Value = serde_json::from_slice(message.payload()).unwrap();
        assert_eq!(message.topic(), "nodebus/v1/events");
        assert_eq!(event["type"], "auth_failed");
        assert_eq!(event["identity"], "viewer:v");
        assert_eq!(event["suppressed"], 990);
    }
}
