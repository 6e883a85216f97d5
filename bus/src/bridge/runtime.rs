//! The task that joins the registry to the MQTT session and to the driver.

use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::queue::{Queue, StoreError};
use super::registry::{RESTORE_TIMEOUT, Registry, filters, restore_filters, status_filter};
use super::settling::Settling;
use super::{BridgeConfig, ORDER_QUEUE, Order, REPORT_QUEUE, Report, ReportError};
use crate::admin::{Admin, Readiness};
use crate::session::{
    self, Inbox, Publication, PublishError, Session, SessionConfig, SessionError, SessionEvent,
    Ticket,
};
use crate::shutdown::Shutdown;
use crate::time::{now, sleep_until};

/// Reports taken in one turn before deadlines and the bus are looked at again.
const REPORTS_PER_TURN: usize = 256;

/// Where a driver sends its reports. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Reporter {
    reports: mpsc::Sender<Report>,
    settled: watch::Receiver<u64>,
}

impl Reporter {
    /// Takes a report, waiting while the queue is full. Cancel safe: a dropped report was not taken.
    ///
    /// # Errors
    /// [`ReportError::Closed`] when the runtime has ended.
    pub async fn report(&self, report: Report) -> Result<(), ReportError> {
        self.reports
            .send(report)
            .await
            .map_err(|_| ReportError::Closed)
    }

    /// Takes a report unless the queue is full.
    ///
    /// # Errors
    /// The queue is full or the runtime has ended.
    pub fn try_report(&self, report: Report) -> Result<(), ReportError> {
        Ok(self.reports.try_send(report)?)
    }

    /// Completes when there is room for a report. Cancel safe.
    ///
    /// # Errors
    /// [`ReportError::Closed`] when the runtime has ended.
    pub async fn room(&self) -> Result<(), ReportError> {
        let slot = self.reports.reserve().await;
        slot.map(drop).map_err(|_| ReportError::Closed)
    }

    /// Room for one report, if there is any now.
    ///
    /// # Errors
    /// The queue is full or the runtime has ended.
    pub fn try_reserve(&self) -> Result<Slot<'_>, ReportError> {
        match self.reports.try_reserve() {
            Ok(slot) => Ok(Slot(slot)),
            Err(mpsc::error::TrySendError::Full(())) => Err(ReportError::Full),
            Err(mpsc::error::TrySendError::Closed(())) => Err(ReportError::Closed),
        }
    }

    /// Tells how many of the reports, in the order in which they were taken, are settled.
    #[must_use]
    pub fn settled(&self) -> Settled {
        Settled(self.settled.clone())
    }
}

/// How many reports, the oldest, are settled: all that they say that must be seen (readings, events,
/// acks) was acknowledged by the bus, or is on disk.
#[derive(Debug)]
pub struct Settled(watch::Receiver<u64>);

impl Settled {
    /// Completes with their number when it has grown since the last time. Cancel safe.
    ///
    /// # Errors
    /// [`ReportError::Closed`] when the runtime has ended.
    pub async fn more(&mut self) -> Result<u64, ReportError> {
        let changed = self.0.changed().await;
        changed.map_err(|_| ReportError::Closed)?;
        Ok(*self.0.borrow_and_update())
    }
}

/// Room for one report; given back when dropped.
#[derive(Debug)]
pub struct Slot<'a>(mpsc::Permit<'a, Report>);

impl Slot<'_> {
    /// Takes the report.
    pub fn report(self, report: Report) {
        self.0.send(report);
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

/// The other ends of what a driver has.
#[derive(Debug)]
pub struct Far {
    /// What it reports.
    pub reported: mpsc::Receiver<Report>,
    /// What it is to do.
    pub ordered: mpsc::Sender<Order>,
    /// How many of its reports are settled.
    pub settled: watch::Sender<u64>,
}

/// A driver's two ends without a bus behind them, for tests of drivers.
#[must_use]
pub fn detached() -> ((Reporter, Orders), Far) {
    let (reports, reported) = mpsc::channel(REPORT_QUEUE);
    let (ordered, orders) = mpsc::channel(ORDER_QUEUE);
    let (settled, told) = watch::channel(0);
    let reporter = Reporter {
        reports,
        settled: told,
    };
    let far = Far {
        reported,
        ordered,
        settled,
    };
    ((reporter, Orders(orders)), far)
}

/// Why a bridge's runtime can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The session can't be made: wrong address, unreadable certificate.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// What must outlive the bridge can't be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Starts the runtime of a bridge: connects to the bus and keeps connected until the stop.
///
/// On the stop it waits until the driver has dropped its [`Reporter`], publishes `offline`, and
/// disconnects so that the Will stays silent.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    config: BridgeConfig,
    session: SessionConfig,
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<(Reporter, Orders), StartError> {
    let readiness = admin.part(config.protocol);
    let mut registry = Registry::new(config.clone());
    registry.register_metrics(admin);
    let (queue, kept) = Queue::open(&config.queue, registry.metrics())?;
    registry.restore_kept(&kept, now());
    let filters = filters(&config);
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
    let (driver, far) = detached();
    // Who knows nothing asks the bus first.
    let hold_reports = kept.is_empty().then(|| now().mono + RESTORE_TIMEOUT);
    let protocol = config.protocol;
    let runtime = Runtime {
        config,
        registry,
        session,
        inbox,
        queue,
        settling: Settling::default(),
        published: None,
        far,
        readiness,
        hold_reports,
        hold_queue: None,
        watches_others: false,
    };
    shutdown.spawn_vital(protocol, runtime.run());
    Ok(driver)
}

struct Runtime {
    config: BridgeConfig,
    registry: Registry,
    session: Session,
    inbox: Inbox,
    queue: Queue,
    settling: Settling,
    /// The last that went to the session and not by way of the queue.
    published: Option<Ticket>,
    far: Far,
    readiness: Readiness,
    /// Reports wait until then, unless the registry has read the bus back before.
    hold_reports: Option<Instant>,
    /// The queue waits so long after a connect for the bus to tell what it knows.
    hold_queue: Option<Instant>,
    watches_others: bool,
}

/// What can't go on.
#[derive(Debug, Clone, Copy)]
struct Blocked {
    /// The session has no room.
    session: bool,
    /// Reports stay with the driver, which tells its nodes to wait.
    reports: bool,
}

impl Runtime {
    async fn run(mut self) -> Result<(), &'static str> {
        let mut reports = Vec::with_capacity(REPORTS_PER_TURN);
        loop {
            let blocked = self.drain();
            self.watch_others();
            let (restoring, holding) = (self.registry.is_restoring(), self.hold_reports.is_some());
            let held = [self.hold_reports, self.hold_queue];
            let deadline = held.into_iter().chain([self.registry.poll_timeout()]);
            let deadline = deadline.flatten().min();
            let (awaited, settling) = (self.queue.awaited(), self.settling.awaited());
            tokio::select! {
                event = self.inbox.recv() => match event {
                    Some(event) => self.handle_event(event),
                    None => break,
                },
                // Backpressure: what can't be taken stays with the driver.
                count = self.far.reported.recv_many(&mut reports, REPORTS_PER_TURN), if !holding && !blocked.reports => {
                    if count == 0 {
                        break;
                    }
                    self.settling.take(count);
                    let now = now();
                    for report in reports.drain(..) {
                        self.registry.handle_report(report, now);
                    }
                }
                () = self.session.room(), if blocked.session => {}
                () = acknowledged(&self.session, awaited), if awaited.is_some() => {
                    self.queue.acknowledge(|ticket| self.session.is_done(ticket));
                }
                // The next turn looks which reports are settled now.
                () = acknowledged(&self.session, settling), if settling.is_some() => {}
                () = self.queue.changed() => {
                    if self.queue.has_died() {
                        return Err("the store has failed for good; the next start moves it aside");
                    }
                    self.queue.handle_changed();
                }
                // The driver has room again: the next turn passes on what waits.
                () = room(&self.far.ordered), if self.registry.has_orders() => {}
                () = sleep_until(deadline) => self.handle_timeout(),
            }
            if restoring && !self.registry.is_restoring() {
                self.restored();
            }
        }
        self.leave().await;
        Ok(())
    }

    fn handle_timeout(&mut self) {
        let now = now();
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now.mono);
        if is_over(self.hold_reports) {
            self.hold_reports = None;
        }
        if is_over(self.hold_queue) {
            tracing::warn!("the bus does not tell what it knows of this bridge's nodes");
            self.registry.finish_restoring();
        }
        self.registry.handle_timeout(now);
    }

    fn handle_event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Connected => {
                let now = now();
                self.registry.handle_connected(now);
                if self.registry.is_restoring() {
                    self.hold_queue = Some(now.mono + RESTORE_TIMEOUT);
                }
                self.readiness.ready();
            }
            SessionEvent::Disconnected { reason } => {
                self.hold_queue = None;
                // None: there is a connection again already, and all of it is on its way.
                if let Some(unsent) = self.session.take_back() {
                    let keep = |publication| self.registry.keep_in_order(publication);
                    self.queue.rewind(unsent, keep);
                    self.settling.taken_back();
                }
                self.registry.handle_disconnected();
                self.readiness
                    .not_ready(&format!("no connection to the bus: {reason}"));
            }
            SessionEvent::Message(message) => self.registry.handle_message(&message, now()),
        }
    }

    fn restored(&mut self) {
        self.hold_reports = None;
        self.hold_queue = None;
        for filter in restore_filters(&self.config) {
            self.session.unsubscribe(&filter);
        }
    }

    /// Other bridges hear the same nodes: how are those?
    fn watch_others(&mut self) {
        let wanted = self.registry.wants_all_statuses() && !self.registry.is_restoring();
        if wanted && !std::mem::replace(&mut self.watches_others, true) {
            self.session.subscribe(&status_filter(&self.config));
        }
    }

    /// Passes on what the registry has.
    fn drain(&mut self) -> Blocked {
        self.pass_on_orders();
        self.write_down();
        let is_full = self.registry.is_connected() && !self.publish();
        self.settle();
        let reports = if self.registry.is_behind() {
            // While the bus is there nodes are slowed before anything is dropped.
            let filling = is_full && self.queue.is_half_full();
            filling || !self.queue.has_room()
        } else {
            is_full
        };
        Blocked {
            session: is_full,
            reports,
        }
    }

    /// Tells the driver which of its reports can't be lost any more.
    fn settle(&mut self) {
        if !self.registry.has_publications() {
            self.settling.mark(self.published, self.queue.appended());
        }
        let settled = self.settling.settle(
            |ticket| self.session.is_done(ticket),
            || self.queue.written(),
        );
        self.far.settled.send_if_modified(|told| {
            let more = settled > *told;
            *told = settled;
            more
        });
    }

    fn pass_on_orders(&mut self) {
        loop {
            match self.far.ordered.try_reserve() {
                Ok(permit) => match self.registry.poll_order() {
                    Some(order) => permit.send(order),
                    None => return,
                },
                Err(mpsc::error::TrySendError::Full(())) => return,
                // A driver that has left needs no orders; its requests time out.
                Err(mpsc::error::TrySendError::Closed(())) => {
                    if self.registry.poll_order().is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// What must outlive a connection, or the process, goes to the queue and its store.
    fn write_down(&mut self) {
        while let Some(publication) = self.registry.poll_to_queue() {
            self.queue.push(&publication);
        }
        while let Some((uid, node)) = self.registry.poll_kept() {
            self.queue.keep(uid.as_str().to_owned(), node);
        }
    }

    /// Publishes state, then what is in the queue; false when the session has no room for all.
    fn publish(&mut self) -> bool {
        loop {
            if !self.session.has_room() {
                return false;
            }
            let Some(publication) = self.registry.poll_publication() else {
                break;
            };
            match self.try_publish(publication) {
                Ok(ticket) => self.published = ticket.or(self.published),
                Err(Full) => return false,
            }
        }
        if !self.registry.is_behind() || self.hold_queue.is_some() {
            return true;
        }
        while let Some((number, publication)) = self.queue.next() {
            if !self.session.has_room() {
                return false;
            }
            let publication = self.registry.from_queue(publication);
            match self.try_publish(publication) {
                Ok(ticket) => self.queue.sent(number, ticket),
                Err(Full) => return false,
            }
        }
        if self.queue.is_sent() {
            let lost = self.queue.take_lost();
            self.registry.handle_caught_up(lost);
        }
        true
    }

    /// None: it can't be published ever.
    fn try_publish(&self, publication: Publication) -> Result<Option<Ticket>, Full> {
        match self.session.try_publish(publication) {
            Ok(ticket) => Ok(Some(ticket)),
            Err(PublishError::Topic) => {
                tracing::debug!("a topic that was asked for is not valid");
                Ok(None)
            }
            Err(PublishError::Full | PublishError::Closed) => Err(Full),
        }
    }

    /// The driver is done: everything it reported is out or written down, then `offline`, then
    /// DISCONNECT.
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
                () = &mut close => break,
                event = self.inbox.recv() => if event.is_none() { break },
            }
        }
        self.queue
            .acknowledge(|ticket| self.session.is_done(ticket));
        if let Some(unsent) = self.session.take_back() {
            let keep = |publication| self.registry.keep_in_order(publication);
            self.queue.rewind(unsent, keep);
        }
        self.registry.handle_disconnected();
        self.write_down();
        let queue = self.queue;
        if tokio::task::spawn_blocking(|| queue.close()).await.is_err() {
            tracing::error!("the queue was not closed");
        }
    }
}

/// The session has no room, or has ended.
struct Full;

async fn acknowledged(session: &Session, ticket: Option<Ticket>) {
    if let Some(ticket) = ticket {
        session.done(ticket).await;
    }
}

async fn room(orders: &mpsc::Sender<Order>) {
    drop(orders.reserve().await);
}
