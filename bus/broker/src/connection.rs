//! One connection: bytes in, packets to the session, bytes out.
//!
//! Reading, writing and the session's wake-ups take turns in one task, so that a client that
//! doesn't read keeps nobody but itself waiting. What may be done is decided in `packets`.

mod held;
mod login;
mod opening;
mod packets;
mod recheck;
mod socket;
mod subscriptions;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bus::time::{now, sleep_until};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use self::packets::Client;
pub(crate) use self::socket::Socket;
use self::socket::Turn;
use crate::broker::Broker;
use crate::identity::Guest;
use crate::store::Progress;
use crate::wire::{self, Reason, WireError};

/// Output that may wait for the socket before no more is read or made, bytes.
const OUTPUT: usize = 64 * 1024;
/// Buffers that a client keeps while there is nothing in them, bytes each.
const KEPT: usize = 512;
/// How long the last words to a client may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// DISCONNECT from the client; with its Will (reason code 0x04) or without.
    Goodbye { with_will: bool },
    /// The client closed without a word.
    Closed,
    /// The socket failed.
    Failed(io::Error),
    /// The broker ends it.
    Ended(Reason),
    /// What came was not MQTT or not allowed.
    Refused(Reason),
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Refused(error.reason)
    }
}

impl End {
    fn word(&self) -> &'static str {
        match self {
            Self::Goodbye { .. } => "disconnect",
            Self::Closed => "closed",
            Self::Failed(_) => "socket",
            Self::Ended(reason) | Self::Refused(reason) => reason.as_str(),
        }
    }
}

/// Says the last words.
async fn farewell<S>(mut socket: Socket<S>, mut output: BytesMut)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The client may be gone, or not be reading: nothing depends on it.
    match tokio::time::timeout(FAREWELL, socket.close(&mut output)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::trace!(%error, "no farewell"),
        Err(_) => tracing::trace!("no farewell in time"),
    }
}

/// Serves one client until it or the broker ends it. `deadline` is for its CONNECT.
pub(crate) async fn serve<S>(
    broker: Arc<Broker>,
    mut socket: Socket<S>,
    guest: Guest,
    deadline: Instant,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut output = BytesMut::new();
    let opening = opening::open(&broker, &mut socket, guest, deadline, &mut output);
    let (mut client, kicked, gone) = match contained(Box::pin(opening)).await {
        Ok(opened) => opened,
        Err(end) => {
            note(&broker, &end, socket.peer, "");
            farewell(socket, output).await;
            return;
        }
    };
    let run = client.run(&mut socket, &mut output, kicked);
    let Err(end) = contained(Box::pin(run)).await;
    client.close(&end);
    // From here on, who took the session over may go on.
    drop(gone);
    note(&broker, &end, socket.peer, &client.client_id);
    if let End::Ended(reason) | End::Refused(reason) = end {
        wire::disconnect(&mut output, client.version, reason, client.maximum_packet);
    }
    farewell(socket, output).await;
}

fn note(broker: &Broker, end: &End, peer: SocketAddr, client_id: &str) {
    broker.metrics.closed(end.word());
    if let End::Refused(reason) = end {
        broker.metrics.malformed(reason.as_str());
    }
    let error = match end {
        End::Failed(error) => Some(error as &dyn std::error::Error),
        _ => None,
    };
    tracing::debug!(
        peer.addr = %peer,
        mqtt.client_id = %client_id.escape_debug(),
        reason = end.word(),
        error,
        "connection ended"
    );
}

/// Runs what a peer's bytes decide. A panic in it ends this one connection only.
///
/// It is boxed, so that what is only needed for a while is only held for a while.
async fn contained<T>(mut work: Pin<Box<impl Future<Output = Result<T, End>>>>) -> Result<T, End> {
    poll_fn(move |context| {
        let polled = AssertUnwindSafe(|| work.as_mut().poll(context));
        catch_unwind(polled).unwrap_or_else(|_| {
            tracing::error!("a packet was not survived: its connection ends");
            Poll::Ready(Err(End::Refused(Reason::ProtocolError)))
        })
    })
    .await
}

impl Client {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        output: &mut BytesMut,
        mut kicked: oneshot::Receiver<()>,
    ) -> Result<Infallible, End> {
        let broker = self.broker.clone();
        let handle = self.handle.clone();
        let mut stopping = pin!(broker.shutdown.stopping());
        let mut heard = now().mono;
        let mut alarm = pin!(tokio::time::sleep_until(self.deadline(heard).into()));
        let mut is_flushed = false;
        // What came with the CONNECT.
        self.consume(&mut socket.input, output).await?;
        loop {
            self.recheck()?;
            self.release(output)?;
            self.transmit(output)?;
            is_flushed &= output.is_empty();
            let may_read = output.len() < OUTPUT && !self.held.is_full() && self.slowed.is_none();
            let writes = (!is_flushed).then_some(&mut *output);
            tokio::select! {
                biased;
                _ = &mut kicked => return Err(End::Ended(Reason::SessionTakenOver)),
                () = &mut stopping => return Err(End::Ended(Reason::ServerShuttingDown)),
                turn = socket.turn(writes, may_read) => match turn.map_err(End::Failed)? {
                    Turn::Written => is_flushed = true,
                    Turn::Read(0) => return Err(End::Closed),
                    Turn::Read(_) => {
                        heard = now().mono;
                        self.consume(&mut socket.input, output).await?;
                    }
                },
                () = sleep_until(self.slowed), if self.slowed.is_some() => {
                    self.slowed = None;
                    heard = now().mono;
                    self.consume(&mut socket.input, output).await?;
                }
                () = handle.wake.notified() => {}
                () = self.held.changed(), if self.is_held || self.held.is_waiting() => {}
                () = &mut alarm, if self.keep_alive.is_some() => {
                    // What is left unread can't be held against the client.
                    let deadline = self.deadline(self.slowed.unwrap_or(heard));
                    if now().mono >= deadline {
                        return Err(End::Ended(Reason::KeepAliveTimeout));
                    }
                    alarm.as_mut().reset(deadline.into());
                }
            }
        }
    }

    /// One and a half times the Keep Alive after the client was last heard (MQTT-3.1.2-22). What
    /// the broker sends doesn't count.
    fn deadline(&self, heard: Instant) -> Instant {
        heard + self.keep_alive.unwrap_or_default().mul_f32(1.5)
    }

    /// Takes every whole packet off the input, until the client has to be slowed.
    async fn consume(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<(), End> {
        let maximum = self.broker.limits.packet_bytes as usize;
        while self.slowed.is_none()
            && let Some(packet) = wire::take(input, Some(self.version), maximum)?
        {
            self.handle_packet(packet, output).await?;
        }
        if input.is_empty() && input.capacity() > KEPT {
            *input = BytesMut::new();
        }
        Ok(())
    }

    /// Lets the session write what may go out now.
    fn transmit(&mut self, output: &mut BytesMut) -> Result<(), End> {
        let millis = now().wall.unix_millis();
        let progress = match self.handle.kept() {
            Some(_) => self.held.progress(&self.broker.store),
            None => Progress::default(),
        };
        let sent = self.handle.with(self.epoch, |session| {
            if session.is_overflowed() {
                return Err(End::Ended(Reason::QuotaExceeded));
            }
            Ok(session.poll_transmit(millis, progress, OUTPUT, output))
        });
        let sent = sent.unwrap_or(Err(End::Ended(Reason::SessionTakenOver)))?;
        self.is_held = sent.is_held;
        if output.is_empty() && output.capacity() > KEPT {
            *output = BytesMut::new();
        }
        let metrics = &self.broker.metrics;
        metrics.sent.inc_by(sent.messages);
        metrics.dropped("expired", sent.expired);
        metrics.dropped("too_large", sent.too_large);
        Ok(())
    }
}
