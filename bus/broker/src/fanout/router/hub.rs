//! One link to the Router, shared by many sessions.
//!
//! A link costs the Router some 40 KiB whatever goes over it, and each message to it once more; a
//! session's place in a shared one costs a few hundred bytes. What the hub's link asks for is what
//! its sessions ask for together, each internal filter once.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter, Packet, QoS, RetainForwardRule, Subscribe,
    SubscribeProperties, Unsubscribe,
};
use rumqttd::{Forward, Notification};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::super::name::{internal_filter, internal_topic, overlaps};
use super::super::{Link, Pending, Sink, Stopped};
use super::{Shared, lock, pace};
use crate::message::Message;
use crate::topic;

/// Notifications taken before other tasks get their turn.
const BATCH: usize = 1024;

/// What a future has to say at once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// A session that asks for an internal filter.
struct Subscriber {
    port: u64,
    sink: Weak<dyn Sink>,
    /// What it asked for earlier and overlaps this. A message that several match is taken from the
    /// first of them only: each once, and a topic's messages in order.
    before: Vec<String>,
}

/// One internal filter that the hub asks the Router for.
struct Entry {
    filter: String,
    subscribers: Vec<Subscriber>,
    /// Who waits for the Router's SUBACK; none once it came.
    awaited: Option<Vec<oneshot::Sender<()>>>,
    /// Where the next message should stand in the Router's log of this filter.
    next: Option<u64>,
}

/// An internal filter that a session asks for.
struct Asked {
    /// Number of its entry.
    entry: usize,
    filter: String,
    /// Client filters that stand behind it. With 0 it stays only as long as others overlap it.
    uses: usize,
}

/// A session at the hub.
struct Port {
    sink: Weak<dyn Sink>,
    /// In the order of asking.
    asked: Vec<Asked>,
}

struct Table {
    tx: LinkTx,
    /// By number; each number is used once, and tells the Router's copies of a message apart.
    entries: HashMap<usize, Entry>,
    numbers: HashMap<String, usize>,
    last_number: usize,
    ports: HashMap<u64, Port>,
    last_port: u64,
    /// Entries whose SUBACK is awaited, by its Packet Identifier.
    awaited: HashMap<u16, usize>,
    last_pid: u16,
    /// Nothing is delivered any more.
    is_ended: bool,
}

impl Table {
    fn send(&mut self, packet: Packet) -> Result<(), Stopped> {
        if self.is_ended {
            return Err(Stopped);
        }
        // It is async in name only: it waits for room in the Router's channel, which is short.
        match now(self.tx.send(packet)) {
            Some(Ok(_)) => Ok(()),
            _ => Err(Stopped),
        }
    }

    fn attach(&mut self, sink: Weak<dyn Sink>) -> u64 {
        self.last_port += 1;
        let asked = Vec::new();
        self.ports.insert(self.last_port, Port { sink, asked });
        self.last_port
    }

    fn detach(&mut self, number: u64) -> Result<(), Stopped> {
        let port = self.ports.remove(&number);
        let asked = port.into_iter().flat_map(|port| port.asked);
        let gone = asked.filter_map(|asked| self.leave(asked.entry, number));
        let gone: Vec<String> = gone.collect();
        self.give_up(gone)
    }

    /// Gives what to wait for until no message is missed; none when that is so already.
    fn subscribe(
        &mut self,
        number: u64,
        filter: String,
    ) -> Result<Option<oneshot::Receiver<()>>, Stopped> {
        let known = self.numbers.get(&filter).copied();
        let entry = match known {
            Some(entry) => entry,
            None => self.ask(&filter)?,
        };
        let port = self.ports.get_mut(&number).ok_or(Stopped)?;
        let at = port.asked.iter().position(|asked| asked.entry == entry);
        match at.and_then(|at| port.asked.get_mut(at)) {
            Some(asked) => asked.uses += 1,
            None => {
                self.join(number, entry);
                if let Some(port) = self.ports.get_mut(&number) {
                    port.asked.push(Asked {
                        entry,
                        filter,
                        uses: 1,
                    });
                }
            }
        }
        let waiting = self
            .entries
            .get_mut(&entry)
            .and_then(|e| e.awaited.as_mut());
        Ok(waiting.map(|waiting| {
            let (done, wait) = oneshot::channel();
            waiting.push(done);
            wait
        }))
    }

    /// Asks the Router for an internal filter; gives its number.
    fn ask(&mut self, filter: &str) -> Result<usize, Stopped> {
        let number = self.last_number + 1;
        let mut pkid = self.last_pid.wrapping_add(1);
        while self.awaited.contains_key(&pkid) {
            pkid = pkid.wrapping_add(1);
        }
        let subscribe = Subscribe {
            pkid,
            filters: vec![Filter {
                path: filter.to_owned(),
                qos: QoS::AtMostOnce,
                nolocal: false,
                preserve_retain: false,
                retain_forward_rule: RetainForwardRule::Never,
            }],
        };
        let properties = SubscribeProperties {
            id: Some(number),
            user_properties: Vec::new(),
        };
        self.send(Packet::Subscribe(subscribe, Some(properties)))?;
        (self.last_number, self.last_pid) = (number, pkid);
        self.awaited.insert(pkid, number);
        self.numbers.insert(filter.to_owned(), number);
        let entry = Entry {
            filter: filter.to_owned(),
            subscribers: Vec::new(),
            awaited: Some(Vec::new()),
            next: None,
        };
        self.entries.insert(number, entry);
        Ok(number)
    }

    /// Brings an entry's messages to a port, behind all that it asked for already.
    fn join(&mut self, number: u64, entry: usize) {
        if let (Some(port), Some(entry)) = (self.ports.get(&number), self.entries.get_mut(&entry)) {
            let before = port.asked.iter().map(|asked| &asked.filter);
            entry.subscribers.push(Subscriber {
                port: number,
                sink: port.sink.clone(),
                before: before
                    .filter(|filter| overlaps(filter, &entry.filter))
                    .cloned()
                    .collect(),
            });
        }
    }

    /// Brings an entry's messages to a port no more; gives its filter when nobody asks for it then.
    fn leave(&mut self, number: usize, port: u64) -> Option<String> {
        let entry = self.entries.get_mut(&number)?;
        entry.subscribers.retain(|known| known.port != port);
        if !entry.subscribers.is_empty() {
            return None;
        }
        let filter = self.entries.remove(&number)?.filter;
        self.numbers.remove(&filter);
        Some(filter)
    }

    fn give_up(&mut self, filters: Vec<String>) -> Result<(), Stopped> {
        if filters.is_empty() {
            return Ok(());
        }
        self.send(Packet::Unsubscribe(Unsubscribe { pkid: 1, filters }, None))
    }

    fn unsubscribe(&mut self, number: u64, filter: &str) -> Result<(), Stopped> {
        let Some(port) = self.ports.get_mut(&number) else {
            return Ok(());
        };
        if let Some(asked) = port.asked.iter_mut().find(|asked| asked.filter == filter) {
            asked.uses = asked.uses.saturating_sub(1);
        }
        let all = std::mem::take(&mut port.asked);
        let used = all.iter().filter(|asked| asked.uses > 0);
        let used: Vec<String> = used.map(|asked| asked.filter.clone()).collect();
        // An unused filter that others overlap goes on, because what they share is taken from it.
        let (kept, gone) = all
            .into_iter()
            .partition(|asked| asked.uses > 0 || used.iter().any(|f| overlaps(f, &asked.filter)));
        port.asked = kept;
        let gone: Vec<Asked> = gone;
        self.forget(number, &gone);
        let gone = gone
            .iter()
            .filter_map(|asked| self.leave(asked.entry, number));
        let gone = gone.collect();
        self.give_up(gone)
    }

    /// What a port still asks for brings it what it got through other filters before.
    fn forget(&mut self, number: u64, gone: &[Asked]) {
        let kept = self.ports.get(&number).into_iter();
        for kept in kept.flat_map(|port| &port.asked) {
            let entry = self.entries.get_mut(&kept.entry).into_iter();
            let subscribers = entry.flat_map(|entry| &mut entry.subscribers);
            for subscriber in subscribers.filter(|known| known.port == number) {
                let is_kept = |filter: &String| !gone.iter().any(|gone| gone.filter == *filter);
                subscriber.before.retain(is_kept);
            }
        }
    }

    /// Notes where messages of an entry stood in its log, and how many before them are missing.
    fn note_places(&mut self, number: usize, (first, end): (u64, u64)) -> u64 {
        let entry = self.entries.get_mut(&number);
        let expected = entry.and_then(|entry| entry.next.replace(end));
        expected.map_or(0, |expected| first.saturating_sub(expected))
    }

    /// Who gets these messages of an entry, and all of them or which.
    fn targets(&self, number: usize, run: &[Message], targets: &mut Vec<Target>) {
        // It was given up while they were on their way.
        let Some(entry) = self.entries.get(&number) else {
            return;
        };
        for subscriber in &entry.subscribers {
            let Some(sink) = subscriber.sink.upgrade() else {
                continue;
            };
            let before = &subscriber.before;
            let part = (!before.is_empty()).then(|| {
                let new = run.iter().filter(|message| {
                    let name = internal_topic(message.topic());
                    !before.iter().any(|filter| topic::matches(filter, &name))
                });
                new.cloned().collect()
            });
            targets.push((sink, part));
        }
    }
}

/// A session that gets messages; only some of them, if those are given.
type Target = (Arc<dyn Sink>, Option<Vec<Message>>);

/// The shared link. Dropping it is the link's last word, whatever happened to its task.
pub(super) struct Hub(Mutex<Table>);

impl Hub {
    /// Takes the sending end of a link.
    pub(super) fn new(tx: LinkTx) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Table {
            tx,
            entries: HashMap::new(),
            numbers: HashMap::new(),
            last_number: 0,
            ports: HashMap::new(),
            last_port: 0,
            awaited: HashMap::new(),
            last_pid: 0,
            is_ended: false,
        })))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0)
    }

    /// A place for one session.
    pub(super) fn attach(self: &Arc<Self>, sink: Weak<dyn Sink>) -> HubLink {
        HubLink {
            port: self.table().attach(sink),
            hub: self.clone(),
        }
    }

    /// Internal filters that the Router is asked for.
    #[cfg(test)]
    pub(super) fn filters(&self) -> usize {
        self.table().entries.len()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        let goodbye = Packet::Disconnect(Disconnect { reason_code }, None);
        // Nobody is left to tell when the Router has ended.
        drop(now(self.table().tx.send(goodbye)));
    }
}

/// The task that takes what the Router has for a hub.
pub(super) struct HubTask {
    number: usize,
    hub: Arc<Hub>,
    rx: LinkRx,
    shared: Arc<Shared>,
    /// Messages of one entry, in the order of its log, and where they stood.
    run: Vec<Message>,
    entry: usize,
    places: (u64, u64),
    targets: Vec<Target>,
    /// Where the oldest message of this turn stands among all that were published.
    oldest: Option<u64>,
    lag: Option<Lag>,
    /// The Router waits to be told that its messages were taken.
    is_paused: bool,
}

impl HubTask {
    pub(super) fn new(number: usize, hub: Arc<Hub>, rx: LinkRx, shared: Arc<Shared>) -> Self {
        Self {
            number,
            hub,
            rx,
            shared,
            run: Vec::new(),
            entry: 0,
            places: (0, 0),
            targets: Vec::new(),
            oldest: None,
            lag: None,
            is_paused: false,
        }
    }

    /// Ends when it is told to, or when the Router ended.
    pub(super) async fn run(mut self, end: CancellationToken) {
        loop {
            let went = tokio::select! {
                () = end.cancelled() => return,
                notification = self.rx.next() => match notification {
                    Ok(notification) => self.drain(notification).await,
                    Err(_) => Err(Stopped),
                },
            };
            if went.is_err() {
                return;
            }
        }
    }

    /// Takes what the Router has for this link, and delivers it.
    async fn drain(&mut self, first: Option<Notification>) -> Result<(), Stopped> {
        first.into_iter().for_each(|first| self.handle(first));
        let mut taken = 1;
        while taken < BATCH {
            let next = poll_fn(|context| {
                let next = pin!(self.rx.next()).poll(context);
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
        self.deliver();
        self.note_lag()?;
        if std::mem::take(&mut self.is_paused) {
            self.rx.wake().await.map_err(|_| Stopped)?;
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
                if let Some(Packet::SubAck(suback, _)) = Option::<Packet>::from(other) {
                    self.granted(suback.pkid);
                }
            }
        }
    }

    fn granted(&self, pid: u16) {
        let mut table = self.hub.table();
        let entry = table.awaited.remove(&pid);
        let entry = entry.and_then(|entry| table.entries.get_mut(&entry));
        for done in entry
            .and_then(|entry| entry.awaited.take())
            .into_iter()
            .flatten()
        {
            // Nobody waiting any more is no error.
            done.send(()).unwrap_or_default();
        }
    }

    fn forward(&mut self, forward: Forward) {
        let properties = forward.properties;
        let id = properties.and_then(|known| known.subscription_identifiers.last().copied());
        let (Some(entry), Some((_, place))) = (id, forward.cursor) else {
            tracing::error!("the message core gave back something else");
            return;
        };
        let Some(message) = Message::from_bytes(forward.publish.payload) else {
            tracing::error!("the message core gave back something else");
            return;
        };
        if (entry, place) != (self.entry, self.places.1) {
            self.deliver();
            (self.entry, self.places) = (entry, (place, place));
        }
        self.places.1 = place + 1;
        let position = message.position();
        self.oldest = Some(self.oldest.map_or(position, |oldest| oldest.min(position)));
        self.run.push(message);
    }

    fn deliver(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let mut table = self.hub.table();
        let lost = table.note_places(self.entry, self.places);
        table.targets(self.entry, &self.run, &mut self.targets);
        drop(table);
        if lost > 0 {
            self.shared.metrics.gaps.inc_by(lost);
            tracing::error!(lost, "messages were lost in the message core");
        }
        // A sink may be gone with the last of these references, and with it its place at the hub.
        for (sink, part) in self.targets.drain(..) {
            sink.deliver(part.as_deref().unwrap_or(&self.run));
        }
        self.run.clear();
        if self.run.capacity() > BATCH {
            self.run = Vec::new();
        }
    }

    /// Publishers wait while some hub is far behind.
    ///
    /// It is not any more when a mark of its own came back and no message before that was too old:
    /// each filter had its turn meanwhile.
    fn note_lag(&mut self) -> Result<(), Stopped> {
        let pace = &self.shared.pace;
        let oldest = self.oldest.take();
        let is_behind = oldest.is_some_and(|position| pace.is_lagging(position));
        match &mut self.lag {
            None if is_behind && self.is_paused => pace.set_lagging(true),
            None => return Ok(()),
            Some(lag) => {
                lag.is_clean &= !is_behind;
                if !pace.is_back(self.number, lag.mark) {
                    return Ok(());
                }
                if lag.is_clean {
                    self.lag = None;
                    pace.set_lagging(false);
                    return Ok(());
                }
            }
        }
        let mark = pace.mark();
        self.lag = Some(Lag {
            mark: mark.seq(),
            is_clean: true,
        });
        lock(&self.shared.ingest).publish(internal_topic(pace::TOPIC), mark)
    }
}

/// A hub is too far behind.
struct Lag {
    /// The number of the mark that is under way because of that.
    mark: u64,
    /// No message since it was sent was too old.
    is_clean: bool,
}

impl Drop for HubTask {
    fn drop(&mut self) {
        if self.lag.is_some() {
            self.shared.pace.set_lagging(false);
        }
        let mut table = self.hub.table();
        table.is_ended = true;
        // Whoever waits is told by this that nothing comes any more.
        table.entries.clear();
    }
}

/// A session's place at a hub.
pub(super) struct HubLink {
    hub: Arc<Hub>,
    port: u64,
}

impl Link for HubLink {
    fn subscribe<'a>(&'a self, filter: &'a str) -> Pending<'a, Result<(), Stopped>> {
        Box::pin(async move {
            let filter = internal_filter(filter);
            let wait = self.hub.table().subscribe(self.port, filter)?;
            match wait {
                Some(wait) => wait.await.map_err(|_| Stopped),
                None => Ok(()),
            }
        })
    }

    fn unsubscribe(&self, filter: &str) -> Result<(), Stopped> {
        let filter = internal_filter(filter);
        self.hub.table().unsubscribe(self.port, &filter)
    }
}

impl Drop for HubLink {
    fn drop(&mut self) {
        if self.hub.table().detach(self.port).is_err() {
            tracing::debug!("a session left after the message core had ended");
        }
    }
}
