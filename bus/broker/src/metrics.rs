//! What the broker counts.

use std::sync::atomic::AtomicU64;

use bus::admin::Admin;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// One label; its values are words of this crate, never a peer's.
type Label = [(&'static str, &'static str); 1];
type ByLabel = Family<Label, Counter>;

/// One of those that a gauge counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    /// Counts one more.
    pub(crate) fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The broker's metrics, named `bus_broker_...`.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Connections open now.
    pub(crate) connections: Gauge,
    /// Connections that were closed, by reason.
    closed: ByLabel,
    /// TLS handshakes, by result.
    handshakes: ByLabel,
    /// TLS handshakes that wait for a place.
    pub(crate) waiting_handshakes: Gauge,
    /// Passwords, by what came of looking at them.
    logins: ByLabel,
    /// Passwords that wait to be looked at.
    pub(crate) waiting_logins: Gauge,
    /// Opening handshakes of WebSockets, by result.
    upgrades: ByLabel,
    /// Clients, publications and subscriptions refused, by kind.
    refused: ByLabel,
    /// Messages from clients.
    pub(crate) received: Counter,
    /// Messages above the publish rate of their client, which made it wait.
    pub(crate) slowed: Counter,
    /// Messages to clients.
    pub(crate) sent: Counter,
    /// Messages that a client did not get, by reason.
    dropped: ByLabel,
    /// Packets that were no MQTT or not allowed, by reason.
    malformed: ByLabel,
    /// Files read again, by what they say and whether it was taken.
    reloads: Family<[(&'static str, &'static str); 2], Counter>,
    /// Retained messages.
    pub(crate) retained: Gauge,
    /// Their size.
    pub(crate) retained_bytes: Gauge,
    /// Sessions whose clients are present.
    pub(crate) clients: Gauge,
    /// Sessions, with clients present or absent.
    pub(crate) sessions: Gauge,
    /// Sessions whose clients did not come back.
    pub(crate) expired_sessions: Counter,
    /// Messages lost in the message core.
    pub(crate) gaps: Counter,
    /// Commits of the store.
    pub(crate) commits: Counter,
    /// Commits of the store that the disk did not take.
    pub(crate) failed_commits: Counter,
    /// Seconds since the watchdog's message last came through the message core.
    pub(crate) watchdog_age: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(admin: &Admin) -> Self {
        let metrics = Self::default();
        admin
            .register(|registry| metrics.register(registry.sub_registry_with_prefix("bus_broker")));
        metrics
    }

    fn register(&self, r: &mut Registry) {
        r.register("connections", "Open connections", self.connections.clone());
        r.register(
            "closed_connections",
            "Closed connections by reason",
            self.closed.clone(),
        );
        r.register(
            "handshakes",
            "TLS handshakes by result",
            self.handshakes.clone(),
        );
        r.register(
            "waiting_handshakes",
            "TLS handshakes that wait for a place",
            self.waiting_handshakes.clone(),
        );
        r.register(
            "logins",
            "Logins with a password, by result; those with the result recalled cost no check",
            self.logins.clone(),
        );
        r.register(
            "waiting_logins",
            "Logins whose password waits to be checked",
            self.waiting_logins.clone(),
        );
        r.register(
            "upgrades",
            "Opening handshakes of WebSockets by result",
            self.upgrades.clone(),
        );
        r.register("refused", "Refusals by kind", self.refused.clone());
        r.register(
            "received_messages",
            "Messages from clients",
            self.received.clone(),
        );
        r.register(
            "slowed_messages",
            "Messages above the publish rate of their client, which made it wait",
            self.slowed.clone(),
        );
        r.register("sent_messages", "Messages to clients", self.sent.clone());
        r.register(
            "dropped_messages",
            "Messages not delivered, by reason",
            self.dropped.clone(),
        );
        r.register(
            "malformed_packets",
            "Packets that ended their connection",
            self.malformed.clone(),
        );
        r.register(
            "reloads",
            "Files read again, by what they say and whether it was taken",
            self.reloads.clone(),
        );
        r.register(
            "retained_messages",
            "Retained messages",
            self.retained.clone(),
        );
        r.register_with_unit(
            "retained",
            "Size of retained messages",
            Unit::Bytes,
            self.retained_bytes.clone(),
        );
        r.register("clients", "Clients connected", self.clients.clone());
        r.register(
            "sessions",
            "Sessions, clients present or absent",
            self.sessions.clone(),
        );
        r.register(
            "expired_sessions",
            "Sessions that ended because their clients did not come back",
            self.expired_sessions.clone(),
        );
        r.register(
            "gap_messages",
            "Messages lost in the message core",
            self.gaps.clone(),
        );
        r.register("commits", "Commits of the store", self.commits.clone());
        r.register(
            "failed_commits",
            "Commits of the store that the disk did not take",
            self.failed_commits.clone(),
        );
        r.register_with_unit(
            "watchdog_age",
            "Time since a message last came through the message core",
            Unit::Seconds,
            self.watchdog_age.clone(),
        );
    }

    /// Counts a closed connection.
    pub(crate) fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a handshake.
    pub(crate) fn handshake(&self, result: &'static str) {
        self.handshakes.get_or_create(&[("result", result)]).inc();
    }

    /// Counts a login.
    pub(crate) fn login(&self, result: &'static str) {
        self.logins.get_or_create(&[("result", result)]).inc();
    }

    /// Counts an opening handshake of a WebSocket.
    pub(crate) fn upgrade(&self, result: &'static str) {
        self.upgrades.get_or_create(&[("result", result)]).inc();
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, kind: &'static str) {
        self.refused.get_or_create(&[("kind", kind)]).inc();
    }

    /// Counts messages that a client did not get.
    pub(crate) fn dropped(&self, reason: &'static str, count: u64) {
        if count > 0 {
            self.dropped
                .get_or_create(&[("reason", reason)])
                .inc_by(count);
        }
    }

    /// Counts files that were read again.
    pub(crate) fn reloaded(&self, what: &'static str, result: &'static str) {
        let labels = [("what", what), ("result", result)];
        self.reloads.get_or_create(&labels).inc();
    }

    /// Messages that clients did not get, for whatever reason.
    pub(crate) fn dropped_in_total(&self) -> u64 {
        let reasons = [
            "queue_full",
            "oldest_of_absent",
            "expired",
            "too_large",
            "session_ended",
        ];
        let counts = reasons.map(|reason| self.dropped.get_or_create(&[("reason", reason)]).get());
        counts.iter().sum()
    }

    /// Counts a packet that ended its connection.
    pub(crate) fn malformed(&self, reason: &'static str) {
        self.malformed.get_or_create(&[("reason", reason)]).inc();
    }
}
