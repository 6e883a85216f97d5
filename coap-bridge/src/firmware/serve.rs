//! What nodes ask of us.

use std::collections::VecDeque;
use std::time::Duration;

use bus::bridge::{Report, Uid};
use bus::time::Now;

use super::node::Node;
use super::places::{self, Seat};
use super::wire::{self, Alive, Unreadable};
use super::{Bridge, MAX_REPORTS};
use crate::endpoint::options::{format, number};
use crate::endpoint::{Code, ExchangeId, Method, Remote, Request, Response};
use crate::link_format::{self, Link};
use crate::metrics::Refused;

/// `reset` and `alive` leave a starting node back to back in any order: within this time they are
/// one start. Firmwares wait 3 s after a boot before they say so, so two starts are further apart.
const START_SPAN: Duration = Duration::from_secs(2);

/// A node that is told 5.03 should try again after so many seconds.
const BUSY_MAX_AGE: u32 = 5;

/// Longer payloads are not repeated in the answer, in bytes.
const MAX_ECHO: usize = 256;

/// What we have ourselves. Less than three times the question: strangers may ask it (RFC 7252
/// section 11.3).
pub(super) const RESOURCES: &str = r#"</alive>,</server>,</rd>;rt="core.rd";ct=40"#;

impl Bridge {
    pub(super) fn serve(
        &mut self,
        exchange: ExchangeId,
        peer: Remote,
        request: &Request,
        multicast: bool,
        now: Now,
    ) {
        let path = request.path();
        // A group is asked who is there, and nothing else (RFC 7252 section 8.2).
        if multicast && (request.method, path.as_deref()) != (Method::Get, Some(".well-known/core"))
        {
            return self.endpoint.ignore(exchange);
        }
        if let Err(refused) = self.access.admits(peer) {
            return self.answer_refused(exchange, request, multicast, refused, now);
        }
        let response = match (request.method, path.as_deref()) {
            (Method::Post, Some("alive")) => self.serve_alive(peer, request, now),
            (Method::Post, Some("server")) => match self.serve_push(peer, request, now) {
                Ok(response) => return self.answer_when_settled(exchange, response, now),
                Err(refused) => Err(refused),
            },
            (Method::Get, Some(".well-known/core")) => {
                let list = list(request);
                // A group is not told that nothing was found (RFC 7252 section 8.2).
                if multicast && list.payload.is_empty() {
                    return self.endpoint.ignore(exchange);
                }
                Ok(list)
            }
            (_, Some(path @ ("rd" | ".well-known/rd"))) => {
                self.serve_directory(path, peer, request, now)
            }
            (_, Some(path)) if path.starts_with("rd/") => {
                self.serve_directory(path, peer, request, now)
            }
            (_, Some("alive" | "server" | ".well-known/core")) => Err(Refused::Method),
            _ => Err(Refused::NotServed),
        };
        match response {
            Ok(response) => self.endpoint.respond(exchange, response, now.mono),
            Err(refused) => self.answer_refused(exchange, request, multicast, refused, now),
        }
    }

    fn answer_refused(
        &mut self,
        exchange: ExchangeId,
        request: &Request,
        multicast: bool,
        refused: Refused,
        now: Now,
    ) {
        self.metrics.refused(refused);
        // Under load an answer that nobody waits for is one more datagram.
        if multicast || (refused == Refused::Overload && !request.confirmable) {
            self.endpoint.ignore(exchange);
        } else {
            self.endpoint.respond(exchange, refusal(refused), now.mono);
        }
    }

    fn serve_alive(
        &mut self,
        peer: Remote,
        request: &Request,
        now: Now,
    ) -> Result<Response, Refused> {
        let mut alive = Alive::parse(&request.payload).ok_or(Refused::Malformed)?;
        alive.uid = self.access.speaker(peer, alive.uid)?;
        if peer.session().is_some() {
            self.sit_down(&alive.uid, peer, now);
        }
        if self.nodes.contains_key(&alive.uid) {
            self.handle_alive(&alive, peer, now);
        } else {
            self.admit(&alive.uid, peer, None, now)?;
        }
        self.metrics.alive.inc();
        Ok(received(request))
    }

    /// A node that was not known; `server`: where its server is, if it says so.
    pub(super) fn admit(
        &mut self,
        uid: &Uid,
        peer: Remote,
        server: Option<Remote>,
        now: Now,
    ) -> Result<(), Refused> {
        self.has_room(peer)?;
        let seat = Seat {
            // Over its own session a node has proven that it is there.
            server: peer.session().map(|_| peer),
            source: Some(peer),
        };
        self.places.reseat(uid, Seat::default(), seat);
        let places = match server {
            Some(server) => (VecDeque::from([server]), false),
            None => self.candidates(uid, peer),
        };
        let address = places.0.front().copied().unwrap_or(peer).to_string();
        let mut node = Node::new(seat, address.clone());
        node.seen = Some(now.mono);
        node.started = Some(now.mono);
        self.insert(uid.clone(), node);
        self.report(Report::Announce {
            uid: uid.clone(),
            address,
            reset: false,
        });
        self.discover_at(uid, places, Some(peer), false, now);
        Ok(())
    }

    /// Whether a further node is taken. Those that anybody can make up leave room for those that have
    /// proven their name.
    fn has_room(&self, peer: Remote) -> Result<(), Refused> {
        let is_plain = peer.session().is_none();
        let reserved = if is_plain { self.access.bound() } else { 0 };
        let rules = &self.rules;
        if self.nodes.len() >= rules.max_nodes {
            return Err(Refused::TooManyNodes);
        }
        if is_plain && self.places.plain() >= rules.max_nodes.saturating_sub(reserved) {
            return Err(Refused::TooManyNodes);
        }
        if is_plain && self.places.count(peer) >= rules.max_nodes_per_address {
            return Err(Refused::TooManyAtAddress);
        }
        Ok(())
    }

    fn handle_alive(&mut self, alive: &Alive, peer: Remote, now: Now) {
        let Alive { uid, reset } = alive;
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let seat = node.seat;
        // Anyone can send this uid from anywhere; a new place is believed when it has answered. A
        // node whose server was never found can't be asked.
        let moved = seat
            .server
            .is_some_and(|server| places::host(server) != places::host(peer));
        if moved {
            return self.consider(uid, peer, *reset, now);
        }
        let recent = node
            .started
            .is_some_and(|at| now.mono.saturating_duration_since(at) < START_SPAN);
        let restarted = *reset && !recent;
        if restarted {
            node.started = Some(now.mono);
        }
        node.seen = Some(now.mono);
        let address = node.announced.clone();
        let rediscover = restarted || !node.discovery.done;
        // Its server answers at another port than it sends from, unless that is the standard port.
        let other_port = !self.directory.holds(uid)
            && seat.server.is_some_and(|server| {
                server != peer && server.address().port() != super::COAP_PORT
            });
        self.reseat(
            uid,
            Seat {
                source: Some(peer),
                ..seat
            },
        );
        self.report(Report::Announce {
            uid: uid.clone(),
            address,
            reset: restarted,
        });
        if rediscover || other_port {
            self.consider(uid, peer, false, now);
        }
        self.arm_poll(uid, now);
    }

    /// Takes what was pushed; the answer is for when it can't be lost any more.
    fn serve_push(
        &mut self,
        peer: Remote,
        request: &Request,
        now: Now,
    ) -> Result<Response, Refused> {
        if self.sheds(request.confirmable) {
            return Err(Refused::Overload);
        }
        let content_format = request.options.uint(number::CONTENT_FORMAT);
        let content_format = match content_format.map(u16::try_from) {
            None => None,
            Some(known) => Some(known.map_err(|_| Refused::Format)?),
        };
        let readings = wire::pushed(content_format, &request.payload, now.wall);
        let readings = readings.map_err(|error| match error {
            Unreadable::Malformed => Refused::Malformed,
            Unreadable::Format => Refused::Format,
        })?;
        // All of it, or nothing.
        if self.reports.len() + readings.len() > MAX_REPORTS {
            return Err(Refused::Overload);
        }
        let uid = self.places.find(peer).ok_or(Refused::UnknownNode)?.clone();
        let uid = self.access.speaker(peer, uid)?;
        let node = self.nodes.get_mut(&uid).ok_or(Refused::UnknownNode)?;
        node.seen = Some(now.mono);
        if !self.report_readings(&uid, readings, now) {
            return Err(Refused::TooManyResources);
        }
        self.metrics.pushes.inc();
        self.arm_poll(&uid, now);
        Ok(received(request))
    }
}

/// 2.04, as Pyaiot's gateway words it; old firmwares never read it, so a Non-confirmable request
/// gets no words.
fn received(request: &Request) -> Response {
    let response = Response::new(Code::CHANGED);
    match std::str::from_utf8(&request.payload) {
        Ok(text) if request.confirmable && text.len() <= MAX_ECHO => {
            response.with_payload(format!("Received '{text}'"))
        }
        _ => response,
    }
}

fn list(request: &Request) -> Response {
    match request.options.uint(number::ACCEPT) {
        Some(accept) if accept != u32::from(format::LINK) => Response::new(Code::NOT_ACCEPTABLE),
        _ if request.queries().next().is_none() => Response::content(format::LINK, RESOURCES),
        _ => {
            let links = link_format::parse(RESOURCES);
            let wanted = |link: &&Link| request.queries().all(|argument| link.matches(argument));
            let list = link_format::write(links.iter().filter(wanted));
            Response::content(format::LINK, list)
        }
    }
}

fn refusal(refused: Refused) -> Response {
    let say = |code, text: &'static str| Response::new(code).with_payload(text);
    match refused {
        Refused::Malformed => say(Code::BAD_REQUEST, "send <word>:<text>"),
        Refused::Format => say(
            Code::UNSUPPORTED_CONTENT_FORMAT,
            "send text, JSON, CBOR or SenML",
        ),
        Refused::UnknownNode => say(Code::NOT_FOUND, "send /alive first, from the same port"),
        Refused::NotServed => Response::new(Code::NOT_FOUND),
        Refused::Method => Response::new(Code::METHOD_NOT_ALLOWED),
        Refused::Registration => say(
            Code::BAD_REQUEST,
            "send ep=<name>, lt=<seconds>, base=<scheme>://<your address>:<port>",
        ),
        Refused::UnknownRegistration => say(Code::NOT_FOUND, "register anew"),
        Refused::WrongIdentity => say(Code::FORBIDDEN, "this is another node's name"),
        Refused::DtlsRequired | Refused::BoundToDtls => say(Code::UNAUTHORIZED, "use coaps"),
        Refused::TooManyResources => say(Code::FORBIDDEN, "too many resources"),
        Refused::TooManyNodes | Refused::TooManyAtAddress | Refused::Overload => {
            Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(BUSY_MAX_AGE)
        }
    }
}
