//! The Resource Directory (RFC 9176): nodes that register, with a name, a lifetime and the place of
//! their server, instead of saying that they are alive.
//!
//! - `POST /rd?ep=<name>&d=<sector>&lt=<seconds>&base=coap://<address>:<port>` with a list of links
//!   registers (section 5), `POST /.well-known/rd?ep=<name>` without one, too (section 5.1).
//! - `POST` and `DELETE` at the place that was answered renew and end it (section 5.3), also when the
//!   bridge has started anew meanwhile.
//!
//! Anyone can send a name: a place is believed when it has answered, and `base` names the port of
//! the address that registers, not another address (Deviation: section 5 allows third parties). What
//! is registered can't be looked up here; it is on the bus.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bus::bridge::{Lifetime, Report, Uid};
use bus::payload::Resource;
use bus::time::Now;

use super::node::Node;
use super::places::{self, Host};
use super::{Bridge, COAP_PORT};
use crate::endpoint::options::format;
use crate::endpoint::{Code, Method, Remote, Request, Response, Timers};
use crate::link_format;
use crate::metrics::Refused;

/// A registration without `lt` lasts this long (section 5).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(90_000);
/// Names and sectors have so many bytes at the most (section 5).
const MAX_NAME: usize = 63;

/// The last segment of a registration's path: made from the name, so that a node that registers
/// again finds its old place (section 5), after a restart of the bridge too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Location(u64);

impl Location {
    fn of(uid: &Uid) -> Self {
        let mut hasher = DefaultHasher::new();
        uid.hash(&mut hasher);
        Self(hasher.finish())
    }

    fn parse(segment: &str) -> Option<Self> {
        let wellformed = segment.len() == 16 && !segment.starts_with('+');
        u64::from_str_radix(segment, 16)
            .ok()
            .filter(|_| wellformed)
            .map(Self)
    }

    fn path(self) -> String {
        format!("rd/{:016x}", self.0)
    }
}

#[derive(Debug)]
struct Registration {
    uid: Uid,
    /// Where it was registered from; nobody else may renew or end it. None: nobody without DTLS.
    host: Option<Host>,
    lifetime: Duration,
}

/// Who is registered: nodes that the bridge knows, so as many as those at the most.
#[derive(Debug, Default)]
pub(super) struct Directory {
    registrations: HashMap<Location, Registration>,
    /// Nodes from before the restart, who may have been registered: an update makes sure.
    restored: HashMap<Location, Registration>,
    expiries: Timers<Location>,
}

impl Directory {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.expiries.next()
    }

    pub(super) fn holds(&self, uid: &Uid) -> bool {
        self.registrations.contains_key(&Location::of(uid))
    }

    /// A node is forgotten.
    pub(super) fn forget(&mut self, uid: &Uid) {
        self.remove(Location::of(uid));
    }

    /// A node was known before the restart, with its server there, and registered for so long. Tells
    /// whether it still is.
    pub(super) fn restore(
        &mut self,
        uid: &Uid,
        server: Option<Remote>,
        lifetime: Option<Lifetime>,
        now: Now,
    ) -> bool {
        let seconds = lifetime.map(|lifetime| Duration::from_secs(lifetime.seconds.into()));
        let registration = Registration {
            uid: uid.clone(),
            host: server.map(places::host),
            lifetime: seconds.unwrap_or(DEFAULT_LIFETIME),
        };
        let left = lifetime.map(|lifetime| lifetime.until.saturating_since(now.wall));
        let left = left.filter(|left| !left.is_zero());
        let location = Location::of(uid);
        match left {
            Some(left) => {
                self.registrations.insert(location, registration);
                // The clock may have been set back meanwhile.
                let left = left.min(seconds.unwrap_or(left));
                self.expiries.set(location, now.mono + left);
            }
            None => drop(self.restored.insert(location, registration)),
        }
        left.is_some()
    }

    fn get(&self, location: Location) -> Option<&Registration> {
        let known = self.registrations.get(&location);
        known.or_else(|| self.restored.get(&location))
    }

    fn set(&mut self, location: Location, registration: Registration, now: Now) {
        self.restored.remove(&location);
        self.expiries
            .set(location, now.mono + registration.lifetime);
        self.registrations.insert(location, registration);
    }

    fn remove(&mut self, location: Location) -> Option<Registration> {
        self.expiries.cancel(&location);
        let restored = self.restored.remove(&location);
        self.registrations.remove(&location).or(restored)
    }
}

/// What a request says of an endpoint.
struct Entry {
    uid: Option<Uid>,
    lifetime: Option<Duration>,
    base: Option<Remote>,
}

impl Entry {
    fn parse(request: &Request, peer: Remote) -> Option<Self> {
        let lifetime = match request.query("lt") {
            Some(text) => {
                let seconds = text.parse::<u32>().ok().filter(|seconds| *seconds > 0)?;
                Some(Duration::from_secs(seconds.into()))
            }
            None => None,
        };
        let base = match request.query("base") {
            Some(uri) => Some(place(uri, peer)?),
            None => None,
        };
        Some(Self {
            uid: uid(request),
            lifetime,
            base,
        })
    }
}

/// `ep`, and the sector behind an `@` when there is one: endpoints of several sectors may share a
/// name.
fn uid(request: &Request) -> Option<Uid> {
    let name = |text: &&str| (1..=MAX_NAME).contains(&text.len());
    let endpoint = request.query("ep").filter(name)?;
    match request.query("d") {
        None => Uid::new(endpoint).ok(),
        Some(sector) => {
            let sector = Some(sector).filter(name)?;
            Uid::new(&format!("{endpoint}@{sector}")).ok()
        }
    }
}

/// The place that `base` names: a port of the peer's own address, or its own session.
fn place(uri: &str, peer: Remote) -> Option<Remote> {
    let scheme = match peer {
        Remote::Plain(_) => "coap://",
        Remote::Secure(..) => "coaps://",
    };
    let authority = uri.strip_prefix(scheme)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let literal = || {
        let bare = authority
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let ip: IpAddr = bare.unwrap_or(authority).parse().ok()?;
        Some(SocketAddr::new(ip, COAP_PORT))
    };
    let named: SocketAddr = authority.parse().ok().or_else(literal)?;
    if named.port() == 0 || named.ip() != peer.address().ip() {
        return None;
    }
    Some(match peer {
        // With its interface, which no base names.
        Remote::Plain(mut own) => {
            own.set_port(named.port());
            Remote::Plain(own)
        }
        Remote::Secure(..) => peer,
    })
}

/// The links of a registration.
fn resources(request: &Request) -> Result<Vec<Resource>, Refused> {
    if !matches!(request.format(), None | Some(format::LINK)) {
        return Err(Refused::Format);
    }
    let text = std::str::from_utf8(&request.payload).map_err(|_| Refused::Registration)?;
    Ok(link_format::resources(text))
}

impl Bridge {
    /// A request to the directory at this path below `/rd`, or to `/.well-known/rd`.
    pub(super) fn serve_directory(
        &mut self,
        path: &str,
        peer: Remote,
        request: &Request,
        now: Now,
    ) -> Result<Response, Refused> {
        match (request.method, path) {
            (Method::Post, "rd" | ".well-known/rd") => self.register(path, peer, request, now),
            (_, "rd" | ".well-known/rd") => Err(Refused::Method),
            (Method::Post, path) => self.renew_registration(path, peer, request, now),
            (Method::Delete, path) => self.end_registration(path, peer, now),
            _ => Err(Refused::Method),
        }
    }

    fn register(
        &mut self,
        path: &str,
        peer: Remote,
        request: &Request,
        now: Now,
    ) -> Result<Response, Refused> {
        let entry = Entry::parse(request, peer).ok_or(Refused::Registration)?;
        let uid = entry.uid.ok_or(Refused::Registration)?;
        let uid = self.access.speaker(peer, uid)?;
        let simple = path != "rd";
        if simple && (entry.base.is_some() || !request.payload.is_empty()) {
            return Err(Refused::Registration);
        }
        let resources = resources(request)?;
        let server = entry.base.unwrap_or(peer);
        if peer.session().is_some() {
            self.sit_down(&uid, peer, now);
        }
        if self.nodes.contains_key(&uid) {
            self.handle_registered(&uid, peer, server, now);
        } else {
            self.admit(&uid, peer, Some(server), now)?;
        }
        self.list_registered(&uid, peer, resources, now);
        let location = Location::of(&uid);
        let registration = Registration {
            uid,
            host: Some(places::host(peer)),
            lifetime: entry.lifetime.unwrap_or(DEFAULT_LIFETIME),
        };
        self.set_registration(location, registration, now);
        self.metrics.registrations.inc();
        Ok(match simple {
            true => Response::new(Code::CHANGED),
            false => Response::new(Code::CREATED).with_location(&location.path()),
        })
    }

    /// A registration begins, or goes on, now.
    fn set_registration(&mut self, location: Location, registration: Registration, now: Now) {
        let (uid, host) = (&registration.uid, registration.host);
        let is_there = |node: &Node| host.is_some_and(|host| node.is_at(host));
        if self.nodes.get(uid).is_some_and(is_there) {
            let lifetime = registration.lifetime;
            self.report(Report::Registered {
                uid: uid.clone(),
                lifetime: Lifetime {
                    seconds: lifetime.as_secs().try_into().unwrap_or(u32::MAX),
                    until: now.after(lifetime).wall,
                },
            });
        }
        self.directory.set(location, registration, now);
    }

    /// A node that is known registers, again or for the first time.
    fn handle_registered(&mut self, uid: &Uid, peer: Remote, server: Remote, now: Now) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        if node.is_at(places::host(peer)) {
            node.seen = Some(now.mono);
            let address = node.announced.clone();
            self.report(Report::Announce {
                uid: uid.clone(),
                address,
                reset: false,
            });
        }
        self.consider_at(uid, VecDeque::from([server]), peer, now);
        self.arm_poll(uid, now);
    }

    /// What a registration lists is told at once; what the node's own list says comes in its place.
    fn list_registered(&mut self, uid: &Uid, peer: Remote, resources: Vec<Resource>, now: Now) {
        let host = places::host(peer);
        let Some(node) = self.nodes.get_mut(uid).filter(|node| node.is_at(host)) else {
            return;
        };
        if resources.is_empty() || node.discovery.done {
            return;
        }
        let useless = node.list(&resources);
        for id in useless {
            self.drop_request(uid, id, now);
        }
        self.report(Report::Resources {
            uid: uid.clone(),
            resources,
        });
    }

    fn registered(&self, path: &str, peer: Remote) -> Result<Location, Refused> {
        let segment = path.strip_prefix("rd/").and_then(Location::parse);
        let location = segment.ok_or(Refused::UnknownRegistration)?;
        let registration = self.directory.get(location);
        let registration = registration.ok_or(Refused::UnknownRegistration)?;
        let speaks = self.access.speaker(peer, registration.uid.clone());
        // Over DTLS the name is proven, from wherever the session is.
        match speaks.is_ok()
            && (peer.session().is_some() || registration.host == Some(places::host(peer)))
        {
            true => Ok(location),
            false => Err(Refused::UnknownRegistration),
        }
    }

    fn renew_registration(
        &mut self,
        path: &str,
        peer: Remote,
        request: &Request,
        now: Now,
    ) -> Result<Response, Refused> {
        let location = self.registered(path, peer)?;
        let entry = Entry::parse(request, peer).ok_or(Refused::Registration)?;
        let before = self.directory.remove(location);
        let before = before.ok_or(Refused::UnknownRegistration)?;
        let uid = before.uid.clone();
        let registration = Registration {
            host: Some(places::host(peer)),
            lifetime: entry.lifetime.unwrap_or(before.lifetime),
            ..before
        };
        self.set_registration(location, registration, now);
        if peer.session().is_some() {
            self.sit_down(&uid, peer, now);
        }
        let known = self.nodes.get(&uid).and_then(|node| node.seat.server);
        let server = entry.base.or(known).unwrap_or(peer);
        self.handle_registered(&uid, peer, server, now);
        Ok(Response::new(Code::CHANGED))
    }

    fn end_registration(
        &mut self,
        path: &str,
        peer: Remote,
        now: Now,
    ) -> Result<Response, Refused> {
        let location = self.registered(path, peer)?;
        self.end_registration_at(location, "deregistered", now);
        Ok(Response::new(Code::DELETED))
    }

    /// Ends registrations whose lifetime is over.
    pub(super) fn handle_expiries(&mut self, now: Now) {
        while let Some(location) = self.directory.expiries.pop_due(now.mono) {
            self.end_registration_at(location, "expired", now);
        }
    }

    fn end_registration_at(&mut self, location: Location, reason: &'static str, now: Now) {
        let Some(Registration { uid, host, .. }) = self.directory.remove(location) else {
            return;
        };
        // Somebody else may have registered in its name.
        let is_there = |node: &Node| host.is_some_and(|host| node.is_at(host));
        if self.nodes.get(&uid).is_some_and(is_there) {
            self.retire(&uid, reason, now);
        }
    }
}
