//! A whole broker without sockets, threads and the Router: connections are pipes in memory, and the
//! fan-out is a queue. It does the same for the same bytes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::Duration;

use bus::admin::Admin;
use bus::shutdown::Shutdown;
use bus::topic::Base;
use rustls::ServerConfig;
use rustls::server::{ResolvesServerCertUsingSni, WebPkiClientVerifier};
use tokio::io::DuplexStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use super::peer::Peer;
use crate::acl::Acl;
use crate::assemble;
use crate::broker::Broker;
use crate::config::Config;
use crate::connection::{self, Socket};
use crate::fanout::{Fanout, Link, Pending, Sink, Stopped};
use crate::gate::Gate;
use crate::identity::{Guest, Role};
use crate::message::Message;
use crate::metrics::Metrics;
use crate::passwords::Passwords;
use crate::tls::Trust;
use crate::topic;

/// What a pipe holds, bytes: more than any input makes the broker say between two reads.
const PIPE: usize = 4 * 1024 * 1024;
/// Turns without a byte after which nothing more is under way.
const QUIET: usize = 8;

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without IO needs nothing of the system"),
    );
}

/// Notes panics that a connection contains: they are survived, and still wrong.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            before(info);
        }));
    });
    PANICKED.set(false);
}

/// Runs `work` in a new world, and sees that the world can be ended afterwards.
pub(super) fn run(work: impl AsyncFnOnce(&World)) {
    watch_panics();
    RUNTIME.with_borrow_mut(|runtime| {
        runtime.block_on(async {
            let world = World::new().await;
            work(&world).await;
            world.end().await;
        });
    });
    assert!(!PANICKED.get(), "something panicked");
}

#[derive(Default)]
struct Queue {
    messages: Mutex<VecDeque<Message>>,
    links: Mutex<Vec<Linked>>,
    more: Notify,
}

struct Linked {
    sink: Weak<dyn Sink>,
    filters: Arc<Mutex<Vec<String>>>,
}

struct QueueLink(Arc<Mutex<Vec<String>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Delivers what was published, one message after the other.
    async fn run(self: Arc<Self>) {
        loop {
            self.more.notified().await;
            while let Some(message) = self.next() {
                let asks = |filter: &String| topic::matches(filter, message.topic());
                let mut sinks = Vec::new();
                lock(&self.links).retain(|link| {
                    let sink = link.sink.upgrade();
                    let is_alive = sink.is_some() && Arc::strong_count(&link.filters) > 1;
                    if is_alive && lock(&link.filters).iter().any(asks) {
                        sinks.extend(sink);
                    }
                    is_alive
                });
                for sink in sinks {
                    sink.deliver(std::slice::from_ref(&message));
                }
            }
        }
    }

    fn next(&self) -> Option<Message> {
        lock(&self.messages).pop_front()
    }
}

impl Fanout for Queue {
    fn publish(&self, message: Message) -> Result<(), Stopped> {
        lock(&self.messages).push_back(message);
        self.more.notify_one();
        Ok(())
    }

    fn attach(&self, sink: Weak<dyn Sink>) -> Box<dyn Link> {
        let filters = Arc::default();
        let link = QueueLink(Arc::clone(&filters));
        lock(&self.links).push(Linked { sink, filters });
        Box::new(link)
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn relieved(&self) -> Pending<'_, ()> {
        Box::pin(async {})
    }
}

impl Link for QueueLink {
    fn subscribe<'a>(&'a self, filter: &'a str) -> Pending<'a, Result<(), Stopped>> {
        lock(&self.0).push(filter.to_owned());
        Box::pin(async { Ok(()) })
    }

    fn unsubscribe(&self, filter: &str) -> Result<(), Stopped> {
        let mut filters = lock(&self.0);
        let at = filters.iter().position(|known| known == filter);
        filters.remove(at.expect("only what was asked for is given up"));
        Ok(())
    }
}

/// Rules that are made once: the built-in access list, and certificates that nobody is asked for.
fn gate() -> Gate {
    thread_local! {
        static MADE: (Arc<ServerConfig>, Acl) = {
            let config = ServerConfig::builder_with_provider(bus::tls::provider())
                .with_safe_default_protocol_versions()
                .expect("the provider has them")
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
            let base = Base::new("b").expect("a base");
            (Arc::new(config), Acl::load(None, &base).expect("the built-in list"))
        };
    }
    MADE.with(|(config, acl)| {
        let trust = Trust {
            certificate: config.clone(),
            either: config.clone(),
            nothing: config.clone(),
            verifier: WebPkiClientVerifier::no_client_auth(),
            expiry: None,
            has_revocations: false,
        };
        Gate::new(trust, acl.clone(), Passwords::default())
    })
}

/// A broker around this fan-out, with default settings and nothing on disk.
pub(crate) async fn broker(fanout: Arc<dyn Fanout>, shutdown: &Shutdown) -> Arc<Broker> {
    let metrics = Arc::new(Metrics::new(&Admin::default()));
    let config = Config::default();
    let assembled = assemble(&config, gate(), fanout, metrics, shutdown).await;
    assembled.expect("nothing in it can be wrong")
}

/// The broker and its clients.
pub(super) struct World {
    pub(super) broker: Arc<Broker>,
}

impl World {
    async fn new() -> Self {
        let shutdown = Shutdown::new();
        let queue = Arc::new(Queue::default());
        // It has no last word to say.
        let (deliveries, stopping) = (queue.clone().run(), shutdown.clone());
        shutdown.spawn(async move {
            tokio::select! {
                () = deliveries => {}
                () = stopping.stopping() => {}
            }
        });
        Self {
            broker: broker(queue, &shutdown).await,
        }
    }

    /// A connection of an admin, who may everything and call itself anything.
    pub(super) fn connect(&self) -> Peer {
        let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(PIPE);
        let guest = Guest::anonymous(Role::Admin, self.broker.gate.generation());
        let peer = ([127, 0, 0, 1], 1).into();
        let deadline = bus::time::now().mono + Duration::from_secs(3600);
        let socket = Socket::new(theirs, peer);
        let serving = connection::serve(self.broker.clone(), socket, guest, deadline);
        self.broker.shutdown.spawn(serving);
        Peer::new(ours)
    }

    /// Lets everybody work until nothing is under way any more; the peers take in what comes.
    pub(super) async fn settle(&self, peers: &mut [&mut Peer]) {
        let mut quiet = 0;
        while quiet < QUIET {
            tokio::task::yield_now().await;
            quiet += 1;
            for peer in peers.iter_mut() {
                if peer.take_in().await {
                    quiet = 0;
                }
            }
        }
    }

    async fn end(self) {
        let shutdown = &self.broker.shutdown;
        shutdown.stop();
        let is_clean = shutdown.drained(Duration::from_secs(5)).await;
        assert!(is_clean, "a connection does not end");
        assert_eq!(shutdown.failure(), None);
    }
}
