//! What the gateway counts.

use bus::admin::Admin;
use bus::payload::AckStatus;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::model::Dropped;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Kind {
    /// The page's stream.
    Stream,
    /// Pyaiot's client protocol.
    Pyaiot,
}

/// What was sent to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Sent {
    Snapshot,
    Delta,
    Ack,
    Pyaiot,
}

/// Why somebody was refused or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Refusal {
    /// A web page of elsewhere.
    Origin,
    /// A name that is not ours.
    Host,
    /// As many clients, or connections, as there may be.
    Busy,
    /// Too many messages a second.
    Rate,
    /// A message that is none.
    Malformed,
    /// A message that is too long.
    TooLong,
    /// It did not answer pings or did not read.
    Silent,
    /// A write where writing is off.
    Write,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySent {
    kind: Sent,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRefusal {
    reason: Refusal,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDropped {
    reason: Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Ok,
    Rejected,
    Timeout,
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    status: Outcome,
}

/// The counters; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    clients: Family<ByKind, Gauge>,
    frames: Family<BySent, Counter>,
    slow: Family<ByKind, Counter>,
    refused: Family<ByRefusal, Counter>,
    dropped: Family<ByDropped, Counter>,
    requests: Family<ByOutcome, Counter>,
    pub(crate) conflated: Counter,
    pub(crate) messages: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, admin: &Admin) {
        admin.register(|registry| {
            let registry = registry.sub_registry_with_prefix("dashboard_gw");
            registry.register("clients", "Connected clients", self.clients.clone());
            registry.register("frames", "Frames sent to clients", self.frames.clone());
            registry.register(
                "conflated_changes",
                "Changes that a client got only in a later one's place",
                self.conflated.clone(),
            );
            registry.register(
                "slow_clients",
                "Clients that fell behind: given a snapshot, or closed",
                self.slow.clone(),
            );
            registry.register(
                "refused",
                "Requests and clients refused or closed",
                self.refused.clone(),
            );
            registry.register("bus_messages", "Messages of the bus", self.messages.clone());
            registry.register(
                "dropped_bus_messages",
                "Messages of the bus that were not taken",
                self.dropped.clone(),
            );
            registry.register(
                "requests",
                "Requests to nodes, by their end",
                self.requests.clone(),
            );
        });
    }

    pub(crate) fn client_came(&self, kind: Kind) {
        self.clients.get_or_create(&ByKind { kind }).inc();
    }

    pub(crate) fn client_left(&self, kind: Kind) {
        self.clients.get_or_create(&ByKind { kind }).dec();
    }

    pub(crate) fn sent(&self, kind: Sent, frames: u64) {
        self.frames.get_or_create(&BySent { kind }).inc_by(frames);
    }

    pub(crate) fn slow(&self, kind: Kind) {
        self.slow.get_or_create(&ByKind { kind }).inc();
    }

    pub(crate) fn refused(&self, reason: Refusal) {
        self.refused.get_or_create(&ByRefusal { reason }).inc();
    }

    pub(crate) fn dropped(&self, reason: Dropped) {
        self.dropped.get_or_create(&ByDropped { reason }).inc();
    }

    pub(crate) fn ended(&self, status: AckStatus) {
        let status = match status {
            AckStatus::Ok => Outcome::Ok,
            AckStatus::Rejected => Outcome::Rejected,
            AckStatus::Timeout => Outcome::Timeout,
            AckStatus::Error => Outcome::Error,
        };
        self.requests.get_or_create(&ByOutcome { status }).inc();
    }
}
