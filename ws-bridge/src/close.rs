//! Why a connection ends, and what the node is told then.

use crate::message::Invalid;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// The node closed it, or the network did.
    Closed,
    /// Two pings stayed unanswered.
    Unanswered,
    /// The node sent something that is not taken.
    Invalid(Invalid),
    /// A message is longer than allowed.
    TooLong,
    /// A text message is not UTF-8.
    NotUtf8,
    /// The node broke the WebSocket protocol.
    Protocol,
    /// The node connected again under the same uid.
    Replaced,
    /// Somebody had the node forgotten.
    Forgotten,
    /// The bridge stops.
    Stopping,
}

impl Close {
    /// The close code (RFC 6455 section 7.4; from 4000 on private) and the reason in words; none
    /// when there is nobody to tell.
    pub(crate) fn frame(self) -> Option<(u16, String)> {
        let (code, reason) = match self {
            Self::Closed => return None,
            Self::Unanswered => (1008, "two pings stayed unanswered".to_owned()),
            Self::Invalid(why) => (1003, why.to_string()),
            Self::TooLong => (1009, "the message is too long".to_owned()),
            Self::NotUtf8 => (1007, "the text is not UTF-8".to_owned()),
            Self::Protocol => (1002, "this is not the WebSocket protocol".to_owned()),
            Self::Replaced => (4000, "another connection came with the same uid".to_owned()),
            Self::Forgotten => (4001, "the node was forgotten".to_owned()),
            Self::Stopping => (1001, "the bridge is stopping".to_owned()),
        };
        Some((code, reason))
    }

    /// One word for the status of the node, and for the metric.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Unanswered => "unanswered",
            Self::Invalid(_) | Self::TooLong | Self::NotUtf8 | Self::Protocol => "invalid",
            Self::Replaced => "replaced",
            Self::Forgotten => "forgotten",
            Self::Stopping => "stopping",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_fits_a_close_frame() {
        // RFC 6455 section 5.5: 125 bytes, two of which are the code.
        for close in [
            Close::Unanswered,
            Close::Invalid(Invalid::NoData),
            Close::Invalid(Invalid::BadPath),
            Close::Invalid(Invalid::BadUid),
            Close::Invalid(Invalid::TooManyResources),
            Close::Replaced,
        ] {
            let (_, reason) = close.frame().unwrap();
            assert!(reason.len() <= 123, "{reason}");
        }
    }
}
