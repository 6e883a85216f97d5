//! The way to the broker: TCP, with mutual TLS or without.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::BusUrl;
use super::error::ConnectionError;

/// A stream of bytes, both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to the broker; `tls` is there where the address asks for it. Cancel safe.
pub(super) async fn open(
    url: &BusUrl,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, ConnectionError> {
    let tcp = TcpStream::connect((url.host.as_str(), url.port)).await;
    let tcp = tcp.map_err(ConnectionError::Unreachable)?;
    // What is written at once is one batch; nothing follows soon that it could wait for.
    tcp.set_nodelay(true)
        .map_err(ConnectionError::Unreachable)?;
    let Some(tls) = tls else {
        return Ok(Box::new(tcp));
    };
    let name = ServerName::try_from(url.host.clone()).map_err(|_| ConnectionError::Host)?;
    let tls = TlsConnector::from(tls).connect(name, tcp).await;
    Ok(Box::new(tls.map_err(ConnectionError::Handshake)?))
}
