//! A client's end of a connection. What the broker says there must be MQTT to a library that we did
//! not write; how a client answers is up to its owner.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::{Buf, BytesMut};
use mqtt_protocol_core::mqtt::common::Arc;
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A packet of the broker, as far as somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Got {
    Connack { is_present: bool, code: u8 },
    Publish { topic: String, payload: Vec<u8> },
    Suback(Vec<u8>),
    Puback(u16),
    Pubcomp(u16),
    Pingresp,
    Other,
}

#[derive(Debug)]
pub(super) struct Peer {
    stream: DuplexStream,
    input: BytesMut,
    /// What it speaks; 0 before CONNECT.
    pub(super) level: u8,
    pub(super) is_open: bool,
    /// Whether it acknowledges at once.
    pub(super) is_prompt: bool,
    /// What it took from the broker, oldest first.
    pub(super) got: VecDeque<Got>,
    /// Packet Identifiers of messages that it did not acknowledge, with their QoS.
    pub(super) unacknowledged: BTreeSet<(u16, u8)>,
}

pub(super) fn string(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).expect("a short text");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

/// A packet with a body of at most 16,383 bytes.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).expect("a short packet");
    let [low, high] = [(len & 0x7f) as u8, (len >> 7) as u8];
    let header = if high == 0 {
        vec![first, low]
    } else {
        vec![first, low | 0x80, high]
    };
    [&header, body].concat()
}

/// A CONNECT with these flags, and the properties of MQTT 5.
pub(super) fn connect(level: u8, flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = [&string("MQTT")[..], &[level, flags, 0, 0]].concat();
    if level == 5 {
        body.push(u8::try_from(properties.len()).expect("few properties"));
        body.extend(properties);
    }
    body.extend(payload);
    packet(0x10, &body)
}

impl Peer {
    pub(super) fn new(stream: DuplexStream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            level: 0,
            is_open: true,
            is_prompt: true,
            got: VecDeque::new(),
            unacknowledged: BTreeSet::new(),
        }
    }

    /// Sends; the broker may have closed.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.is_open &= self.stream.write_all(bytes).await.is_ok();
    }

    /// Takes in what is there now; gives whether that was something.
    pub(super) async fn take_in(&mut self) -> bool {
        let reading = poll_fn(|context| {
            let read = pin!(self.stream.read_buf(&mut self.input)).poll(context);
            Poll::Ready(match read {
                Poll::Ready(Ok(read)) => Some(read),
                Poll::Ready(Err(_)) => Some(0),
                Poll::Pending => None,
            })
        });
        match reading.await {
            Some(0) => self.is_open = false,
            Some(_) => {
                while let Some((first, body)) = self.next() {
                    let got = self.understand(first, &body);
                    self.answer(first, &body).await;
                    self.got.push_back(got);
                }
                return true;
            }
            None => {}
        }
        false
    }

    fn next(&mut self) -> Option<(u8, BytesMut)> {
        let (&first, rest) = self.input.split_first()?;
        let mut len = 0;
        for (i, &byte) in rest.iter().enumerate() {
            assert!(i < 4, "a length of five bytes");
            len |= usize::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                let header = i + 2;
                if self.input.len() < header + len {
                    return None;
                }
                self.input.advance(header);
                return Some((first, self.input.split_to(len)));
            }
        }
        None
    }

    /// Decodes a packet. What can't be decoded is the broker's mistake.
    fn understand(&self, first: u8, body: &[u8]) -> Got {
        let flags = if first & 0xf0 == 0x60 { 2 } else { 0 };
        assert!(
            first & 0xf0 == 0x30 || first & 0x0f == flags,
            "flags of {first:x}"
        );
        match (first >> 4, self.level) {
            (2, 5) => {
                let connack = whole(body, v5_0::Connack::parse(body));
                Got::Connack {
                    is_present: connack.session_present(),
                    code: connack.reason_code() as u8,
                }
            }
            (2, _) => {
                let connack = whole(body, v3_1_1::Connack::parse(body));
                Got::Connack {
                    is_present: connack.session_present(),
                    code: connack.return_code() as u8,
                }
            }
            (3, 5) => {
                let publish = v5_0::Publish::parse(first & 0x0f, Arc::from(body));
                let publish = whole(body, publish);
                Got::Publish {
                    topic: publish.topic_name().to_owned(),
                    payload: publish.payload().as_slice().to_vec(),
                }
            }
            (3, _) => {
                let publish = v3_1_1::Publish::parse(first & 0x0f, Arc::from(body));
                let publish = whole(body, publish);
                Got::Publish {
                    topic: publish.topic_name().to_owned(),
                    payload: publish.payload().as_slice().to_vec(),
                }
            }
            (4, 5) => Got::Puback(whole(body, v5_0::Puback::parse(body)).packet_id()),
            (4, _) => Got::Puback(whole(body, v3_1_1::Puback::parse(body)).packet_id()),
            (5, 5) => other(whole(body, v5_0::Pubrec::parse(body))),
            (5, _) => other(whole(body, v3_1_1::Pubrec::parse(body))),
            (6, 5) => other(whole(body, v5_0::Pubrel::parse(body))),
            (6, _) => other(whole(body, v3_1_1::Pubrel::parse(body))),
            (7, 5) => Got::Pubcomp(whole(body, v5_0::Pubcomp::parse(body)).packet_id()),
            (7, _) => Got::Pubcomp(whole(body, v3_1_1::Pubcomp::parse(body)).packet_id()),
            (9, 5) => {
                let codes = whole(body, v5_0::Suback::parse(body)).reason_codes();
                Got::Suback(codes.iter().map(|&code| code as u8).collect())
            }
            (9, _) => {
                let codes = whole(body, v3_1_1::Suback::parse(body)).return_codes();
                Got::Suback(codes.iter().map(|&code| code as u8).collect())
            }
            (11, 5) => other(whole(body, v5_0::Unsuback::parse(body))),
            (11, _) => other(whole(body, v3_1_1::Unsuback::parse(body))),
            (13, _) => {
                assert!(body.is_empty());
                Got::Pingresp
            }
            (14, 5) => other(whole(body, v5_0::Disconnect::parse(body))),
            _ => panic!("the broker sent {first:x} {body:?} to level {}", self.level),
        }
    }

    /// Notes messages, and acknowledges if it does that at once.
    async fn answer(&mut self, first: u8, body: &[u8]) {
        let qos = (first >> 1) & 3;
        match first & 0xf0 {
            0x30 if qos > 0 => {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let pid = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
                self.unacknowledged.insert((pid, qos));
                if self.is_prompt {
                    self.acknowledge(pid, qos).await;
                }
            }
            0x50 if body.get(2).is_none_or(|&code| code < 0x80) => {
                self.send(&[0x62, 2, body[0], body[1]]).await;
            }
            0x60 => {
                let pid = u16::from_be_bytes([body[0], body[1]]);
                self.unacknowledged.remove(&(pid, 2));
                self.send(&[0x70, 2, body[0], body[1]]).await;
            }
            _ => {}
        }
    }

    async fn acknowledge(&mut self, pid: u16, qos: u8) {
        let [high, low] = pid.to_be_bytes();
        if qos == 1 {
            self.unacknowledged.remove(&(pid, qos));
            self.send(&[0x40, 2, high, low]).await;
        } else {
            self.send(&[0x50, 2, high, low]).await;
        }
    }

    /// Acknowledges everything, and at once from now on.
    pub(super) async fn catch_up(&mut self) {
        self.is_prompt = true;
        for (pid, qos) in self.unacknowledged.clone() {
            self.acknowledge(pid, qos).await;
        }
    }
}

fn whole<T, E: std::fmt::Debug>(body: &[u8], parsed: Result<(T, usize), E>) -> T {
    match parsed {
        Ok((packet, consumed)) if consumed == body.len() => packet,
        Ok((_, consumed)) => panic!("{consumed} bytes of {body:?} are the packet"),
        Err(error) => panic!("{error:?} in {body:?}"),
    }
}

fn other<T>(_: T) -> Got {
    Got::Other
}
