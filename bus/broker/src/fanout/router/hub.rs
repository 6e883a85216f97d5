//! One link to the Router, shared by many sessions.
//!
//! A link costs the Router some 40 KiB whatever goes over it, and each message to it once more; a
//! session's place in a shared one costs a few hundred bytes. The hub takes every message from the
//! Router and finds out which of its sessions ask for it.

mod table;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::Poll;

use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::Packet;
use rumqttd::{Forward, Notification};
use tokio_util::sync::CancellationToken;

use self::table::{Table, Target};
use super::super::{Link, Pending, Sink, Stopped};
use super::{Shared, lock};
use crate::message::Message;

/// Notifications taken before other tasks get their turn.
const BATCH: usize = 1024;

/// The shared link. Dropping it is the link's last word, whatever happened to its task.
pub(super) struct Hub(Mutex<Table>);

impl Hub {
    /// Takes the sending end of a link.
    pub(super) fn new(number: usize, tx: LinkTx, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Table::new(number, tx, shared))))
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

    /// Roots that the Router is asked for.
    #[cfg(test)]
    pub(super) fn filters(&self) -> usize {
        self.table().asked()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.table().say_goodbye();
    }
}

/// The task that takes what the Router has for a hub.
pub(super) struct HubTask {
    hub: Arc<Hub>,
    rx: LinkRx,
    /// Messages of one entry, in the order of its log, and where they stood.
    run: Vec<Message>,
    entry: usize,
    places: (u64, u64),
    targets: Vec<Target>,
    /// The Router waits to be told that its messages were taken.
    is_paused: bool,
}

impl HubTask {
    pub(super) fn new(hub: Arc<Hub>, rx: LinkRx) -> Self {
        Self {
            hub,
            rx,
            run: Vec::new(),
            entry: 0,
            places: (0, 0),
            targets: Vec::new(),
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
                    self.hub.table().granted(suback.pkid);
                }
            }
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
}

impl Drop for HubTask {
    fn drop(&mut self) {
        self.hub.table().end();
    }
}

/// A session's place at a hub.
pub(super) struct HubLink {
    hub: Arc<Hub>,
    port: usize,
}

impl Link for HubLink {
    fn subscribe<'a>(&'a self, filter: &'a str) -> Pending<'a, Result<(), Stopped>> {
        Box::pin(async move {
            let wait = self.hub.table().subscribe(self.port, filter)?;
            match wait {
                Some(wait) => wait.await.map_err(|_| Stopped),
                None => Ok(()),
            }
        })
    }

    fn unsubscribe(&self, filter: &str) -> Result<(), Stopped> {
        self.hub.table().unsubscribe(self.port, filter)
    }
}

impl Drop for HubLink {
    fn drop(&mut self) {
        if self.hub.table().detach(self.port).is_err() {
            tracing::debug!("a session left after the message core had ended");
        }
    }
}
