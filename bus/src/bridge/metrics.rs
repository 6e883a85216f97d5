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
    /// It was about a node that is not known.
    UnknownNode,
    /// A request arrived as a retained message: it is stale.
    RetainedRequest,
    /// An event or an ack did not fit while the bus was away; the oldest went.
    HeldOverflow,
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
    dropped: Family<Dropped, Counter>,
    requests: Family<Requests, Counter>,
}

impl Metrics {
    pub(super) fn dropped(&self, reason: Reason) {
        self.dropped.get_or_create(&Dropped { reason }).inc();
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
