//! The fan-out on rumqttd's Router, used so that nothing a peer sends can end it.
//!
//! What it sees: QoS 0 messages, not retained, on two internal topics (see [`root`]), from one
//! publishing link; and a few links that all sessions share (see `hub`). It never sees a client's packet, name
//! or acknowledgement, and a link's last word is always DISCONNECT. One Router per process: its
//! thread ends with the process.

mod hub;
mod pace;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bus::shutdown::Shutdown;
use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Packet, Publish};
use rumqttd::{Router, RouterConfig};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::hub::{Hub, HubTask};
use self::pace::Pace;
use super::{Fanout, Link, Pending, Sink, Stopped};
use crate::message::Message;
use crate::metrics::Metrics;

/// The Router keeps the last messages of either topic, this many bytes in this many pieces, and
/// drops the oldest unseen when a hub falls behind further. `pace` keeps that from happening.
const SEGMENT_BYTES: usize = 128 * 1024;
const SEGMENTS: usize = 16;

/// Messages handed over and not yet taken by the Router, before publishers wait.
const MAX_BACKLOG: usize = 1024;

/// Messages that the Router hands to a link at a time.
const READ_MESSAGES: u64 = 512;

/// How long publishers wait at most for a congestion to end; longer than that means that the core
/// is dead, which the watchdog finds out.
const RELIEF: Duration = Duration::from_secs(5);

/// The most links that sessions share. There are as many as processors: fewer would leave some of
/// them idle, and each costs the Router a copy of what several ask for.
const MAX_HUBS: usize = 8;

/// The one link that publishes.
struct Ingest {
    tx: LinkTx,
    /// Kept so that the Router has where to answer.
    _rx: LinkRx,
    /// The Router was not told of the last messages, because its channel was full.
    is_silent: bool,
}

struct Shared {
    ingest: Mutex<Ingest>,
    pace: Pace,
    metrics: Arc<Metrics>,
}

/// rumqttd's Router as a fan-out.
pub(crate) struct RouterFanout {
    shared: Arc<Shared>,
    hubs: Vec<Arc<Hub>>,
    /// Sessions so far, which take the hubs in turns.
    sessions: AtomicUsize,
    /// Ends the hubs' tasks.
    _end: DropGuard,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The internal topic of all that clients publish.
const MESSAGES: &str = "m";
/// And of what the broker says of itself: a few messages a second.
const OWN: &str = "s";

/// The internal topic of a Topic Name, and what reaches the names that a Topic Filter matches.
///
/// There are no more than two, whatever peers call their topics, because the Router remembers each
/// topic and keeps a log for each filter for as long as it lives. `$` topics have their own, since
/// few ask for them and wildcards in front never do (MQTT-4.7.2-1).
fn root(text: &str) -> &'static str {
    if text.starts_with('$') { OWN } else { MESSAGES }
}

impl RouterFanout {
    /// Starts the Router's thread, with as many hubs as there are processors.
    pub(crate) fn start(metrics: Arc<Metrics>, shutdown: &Shutdown) -> Result<Self, Stopped> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_hubs(processors.min(MAX_HUBS), metrics, shutdown)
    }

    fn with_hubs(hubs: usize, metrics: Arc<Metrics>, shutdown: &Shutdown) -> Result<Self, Stopped> {
        let config = RouterConfig {
            // The hubs and the publishing link.
            max_connections: hubs + 1,
            max_outgoing_packet_count: READ_MESSAGES,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        };
        let router = Router::new(0, config).spawn();
        // Each waits for the Router's answer; there is nothing else to do yet.
        let connect = |name: &str| -> Result<(LinkTx, LinkRx), Stopped> {
            let built = LinkBuilder::new(name, router.clone()).build();
            let (tx, rx, _) = built.map_err(|_| Stopped)?;
            Ok((tx, rx))
        };
        let (tx, rx) = connect("ingest")?;
        let shared = Arc::new(Shared {
            ingest: Mutex::new(Ingest {
                tx,
                _rx: rx,
                is_silent: false,
            }),
            pace: Pace::new(hubs),
            metrics,
        });
        let end = CancellationToken::new();
        let hub = |number: usize| -> Result<Arc<Hub>, Stopped> {
            let (tx, rx) = connect(&format!("hub-{number}"))?;
            let hub = Hub::new(number, tx, shared.clone());
            let task = HubTask::new(hub.clone(), rx);
            shutdown.spawn(task.run(end.clone()));
            Ok(hub)
        };
        let hubs = (0..hubs).map(hub).collect::<Result<_, _>>()?;
        Ok(Self {
            shared,
            hubs,
            sessions: AtomicUsize::new(0),
            _end: end.drop_guard(),
        })
    }
}

impl Ingest {
    /// Never waits: when the Router's channel is full, it is told with the next message or
    /// [`Ingest::tell`].
    fn publish(&mut self, topic: &'static str, message: Message) -> Result<(), Stopped> {
        let payload = message.into_bytes();
        {
            // A message that is still there means that the Router was told and has not come yet.
            let mut waiting = self.tx.buffer();
            if !waiting.is_empty() && !self.is_silent {
                let publish = Publish::new(Bytes::from_static(topic.as_bytes()), payload, false);
                waiting.push_back(Packet::Publish(publish, None));
                return Ok(());
            }
        }
        let told = self.tx.try_publish(topic, payload).map(drop);
        self.told(told)
    }

    /// Tells the Router of what waits, if it could not be told before.
    fn tell(&mut self) -> Result<(), Stopped> {
        if !self.is_silent {
            return Ok(());
        }
        // A packet that makes the Router look and that it has nothing to do for.
        let told = self.tx.try_unsubscribe("-").map(drop);
        self.told(told)
    }

    fn told(&mut self, told: Result<(), LinkError>) -> Result<(), Stopped> {
        match told {
            Ok(()) => self.is_silent = false,
            // Full for now; or closed, which is the watchdog's to find out.
            Err(LinkError::TrySend(_)) => self.is_silent = true,
            Err(_) => return Err(Stopped),
        }
        Ok(())
    }

    fn backlog(&self) -> usize {
        self.tx.buffer().len()
    }
}

impl Shared {
    fn is_congested(&self) -> bool {
        self.pace.is_exceeded() || {
            let ingest = lock(&self.ingest);
            ingest.is_silent || ingest.backlog() > MAX_BACKLOG
        }
    }
}

impl Fanout for RouterFanout {
    fn publish(&self, message: Message) -> Result<(), Stopped> {
        let end = message.position() + message.len() as u64;
        let root = root(message.topic());
        let mut ingest = lock(&self.shared.ingest);
        ingest.publish(root, message)?;
        if root == MESSAGES {
            self.shared.pace.published(end);
        }
        Ok(())
    }

    fn attach(&self, sink: Weak<dyn Sink>) -> Box<dyn Link> {
        let turn = self.sessions.fetch_add(1, Ordering::Relaxed);
        Box::new(self.hubs[turn % self.hubs.len()].attach(sink))
    }

    fn is_congested(&self) -> bool {
        self.shared.is_congested()
    }

    fn relieved(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            let relief = async {
                loop {
                    let noticed = self.shared.pace.relieved();
                    // Whether the Router lives is the watchdog's to find out.
                    let told = lock(&self.shared.ingest).tell();
                    if told.is_err() || !self.shared.is_congested() {
                        return;
                    }
                    let moment = tokio::time::sleep(Duration::from_millis(1));
                    tokio::select! {
                        () = noticed => {}
                        () = moment => {}
                    }
                }
            };
            if tokio::time::timeout(RELIEF, relief).await.is_err() {
                tracing::debug!("the congestion of the message core lasts");
            }
        })
    }
}
