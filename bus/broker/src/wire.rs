//! MQTT 3.1.1 and 5 on the wire: bytes to checked packets, and back.
//!
//! Bodies are decoded by mqtt-protocol-core; framing, the checks that it leaves out and all
//! encoding are here. This module keeps no state between packets: flows are the session's.

mod decode;
mod encode;
pub(crate) mod reason;

use bytes::{Buf, BytesMut};
use mqtt_protocol_core::mqtt::common::ArcPayload;

pub(crate) use encode::{
    Acknowledgement, Connack, acknowledgement, connack, disconnect, pingresp, publish,
    publish_size, refusal, suback, unsuback,
};
pub(crate) use reason::Reason;

use crate::message::Draft;
use crate::passwords::Secret;

/// What a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5.
    V5,
}

/// How surely a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::enum_variant_names, reason = "the standard's words")]
pub(crate) enum Qos {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl Qos {
    /// Reads the two bits of it; none for 3.
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// When retained messages are sent for a subscription (MQTT 5 section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    Always,
    IfNew,
    Never,
}

/// A Will, made into a message when it is due.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) draft: Draft,
    /// Will Delay Interval, seconds.
    pub(crate) delay: u32,
    /// Message Expiry Interval, seconds.
    pub(crate) expiry: Option<u32>,
}

/// CONNECT.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    /// Seconds; 0 turns it off.
    pub(crate) keep_alive: u16,
    /// Session Expiry Interval, seconds; `u32::MAX` is for ever.
    pub(crate) session_expiry: u32,
    pub(crate) receive_maximum: u16,
    /// Maximum Packet Size, bytes.
    pub(crate) maximum_packet: u32,
    /// Request Problem Information: it wants Reason Strings in all packets.
    pub(crate) wants_reasons: bool,
    pub(crate) will: Option<Will>,
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<Secret>,
    /// It wants enhanced authentication (MQTT 5 section 4.12).
    pub(crate) has_auth_method: bool,
}

/// PUBLISH.
#[derive(Debug)]
pub(crate) struct Publish {
    /// Empty with a topic alias only.
    pub(crate) topic: String,
    pub(crate) payload: ArcPayload,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// 0 with QoS 0.
    pub(crate) pid: u16,
    pub(crate) alias: Option<u16>,
    /// Message Expiry Interval, seconds.
    pub(crate) expiry: Option<u32>,
    /// Properties that go on to subscribers, encoded.
    pub(crate) properties: Vec<u8>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilterRequest {
    pub(crate) filter: String,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
}

/// A packet from a client.
#[derive(Debug)]
pub(crate) enum Packet {
    Connect(Box<Connect>),
    Publish(Publish),
    Puback {
        pid: u16,
    },
    Pubrec {
        pid: u16,
        failed: bool,
    },
    Pubrel {
        pid: u16,
    },
    Pubcomp {
        pid: u16,
    },
    Subscribe {
        pid: u16,
        id: Option<u32>,
        filters: Vec<FilterRequest>,
    },
    Unsubscribe {
        pid: u16,
        filters: Vec<String>,
    },
    Pingreq,
    Disconnect {
        reason: u8,
        session_expiry: Option<u32>,
    },
}

/// What came in is not MQTT, or not allowed; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct WireError {
    /// What MQTT 5 calls it.
    pub(crate) reason: Reason,
}

impl From<Reason> for WireError {
    fn from(reason: Reason) -> Self {
        Self { reason }
    }
}

/// Where one packet stands in the input.
struct Frame {
    first: u8,
    header_len: usize,
    body_len: usize,
}

/// Finds the first packet; none while its header is incomplete.
fn frame(input: &[u8], maximum: usize) -> Result<Option<Frame>, WireError> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    let mut body_len = 0_usize;
    for (i, &byte) in rest.iter().take(4).enumerate() {
        body_len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let header_len = i + 2;
            if header_len + body_len > maximum {
                return Err(Reason::PacketTooLarge.into());
            }
            return Ok(Some(Frame {
                first,
                header_len,
                body_len,
            }));
        }
    }
    if rest.len() >= 4 {
        return Err(Reason::MalformedPacket.into());
    }
    Ok(None)
}

/// Takes the next packet off `input`; none while it is incomplete.
///
/// `version` is none before CONNECT, which is then the only packet allowed (MQTT-3.1.0-1).
///
/// # Errors
/// The bytes are no packet of that version, or it is larger than `maximum` bytes.
pub(crate) fn take(
    input: &mut BytesMut,
    version: Option<Version>,
    maximum: usize,
) -> Result<Option<Packet>, WireError> {
    // A stranger's first byte decides, before anything is held for it.
    if version.is_none() && input.first().is_some_and(|&first| first != 0x10) {
        return Err(Reason::ProtocolError.into());
    }
    let Some(frame) = frame(input, maximum)? else {
        return Ok(None);
    };
    if input.len() < frame.header_len + frame.body_len {
        return Ok(None);
    }
    input.advance(frame.header_len);
    let packet = decode::packet(frame.first, &input[..frame.body_len], version);
    input.advance(frame.body_len);
    packet.map(Some)
}

/// The properties of a message and its remaining time, as they go to a subscriber.
#[derive(Debug, Default)]
pub(crate) struct Delivered<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) properties: &'a [u8],
    pub(crate) expiry: Option<u32>,
    pub(crate) subscription_ids: &'a [u32],
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) pid: u16,
}
