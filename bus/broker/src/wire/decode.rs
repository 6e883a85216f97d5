//! Bodies of packets, decoded by mqtt-protocol-core and then checked for what it lets through.

use mqtt_protocol_core::mqtt::common::{Arc, ArcPayload};
use mqtt_protocol_core::mqtt::packet::{Property, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::packet::{Qos as CoreQos, RetainHandling as CoreHandling};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::{
    Connect, FilterRequest, Packet, Publish, Qos, Reason, RetainHandling, Version, Will, WireError,
};
use crate::message::{Draft, Parts};
use crate::passwords::Secret;
use crate::topic;

type Decoded<T> = Result<T, WireError>;

fn reason(error: MqttError) -> WireError {
    match error {
        MqttError::ProtocolError => Reason::ProtocolError,
        MqttError::UnsupportedProtocolVersion => Reason::UnsupportedProtocolVersion,
        MqttError::ClientIdentifierNotValid => Reason::ClientIdentifierNotValid,
        MqttError::TopicFilterInvalid => Reason::TopicFilterInvalid,
        MqttError::TopicNameInvalid => Reason::TopicNameInvalid,
        _ => Reason::MalformedPacket,
    }
    .into()
}

fn malformed<T>() -> Decoded<T> {
    Err(Reason::MalformedPacket.into())
}

/// Bytes behind the end of a packet make it malformed.
fn whole<T>(body: &[u8], parse: impl FnOnce(&[u8]) -> Result<(T, usize), MqttError>) -> Decoded<T> {
    let (packet, consumed) = parse(body).map_err(reason)?;
    if consumed == body.len() {
        Ok(packet)
    } else {
        malformed()
    }
}

fn qos(qos: CoreQos) -> Qos {
    match qos {
        CoreQos::AtMostOnce => Qos::AtMostOnce,
        CoreQos::AtLeastOnce => Qos::AtLeastOnce,
        CoreQos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

/// A Packet Identifier is never 0 (MQTT-2.2.1-3).
fn pid(pid: u16) -> Decoded<u16> {
    if pid == 0 {
        Err(Reason::ProtocolError.into())
    } else {
        Ok(pid)
    }
}

/// A UTF-8 string holds no U+0000 (MQTT-1.5.4-2).
fn text(text: &str) -> Decoded<String> {
    if text.contains('\0') {
        malformed()
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn packet(first: u8, body: &[u8], version: Option<Version>) -> Decoded<Packet> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    let Some(version) = version else {
        return if first == 0x10 {
            connect(body).map(|connect| Packet::Connect(Box::new(connect)))
        } else {
            Err(Reason::ProtocolError.into())
        };
    };
    // The other flags are reserved (MQTT 5 section 2.1.3).
    let reserved = match kind {
        3 => flags,
        6 | 8 | 10 => 0b0010,
        _ => 0,
    };
    if flags != reserved {
        return malformed();
    }
    match kind {
        3 => publish(flags, body, version).map(Packet::Publish),
        4..=7 => acknowledgement(kind, body, version),
        8 => subscribe(body, version),
        10 => unsubscribe(body, version),
        12 if body.is_empty() => Ok(Packet::Pingreq),
        14 => disconnect(body, version),
        12 => malformed(),
        // A second CONNECT, packets of servers, AUTH without an authentication method.
        _ => Err(Reason::ProtocolError.into()),
    }
}

fn connect(body: &[u8]) -> Decoded<Connect> {
    // Length and name of the protocol, its level, then the flags.
    let (Some(&level), Some(&flags)) = (body.get(6), body.get(7)) else {
        return malformed();
    };
    let version = match (&body[..6], level) {
        (b"\0\x04MQTT", 4) => Version::V4,
        (b"\0\x04MQTT", 5) => Version::V5,
        (b"\0\x04MQTT" | b"\0\x06MQIs", _) => {
            return Err(Reason::UnsupportedProtocolVersion.into());
        }
        _ => return Err(Reason::ProtocolError.into()),
    };
    let (will, will_qos, will_retain) = (flags & 4 != 0, (flags >> 3) & 3, flags & 0x20 != 0);
    if flags & 1 != 0 || will_qos == 3 || (!will && (will_qos != 0 || will_retain)) {
        return malformed();
    }
    match version {
        Version::V4 => connect_v4(&whole(body, v3_1_1::Connect::parse)?),
        Version::V5 => connect_v5(&whole(body, v5_0::Connect::parse)?),
    }
}

fn connect_v4(packet: &v3_1_1::Connect) -> Decoded<Connect> {
    let will = match (packet.will_topic(), packet.will_payload()) {
        (Some(topic), Some(payload)) => Some(Will {
            topic: text(topic)?,
            draft: will_draft(topic, payload, packet.will_qos(), packet.will_retain(), &[]),
            delay: 0,
            expiry: None,
        }),
        _ => None,
    };
    Ok(Connect {
        version: Version::V4,
        client_id: text(packet.client_id())?,
        clean_start: packet.clean_session(),
        keep_alive: packet.keep_alive(),
        session_expiry: if packet.clean_session() { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        maximum_packet: u32::MAX,
        wants_reasons: false,
        will,
        user_name: packet.user_name().map(text).transpose()?,
        password: packet.password().map(|password| Secret(password.to_vec())),
        has_auth_method: false,
    })
}

fn connect_v5(packet: &v5_0::Connect) -> Decoded<Connect> {
    let mut connect = Connect {
        version: Version::V5,
        client_id: text(packet.client_id())?,
        clean_start: packet.clean_start(),
        keep_alive: packet.keep_alive(),
        session_expiry: 0,
        receive_maximum: u16::MAX,
        maximum_packet: u32::MAX,
        wants_reasons: true,
        will: None,
        user_name: packet.user_name().map(text).transpose()?,
        password: packet.password().map(|password| Secret(password.to_vec())),
        has_auth_method: false,
    };
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(p) => connect.session_expiry = p.val(),
            Property::ReceiveMaximum(p) => connect.receive_maximum = p.val(),
            Property::MaximumPacketSize(p) => connect.maximum_packet = p.val(),
            Property::RequestProblemInformation(p) => connect.wants_reasons = p.val() != 0,
            Property::AuthenticationMethod(_) => connect.has_auth_method = true,
            _ => {}
        }
    }
    if connect.receive_maximum == 0 || connect.maximum_packet == 0 {
        return Err(Reason::ProtocolError.into());
    }
    if let (Some(topic), Some(payload)) = (packet.will_topic(), packet.will_payload()) {
        let (mut delay, mut expiry) = (0, None);
        for property in packet.will_props() {
            match property {
                Property::WillDelayInterval(p) => delay = p.val(),
                Property::MessageExpiryInterval(p) => expiry = Some(p.val()),
                _ => {}
            }
        }
        let properties = forwarded(packet.will_props())?;
        let (qos, retain) = (packet.will_qos(), packet.will_retain());
        connect.will = Some(Will {
            topic: text(topic)?,
            draft: will_draft(topic, payload, qos, retain, &properties),
            delay,
            expiry,
        });
    }
    Ok(connect)
}

fn will_draft(
    topic: &str,
    payload: &[u8],
    will_qos: CoreQos,
    retain: bool,
    properties: &[u8],
) -> Draft {
    Draft::new(&Parts {
        topic,
        payload,
        qos: qos(will_qos),
        retain,
        origin: 0,
        expires: None,
        properties,
    })
}

/// The properties that a message keeps on its way to subscribers, encoded.
fn forwarded(properties: &[Property]) -> Decoded<Vec<u8>> {
    let mut encoded = Vec::new();
    for property in properties {
        match property {
            Property::ResponseTopic(p) if !topic::is_topic_name(p.val()) => {
                return Err(Reason::ProtocolError.into());
            }
            Property::PayloadFormatIndicator(_)
            | Property::ContentType(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_)
            | Property::UserProperty(_) => encoded.extend(property.to_continuous_buffer()),
            _ => {}
        }
    }
    Ok(encoded)
}

fn publish(flags: u8, body: &[u8], version: Version) -> Decoded<Publish> {
    let bits = (flags >> 1) & 3;
    // QoS 3 is malformed, and so is DUP with QoS 0 (MQTT-3.3.1-2).
    if bits == 3 || (bits == 0 && flags & 8 != 0) {
        return malformed();
    }
    let shared: Arc<[u8]> = Arc::from(body);
    match version {
        Version::V4 => {
            let (packet, _) = v3_1_1::Publish::parse(flags, shared).map_err(reason)?;
            if bits != 0 {
                pid(packet.packet_id().unwrap_or(0))?;
            }
            Ok(Publish {
                topic: packet.topic_name().to_owned(),
                payload: packet.payload().clone(),
                qos: qos(packet.qos()),
                retain: packet.retain(),
                pid: packet.packet_id().unwrap_or(0),
                alias: None,
                expiry: None,
                properties: Vec::new(),
            })
        }
        Version::V5 => publish_v5(flags, shared),
    }
}

fn publish_v5(flags: u8, body: Arc<[u8]>) -> Decoded<Publish> {
    let len = body.len();
    let (packet, _) = v5_0::Publish::parse(flags, body).map_err(reason)?;
    let id = packet.packet_id();
    // Without a Property Length it is no PUBLISH of MQTT 5.
    if len == 2 + packet.topic_name().len() + if id.is_some() { 2 } else { 0 } {
        return malformed();
    }
    if let Some(id) = id {
        pid(id)?;
    }
    let (mut alias, mut expiry) = (None, None);
    for property in packet.props() {
        match property {
            Property::TopicAlias(p) => alias = Some(p.val()),
            Property::MessageExpiryInterval(p) => expiry = Some(p.val()),
            // MQTT-3.3.4-6
            Property::SubscriptionIdentifier(_) => return Err(Reason::ProtocolError.into()),
            _ => {}
        }
    }
    Ok(Publish {
        topic: packet.topic_name().to_owned(),
        payload: ArcPayload::clone(packet.payload()),
        qos: qos(packet.qos()),
        retain: packet.retain(),
        pid: id.unwrap_or(0),
        alias,
        expiry,
        properties: forwarded(packet.props())?,
    })
}

fn acknowledgement(kind: u8, body: &[u8], version: Version) -> Decoded<Packet> {
    let (id, failed) = match (kind, version) {
        (_, Version::V4) => {
            let &[high, low] = body else {
                return malformed();
            };
            (u16::from_be_bytes([high, low]), false)
        }
        (4, Version::V5) => (whole(body, v5_0::Puback::parse)?.packet_id(), false),
        (5, Version::V5) => {
            let packet = whole(body, v5_0::Pubrec::parse)?;
            let failed = packet.reason_code().is_some_and(|code| code as u8 >= 0x80);
            (packet.packet_id(), failed)
        }
        (6, Version::V5) => (whole(body, v5_0::Pubrel::parse)?.packet_id(), false),
        (_, Version::V5) => (whole(body, v5_0::Pubcomp::parse)?.packet_id(), false),
    };
    let pid = pid(id)?;
    Ok(match kind {
        4 => Packet::Puback { pid },
        5 => Packet::Pubrec { pid, failed },
        6 => Packet::Pubrel { pid },
        _ => Packet::Pubcomp { pid },
    })
}

/// A Topic Filter with its wildcards where they may be (MQTT-4.7.1-1, MQTT-4.7.1-2). Another one is
/// no filter that could be refused by itself: that is for those that are correctly formed (MQTT 5
/// section 3.9.3).
fn topic_filter(text: &str) -> Decoded<String> {
    if topic::is_topic_filter(text) {
        Ok(text.to_owned())
    } else {
        malformed()
    }
}

fn request(entry: &SubEntry, version: Version) -> Decoded<FilterRequest> {
    let options = entry.sub_opts();
    // MQTT 3.1.1 has the QoS only; the other bits are reserved (MQTT-3-8.3-4).
    if version == Version::V4 && options.to_buffer()[0] & !3 != 0 {
        return malformed();
    }
    let filter = topic_filter(entry.topic_filter())?;
    // It could keep a message from everybody (MQTT-3.8.3-4).
    if options.nl() && topic::shared(&filter).is_some() {
        return Err(Reason::ProtocolError.into());
    }
    Ok(FilterRequest {
        filter,
        qos: qos(options.qos()),
        no_local: options.nl(),
        retain_as_published: options.rap(),
        retain_handling: match options.rh() {
            CoreHandling::SendRetained => RetainHandling::Always,
            CoreHandling::SendRetainedIfNotExists => RetainHandling::IfNew,
            CoreHandling::DoNotSendRetained => RetainHandling::Never,
        },
    })
}

fn subscribe(body: &[u8], version: Version) -> Decoded<Packet> {
    let mut id = None;
    let (packet_id, entries) = match version {
        Version::V4 => {
            let packet = whole(body, v3_1_1::Subscribe::parse)?;
            (packet.packet_id(), packet.entries().clone())
        }
        Version::V5 => {
            let packet = whole(body, v5_0::Subscribe::parse)?;
            for property in packet.props() {
                if let Property::SubscriptionIdentifier(p) = property {
                    id = Some(p.val());
                }
            }
            (packet.packet_id(), packet.entries().clone())
        }
    };
    if id == Some(0) {
        return Err(Reason::ProtocolError.into());
    }
    let filters = entries.iter().map(|entry| request(entry, version));
    Ok(Packet::Subscribe {
        pid: pid(packet_id)?,
        id,
        filters: filters.collect::<Decoded<_>>()?,
    })
}

fn unsubscribe(body: &[u8], version: Version) -> Decoded<Packet> {
    let (packet_id, entries) = match version {
        Version::V4 => {
            let packet = whole(body, v3_1_1::Unsubscribe::parse)?;
            (packet.packet_id(), packet.entries().clone())
        }
        Version::V5 => {
            let packet = whole(body, v5_0::Unsubscribe::parse)?;
            (packet.packet_id(), packet.entries().clone())
        }
    };
    Ok(Packet::Unsubscribe {
        pid: pid(packet_id)?,
        filters: entries
            .iter()
            .map(|filter| topic_filter(filter.as_str()))
            .collect::<Decoded<_>>()?,
    })
}

fn disconnect(body: &[u8], version: Version) -> Decoded<Packet> {
    if version == Version::V4 {
        return if body.is_empty() {
            Ok(Packet::Disconnect {
                reason: 0,
                session_expiry: None,
            })
        } else {
            malformed()
        };
    }
    let packet = whole(body, v5_0::Disconnect::parse)?;
    let mut session_expiry = None;
    for property in packet.props().iter().flatten() {
        if let Property::SessionExpiryInterval(p) = property {
            session_expiry = Some(p.val());
        }
    }
    Ok(Packet::Disconnect {
        reason: body.first().copied().unwrap_or(0),
        session_expiry,
    })
}
