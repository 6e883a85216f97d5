//! What a fuzzer attacks: a server that some nodes join while strangers send it what they like, from
//! the nodes' addresses too.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bus::time::Now;
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::client::{Client, KEY, OTHER, hello};
use super::cookie::Cookies;
use super::handshakes::{HANDSHAKE_TIME, Handshakes};
use super::record::{CLIENT_HELLO, record};
use super::sessions::Sessions;
use super::{Event, Keys, Limits, Metrics, Server};
use crate::endpoint::{SessionId, Timers};
use crate::fuzzing::Script;

const LIMITS: Limits = Limits {
    max_sessions: 8,
    max_sessions_per_address: 3,
    max_handshakes: 12,
    idle: Duration::from_secs(24 * 3600),
};
/// So many sessions there can be: those of the name that many have, and two of others.
const MAX_SESSIONS: usize = 6;
/// Where the node is whom nobody may hurt.
const KITCHEN: u8 = 0;
/// Where one comes from when all is over; nobody else does.
const CELLAR: u8 = 255;

/// A few ports at each of three addresses.
fn place(number: u8) -> SocketAddr {
    match number {
        CELLAR => SocketAddr::from(([10, 0, 0, 9], 7000)),
        n => SocketAddr::from(([10, 0, 0, n % 3], 7000 + u16::from(n / 3 % 4))),
    }
}

fn keys(with_attic: bool) -> Keys {
    let names = ["kitchen", "cellar", "attic"];
    let names = names.iter().take(if with_attic { 3 } else { 2 });
    let lines: Vec<_> = names.map(|name| format!("{name}:{KEY}\n")).collect();
    Keys::parse(&lines.concat()).expect("keys")
}

thread_local! {
    /// What is left of the run before: making a server tries out the whole cryptography.
    static USED: RefCell<Option<Server>> = const { RefCell::new(None) };
}

/// A server as if it were new.
fn server(now: Now) -> Server {
    let mut rng = StdRng::seed_from_u64(1);
    let Some(mut server) = USED.take() else {
        let server = Server::new(LIMITS, keys(true), None, rng, Metrics::default(), now.mono);
        return server.expect("dimpl can be used");
    };
    server.cookies = Cookies::new(&mut rng, now.mono);
    server.handshakes = Handshakes::default();
    server.sessions = Sessions::default();
    server.deadlines = Timers::default();
    server.transmits.clear();
    server.events.clear();
    server.handle_keys(keys(true), now);
    server
}

struct World {
    server: Server,
    now: Now,
    clients: HashMap<SocketAddr, Client>,
    /// To the server or from it, the client's address, the datagram.
    flying: VecDeque<(bool, SocketAddr, Bytes)>,
    /// What clients have sent.
    sent: Vec<Bytes>,
    /// What each address was asked to bring back.
    cookies: HashMap<SocketAddr, Vec<Bytes>>,
    /// Where one of them was seen.
    verified: HashSet<SocketAddr>,
    sessions: HashMap<SocketAddr, SessionId>,
    heard: VecDeque<(SessionId, Bytes)>,
    has_attic: bool,
}

impl World {
    fn new() -> Self {
        let now = bus::time::now();
        Self {
            server: server(now),
            now,
            clients: HashMap::new(),
            flying: VecDeque::new(),
            sent: Vec::new(),
            cookies: HashMap::new(),
            verified: HashSet::new(),
            sessions: HashMap::new(),
            heard: VecDeque::new(),
            has_attic: true,
        }
    }

    /// A client begins where none is, or has failed.
    fn start(&mut self, at: SocketAddr, name: &str, key: &str) {
        if self.clients.get(&at).is_none_or(|client| client.failed) {
            self.clients
                .insert(at, Client::psk(name, key, self.now.mono));
            self.act(at, |_| Ok(()));
        }
    }

    fn act(
        &mut self,
        at: SocketAddr,
        act: impl FnOnce(&mut dimpl::Dtls) -> Result<(), dimpl::Error>,
    ) {
        if let Some(client) = self.clients.get_mut(&at) {
            for datagram in client.act(act) {
                self.sent.push(datagram.clone());
                self.flying.push_back((true, at, datagram));
            }
        }
        let surplus = self.sent.len().saturating_sub(32);
        self.sent.drain(..surplus);
        let surplus = self.flying.len().saturating_sub(32);
        self.flying.drain(..surplus);
    }

    /// Hands a datagram to the server.
    fn hand(&mut self, from: SocketAddr, datagram: &[u8]) {
        let given = self.cookies.get(&from);
        let is_back = |cookie: &Bytes| datagram.windows(cookie.len()).any(|part| part == cookie);
        if given.is_some_and(|cookies| cookies.iter().any(is_back)) {
            self.verified.insert(from);
        }
        self.server.handle_datagram(from, datagram, self.now);
        self.collect(Some((from, datagram.len())));
    }

    /// Takes what comes of a datagram from there, of that length, or of something else.
    fn collect(&mut self, asked: Option<(SocketAddr, usize)>) {
        let mut answered = 0;
        while let Some((to, bytes)) = self.server.poll_transmit() {
            if !self.verified.contains(&to) {
                let (from, length) = asked.expect("no stranger is told anything unasked");
                assert_eq!(to, from, "a stranger makes the server write to another");
                answered += bytes.len();
                assert!(answered <= 3 * length, "amplified");
            }
            if bytes.len() == 60 && bytes[13] == 3 {
                let given = self.cookies.entry(to).or_default();
                given.push(bytes.slice(28..60));
            }
            self.flying.push_back((false, to, bytes));
        }
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Established {
                    session, address, ..
                } => {
                    self.sessions.insert(address, session);
                }
                Event::Data { session, bytes, .. } => {
                    self.heard.truncate(32);
                    self.heard.push_front((session, bytes));
                }
                Event::Ended { session, .. } => self.sessions.retain(|_, other| *other != session),
            }
        }
        assert!(self.server.handshakes.len() <= LIMITS.max_handshakes);
        assert!(self.server.sessions.len() <= MAX_SESSIONS);
        assert_eq!(self.server.sessions.len(), self.sessions.len());
    }

    /// One of the datagrams under way comes; gives whether there was one.
    fn deliver(&mut self, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some((to_server, client, datagram)) = self.flying.pop_front() else {
            return false;
        };
        let now = self.now.mono;
        if to_server {
            let mut datagram = datagram.to_vec();
            change(&mut datagram);
            self.hand(client, &datagram);
        } else {
            self.act(client, |dtls| {
                dtls.handle_timeout(now)?;
                dtls.handle_packet(&datagram)
            });
        }
        true
    }

    fn settle(&mut self) {
        while self.deliver(|_| {}) {}
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.server.handle_timeout(self.now);
        self.collect(None);
        let (now, all) = (self.now.mono, self.clients.keys().copied());
        for at in all.collect::<Vec<_>>() {
            let is_due = |client: &Client| client.deadline.is_some_and(|deadline| deadline <= now);
            if self.clients.get(&at).is_some_and(is_due) {
                self.act(at, |dtls| dtls.handle_timeout(now));
            }
        }
    }

    /// A node there has a session of use.
    #[track_caller]
    fn works(&mut self, at: SocketAddr) {
        self.flying.clear();
        let session = *self.sessions.get(&at).expect("a session is there");
        let now = self.now.mono;
        self.act(at, |dtls| {
            dtls.handle_timeout(now)?;
            dtls.send_application_data(b"still here").map(|_| ())
        });
        self.settle();
        let said = (session, Bytes::from_static(b"still here"));
        assert_eq!(self.heard.front(), Some(&said), "it is heard");
        self.server.send(session, b"so am I", now);
        self.collect(None);
        self.settle();
        let last = self.clients[&at].received.last();
        assert_eq!(last.map(Vec::as_slice), Some(&b"so am I"[..]), "it hears");
    }
}

/// Changes one byte, or nothing.
fn changed(datagram: &mut [u8], at: u8, by: u8) {
    let len = datagram.len().max(1);
    if let Some(byte) = datagram.get_mut(usize::from(at) % len) {
        *byte ^= by;
    }
}

/// The same ClientHello as two fragments, in as many datagrams.
fn cut(hello: &[u8], at: u8) -> [Vec<u8>; 2] {
    let body = hello.get(25..).unwrap_or_default();
    let (one, two) = body.split_at(usize::from(at).min(body.len()));
    [(0, one), (one.len(), two)].map(|(offset, part)| {
        let number = |n: usize| u32::try_from(n).unwrap_or(0).to_be_bytes();
        let mut fragment = vec![CLIENT_HELLO];
        fragment.extend(&number(body.len())[1..]);
        fragment.extend(hello.get(17..19).unwrap_or_default());
        fragment.extend(&number(offset)[1..]);
        fragment.extend(&number(part.len())[1..]);
        fragment.extend(part);
        record(22, u64::from(offset > 0), &fragment)
    })
}

fn step(script: &mut Script<'_>, world: &mut World) -> Option<()> {
    let kind = script.byte()?;
    let at = place(kind / 12 % 12);
    match kind % 12 {
        0 => world.hand(at, script.datagram()?),
        1 => {
            let (kind, epoch) = (script.byte()?, script.byte()?);
            let sequence = script.byte()?.into();
            let mut one = record(20 + kind % 5, sequence, script.datagram()?);
            changed(&mut one, 4, epoch % 3);
            world.hand(at, &one);
        }
        2 => {
            let (random, how) = (script.byte()?, script.byte()?);
            let given = world.cookies.get(&at).and_then(|all| all.last()).cloned();
            let cookie = given.filter(|_| how & 1 > 0).unwrap_or_default();
            let mut hello = hello(random % 2, &cookie);
            if how & 2 > 0 {
                changed(&mut hello, script.byte()?, script.byte()?);
            }
            match how & 4 > 0 {
                true => {
                    for part in cut(&hello, script.byte()?) {
                        world.hand(at, &part);
                    }
                }
                false => world.hand(at, &hello),
            }
        }
        3 => {
            world.flying.pop_front();
        }
        4 => {
            let front = world.flying.front().cloned();
            world.flying.extend(front);
            world.deliver(|_| {});
        }
        5 => {
            let (place, by) = (script.byte()?, script.byte()?);
            world.deliver(|datagram| changed(datagram, place, by));
        }
        6 => {
            let key = if script.byte()? % 4 == 0 { OTHER } else { KEY };
            world.start(at, "attic", key);
        }
        7 => {
            let said = script.datagram()?;
            world.act(at, |dtls| dtls.send_application_data(said).map(|_| ()));
        }
        8 => {
            let (nth, place, by) = (script.byte()?, script.byte()?, script.byte()?);
            let sent = world.sent.iter().rev().nth(usize::from(nth) % 32);
            if let Some(mut datagram) = sent.map(|sent| sent.to_vec()) {
                changed(&mut datagram, place, by);
                world.hand(at, &datagram);
            }
        }
        9 => world.wait(Duration::from_millis(1 << (script.byte()? % 18))),
        10 => {
            world.has_attic = !world.has_attic;
            world.server.handle_keys(keys(world.has_attic), world.now);
            world.collect(None);
        }
        _ if at != place(KITCHEN) => world.act(at, dimpl::Dtls::close),
        _ => {
            world.deliver(|_| {});
        }
    }
    Some(())
}

/// Datagrams of strangers and of nodes that join, while a node has a session.
pub fn dtls(data: &[u8]) {
    let mut script = Script(data);
    let mut world = World::new();
    let (kitchen, cellar) = (place(KITCHEN), place(CELLAR));
    world.start(kitchen, "kitchen", KEY);
    world.settle();
    world.works(kitchen);
    for _ in 0..100 {
        if step(&mut script, &mut world).is_none() {
            break;
        }
    }
    world.works(kitchen);
    world.start(cellar, "cellar", KEY);
    world.settle();
    world.works(cellar);
    // With nobody there any more, what was begun comes to an end.
    world.clients.clear();
    for _ in 0..40 {
        world.wait(HANDSHAKE_TIME / 32);
    }
    assert_eq!(world.server.handshakes.len(), 0, "one waits for ever");
    USED.set(Some(world.server));
}
