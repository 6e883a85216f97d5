//! The TLS handshake of a client, and what its certificate says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::time::now;
use rustls::server::Acceptor;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::broker::Broker;
use crate::events::Refusal;
use crate::identity::{Guest, Identity, Known, Proof};
use crate::metrics::Counted;
use crate::tls::Asked;

/// How long a handshake holds its place. A peer that takes longer goes on without one, so that those
/// who stop half-way keep nobody waiting for more than this.
const HELD: Duration = Duration::from_secs(1);

/// A client that has come through.
type Shaken = (Box<TlsStream<TcpStream>>, Guest);

/// Takes a client through the handshake by `deadline`.
pub(crate) async fn shake(
    broker: &Broker,
    stream: TcpStream,
    peer: SocketAddr,
    asked: Asked,
    handshakes: &Semaphore,
    deadline: Instant,
) -> Option<Shaken> {
    let shaken = handshake(broker, stream, asked, handshakes);
    match tokio::time::timeout_at(deadline.into(), shaken).await {
        Ok(Ok((stream, generation))) => recognise(broker, stream, peer, asked, generation),
        Ok(Err(error)) => {
            let result = result(&error);
            broker.metrics.handshake(result);
            tracing::debug!(peer.addr = %peer, result, %error, "TLS handshake failed");
            if result.starts_with("certificate") {
                refuse(broker, peer, result);
            }
            None
        }
        Err(_) => {
            broker.metrics.handshake("timeout");
            None
        }
    }
}

/// Gives also the generation of the rules that it went by.
async fn handshake(
    broker: &Broker,
    stream: TcpStream,
    asked: Asked,
    handshakes: &Semaphore,
) -> io::Result<(Box<TlsStream<TcpStream>>, u64)> {
    // Whoever says nothing, or half of it, holds no place.
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let waiting = Counted::new(&broker.metrics.waiting_handshakes);
    let place = handshakes.acquire().await.map_err(io::Error::other)?;
    drop(waiting);
    let rules = broker.gate.rules();
    let stream = finish(hello, rules.trust.config(asked), place).await?;
    Ok((Box::new(stream), rules.generation))
}

async fn finish(
    hello: StartHandshake<TcpStream>,
    config: Arc<rustls::ServerConfig>,
    place: SemaphorePermit<'_>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut accepting = hello.into_stream(config);
    match tokio::time::timeout(HELD, &mut accepting).await {
        Ok(accepted) => accepted,
        Err(_) => {
            drop(place);
            accepting.await
        }
    }
}

/// Who came through: by the certificate, or a stranger where one may come without.
fn recognise(
    broker: &Broker,
    stream: Box<TlsStream<TcpStream>>,
    peer: SocketAddr,
    asked: Asked,
    generation: u64,
) -> Option<Shaken> {
    let certificates = stream.get_ref().1.peer_certificates();
    let chain: Vec<CertificateDer<'static>> = certificates.unwrap_or_default().to_vec();
    let Some(certificate) = chain.first() else {
        // Where one has to be shown, the handshake has failed without.
        if asked == Asked::Certificate {
            return None;
        }
        broker.metrics.handshake("ok");
        return Some((stream, Guest::Stranger));
    };
    match Identity::from_certificate(certificate) {
        Ok(identity) => {
            broker.metrics.handshake("ok");
            let known = Known {
                identity,
                proof: Proof::Certificate(chain),
                generation,
            };
            Some((stream, Guest::Known(known)))
        }
        Err(error) => {
            broker.metrics.handshake("no_role");
            tracing::debug!(peer.addr = %peer, %error, "client refused");
            refuse(broker, peer, "no_role");
            None
        }
    }
}

fn refuse(broker: &Broker, peer: SocketAddr, what: &str) {
    let refusal = Refusal {
        kind: "certificate",
        who: &peer.ip().to_canonical().to_string(),
        what,
    };
    broker.refuse(&refusal, now());
}

/// The word for a failed handshake, of a closed set.
fn result(error: &io::Error) -> &'static str {
    use rustls::{CertificateError as Certificate, Error};
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::NoCertificatesPresented) => "certificate_missing",
        Some(Error::InvalidCertificate(certificate)) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => "certificate_expired",
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                "certificate_not_valid_yet"
            }
            Certificate::Revoked => "certificate_revoked",
            Certificate::UnknownIssuer => "certificate_unknown_issuer",
            Certificate::InvalidPurpose | Certificate::InvalidPurposeContext { .. } => {
                "certificate_wrong_purpose"
            }
            _ => "certificate_invalid",
        },
        Some(Error::AlertReceived(_)) => "alert",
        Some(_) => "tls",
        None => "io",
    }
}
