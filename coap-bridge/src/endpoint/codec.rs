//! Messages from and to datagrams: coap-lite as the codec, behind the checks that it leaves to its
//! callers (version, token length, payload marker, empty messages).

use std::collections::LinkedList;

use bytes::Bytes;
use coap_lite::{CoapOption, MessageClass, MessageType, Packet};

use super::code::Code;
use super::options::Options;

/// The type of a message (RFC 7252 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Con,
    Non,
    Ack,
    Rst,
}

/// 0 to 8 bytes that tie a response to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Token {
    length: u8,
    bytes: [u8; 8],
}

impl Token {
    /// None when there are more than 8 bytes.
    pub(super) fn new(token: &[u8]) -> Option<Self> {
        let mut bytes = [0; 8];
        bytes.get_mut(..token.len())?.copy_from_slice(token);
        let length = u8::try_from(token.len()).ok()?;
        Some(Self { length, bytes })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

/// A message as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Type,
    pub(super) code: Code,
    pub(super) mid: u16,
    pub(super) token: Token,
    pub(super) options: Options,
    pub(super) payload: Bytes,
}

/// Why a datagram is no message, and the mid to reject when it was a Confirmable one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) reset: Option<u16>,
}

const VERSION: u8 = 1;
const HEADER: usize = 4;
const PAYLOAD_MARKER: u8 = 0xFF;

impl Message {
    /// An acknowledgement or a reset without anything in it.
    pub(super) fn empty(kind: Type, mid: u16) -> Self {
        Self {
            kind,
            code: Code::EMPTY,
            mid,
            token: Token::default(),
            options: Options::default(),
            payload: Bytes::new(),
        }
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is no message. Other versions are to be ignored (RFC 7252 section 3); a malformed
    /// Confirmable message is to be rejected with a Reset (section 4.2).
    pub(super) fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let ignore = Malformed { reset: None };
        let &[first, code, mid_high, mid_low] = datagram.first_chunk::<HEADER>().ok_or(ignore)?;
        if first >> 6 != VERSION {
            return Err(ignore);
        }
        let mid = u16::from_be_bytes([mid_high, mid_low]);
        let kind = match first >> 4 & 3 {
            0 => Type::Con,
            1 => Type::Non,
            2 => Type::Ack,
            _ => Type::Rst,
        };
        let reject = Malformed {
            reset: (kind == Type::Con).then_some(mid),
        };
        let code = Code::from_byte(code);
        if code == Code::EMPTY {
            let bare = datagram.len() == HEADER && first & 0x0F == 0;
            return if bare {
                Ok(Self::empty(kind, mid))
            } else {
                Err(reject)
            };
        }
        let packet = Packet::from_bytes(datagram).map_err(|_| reject)?;
        let token = Token::new(packet.get_token()).ok_or(reject)?;
        let mut options = Options::default();
        for (number, values) in packet.options() {
            for value in values {
                options.add(*number, value.as_slice());
            }
        }
        if packet.payload.is_empty()
            && datagram.last() == Some(&PAYLOAD_MARKER)
            && ends_in_marker(&packet, datagram)
        {
            return Err(reject);
        }
        Ok(Self {
            kind,
            code,
            mid,
            token,
            options,
            payload: packet.payload.into(),
        })
    }

    /// A bound of the datagram's length that is cheap to tell.
    pub(super) fn max_len(&self) -> usize {
        let options = self.options.iter().map(|(_, value)| 5 + value.len());
        HEADER + self.token.as_bytes().len() + options.sum::<usize>() + 1 + self.payload.len()
    }

    /// The datagram.
    pub(super) fn encode(&self) -> Bytes {
        let mut packet = Packet::new();
        packet.header.set_type(match self.kind {
            Type::Con => MessageType::Confirmable,
            Type::Non => MessageType::NonConfirmable,
            Type::Ack => MessageType::Acknowledgement,
            Type::Rst => MessageType::Reset,
        });
        packet.header.code = MessageClass::from(self.code.byte());
        packet.header.message_id = self.mid;
        packet.set_token(self.token.as_bytes().to_vec());
        let mut options = self.options.iter().peekable();
        while let Some((number, value)) = options.next() {
            let mut values = LinkedList::from([value.to_vec()]);
            while let Some((_, value)) = options.next_if(|(next, _)| *next == number) {
                values.push_back(value.to_vec());
            }
            packet.set_option(CoapOption::from(number), values);
        }
        packet.payload = self.payload.to_vec();
        // Fails only for a size limit, which this call has none of.
        packet.to_bytes_unlimited().unwrap_or_default().into()
    }
}

/// Whether a datagram without payload ends in a payload marker, and not in an option's value. The
/// encoding of a message is unique, so the marker is the byte that is over.
fn ends_in_marker(packet: &Packet, datagram: &[u8]) -> bool {
    let encoded = packet.to_bytes_unlimited().map_or(0, |bytes| bytes.len());
    encoded != datagram.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::endpoint::options::number;

    #[track_caller]
    fn refused(datagram: &[u8], reset: Option<u16>) {
        assert_eq!(Message::decode(datagram), Err(Malformed { reset }));
    }

    #[test]
    fn what_coap_lite_lets_through_is_refused() {
        refused(&[], None);
        refused(&[0x40, 1, 0], None);
        for version in [0x00, 0x80, 0xC0] {
            refused(&[version, 1, 0, 1], None);
        }
        refused(&[0x40, 1, 0x12, 0x34, 0xFF], Some(0x1234));
        refused(&[0x50, 1, 0x12, 0x34, 0xFF], None);
        refused(&[0x40, 0, 0x12, 0x34, 0xFF, 1], Some(0x1234));
        refused(&[0x41, 0, 0x12, 0x34, 7], Some(0x1234));
        refused(&[0x49, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9], Some(1));
        refused(&[0x44, 1, 0, 1, 1, 2], Some(1));
        refused(&[0x40, 1, 0, 1, 0xF0], Some(1));
        refused(&[0x40, 1, 0, 1, 0xE0, 0xFF, 0xFF], Some(1));
    }

    #[test]
    fn an_option_may_end_in_the_byte_of_the_marker() {
        let message = Message::decode(&[0x40, 1, 0, 1, 0xB2, b'a', 0xFF]).unwrap();
        assert_eq!(message.options.first(number::URI_PATH), Some(&b"a\xFF"[..]));
    }

    #[test]
    fn a_ping_is_four_bytes() {
        let ping = Message::decode(&[0x40, 0, 0, 9]).unwrap();
        assert_eq!(ping, Message::empty(Type::Con, 9));
        assert_eq!(&ping.encode()[..], &[0x40, 0, 0, 9]);
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let kind = prop_oneof![
            Just(Type::Con),
            Just(Type::Non),
            Just(Type::Ack),
            Just(Type::Rst)
        ];
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
        let options = proptest::collection::vec((any::<u16>(), bytes(300)), 0..6);
        (kind, 1..=255_u8, any::<u16>(), bytes(9), options, bytes(64)).prop_map(
            |(kind, code, mid, token, values, payload)| {
                let mut options = Options::default();
                for (number, value) in values {
                    options.add(number, value);
                }
                Message {
                    kind,
                    code: Code::from_byte(code),
                    mid,
                    token: Token::new(&token).unwrap(),
                    options,
                    payload: payload.into(),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn messages_survive_the_wire(message in any_message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn no_datagram_panics(datagram in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::decode(&datagram) {
                prop_assert_eq!(&message.encode()[..], &datagram[..]);
            }
        }
    }
}
