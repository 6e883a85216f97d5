//! `$SYS/broker/...`: what the broker tells of itself on topics, under the names that mosquitto gave
//! them. They are retained in memory and published when they changed.

use std::collections::HashMap;
use std::time::Instant;

use bus::time::Now;

use crate::broker::Broker;
use crate::message::{Draft, Parts};
use crate::metrics::Metrics;
use crate::wire::Qos;

/// Where all of them stand. Nothing below it is stored.
pub(crate) const PREFIX: &str = "$SYS/";

/// What was told last.
#[derive(Debug)]
pub(crate) struct Sys {
    started: Instant,
    told: HashMap<&'static str, String>,
}

/// What there is to tell, by topic.
fn values(metrics: &Metrics, uptime: u64) -> [(&'static str, String); 10] {
    let (connected, total) = (metrics.clients.get(), metrics.sessions.get());
    let absent = (total - connected).max(0);
    [
        (
            "$SYS/broker/version",
            concat!("nodebus ", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
        ("$SYS/broker/uptime", format!("{uptime} seconds")),
        ("$SYS/broker/clients/connected", connected.to_string()),
        ("$SYS/broker/clients/disconnected", absent.to_string()),
        (
            "$SYS/broker/clients/expired",
            metrics.expired_sessions.get().to_string(),
        ),
        (
            "$SYS/broker/clients/total",
            (connected + absent).to_string(),
        ),
        (
            "$SYS/broker/publish/messages/received",
            metrics.received.get().to_string(),
        ),
        (
            "$SYS/broker/publish/messages/sent",
            metrics.sent.get().to_string(),
        ),
        (
            "$SYS/broker/publish/messages/dropped",
            metrics.dropped_in_total().to_string(),
        ),
        (
            "$SYS/broker/retained messages/count",
            metrics.retained.get().to_string(),
        ),
    ]
}

impl Sys {
    /// Nothing told yet.
    pub(crate) fn new(now: Now) -> Self {
        Self {
            started: now.mono,
            told: HashMap::new(),
        }
    }

    /// Tells what changed.
    pub(crate) fn tell(&mut self, broker: &Broker, now: Now) {
        let uptime = now.mono.saturating_duration_since(self.started).as_secs();
        for (topic, value) in values(&broker.metrics, uptime) {
            if self.told.get(topic) == Some(&value) {
                continue;
            }
            let message = Draft::new(&Parts {
                topic,
                payload: value.as_bytes(),
                qos: Qos::AtMostOnce,
                retain: true,
                origin: 0,
                expires: None,
                properties: &[],
            });
            match broker.exchange.publish(message) {
                Ok(_) => {
                    self.told.insert(topic, value);
                }
                Err(error) => tracing::debug!(%error, "a topic of $SYS was not published"),
            }
        }
    }
}
