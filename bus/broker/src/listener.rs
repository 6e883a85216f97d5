//! Accepting connections: bound, counted, and each in its own task before it says a byte.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::time::now;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::broker::Broker;
use crate::connection::{self, Socket};
use crate::door::{Credentials, Door};
use crate::handshake;
use crate::identity::Guest;
use crate::limits::{Full, Permit};
use crate::websocket::{self, Carrier, Terms};

/// Connections that the system holds for us until they are accepted.
const BACKLOG: i32 = 1024;
/// How long accepting rests when the system has nothing left to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

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
pub(crate) async fn accept(broker: Arc<Broker>, listener: TcpListener, door: Arc<Door>) {
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
            Err(_) => broker.metrics.refused("connections_per_address"),
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
    door: Arc<Door>,
    permit: Permit,
) {
    broker.metrics.connections.inc();
    let deadline = now().mono + broker.limits.connect_timeout;
    if let Err(error) = tune(&stream) {
        tracing::debug!(%error, "a socket can't be tuned");
    }
    let visit = Visit {
        broker: broker.clone(),
        peer,
        deadline,
    };
    match &door.credentials {
        Credentials::Nothing(role) => {
            let guest = Guest::anonymous(*role, broker.gate.generation());
            visit.talk(stream, guest, &door).await;
        }
        Credentials::Tls { asked, handshakes } => {
            // In a box, so that the room for it is given back.
            let shaking = handshake::shake(&broker, stream, peer, *asked, handshakes, deadline);
            let shaken = tokio::select! {
                shaken = Box::pin(shaking) => shaken,
                () = broker.shutdown.stopping() => None,
            };
            if let Some((stream, guest)) = shaken {
                visit.talk(stream, guest, &door).await;
            }
        }
    }
    drop(permit);
    broker.metrics.connections.dec();
}

/// A connection that is to send its CONNECT.
struct Visit {
    broker: Arc<Broker>,
    peer: SocketAddr,
    deadline: Instant,
}

impl Visit {
    async fn talk<S: Carrier + 'static>(self, stream: S, guest: Guest, door: &Door) {
        match &door.websocket {
            None => {
                let socket = Socket::new(stream, self.peer);
                connection::serve(self.broker, socket, guest, self.deadline).await;
            }
            // In boxes, so that the other connections don't carry the room for it.
            Some(terms) => Box::pin(self.upgrade(Box::new(stream), guest, terms)).await,
        }
    }

    async fn upgrade(self, carrier: Box<dyn Carrier>, guest: Guest, terms: &Terms) {
        let (broker, deadline) = (self.broker, self.deadline);
        let (packet, metrics) = (broker.limits.packet_bytes, broker.metrics.clone());
        let opened = tokio::select! {
            opened = websocket::accept(carrier, terms, packet, deadline, metrics) => opened,
            () = broker.shutdown.stopping() => return,
        };
        match opened {
            Ok(stream) => {
                broker.metrics.upgrade("ok");
                let socket = Socket::new(stream, self.peer);
                connection::serve(broker, socket, guest, deadline).await;
            }
            Err(refused) => {
                broker.metrics.upgrade(refused);
                tracing::debug!(peer.addr = %self.peer, reason = refused, "no WebSocket");
            }
        }
    }
}
