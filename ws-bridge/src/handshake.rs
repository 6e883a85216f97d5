//! The opening handshake (RFC 6455 section 4.2): from a TCP connection to a WebSocket, or to an
//! HTTP answer that says what was wrong.

use std::time::Duration;

use bus::origin::Origins;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// Where nodes connect.
pub(crate) const PATH: &str = "/node";

/// What Arduino's WebSockets library sends as its origin. No page from the web has it.
const NO_PAGE: &[u8] = b"file://";

/// A message is read in pieces of this size; it is what a quiet connection costs.
const READ_BUFFER: usize = 4 * 1024;

/// How long a peer that was answered may take to hang up.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// A node's WebSocket; the TCP connection stays with the caller.
pub(crate) type Socket<'a> = WebSocketStream<&'a mut TcpStream>;

/// Why there is no WebSocket; one word for the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) &'static str);

fn websocket_config(max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
}

/// Makes the WebSocket, or answers the peer and says why there is none.
#[expect(
    clippy::result_large_err,
    reason = "the callback's signature is tungstenite's"
)]
pub(crate) async fn accept<'a>(
    stream: &'a mut TcpStream,
    origins: &Origins,
    max_message: usize,
    timeout: Duration,
) -> Result<Socket<'a>, Refused> {
    let mut refused = None;
    let check = |request: &Request, response: Response| match judge(request, origins) {
        Ok(()) => Ok(response),
        Err(refusal) => {
            refused = Some(refusal.0);
            Err(answer(refusal))
        }
    };
    let config = Some(websocket_config(max_message));
    let accepting = accept_hdr_async_with_config(stream, check, config);
    match tokio::time::timeout(timeout, accepting).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(Error::Http(_))) => Err(Refused(refused.unwrap_or("request"))),
        Ok(Err(Error::Io(_))) => Err(Refused("closed")),
        Ok(Err(_)) => Err(Refused("request")),
        Err(_) => Err(Refused("timeout")),
    }
}

/// Answers a peer that asked for no WebSocket at all, and waits a little until it hangs up.
pub(crate) async fn dismiss(mut stream: TcpStream, refused: Refused) {
    let goodbye = async {
        if refused.0 == "request" {
            let body = format!("Nodes connect here by WebSocket, at {PATH}.\n");
            let answer = format!(
                "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: close\r\n\
                 Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await?;
        }
        hang_up(&mut stream).await
    };
    // The peer may be gone already, or never go: either way it is done with.
    drop(tokio::time::timeout(LINGER, goodbye).await);
}

/// Ends the sending side, then reads what still comes until the peer ends too: closing with unread
/// bytes would reset the connection and could take the last answer with it.
pub(crate) async fn hang_up(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// What is wrong with a request: one word, the status and the text of the answer.
type Refusal = (&'static str, StatusCode, &'static str);

fn judge(request: &Request, origins: &Origins) -> Result<(), Refusal> {
    if request.uri().path() != PATH {
        return Err(("path", StatusCode::NOT_FOUND, "Nodes connect at /node.\n"));
    }
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let (origin, host) = (header(header::ORIGIN), header(header::HOST));
    if origin != Some(NO_PAGE) && !origins.allow(origin, host, false) {
        let text = "Web pages may not act as nodes, unless their origin stands in \
                    ws_bridge.allowed_origins.\n";
        return Err(("origin", StatusCode::FORBIDDEN, text));
    }
    Ok(())
}

fn answer((_, status, text): Refusal) -> ErrorResponse {
    let mut answer = ErrorResponse::new(Some(text.to_owned()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, text.len().into());
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
