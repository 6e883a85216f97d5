//! What the bridge counts, beside what its endpoint counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::content::Flaw;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    what: &'static str,
    result: &'static str,
}

/// Why something that a node sent was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A payload that is not `<word>:<uid>` or `<resource>:<value>`.
    Malformed,
    /// A push from an address at which no node, or no single one, is known.
    UnknownNode,
    /// A path that is not served.
    NotServed,
    /// A path that is served does not take this method.
    Method,
    /// A registration without a valid name, lifetime or place.
    Registration,
    /// The renewal or end of a registration that is not known, or is another node's.
    UnknownRegistration,
    /// A push in a Content-Format that names no resources.
    Format,
    /// The limit `max_nodes`.
    TooManyNodes,
    /// The limit `max_nodes_per_address`.
    TooManyAtAddress,
    /// A resource of a node that has too many.
    TooManyResources,
    /// The bus is behind.
    Overload,
    /// It came without DTLS from where that is not taken.
    DtlsRequired,
    /// It came without DTLS in the name of a node that speaks DTLS.
    BoundToDtls,
    /// It came over DTLS in the name of another node than was proven.
    WrongIdentity,
}

impl Refused {
    const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownNode => "unknown_node",
            Self::NotServed => "not_served",
            Self::Method => "method",
            Self::Registration => "registration",
            Self::UnknownRegistration => "unknown_registration",
            Self::Format => "format",
            Self::TooManyNodes => "too_many_nodes",
            Self::TooManyAtAddress => "too_many_at_address",
            Self::TooManyResources => "too_many_resources",
            Self::DtlsRequired => "dtls_required",
            Self::BoundToDtls => "bound_to_dtls",
            Self::WrongIdentity => "wrong_identity",
            Self::Overload => "overload",
        }
    }
}

/// What was dropped before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shed {
    /// A pushed value.
    Push,
    /// Anything else.
    Other,
    /// Anything from an address that sends too much.
    Address,
}

impl Shed {
    const fn label(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Other => "other",
            Self::Address => "address",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sort {
    sort: &'static str,
}

/// The counters; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) alive: Counter,
    pub(crate) pushes: Counter,
    pub(crate) registrations: Counter,
    refused: Family<Reason, Counter>,
    kept_as_bytes: Family<Reason, Counter>,
    discoveries: Family<Outcome, Counter>,
    reloads: Family<Reload, Counter>,
    pub(crate) reads: Counter,
    pub(crate) reads_failed: Counter,
    pub(crate) nodes: Gauge,
    pub(crate) reports_dropped: Counter,
    pub(crate) send_errors: Counter,
    pub(crate) receive_errors: Counter,
    shed: Family<Sort, Counter>,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("alive", "Signs of life taken", self.alive.clone());
        registry.register(
            "registrations",
            "Registrations in the Resource Directory taken",
            self.registrations.clone(),
        );
        registry.register("pushes", "Values pushed and taken", self.pushes.clone());
        registry.register(
            "requests_refused",
            "Requests of nodes that were not taken, by reason",
            self.refused.clone(),
        );
        registry.register(
            "values_not_read",
            "Values that were kept as they came, by reason",
            self.kept_as_bytes.clone(),
        );
        registry.register(
            "discoveries",
            "Questions for a node's resources that ended, by outcome",
            self.discoveries.clone(),
        );
        registry.register(
            "reloads",
            "Files that were read again, by what they hold and whether that is in force",
            self.reloads.clone(),
        );
        registry.register("reads", "Resources asked for", self.reads.clone());
        registry.register(
            "reads_failed",
            "Resources asked for without getting a value",
            self.reads_failed.clone(),
        );
        registry.register("nodes", "Nodes that are known", self.nodes.clone());
        registry.register(
            "reports_dropped",
            "Reports to the bus that were dropped for want of room",
            self.reports_dropped.clone(),
        );
        registry.register(
            "send_errors",
            "Datagrams that the system did not take",
            self.send_errors.clone(),
        );
        registry.register(
            "receive_errors",
            "Errors of the socket while receiving",
            self.receive_errors.clone(),
        );
        registry.register(
            "datagrams_shed",
            "Datagrams that were dropped unread, by sort: since more came than can be handled, or \
             more from one address than is allowed",
            self.shed.clone(),
        );
    }

    pub(crate) fn refused(&self, why: Refused) {
        let reason = why.label();
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn shed(&self, sort: Shed) {
        let sort = sort.label();
        self.shed.get_or_create(&Sort { sort }).inc();
    }

    pub(crate) fn kept_as_bytes(&self, flaw: Flaw) {
        let reason = match flaw {
            Flaw::UnknownFormat => "unknown_format",
            Flaw::Malformed => "malformed",
        };
        self.kept_as_bytes.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn reloaded(&self, what: &'static str, result: &'static str) {
        self.reloads.get_or_create(&Reload { what, result }).inc();
    }

    pub(crate) fn discovered(&self, outcome: &'static str) {
        self.discoveries.get_or_create(&Outcome { outcome }).inc();
    }

    #[cfg(test)]
    pub(crate) fn shed_of(&self, sort: Shed) -> u64 {
        let sort = sort.label();
        self.shed.get_or_create(&Sort { sort }).get()
    }

    #[cfg(test)]
    pub(crate) fn refused_for(&self, why: Refused) -> u64 {
        let reason = why.label();
        self.refused.get_or_create(&Reason { reason }).get()
    }
}
