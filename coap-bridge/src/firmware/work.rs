//! What is asked of a node: one request at a time, those of people before those of routine.

use std::time::{Duration, Instant};

use bus::bridge::{self as orders, Action, Answer, Report, Uid};
use bus::payload::SetMethod;
use bus::time::Now;

use super::Bridge;
use super::access::level;
use super::answers::{failed, no_server, ok, rejected, session_ended};
use super::node::{Current, Turn};
use super::write::{self, Profile};
use crate::endpoint::parameters::MAX_TRANSMIT_WAIT;
use crate::endpoint::{Code, Method, Remote, Request};

/// What a request of ours is for.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// Is the node's server here, and what has it?
    Probe(Remote),
    /// A value, now or whenever it changes.
    Read { path: String, then: Then },
    /// A write for the bus.
    Write {
        path: String,
        id: orders::RequestId,
        deadline: Instant,
    },
    /// A question to a resource, for the bus.
    Fetch { path: String, id: orders::RequestId },
    /// Whether the node answers, for the bus.
    Ping(orders::RequestId),
}

/// What becomes of a value that was read, beside being reported.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    Routine,
    /// The bus asked for it.
    Answer(orders::RequestId),
    /// It confirms a write that got this code.
    Confirm(orders::RequestId, Code),
}

/// Polls of one node are not nearer to each other than this.
const MIN_POLL: Duration = Duration::from_secs(1);

impl Bridge {
    pub(super) fn execute(&mut self, request: orders::Request, now: Now) {
        let uid = request.uid.clone();
        let Some(node) = self.nodes.get_mut(&uid) else {
            return self.answer(
                request.id,
                rejected("the bridge has not heard of the node yet"),
            );
        };
        if request.action == Action::Rediscover {
            if node.seat.server.or(node.seat.source).is_none() {
                let why = self.unreachable(&uid);
                return self.answer(request.id, why);
            }
            node.discovery.asked_by.push(request.id);
            return self.discover(&uid, None, false, now);
        }
        node.urgent.push_back(request);
        // A read that hangs on a lost datagram must not hold up a person.
        let routine = node.current.as_ref().and_then(|current| {
            let path = current.routine.clone()?;
            Some((current.id, path))
        });
        if let Some((id, path)) = routine {
            if let Some(entry) = node.resources.get_mut(&path) {
                entry.observation.take_if(|observation| *observation == id);
            }
            node.reads.push_front(path);
            self.drop_request(&uid, id, now);
        }
        self.pump(&uid, now);
    }

    /// Asks the next thing, unless something is being asked.
    pub(super) fn pump(&mut self, uid: &Uid, now: Now) {
        loop {
            let Some(node) = self.nodes.get_mut(uid) else {
                return;
            };
            if node.current.is_some() {
                return;
            }
            if let Some(request) = node.urgent.pop_front() {
                self.start(uid, request, now);
            } else if node.discovery.turn == Turn::None
                && let Some(path) = node.reads.pop_front()
            {
                self.read(uid, path, Then::Routine, MAX_TRANSMIT_WAIT, now);
            } else {
                return;
            }
        }
    }

    fn start(&mut self, uid: &Uid, request: orders::Request, now: Now) {
        let orders::Request {
            id,
            action,
            deadline,
            ..
        } = request;
        let timeout = deadline.saturating_duration_since(now.mono);
        if timeout.is_zero() {
            // The runtime has answered in our place.
            return;
        }
        match action {
            Action::Get { path } => self.read(uid, path, Then::Answer(id), timeout, now),
            Action::Ping => {
                // Old firmwares don't answer an empty message; every node answers a question.
                let request = Request::new(Method::Get, ".well-known/core");
                self.ask(uid, request, Ask::Ping(id), timeout, now);
            }
            Action::Set {
                path,
                value,
                method,
            } => {
                let node = self.nodes.get(uid);
                let profile = node.map_or(Profile::Limited, |node| node.profile);
                let entry = node.and_then(|node| node.resources.get(&path));
                let listed = entry.and_then(|entry| entry.listed.as_ref());
                let formats = listed.map_or(&[][..], |listed| &listed.formats);
                let last = entry.and_then(|entry| entry.format);
                match write::write(&path, formats, last, &value, profile) {
                    Ok(request) => {
                        let request = write::with_method(request, method, &value);
                        let ask = match method {
                            SetMethod::Fetch => Ask::Fetch { path, id },
                            _ => Ask::Write { path, id, deadline },
                        };
                        self.ask(uid, request, ask, timeout, now);
                    }
                    Err(error) => self.answer(id, rejected(&error.to_string())),
                }
            }
            Action::Rediscover => {}
        }
    }

    /// Sends a request that the bus waits for.
    fn ask(&mut self, uid: &Uid, request: Request, ask: Ask, timeout: Duration, now: Now) {
        let Some(seat) = self.nodes.get(uid).map(|node| node.seat) else {
            return;
        };
        let sent = match seat.server {
            Some(server) => self
                .endpoint
                .request(server, request, timeout, now.mono)
                .map_err(|error| failed(error, &error.to_string())),
            None => Err(self.unreachable(uid)),
        };
        match sent {
            Ok(id) => {
                if let Some(node) = self.nodes.get_mut(uid) {
                    node.current = Some(Current { id, routine: None });
                }
                self.asked.insert(id, (uid.clone(), ask));
            }
            Err(answer) => self.refuse(ask, answer),
        }
    }

    /// Reads a resource; begins or renews its observation when the node offers one.
    pub(super) fn read(
        &mut self,
        uid: &Uid,
        path: String,
        then: Then,
        timeout: Duration,
        now: Now,
    ) {
        self.metrics.reads.inc();
        let request = Request::new(Method::Get, &path);
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let routine = matches!(then, Then::Routine);
        let entry = node.resources.get(&path).filter(|_| routine);
        let offered = entry.is_some_and(|entry| {
            let listed = entry.listed.as_ref();
            listed.is_some_and(|listed| listed.obs)
        });
        if !offered {
            let ask = Ask::Read {
                path: path.clone(),
                then,
            };
            self.ask(uid, request, ask, timeout, now);
        } else if let Some(server) = node.seat.server {
            let renewed = entry
                .and_then(|entry| entry.observation)
                .filter(|id| self.endpoint.renew(*id, timeout, now.mono).is_ok());
            let id = match renewed {
                Some(id) => Ok(id),
                None => self.endpoint.observe(server, request, timeout, now.mono),
            };
            if let Ok(id) = id {
                node.current = Some(Current { id, routine: None });
                let ask = Ask::Read {
                    path: path.clone(),
                    then,
                };
                self.asked.insert(id, (uid.clone(), ask));
            }
        }
        if let Some(node) = self.nodes.get_mut(uid)
            && let Some(current) = node.current.as_mut().filter(|_| routine)
        {
            current.routine = Some(path);
        }
    }

    /// Sees to it that [`Bridge::poll`] comes when something is to be read again. The end of each
    /// request and of each discovery does, too.
    pub(super) fn arm_poll(&mut self, uid: &Uid, now: Now) {
        if self.polls.contains(uid) {
            return;
        }
        let node = self
            .nodes
            .get(uid)
            .filter(|node| node.seat.server.is_some() && node.is_idle());
        if let Some(at) = node.and_then(|node| node.next_poll(&self.rules, now.mono)) {
            self.polls.set(uid.clone(), at.max(now.mono + MIN_POLL));
        }
    }

    /// Reads what is old, from a node that lives.
    pub(super) fn poll(&mut self, uid: &Uid, now: Now) {
        let interval = self.rules.poll_interval;
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let lives = node
            .seen
            .is_some_and(|seen| now.mono.saturating_duration_since(seen) < self.rules.max_time);
        if !lives {
            // The next sign of life begins anew.
            return;
        }
        let list_is_due = node.list_due(&self.rules).is_some_and(|at| at <= now.mono);
        node.queue_reads(interval, now.mono + MIN_POLL, now.mono);
        if list_is_due && node.discovery.turn == Turn::None {
            self.discover(uid, None, false, now);
            if let Some(node) = self.nodes.get_mut(uid) {
                node.discovery.routine = true;
            }
        }
        self.pump(uid, now);
        self.arm_poll(uid, now);
    }

    pub(super) fn answer(&mut self, id: orders::RequestId, answer: Answer) {
        self.report(Report::Answer { id, answer });
    }

    /// Why a node without a known server can't be asked.
    fn unreachable(&self, uid: &Uid) -> Answer {
        match self.access.is_bound(&level(uid)) {
            true => session_ended(),
            false => no_server(),
        }
    }

    /// Ends what could not be asked.
    pub(super) fn refuse(&mut self, ask: Ask, answer: Answer) {
        match ask {
            Ask::Write { id, .. }
            | Ask::Fetch { id, .. }
            | Ask::Ping(id)
            | Ask::Read {
                then: Then::Answer(id),
                ..
            } => self.answer(id, answer),
            // The write itself is done.
            Ask::Read {
                then: Then::Confirm(id, code),
                ..
            } => self.answer(id, ok(code, None)),
            Ask::Read {
                then: Then::Routine,
                ..
            }
            | Ask::Probe(_) => {}
        }
    }
}
