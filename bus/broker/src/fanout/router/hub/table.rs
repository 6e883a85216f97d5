//! Which sessions of a hub ask for what, and what the hub asks the Router for because of that.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use rumqttd::local::LinkTx;
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter, Packet, QoS, RetainForwardRule, Subscribe,
    SubscribeProperties, Unsubscribe,
};
use tokio::sync::oneshot;

use super::super::super::{Sink, Stopped};
use super::super::{MESSAGES, Shared, root};
use crate::filters::Filters;
use crate::message::Message;

/// What a future has to say at once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// A session that gets messages; only some of them, if those are given.
pub(super) type Target = (Arc<dyn Sink>, Option<Vec<Message>>);

/// The topics of one root (see [`root`]), for which the hub asks the Router.
struct Entry {
    root: &'static str,
    /// Filters of sessions that reach into it.
    uses: usize,
    /// Packet Identifier of the SUBSCRIBE.
    pid: u16,
    /// Who waits for the Router's SUBACK; none once it came.
    awaited: Option<Vec<oneshot::Sender<()>>>,
    /// Where the next message should stand in the Router's log of it.
    next: Option<u64>,
}

/// A session at the hub.
struct Port {
    sink: Weak<dyn Sink>,
    filters: Vec<String>,
    /// What it gets of the messages that are being sorted.
    part: Vec<Message>,
}

pub(super) struct Table {
    /// Of the hub.
    number: usize,
    tx: LinkTx,
    shared: Arc<Shared>,
    /// By number; each number is used once, so that what comes late is known to be of an old one.
    entries: HashMap<usize, Entry>,
    last_number: usize,
    ports: Vec<Option<Port>>,
    /// Ports without a session.
    free: Vec<usize>,
    /// Which ports ask for what.
    filters: Filters<usize>,
    last_pid: u16,
    /// Nothing is delivered any more.
    is_ended: bool,
}

impl Table {
    pub(super) fn new(number: usize, tx: LinkTx, shared: Arc<Shared>) -> Self {
        Self {
            number,
            tx,
            shared,
            entries: HashMap::new(),
            last_number: 0,
            ports: Vec::new(),
            free: Vec::new(),
            filters: Filters::default(),
            last_pid: 0,
            is_ended: false,
        }
    }

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

    fn port(&mut self, number: usize) -> Option<&mut Port> {
        self.ports.get_mut(number)?.as_mut()
    }

    pub(super) fn attach(&mut self, sink: Weak<dyn Sink>) -> usize {
        let port = Some(Port {
            sink,
            filters: Vec::new(),
            part: Vec::new(),
        });
        if let Some(number) = self.free.pop()
            && let Some(place) = self.ports.get_mut(number)
        {
            *place = port;
            return number;
        }
        self.ports.push(port);
        self.ports.len() - 1
    }

    pub(super) fn detach(&mut self, number: usize) -> Result<(), Stopped> {
        let port = self.ports.get_mut(number).and_then(Option::take);
        let filters = port.map(|port| port.filters).unwrap_or_default();
        self.free.push(number);
        let mut went = Ok(());
        for filter in filters {
            went = went.and(self.leave(number, &filter));
        }
        went
    }

    /// Gives what to wait for until no message is missed; none when that is so already.
    pub(super) fn subscribe(
        &mut self,
        number: usize,
        filter: &str,
    ) -> Result<Option<oneshot::Receiver<()>>, Stopped> {
        let root = root(filter);
        let mut entries = self.entries.values_mut();
        if !entries.any(|entry| entry.root == root) {
            self.ask(root)?;
        }
        let port = self.port(number).ok_or(Stopped)?;
        port.filters.push(filter.to_owned());
        self.filters.edit(filter, |ports| ports.push(number));
        let entry = self.entry(root).ok_or(Stopped)?;
        entry.uses += 1;
        Ok(entry.awaited.as_mut().map(|waiting| {
            let (done, wait) = oneshot::channel();
            waiting.push(done);
            wait
        }))
    }

    fn entry(&mut self, root: &str) -> Option<&mut Entry> {
        self.entries.values_mut().find(|entry| entry.root == root)
    }

    /// Asks the Router for a root.
    fn ask(&mut self, root: &'static str) -> Result<(), Stopped> {
        let number = self.last_number + 1;
        self.last_pid = self.last_pid.checked_add(1).unwrap_or(1);
        let subscribe = Subscribe {
            pkid: self.last_pid,
            filters: vec![Filter {
                path: root.to_owned(),
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
        self.last_number = number;
        let entry = Entry {
            root,
            uses: 0,
            pid: self.last_pid,
            awaited: Some(Vec::new()),
            next: None,
        };
        self.entries.insert(number, entry);
        if root == MESSAGES {
            self.shared.pace.begin(self.number);
        }
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, number: usize, filter: &str) -> Result<(), Stopped> {
        let Some(port) = self.port(number) else {
            return Ok(());
        };
        let Some(at) = port.filters.iter().position(|known| known == filter) else {
            return Ok(());
        };
        port.filters.swap_remove(at);
        self.leave(number, filter)
    }

    /// Takes one filter of a port out; the last one of a root is told to the Router.
    fn leave(&mut self, number: usize, filter: &str) -> Result<(), Stopped> {
        self.filters.edit(filter, |ports| {
            if let Some(at) = ports.iter().position(|port| *port == number) {
                ports.swap_remove(at);
            }
        });
        let root = root(filter);
        let Some(entry) = self.entry(root) else {
            return Ok(());
        };
        entry.uses -= 1;
        if entry.uses > 0 {
            return Ok(());
        }
        self.entries.retain(|_, entry| entry.root != root);
        if root == MESSAGES {
            self.shared.pace.end(self.number);
        }
        let filters = vec![root.to_owned()];
        self.send(Packet::Unsubscribe(Unsubscribe { pkid: 1, filters }, None))
    }

    /// The Router took a SUBSCRIBE.
    pub(super) fn granted(&mut self, pid: u16) {
        let mut entries = self.entries.values_mut();
        let Some(entry) = entries.find(|entry| entry.pid == pid) else {
            return;
        };
        if entry.root == MESSAGES {
            // What was published before the Router knew of the hub never comes.
            self.shared.pace.begin(self.number);
        }
        for done in entry.awaited.take().into_iter().flatten() {
            // Nobody waiting any more is no error.
            done.send(()).unwrap_or_default();
        }
    }

    /// How many roots the Router is asked for.
    #[cfg(test)]
    pub(super) fn asked(&self) -> usize {
        self.entries.len()
    }

    /// Nothing is delivered any more.
    pub(super) fn end(&mut self) {
        self.is_ended = true;
        self.shared.pace.end(self.number);
        // Whoever waits is told by this.
        self.entries.clear();
    }

    /// The link's last word.
    pub(super) fn say_goodbye(&mut self) {
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        let goodbye = Packet::Disconnect(Disconnect { reason_code }, None);
        // Nobody is left to tell when the Router has ended.
        drop(now(self.tx.send(goodbye)));
    }

    /// Notes where messages of an entry stood in its log, and how many before them are missing.
    pub(super) fn note_places(&mut self, number: usize, (first, end): (u64, u64)) -> u64 {
        let entry = self.entries.get_mut(&number);
        let expected = entry.and_then(|entry| entry.next.replace(end));
        let lost = expected.map_or(0, |expected| first.saturating_sub(expected));
        self.shared.metrics.gaps.inc_by(lost);
        lost
    }

    /// Whoever asks for a topic, each once.
    fn asking(&self, name: &str) -> Vec<usize> {
        let mut ports: Vec<usize> = self.filters.matching(name).into_iter().copied().collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Who gets these messages of an entry, and all of them or which.
    pub(super) fn targets(&mut self, number: usize, run: &[Message], targets: &mut Vec<Target>) {
        // It was given up while they were on their way.
        let Some(entry) = self.entries.get(&number) else {
            return;
        };
        if entry.root == MESSAGES
            && let Some(last) = run.last()
        {
            let end = last.position() + last.len() as u64;
            self.shared.pace.taken(self.number, end);
        }
        let (mut rest, mut touched) = (run, Vec::new());
        while let Some(first) = rest.first() {
            // What is published to one topic in a row is looked up once.
            let name = first.topic();
            let same = rest.iter().position(|message| message.topic() != name);
            let (now, later) = rest.split_at(same.unwrap_or(rest.len()));
            let is_all = now.len() == run.len();
            for number in self.asking(name) {
                let Some(port) = self.port(number) else {
                    continue;
                };
                if is_all {
                    targets.extend(port.sink.upgrade().map(|sink| (sink, None)));
                } else {
                    if port.part.is_empty() {
                        touched.push(number);
                    }
                    port.part.extend_from_slice(now);
                }
            }
            rest = later;
        }
        for number in touched {
            if let Some(port) = self.port(number) {
                let part = std::mem::take(&mut port.part);
                targets.extend(port.sink.upgrade().map(|sink| (sink, Some(part))));
            }
        }
    }
}
