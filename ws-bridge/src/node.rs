//! One connection of a node as a machine: messages, requests and time in; frames, reports and a
//! deadline out. No socket, no clock.
//!
//! Drain after each input: [`Node::poll_report`], then [`Node::poll_transmit`]. When
//! [`Node::closing`] gives a reason, send that and nothing more.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bus::bridge::{Action, Answer, Report, Request, RequestId, Sample, Uid};
use bus::payload::{AckStatus, SetMethod};
use bus::time::Now;
use serde_json::Value;

use crate::close::Close;
use crate::message::{self, Invalid, Message};

/// How many resources a node may name over the life of its connection.
pub(crate) const MAX_RESOURCES: usize = 256;

/// How many requests may wait for the node; further ones are rejected.
pub(crate) const MAX_PENDING: usize = 64;

/// How many frames may wait for the socket; while they do, requests are rejected.
pub(crate) const MAX_OUTGOING: usize = 64;

/// How many pings may stay unanswered before the node counts as lost.
const MAX_UNANSWERED: u32 = 2;

/// What bounds a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Between two pings.
    pub(crate) ping_interval: Duration,
    /// Sustained rate of messages; a burst may have twice as many.
    pub(crate) messages_per_second: u32,
}

/// What goes to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A text message.
    Text(String),
    /// A Ping with its number.
    Ping(u64),
}

#[derive(Debug)]
enum Waits {
    Set { path: String, value: Value },
    Get { path: String },
    Ping(u64),
    Update,
}

#[derive(Debug)]
struct Pending {
    id: RequestId,
    deadline: Instant,
    waits: Waits,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Node {
    limits: Limits,
    /// The hello's, or the one for a node without a hello.
    uid: Uid,
    address: String,
    said_hello: bool,
    announced: bool,
    /// Resource to whether its last value was text.
    resources: BTreeMap<String, bool>,
    pending: Vec<Pending>,
    frames: VecDeque<Frame>,
    /// Bounded by what one input makes; the driver drains them before the next.
    reports: VecDeque<Report>,
    closing: Option<Close>,
    ping_at: Instant,
    pings: u64,
    unanswered: u32,
    /// When the messages so far would all have come at the sustained rate.
    paid_until: Instant,
    paused_until: Option<Instant>,
}

impl Node {
    /// A connection that was just opened; `random` is its uid unless it says hello.
    pub(crate) fn new(random: Uid, address: String, limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            uid: random,
            address,
            said_hello: false,
            announced: false,
            resources: BTreeMap::new(),
            pending: Vec::new(),
            frames: VecDeque::from([Frame::Text(message::discover())]),
            reports: VecDeque::new(),
            closing: None,
            ping_at: now + limits.ping_interval,
            pings: 0,
            unanswered: 0,
            paid_until: now,
            paused_until: None,
        }
    }

    /// Whose connection it is; final once a [`Report::Announce`] was given.
    pub(crate) fn uid(&self) -> &Uid {
        &self.uid
    }

    /// A text message came.
    pub(crate) fn handle_text(&mut self, text: &str, now: Now) {
        self.heard(now.mono);
        let outcome = match Message::parse(text) {
            Ok(Message::Hello(uid)) => self.hello(uid),
            Ok(Message::Update(data)) => self.update(data, now),
            Ok(Message::Other) => Ok(()),
            Err(why) => Err(why),
        };
        if let Err(why) = outcome {
            self.closing = Some(Close::Invalid(why));
        }
    }

    /// A binary message came.
    pub(crate) fn handle_binary(&mut self) {
        self.closing = Some(Close::Invalid(Invalid::Binary));
    }

    /// A Ping of the node came; the WebSocket layer answers it.
    pub(crate) fn handle_ping(&mut self, now: Now) {
        self.heard(now.mono);
        self.seen();
    }

    /// A Pong came.
    pub(crate) fn handle_pong(&mut self, payload: &[u8], now: Now) {
        self.heard(now.mono);
        self.seen();
        // An unsolicited Pong is allowed and answers nothing (RFC 6455 section 5.5.3).
        if let Ok(number) = payload.try_into().map(u64::from_be_bytes) {
            self.answer_where(|waits| matches!(waits, Waits::Ping(n) if *n <= number));
        }
    }

    /// The bus asks for something.
    pub(crate) fn handle_request(&mut self, request: Request, now: Instant) {
        self.pending.retain(|pending| pending.deadline > now);
        if self.pending.len() >= MAX_PENDING || self.frames.len() >= MAX_OUTGOING {
            let why = "too many requests wait for the node";
            self.answer(request.id, refusal(AckStatus::Rejected, why));
            return;
        }
        let (frame, waits) = match request.action {
            Action::Set { method, .. } if method != SetMethod::Put => {
                let why = "a WebSocket node takes the method put only";
                self.answer(request.id, refusal(AckStatus::Rejected, why));
                return;
            }
            Action::Set { path, value, .. } => {
                let value = self.as_the_node_writes(&path, value);
                let frame = Frame::Text(message::write(&path, &value));
                (frame, Waits::Set { path, value })
            }
            Action::Get { path } => (Frame::Text(message::discover()), Waits::Get { path }),
            Action::Rediscover => (Frame::Text(message::discover()), Waits::Update),
            Action::Ping => {
                self.pings += 1;
                (Frame::Ping(self.pings), Waits::Ping(self.pings))
            }
        };
        self.frames.push_back(frame);
        self.pending.push(Pending {
            id: request.id,
            deadline: request.deadline,
            waits,
        });
    }

    /// Time passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if now < self.ping_at {
            return;
        }
        if self.unanswered >= MAX_UNANSWERED {
            self.closing = Some(Close::Unanswered);
            return;
        }
        self.unanswered += 1;
        self.ping_at = now + self.limits.ping_interval;
        if self.frames.len() < MAX_OUTGOING {
            self.pings += 1;
            self.frames.push_back(Frame::Ping(self.pings));
        }
    }

    /// The connection ends, from this side or the other: whoever waits is told.
    pub(crate) fn handle_end(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            let why = "the node's connection ended before it answered";
            self.answer(pending.id, refusal(AckStatus::Error, why));
        }
    }

    /// What the end of the connection means for the node: one without a hello gets another uid next
    /// time, so that this one is never heard of again.
    pub(crate) fn farewell(&self, reason: &'static str) -> Report {
        let uid = self.uid.clone();
        if self.said_hello {
            Report::Lost { uid, reason }
        } else {
            Report::Gone { uid, reason }
        }
    }

    /// What the registry is to be told next.
    pub(crate) fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// What the node is to be sent next.
    pub(crate) fn poll_transmit(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// Why the connection must end, if it must.
    pub(crate) fn closing(&self) -> Option<Close> {
        self.closing
    }

    /// Whether messages may be read; not while the node is over its rate.
    pub(crate) fn wants_input(&self) -> bool {
        self.paused_until.is_none()
    }

    /// When [`Node::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.paused_until
            .map_or(self.ping_at, |until| until.min(self.ping_at))
    }

    /// Any frame is a sign of life, and costs a share of the rate.
    fn heard(&mut self, now: Instant) {
        self.unanswered = 0;
        let second = Duration::from_secs(1);
        let share = second / self.limits.messages_per_second;
        self.paid_until = self.paid_until.max(now) + share;
        let burst = 2 * second;
        if self.paid_until > now + burst {
            self.paused_until = self.paid_until.checked_sub(burst);
        }
    }

    fn seen(&mut self) {
        if self.announced {
            let uid = self.uid.clone();
            self.reports.push_back(Report::Seen { uid });
        }
    }

    fn announce(&mut self) {
        self.announced = true;
        self.reports.push_back(Report::Announce {
            uid: self.uid.clone(),
            address: self.address.clone(),
            reset: false,
        });
    }

    fn hello(&mut self, uid: Uid) -> Result<(), Invalid> {
        if self.said_hello || self.announced {
            return Err(Invalid::LateHello);
        }
        self.said_hello = true;
        self.uid = uid;
        self.announce();
        Ok(())
    }

    /// A node without a hello is announced at its first update, so that its hello may come before
    /// or after the discover.
    fn update(&mut self, data: serde_json::Map<String, Value>, now: Now) -> Result<(), Invalid> {
        if !self.announced {
            self.announce();
        }
        if data.is_empty() {
            self.seen();
        }
        for (path, value) in data {
            if !self.resources.contains_key(&path) && self.resources.len() >= MAX_RESOURCES {
                return Err(Invalid::TooManyResources);
            }
            self.resources.insert(path.clone(), value.is_string());
            let sample = Sample::from_json(value);
            let v = sample.v.clone();
            self.reports.push_back(Report::Reading {
                uid: self.uid.clone(),
                path: path.clone(),
                sample,
                ts: now.wall,
            });
            self.confirm(&path, &v);
        }
        self.answer_where(|waits| matches!(waits, Waits::Update));
        Ok(())
    }

    /// The node told the value of a resource. That answers all reads of it, and of its writes those
    /// up to the last one of this value; if none has this value, the oldest: the node decided so.
    fn confirm(&mut self, path: &str, v: &Value) {
        let written = |pending: &Pending| match &pending.waits {
            Waits::Set { path: p, value } if p == path => Some(Sample::from_json(value.clone()).v),
            _ => None,
        };
        let same = |pending| written(pending).as_ref() == Some(v);
        let up_to = (self.pending.iter().rposition(same))
            .or_else(|| self.pending.iter().position(|p| written(p).is_some()));
        let mut index = 0;
        let confirmed = |pending: &mut Pending| {
            let among = up_to.is_some_and(|last| index <= last);
            index += 1;
            match &pending.waits {
                Waits::Set { path: p, .. } => among && p == path,
                Waits::Get { path: p } => p == path,
                Waits::Ping(_) | Waits::Update => false,
            }
        };
        for pending in self.pending.extract_if(.., confirmed) {
            let (id, answer) = (pending.id, success(Some(v)));
            self.reports.push_back(Report::Answer { id, answer });
        }
    }

    fn answer_where(&mut self, fits: impl Fn(&Waits) -> bool) {
        for pending in self.pending.extract_if(.., |pending| fits(&pending.waits)) {
            let (id, answer) = (pending.id, success(None));
            self.reports.push_back(Report::Answer { id, answer });
        }
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        self.reports.push_back(Report::Answer { id, answer });
    }

    /// Pyaiot's nodes give and take text, others numbers: a node that gave a resource as text gets
    /// numbers and booleans for it as text.
    fn as_the_node_writes(&self, path: &str, value: Value) -> Value {
        match value {
            Value::Number(_) | Value::Bool(_) if self.resources.get(path) == Some(&true) => {
                Value::String(value.to_string())
            }
            value => value,
        }
    }
}

fn success(v: Option<&Value>) -> Answer {
    Answer {
        status: AckStatus::Ok,
        code: None,
        v: v.cloned(),
        error: None,
    }
}

pub(crate) fn refusal(status: AckStatus, why: &str) -> Answer {
    Answer {
        status,
        code: None,
        v: None,
        error: Some(why.to_owned()),
    }
}

#[cfg(test)]
mod tests;
