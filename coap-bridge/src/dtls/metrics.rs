//! What the DTLS server counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Why a datagram was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    PortZero,
    TooLarge,
    /// It is not made of records of DTLS.
    Malformed,
    /// A ClientHello in pieces.
    Fragmented,
    /// A ClientHello of something older than DTLS 1.2.
    Version,
    /// A ClientHello while there are neither keys nor certificates.
    NoCredentials,
    /// It belongs to no session or handshake.
    NoSession,
    /// A ClientHello that has led to the session which is there.
    Late,
    /// It can't be opened with the session's keys, or came before.
    Unreadable,
}

impl Dropped {
    const fn label(self) -> &'static str {
        match self {
            Self::PortZero => "port_zero",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Fragmented => "fragmented_hello",
            Self::Version => "version",
            Self::NoCredentials => "no_credentials",
            Self::NoSession => "no_session",
            Self::Late => "late_hello",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why a handshake has led to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The limit of handshakes under way.
    TooManyHandshakes,
    /// One place has its share of them already.
    TooManyHandshakesAtAddress,
    /// One place has its share of sessions already.
    TooManySessionsAtAddress,
    /// Neither a cipher suite nor an extension that we must have.
    NotSupported,
    /// Nobody of this name has a key.
    UnknownIdentity,
    /// The client has another key.
    WrongKey,
    NoCertificate,
    /// The client does not hold the key of its certificate.
    BadSignature,
    CertificateExpired,
    CertificateRevoked,
    /// Another authority has issued it.
    UnknownAuthority,
    /// It is not a node's.
    WrongRole,
    BadCertificate,
    /// The client gave up.
    Alert,
    /// The client did not go on in time.
    Timeout,
    /// The client began another one.
    Restarted,
    /// The key or the authority was taken away meanwhile.
    Withdrawn,
    /// Messages that make no handshake.
    Protocol,
    /// A fault of ours.
    Internal,
}

impl Refused {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::TooManyHandshakesAtAddress => "too_many_handshakes_at_address",
            Self::TooManySessionsAtAddress => "too_many_sessions_at_address",
            Self::NotSupported => "not_supported",
            Self::UnknownIdentity => "unknown_identity",
            Self::WrongKey => "wrong_key",
            Self::NoCertificate => "no_certificate",
            Self::BadSignature => "bad_signature",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateRevoked => "certificate_revoked",
            Self::UnknownAuthority => "unknown_authority",
            Self::WrongRole => "wrong_role",
            Self::BadCertificate => "bad_certificate",
            Self::Alert => "alert",
            Self::Timeout => "timeout",
            Self::Restarted => "restarted",
            Self::Withdrawn => "withdrawn",
            Self::Protocol => "protocol",
            Self::Internal => "internal",
        }
    }

    /// The alert that tells the client, where it is to know (RFC 5246 section 7.2). An unknown name
    /// and a wrong key are told alike (RFC 4279 section 2).
    pub(super) const fn alert(self) -> Option<u8> {
        Some(match self {
            Self::NotSupported => 40,
            Self::UnknownIdentity | Self::WrongKey | Self::BadSignature => 51,
            Self::BadCertificate => 42,
            Self::CertificateRevoked => 44,
            Self::CertificateExpired => 45,
            Self::UnknownAuthority => 48,
            Self::WrongRole => 49,
            Self::Withdrawn | Self::Protocol => 40,
            Self::Internal => 80,
            // dimpl has sent one itself, or the client hears nothing any more.
            Self::NoCertificate | Self::Alert | Self::Timeout | Self::Restarted => return None,
            Self::TooManyHandshakes
            | Self::TooManyHandshakesAtAddress
            | Self::TooManySessionsAtAddress => return None,
        })
    }
}

/// Why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The node said goodbye.
    Closed,
    /// The node reports an error.
    Alert,
    /// The node has made a new one from the same address.
    Renewed,
    /// Nothing was heard over it for long.
    Idle,
    /// Another one needed its room; it was the one that was silent for longest.
    Evicted,
    /// The key was taken away or replaced, or the certificate is not good any more.
    Withdrawn,
    /// Records that make no sense, though the node's.
    Protocol,
    /// The bridge stops.
    Stopped,
}

impl Ended {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Alert => "alert",
            Self::Renewed => "renewed",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Withdrawn => "withdrawn",
            Self::Protocol => "protocol",
            Self::Stopped => "stopped",
        }
    }
}

/// The counters; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) cookies: Counter,
    pub(super) sessions: Gauge,
    pub(super) handshakes: Gauge,
    pub(super) established: Counter,
    dropped: Family<Reason, Counter>,
    refused: Family<Reason, Counter>,
    ended: Family<Reason, Counter>,
}

impl Metrics {
    /// Announces the counters, with `registry`'s prefix.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("dtls");
        let received = self.received.clone();
        registry.register("datagrams_received", "Datagrams that came in", received);
        registry.register("datagrams_sent", "Datagrams to send", self.sent.clone());
        registry.register(
            "cookies",
            "Clients that were asked to show that they are at their address",
            self.cookies.clone(),
        );
        registry.register("sessions", "Sessions there are", self.sessions.clone());
        registry.register(
            "handshakes",
            "Handshakes under way, of verified addresses",
            self.handshakes.clone(),
        );
        registry.register(
            "sessions_established",
            "Sessions there were",
            self.established.clone(),
        );
        registry.register(
            "datagrams_dropped",
            "Datagrams that were not taken, by reason",
            self.dropped.clone(),
        );
        registry.register(
            "handshakes_refused",
            "Handshakes of verified addresses that led to nothing, by reason",
            self.refused.clone(),
        );
        registry.register(
            "sessions_ended",
            "Sessions that have ended, by reason",
            self.ended.clone(),
        );
    }

    pub(super) fn dropped(&self, why: Dropped) {
        let reason = why.label();
        self.dropped.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn refused(&self, why: Refused) {
        let reason = why.label();
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn ended(&self, why: Ended) {
        let reason = why.label();
        self.ended.get_or_create(&Reason { reason }).inc();
    }

    #[cfg(test)]
    pub(crate) fn dropped_for(&self, reason: &'static str) -> u64 {
        self.dropped.get_or_create(&Reason { reason }).get()
    }

    #[cfg(test)]
    pub(crate) fn refused_for(&self, why: Refused) -> u64 {
        let reason = why.label();
        self.refused.get_or_create(&Reason { reason }).get()
    }

    #[cfg(test)]
    pub(crate) fn ended_for(&self, why: Ended) -> u64 {
        let reason = why.label();
        self.ended.get_or_create(&Reason { reason }).get()
    }
}
