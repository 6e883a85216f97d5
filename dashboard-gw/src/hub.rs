//! The one place where the model, the requests and the Pyaiot feed meet: the bus's messages come in,
//! clients are told and asked.
//!
//! Everything stands behind one lock, never held across an await. It does no IO: what is to be
//! published goes through the function it was given.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use bus::id::NodeId;
use bus::payload::{Ack, AckStatus};
use bus::session::{Message, Publication, PublishError};
use bus::time::Now;
use bus::topic::Base;
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::client::{Client, Frame};
use crate::commands::{Asked, ClientId, Commands, Request, own_ack};
use crate::message::{Node, ServerMessage};
use crate::metrics::{Kind, Metrics, Refusal, Sent};
use crate::model::{Limits, Model, Taken};
use crate::pyaiot::{self, Feed};

/// Messages that wait for one Pyaiot client; full means that it is closed with 1013. The texts are
/// shared by all clients.
const FEED_QUEUE: usize = 4096;

/// Puts a message on the bus.
pub(crate) type Publish = Box<dyn Fn(Publication) -> Result<(), PublishError> + Send + Sync>;

/// What a hub is made of.
pub(crate) struct Settings {
    pub(crate) base: Base,
    pub(crate) limits: Limits,
    /// Names this run of the gateway.
    pub(crate) stream: String,
    pub(crate) command_timeout: Duration,
    pub(crate) max_clients: usize,
    pub(crate) can_write: bool,
    pub(crate) demo_command: String,
    pub(crate) coap_address: String,
    pub(crate) mqtt_port: u16,
}

struct Core {
    model: Model,
    commands: Commands<oneshot::Sender<Ack>>,
    feed: Feed,
    feed_clients: Vec<mpsc::Sender<Utf8Bytes>>,
    /// The last frames made, since many pages stand at the same change.
    snapshot: Option<(u64, Utf8Bytes)>,
    delta: Option<(u64, u64, Made)>,
    next_client: u64,
}

/// A frame of changes, ready to be sent.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) text: Utf8Bytes,
    conflated: u64,
}

/// What the clients share.
pub(crate) struct Hub {
    core: Mutex<Core>,
    publish: Publish,
    settings: Settings,
    pub(crate) metrics: Metrics,
    /// The number of the last change, for whoever waits for one.
    rev: watch::Sender<u64>,
    /// Woken when [`Hub::poll_timeout`] may be earlier than it was.
    pub(crate) sooner: Notify,
    room: Arc<Semaphore>,
}

/// A client's place among the others; given back when it is dropped.
pub(crate) struct Seat {
    pub(crate) id: ClientId,
    kind: Kind,
    metrics: Metrics,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.metrics.client_left(self.kind);
    }
}

impl Hub {
    pub(crate) fn new(settings: Settings, publish: Publish, metrics: Metrics, now: Now) -> Self {
        let core = Core {
            model: Model::new(settings.base.clone(), settings.limits, now),
            commands: Commands::new(settings.stream.clone(), settings.command_timeout),
            feed: Feed::default(),
            feed_clients: Vec::new(),
            snapshot: None,
            delta: None,
            next_client: 0,
        };
        Self {
            core: Mutex::new(core),
            publish,
            metrics,
            rev: watch::Sender::new(0),
            sooner: Notify::new(),
            room: Arc::new(Semaphore::new(settings.max_clients)),
            settings,
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on what changed, while nothing else can change.
    fn tell(&self, core: &mut Core) {
        while let Some(key) = core.model.poll_change() {
            let messages = core.feed.handle_change(&core.model, &key);
            let messages: Vec<Utf8Bytes> = messages.into_iter().map(Into::into).collect();
            core.feed_clients.retain(|client| {
                let behind = |text: &Utf8Bytes| client.try_send(text.clone()).is_err();
                let is_behind = messages.iter().any(behind);
                if is_behind && !client.is_closed() {
                    self.metrics.slow(Kind::Pyaiot);
                }
                !is_behind
            });
        }
        let rev = core.model.rev();
        self.rev
            .send_if_modified(|known| std::mem::replace(known, rev) != rev);
    }

    pub(crate) fn handle_connected(&self, now: Now) {
        let mut core = self.core();
        core.model.handle_connected(now);
        self.tell(&mut core);
    }

    pub(crate) fn handle_disconnected(&self, now: Now) {
        let mut core = self.core();
        core.model.handle_disconnected(now);
        self.tell(&mut core);
    }

    pub(crate) fn handle_message(&self, message: &Message, now: Now) {
        self.metrics.messages.inc();
        let mut core = self.core();
        let Message {
            topic,
            payload,
            retain,
            ..
        } = message;
        match core.model.handle_message(topic, payload, *retain, now) {
            Ok(Taken::State) => self.tell(&mut core),
            Ok(Taken::Ack(topic, ack)) => {
                if let Some((to, ack)) = core.commands.handle_ack(&topic, ack) {
                    self.answer(to, ack);
                }
            }
            Ok(Taken::Other) => {}
            Err(reason) => {
                self.metrics.dropped(reason);
                tracing::debug!(
                    mqtt.topic = topic,
                    ?reason,
                    "a message of the bus was not taken"
                );
            }
        }
    }

    /// When to call [`Hub::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<std::time::Instant> {
        let core = self.core();
        let times = [core.model.poll_timeout(), core.commands.poll_timeout()];
        times.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&self, now: Now) {
        let mut core = self.core();
        core.model.handle_timeout(now);
        self.tell(&mut core);
        while let Some((to, ack)) = core.commands.handle_timeout(now.mono) {
            self.answer(to, ack);
        }
    }

    /// Answers every request that waits, because the gateway stops.
    pub(crate) fn handle_stop(&self, now: Now) {
        let mut core = self.core();
        while let Some((to, ack)) = core.commands.handle_stop(now.mono) {
            self.answer(to, ack);
        }
    }

    /// Gives an answer to whoever asked, who may have left.
    fn answer(&self, to: oneshot::Sender<Ack>, ack: Ack) {
        self.metrics.ended(ack.status);
        if to.send(ack).is_err() {
            tracing::debug!("the client that asked is gone");
        }
    }
}

/// What clients do.
impl Hub {
    /// Takes a seat; none when all are taken.
    pub(crate) fn seat(&self, kind: Kind) -> Option<Seat> {
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            self.metrics.refused(Refusal::Busy);
            return None;
        };
        let mut core = self.core();
        core.next_client += 1;
        self.metrics.client_came(kind);
        Some(Seat {
            id: ClientId(core.next_client),
            kind,
            metrics: self.metrics.clone(),
            _permit: permit,
        })
    }

    /// The first frame of a stream.
    pub(crate) fn hello(&self) -> ServerMessage {
        ServerMessage::Hello {
            stream: self.settings.stream.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            base: self.settings.base.as_str().to_owned(),
            can_write: self.settings.can_write,
            demo_command: self.settings.demo_command.clone(),
            coap_address: self.settings.coap_address.clone(),
            mqtt_port: self.settings.mqtt_port,
        }
    }

    /// Tells when something changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.rev.subscribe()
    }

    /// Tells the client's machine where its page stands.
    pub(crate) fn resume(&self, client: &mut Client, stream: Option<&str>, rev: Option<u64>) {
        let rev = rev.filter(|_| stream == Some(&self.settings.stream));
        client.handle_resume(rev, &self.core().model);
    }

    /// The frame that is due for a page.
    pub(crate) fn frame(&self, client: &mut Client, now: Now) -> Option<Utf8Bytes> {
        let mut core = self.core();
        let rev = match client.poll_frame(&core.model, now.mono)? {
            Frame::Since(rev) => rev,
            Frame::Snapshot { slow } => {
                if slow {
                    self.metrics.slow(Kind::Stream);
                }
                self.metrics.sent(Sent::Snapshot, 1);
                return Some(core.snapshot());
            }
        };
        let Made { text, conflated } = core.delta(rev)?;
        self.metrics.sent(Sent::Delta, 1);
        self.metrics.conflated.inc_by(conflated);
        Some(text)
    }

    /// Asks a node for something; the answer comes in any case.
    pub(crate) fn request(
        &self,
        client: ClientId,
        request: &Request,
        now: Now,
    ) -> oneshot::Receiver<Ack> {
        let (to, answer) = oneshot::channel();
        if !self.settings.can_write {
            self.metrics.refused(Refusal::Write);
            let words =
                "this dashboard only shows: whoever runs it can allow writing in its settings";
            self.answer(to, own_ack(request.op(), AckStatus::Rejected, words));
            return answer;
        }
        let mut core = self.core();
        let Core {
            model, commands, ..
        } = &mut *core;
        match commands.handle_request(model, client, request, to, now.mono) {
            Asked::Answer(to, ack) => self.answer(to, ack),
            Asked::Publish(id, publication) => {
                if let Err(error) = (self.publish)(publication)
                    && let Some(to) = core.commands.withdraw(&id)
                {
                    let words = format!("the request did not get onto the bus: {error}");
                    self.answer(to, own_ack(request.op(), AckStatus::Error, &words));
                }
                self.sooner.notify_one();
            }
        }
        answer
    }

    /// Everything for a Pyaiot client that is new, and what follows.
    ///
    /// The receiver ends when the client falls behind.
    pub(crate) fn follow(&self) -> (Vec<String>, mpsc::Receiver<Utf8Bytes>) {
        let mut core = self.core();
        let (sender, receiver) = mpsc::channel(FEED_QUEUE);
        core.feed_clients.retain(|client| !client.is_closed());
        core.feed_clients.push(sender);
        (core.feed.replay(&core.model), receiver)
    }

    /// What a Pyaiot client's write means here; none when it knows no such node.
    pub(crate) fn pyaiot_write(&self, uid: &str, endpoint: &str, value: Value) -> Option<Request> {
        let core = self.core();
        let node = core.feed.node(uid)?.clone();
        let resource = pyaiot::resource(&core.model, &node, endpoint);
        Some(Request::Set(node, resource, value))
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.core().model.nodes().collect()
    }

    /// One node.
    pub(crate) fn node(&self, id: &NodeId) -> Option<Node> {
        self.core().model.node(id)
    }
}

/// The text of a message; ours always have one.
pub(crate) fn text(message: &ServerMessage) -> Utf8Bytes {
    serde_json::to_string(message).unwrap_or_default().into()
}

impl Core {
    fn snapshot(&mut self) -> Utf8Bytes {
        let rev = self.model.rev();
        if let Some((at, made)) = &self.snapshot
            && *at == rev
        {
            return made.clone();
        }
        let made = text(&self.model.snapshot());
        self.snapshot = Some((rev, made.clone()));
        made
    }

    fn delta(&mut self, from: u64) -> Option<Made> {
        let rev = self.model.rev();
        if let Some((at_from, at, made)) = &self.delta
            && (*at_from, *at) == (from, rev)
        {
            return Some(made.clone());
        }
        let changes = self.model.since(from)?;
        let made = Made {
            conflated: (rev - from).saturating_sub(changes.len() as u64),
            text: text(&ServerMessage::Delta { rev, changes }),
        };
        self.delta = Some((from, rev, made.clone()));
        Some(made)
    }
}
