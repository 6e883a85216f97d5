//! The task that joins the registry to the MQTT session and to the driver.

use std::time::Instant;

use tokio::sync::mpsc;

use super::registry::{RESTORE_TIMEOUT, Registry, filters, restore_filters};
use super::{BridgeConfig, ORDER_QUEUE, Order, REPORT_QUEUE, Report, ReportError};
use crate::admin::{Admin, Readiness};
use crate::session::{
    self, Inbox, PublishError, Session, SessionConfig, SessionError, SessionEvent,
};
use crate::shutdown::Shutdown;
use crate::time::{now, sleep_until};

/// Reports taken in one turn before deadlines and the bus are looked at again.
const REPORTS_PER_TURN: usize = 256;

/// Where a driver sends its reports. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Reporter(mpsc::Sender<Report>);

impl Reporter {
    /// Takes a report, waiting while the queue is full. Cancel safe: a dropped report was not taken.
    ///
    /// # Errors
    /// [`ReportError::Closed`] when the runtime has ended.
    pub async fn report(&self, report: Report) -> Result<(), ReportError> {
        self.0.send(report).await.map_err(|_| ReportError::Closed)
    }

    /// Takes a report unless the queue is full.
    ///
    /// # Errors
    /// The queue is full or the runtime has ended.
    pub fn try_report(&self, report: Report) -> Result<(), ReportError> {
        Ok(self.0.try_send(report)?)
    }
}

/// Where a driver gets its orders.
#[derive(Debug)]
pub struct Orders(mpsc::Receiver<Order>);

impl Orders {
    /// The next order; none when the runtime has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<Order> {
        self.0.recv().await
    }

    /// An order that waits already.
    pub fn try_recv(&mut self) -> Option<Order> {
        self.0.try_recv().ok()
    }
}

/// A driver's two ends without a bus behind them, for tests of drivers.
#[must_use]
pub fn detached() -> (
    (Reporter, Orders),
    (mpsc::Receiver<Report>, mpsc::Sender<Order>),
) {
    let (reports, reported) = mpsc::channel(REPORT_QUEUE);
    let (ordered, orders) = mpsc::channel(ORDER_QUEUE);
    ((Reporter(reports), Orders(orders)), (reported, ordered))
}

/// Starts the runtime of a bridge: connects to the bus and keeps connected until the stop.
///
/// On the stop it waits until the driver has dropped its [`Reporter`], publishes `offline`, and
/// disconnects so that the Will stays silent.
///
/// # Errors
/// The session can't be made: wrong address, unreadable certificate.
pub fn start(
    config: BridgeConfig,
    session: SessionConfig,
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<(Reporter, Orders), SessionError> {
    let readiness = admin.part(config.protocol);
    let registry = Registry::new(config.clone());
    registry.register_metrics(admin);
    let filters = filters(&config)
        .into_iter()
        .chain(restore_filters(&config))
        .collect();
    let will = Some(Registry::offline(&config, None));
    let (session, inbox) = session::start(
        SessionConfig {
            will,
            filters,
            ..session
        },
        admin,
        shutdown,
    )?;
    let (driver, (reported, ordered)) = detached();
    let restore_until = Some(now().mono + RESTORE_TIMEOUT);
    let runtime = Runtime {
        config,
        registry,
        session,
        inbox,
        reported,
        ordered,
        readiness,
        restore_until,
    };
    shutdown.spawn(runtime.run());
    Ok(driver)
}

struct Runtime {
    config: BridgeConfig,
    registry: Registry,
    session: Session,
    inbox: Inbox,
    reported: mpsc::Receiver<Report>,
    ordered: mpsc::Sender<Order>,
    readiness: Readiness,
    /// Reports wait until then, unless the registry has read the bus back before.
    restore_until: Option<Instant>,
}

impl Runtime {
    async fn run(mut self) {
        let mut reports = Vec::with_capacity(REPORTS_PER_TURN);
        loop {
            let blocked = self.drain();
            let (restoring, waiting) = (self.registry.is_restoring(), self.restore_until.is_some());
            let deadline = [self.registry.poll_timeout(), self.restore_until]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                event = self.inbox.recv() => match event {
                    Some(event) => self.handle_event(event),
                    None => return,
                },
                // Backpressure: while the session has no room, reports stay with the driver.
                count = self.reported.recv_many(&mut reports, REPORTS_PER_TURN), if !waiting && !blocked => {
                    if count == 0 {
                        break;
                    }
                    let now = now();
                    for report in reports.drain(..) {
                        self.registry.handle_report(report, now);
                    }
                }
                () = self.session.room(), if blocked => {}
                // The driver has room again: the next turn passes on what waits.
                () = room(&self.ordered), if self.registry.has_orders() => {}
                () = sleep_until(deadline) => {
                    if self.restore_until.is_some_and(|until| until <= now().mono) {
                        self.restore_until = None;
                    }
                    self.registry.handle_timeout(now());
                }
            }
            if restoring && !self.registry.is_restoring() {
                self.restored();
            }
        }
        self.leave().await;
    }

    fn handle_event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Connected => {
                self.registry.handle_connected(now());
                self.readiness.ready();
            }
            SessionEvent::Disconnected { reason } => {
                self.registry.handle_disconnected();
                self.readiness
                    .not_ready(&format!("no connection to the bus: {reason}"));
            }
            SessionEvent::Message(message) => self.registry.handle_message(&message, now()),
        }
    }

    fn restored(&mut self) {
        self.restore_until = None;
        for filter in restore_filters(&self.config) {
            self.session.unsubscribe(&filter);
        }
    }

    /// Passes on what the registry has; gives whether the session had no room for all of it.
    fn drain(&mut self) -> bool {
        loop {
            match self.ordered.try_reserve() {
                Ok(permit) => match self.registry.poll_order() {
                    Some(order) => permit.send(order),
                    None => break,
                },
                Err(mpsc::error::TrySendError::Full(())) => break,
                // A driver that has left needs no orders; its requests time out.
                Err(mpsc::error::TrySendError::Closed(())) => {
                    if self.registry.poll_order().is_none() {
                        break;
                    }
                }
            }
        }
        loop {
            if !self.session.has_room() {
                return true;
            }
            let Some(publication) = self.registry.poll_publication() else {
                return false;
            };
            match self.session.try_publish(publication) {
                Ok(()) => {}
                Err(PublishError::Topic) => {
                    tracing::debug!("a topic that was asked for is not valid")
                }
                Err(PublishError::Full | PublishError::Closed) => return true,
            }
        }
    }

    /// The driver is done: everything it reported is out, then `offline`, then DISCONNECT.
    async fn leave(mut self) {
        self.drain();
        let offline = Registry::offline(&self.config, Some(now().wall));
        if self.session.try_publish(offline).is_err() {
            tracing::debug!("the Will says for us that the bridge is offline");
        }
        let session = self.session.clone();
        let close = session.close();
        tokio::pin!(close);
        loop {
            tokio::select! {
                () = &mut close => return,
                event = self.inbox.recv() => if event.is_none() { return },
            }
        }
    }
}

async fn room(orders: &mpsc::Sender<Order>) {
    drop(orders.reserve().await);
}
