//! Accepting connections: bound, counted, and each in its own task before it says a byte.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::time::now;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::broker::Broker;
use crate::connection::{self, Socket};
use crate::events::Refusal;
use crate::identity::{Guest, Identity, Role};
use crate::limits::{Full, Permit};

/// Connections that the system holds for us until they are accepted.
const BACKLOG: i32 = 1024;
/// How long accepting rests when the system has nothing left to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// How clients of a listener show who they are.
#[derive(Clone)]
pub(crate) enum Door {
    /// By their certificate.
    Tls {
        /// Handshakes under way; a peer that says nothing holds none.
        handshakes: Arc<Semaphore>,
    },
    /// Not at all: everybody has this role.
    Plain(Role),
}

impl Door {
    /// mTLS with at most so many handshakes at a time.
    pub(crate) fn tls(handshakes: usize) -> Self {
        Self::Tls {
            handshakes: Arc::new(Semaphore::new(handshakes.min(Semaphore::MAX_PERMITS))),
        }
    }
}

fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // The unspecified address takes IPv4 too, whatever the system's default is.
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Binds; `[::]` becomes `0.0.0.0` on a system without IPv6.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = try_bind(address);
    match &bound {
        Err(error)
            if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && error.kind() != io::ErrorKind::AddrInUse
                && error.kind() != io::ErrorKind::PermissionDenied =>
        {
            try_bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        _ => bound,
    }
}

/// Accepts until the stop.
pub(crate) async fn accept(broker: Arc<Broker>, listener: TcpListener, door: Door) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = broker.shutdown.stopping() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // One that was closed meanwhile, or no descriptor left.
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        match broker.admission.admit(peer.ip()) {
            Ok(permit) => {
                let task = serve(broker.clone(), stream, peer, door.clone(), permit);
                broker.shutdown.spawn(task);
            }
            Err(Full::Total) => broker.metrics.refused("connections"),
            Err(Full::Address) => broker.metrics.refused("connections_per_address"),
        }
    }
}

/// Small packets go out at once, since what can be batched is batched above; and a peer that
/// vanished without Keep Alive is found out after some five minutes.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(180))
        .with_interval(Duration::from_secs(30))
        .with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

async fn serve(
    broker: Arc<Broker>,
    stream: TcpStream,
    peer: SocketAddr,
    door: Door,
    permit: Permit,
) {
    broker.metrics.connections.inc();
    let deadline = now().mono + broker.limits.connect_timeout;
    if let Err(error) = tune(&stream) {
        tracing::debug!(%error, "a socket can't be tuned");
    }
    match door {
        Door::Plain(role) => {
            let guest = Guest {
                identity: Identity::anonymous(role),
                chain: Vec::new(),
                generation: broker.gate.generation(),
            };
            let socket = Socket::new(stream, peer);
            connection::serve(broker.clone(), socket, guest, deadline).await;
        }
        Door::Tls { handshakes } => {
            // Boxed, so that its room is free again after it.
            let shake = Box::pin(shake(&broker, stream, peer, &handshakes, deadline));
            let shaken = tokio::select! {
                shaken = shake => shaken,
                () = broker.shutdown.stopping() => None,
            };
            if let Some((stream, guest)) = shaken {
                let socket = Socket::new(stream, peer);
                connection::serve(broker.clone(), socket, guest, deadline).await;
            }
        }
    }
    broker.metrics.connections.dec();
    drop(permit);
}

/// The TLS handshake and what the certificate says.
async fn shake(
    broker: &Broker,
    stream: TcpStream,
    peer: SocketAddr,
    handshakes: &Semaphore,
    deadline: Instant,
) -> Option<(Box<TlsStream<TcpStream>>, Guest)> {
    let mut generation = 0;
    let handshake = async {
        stream.readable().await?;
        let _permit = handshakes.acquire().await.map_err(io::Error::other)?;
        let rules = broker.gate.rules();
        generation = rules.generation;
        let acceptor = TlsAcceptor::from(rules.trust.config.clone());
        acceptor.accept(stream).await
    };
    let stream = match tokio::time::timeout_at(deadline.into(), handshake).await {
        Ok(Ok(stream)) => Box::new(stream),
        Ok(Err(error)) => {
            let result = handshake_result(&error);
            broker.metrics.handshake(result);
            tracing::debug!(peer.addr = %peer, result, %error, "TLS handshake failed");
            if result.starts_with("certificate") {
                refuse(broker, peer, result);
            }
            return None;
        }
        Err(_) => {
            broker.metrics.handshake("timeout");
            return None;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let chain = certificates.unwrap_or_default().to_vec();
    let identity = Identity::from_certificate(chain.first().map_or(&[], |der| der.as_ref()));
    match identity {
        Ok(identity) => {
            broker.metrics.handshake("ok");
            let guest = Guest {
                identity,
                chain,
                generation,
            };
            Some((stream, guest))
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
fn handshake_result(error: &io::Error) -> &'static str {
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
