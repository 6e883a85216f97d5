//! Where a peer is.

use std::fmt;
use std::net::SocketAddr;

/// Names a DTLS session for as long as it lasts; a later one with the same peer has another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) u64);

/// The other endpoint of a message: its address, and the security association that it came over
/// (RFC 7252 sections 1.2 and 9.1.1). Tokens, mids and requests belong to one remote: what comes from
/// the same address without DTLS, or over a later session, is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// Without security.
    Plain(SocketAddr),
    /// Over a DTLS session.
    Secure(SessionId, SocketAddr),
}

impl Remote {
    /// Where its datagrams come from.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        match self {
            Self::Plain(address) | Self::Secure(_, address) => address,
        }
    }

    /// The session, for a peer that speaks DTLS.
    #[must_use]
    pub fn session(self) -> Option<SessionId> {
        match self {
            Self::Plain(_) => None,
            Self::Secure(session, _) => Some(session),
        }
    }
}

impl From<SocketAddr> for Remote {
    fn from(address: SocketAddr) -> Self {
        Self::Plain(address)
    }
}

/// `10.0.0.1:5683`, or `coaps://10.0.0.1:61234`.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(address) => address.fmt(f),
            Self::Secure(_, address) => write!(f, "coaps://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use crate::endpoint::codec::{Message, Type};
    use crate::endpoint::{Code, Endpoint, Event, Limits, Method, Request};

    use super::*;

    #[test]
    fn a_response_counts_only_over_the_session_that_was_asked() {
        let address: SocketAddr = "10.0.0.1:5684".parse().unwrap();
        let asked = Remote::Secure(SessionId(1), address);
        let others = [
            Remote::Plain(address),
            Remote::Secure(SessionId(2), address),
        ];
        let mut endpoint = Endpoint::new(Limits::default(), StdRng::seed_from_u64(1));
        let now = bus::time::now().mono;
        let request = Request::new(Method::Get, "led");
        let id = endpoint.request(asked, request, Duration::from_secs(9), now);
        let sent = endpoint.poll_transmit().unwrap();
        assert_eq!(sent.to, asked);
        let mut response = Message::decode(&sent.bytes).unwrap();
        response.kind = Type::Ack;
        response.code = Code::CHANGED;
        for other in others {
            endpoint.handle_datagram(other, &response.encode(), now);
            assert_eq!(endpoint.poll_event(), None, "{other}");
        }
        endpoint.handle_datagram(asked, &response.encode(), now);
        let Some(Event::Response { id: ended, .. }) = endpoint.poll_event() else {
            panic!("no response");
        };
        assert_eq!(Ok(ended), id);
    }
}
