//! A UDP socket that takes datagrams in batches, and answers from the address that was addressed: on a
//! host with several, a node drops what comes from another one than it sent to.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Holds some 10,000 datagrams of a burst; the system may grant less.
const BUFFER: usize = 4 * 1024 * 1024;
/// The longest datagram there is, and the longest run of them that the system joins into one.
const MAX_DATAGRAM: usize = 65_536;
/// Of so many hosts we know for sure which of our addresses they use.
const MAX_HOSTS: usize = 65_536;

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    /// Only looked at for reading: with each datagram that has left the system tells that there is room
    /// for another, which nobody waits for, and which would wake a thread each time.
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// IPv4 peers are addressed as IPv6 ones.
    dual_stack: bool,
    buffer: Box<[u8]>,
    /// Only of use where the system would have to choose.
    ours: Option<Ours>,
}

impl Socket {
    /// Binds a socket, for IPv4 and IPv6 when the address is `[::]`; given an interface, for that alone.
    ///
    /// # Errors
    /// The address is taken, or the system knows no such one, or no such interface.
    pub fn bind(address: SocketAddr, interface: Option<&str>) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // Smaller buffers still work.
        for set in [
            socket.set_recv_buffer_size(BUFFER),
            socket.set_send_buffer_size(BUFFER),
        ] {
            if let Err(error) = set {
                tracing::debug!(%error, "a buffer of the socket keeps its size");
            }
        }
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        #[expect(
            deprecated,
            reason = "what took its place is unsafe, for types whose descriptor may change: not this one"
        )]
        let io = AsyncFd::with_interest(UdpSocket::from(socket), Interest::READABLE)?;
        Ok(Self {
            state: UdpSocketState::new(io.get_ref().into())?,
            dual_stack: address.is_ipv6(),
            buffer: vec![0; BATCH_SIZE * MAX_DATAGRAM].into(),
            ours: address.ip().is_unspecified().then(Ours::default),
            io,
        })
    }

    /// Lets [`Groups`](crate::groups::Groups) bind the same port while `join` runs, and leaves to them
    /// what is sent to groups.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn share_port<T>(&self, join: impl FnOnce() -> T) -> io::Result<T> {
        let socket = SockRef::from(self.io.get_ref());
        // Linux gives what is sent to a group to all sockets that could take it.
        socket.set_multicast_all_v4(false)?;
        if self.dual_stack {
            socket.set_multicast_all_v6(false)?;
        }
        // Only for as long as it takes: with this option others could share the port as well.
        socket.set_reuse_address(true)?;
        let joined = join();
        socket.set_reuse_address(false)?;
        Ok(joined)
    }

    /// Where it is bound, with the real port.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// Completes when there is something to receive. Cancel safe.
    ///
    /// # Errors
    /// What the system says.
    pub async fn readable(&self) -> io::Result<()> {
        // What is there to be read stays so until it was tried.
        self.io.readable().await.map(drop)
    }

    /// Takes what waits, one batch at the most: where each datagram came from, and what it holds.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing waits; else what the system says, and the socket is
    /// as good as before.
    pub fn receive(&mut self) -> io::Result<impl Iterator<Item = (SocketAddr, &[u8])>> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut parts = self.buffer.chunks_mut(MAX_DATAGRAM).map(IoSliceMut::new);
        let mut parts: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| parts.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let state = &self.state;
        let count = self.io.try_io(Interest::READABLE, |io| {
            state.recv(io.into(), &mut parts, &mut metas)
        })?;
        for meta in metas.iter_mut().take(count) {
            meta.addr = canonical(meta.addr);
            if let (Some(ours), Some(addressed)) = (&mut self.ours, meta.dst_ip) {
                ours.note(meta.addr, addressed);
            }
        }
        let parts = self.buffer.chunks(MAX_DATAGRAM);
        Ok(parts
            .zip(metas)
            .take(count)
            .flat_map(|(part, meta)| split(part, &meta).map(move |one| (meta.addr, one))))
    }

    /// Sends a datagram, from the address that its receiver last wrote to.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the system's queue is full; else what it says. The datagram
    /// is lost, as any may be.
    pub fn send(&mut self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let from = self.ours.as_ref().and_then(|ours| ours.towards(to));
        match self.send_from(from, to, datagram) {
            Err(error) if from.is_some() && error.kind() != io::ErrorKind::WouldBlock => {
                // It may not be ours any more.
                self.send_from(None, to, datagram)
            }
            result => result,
        }
    }

    fn send_from(&self, from: Option<IpAddr>, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.wire(to),
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: from,
        };
        self.state.try_send(self.io.get_ref().into(), &transmit)
    }

    fn wire(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if self.dual_stack => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), to.port())
            }
            _ => to,
        }
    }
}

/// The datagrams that the system has joined into one buffer.
fn split<'a>(part: &'a [u8], meta: &RecvMeta) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let (len, stride) = (meta.len, meta.stride.max(1));
    // An empty datagram is one, too.
    (0..len.div_ceil(stride).max(1)).map(move |nth| {
        let start = nth * stride;
        part.get(start..len.min(start + stride)).unwrap_or_default()
    })
}

/// The address as machines compare it: IPv4 as such, IPv6 without flow information.
pub(crate) fn canonical(from: SocketAddr) -> SocketAddr {
    match from {
        SocketAddr::V6(v6) => match v6.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::new(ip.into(), v6.port()),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into(),
        },
        SocketAddr::V4(_) => from,
    }
}

/// Which of our addresses each host last wrote to. Full: the half that was not heard for longest is
/// forgotten, and is answered from the address that the system chooses.
#[derive(Debug, Default)]
struct Ours {
    young: HashMap<SocketAddr, IpAddr>,
    old: HashMap<SocketAddr, IpAddr>,
}

impl Ours {
    fn note(&mut self, from: SocketAddr, addressed: IpAddr) {
        let addressed = addressed.to_canonical();
        // Nothing is sent from the address of a group.
        if addressed.is_multicast() || addressed.is_unspecified() {
            return;
        }
        let host = without_port(from);
        if self.young.len() >= MAX_HOSTS / 2 && !self.young.contains_key(&host) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(host, addressed);
    }

    fn towards(&self, to: SocketAddr) -> Option<IpAddr> {
        let host = without_port(to);
        self.young
            .get(&host)
            .or_else(|| self.old.get(&host))
            .copied()
    }
}

/// A host, told apart by the interface when its address is link-local.
fn without_port(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UdpSocket;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn next(socket: &mut Socket) -> (SocketAddr, Vec<u8>) {
        let received = async {
            loop {
                socket.readable().await.unwrap();
                if let Ok(mut batch) = socket.receive()
                    && let Some((from, datagram)) = batch.next()
                {
                    return (from, datagram.to_vec());
                }
            }
        };
        timeout(PATIENCE, received).await.unwrap()
    }

    #[tokio::test]
    async fn an_answer_leaves_from_the_address_that_was_addressed() {
        for listens in ["[::]:0", "0.0.0.0:0"] {
            let mut socket = Socket::bind(listens.parse().unwrap(), None).unwrap();
            let port = socket.local_addr().unwrap().port();
            for host in [5, 6, 1] {
                let node = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                // Connected, it takes nothing from elsewhere.
                node.connect(SocketAddr::from(([127, 0, 0, host], port)))
                    .await
                    .unwrap();
                node.send(b"question").await.unwrap();
                let (from, question) = next(&mut socket).await;
                assert_eq!(from, node.local_addr().unwrap());
                assert_eq!(question, b"question");
                socket.send(from, b"answer").unwrap();
                let mut buffer = [0; 16];
                let len = timeout(PATIENCE, node.recv(&mut buffer)).await.unwrap();
                assert_eq!(&buffer[..len.unwrap()], b"answer", "127.0.0.{host}");
            }
        }
    }

    #[tokio::test]
    async fn datagrams_come_one_by_one_whatever_the_system_joins() {
        let mut socket = Socket::bind("[::1]:0".parse().unwrap(), None).unwrap();
        let node = UdpSocket::bind("[::1]:0").await.unwrap();
        node.connect(socket.local_addr().unwrap()).await.unwrap();
        let sent: Vec<Vec<u8>> = (0..200).map(|n| vec![n; usize::from(n) % 7]).collect();
        for datagram in &sent {
            node.send(datagram).await.unwrap();
        }
        let mut came = Vec::new();
        while came.len() < sent.len() {
            timeout(PATIENCE, socket.readable()).await.unwrap().unwrap();
            if let Ok(batch) = socket.receive() {
                came.extend(batch.map(|(_, datagram)| datagram.to_vec()));
            }
        }
        assert_eq!(came, sent);
    }

    #[test]
    fn what_is_joined_is_split_again() {
        let mut meta = RecvMeta::default();
        (meta.len, meta.stride) = (7, 3);
        let parts: Vec<_> = split(b"abcdefg-rest", &meta).collect();
        assert_eq!(parts, [&b"abc"[..], b"def", b"g"]);
        (meta.len, meta.stride) = (0, 0);
        assert_eq!(split(b"rest", &meta).collect::<Vec<_>>(), [b""]);
    }

    #[test]
    fn hosts_are_forgotten_in_halves() {
        let mut ours = Ours::default();
        let host = |n: usize| {
            let [.., a, b, c] = n.to_be_bytes();
            SocketAddr::from(([10, a, b, c], 9))
        };
        let address = IpAddr::from([10, 0, 0, 254]);
        for n in 0..2 * MAX_HOSTS {
            ours.note(host(n), address);
            assert!(ours.young.len() + ours.old.len() <= MAX_HOSTS);
        }
        assert_eq!(ours.towards(host(2 * MAX_HOSTS - 1)), Some(address));
        assert_eq!(ours.towards(host(0)), None);
    }
}
