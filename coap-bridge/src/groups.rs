//! Sockets for All CoAP Nodes (RFC 7252 section 12.8), one for each group and interface: what comes in
//! there was sent to the group, what goes out there goes out on the interface, and the answers come to
//! the main socket, which has the same port.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::task::Poll;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::firmware::ALL_COAP_NODES;
use crate::socket::canonical;

/// Datagrams taken from one socket in one turn.
const PER_TURN: usize = 64;
/// The longest datagram there is.
const MAX_DATAGRAM: usize = 65_536;
/// How many routers a question to the site may pass.
const SITE_HOPS: u32 = 16;

/// Why a group can't be joined.
#[derive(Debug, thiserror::Error)]
#[error("the interface {interface} has no multicast: correct coap_bridge.multicast_interfaces")]
pub struct JoinError {
    interface: String,
    source: io::Error,
}

#[derive(Debug)]
struct Group {
    address: IpAddr,
    io: UdpSocket,
}

#[derive(Debug, Default)]
pub(crate) struct Groups {
    sockets: Vec<Group>,
    buffer: Vec<u8>,
}

impl Groups {
    /// Joins the groups on these interfaces, those of IPv6 only with `ipv6`. The main socket lets it
    /// bind its port ([`crate::socket::Socket::share_port`]).
    ///
    /// # Errors
    /// There is no such interface, or none of the groups can be joined on it. One that can't, such as
    /// those of IPv6 where there is none, is left out.
    pub(crate) fn join(interfaces: &[String], port: u16, ipv6: bool) -> Result<Self, JoinError> {
        let mut groups = Self::default();
        for interface in interfaces {
            let failed = |source| JoinError {
                interface: interface.clone(),
                source,
            };
            let mut result = Err(io::ErrorKind::Unsupported.into());
            for address in ALL_COAP_NODES {
                if address.is_ipv6() && !ipv6 {
                    continue;
                }
                match join(address, interface, port) {
                    Ok(io) => {
                        groups.sockets.push(Group { address, io });
                        result = Ok(());
                    }
                    Err(error) => {
                        tracing::debug!(%address, interface, %error, "a group can't be joined");
                        result = result.map_err(|_| error);
                    }
                }
            }
            result.map_err(failed)?;
        }
        if !groups.sockets.is_empty() {
            groups.buffer = vec![0; MAX_DATAGRAM];
        }
        Ok(groups)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Completes when there is something to receive; never without groups. Cancel safe.
    pub(crate) async fn readable(&self) {
        poll_fn(|cx| {
            let mut sockets = self.sockets.iter();
            match sockets.any(|group| group.io.poll_recv_ready(cx).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Takes what waits, so many of each group at the most.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(SocketAddr, &[u8])) {
        for group in &self.sockets {
            for _ in 0..PER_TURN {
                let Ok((len, from)) = group.io.try_recv_from(&mut self.buffer) else {
                    break;
                };
                take(canonical(from), self.buffer.get(..len).unwrap_or_default());
            }
        }
    }

    /// Sends a datagram to a group, on each interface; it is lost where it can't be sent.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &[u8]) {
        for group in self.sockets.iter().filter(|group| group.address == to.ip()) {
            // Past tokio, which does not know before its first turn that a socket can be written.
            if let Err(error) = SockRef::from(&group.io).send_to(datagram, &to.into()) {
                tracing::debug!(peer.addr = %to, %error, "a group could not be asked");
            }
        }
    }
}

fn join(group: IpAddr, interface: &str, port: u16) -> io::Result<UdpSocket> {
    let domain = match group {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
    match group {
        IpAddr::V4(group) => join_v4(&socket, group, index, port)?,
        IpAddr::V6(group) => join_v6(&socket, group, index, port)?,
    }
    socket.set_reuse_address(false)?;
    UdpSocket::from_std(socket.into())
}

fn join_v4(socket: &Socket, group: Ipv4Addr, index: u32, port: u16) -> io::Result<()> {
    socket.bind(&SocketAddr::from((group, port)).into())?;
    socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))
}

fn join_v6(socket: &Socket, group: Ipv6Addr, index: u32, port: u16) -> io::Result<()> {
    socket.set_only_v6(true)?;
    let address = SocketAddrV6::new(group, port, 0, index);
    socket.bind(&SocketAddr::V6(address).into())?;
    socket.join_multicast_v6(&group, index)?;
    socket.set_multicast_if_v6(index)?;
    let on_the_link = group.segments()[0] & 0xF == 2;
    socket.set_multicast_hops_v6(if on_the_link { 1 } else { SITE_HOPS })
}
