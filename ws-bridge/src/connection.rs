//! The driver of one connection: moves frames between the socket and its machine.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use bus::bridge::{Report, ReportError, Uid};
use bus::time::{now, sleep_until};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::close::Close;
use crate::driver::Shared;
use crate::handshake::{self, LINGER, Socket};
use crate::hub::{Entry, REQUEST_QUEUE};
use crate::node::{Frame, Node};

/// Serves one TCP connection from its first byte to its end.
pub(crate) async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    id: u64,
    random: Uid,
    shared: Arc<Shared>,
) {
    let accepting = handshake::accept(
        &mut stream,
        &shared.origins,
        shared.max_message_bytes,
        shared.handshake_timeout,
    );
    let accepted = tokio::select! {
        biased;
        () = shared.shutdown.stopping() => return,
        accepted = accepting => accepted,
    };
    match accepted {
        Err(refused) => {
            shared.metrics.refused(refused.0);
            tracing::debug!(peer.addr = %peer, reason = refused.0, "connection refused");
            handshake::dismiss(stream, refused).await;
        }
        Ok(mut socket) => {
            let machine = Node::new(random, peer.to_string(), shared.limits, now().mono);
            let close = Connection::new(machine, id, &shared).run(&mut socket).await;
            shared.metrics.ended(close.word());
            tracing::debug!(peer.addr = %peer, reason = close.word(), "connection ended");
            drop(tokio::time::timeout(LINGER, say_goodbye(socket, close)).await);
        }
    }
}

/// Sends the close frame and waits until the peer hangs up.
async fn say_goodbye(mut socket: Socket<'_>, close: Close) -> Result<(), Error> {
    if let Some((code, reason)) = close.frame() {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        socket.close(Some(frame)).await?;
    } else {
        // Completes the closing handshake that the peer began.
        socket.flush().await?;
    }
    Ok(handshake::hang_up(socket.get_mut()).await?)
}

struct Connection<'a> {
    machine: Node,
    id: u64,
    shared: &'a Shared,
    /// Ours until the node is announced, then the hub's.
    entry: Option<Entry>,
    requests: mpsc::Receiver<bus::bridge::Request>,
    goodbye: oneshot::Receiver<Close>,
}

impl<'a> Connection<'a> {
    fn new(machine: Node, id: u64, shared: &'a Shared) -> Self {
        let (requests_in, requests) = mpsc::channel(REQUEST_QUEUE);
        let (goodbye_in, goodbye) = oneshot::channel();
        Self {
            machine,
            id,
            shared,
            entry: Some(Entry {
                connection: id,
                requests: requests_in,
                goodbye: goodbye_in,
            }),
            requests,
            goodbye,
        }
    }

    /// Runs until there is a reason to close; the node is reported lost by then.
    async fn run(mut self, socket: &mut Socket<'_>) -> Close {
        let close = loop {
            if self.report().await.is_err() {
                break Close::Stopping;
            }
            if let Some(close) = self.machine.closing() {
                break close;
            }
            let deadline = Some(self.machine.poll_timeout());
            tokio::select! {
                biased;
                () = self.shared.shutdown.stopping() => break Close::Stopping,
                goodbye = &mut self.goodbye => break goodbye.unwrap_or(Close::Replaced),
                Some(request) = self.requests.recv() => {
                    self.machine.handle_request(request, now().mono);
                }
                input = exchange(socket, &mut self.machine) => {
                    if let Some(close) = self.take(input) {
                        break close;
                    }
                }
                () = sleep_until(deadline) => self.machine.handle_timeout(now().mono),
            }
        };
        if matches!(close, Close::Invalid(_) | Close::TooLong | Close::NotUtf8) {
            self.shared.metrics.invalid.inc();
        }
        self.leave(close).await;
        close
    }

    /// Hands one input to the machine; gives a reason to close when the socket has ended.
    fn take(&mut self, input: Option<Result<Message, Error>>) -> Option<Close> {
        let now = now();
        match input {
            None | Some(Ok(Message::Close(_))) => return Some(Close::Closed),
            Some(Err(error)) => return Some(close_for(&error)),
            Some(Ok(Message::Text(text))) => {
                self.shared.metrics.messages.inc();
                self.machine.handle_text(&text, now);
            }
            Some(Ok(Message::Binary(_))) => self.machine.handle_binary(),
            Some(Ok(Message::Ping(_))) => self.machine.handle_ping(now),
            Some(Ok(Message::Pong(payload))) => self.machine.handle_pong(&payload, now),
            // Never read, only written.
            Some(Ok(Message::Frame(_))) => {}
        }
        if !self.machine.wants_input() {
            self.shared.metrics.pauses.inc();
        }
        None
    }

    async fn report(&mut self) -> Result<(), ReportError> {
        while let Some(report) = self.machine.poll_report() {
            match (&report, self.entry.take()) {
                (Report::Announce { uid, .. }, Some(entry)) => {
                    let uid = uid.clone();
                    let reporter = &self.shared.reporter;
                    self.shared.hub.join(uid, entry, report, reporter).await?;
                }
                (_, entry) => {
                    self.entry = entry;
                    self.shared.reporter.report(report).await?;
                }
            }
        }
        Ok(())
    }

    async fn leave(&mut self, close: Close) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            self.machine.handle_request(request, now().mono);
        }
        self.machine.handle_end();
        // Without a runtime there is nobody left to tell.
        if self.report().await.is_ok() {
            let (hub, reporter) = (&self.shared.hub, &self.shared.reporter);
            let farewell = self.machine.farewell(close.word());
            let uid = self.machine.uid();
            hub.leave(uid, self.id, farewell, reporter).await.ok();
        }
    }
}

/// Writes what waits and reads the next message. Cancel safe: it keeps nothing of its own.
async fn exchange(socket: &mut Socket<'_>, machine: &mut Node) -> Option<Result<Message, Error>> {
    poll_fn(|cx| {
        loop {
            match socket.poll_ready_unpin(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                // A node that doesn't read: its frames wait in the machine's bounded queue.
                Poll::Pending => break,
            }
            let Some(frame) = machine.poll_transmit() else {
                break;
            };
            let message = match frame {
                Frame::Text(text) => Message::text(text),
                Frame::Ping(number) => Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes())),
            };
            if let Err(error) = std::pin::Pin::new(&mut *socket).start_send(message) {
                return Poll::Ready(Some(Err(error)));
            }
        }
        if let Poll::Ready(Err(error)) = socket.poll_flush_unpin(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        if machine.wants_input() {
            socket.poll_next_unpin(cx)
        } else {
            Poll::Pending
        }
    })
    .await
}

fn close_for(error: &Error) -> Close {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Close::TooLong,
        Error::Utf8(_) => Close::NotUtf8,
        // The network's doing, or a node that just went away.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Close::Closed,
        Error::Protocol(_) | Error::Capacity(_) | Error::AttackAttempt => Close::Protocol,
        _ => Close::Closed,
    }
}
