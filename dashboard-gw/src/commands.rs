//! Requests to nodes: written to the bus with an id of the gateway's own, answered exactly once.
//!
//! A machine. `T` is whatever the answer goes to. The bridge that owns the node answers on the
//! bus; a request whose answer does not come is answered here [`SLACK`] after its timeout.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bus::id::{NodeId, ResourceId};
use bus::payload::{Ack, AckStatus};
use bus::session::Publication;
use bus::topic::{NodeCommand, Topic};
use serde_json::{Value, json};

use crate::model::Model;

/// How much longer than the bridge the gateway waits.
pub(crate) const SLACK: Duration = Duration::from_secs(2);
/// The most requests of one client that wait; more are rejected.
const PER_CLIENT: usize = 32;
/// The most requests that wait; more are rejected.
const TOTAL: usize = 1024;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientId(pub(crate) u64);

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    /// Write a resource.
    Set(NodeId, ResourceId, Value),
    /// Read a resource from the node now.
    Get(NodeId, ResourceId),
    /// Something about the node as a whole.
    Command(NodeId, NodeCommand),
}

impl Request {
    /// The word that the ack's `op` carries.
    pub(crate) fn op(&self) -> &'static str {
        match self {
            Self::Set(..) => "set",
            Self::Get(..) => "get",
            Self::Command(_, command) => command.as_str(),
        }
    }

    pub(crate) fn node(&self) -> &NodeId {
        match self {
            Self::Set(node, ..) | Self::Get(node, _) | Self::Command(node, _) => node,
        }
    }

    fn topic(&self) -> Topic {
        match self.clone() {
            Self::Set(node, resource, _) => Topic::Set(node, resource),
            Self::Get(node, resource) => Topic::Get(node, resource),
            Self::Command(node, command) => Topic::Command(node, command),
        }
    }

    fn answered_on(&self) -> Topic {
        match self.clone() {
            Self::Set(node, resource, _) | Self::Get(node, resource) => Topic::Ack(node, resource),
            Self::Command(node, command) => Topic::CommandAck(node, command),
        }
    }
}

/// An answer that did not come from a bridge.
pub(crate) fn own_ack(op: &str, status: AckStatus, words: &str) -> Ack {
    Ack {
        id: None,
        op: op.to_owned(),
        status,
        code: None,
        v: None,
        ms: 0,
        error: Some(words.to_owned()),
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Asked<T> {
    /// It is to be published; the id is for [`Commands::withdraw`], should that fail.
    Publish(String, Publication),
    /// It can't be done: the answer, and where it goes.
    Answer(T, Ack),
}

#[derive(Debug)]
struct Waiting<T> {
    client: ClientId,
    topic: Topic,
    op: &'static str,
    since: Instant,
    deadline: Instant,
    to: T,
}

/// The requests that wait for their answer.
#[derive(Debug)]
pub(crate) struct Commands<T> {
    /// Makes the ids unique among all gateways and all their runs.
    run: String,
    next: u64,
    timeout: Duration,
    waiting: HashMap<String, Waiting<T>>,
    deadlines: BTreeSet<(Instant, String)>,
    stopping: bool,
}

impl<T> Commands<T> {
    /// `run` names this run of the gateway; `timeout` is how long a bridge may take.
    pub(crate) fn new(run: String, timeout: Duration) -> Self {
        Self {
            run,
            next: 0,
            timeout,
            waiting: HashMap::new(),
            deadlines: BTreeSet::new(),
            stopping: false,
        }
    }

    /// Takes a request.
    pub(crate) fn handle_request(
        &mut self,
        model: &Model,
        client: ClientId,
        request: &Request,
        to: T,
        now: Instant,
    ) -> Asked<T> {
        if let Some(words) = self.objection(model, client, request) {
            return Asked::Answer(to, own_ack(request.op(), AckStatus::Rejected, words));
        }
        self.next += 1;
        let id = format!("{}-{}", self.run, self.next);
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let payload = match request {
            Request::Set(_, _, v) => json!({"v": v, "id": id, "timeout_ms": timeout_ms}),
            Request::Get(..) | Request::Command(..) => json!({"id": id, "timeout_ms": timeout_ms}),
        };
        let topic = model.base().topic(&request.topic());
        let mut publication = Publication::passing(topic, payload.to_string());
        // Should the bus be away just now, an old request must not fire when it is back.
        publication.expiry = u32::try_from(self.timeout.as_secs().max(1)).ok();
        let deadline = now + self.timeout + SLACK;
        self.deadlines.insert((deadline, id.clone()));
        let waiting = Waiting {
            client,
            topic: request.answered_on(),
            op: request.op(),
            since: now,
            deadline,
            to,
        };
        self.waiting.insert(id.clone(), waiting);
        Asked::Publish(id, publication)
    }

    /// Why a request can't even be asked.
    fn objection(
        &self,
        model: &Model,
        client: ClientId,
        request: &Request,
    ) -> Option<&'static str> {
        if self.stopping {
            return Some("the dashboard is being stopped: try again in a moment");
        }
        let of_client = self.waiting.values().filter(|w| w.client == client);
        if of_client.count() >= PER_CLIENT {
            return Some("too many of your requests wait for their answers: wait for some of them");
        }
        if self.waiting.len() >= TOTAL {
            return Some("too many requests wait for their answers: try again in a moment");
        }
        if !model.bus().connected {
            return Some("the dashboard is not connected to the bus: try again when it is");
        }
        let Some(node) = model.node_descriptor(request.node()) else {
            return Some(if model.knows_node(request.node()) {
                "nobody knows yet which bridge this node belongs to: try again in a moment"
            } else {
                "there is no such node"
            });
        };
        if model.bridge_is_online(&node.bridge) != Some(true) {
            return Some("the bridge of this node is offline, so the node can't be reached");
        }
        None
    }

    /// Takes back a request that could not be published.
    pub(crate) fn withdraw(&mut self, id: &str) -> Option<T> {
        let waiting = self.waiting.remove(id)?;
        self.deadlines.remove(&(waiting.deadline, id.to_owned()));
        Some(waiting.to)
    }

    /// Takes an ack of the bus; gives it back with where it goes, when it answers one of ours.
    pub(crate) fn handle_ack(&mut self, topic: &Topic, ack: Ack) -> Option<(T, Ack)> {
        let id = ack.id.as_deref()?;
        let waiting = self.waiting.get(id)?;
        // An ack on another topic is somebody's mistake or lie.
        if waiting.topic != *topic || waiting.op != ack.op {
            return None;
        }
        let to = self.withdraw(id)?;
        Some((to, ack))
    }

    /// When to call [`Commands::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Ends one request whose time is over; call it until it gives none.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<(T, Ack)> {
        let (deadline, _) = self.deadlines.first()?;
        if now < *deadline {
            return None;
        }
        self.end_first(
            now,
            AckStatus::Timeout,
            "the bridge of this node did not answer in time: see whether it still runs",
        )
    }

    /// Ends one request because the gateway stops; call it until it gives none. From here on none
    /// is taken.
    pub(crate) fn handle_stop(&mut self, now: Instant) -> Option<(T, Ack)> {
        self.stopping = true;
        self.end_first(
            now,
            AckStatus::Error,
            "the dashboard is being stopped: look at the value to see whether it was done",
        )
    }

    fn end_first(&mut self, now: Instant, status: AckStatus, words: &str) -> Option<(T, Ack)> {
        let (_, id) = self.deadlines.pop_first()?;
        let waiting = self.waiting.remove(&id)?;
        let ms = now.saturating_duration_since(waiting.since).as_millis();
        let ack = Ack {
            id: Some(id),
            ms: u64::try_from(ms).unwrap_or(u64::MAX),
            ..own_ack(waiting.op, status, words)
        };
        Some((waiting.to, ack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{bridge_offline, connected_model, node};

    const CLIENT: ClientId = ClientId(1);
    const TIMEOUT: Duration = Duration::from_secs(5);

    struct Rig {
        model: Model,
        commands: Commands<u32>,
        now: Instant,
    }

    fn rig() -> Rig {
        let now = bus::time::now();
        let mut model = connected_model(now);
        node(&mut model, "n1", "coap", now);
        Rig {
            model,
            commands: Commands::new("run".to_owned(), TIMEOUT),
            now: now.mono,
        }
    }

    fn led(value: Value) -> Request {
        Request::Set(NodeId::from_text("n1"), ResourceId::from_text("led"), value)
    }

    impl Rig {
        fn ask(&mut self, request: &Request, to: u32) -> Asked<u32> {
            (self.commands).handle_request(&self.model, CLIENT, request, to, self.now)
        }

        #[track_caller]
        fn published(&mut self, request: &Request, to: u32) -> (String, Publication) {
            match self.ask(request, to) {
                Asked::Publish(id, publication) => (id, publication),
                Asked::Answer(_, ack) => panic!("{ack:?}"),
            }
        }

        #[track_caller]
        fn answered(&mut self, request: &Request, to: u32) -> (u32, Ack) {
            match self.ask(request, to) {
                Asked::Publish(..) => panic!("it was published"),
                Asked::Answer(to, ack) => (to, ack),
            }
        }
    }

    fn ack(id: &str) -> Ack {
        Ack {
            id: Some(id.to_owned()),
            status: AckStatus::Ok,
            error: None,
            ..own_ack("set", AckStatus::Ok, "")
        }
    }

    #[test]
    fn a_request_is_published_and_answered_once() {
        let mut rig = rig();
        let (id, publication) = rig.published(&led(json!(1)), 7);
        assert_eq!(publication.topic, "nodebus/v1/nodes/n1/res/led/set");
        let payload: Value = serde_json::from_slice(&publication.payload).unwrap();
        assert_eq!(payload, json!({"v": 1, "id": id, "timeout_ms": 5000}));
        assert!(!publication.retain);
        let topic = led(json!(1)).answered_on();
        let answer = rig.commands.handle_ack(&topic, ack(&id));
        assert_eq!(answer, Some((7, ack(&id))));
        assert_eq!(rig.commands.handle_ack(&topic, ack(&id)), None);
        assert_eq!(rig.commands.poll_timeout(), None);
    }

    #[test]
    fn an_ack_of_others_is_not_ours() {
        let mut rig = rig();
        let (id, _) = rig.published(&led(json!(1)), 7);
        let topic = led(json!(1)).answered_on();
        let other = Topic::Ack(NodeId::from_text("n2"), ResourceId::from_text("led"));
        assert_eq!(rig.commands.handle_ack(&other, ack(&id)), None);
        assert_eq!(rig.commands.handle_ack(&topic, ack("else")), None);
        let get = Ack {
            op: "get".to_owned(),
            ..ack(&id)
        };
        assert_eq!(rig.commands.handle_ack(&topic, get), None);
        assert!(rig.commands.handle_ack(&topic, ack(&id)).is_some());
    }

    #[test]
    fn silence_is_answered_in_words() {
        let mut rig = rig();
        let (id, _) = rig.published(&led(json!(1)), 7);
        let due = rig.now + TIMEOUT + SLACK;
        assert_eq!(rig.commands.poll_timeout(), Some(due));
        assert_eq!(rig.commands.handle_timeout(due - SLACK), None);
        let (to, answer) = rig.commands.handle_timeout(due).unwrap();
        assert_eq!((to, answer.status), (7, AckStatus::Timeout));
        assert!(answer.error.unwrap().contains("did not answer in time"));
        let topic = led(json!(1)).answered_on();
        assert_eq!(rig.commands.handle_ack(&topic, ack(&id)), None, "too late");
    }

    #[track_caller]
    fn rejected(rig: &mut Rig, request: &Request, words: &str) {
        let (to, answer) = rig.answered(request, 7);
        assert_eq!((to, answer.status), (7, AckStatus::Rejected));
        let error = answer.error.unwrap();
        assert!(error.contains(words), "{error}");
        assert_eq!(rig.commands.poll_timeout(), None);
    }

    #[test]
    fn what_can_not_be_done_is_said_at_once() {
        let mut rig = rig();
        let now = bus::time::now();
        let nobody = Request::Get(NodeId::from_text("nobody"), ResourceId::from_text("led"));
        rejected(&mut rig, &nobody, "no such node");
        bridge_offline(&mut rig.model, "coap", now);
        rejected(&mut rig, &led(json!(1)), "bridge of this node is offline");
        rig.model.handle_disconnected(now);
        rejected(&mut rig, &led(json!(1)), "not connected to the bus");
    }

    #[test]
    fn one_client_can_not_take_all_the_room() {
        let mut rig = rig();
        for to in 0..32 {
            rig.published(&led(json!(to)), to);
        }
        let (_, answer) = rig.answered(&led(json!(0)), 99);
        assert!(answer.error.unwrap().contains("too many of your requests"));
        let other = ClientId(2);
        let other = (rig.commands).handle_request(&rig.model, other, &led(json!(0)), 0, rig.now);
        assert!(matches!(other, Asked::Publish(..)));
    }

    #[test]
    fn a_stop_answers_all_that_wait() {
        let mut rig = rig();
        rig.published(&led(json!(0)), 1);
        rig.published(&led(json!(1)), 2);
        let ended: Vec<_> = std::iter::from_fn(|| rig.commands.handle_stop(rig.now)).collect();
        assert_eq!(ended.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2]);
        rejected(&mut rig, &led(json!(1)), "being stopped");
    }
}
