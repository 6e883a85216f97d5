//! A publication as bytes: whether it is retained, the lengths of Topic Name and Correlation Data, then
//! these and the payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::session::Publication;

const RETAIN: u8 = 1;
/// Marks that there is no Correlation Data.
const NONE: u16 = u16::MAX;

/// Writes a publication; none when it can't be one (MQTT allows no longer topics).
pub(super) fn encode(publication: &Publication) -> Option<Bytes> {
    let Publication {
        topic,
        payload,
        retain,
        correlation,
        ..
    } = publication;
    let correlation_len = match correlation {
        Some(data) => u16::try_from(data.len()).ok().filter(|len| *len != NONE)?,
        None => NONE,
    };
    let mut bytes = BytesMut::with_capacity(5 + topic.len() + payload.len());
    bytes.put_u8(if *retain { RETAIN } else { 0 });
    bytes.put_u16(u16::try_from(topic.len()).ok()?);
    bytes.put_u16(correlation_len);
    bytes.put_slice(topic.as_bytes());
    bytes.put_slice(correlation.as_deref().unwrap_or_default());
    bytes.put_slice(payload);
    Some(bytes.freeze())
}

/// Reads a publication; none when these bytes are none.
pub(super) fn decode(mut bytes: Bytes) -> Option<Publication> {
    let flags = bytes.try_get_u8().ok()?;
    let topic_len = usize::from(bytes.try_get_u16().ok()?);
    let correlation_len = bytes.try_get_u16().ok()?;
    let mut take = |len: usize| (len <= bytes.remaining()).then(|| bytes.split_to(len));
    let topic = String::from_utf8(take(topic_len)?.to_vec()).ok()?;
    let correlation = match correlation_len {
        NONE => None,
        len => Some(take(usize::from(len))?),
    };
    Some(Publication {
        retain: flags & RETAIN != 0,
        correlation,
        ..Publication::passing(topic, bytes)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_publication_survives(
            topic in "[a-z/é]{0,40}", payload in prop::collection::vec(any::<u8>(), 0..40),
            retain in any::<bool>(), correlation in proptest::option::of("[a-z]{0,9}"),
        ) {
            let publication = Publication {
                retain,
                correlation: correlation.map(Bytes::from),
                ..Publication::passing(topic, payload)
            };
            prop_assert_eq!(decode(encode(&publication).unwrap()), Some(publication));
        }

        #[test]
        fn rubbish_is_no_publication_or_some(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            decode(bytes.into());
        }
    }
}
