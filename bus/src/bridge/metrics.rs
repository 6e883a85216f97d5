//! What a bridge counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::admin::Admin;
use crate::payload::AckStatus;

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Reason {
    /// The bridge has as many nodes as it may.
    TooManyNodes,
    /// The node has as many resources as it may, or the path is too long.
    TooManyResources,
    /// Another bridge holds the node, which is heard here too.
    HeldElsewhere,
    /// It was about a node that is not known.
    UnknownNode,
    /// A request arrived as a retained message: it is stale.
    RetainedRequest,
    /// The queue for the bus was full: the oldest reading or event went.
    QueueFull,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Ok,
    Rejected,
    Timeout,
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requests {
    status: Outcome,
}

/// The counters of one bridge; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    pub(super) nodes: Gauge,
    pub(super) readings: Counter,
    pub(super) resyncs: Counter,
    pub(super) queued: Counter,
    pub(super) waiting: Gauge,
    pub(super) waiting_bytes: Gauge,
    unwritten_bytes: Gauge,
    pub(super) failed_commits: Counter,
    dropped: Family<Dropped, Counter>,
    requests: Family<Requests, Counter>,
}

impl Metrics {
    pub(super) fn dropped(&self, reason: Reason) {
        self.dropped_many(reason, 1);
    }

    pub(super) fn dropped_many(&self, reason: Reason, count: u64) {
        let counter = self.dropped.get_or_create(&Dropped { reason });
        counter.inc_by(count);
    }

    pub(super) fn unwritten(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.unwritten_bytes.set(bytes);
    }

    #[cfg(test)]
    pub(super) fn dropped_for(&self, reason: Reason) -> u64 {
        self.dropped.get_or_create(&Dropped { reason }).get()
    }

    pub(super) fn request(&self, status: AckStatus) {
        let status = match status {
            AckStatus::Ok => Outcome::Ok,
            AckStatus::Rejected => Outcome::Rejected,
            AckStatus::Timeout => Outcome::Timeout,
            AckStatus::Error => Outcome::Error,
        };
        self.requests.get_or_create(&Requests { status }).inc();
    }

    /// Registers as `bridge_...{protocol="..."}`.
    pub(super) fn register(&self, admin: &Admin, protocol: &'static str) {
        admin.register(|registry| {
            let registry = registry
                .sub_registry_with_prefix("bridge")
                .sub_registry_with_label(("protocol".into(), protocol.into()));
            registry.register("nodes", "Nodes known", self.nodes.clone());
            registry.register("readings", "Values taken from nodes", self.readings.clone());
            registry.register(
                "resyncs",
                "Times that the bus was behind and values were replaced by newer ones",
                self.resyncs.clone(),
            );
            registry.register(
                "queued",
                "Readings and events that had to wait for the bus",
                self.queued.clone(),
            );
            registry.register(
                "queue_messages",
                "Readings and events that wait for the bus",
                self.waiting.clone(),
            );
            registry.register("queue_bytes", "Bytes of them", self.waiting_bytes.clone());
            registry.register(
                "queue_unwritten_bytes",
                "Bytes of them that are not on disk yet",
                self.unwritten_bytes.clone(),
            );
            registry.register(
                "queue_failed_commits",
                "Times that the disk did not take them",
                self.failed_commits.clone(),
            );
            registry.register(
                "dropped",
                "What was not taken, by reason",
                self.dropped.clone(),
            );
            registry.register(
                "requests",
                "Requests ended, by status",
                self.requests.clone(),
            );
        });
    }
}
