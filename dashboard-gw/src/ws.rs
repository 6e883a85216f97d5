//! `/ws`: the driver between a Pyaiot client's socket and the hub.

use std::sync::Arc;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use bus::time::{now, sleep_until};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::{Allowance, Keepalive, Silence};
use crate::hub::{Hub, Seat};
use crate::metrics::Sent;
use crate::pyaiot::{Nonsense, Said, parse};
use crate::socket::{Closing, Incoming, Lost, close, incoming, send, send_all};

/// Messages that are written together at the most.
const BATCH: usize = 64;

struct Follower {
    socket: WebSocket,
    hub: Arc<Hub>,
    seat: Seat,
    keepalive: Keepalive,
    allowance: Allowance,
    /// What happens, once the client said that it wants to know.
    feed: Option<mpsc::Receiver<Utf8Bytes>>,
}

/// Serves one client until it leaves, falls behind, or the gateway stops.
pub(crate) async fn run(socket: WebSocket, hub: Arc<Hub>, seat: Seat, stop: CancellationToken) {
    let start = now().mono;
    let mut follower = Follower {
        socket,
        hub,
        seat,
        keepalive: Keepalive::new(start),
        allowance: Allowance::new(start),
        feed: None,
    };
    let Ok(Some(closing)) = follower.serve(stop).await else {
        return;
    };
    if let Some(refusal) = closing.refusal {
        follower.hub.metrics.refused(refusal);
        tracing::debug!(?refusal, "a Pyaiot client was closed");
    }
    close(follower.socket, closing).await;
}

/// The next messages of the feed, at most `batch`; none when the feed has ended. Cancel safe.
async fn next(feed: &mut Option<mpsc::Receiver<Utf8Bytes>>, batch: &mut Vec<Utf8Bytes>) -> bool {
    match feed {
        Some(feed) => feed.recv_many(batch, BATCH).await > 0,
        None => std::future::pending().await,
    }
}

impl Follower {
    /// Gives why to close, or none when the client is gone.
    async fn serve(&mut self, stop: CancellationToken) -> Result<Option<Closing>, Lost> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Some(Closing::STOPPING)),
                received = self.socket.recv() => {
                    self.keepalive.handle_message();
                    if !self.allowance.admit(now().mono) {
                        return Ok(Some(Closing::RATE));
                    }
                    match incoming(received) {
                        Incoming::Alive => {}
                        Incoming::Closed => return Ok(None),
                        Incoming::Refuse(closing) => return Ok(Some(closing)),
                        Incoming::Text(text) => match parse(&text) {
                            Ok(said) => self.said(said).await?,
                            Err(nonsense) => return Ok(Some(refused(nonsense))),
                        }
                    }
                }
                () = sleep_until(Some(self.keepalive.poll_timeout())) => {
                    match self.keepalive.handle_timeout(now().mono) {
                        Some(Silence::Ping) => {
                            send(&mut self.socket, Message::Ping(bytes::Bytes::new())).await?;
                        }
                        Some(Silence::Gone) => return Ok(Some(Closing::SILENT)),
                        None => {}
                    }
                }
                goes_on = next(&mut self.feed, &mut batch) => {
                    if !goes_on {
                        return Ok(Some(Closing::BEHIND));
                    }
                    self.send_all(batch.drain(..)).await?;
                }
            }
        }
    }

    async fn send_all<I>(&mut self, texts: I) -> Result<(), Lost>
    where
        I: ExactSizeIterator<Item = Utf8Bytes>,
    {
        self.hub.metrics.sent(Sent::Pyaiot, texts.len() as u64);
        send_all(&mut self.socket, texts).await
    }

    async fn said(&mut self, said: Said) -> Result<(), Lost> {
        match said {
            Said::Nothing => Ok(()),
            Said::New => {
                let (replay, feed) = self.hub.follow();
                self.feed = Some(feed);
                self.send_all(replay.into_iter().map(Into::into)).await
            }
            Said::Write {
                uid,
                endpoint,
                payload,
            } => {
                match self.hub.pyaiot_write(&uid, &endpoint, payload) {
                    // Nobody is told the end of it: the protocol has no word for that.
                    Some(request) => drop(self.hub.request(self.seat.id, &request, now())),
                    None => tracing::debug!("a Pyaiot client writes to a node that is not there"),
                }
                Ok(())
            }
        }
    }
}

fn refused(nonsense: Nonsense) -> Closing {
    Closing::unsupported(match nonsense {
        Nonsense::NotJson => "Invalid message received. Only JSON format is supported.",
        Nonsense::NoMessage => "Invalid message: it has no type and data.",
        Nonsense::Type => "Invalid message type: use new or update.",
    })
}
