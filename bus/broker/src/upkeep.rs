//! What has to happen while nobody does anything: ending what is over, and watching the core.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bus::time::now;

use crate::broker::Broker;
use crate::fanout::{Link, Sink, Stopped};
use crate::message::{Draft, Message, Parts};
use crate::sys::Sys;
use crate::wire::Qos;

const TICK: Duration = Duration::from_secs(1);
/// Ticks without an answer after which the core counts as dead. Ticks are counted and not time,
/// so that a machine that slept for an hour is not mistaken for it.
const PATIENCE: u32 = 10;
/// Ticks between two looks at the retained messages.
const RETAINED: u32 = 30;
/// Ticks between two messages on a topic of `$SYS`, as with mosquitto.
const SYS: u32 = 10;
/// How long connections may take to end after a stop.
const FAREWELL: Duration = Duration::from_secs(4);
/// No client can publish to it.
const TOPIC: &str = "$nodebus/watchdog";

/// Why the broker can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpkeepError {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("the message core does not answer: the supervisor restarts the process")]
    Silent,
    #[error("the store's thread has ended: the supervisor restarts the process")]
    StoreEnded,
}

/// When the watchdog's message last came through.
struct Pulse(Mutex<Instant>);

impl Pulse {
    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Pulse {
    fn deliver(&self, messages: &[Message]) {
        let heard = messages.iter().any(|message| message.topic() == TOPIC);
        if heard {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now().mono;
        }
    }
}

/// Publishes to itself through the core.
pub(crate) struct Watchdog {
    pulse: Arc<Pulse>,
    _link: Box<dyn Link>,
    asked: Instant,
    unanswered: u32,
}

impl Watchdog {
    /// Attaches to the core.
    pub(crate) async fn start(broker: &Broker) -> Result<Self, Stopped> {
        let started = now().mono;
        let pulse = Arc::new(Pulse(Mutex::new(started)));
        let sink: Arc<dyn Sink> = pulse.clone();
        let sink: Weak<dyn Sink> = Arc::downgrade(&sink);
        let link = broker.exchange.fanout().attach(sink);
        link.subscribe(TOPIC).await?;
        Ok(Self {
            pulse,
            _link: link,
            asked: started,
            unanswered: 0,
        })
    }

    fn tick(&mut self, broker: &Broker) -> Result<(), UpkeepError> {
        let (now, last) = (now().mono, self.pulse.last());
        let age = now.saturating_duration_since(last);
        broker.metrics.watchdog_age.set(age.as_secs_f64());
        if last >= self.asked {
            self.unanswered = 0;
        } else {
            self.unanswered += 1;
            if self.unanswered > PATIENCE {
                return Err(UpkeepError::Silent);
            }
        }
        self.asked = now;
        let question = Draft::new(&Parts {
            topic: TOPIC,
            payload: b"?",
            qos: Qos::AtMostOnce,
            retain: false,
            origin: 0,
            expires: None,
            properties: &[],
        });
        match broker.exchange.publish(question) {
            Ok(_) => Ok(()),
            Err(_) => Err(Stopped.into()),
        }
    }
}

/// Runs until the stop, and then until the connections ended and the store is closed.
pub(crate) async fn run(broker: Arc<Broker>, watchdog: Watchdog) -> Result<(), UpkeepError> {
    let ran = watch(&broker, watchdog).await;
    let closing = tokio::task::spawn_blocking(move || broker.store.close());
    if closing.await.is_err() {
        tracing::error!("the store could not be closed");
    }
    ran
}

async fn watch(broker: &Broker, mut watchdog: Watchdog) -> Result<(), UpkeepError> {
    let (mut ticks, mut sys) = (0_u32, Sys::new(now()));
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = broker.shutdown.stopping() => break,
        }
        watchdog.tick(broker)?;
        if broker.store.has_died() {
            return Err(UpkeepError::StoreEnded);
        }
        let now = now();
        for (will, origin) in broker.sessions.handle_timeout(now.mono) {
            broker.publish_will(will, origin, now);
        }
        if ticks.is_multiple_of(SYS) {
            sys.tell(broker, now);
        }
        if ticks.is_multiple_of(RETAINED) {
            broker.exchange.handle_timeout(now.wall.unix_millis());
        }
        ticks = ticks.wrapping_add(1);
    }
    let ended = async {
        while broker.admission.open() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(FAREWELL, ended).await.is_err() {
        tracing::warn!(
            open = broker.admission.open(),
            "connections did not end in time"
        );
    }
    // Their links end with them.
    broker.sessions.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use bus::shutdown::Shutdown;

    use super::*;
    use crate::fanout::{Fanout, Pending};
    use crate::fuzzing::world;

    /// A core that takes everything and brings nothing; or, once it has ended, takes nothing.
    struct Dead {
        has_ended: bool,
    }

    struct DeadLink;

    impl Fanout for Dead {
        fn publish(&self, _: Message) -> Result<(), Stopped> {
            if self.has_ended { Err(Stopped) } else { Ok(()) }
        }

        fn attach(&self, _: Weak<dyn Sink>) -> Box<dyn Link> {
            Box::new(DeadLink)
        }

        fn is_congested(&self) -> bool {
            true
        }

        fn relieved(&self) -> Pending<'_, ()> {
            Box::pin(std::future::pending())
        }
    }

    impl Link for DeadLink {
        fn subscribe<'a>(&'a self, _: &'a str) -> Pending<'a, Result<(), Stopped>> {
            Box::pin(async { Ok(()) })
        }

        fn unsubscribe(&self, _: &str) -> Result<(), Stopped> {
            Ok(())
        }
    }

    /// The error that ends the process.
    async fn failure(core: Dead) -> String {
        let shutdown = Shutdown::new();
        let broker = world::broker(Arc::new(core), &shutdown).await;
        let watchdog = Watchdog::start(&broker).await.unwrap();
        shutdown.spawn_vital("bus", run(broker, watchdog));
        // Longer than its patience.
        let stopped = tokio::time::timeout(2 * PATIENCE * TICK, shutdown.stopping());
        stopped.await.expect("the watchdog barks");
        shutdown.failure().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_core_that_is_silent_ends_the_process_with_an_error() {
        let error = failure(Dead { has_ended: false }).await;
        assert!(error.contains("does not answer"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_core_that_has_ended_ends_the_process_with_an_error() {
        let error = failure(Dead { has_ended: true }).await;
        assert!(error.contains("has ended"), "{error}");
    }
}
