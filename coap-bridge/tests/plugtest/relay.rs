//! A relay between one server and its clients that keeps what passes, and loses what it is told to.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coap_lite::Packet;

use crate::{DEADLINE, now};

/// Message types (RFC 7252 section 3).
pub(crate) const CON: u8 = 0;
pub(crate) const NON: u8 = 1;
pub(crate) const ACK: u8 = 2;
pub(crate) const RST: u8 = 3;

/// A message on its way.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// From the client to the server.
    pub(crate) out: bool,
    pub(crate) kind: u8,
    /// As RFCs write it: `2.05`.
    pub(crate) code: String,
    pub(crate) mid: u16,
    pub(crate) token: Vec<u8>,
    pub(crate) options: Vec<(u16, Vec<u8>)>,
    pub(crate) payload: String,
    pub(crate) len: usize,
    pub(crate) lost: bool,
}

impl Seen {
    fn new(out: bool, datagram: &[u8]) -> Self {
        let packet = Packet::from_bytes(datagram).unwrap();
        let options = packet.options().flat_map(|(number, values)| {
            let values = values.iter();
            values.map(|value| (*number, value.clone()))
        });
        Self {
            out,
            kind: datagram[0] >> 4 & 3,
            code: format!("{}.{:02}", datagram[1] >> 5, datagram[1] & 31),
            mid: packet.header.message_id,
            token: packet.get_token().to_vec(),
            options: options.collect(),
            payload: String::from_utf8_lossy(&packet.payload).into_owned(),
            len: datagram.len(),
            lost: false,
        }
    }

    /// All values of an option, as text.
    pub(crate) fn texts(&self, number: u16) -> Vec<String> {
        let values = self.options.iter().filter(|(other, _)| *other == number);
        values
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    pub(crate) fn option(&self, number: u16) -> Option<&[u8]> {
        let mut values = self.options.iter();
        let found = values.find(|(other, _)| *other == number);
        found.map(|(_, value)| value.as_slice())
    }

    pub(crate) fn uint(&self, number: u16) -> Option<u32> {
        let value = self.option(number)?;
        Some(
            value
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
        )
    }

    /// A Block option: number, whether more follow, size exponent.
    pub(crate) fn block(&self, number: u16) -> Option<(u32, bool, u32)> {
        let value = self.uint(number)?;
        Some((value >> 4, value & 8 != 0, value & 7))
    }

    pub(crate) fn is_request(&self) -> bool {
        self.code.starts_with("0.") && self.code != "0.00"
    }

    pub(crate) fn is_response(&self) -> bool {
        !self.code.starts_with("0.")
    }
}

type Rule = Box<dyn FnMut(&Seen) -> bool + Send>;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    lose: Mutex<Rule>,
    running: AtomicBool,
}

impl Shared {
    /// Notes a datagram; false when it is lost.
    fn pass(&self, out: bool, datagram: &[u8]) -> bool {
        let mut seen = Seen::new(out, datagram);
        seen.lost = (self.lose.lock().unwrap())(&seen);
        let passes = !seen.lost;
        self.seen.lock().unwrap().push(seen);
        passes
    }
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

const PATIENCE: Duration = Duration::from_millis(50);

impl Relay {
    /// Relays to a server everything.
    pub(crate) fn to(server: SocketAddr) -> Self {
        Self::losing(server, |_| false)
    }

    /// Relays to a server what `lose` does not want to be lost.
    pub(crate) fn losing(
        server: SocketAddr,
        lose: impl FnMut(&Seen) -> bool + Send + 'static,
    ) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            lose: Mutex::new(Box::new(lose)),
            running: AtomicBool::new(true),
        });
        let going = shared.clone();
        std::thread::spawn(move || relay(&front, server, &going));
        Self { address, shared }
    }

    /// All that has come, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Loses by another rule from now on.
    pub(crate) fn lose(&self, rule: impl FnMut(&Seen) -> bool + Send + 'static) {
        *self.shared.lose.lock().unwrap() = Box::new(rule);
    }

    /// Waits until such a message has come, after the first `skip` that came at all.
    #[track_caller]
    pub(crate) fn wait(&self, skip: usize, what: &str, like: impl Fn(&Seen) -> bool) -> Seen {
        let end = now() + DEADLINE;
        loop {
            let seen = self.seen();
            if let Some(found) = seen.iter().skip(skip).find(|seen| like(seen)) {
                return found.clone();
            }
            assert!(now() < end, "no {what} in {seen:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The one message like this. On a busy machine it may have been sent again, which is the same one
    /// (RFC 7252 section 4.5).
    #[track_caller]
    pub(crate) fn only(&self, like: impl Fn(&Seen) -> bool) -> Seen {
        let mut found: Vec<Seen> = self.seen().into_iter().filter(|seen| like(seen)).collect();
        found.dedup_by_key(|seen| (seen.out, seen.kind, seen.mid, seen.code.clone()));
        assert_eq!(found.len(), 1, "{:#?}", self.seen());
        found.remove(0)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.running.store(false, Ordering::Relaxed);
    }
}

fn relay(front: &UdpSocket, server: SocketAddr, shared: &Arc<Shared>) {
    let mut clients: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    front.set_read_timeout(Some(PATIENCE)).unwrap();
    while shared.running.load(Ordering::Relaxed) {
        let Ok((len, client)) = front.recv_from(&mut buffer) else {
            continue;
        };
        let back = clients.entry(client).or_insert_with(|| {
            let back = UdpSocket::bind("127.0.0.1:0").unwrap();
            back.connect(server).unwrap();
            let (front, back_too) = (front.try_clone().unwrap(), back.try_clone().unwrap());
            let shared = shared.clone();
            std::thread::spawn(move || relay_back(&front, client, &back_too, &shared));
            back
        });
        if shared.pass(true, &buffer[..len]) {
            back.send(&buffer[..len]).ok();
        }
    }
}

fn relay_back(front: &UdpSocket, client: SocketAddr, back: &UdpSocket, shared: &Shared) {
    let mut buffer = vec![0; 65_536];
    back.set_read_timeout(Some(PATIENCE)).unwrap();
    while shared.running.load(Ordering::Relaxed) {
        if let Ok(len) = back.recv(&mut buffer)
            && shared.pass(false, &buffer[..len])
        {
            front.send_to(&buffer[..len], client).ok();
        }
    }
}
