//! A client that sends whatever a test wants, wrong packets too.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::DEADLINE;

#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) is_kept: bool,
    pub(crate) keep_alive: u16,
    /// Topic, payload, QoS, retain.
    pub(crate) will: Option<(&'static str, &'static str, u8, bool)>,
    /// MQTT 5 properties of CONNECT and of the Will, without their length.
    pub(crate) properties: Vec<u8>,
    pub(crate) will_properties: Vec<u8>,
    /// User name and password.
    pub(crate) login: Option<(&'static str, &'static str)>,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    loop {
        let more = if len > 127 { 0x80 } else { 0 };
        bytes.push(u8::try_from(len & 127).unwrap() | more);
        len >>= 7;
        if len == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

/// Takes the first packet off the input: its first byte and its body.
pub(crate) fn split(input: &mut BytesMut) -> Option<(u8, Vec<u8>)> {
    let (&first, rest) = input.split_first()?;
    let mut len = 0;
    for (i, &byte) in rest.iter().enumerate() {
        len |= usize::from(byte & 127) << (7 * i);
        if byte & 128 != 0 {
            continue;
        }
        let body = rest[i + 1..].get(..len)?.to_vec();
        input.advance(i + 2 + len);
        return Some((first, body));
    }
    None
}

pub(crate) fn connect(level: u8, client_id: &str, options: &Options) -> Vec<u8> {
    let mut body = string("MQTT");
    let mut flags = if options.is_kept { 0 } else { 2 };
    if let Some((_, _, qos, retain)) = options.will {
        flags |= 4 | qos << 3 | u8::from(retain) << 5;
    }
    if options.login.is_some() {
        flags |= 0xc0;
    }
    body.extend([level, flags]);
    body.extend(options.keep_alive.to_be_bytes());
    let properties = |properties: &[u8], body: &mut Vec<u8>| {
        if level == 5 {
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend(properties);
        }
    };
    properties(&options.properties, &mut body);
    body.extend(string(client_id));
    if let Some((topic, payload, _, _)) = options.will {
        properties(&options.will_properties, &mut body);
        body.extend(string(topic));
        body.extend(string(payload));
    }
    if let Some((name, password)) = options.login {
        body.extend(string(name));
        body.extend(string(password));
    }
    packet(0x10, &body)
}

/// A PUBLISH that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) pid: u16,
    pub(crate) properties: Vec<u8>,
}

pub(crate) struct Raw<S> {
    stream: S,
    /// What was read from it and is no whole packet yet, or not asked for.
    input: BytesMut,
    level: u8,
    /// Messages that came before the answer to something else.
    early: VecDeque<(u8, Vec<u8>)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            level: 4,
            early: VecDeque::new(),
        }
    }

    pub(crate) fn into_stream(self) -> S {
        assert!(self.input.is_empty(), "something came that nobody read");
        self.stream
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// As `send`, where the broker may have closed already.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Cancel safe: what was read stays in `input`.
    async fn read_packet(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some(packet) = split(&mut self.input) {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// As `packet`, where the broker may end.
    pub(crate) async fn try_packet(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        match self.early.pop_front() {
            Some(early) => Ok(early),
            None => self.read_packet().await,
        }
    }

    /// The next packet: its first byte and its body.
    pub(crate) async fn packet(&mut self) -> (u8, Vec<u8>) {
        match self.early.pop_front() {
            Some(early) => early,
            None => self.fresh_packet().await,
        }
    }

    async fn fresh_packet(&mut self) -> (u8, Vec<u8>) {
        let read = tokio::time::timeout(DEADLINE, self.read_packet());
        read.await.expect("a packet in time").expect("a packet")
    }

    /// The reason code of a DISCONNECT, if one comes, before the end of the connection.
    pub(crate) async fn closed(&mut self) -> Option<u8> {
        let until_closed = async {
            let mut reason = None;
            while let Ok((first, body)) = self.read_packet().await {
                if first == 0xe0 {
                    reason = Some(body.first().copied().unwrap_or(0));
                }
            }
            reason
        };
        let closed = tokio::time::timeout(DEADLINE, until_closed).await;
        closed.expect("the connection ends")
    }

    /// Sends CONNECT and gives the body of the CONNACK.
    pub(crate) async fn try_connect(&mut self, level: u8, id: &str, options: &Options) -> Vec<u8> {
        self.level = level;
        self.send(&connect(level, id, options)).await;
        let (first, body) = self.packet().await;
        assert_eq!(first, 0x20);
        body
    }

    /// Connects; gives whether the session was present.
    pub(crate) async fn connect(&mut self, level: u8, id: &str, options: &Options) -> bool {
        let connack = self.try_connect(level, id, options).await;
        assert_eq!(connack[1], 0, "refused");
        connack[0] == 1
    }

    /// Subscribes and gives the code of the SUBACK; `options` is the byte behind the filter.
    pub(crate) async fn subscribe(&mut self, level: u8, pid: u16, filter: &str, options: u8) -> u8 {
        let mut body = pid.to_be_bytes().to_vec();
        if level == 5 {
            body.push(0);
        }
        body.extend(string(filter));
        body.push(options);
        self.send(&packet(0x82, &body)).await;
        loop {
            let (first, body) = self.fresh_packet().await;
            if first & 0xf0 == 0x30 {
                self.early.push_back((first, body));
                continue;
            }
            assert_eq!((first, &body[..2]), (0x90, &pid.to_be_bytes()[..]));
            return *body.last().unwrap();
        }
    }

    pub(crate) async fn publish(
        &mut self,
        level: u8,
        topic: &str,
        payload: &[u8],
        qos: u8,
        pid: u16,
        retain: bool,
    ) {
        self.send(&publish(level, topic, payload, qos, pid, retain, &[]))
            .await;
    }

    /// The next packet, which is a PUBLISH.
    pub(crate) async fn message(&mut self) -> Got {
        let (first, body) = self.packet().await;
        assert_eq!(first & 0xf0, 0x30, "{first:x} {body:?}");
        self.parse(first, &body)
    }

    pub(crate) fn parse(&self, first: u8, body: &[u8]) -> Got {
        let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let mut at = 2 + topic_len;
        let (qos, mut pid, mut properties) = ((first >> 1) & 3, 0, Vec::new());
        if qos > 0 {
            pid = u16::from_be_bytes([body[at], body[at + 1]]);
            at += 2;
        }
        if self.level == 5 {
            let len = usize::from(body[at]);
            assert!(len < 128);
            properties = body[at + 1..at + 1 + len].to_vec();
            at += 1 + len;
        }
        Got {
            topic: String::from_utf8(body[2..2 + topic_len].to_vec()).unwrap(),
            payload: body[at..].to_vec(),
            qos,
            retain: first & 1 == 1,
            dup: first & 8 == 8,
            pid,
            properties,
        }
    }

    /// Sends PINGREQ; gives everything that came before the answer to it.
    pub(crate) async fn ping(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.send(&[0xc0, 0]).await;
        let mut before = Vec::new();
        loop {
            match self.packet().await {
                (0xd0, _) => return before,
                other => before.push(other),
            }
        }
    }
}

pub(crate) fn publish(
    level: u8,
    topic: &str,
    payload: &[u8],
    qos: u8,
    pid: u16,
    retain: bool,
    properties: &[u8],
) -> Vec<u8> {
    let mut body = string(topic);
    if qos > 0 {
        body.extend(pid.to_be_bytes());
    }
    if level == 5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
    }
    body.extend(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}
