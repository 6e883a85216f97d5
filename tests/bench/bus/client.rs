//! A client of MQTT 3.1.1 that costs next to nothing, so that the broker is what is measured.

use std::net::SocketAddr;

use anyhow::ensure;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection, with TLS or without.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The first bytes of packets.
const CONNACK: u8 = 0x20;
pub(crate) const PUBLISH: u8 = 0x30;
pub(crate) const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;

/// Where to connect to, and as whom.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsConnector>,
    /// Client Identifiers begin with it.
    pub(crate) name: &'static str,
}

impl Dialer {
    /// Connects, and waits for CONNACK.
    pub(crate) async fn client(&self, id: &str) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from("localhost")?;
                Box::new(tls.connect(name, stream).await?)
            }
            None => Box::new(stream),
        };
        let mut client = Client {
            stream,
            input: Vec::new(),
            start: 0,
        };
        let id = format!("{}:{id}", self.name);
        client.send(&connect(&id)).await?;
        client.expect(CONNACK).await?;
        Ok(client)
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    while len > 0x7f {
        out.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend(body);
    out
}

/// Clean session, Keep Alive off.
fn connect(id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, "MQTT");
    body.extend([4, 2, 0, 0]);
    string(&mut body, id);
    packet(0x10, &body)
}

/// PUBLISH with Packet Identifier 0 when its QoS is 1.
pub(crate) fn publish(topic: &str, payload: &[u8], qos: u8, retain: bool) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, topic);
    if qos > 0 {
        body.extend([0, 0]);
    }
    body.extend(payload);
    packet(PUBLISH | qos << 1 | u8::from(retain), &body)
}

fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    string(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

/// What is read at a time, bytes: little by quiet clients, more by busy ones.
const READ: usize = 512;
const READ_MAX: usize = 256 * 1024;

/// A connected client.
pub(crate) struct Client {
    pub(crate) stream: Box<dyn Stream>,
    input: Vec<u8>,
    /// Where the first packet that was not handled begins.
    start: usize,
}

impl Client {
    /// Writes and flushes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Subscribes, and waits until that is in force.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) -> anyhow::Result<()> {
        self.send(&subscribe(filter, qos)).await?;
        let granted = self.expect(SUBACK).await?;
        ensure!(granted.last() == Some(&qos), "{filter} was refused");
        Ok(())
    }

    /// Waits for a packet of this kind, before which nothing else may come; gives its body.
    async fn expect(&mut self, first: u8) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some((got, at, end)) = frame(&self.input[self.start..]) {
                ensure!(got == first, "{first:#x} was expected, and {got:#x} came");
                let body = self.input[self.start + at..self.start + end].to_vec();
                self.start += end;
                return Ok(body);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.input.drain(..self.start);
        self.start = 0;
        self.input.reserve(READ);
        let count = self.stream.read_buf(&mut self.input).await?;
        ensure!(count > 0, "the broker closed a connection");
        if count >= READ && self.input.capacity() < READ_MAX {
            self.input.reserve(READ_MAX);
        }
        Ok(())
    }

    /// Gives every whole packet to `handle`, its first byte and its body; reads once if there is
    /// none. Cancel safe.
    pub(crate) async fn read(&mut self, mut handle: impl FnMut(u8, &[u8])) -> anyhow::Result<()> {
        if frame(&self.input[self.start..]).is_none() {
            self.fill().await?;
        }
        while let Some((first, at, end)) = frame(&self.input[self.start..]) {
            handle(first, &self.input[self.start + at..self.start + end]);
            self.start += end;
        }
        Ok(())
    }
}

/// The first byte of a whole packet, and where its body begins and ends.
fn frame(input: &[u8]) -> Option<(u8, usize, usize)> {
    let (mut len, mut at) = (0, 1);
    loop {
        let byte = *input.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (input.len() >= at + len).then_some((input[0], at, at + len))
}
