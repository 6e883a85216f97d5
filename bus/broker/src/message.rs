//! An Application Message as it crosses the broker: checked once, then one piece of shared memory.
//!
//! The same bytes go through the fan-out, stand in the retained store and wait in the queues of
//! sessions, so that a message is never copied again and never holds on to a read buffer.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::Qos;

// Where the fields stand.
const SEQ: usize = 0;
const POSITION: usize = 8;
const ORIGIN: usize = 16;
const EXPIRES: usize = 24;
const FLAGS: usize = 32;
const TOPIC_LEN: usize = 33;
const PROPERTIES_LEN: usize = 35;
const SHARE_LEN: usize = 39;
/// The Shared Subscription, topic, properties and payload, one behind the other.
const TEXT: usize = 41;

const QOS_BITS: u8 = 0b011;
const RETAIN_BIT: u8 = 0b100;

/// What a message is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// A valid Topic Name.
    pub(crate) topic: &'a str,
    /// The Application Message.
    pub(crate) payload: &'a [u8],
    /// The publisher's QoS.
    pub(crate) qos: Qos,
    /// The publisher's retain flag.
    pub(crate) retain: bool,
    /// The session it came from, for the No Local option; 0 is the broker itself.
    pub(crate) origin: u64,
    /// When it is of no use any more, in milliseconds since 1970.
    pub(crate) expires: Option<i64>,
    /// MQTT 5 properties that go on to subscribers, encoded, without the Message Expiry Interval.
    pub(crate) properties: &'a [u8],
}

/// A message that has no place in the order yet.
#[derive(Debug)]
pub(crate) struct Draft(BytesMut);

impl Draft {
    /// Copies the parts together.
    pub(crate) fn new(parts: &Parts<'_>) -> Self {
        let topic = parts.topic.as_bytes();
        let topic_len = u16::try_from(topic.len()).unwrap_or(u16::MAX);
        let properties_len = u32::try_from(parts.properties.len()).unwrap_or(u32::MAX);
        let len = TEXT + topic.len() + parts.properties.len() + parts.payload.len();
        let mut bytes = BytesMut::with_capacity(len);
        bytes.put_bytes(0, ORIGIN);
        bytes.put_u64(parts.origin);
        bytes.put_i64(parts.expires.unwrap_or(0));
        let retain = if parts.retain { RETAIN_BIT } else { 0 };
        bytes.put_u8(parts.qos as u8 | retain);
        bytes.put_u16(topic_len);
        bytes.put_u32(properties_len);
        bytes.put_u16(0);
        bytes.put_slice(topic);
        bytes.put_slice(parts.properties);
        bytes.put_slice(parts.payload);
        Self(bytes)
    }

    /// Gives the message its number in the order of all messages, and the sum of sizes before it.
    pub(crate) fn seal(mut self, seq: u64, position: u64) -> Message {
        self.0[SEQ..POSITION].copy_from_slice(&seq.to_be_bytes());
        self.0[POSITION..ORIGIN].copy_from_slice(&position.to_be_bytes());
        Message(self.0.freeze())
    }

    /// Sets the session it comes from, for a Will that was made before its session.
    pub(crate) fn set_origin(&mut self, origin: u64) {
        self.0[ORIGIN..EXPIRES].copy_from_slice(&origin.to_be_bytes());
    }

    /// Starts the time of a Message Expiry Interval, for a Will that is published now.
    pub(crate) fn set_expires(&mut self, expires: Option<i64>) {
        self.0[EXPIRES..FLAGS].copy_from_slice(&expires.unwrap_or(0).to_be_bytes());
    }

    /// The size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A message with its place in the order. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message(Bytes);

impl Message {
    /// Takes back what [`Message::into_bytes`] gave; none when it is something else.
    pub(crate) fn from_bytes(bytes: Bytes) -> Option<Self> {
        if bytes.len() < TEXT {
            return None;
        }
        let message = Self(bytes);
        let end = message.payload_start();
        (end <= message.0.len()).then_some(message)
    }

    /// The bytes themselves.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }

    fn u64_at(&self, at: usize) -> u64 {
        let mut raw = [0; 8];
        raw.copy_from_slice(&self.0[at..at + 8]);
        u64::from_be_bytes(raw)
    }

    fn u16_at(&self, at: usize) -> usize {
        usize::from(u16::from_be_bytes([self.0[at], self.0[at + 1]]))
    }

    fn topic_start(&self) -> usize {
        TEXT + self.u16_at(SHARE_LEN)
    }

    fn topic_end(&self) -> usize {
        self.topic_start() + self.u16_at(TOPIC_LEN)
    }

    fn payload_start(&self) -> usize {
        let mut raw = [0; 4];
        raw.copy_from_slice(&self.0[PROPERTIES_LEN..SHARE_LEN]);
        self.topic_end() + u32::from_be_bytes(raw) as usize
    }

    /// Its number in the order of all messages.
    pub(crate) fn seq(&self) -> u64 {
        self.u64_at(SEQ)
    }

    /// The sum of the sizes of all messages before it.
    pub(crate) fn position(&self) -> u64 {
        self.u64_at(POSITION)
    }

    /// The session it came from.
    pub(crate) fn origin(&self) -> u64 {
        self.u64_at(ORIGIN)
    }

    /// When it is of no use any more, in milliseconds since 1970.
    pub(crate) fn expires(&self) -> Option<i64> {
        match self.u64_at(EXPIRES).cast_signed() {
            0 => None,
            at => Some(at),
        }
    }

    /// The publisher's QoS.
    pub(crate) fn qos(&self) -> Qos {
        Qos::from_bits(self.0[FLAGS] & QOS_BITS).unwrap_or(Qos::AtMostOnce)
    }

    /// The publisher's retain flag.
    pub(crate) fn is_retain(&self) -> bool {
        self.0[FLAGS] & RETAIN_BIT != 0
    }

    /// The Topic Name.
    pub(crate) fn topic(&self) -> &str {
        std::str::from_utf8(&self.0[self.topic_start()..self.topic_end()]).unwrap_or_default()
    }

    /// The Shared Subscription that this copy is for, as it was asked for; none of other messages.
    pub(crate) fn share(&self) -> Option<&str> {
        let share = &self.0[TEXT..self.topic_start()];
        let share = std::str::from_utf8(share).unwrap_or_default();
        (!share.is_empty()).then_some(share)
    }

    /// A copy for one session of a Shared Subscription, with a number of its own.
    pub(crate) fn copy_for(&self, share: &str, seq: u64) -> Self {
        let share = share.as_bytes();
        let share_len = u16::try_from(share.len()).unwrap_or(u16::MAX);
        let mut bytes = BytesMut::with_capacity(self.0.len() + share.len());
        bytes.put_u64(seq);
        bytes.put_slice(&self.0[POSITION..SHARE_LEN]);
        bytes.put_u16(share_len);
        bytes.put_slice(share);
        bytes.put_slice(&self.0[self.topic_start()..]);
        Self(bytes.freeze())
    }

    /// MQTT 5 properties for subscribers, encoded.
    pub(crate) fn properties(&self) -> &[u8] {
        &self.0[self.topic_end()..self.payload_start()]
    }

    /// The Application Message.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.0[self.payload_start()..]
    }

    /// The size in bytes, as queues count it.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} {})", self.seq(), self.topic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let draft = Draft::new(&Parts {
            topic: "é/b",
            payload: b"on",
            qos: Qos::ExactlyOnce,
            retain: true,
            origin: 7,
            expires: Some(9),
            properties: &[1, 1],
        });
        let bytes = draft.seal(3, 4).into_bytes();
        let message = Message::from_bytes(bytes).unwrap();
        assert_eq!(
            (message.seq(), message.position(), message.origin()),
            (3, 4, 7)
        );
        assert_eq!((message.topic(), message.payload()), ("é/b", &b"on"[..]));
        assert_eq!(
            (message.qos(), message.is_retain()),
            (Qos::ExactlyOnce, true)
        );
        assert_eq!(
            (message.expires(), message.properties()),
            (Some(9), &[1, 1][..])
        );
        assert_eq!(message.share(), None);
        let copy = message.copy_for("$share/g/+/b", 5);
        assert_eq!((copy.seq(), copy.share()), (5, Some("$share/g/+/b")));
        assert_eq!((copy.topic(), copy.payload()), ("é/b", &b"on"[..]));
        assert_eq!(
            (copy.qos(), copy.properties()),
            (message.qos(), &[1, 1][..])
        );
        assert_eq!(copy.copy_for("", 3), message);
    }

    #[test]
    fn other_bytes_are_no_message() {
        assert_eq!(Message::from_bytes(Bytes::from_static(b"short")), None);
        assert_eq!(Message::from_bytes(Bytes::from(vec![0xff; 64])), None);
    }
}
