//! Packets for clients. What is encoded here was made by the broker, so nothing can be wrong with it.

use bytes::{BufMut, BytesMut};

use super::{Delivered, Qos, Reason, Version};

/// The four packets that end or continue the flow of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    Puback = 0x40,
    Pubrec = 0x50,
    Pubrel = 0x62,
    Pubcomp = 0x70,
}

/// What a CONNACK tells besides success.
#[derive(Debug, Default)]
pub(crate) struct Connack<'a> {
    pub(crate) session_present: bool,
    /// None is success.
    pub(crate) refused: Option<Reason>,
    /// Assigned Client Identifier.
    pub(crate) assigned_client_id: Option<&'a str>,
    /// Session Expiry Interval in force, when it is not the one asked for.
    pub(crate) session_expiry: Option<u32>,
    /// Maximum Packet Size the broker takes.
    pub(crate) maximum_packet: u32,
    /// Topic Alias Maximum the broker takes.
    pub(crate) topic_alias_maximum: u16,
    /// Server Keep Alive, seconds, when it is not the Keep Alive asked for.
    pub(crate) keep_alive: Option<u16>,
    /// The largest packet that the client takes, bytes.
    pub(crate) room: u32,
}

fn variable(out: &mut BytesMut, mut value: usize) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.put_u8(byte);
            return;
        }
        out.put_u8(byte | 0x80);
    }
}

fn variable_size(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn string(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

/// The property Reason String, with its length; only the length when `rest` bytes of packet beside
/// it leave too little of `room` (MQTT-3.2.2-19 and the like).
fn explanation(reason: Reason, rest: usize, room: u32) -> BytesMut {
    let mut property = BytesMut::new();
    property.put_u8(0x1f);
    string(&mut property, reason.text());
    if rest + 2 + property.len() > room as usize {
        property.clear();
    }
    let mut properties = BytesMut::new();
    variable(&mut properties, property.len());
    properties.unsplit(property);
    properties
}

/// CONNACK. With MQTT 3.1.1 and a refusal that it has no code for, nothing is written.
pub(crate) fn connack(out: &mut BytesMut, version: Version, connack: &Connack<'_>) {
    // MQTT-3.2.2-6
    let present = u8::from(connack.session_present && connack.refused.is_none());
    if version == Version::V4 {
        let code = connack.refused.map_or(Some(0), Reason::return_code);
        if let Some(code) = code {
            out.put_slice(&[0x20, 2, present, code]);
        }
        return;
    }
    if let Some(reason) = connack.refused {
        let properties = explanation(reason, 4, connack.room);
        out.put_u8(0x20);
        variable(out, 2 + properties.len());
        out.put_slice(&[0, reason as u8]);
        out.put_slice(&properties);
        return;
    }
    let mut properties = BytesMut::new();
    if let Some(expiry) = connack.session_expiry {
        properties.put_u8(0x11);
        properties.put_u32(expiry);
    }
    if let Some(keep_alive) = connack.keep_alive {
        properties.put_u8(0x13);
        properties.put_u16(keep_alive);
    }
    properties.put_u8(0x21);
    properties.put_u16(u16::MAX);
    properties.put_u8(0x27);
    properties.put_u32(connack.maximum_packet);
    if let Some(client_id) = connack.assigned_client_id {
        properties.put_u8(0x12);
        string(&mut properties, client_id);
    }
    if connack.topic_alias_maximum > 0 {
        properties.put_u8(0x22);
        properties.put_u16(connack.topic_alias_maximum);
    }
    let body = 2 + variable_size(properties.len()) + properties.len();
    out.put_u8(0x20);
    variable(out, body);
    out.put_slice(&[present, 0]);
    variable(out, properties.len());
    out.put_slice(&properties);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP; `reason` 0 is success and left out.
pub(crate) fn acknowledgement(
    out: &mut BytesMut,
    version: Version,
    kind: Acknowledgement,
    pid: u16,
    reason: u8,
) {
    out.put_u8(kind as u8);
    if version == Version::V5 && reason != 0 {
        out.put_u8(3);
        out.put_u16(pid);
        out.put_u8(reason);
    } else {
        out.put_u8(2);
        out.put_u16(pid);
    }
}

/// PUBACK or PUBREC of MQTT 5 that refuses a message, with a Reason String in packets of up to `room`
/// bytes.
pub(crate) fn refusal(
    out: &mut BytesMut,
    kind: Acknowledgement,
    pid: u16,
    reason: Reason,
    room: u32,
) {
    let properties = explanation(reason, 5, room);
    out.put_u8(kind as u8);
    variable(out, 3 + properties.len());
    out.put_u16(pid);
    out.put_u8(reason as u8);
    out.put_slice(&properties);
}

/// SUBACK; `codes` are MQTT 5's, of which 3.1.1 knows only the first three and 0x80. The first of
/// them that is a refusal is explained, in packets of up to `room` bytes.
pub(crate) fn suback(
    out: &mut BytesMut,
    version: Version,
    pid: u16,
    codes: &[Result<Qos, Reason>],
    room: u32,
) {
    let mut properties = BytesMut::new();
    if version == Version::V5 {
        let refused = codes.iter().find_map(|code| code.err());
        match refused {
            Some(reason) => properties = explanation(reason, 7 + codes.len(), room),
            None => properties.put_u8(0),
        }
    }
    out.put_u8(0x90);
    variable(out, 2 + properties.len() + codes.len());
    out.put_u16(pid);
    out.put_slice(&properties);
    let codes = codes.iter().map(|code| match code {
        Ok(qos) => *qos as u8,
        Err(reason) => *reason as u8,
    });
    for code in codes {
        out.put_u8(if version == Version::V4 && code > 2 {
            0x80
        } else {
            code
        });
    }
}

/// UNSUBACK; MQTT 3.1.1 has no codes in it.
pub(crate) fn unsuback(out: &mut BytesMut, version: Version, pid: u16, codes: &[u8]) {
    out.put_u8(0xb0);
    if version == Version::V4 {
        out.put_u8(2);
        out.put_u16(pid);
    } else {
        variable(out, 3 + codes.len());
        out.put_u16(pid);
        out.put_u8(0);
        out.put_slice(codes);
    }
}

/// PINGRESP.
pub(crate) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// DISCONNECT, which only MQTT 5 lets a server send, with a Reason String in packets of up to `room`
/// bytes.
pub(crate) fn disconnect(out: &mut BytesMut, version: Version, reason: Reason, room: u32) {
    if version == Version::V5 {
        let properties = explanation(reason, 3, room);
        out.put_u8(0xe0);
        variable(out, 1 + properties.len());
        out.put_u8(reason as u8);
        out.put_slice(&properties);
    }
}

fn properties_len(message: &Delivered<'_>) -> usize {
    let ids = message.subscription_ids.iter();
    let ids: usize = ids.map(|&id| 1 + variable_size(id as usize)).sum();
    message.properties.len() + if message.expiry.is_some() { 5 } else { 0 } + ids
}

fn body_len(version: Version, message: &Delivered<'_>) -> usize {
    let pid = if message.qos > 0 { 2 } else { 0 };
    let properties = match version {
        Version::V4 => 0,
        Version::V5 => {
            let len = properties_len(message);
            variable_size(len) + len
        }
    };
    2 + message.topic.len() + pid + properties + message.payload.len()
}

/// The size of a PUBLISH on the wire, in bytes.
pub(crate) fn publish_size(version: Version, message: &Delivered<'_>) -> usize {
    let body = body_len(version, message);
    1 + variable_size(body) + body
}

/// PUBLISH.
pub(crate) fn publish(out: &mut BytesMut, version: Version, message: &Delivered<'_>) {
    let body = body_len(version, message);
    out.reserve(5 + body);
    let dup = u8::from(message.dup) << 3;
    out.put_u8(0x30 | dup | message.qos << 1 | u8::from(message.retain));
    variable(out, body);
    string(out, message.topic);
    if message.qos > 0 {
        out.put_u16(message.pid);
    }
    if version == Version::V5 {
        variable(out, properties_len(message));
        if let Some(expiry) = message.expiry {
            out.put_u8(2);
            out.put_u32(expiry);
        }
        out.put_slice(message.properties);
        for &id in message.subscription_ids {
            out.put_u8(0x0b);
            variable(out, id as usize);
        }
    }
    out.put_slice(message.payload);
}
