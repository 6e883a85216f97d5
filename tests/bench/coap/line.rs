//! A client of CoAP that costs next to nothing: one node with its own address, its messages made by
//! hand.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::Context;

/// Where nodes answer.
const PORT: u16 = 5683;
/// So many nodes have an address.
const MAX_NODES: u32 = 250 * 250;

const CON: u8 = 0x40;
const ACK: u8 = 0x60;
const GET: u8 = 0x01;
const POST: u8 = 0x02;
const CHANGED: u8 = 0x44;
const CONTENT: u8 = 0x45;
const URI_PATH: u8 = 11;
const PAYLOAD: u8 = 0xff;

/// Gives each node an address that none had before in this run, so that no Message ID comes twice
/// from one address within EXCHANGE_LIFETIME (RFC 7252 section 4.4).
#[derive(Debug, Default)]
pub(crate) struct Addresses(u32);

impl Addresses {
    /// How many have one.
    pub(super) fn used(&self) -> usize {
        self.0 as usize
    }

    /// The socket of a further node, connected to the server.
    pub(super) fn bind(&mut self, server: SocketAddr) -> anyhow::Result<UdpSocket> {
        anyhow::ensure!(self.0 < MAX_NODES, "too many nodes for one run");
        let [high, low] = [self.0 / 250, self.0 % 250 + 1].map(|n| n as u8);
        self.0 += 1;
        let address = Ipv4Addr::new(127, 77, high, low);
        let socket = UdpSocket::bind((address, PORT))
            .with_context(|| format!("{address}:{PORT}/udp, for a node of the benchmark"))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// A Confirmable request with a token of four bytes.
pub(super) fn request(
    out: &mut Vec<u8>,
    is_post: bool,
    mid: u16,
    token: u32,
    path: &str,
    payload: &[u8],
) {
    out.clear();
    out.extend([CON | 4, if is_post { POST } else { GET }]);
    out.extend(mid.to_be_bytes());
    out.extend(token.to_be_bytes());
    // Paths here are one short segment.
    out.push(URI_PATH << 4 | path.len() as u8);
    out.extend(path.as_bytes());
    if !payload.is_empty() {
        out.push(PAYLOAD);
        out.extend(payload);
    }
}

/// What came from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// The answer to a request of ours, by its token, and whether it says that all went well.
    Answer { token: u32, ok: bool },
    /// The server asks; this is to be sent.
    Question(Vec<u8>),
    /// Something else.
    Other,
}

/// Reads a datagram. To `GET /.well-known/core` a node answers `list`, to any other GET a value.
pub(super) fn read(datagram: &[u8], list: &str) -> Came {
    let &[first, code, mid_high, mid_low, ref rest @ ..] = datagram else {
        return Came::Other;
    };
    match (first & 0xf0, code) {
        (ACK, code) if code >= CHANGED - 4 && first & 0x0f == 4 => {
            let token = rest.first_chunk().copied().map(u32::from_be_bytes);
            token.map_or(Came::Other, |token| Came::Answer {
                token,
                ok: matches!(code, CHANGED | CONTENT),
            })
        }
        (CON, GET) => {
            let token = rest.get(..usize::from(first & 0x0f)).unwrap_or_default();
            let wants_list = datagram.windows(11).any(|part| part == b".well-known");
            let mut answer = vec![ACK | (first & 0x0f), CONTENT, mid_high, mid_low];
            answer.extend(token);
            // Content-Format: 40 for links, 0 for text.
            if wants_list {
                answer.extend([0xc1, 40, PAYLOAD]);
                answer.extend(list.as_bytes());
            } else {
                answer.extend([0xc0, PAYLOAD]);
                answer.extend(b"21.5\xc2\xb0C");
            }
            Came::Question(answer)
        }
        _ => Came::Other,
    }
}
