//! Where a node's own server is, and what it has.
//!
//! A firmware sends from another port than it serves at, an aiocoap node from a new one each time, a
//! simulated one from the very port it serves at. So the standard port is asked first, and soon after
//! that the port that was sent from; the first that gives a list is the node's server.

use std::collections::VecDeque;
use std::time::Duration;

use bus::bridge::{Answer, Report, Uid};
use bus::payload::{AckStatus, Resource};
use bus::time::Now;

use super::answers::failed;
use super::node::Turn;
use super::places::{self, Seat};
use super::work::Ask;
use super::{Bridge, COAP_PORT};
use crate::block::{Block, Tally};
use crate::endpoint::options::format;
use crate::endpoint::parameters::MAX_TRANSMIT_SPAN;
use crate::endpoint::{Code, Method, Remote, Request, RequestError, RequestId, Response};
use crate::link_format;

/// After this time without an answer the next place is asked too.
const STAGGER: Duration = Duration::from_secs(1);
/// How long a place is waited for, when the next one is known to be another node's server.
const PATIENCE: Duration = Duration::from_secs(8);
/// Signs of life begin no two discoveries of one node within this time.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// After a failure the next one waits this long, and twice as long each time ...
const RETRY: Duration = Duration::from_secs(30);
/// ... but no longer than this.
const MAX_RETRY: Duration = Duration::from_secs(900);
/// The reason of a node's end when another one answers at its address.
const REPLACED: &str = "replaced";
/// How far into the queue we look for a node whose place is not busy.
const MAX_LOOK: usize = 1024;

/// Who is asked now, and who waits. One place has a quarter of the turns at the most, so that no
/// address can hold up all others with nodes that don't answer.
#[derive(Debug)]
pub(super) struct Queue {
    max: usize,
    running: usize,
    per_block: Tally,
    waiting: VecDeque<(Uid, Block)>,
}

impl Queue {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            running: 0,
            per_block: Tally::default(),
            waiting: VecDeque::new(),
        }
    }

    fn push(&mut self, uid: Uid, block: Block) {
        self.waiting.push_back((uid, block));
    }

    /// The next one whose place is not busy; it counts as running from here on.
    fn pop(&mut self) -> Option<(Uid, Block)> {
        if self.running >= self.max {
            return None;
        }
        let share = self.max.div_ceil(4);
        let busy = |block: &Block| self.per_block.count(*block) >= share;
        let mut waiting = self.waiting.iter().take(MAX_LOOK);
        let index = waiting.position(|(_, block)| !busy(block))?;
        let (uid, block) = self.waiting.remove(index)?;
        self.running += 1;
        self.per_block.add(block);
        Some((uid, block))
    }

    /// A turn is over. One that still waited is skipped when it comes.
    pub(super) fn leave(&mut self, turn: Turn) {
        let Turn::Running(block) = turn else {
            return;
        };
        self.running = self.running.saturating_sub(1);
        self.per_block.remove(block);
    }
}

impl Bridge {
    /// Where the server of a node may be that sends from `peer`, in the order of asking; and whether
    /// the second is asked only when the first has failed.
    pub(super) fn candidates(&self, uid: &Uid, peer: Remote) -> (VecDeque<Remote>, bool) {
        let standard = match peer {
            Remote::Plain(mut address) => {
                address.set_port(COAP_PORT);
                Remote::Plain(address)
            }
            // A node that speaks DTLS is asked over its own session.
            Remote::Secure(..) => peer,
        };
        if peer == standard {
            return (VecDeque::from([peer]), false);
        }
        let replaced = self.nodes.get(uid).is_some_and(|node| node.replaced);
        match self.places.server(standard).filter(|other| *other != uid) {
            // Two that claim one address must not take it from each other all the time.
            Some(_) if replaced => (VecDeque::from([peer]), false),
            // Several nodes at one address: this one's server is more likely where it sends from.
            // Or the node was flashed anew, and is another one now.
            Some(_) => (VecDeque::from([peer, standard]), true),
            None => (VecDeque::from([standard, peer]), false),
        }
    }

    /// A sign of life is a reason to ask a node for its resources, unless that was tried lately.
    pub(super) fn consider(&mut self, uid: &Uid, peer: Remote, reset: bool, now: Now) {
        if self.may_discover(uid, now) {
            self.discover(uid, Some(peer), reset, now);
        }
    }

    /// The same, when it is known where the server of the node is.
    pub(super) fn consider_at(
        &mut self,
        uid: &Uid,
        places: VecDeque<Remote>,
        peer: Remote,
        now: Now,
    ) {
        if self.may_discover(uid, now) {
            self.discover_at(uid, (places, false), Some(peer), false, now);
        }
    }

    fn may_discover(&self, uid: &Uid, now: Now) -> bool {
        let early =
            |node: &super::node::Node| node.discovery.not_before.is_some_and(|at| at > now.mono);
        self.nodes.get(uid).is_some_and(|node| !early(node))
    }

    /// Asks a node for its resources when its turn comes: where it was found before, or where it may
    /// be that sends from `peer`. `reset`: that this node has started anew is to be told once it is
    /// sure who says so.
    pub(super) fn discover(&mut self, uid: &Uid, peer: Option<Remote>, reset: bool, now: Now) {
        let Some(seat) = self.nodes.get(uid).map(|node| node.seat) else {
            return;
        };
        let places = match (peer, seat.server, seat.source) {
            (None, Some(server), _) => (VecDeque::from([server]), false),
            (Some(peer), ..) | (None, None, Some(peer)) => self.candidates(uid, peer),
            (None, None, None) => return,
        };
        self.discover_at(uid, places, peer, reset, now);
    }

    /// Asks a node for its resources at these places, as [`Bridge::candidates`] gives them.
    pub(super) fn discover_at(
        &mut self,
        uid: &Uid,
        (candidates, patient): (VecDeque<Remote>, bool),
        peer: Option<Remote>,
        reset: bool,
        now: Now,
    ) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let (discovery, Some(&first)) = (&mut node.discovery, candidates.front()) else {
            return;
        };
        if discovery.turn != Turn::None {
            return;
        }
        let block = Block::of(first.address());
        discovery.turn = Turn::Waiting(block);
        discovery.candidates = candidates;
        discovery.patient = patient;
        discovery.fallback = None;
        discovery.source = peer;
        discovery.reset = reset;
        discovery.routine = false;
        discovery.not_before = Some(now.mono + MIN_INTERVAL);
        self.queue.push(uid.clone(), block);
        self.start_discoveries(now);
    }

    pub(super) fn start_discoveries(&mut self, now: Now) {
        while let Some((uid, block)) = self.queue.pop() {
            match self.nodes.get_mut(&uid) {
                Some(node) if node.discovery.turn == Turn::Waiting(block) => {
                    node.discovery.turn = Turn::Running(block);
                    self.probe_next(&uid, now);
                }
                _ => self.queue.leave(Turn::Running(block)),
            }
        }
    }

    /// Asks at the next place; when there is none, and no answer is awaited, it has failed.
    pub(super) fn probe_next(&mut self, uid: &Uid, now: Now) {
        self.stagger.cancel(uid);
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let discovery = &mut node.discovery;
        if !matches!(discovery.turn, Turn::Running(_)) {
            return;
        }
        while let Some(place) = discovery.candidates.pop_front() {
            let others = !discovery.candidates.is_empty();
            let timeout = match discovery.patient && others {
                true => PATIENCE,
                false => MAX_TRANSMIT_SPAN,
            };
            let request = Request::new(Method::Get, ".well-known/core");
            if let Ok(id) = self.endpoint.request(place, request, timeout, now.mono) {
                discovery.probes.push((id, place));
                self.asked.insert(id, (uid.clone(), Ask::Probe(place)));
                if others && !discovery.patient {
                    self.stagger.set(uid.clone(), now.mono + STAGGER);
                }
                return;
            }
        }
        if discovery.probes.is_empty() {
            self.fail_discovery(uid, now);
        }
    }

    pub(super) fn handle_probe(
        &mut self,
        uid: &Uid,
        id: RequestId,
        place: Remote,
        result: Result<Response, RequestError>,
        now: Now,
    ) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        node.discovery.probes.retain(|(probe, _)| *probe != id);
        match result {
            Ok(response) if is_list(&response) => {
                let text = String::from_utf8_lossy(&response.payload);
                let resources = link_format::resources(&text);
                return self.discovered(uid, place, resources, now);
            }
            Ok(_) => {
                node.discovery.fallback.get_or_insert(place);
            }
            Err(error) => tracing::debug!(peer.addr = %place, %error, "no node's server is here"),
        }
        if node.discovery.candidates.is_empty() && !node.discovery.probes.is_empty() {
            return;
        }
        self.probe_next(uid, now);
    }

    /// The server of a node is found.
    fn discovered(&mut self, uid: &Uid, server: Remote, resources: Vec<Resource>, now: Now) {
        if let Some(other) = self.places.server(server).filter(|other| *other != uid) {
            self.retire(&other.clone(), REPLACED, now);
        }
        self.settle(uid, server, now);
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        node.discovery.listed_at = Some(now.mono);
        let by_routine = node.discovery.routine && node.discovery.asked_by.is_empty();
        let unchanged = by_routine && node.has_list(&resources);
        if !unchanged {
            let useless = node.list(&resources);
            for id in useless {
                self.drop_request(uid, id, now);
            }
            self.report(Report::Resources {
                uid: uid.clone(),
                resources,
            });
        }
        let answer = Answer {
            status: AckStatus::Ok,
            code: Some(Code::CONTENT.to_string()),
            v: None,
            error: None,
        };
        let outcome = if unchanged { "unchanged" } else { "found" };
        self.end_discovery(uid, &answer, outcome, now);
    }

    /// Notes where a node's server is, and tells the bus.
    fn settle(&mut self, uid: &Uid, server: Remote, now: Now) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let discovery = &mut node.discovery;
        discovery.done = true;
        discovery.failures = 0;
        let reset = std::mem::take(&mut discovery.reset);
        let here = |source: &Remote| places::host(*source) == places::host(server);
        let source = node.seat.source.filter(here);
        let source = source.or(discovery.source.filter(here));
        node.seen = Some(now.mono);
        node.replaced = false;
        if reset {
            node.started = Some(now.mono);
        }
        node.announced = server.to_string();
        let address = node.announced.clone();
        let server = Some(server);
        self.reseat(uid, Seat { server, source });
        self.report(Report::Announce {
            uid: uid.clone(),
            address,
            reset,
        });
    }

    fn fail_discovery(&mut self, uid: &Uid, now: Now) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let discovery = &mut node.discovery;
        discovery.reset = false;
        let fallback = discovery.fallback.take();
        discovery.failures = discovery.failures.saturating_add(1);
        let factor = 1 << (discovery.failures - 1).min(8);
        let wait = (RETRY * factor).min(MAX_RETRY);
        discovery.not_before = Some(now.mono + wait);
        let known = node.seat.server.is_some();
        if let Some(server) = fallback.filter(|at| !known && self.places.server(*at).is_none()) {
            self.settle(uid, server, now);
        }
        let error = match fallback {
            Some(_) => failed(
                RequestError::Reset,
                "the node answers, but has no list of resources",
            ),
            None => failed(RequestError::Timeout, "the node did not answer in time"),
        };
        let outcome = if fallback.is_some() {
            "no_list"
        } else {
            "no_answer"
        };
        self.end_discovery(uid, &error, outcome, now);
    }

    pub(super) fn end_discovery(
        &mut self,
        uid: &Uid,
        answer: &Answer,
        outcome: &'static str,
        now: Now,
    ) {
        self.metrics.discovered(outcome);
        self.stagger.cancel(uid);
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let discovery = &mut node.discovery;
        let turn = std::mem::take(&mut discovery.turn);
        let asked_by = std::mem::take(&mut discovery.asked_by);
        discovery.candidates.clear();
        for (id, _) in std::mem::take(&mut discovery.probes) {
            self.drop_request(uid, id, now);
        }
        for id in asked_by {
            let answer = answer.clone();
            self.report(Report::Answer { id, answer });
        }
        self.queue.leave(turn);
        self.start_discoveries(now);
        self.pump(uid, now);
        self.arm_poll(uid, now);
    }

    /// A node is gone, for a reason that is told: it has left, or another one answers where it was.
    pub(super) fn retire(&mut self, uid: &Uid, reason: &'static str, now: Now) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let mut requests = node.list(&[]);
        requests.extend(node.current.take().map(|current| current.id));
        node.urgent.clear();
        node.replaced = reason == REPLACED;
        node.discovery.done = false;
        let seat = Seat {
            server: None,
            ..node.seat
        };
        for id in requests {
            self.drop_request(uid, id, now);
        }
        self.reseat(uid, seat);
        self.polls.cancel(uid);
        self.report(Report::Lost {
            uid: uid.clone(),
            reason,
        });
    }
}

/// Whether this is a list of resources, and not our own.
pub(super) fn is_list(response: &Response) -> bool {
    response.code == Code::CONTENT
        && matches!(response.format(), None | Some(format::LINK | format::TEXT))
        && response.payload != super::serve::RESOURCES
}
