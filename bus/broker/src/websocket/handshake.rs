//! The opening handshake (RFC 6455 section 4.2): a WebSocket for MQTT, or an HTTP answer that says
//! what was wrong.

use std::time::{Duration, Instant};

use bus::origin::Origins;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Carrier;

/// The subprotocol of MQTT 3.1.1 and 5 (MQTT-6.0.0-3).
const SUBPROTOCOL: &str = "mqtt";
/// How long a peer that was refused may take to hang up.
const LINGER: Duration = Duration::from_secs(1);

/// Who may open a WebSocket.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Pages of other sites.
    pub(crate) origins: Origins,
    /// A page has verified our name, by TLS.
    pub(crate) is_proven: bool,
}

/// Answers the opening handshake; in one word why there is no WebSocket.
#[expect(
    clippy::result_large_err,
    reason = "the callback's signature is tungstenite's"
)]
pub(super) async fn accept(
    carrier: &mut Box<dyn Carrier>,
    terms: &Terms,
    deadline: Instant,
) -> Result<(), &'static str> {
    let mut refused = None;
    let check = |request: &Request, mut response: Response| match judge(request, terms) {
        Ok(()) => {
            // MQTT-6.0.0-4
            let protocol = HeaderValue::from_static(SUBPROTOCOL);
            response
                .headers_mut()
                .insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            Ok(response)
        }
        Err(refusal) => {
            refused = Some(refusal.0);
            Err(answer(refusal))
        }
    };
    // Nothing behind the request is read yet, so that the WebSocket can be made anew on the carrier.
    let accepting = accept_hdr_async_with_config(&mut *carrier, check, None);
    let accepted = match tokio::time::timeout_at(deadline.into(), accepting).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok("timeout"),
    };
    let word = match accepted {
        Ok(word) => word,
        Err(Error::Http(_)) => refused.unwrap_or("request"),
        Err(Error::Io(_)) => "closed",
        Err(_) => "request",
    };
    // The peer may be gone already, or never go: either way it is done with.
    drop(tokio::time::timeout(LINGER, dismiss(carrier, word)).await);
    Err(word)
}

/// Answers a peer that asked for no WebSocket at all, and waits until it hangs up.
async fn dismiss(carrier: &mut Box<dyn Carrier>, word: &str) -> std::io::Result<()> {
    if word == "request" {
        let body = "MQTT over WebSocket is spoken here, with the subprotocol mqtt.\n";
        let answer = format!(
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: close\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        carrier.write_all(answer.as_bytes()).await?;
    }
    carrier.shutdown().await?;
    let mut rest = [0; 1024];
    while carrier.read(&mut rest).await? > 0 {}
    Ok(())
}

/// What is wrong with a request: one word, the status and the text of the answer.
type Refusal = (&'static str, StatusCode, &'static str);

fn judge(request: &Request, terms: &Terms) -> Result<(), Refusal> {
    let headers = request.headers();
    let header = |name| headers.get(name).map(HeaderValue::as_bytes);
    let (origin, host) = (header(header::ORIGIN), header(header::HOST));
    if !terms.origins.allow(origin, host, terms.is_proven) {
        let text =
            "Pages of this origin may not connect, unless it stands in bus.allowed_origins.\n";
        return Err(("origin", StatusCode::FORBIDDEN, text));
    }
    if !offers_mqtt(headers) {
        let text = "The client has to offer the subprotocol mqtt: Sec-WebSocket-Protocol: mqtt\n";
        return Err(("subprotocol", StatusCode::BAD_REQUEST, text));
    }
    Ok(())
}

/// Whether `mqtt` is among the subprotocols that the client offers, in one header or several.
fn offers_mqtt(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offered| offered.trim() == SUBPROTOCOL)
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
