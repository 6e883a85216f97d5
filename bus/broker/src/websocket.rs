//! MQTT over WebSocket (section 6 of MQTT 3.1.1 and 5): the opening handshake, and binary messages
//! as a stream of bytes, so that a connection knows nothing of them.
//!
//! Refused on purpose: text messages, other subprotocols than `mqtt`, pages of other sites.

mod handshake;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

pub(crate) use self::handshake::Terms;
use crate::metrics::Metrics;

/// What is read at a time, bytes; it is what a quiet connection costs.
const READ_BUFFER: usize = 4 * 1024;
/// The largest message to a client, and at least what one from a client may have, bytes: several
/// small packets may share one (MQTT-6.0.0-2).
const MESSAGE: usize = 64 * 1024;

/// What carries a WebSocket: TCP, or TLS over it.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Carrier for S {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Our close frame is on its way.
    Closing,
    /// We said all; what still comes is thrown away until the peer ends too, since closing with
    /// unread bytes could take our last words with it.
    Draining,
}

/// The bytes in the binary messages of a WebSocket.
///
/// It holds at most one message of each direction: reading takes the next one when the last is used
/// up, and writing waits until the socket has taken the one before.
pub(crate) struct Stream {
    socket: WebSocketStream<Box<dyn Carrier>>,
    unread: Bytes,
    state: State,
    /// Why we close.
    code: CloseCode,
    metrics: Arc<Metrics>,
}

/// Makes the WebSocket, or answers the peer with what is wrong, and says it in one word.
pub(crate) async fn accept(
    mut carrier: Box<dyn Carrier>,
    terms: &Terms,
    packet_bytes: u32,
    deadline: Instant,
    metrics: Arc<Metrics>,
) -> Result<Stream, &'static str> {
    handshake::accept(&mut carrier, terms, deadline).await?;
    let message = MESSAGE.max(packet_bytes as usize);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(message))
        .max_frame_size(Some(message));
    Ok(Stream {
        socket: WebSocketStream::from_raw_socket(carrier, Role::Server, Some(config)).await,
        unread: Bytes::new(),
        state: State::Open,
        code: CloseCode::Normal,
        metrics,
    })
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl Stream {
    /// Ends reading because of what the peer sent.
    fn refuse(&mut self, code: CloseCode, reason: &'static str) -> io::Error {
        self.code = code;
        self.metrics.malformed(reason);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }

    fn fail(&mut self, error: Error) -> io::Error {
        match error {
            Error::Capacity(_) => self.refuse(CloseCode::Size, "websocket_message_too_large"),
            // The network's doing, or a peer that just went away.
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                io::ErrorKind::ConnectionReset.into()
            }
            Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt => {
                self.refuse(CloseCode::Protocol, "websocket_protocol")
            }
            other => io_error(other),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            let message = match ready!(this.socket.poll_next_unpin(cx)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(Err(this.fail(error))),
                None => return Poll::Ready(Ok(())),
            };
            match message {
                Message::Binary(bytes) => this.unread = bytes,
                // MQTT-6.0.0-1
                Message::Text(_) => {
                    let error = this.refuse(CloseCode::Unsupported, "websocket_text");
                    return Poll::Ready(Err(error));
                }
                Message::Close(_) => return Poll::Ready(Ok(())),
                // A ping is answered with the next read.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        let count = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread[..count]);
        this.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = &mut self.get_mut().socket;
        ready!(socket.poll_ready_unpin(cx)).map_err(io_error)?;
        let count = bytes.len().min(MESSAGE);
        let message = Message::Binary(Bytes::copy_from_slice(&bytes[..count]));
        socket.start_send_unpin(message).map_err(io_error)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &mut self.get_mut().socket;
        socket.poll_flush_unpin(cx).map_err(io_error)
    }

    /// Sends the close frame, ends the sending side, and waits until the peer hangs up.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state == State::Open {
            ready!(this.socket.poll_ready_unpin(cx)).map_err(io_error)?;
            let frame = CloseFrame {
                code: this.code,
                reason: "".into(),
            };
            // After the peer's close frame this does nothing, and the answer to it is flushed.
            let sent = this.socket.start_send_unpin(Message::Close(Some(frame)));
            sent.map_err(io_error)?;
            this.state = State::Closing;
        }
        if this.state == State::Closing {
            ready!(this.socket.poll_flush_unpin(cx)).map_err(io_error)?;
            ready!(Pin::new(this.socket.get_mut()).poll_shutdown(cx))?;
            this.state = State::Draining;
        }
        let mut scrap = [0; 1024];
        loop {
            let mut rest = ReadBuf::new(&mut scrap);
            ready!(Pin::new(this.socket.get_mut()).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
