//! What an endpoint counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Why a datagram, or a message in it, was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    PortZero,
    Malformed,
    Reserved,
    Unmatched,
    UnexpectedType,
    CriticalOption,
    Looped,
    Overload,
    /// A message to a group that is no Non-confirmable request, or an answer that a group does not
    /// give.
    Multicast,
    /// An answer that is too long for an address that may be forged.
    Unverified,
}

impl Dropped {
    const fn label(self) -> &'static str {
        match self {
            Self::PortZero => "port_zero",
            Self::Malformed => "malformed",
            Self::Reserved => "reserved_code",
            Self::Unmatched => "unmatched",
            Self::UnexpectedType => "unexpected_type",
            Self::CriticalOption => "critical_option",
            Self::Looped => "looped",
            Self::Overload => "overload",
            Self::Multicast => "multicast",
            Self::Unverified => "unverified",
        }
    }
}

/// The counters; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) received: Counter,
    pub(super) sent: Counter,
    dropped: Family<Reason, Counter>,
    pub(super) duplicates: Counter,
    pub(super) retransmissions: Counter,
    pub(super) forgotten: Counter,
    pub(super) pings: Counter,
    failed: Family<Reason, Counter>,
}

impl Metrics {
    /// Announces the counters, with `registry`'s prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "datagrams_received",
            "Datagrams that came in",
            self.received.clone(),
        );
        registry.register("datagrams_sent", "Datagrams to send", self.sent.clone());
        registry.register(
            "messages_dropped",
            "Messages that were not taken, by reason",
            self.dropped.clone(),
        );
        registry.register(
            "duplicates",
            "Messages that had come before",
            self.duplicates.clone(),
        );
        registry.register(
            "retransmissions",
            "Confirmable messages sent again",
            self.retransmissions.clone(),
        );
        registry.register(
            "duplicates_forgotten",
            "Message IDs that were forgotten before their lifetime, for want of room",
            self.forgotten.clone(),
        );
        registry.register("pings", "Empty Confirmable messages", self.pings.clone());
        registry.register(
            "requests_failed",
            "Requests of ours without a response, by reason",
            self.failed.clone(),
        );
    }

    pub(super) fn dropped(&self, why: Dropped) {
        let reason = why.label();
        self.dropped.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.failed.get_or_create(&Reason { reason }).inc();
    }

    #[cfg(test)]
    pub(crate) fn dropped_for(&self, reason: &'static str) -> u64 {
        self.dropped.get_or_create(&Reason { reason }).get()
    }
}
