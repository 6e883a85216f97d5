//! Which connection speaks for which uid.
//!
//! The lock is held while a coming or going is reported, so that the registry hears of them in the
//! order in which they took effect: a replaced connection never takes its successor offline.

use std::collections::HashMap;

use bus::bridge::{Report, ReportError, Reporter, Request, Uid};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::close::Close;

/// How many requests may wait for one connection's task; further ones are rejected.
pub(crate) const REQUEST_QUEUE: usize = 32;

/// The ways into one connection.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) connection: u64,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) goodbye: oneshot::Sender<Close>,
}

/// Why a request did not reach a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unroutable {
    #[error("the node is not connected")]
    NotConnected,
    #[error("too many requests wait for the node")]
    Busy,
}

/// The nodes that are connected and announced.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<HashMap<Uid, Entry>>);

impl Hub {
    /// Makes `entry` the connection of `uid`; an older one is told to go.
    ///
    /// # Errors
    /// The runtime has ended.
    pub(crate) async fn join(
        &self,
        uid: Uid,
        entry: Entry,
        announce: Report,
        reporter: &Reporter,
    ) -> Result<(), ReportError> {
        let mut nodes = self.0.lock().await;
        if let Some(older) = nodes.insert(uid, entry) {
            // It may have ended by itself just now.
            older.goodbye.send(Close::Replaced).ok();
        }
        reporter.report(announce).await
    }

    /// Ends what `connection` was to `uid`, and reports `farewell` unless another connection has the
    /// node or it was forgotten.
    ///
    /// # Errors
    /// The runtime has ended.
    pub(crate) async fn leave(
        &self,
        uid: &Uid,
        connection: u64,
        farewell: Report,
        reporter: &Reporter,
    ) -> Result<(), ReportError> {
        let mut nodes = self.0.lock().await;
        if nodes.get(uid).is_none_or(|e| e.connection != connection) {
            return Ok(());
        }
        nodes.remove(uid);
        reporter.report(farewell).await
    }

    /// Closes the connection of a forgotten node.
    pub(crate) async fn forget(&self, uid: &Uid) {
        if let Some(entry) = self.0.lock().await.remove(uid) {
            entry.goodbye.send(Close::Forgotten).ok();
        }
    }

    /// Hands a request to the connection of its node.
    pub(crate) async fn request(&self, request: Request) -> Result<(), Unroutable> {
        let nodes = self.0.lock().await;
        let entry = nodes.get(&request.uid).ok_or(Unroutable::NotConnected)?;
        entry
            .requests
            .try_send(request)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Unroutable::Busy,
                mpsc::error::TrySendError::Closed(_) => Unroutable::NotConnected,
            })
    }
}
