//! What both kinds of clients need of a WebSocket: bounded writes, close codes, rubbish told apart.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use futures_util::SinkExt;

use crate::metrics::Refusal;

/// The longest message of a client, in bytes.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;
/// A client that takes longer to read what was sent is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// The connection can't be written to any more.
#[derive(Debug)]
pub(crate) struct Lost;

/// What came from a client.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message.
    Text(Utf8Bytes),
    /// A ping or a pong: it is there.
    Alive,
    /// It is closed.
    Closed,
    /// Close it, for this reason.
    Refuse(Closing),
}

/// Why a client is closed: what is counted, and what it is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closing {
    pub(crate) refusal: Option<Refusal>,
    code: u16,
    words: &'static str,
}

impl Closing {
    const fn refuse(refusal: Refusal, code: u16, words: &'static str) -> Self {
        Self {
            refusal: Some(refusal),
            code,
            words,
        }
    }

    pub(crate) const STOPPING: Self = Self {
        refusal: None,
        code: close_code::AWAY,
        words: "the gateway is being stopped",
    };
    pub(crate) const BEHIND: Self = Self {
        refusal: None,
        code: close_code::AGAIN,
        words: "too far behind: connect again for the current state",
    };
    pub(crate) const RATE: Self = Self::refuse(
        Refusal::Rate,
        close_code::POLICY,
        "too many messages: at most 50 a second",
    );
    pub(crate) const SILENT: Self = Self::refuse(
        Refusal::Silent,
        close_code::POLICY,
        "two pings were not answered",
    );
    pub(crate) const MALFORMED: Self = Self::refuse(
        Refusal::Malformed,
        close_code::INVALID,
        "not a message of this protocol",
    );
    const BINARY: Self = Self::refuse(
        Refusal::Malformed,
        close_code::UNSUPPORTED,
        "only text is understood",
    );
    const TOO_LONG: Self = Self::refuse(
        Refusal::TooLong,
        close_code::SIZE,
        "a message may have 64 KiB",
    );

    /// As Pyaiot's broker answers nonsense.
    pub(crate) fn unsupported(words: &'static str) -> Self {
        Self::refuse(Refusal::Malformed, close_code::UNSUPPORTED, words)
    }
}

/// Tells apart what `WebSocket::recv` gave.
pub(crate) fn incoming(received: Option<Result<Message, axum::Error>>) -> Incoming {
    match received {
        None | Some(Ok(Message::Close(_))) => Incoming::Closed,
        Some(Ok(Message::Text(text))) => Incoming::Text(text),
        Some(Ok(Message::Binary(_))) => Incoming::Refuse(Closing::BINARY),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Incoming::Alive,
        Some(Err(error)) => {
            // axum hides the kind; the words of tungstenite's capacity error are its only trace.
            let too_long = error.to_string().contains("too long");
            if too_long {
                Incoming::Refuse(Closing::TOO_LONG)
            } else {
                Incoming::Closed
            }
        }
    }
}

async fn bounded(write: impl Future<Output = Result<(), axum::Error>>) -> Result<(), Lost> {
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Lost),
    }
}

/// Sends a message.
pub(crate) async fn send(socket: &mut WebSocket, message: Message) -> Result<(), Lost> {
    bounded(socket.send(message)).await
}

/// Sends texts, together as far as they fit.
pub(crate) async fn send_all(
    socket: &mut WebSocket,
    texts: impl IntoIterator<Item = Utf8Bytes>,
) -> Result<(), Lost> {
    for text in texts {
        bounded(socket.feed(Message::Text(text))).await?;
    }
    bounded(SinkExt::<Message>::flush(socket)).await
}

/// Closes the connection; whether the client hears why is up to it.
pub(crate) async fn close(mut socket: WebSocket, closing: Closing) {
    let frame = CloseFrame {
        code: closing.code,
        reason: Utf8Bytes::from_static(closing.words),
    };
    if send(&mut socket, Message::Close(Some(frame)))
        .await
        .is_err()
    {
        return;
    }
    // Reading on until the client's own close, so that the kernel does not reset the connection
    // over bytes nobody read, which would take our frame away from the client.
    let rest = async { while let Some(Ok(_)) = socket.recv().await {} };
    if tokio::time::timeout(Duration::from_secs(2), rest)
        .await
        .is_err()
    {
        tracing::debug!("a client did not answer the closing handshake");
    }
}
