//! MQTT 5 packets between rumqttc's types and ours. PUBLISH is written here, as rumqttc can write
//! only what it owns.

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Connect, ConnectProperties, LastWill, Packet, Publish};

use super::{Message, Publication, Qos, SessionConfig};

/// The largest packet that is taken.
pub(super) const MAX_PACKET: u32 = 1024 * 1024;
/// How often each side of a connection is to hear of the other, in seconds.
pub(super) const KEEP_ALIVE: u16 = 15;

/// The longest Binary Data or UTF-8 Encoded String (MQTT 5 section 1.5.4).
const MAX_STRING: usize = 65_535;
/// What a Variable Byte Integer can tell (MQTT 5 section 1.5.5).
const MAX_REMAINING_LENGTH: usize = 268_435_455;

const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;

/// The publication has no place in a packet that the broker takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The first packet of each connection.
pub(super) fn connect(config: &SessionConfig) -> Packet {
    let mut properties = ConnectProperties::new();
    properties.receive_maximum = Some(u16::MAX);
    properties.max_packet_size = Some(MAX_PACKET);
    let connect = Connect {
        keep_alive: KEEP_ALIVE,
        client_id: config.client_id.clone(),
        clean_start: true,
        properties: Some(properties),
    };
    let will = config.will.as_ref().map(|will| LastWill {
        topic: Bytes::copy_from_slice(will.topic.as_bytes()),
        message: will.payload.clone(),
        qos: qos(will.qos),
        retain: will.retain,
        properties: None,
    });
    Packet::Connect(connect, will, None)
}

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}

/// Whether this can be a Topic Name (MQTT 5 section 4.7.3).
pub(super) fn is_topic_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= MAX_STRING && !topic.contains(['+', '#', '\0'])
}

/// Writes a PUBLISH (MQTT 5 section 3.3) behind what `buffer` holds. A Packet Identifier of 0 stands
/// for QoS 0.
pub(super) fn write_publish(
    buffer: &mut BytesMut,
    packet_id: u16,
    publication: &Publication,
    max_packet: u32,
) -> Result<(), TooLarge> {
    let Publication {
        topic,
        payload,
        response_topic,
        correlation,
        ..
    } = publication;
    let strings = [
        topic.len(),
        response_topic.as_ref().map_or(0, String::len),
        correlation.as_ref().map_or(0, Bytes::len),
    ];
    let properties = properties_length(publication);
    let identifier = if packet_id == 0 { 0 } else { 2 };
    let length = 2 + topic.len() + identifier + integer_length(properties) + properties;
    let length = length.saturating_add(payload.len());
    let size = (1 + integer_length(length)).saturating_add(length);
    let fits = length <= MAX_REMAINING_LENGTH && u32::try_from(size).is_ok_and(|s| s <= max_packet);
    if !fits || strings.iter().any(|length| *length > MAX_STRING) {
        return Err(TooLarge);
    }
    buffer.reserve(size);
    let qos = u8::from(packet_id != 0);
    buffer.put_u8(0x30 | qos << 1 | u8::from(publication.retain));
    put_integer(buffer, length);
    put_string(buffer, topic.as_bytes());
    if packet_id != 0 {
        buffer.put_u16(packet_id);
    }
    put_integer(buffer, properties);
    if let Some(expiry) = publication.expiry {
        buffer.put_u8(MESSAGE_EXPIRY_INTERVAL);
        buffer.put_u32(expiry);
    }
    if let Some(topic) = response_topic {
        buffer.put_u8(RESPONSE_TOPIC);
        put_string(buffer, topic.as_bytes());
    }
    if let Some(data) = correlation {
        buffer.put_u8(CORRELATION_DATA);
        put_string(buffer, data);
    }
    buffer.put_slice(payload);
    Ok(())
}

fn properties_length(publication: &Publication) -> usize {
    let string = |length: usize| 1 + 2 + length;
    let expiry = publication.expiry.map_or(0, |_| 1 + 4);
    let topic = publication.response_topic.as_ref();
    let data = publication.correlation.as_ref();
    expiry + topic.map_or(0, |t| string(t.len())) + data.map_or(0, |d| string(d.len()))
}

fn integer_length(value: usize) -> usize {
    match value {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

/// A Variable Byte Integer (MQTT 5 section 1.5.5).
fn put_integer(buffer: &mut BytesMut, mut value: usize) {
    loop {
        let more = if value >= 128 { 0x80 } else { 0 };
        buffer.put_u8((value & 0x7f) as u8 | more);
        value >>= 7;
        if value == 0 {
            return;
        }
    }
}

/// The caller has looked at the length.
fn put_string(buffer: &mut BytesMut, string: &[u8]) {
    buffer.put_u16(string.len() as u16);
    buffer.put_slice(string);
}

/// The message of a PUBLISH; none when its topic is no Topic Name. Nothing of it keeps the bytes
/// that were read alive.
pub(super) fn message(publish: Publish) -> Option<Message> {
    let properties = publish.properties.unwrap_or_default();
    let topic = std::str::from_utf8(&publish.topic).ok()?;
    is_topic_name(topic).then(|| Message {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(&publish.payload),
        retain: publish.retain,
        response_topic: properties.response_topic,
        correlation: properties
            .correlation_data
            .map(|data| Bytes::copy_from_slice(&data)),
        expiry: properties.message_expiry_interval,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn publications() -> impl Strategy<Value = Publication> {
        (
            "[a-zµ/]{1,200}",
            prop::collection::vec(any::<u8>(), 0..20_000),
            any::<(bool, bool)>(),
            prop::option::of("[a-z/]{1,200}"),
            prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
            any::<Option<u32>>(),
        )
            .prop_map(
                |(topic, payload, (sure, retain), response_topic, correlation, expiry)| {
                    Publication {
                        topic,
                        payload: payload.into(),
                        qos: if sure {
                            Qos::AtLeastOnce
                        } else {
                            Qos::AtMostOnce
                        },
                        retain,
                        response_topic,
                        correlation: correlation.map(Bytes::from),
                        expiry,
                    }
                },
            )
    }

    proptest! {
        /// rumqttc reads what is written here.
        #[test]
        fn publications_read_back(publication in publications(), id in 1..=u16::MAX) {
            let id = if publication.qos == Qos::AtLeastOnce { id } else { 0 };
            let mut buffer = BytesMut::new();
            write_publish(&mut buffer, id, &publication, MAX_PACKET).unwrap();
            let size = u32::try_from(buffer.len()).unwrap();
            let Packet::Publish(publish) = Packet::read(&mut buffer, None).unwrap() else {
                panic!("no PUBLISH");
            };
            prop_assert!(buffer.is_empty());
            prop_assert_eq!((publish.pkid, publish.qos, publish.dup), (id, qos(publication.qos), false));
            let Publication { topic, payload, retain, response_topic, correlation, expiry, .. } = publication.clone();
            let expected = Message { topic, payload, retain, response_topic, correlation, expiry };
            prop_assert_eq!(message(publish), Some(expected));
            prop_assert_eq!(write_publish(&mut buffer, id, &publication, size - 1), Err(TooLarge));
            prop_assert!(buffer.is_empty(), "nothing is left of what was refused");
            prop_assert_eq!(write_publish(&mut buffer, id, &publication, size), Ok(()));
        }
    }

    #[test]
    fn what_no_packet_can_hold_is_refused() {
        let long = "x".repeat(MAX_STRING + 1);
        assert!(!is_topic_name(&long) && is_topic_name(&long[1..]));
        let mut publication = Publication::passing("t".to_owned(), "");
        publication.response_topic = Some(long.clone());
        let mut buffer = BytesMut::new();
        assert_eq!(
            write_publish(&mut buffer, 1, &publication, u32::MAX),
            Err(TooLarge)
        );
        publication.response_topic = None;
        publication.correlation = Some(long.into());
        assert_eq!(
            write_publish(&mut buffer, 1, &publication, u32::MAX),
            Err(TooLarge)
        );
    }
}
