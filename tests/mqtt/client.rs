//! A raw packet client: sends any bytes, right or wrong, and waits for packets with a deadline.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::brokers::Broker;

const DEADLINE: Duration = Duration::from_secs(10);
/// Enough for a failure that is known to come.
const IMPATIENCE: Duration = Duration::from_millis(300);

thread_local! {
    static IS_PATIENT: Cell<bool> = const { Cell::new(true) };
}

/// How long this thread's clients wait for what does not come.
pub(crate) fn be_patient(patient: bool) {
    IS_PATIENT.set(patient);
}

/// Whether they wait for as long as a slow machine may need.
pub(crate) fn is_patient() -> bool {
    IS_PATIENT.get()
}

/// A name that no other test uses.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "t{}x{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A UTF-8 string or binary data as it is on the wire, whatever it contains.
pub(crate) fn field(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    let length = u16::try_from(data.len()).unwrap();
    [&length.to_be_bytes(), data].concat()
}

/// A packet of a first byte and a body, with its Remaining Length.
pub(crate) fn packet(head: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![head];
    let mut rest = body.len();
    loop {
        let digit = u8::try_from(rest % 128).unwrap();
        rest /= 128;
        bytes.push(if rest > 0 { digit | 128 } else { digit });
        if rest == 0 {
            break;
        }
    }
    [bytes, body].concat()
}

/// Properties of less than 128 bytes with their length; nothing before MQTT 5.
pub(crate) fn properties(version: u8, data: &[u8]) -> Vec<u8> {
    if version < 5 {
        return Vec::new();
    }
    [&[u8::try_from(data.len()).unwrap()], data].concat()
}

/// A CONNECT with the given flags, properties and payload behind the client id.
pub(crate) fn connect(version: u8, flags: u8, props: &[u8], id: &str, rest: &[u8]) -> Vec<u8> {
    let props = properties(version, props);
    let parts: [&[u8]; 6] = [
        b"\0\x04MQTT",
        &[version, flags, 0, 60],
        &props,
        &field(id),
        rest,
        b"",
    ];
    packet(0x10, &parts)
}

/// A PUBLISH; `head` is its first byte, and says whether there is a packet id.
pub(crate) fn publish(
    version: u8,
    head: u8,
    topic: &str,
    id: u16,
    props: &[u8],
    payload: &str,
) -> Vec<u8> {
    let id = if head & 6 == 0 {
        vec![]
    } else {
        id.to_be_bytes().to_vec()
    };
    packet(
        head,
        &[
            &field(topic),
            &id,
            &properties(version, props),
            payload.as_bytes(),
        ],
    )
}

/// The properties among these bytes: identifiers with their values, still encoded.
#[track_caller]
pub(crate) fn parse(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let text = |bytes: &[u8]| 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let mut found = Vec::new();
    while let [id, rest @ ..] = bytes {
        let length = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => 1,
            0x13 | 0x21..=0x23 => 2,
            0x02 | 0x11 | 0x18 | 0x27 => 4,
            0x0b => 1 + rest.iter().take_while(|&&byte| byte > 127).count(),
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => text(rest),
            0x26 => {
                let key = text(rest);
                key + text(&rest[key..])
            }
            other => panic!("no property: {other:x}"),
        };
        found.push((*id, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    found
}

#[derive(Debug, PartialEq)]
pub(crate) struct Received {
    pub(crate) head: u8,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The properties behind `at` bytes of the body.
    #[track_caller]
    pub(crate) fn properties(&self, at: usize) -> Vec<(u8, Vec<u8>)> {
        let Some((&length, rest)) = self.body.get(at..).and_then(|body| body.split_first()) else {
            return Vec::new();
        };
        assert!(length < 128, "{self:x?}");
        parse(&rest[..length.into()])
    }
}

/// A PUBLISH that was received.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) head: u8,
    pub(crate) topic: String,
    pub(crate) id: u16,
    pub(crate) props: Vec<u8>,
    pub(crate) payload: String,
}

pub(crate) struct Client {
    stream: TcpStream,
    /// Messages that came before the SUBACK of their subscription, as they may.
    early: VecDeque<Received>,
    pub(crate) version: u8,
}

/// A read failed because the connection ended, not because nothing came.
#[track_caller]
fn ended(error: &std::io::Error) {
    let silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(!silent, "still open");
}

impl Client {
    /// Connects TCP only.
    pub(crate) fn raw(broker: &Broker, version: u8) -> Self {
        let stream = TcpStream::connect(&broker.address).unwrap();
        let deadline = if is_patient() { DEADLINE } else { IMPATIENCE };
        stream.set_read_timeout(Some(deadline)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            early: VecDeque::new(),
            version,
        }
    }

    /// Connects with a clean session of its own.
    pub(crate) fn new(broker: &Broker, version: u8) -> Self {
        Self::with(broker, version, 2, &[], &unique()).0
    }

    /// Connects with flags and properties; also returns the CONNACK.
    pub(crate) fn with(
        broker: &Broker,
        version: u8,
        flags: u8,
        props: &[u8],
        id: &str,
    ) -> (Self, Received) {
        let mut client = Self::raw(broker, version);
        client.send(&connect(version, flags, props, id, &[]));
        let ack = client.receive();
        assert_eq!((ack.head, ack.body[1]), (0x20, 0), "refused: {ack:?}");
        (client, ack)
    }

    /// Connects with a session that outlives the connection by 100 s; also returns whether it was
    /// there already.
    #[track_caller]
    pub(crate) fn kept(broker: &Broker, version: u8, id: &str) -> (Self, bool) {
        let props: &[u8] = if version == 5 {
            &[0x11, 0, 0, 0, 100]
        } else {
            &[]
        };
        let (client, ack) = Self::with(broker, version, 0, props, id);
        (client, ack.body[0] == 1)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a packet that is only a Packet Identifier.
    pub(crate) fn acknowledge(&mut self, head: u8, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.send(&[head, 2, high, low]);
    }

    /// Receives a packet of this type with this Packet Identifier first.
    #[track_caller]
    pub(crate) fn expect(&mut self, head: u8, id: u16) -> Received {
        let received = self.receive();
        let expected = (head, &id.to_be_bytes()[..]);
        assert_eq!(
            (received.head, &received.body[..2]),
            expected,
            "{received:x?}"
        );
        received
    }

    fn read(&mut self) -> std::io::Result<Received> {
        match self.early.pop_front() {
            Some(early) => Ok(early),
            None => self.read_packet(),
        }
    }

    fn read_packet(&mut self) -> std::io::Result<Received> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        let head = byte[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            self.stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Received { head, body })
    }

    #[track_caller]
    pub(crate) fn receive(&mut self) -> Received {
        self.read().expect("a packet")
    }

    /// The next message, which is QoS 1, acknowledged.
    #[track_caller]
    pub(crate) fn take(&mut self) -> Message {
        let message = self.message();
        self.acknowledge(0x40, message.id);
        message
    }

    #[track_caller]
    pub(crate) fn message(&mut self) -> Message {
        let received = self.receive();
        self.read_message(received)
    }

    /// A PUBLISH taken apart.
    #[track_caller]
    pub(crate) fn read_message(&self, received: Received) -> Message {
        let Received { head, body } = received;
        assert_eq!(head >> 4, 3, "no PUBLISH: {head:x} {body:x?}");
        let mut rest = body.as_slice();
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at(count);
            rest = left;
            taken.to_vec()
        };
        let number = |bytes: Vec<u8>| u16::from_be_bytes([bytes[0], bytes[1]]);
        let length = number(take(2));
        let topic = String::from_utf8(take(length.into())).unwrap();
        let id = if head & 6 == 0 { 0 } else { number(take(2)) };
        let props = if self.version == 5 {
            let length = take(1)[0];
            take(length.into())
        } else {
            vec![]
        };
        let payload = String::from_utf8(rest.to_vec()).unwrap();
        Message {
            head,
            topic,
            id,
            props,
            payload,
        }
    }

    /// Whatever was sent before has been answered with nothing.
    #[track_caller]
    pub(crate) fn nothing_more(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(
            self.receive(),
            Received {
                head: 0xD0,
                body: vec![]
            }
        );
    }

    /// The type of the next packet, or the end of the connection.
    pub(crate) fn try_receive(&mut self) -> std::io::Result<u8> {
        self.read().map(|received| received.head)
    }

    /// The broker closes the connection, whatever else it says, without a packet of this type.
    #[track_caller]
    pub(crate) fn ends_without(&mut self, head: u8) {
        loop {
            match self.read() {
                Ok(received) => assert_ne!(received.head, head, "{received:x?}"),
                Err(error) => return ended(&error),
            }
        }
    }

    /// The broker closes the connection, at most after a CONNACK that refuses or a DISCONNECT.
    #[track_caller]
    pub(crate) fn closed(&mut self) {
        loop {
            match self.read() {
                Ok(Received { head: 0x20, body }) => assert_ne!(body[1], 0, "accepted"),
                Ok(Received { head, body }) => assert_eq!(head, 0xE0, "{body:x?}"),
                Err(error) => return ended(&error),
            }
        }
    }

    /// A SUBSCRIBE to one filter has failed: by its SUBACK or by the end of the connection.
    #[track_caller]
    pub(crate) fn refused(&mut self) {
        match self.read() {
            Ok(Received { head: 0x90, body }) => {
                assert!(body.last().unwrap() & 0x80 != 0, "accepted: {body:x?}");
            }
            Ok(Received { head, body }) => assert_eq!(head, 0xE0, "{body:x?}"),
            Err(error) => ended(&error),
        }
    }

    /// Says goodbye and waits for the end, whichever side comes first.
    pub(crate) fn leave(mut self) {
        self.stream.write_all(&[0xE0, 0]).ok();
        while self.read().is_ok() {}
    }

    /// SUBSCRIBE to one filter; the SUBACK's code.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(filter, options, &[])
    }

    #[track_caller]
    pub(crate) fn subscribe_with(&mut self, filter: &str, options: u8, props: &[u8]) -> u8 {
        let props = properties(self.version, props);
        self.send(&packet(
            0x82,
            &[&[0, 9], &props, &field(filter), &[options]],
        ));
        loop {
            let received = self.read_packet().expect("SUBACK");
            if received.head >> 4 == 3 {
                self.early.push_back(received);
                continue;
            }
            assert_eq!((received.head, &received.body[..2]), (0x90, &[0, 9][..]));
            return *received.body.last().unwrap();
        }
    }

    /// UNSUBSCRIBE from one filter; the UNSUBACK.
    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filter: &str) -> Received {
        let props = properties(self.version, &[]);
        self.send(&packet(0xA2, &[&[0, 8], &props, &field(filter)]));
        self.expect(0xB0, 8)
    }

    /// PUBLISH with the Packet Identifier 7, and its acknowledgements.
    #[track_caller]
    pub(crate) fn publish(&mut self, head: u8, topic: &str, payload: &str) {
        let bytes = publish(self.version, head, topic, 7, &[], payload);
        self.send(&bytes);
        match head & 6 {
            0 => {}
            2 => {
                self.expect(0x40, 7);
            }
            _ => {
                self.expect(0x50, 7);
                self.acknowledge(0x62, 7);
                self.expect(0x70, 7);
            }
        }
    }
}
