//! Reason Codes of MQTT 5 (section 2.4), and what MQTT 3.1.1 has instead.

use std::fmt;

/// Why something was refused or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Reason {
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    ServerShuttingDown = 0x8b,
    BadAuthenticationMethod = 0x8c,
    KeepAliveTimeout = 0x8d,
    SessionTakenOver = 0x8e,
    TopicFilterInvalid = 0x8f,
    TopicNameInvalid = 0x90,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    ConnectionRateExceeded = 0x9f,
}

impl Reason {
    /// The word for it in metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::MalformedPacket => "malformed_packet",
            Self::ProtocolError => "protocol_error",
            Self::UnsupportedProtocolVersion => "unsupported_protocol_version",
            Self::ClientIdentifierNotValid => "client_identifier_not_valid",
            Self::BadUserNameOrPassword => "bad_user_name_or_password",
            Self::NotAuthorized => "not_authorized",
            Self::ServerUnavailable => "server_unavailable",
            Self::ServerBusy => "server_busy",
            Self::ServerShuttingDown => "server_shutting_down",
            Self::BadAuthenticationMethod => "bad_authentication_method",
            Self::KeepAliveTimeout => "keep_alive_timeout",
            Self::SessionTakenOver => "session_taken_over",
            Self::TopicFilterInvalid => "topic_filter_invalid",
            Self::TopicNameInvalid => "topic_name_invalid",
            Self::TopicAliasInvalid => "topic_alias_invalid",
            Self::PacketTooLarge => "packet_too_large",
            Self::QuotaExceeded => "quota_exceeded",
            Self::ConnectionRateExceeded => "connection_rate_exceeded",
        }
    }

    /// The Reason String for it (MQTT 5 section 3.2.2.3.9): what the client's owner can do.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::MalformedPacket => {
                "a packet, a string, a name or a filter is not formed as MQTT says"
            }
            Self::ProtocolError => "a packet came that MQTT does not allow there or so",
            Self::UnsupportedProtocolVersion => "this broker speaks MQTT 3.1.1 and 5",
            Self::ClientIdentifierNotValid => {
                "the Client Identifier must be the client's own name, or that and a colon and anything"
            }
            Self::BadUserNameOrPassword => "there is no such user name, or it has another password",
            Self::NotAuthorized => "the access list of the broker does not allow it",
            Self::ServerUnavailable => "the broker is about to start again",
            Self::ServerBusy => "too many clients log in at once: come again in a moment",
            Self::ServerShuttingDown => "the broker stops",
            Self::BadAuthenticationMethod => "there is no enhanced authentication here",
            Self::KeepAliveTimeout => "nothing came from the client for one and a half Keep Alive",
            Self::SessionTakenOver => "another connection came with this Client Identifier",
            Self::TopicFilterInvalid => "the filter has more levels than this broker takes",
            Self::TopicNameInvalid => {
                "topics that begin with $ are the broker's own, or it has more levels than this broker takes"
            }
            Self::TopicAliasInvalid => {
                "the topic alias is 0 or above the Topic Alias Maximum of CONNACK"
            }
            Self::PacketTooLarge => "the packet is larger than the Maximum Packet Size of CONNACK",
            Self::QuotaExceeded => "a limit of the broker is reached, or its disk is full",
            Self::ConnectionRateExceeded => {
                "too many logins from this address have failed: come again in a minute"
            }
        }
    }

    /// The return code of a CONNACK of MQTT 3.1.1 (section 3.2.2.3); none when it has no word for
    /// it, and the connection is closed without an answer.
    pub(crate) fn return_code(self) -> Option<u8> {
        match self {
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded => Some(3),
            Self::BadUserNameOrPassword | Self::BadAuthenticationMethod => Some(4),
            Self::NotAuthorized => Some(5),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
