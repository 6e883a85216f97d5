//! Nodes that push without a pause, each from a thread and an address of its own, and remember what
//! was acknowledged.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::peers::own_address;

/// Without an answer for so long, a node sends again: far shorter than RFC 7252 has it, for the bridge
/// is killed every now and then.
const PATIENCE: Duration = Duration::from_millis(200);

const EMPTY: u8 = 0x00;
const NOT_FOUND: u8 = 0x84;
/// 2.04
pub(crate) const CHANGED: u8 = 0x44;
/// 5.03
pub(crate) const SERVICE_UNAVAILABLE: u8 = 0xa3;

/// They push until they are stopped.
pub(crate) struct Pushers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    nodes: Vec<JoinHandle<Vec<u32>>>,
}

impl Pushers {
    /// Nodes `p0`, `p1` ... push 1, 2 ... as their `v`.
    pub(crate) fn start(bridge: SocketAddr, nodes: usize) -> Self {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let nodes = (0..nodes).map(|n| {
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            std::thread::spawn(move || {
                let mut node = Pusher::new(bridge, &format!("p{n}"), stop);
                let mut values = Vec::new();
                for value in 1.. {
                    if !node.push(value, &format!("v:{value}")) {
                        return values;
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    values.push(value);
                }
                values
            })
        });
        Self {
            nodes: nodes.collect(),
            stop,
            acknowledged,
        }
    }

    /// How many pushes got 2.04.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends them; gives what got 2.04, by node.
    pub(crate) fn stop(self) -> Vec<Vec<u32>> {
        self.stop.store(true, Ordering::Relaxed);
        let nodes = self.nodes.into_iter();
        nodes.map(|node| node.join().unwrap()).collect()
    }
}

/// One of them.
pub(crate) struct Pusher {
    socket: UdpSocket,
    uid: String,
    stop: Arc<AtomicBool>,
    mid: u16,
}

impl Pusher {
    /// A node that the bridge knows.
    pub(crate) fn start(bridge: SocketAddr, uid: &str) -> Self {
        Self::new(bridge, uid, Arc::default())
    }

    fn new(bridge: SocketAddr, uid: &str, stop: Arc<AtomicBool>) -> Self {
        let socket = UdpSocket::bind((own_address().as_str(), 5683)).unwrap();
        socket.connect(bridge).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut node = Self {
            socket,
            uid: uid.to_owned(),
            stop,
            mid: 0,
        };
        node.introduce();
        node
    }

    fn introduce(&mut self) {
        let alive = format!("alive:{}", self.uid);
        while self
            .ask("alive", 0, &alive)
            .is_some_and(|code| code != CHANGED)
        {}
    }

    /// Pushes until it is taken; false when it was stopped before.
    pub(crate) fn push(&mut self, token: u32, text: &str) -> bool {
        loop {
            match self.ask("server", token, text) {
                Some(CHANGED) => return true,
                Some(NOT_FOUND) => self.introduce(),
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Pushes without waiting for the answer.
    pub(crate) fn tell(&mut self, text: &str) {
        let request = self.request("server", 0, text);
        self.socket.send(&request).unwrap();
    }

    /// The codes of the answers to what it told, until there is none for a while.
    pub(crate) fn answers(&self) -> Vec<u8> {
        std::iter::from_fn(|| self.answer(0)).collect()
    }

    /// A Confirmable POST with a Message ID of its own.
    fn request(&mut self, path: &str, token: u32, payload: &str) -> Vec<u8> {
        self.mid = self.mid.wrapping_add(1);
        let mut request = vec![0x44, 0x02];
        request.extend(self.mid.to_be_bytes());
        request.extend(token.to_be_bytes());
        request.push(0xb0 | u8::try_from(path.len()).unwrap());
        request.extend(path.as_bytes());
        request.push(0xff);
        request.extend(payload.as_bytes());
        request
    }

    /// Asks, again and again until it is answered; gives the code, or none when stopped.
    fn ask(&mut self, path: &str, token: u32, payload: &str) -> Option<u8> {
        let request = self.request(path, token, payload);
        while !self.stop.load(Ordering::Relaxed) {
            // Nobody may be there.
            drop(self.socket.send(&request));
            if let Some(code) = self.answer(token) {
                return Some(code);
            }
        }
        None
    }

    /// Waits for the answer with this token, in the acknowledgement or after it.
    fn answer(&self, token: u32) -> Option<u8> {
        let mut buffer = [0; 1500];
        loop {
            let len = match self.socket.recv(&mut buffer) {
                Ok(len) => len,
                // The port is closed: it is not worth asking again at once.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    std::thread::sleep(PATIENCE / 10);
                    return None;
                }
                Err(_) => return None,
            };
            let [first, code, high, low, rest @ ..] = &buffer[..len] else {
                continue;
            };
            let confirmable = first >> 4 == 0x4;
            let response = code >> 5 >= 2;
            if confirmable {
                // A response by itself is acknowledged; a question for resources is not for us.
                let kind = if response { 0x60 } else { 0x70 };
                drop(self.socket.send(&[kind, EMPTY, *high, *low]));
            }
            if response && rest.starts_with(&token.to_be_bytes()) {
                return Some(*code);
            }
        }
    }
}
