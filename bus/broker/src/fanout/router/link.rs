//! One link to the Router: a task that owns both of its ends, from the first word to the last.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter, Packet, QoS, RetainForwardRule, Subscribe,
    SubscribeProperties, Unsubscribe,
};
use rumqttd::{Forward, Notification};
use tokio::sync::{mpsc, oneshot};

use super::super::name::{internal_filter, overlaps};
use super::super::{Link, Pending, Sink, Stopped};
use super::{Shared, lock};
use crate::message::Message;
use crate::topic;

/// Notifications taken before the messages among them are delivered.
const BATCH: usize = 1024;

/// Both ends of a link. Dropping it is the link's last word, whatever happened to its task.
pub(super) struct Door {
    tx: LinkTx,
    rx: LinkRx,
    number: u32,
    shared: Arc<Shared>,
}

impl Door {
    /// Connects to the Router; waits for its answer.
    pub(super) fn open(number: u32, shared: &Arc<Shared>) -> Result<Self, Stopped> {
        let (tx, rx) = (shared.connector)(number)?;
        Ok(Self {
            tx,
            rx,
            number,
            shared: shared.clone(),
        })
    }

    fn send(&mut self, packet: Packet) -> Result<(), Stopped> {
        // It is async in name only: it waits for room in the Router's channel, which is short.
        match now(self.tx.send(packet)) {
            Some(Ok(_)) => Ok(()),
            _ => Err(Stopped),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        if self
            .send(Packet::Disconnect(Disconnect { reason_code }, None))
            .is_ok()
        {
            // The Router handles this before any later link of that name.
            lock(&self.shared.numbers).free.push(self.number);
        }
    }
}

/// What a future has to say at once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// One internal filter that the link asks the Router for.
struct Entry {
    filter: String,
    /// Tells the Router's copies of a message apart; one entry of a link does without.
    id: Option<usize>,
    /// Client filters that stand behind it. With 0 it stays only as long as others overlap it.
    uses: usize,
    /// Where the next message should stand in the Router's log of this filter.
    next: Option<u64>,
}

pub(super) enum Command {
    Subscribe(String, oneshot::Sender<()>),
    Unsubscribe(String, oneshot::Sender<()>),
}

pub(super) struct LinkTask {
    door: Door,
    sink: Weak<dyn Sink>,
    /// In the order they were asked for. A message that several match is taken from the first of
    /// them only: each once, and a topic's messages in order.
    entries: Vec<Entry>,
    last_id: usize,
    /// SUBACKs awaited from the Router.
    awaited: Vec<(u16, oneshot::Sender<()>)>,
    last_pid: u16,
    batch: Vec<Message>,
    /// Where the oldest message of this turn stands among all that were published.
    oldest: Option<u64>,
    /// Turns since one that was too far behind.
    good_turns: usize,
    is_lagging: bool,
    /// The Router waits to be told that its messages were taken.
    is_paused: bool,
}

impl LinkTask {
    pub(super) fn new(door: Door, sink: Weak<dyn Sink>) -> Self {
        Self {
            door,
            sink,
            entries: Vec::new(),
            last_id: 0,
            awaited: Vec::new(),
            last_pid: 0,
            batch: Vec::new(),
            oldest: None,
            good_turns: usize::MAX,
            is_lagging: false,
            is_paused: false,
        }
    }

    /// Ends when the link is dropped, its sink is gone, or the Router ended.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let went = tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                notification = self.door.rx.next() => match notification {
                    Ok(notification) => self.drain(notification).await,
                    Err(_) => Err(Stopped),
                },
            };
            if went.is_err() {
                return;
            }
        }
    }

    fn command(&mut self, command: Command) -> Result<(), Stopped> {
        match command {
            Command::Subscribe(filter, done) => self.subscribe(filter, done),
            Command::Unsubscribe(filter, done) => {
                self.unsubscribe(&filter)?;
                // Nobody waiting any more is no error.
                done.send(()).unwrap_or_default();
                Ok(())
            }
        }
    }

    fn subscribe(&mut self, filter: String, done: oneshot::Sender<()>) -> Result<(), Stopped> {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.filter == filter) {
            entry.uses += 1;
            done.send(()).unwrap_or_default();
            return Ok(());
        }
        let id = self
            .entries
            .iter()
            .any(|entry| entry.id.is_none())
            .then(|| {
                self.last_id += 1;
                self.last_id
            });
        self.last_pid = self.last_pid.wrapping_add(1);
        let subscribe = Subscribe {
            pkid: self.last_pid,
            filters: vec![Filter {
                path: filter.clone(),
                qos: QoS::AtMostOnce,
                nolocal: false,
                preserve_retain: false,
                retain_forward_rule: RetainForwardRule::Never,
            }],
        };
        let properties = id.map(|id| SubscribeProperties {
            id: Some(id),
            user_properties: Vec::new(),
        });
        self.door.send(Packet::Subscribe(subscribe, properties))?;
        self.entries.push(Entry {
            filter,
            id,
            uses: 1,
            next: None,
        });
        self.awaited.push((self.last_pid, done));
        Ok(())
    }

    fn unsubscribe(&mut self, filter: &str) -> Result<(), Stopped> {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.filter == filter) {
            entry.uses = entry.uses.saturating_sub(1);
        }
        let used: Vec<String> = self
            .entries
            .iter()
            .filter(|entry| entry.uses > 0)
            .map(|entry| entry.filter.clone())
            .collect();
        // An unused filter that others overlap goes on, because what they share is taken from it.
        let (kept, gone) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| entry.uses > 0 || used.iter().any(|f| overlaps(f, &entry.filter)));
        self.entries = kept;
        let filters: Vec<String> = Vec::into_iter(gone)
            .map(|entry: Entry| entry.filter)
            .collect();
        if filters.is_empty() {
            return Ok(());
        }
        self.door
            .send(Packet::Unsubscribe(Unsubscribe { pkid: 1, filters }, None))
    }

    /// Takes what the Router has for this link, and delivers it.
    async fn drain(&mut self, first: Option<Notification>) -> Result<(), Stopped> {
        first.into_iter().for_each(|first| self.handle(first));
        let mut taken = 1;
        while taken < BATCH {
            let next = poll_fn(|context| {
                let next = pin!(self.door.rx.next()).poll(context);
                Poll::Ready(match next {
                    Poll::Ready(next) => Some(next),
                    Poll::Pending => None,
                })
            });
            match next.await {
                Some(Ok(Some(notification))) => self.handle(notification),
                Some(Ok(None)) => {}
                Some(Err(_)) => return Err(Stopped),
                None => break,
            }
            taken += 1;
        }
        self.deliver()?;
        if std::mem::take(&mut self.is_paused) {
            self.door.rx.wake().await.map_err(|_| Stopped)?;
        }
        if taken == BATCH {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn handle(&mut self, notification: Notification) {
        match notification {
            Notification::Forward(forward) => self.forward(forward),
            Notification::Unschedule => self.is_paused = true,
            other => {
                if let Some(Packet::SubAck(suback, _)) = Option::<Packet>::from(other)
                    && let Some(at) = self.awaited.iter().position(|(pid, _)| *pid == suback.pkid)
                {
                    let (_, done) = self.awaited.swap_remove(at);
                    done.send(()).unwrap_or_default();
                }
            }
        }
    }

    fn forward(&mut self, forward: Forward) {
        let id = forward
            .properties
            .and_then(|properties| properties.subscription_identifiers.last().copied());
        let Some(at) = self.entries.iter().position(|entry| entry.id == id) else {
            // It was on its way when its filter was given up.
            return;
        };
        if let (Some((_, place)), Some(entry)) = (forward.cursor, self.entries.get_mut(at)) {
            if let Some(expected) = entry.next
                && expected != place
            {
                let lost = place.saturating_sub(expected);
                self.door.shared.metrics.gaps.inc_by(lost);
                tracing::error!(lost, "messages were lost in the message core");
            }
            entry.next = Some(place + 1);
        }
        let Some(message) = Message::from_bytes(forward.publish.payload) else {
            tracing::error!("the message core gave back something else");
            return;
        };
        let position = message.position();
        self.oldest = Some(self.oldest.map_or(position, |oldest| oldest.min(position)));
        if at > 0 {
            let name = String::from_utf8_lossy(&forward.publish.topic);
            let mut before = self.entries.iter().take(at);
            if before.any(|entry| topic::matches(&entry.filter, &name)) {
                return;
            }
        }
        self.batch.push(message);
    }

    fn deliver(&mut self) -> Result<(), Stopped> {
        self.note_lag();
        if self.batch.is_empty() {
            return Ok(());
        }
        let sink = self.sink.upgrade().ok_or(Stopped)?;
        sink.deliver(&mut self.batch);
        self.batch.clear();
        if self.batch.capacity() > 64 {
            self.batch = Vec::new();
        }
        Ok(())
    }

    /// Publishers wait while some link is far behind.
    ///
    /// The Router hands on one filter's messages at a time, so a link that can't keep up is no
    /// longer behind only when each of its filters had a turn without that.
    fn note_lag(&mut self) {
        let pace = &self.door.shared.pace;
        let oldest = self.oldest.take();
        if oldest.is_some_and(|position| pace.is_lagging(position)) {
            self.good_turns = 0;
        } else {
            self.good_turns = self.good_turns.saturating_add(1);
        }
        let is_lagging = self.is_paused && self.good_turns < self.entries.len();
        if is_lagging != self.is_lagging {
            self.is_lagging = is_lagging;
            pace.set_lagging(is_lagging);
        }
    }
}

impl Drop for LinkTask {
    fn drop(&mut self) {
        if self.is_lagging {
            self.door.shared.pace.set_lagging(false);
        }
    }
}

/// The session's end of a link.
pub(super) struct RouterLink {
    commands: mpsc::Sender<Command>,
}

impl RouterLink {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }
}

impl Link for RouterLink {
    fn subscribe<'a>(&'a self, filter: &'a str) -> Pending<'a, Result<(), Stopped>> {
        Box::pin(async move {
            let (done, wait) = oneshot::channel();
            let command = Command::Subscribe(internal_filter(filter), done);
            self.commands.send(command).await.map_err(|_| Stopped)?;
            wait.await.map_err(|_| Stopped)
        })
    }

    fn unsubscribe<'a>(&'a self, filter: &'a str) -> Pending<'a, Result<(), Stopped>> {
        Box::pin(async move {
            let (done, wait) = oneshot::channel();
            let command = Command::Unsubscribe(internal_filter(filter), done);
            self.commands.send(command).await.map_err(|_| Stopped)?;
            wait.await.map_err(|_| Stopped)
        })
    }
}
