//! What fuzzers attack, each behind a function that takes bytes and panics when something is wrong.
//!
//! Not part of any build but of tests and of the targets in `fuzz/` (cargo-fuzz sets the cfg
//! `fuzzing`). `make fuzz` explores; the corpus that it found is replayed with the other tests.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use bus::bridge::Report;
use bus::time::Now;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::config::Config;
pub use crate::dtls::fuzzing::dtls;
use crate::endpoint::options::format;
use crate::endpoint::parameters::MAX_TRANSMIT_WAIT;
use crate::endpoint::{
    Code, Endpoint, Event, Limits, Method, ObserverId, Request, RequestId, Response, Transmit,
};
use crate::firmware::Bridge;
use crate::link_format;
use crate::metrics::Metrics;

/// Bytes of an input, taken one by one; what is missing at the end is none.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// So many bytes as the next one says, or what is left.
    pub(crate) fn datagram(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.byte()?);
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        Some(taken)
    }
}

/// One of a few peers; one is at a port that can't be.
fn peer(number: u8) -> SocketAddr {
    match number % 4 {
        3 => SocketAddr::from(([10, 0, 0, 3], 0)),
        n => SocketAddr::from(([10, 0, 0, n], 5683)),
    }
}

/// A response to what was sent, with what follows the token left to the script.
fn reply(sent: &[u8], code: u8, tail: &[u8]) -> Vec<u8> {
    let tkl = usize::from(sent.first().map_or(0, |first| first & 15));
    let mut reply = sent.get(..4 + tkl).unwrap_or_default().to_vec();
    if let [first, second, ..] = reply.as_mut_slice() {
        // An acknowledgement to CON, a NON to NON.
        *first = if *first >> 4 & 3 == 0 {
            *first | 0x20
        } else {
            *first
        };
        *second = code;
    }
    reply.extend(tail);
    reply
}

const CODES: [u8; 8] = [0x45, 0x44, 0x5f, 0x80, 0x81, 0x88, 0x8d, 0xa3];
const METHODS: [Method; 4] = [Method::Get, Method::Put, Method::Post, Method::Fetch];

/// What an endpoint was given and has given.
struct Peers {
    endpoint: Endpoint,
    now: Now,
    sent: Vec<Transmit>,
    open: HashSet<RequestId>,
    observers: Vec<ObserverId>,
    /// The longest request of each peer that has not shown its address: no answer is longer than
    /// three times that.
    longest: HashMap<SocketAddr, usize>,
    known: HashSet<SocketAddr>,
    answer: usize,
}

impl Peers {
    fn new() -> Self {
        let limits = Limits {
            max_seen: 64,
            max_seen_per_peer: 16,
            max_backlog: 4,
            max_requests: 8,
            max_exchanges: 8,
            max_body: 2048,
            szx: 0,
            ..Limits::default()
        };
        Self {
            endpoint: Endpoint::new(limits, StdRng::seed_from_u64(1)),
            now: bus::time::now(),
            sent: Vec::new(),
            open: HashSet::new(),
            observers: Vec::new(),
            longest: HashMap::new(),
            known: HashSet::new(),
            answer: 0,
        }
    }

    fn datagram(&mut self, from: SocketAddr, datagram: &[u8], group: bool) {
        let longest = self.longest.entry(from).or_default();
        *longest = datagram.len().max(*longest);
        if group {
            self.endpoint
                .handle_group_datagram(from, datagram, self.now.mono);
        } else {
            self.endpoint.handle_datagram(from, datagram, self.now.mono);
        }
        self.drain();
    }

    fn ask(&mut self, script: &mut Script<'_>, observe: bool) -> Option<()> {
        let (to, kind) = (peer(script.byte()? % 3), script.byte()?);
        let method = METHODS[usize::from(kind) % METHODS.len()];
        let mut request = Request::new(method, "a/b?c=d");
        request.confirmable = kind & 16 == 0;
        request = request.with_payload(vec![b'x'; usize::from(kind >> 5) * 20]);
        // From here on it may learn tokens.
        self.known.insert(to);
        let now = self.now.mono;
        let asked = match observe {
            true => self.endpoint.observe(to, request, MAX_TRANSMIT_WAIT, now),
            false => self.endpoint.request(to, request, MAX_TRANSMIT_WAIT, now),
        };
        if let Ok(id) = asked {
            assert!(self.open.insert(id));
        }
        self.drain();
        Some(())
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.endpoint.handle_timeout(self.now.mono);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            self.handle(event);
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            let to = transmit.to.address();
            let is_response = transmit.bytes.get(1).is_some_and(|code| *code >= 0x40);
            if is_response && !self.known.contains(&to) {
                let echoed = transmit.bytes.get(1) == Some(&0x81);
                let longest = self.longest.get(&to).copied().unwrap_or(0);
                assert!(transmit.bytes.len() <= 3 * longest, "amplified");
                if echoed {
                    self.known.insert(to);
                }
            }
            self.sent.push(transmit);
        }
        let surplus = self.sent.len().saturating_sub(64);
        self.sent.drain(..surplus);
    }

    fn handle(&mut self, event: Event) {
        let now = self.now.mono;
        match event {
            Event::Request {
                exchange, request, ..
            } => {
                self.answer = (self.answer + 7) % 60;
                let text = vec![b'y'; self.answer];
                let response = Response::content(format::TEXT, text);
                match (self.answer % 5, request.confirmable) {
                    (0, false) => self.endpoint.ignore(exchange),
                    (1, _) => {
                        let observer = self.endpoint.respond_observed(exchange, response, now);
                        self.observers.extend(observer);
                    }
                    // Later, or never.
                    (2, _) => {}
                    _ => self.endpoint.respond(exchange, response, now),
                }
            }
            Event::Response { id, observed, .. } => {
                let was_open = self.open.remove(&id);
                assert!(was_open, "a request ends once");
                if observed {
                    // It is renewed by itself, and ends again then.
                    self.open.insert(id);
                }
            }
            Event::Notification { id, last, .. } => {
                if last {
                    self.open.remove(&id);
                }
            }
            Event::ObserverLeft { observer, .. } => {
                self.observers.retain(|other| *other != observer);
            }
            Event::GroupResponse { .. } | Event::Pong { .. } => {}
        }
    }

    fn notify(&mut self, len: u8) {
        let Some(&observer) = self.observers.last() else {
            return;
        };
        let response = match len {
            255 => Response::new(Code::NOT_FOUND),
            len => Response::content(format::TEXT, vec![b'z'; len.into()]),
        };
        self.endpoint
            .notify(observer, response, len.is_multiple_of(2), self.now.mono);
        self.drain();
    }
}

/// The datagram path of an endpoint that asks, answers, observes and is observed: what peers send, what
/// they reply to what was sent, and time.
pub fn datagrams(data: &[u8]) {
    let mut script = Script(data);
    let mut peers = Peers::new();
    for _ in 0..200 {
        if step(&mut script, &mut peers).is_none() {
            break;
        }
    }
    // Whatever was said: with nobody there any more, all that waits comes to an end.
    for observer in std::mem::take(&mut peers.observers) {
        peers.endpoint.forget_observer(observer);
    }
    for _ in 0..5000 {
        let Some(next) = peers.endpoint.poll_timeout() else {
            break;
        };
        let wait = next.saturating_duration_since(peers.now.mono);
        peers.wait(wait.max(Duration::from_millis(1)));
    }
    assert_eq!(
        peers.endpoint.poll_timeout(),
        None,
        "something waits for ever"
    );
}

fn step(script: &mut Script<'_>, peers: &mut Peers) -> Option<()> {
    match script.byte()? % 8 {
        0 | 1 => {
            let from = peer(script.byte()?);
            peers.datagram(from, script.datagram()?, false);
        }
        2 => {
            let nth = usize::from(script.byte()?);
            let code = CODES[usize::from(script.byte()?) % CODES.len()];
            let tail = script.datagram()?;
            let sent = peers.sent.iter().rev().nth(nth % 8);
            if let Some((from, sent)) = sent.map(|sent| (sent.to.address(), sent.bytes.clone())) {
                peers.datagram(from, &reply(&sent, code, tail), false);
            }
        }
        3 => peers.ask(script, false)?,
        4 => peers.ask(script, true)?,
        5 => peers.wait(Duration::from_millis(1 << (script.byte()? % 18))),
        6 => peers.notify(script.byte()?),
        _ => {
            let from = peer(script.byte()?);
            peers.datagram(from, script.datagram()?, true);
        }
    }
    Some(())
}

/// The bridge, of which each datagram is one of a firmware, a stranger or an answer of a node.
pub fn nodes(data: &[u8]) {
    let mut script = Script(data);
    let Ok(rules) = Config::default().checked() else {
        return;
    };
    let mut bridge = Bridge::new(rules, StdRng::seed_from_u64(1), Metrics::default());
    let mut now = bus::time::now();
    let mut sent: Vec<Transmit> = Vec::new();
    let mut reports = 0;
    let mut run = || {
        match script.byte()? % 4 {
            0 | 1 => {
                let from = peer(script.byte()?);
                bridge.handle_datagram(from, script.datagram()?, now);
            }
            2 => {
                let nth = usize::from(script.byte()?);
                let code = CODES[usize::from(script.byte()?) % CODES.len()];
                let tail = script.datagram()?;
                if let Some(sent) = sent.iter().rev().nth(nth % 8) {
                    bridge.handle_datagram(sent.to, &reply(&sent.bytes, code, tail), now);
                }
            }
            _ => {
                now = now.after(Duration::from_millis(1 << (script.byte()? % 18)));
                bridge.handle_timeout(now);
            }
        }
        while let Some(report) = bridge.poll_report() {
            reports += 1;
            if let Report::Reading { path, .. } = report {
                assert!(!path.is_empty());
            }
        }
        bridge.handle_settled(reports, now);
        while let Some(transmit) = bridge.poll_transmit() {
            assert_ne!(transmit.to.address().port(), 0);
            sent.push(transmit);
        }
        Some(())
    };
    for _ in 0..200 {
        if run().is_none() {
            break;
        }
    }
}

/// Link format: what is read can be written and read again.
pub fn links(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let links = link_format::parse(&text);
    let written = link_format::write(&links);
    assert_eq!(link_format::parse(&written), links, "{written}");
    for resource in link_format::resources(&text) {
        assert!(!resource.path.is_empty());
    }
    let (query, _) = text.split_once(',').unwrap_or((&text, ""));
    assert!(links.iter().filter(|link| link.matches(query)).count() <= links.len());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Replays what was found, smallest first.
    fn replay(target: &str, entry: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let files = std::fs::read_dir(&folder).expect("the corpus is there");
        let mut inputs: Vec<_> = files
            .map(|file| {
                let path = file.unwrap().path();
                (std::fs::read(&path).unwrap(), path)
            })
            .collect();
        assert!(!inputs.is_empty());
        inputs.sort_unstable_by_key(|(input, _)| input.len());
        for (input, path) in inputs {
            let survived = std::panic::catch_unwind(|| entry(&input));
            assert!(survived.is_ok(), "{} is not survived", path.display());
        }
    }

    #[test]
    fn the_corpus_of_datagrams_is_survived() {
        replay("datagrams", super::datagrams);
    }

    #[test]
    fn the_corpus_of_dtls_is_survived() {
        replay("dtls", super::dtls);
    }

    #[test]
    fn the_corpus_of_nodes_is_survived() {
        replay("nodes", super::nodes);
    }

    #[test]
    fn the_corpus_of_links_is_survived() {
        replay("links", super::links);
    }
}
