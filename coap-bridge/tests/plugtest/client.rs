//! Our endpoint as a client, on a socket.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use coap_bridge::endpoint::parameters::MAX_TRANSMIT_WAIT;
use coap_bridge::endpoint::{
    Endpoint, Event, Limits, Method, Request, RequestError, RequestId, Response,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::{DEADLINE, now};

pub(crate) struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) server: SocketAddr,
    socket: UdpSocket,
}

pub(crate) fn get(path: &str) -> Request {
    Request::new(Method::Get, path)
}

impl Client {
    /// A client that asks one server; what is lost is sent again soon.
    pub(crate) fn of(server: SocketAddr) -> Self {
        let limits = Limits {
            szx: 2,
            ack_timeout: Duration::from_millis(500),
            ..Limits::default()
        };
        Self {
            endpoint: Endpoint::new(limits, StdRng::from_os_rng()),
            server,
            socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn transmit(&mut self) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            let to = transmit.to.address();
            self.socket.send_to(&transmit.bytes, to).unwrap();
        }
    }

    /// The next event; none when `patience` is over.
    pub(crate) fn event_within(&mut self, patience: Duration) -> Option<Event> {
        let end = now() + patience;
        let mut buffer = vec![0; 65_536];
        loop {
            self.transmit();
            if let Some(event) = self.endpoint.poll_event() {
                return Some(event);
            }
            if now() >= end {
                return None;
            }
            let next = self.endpoint.poll_timeout().map_or(end, |at| at.min(end));
            let wait = next.saturating_duration_since(now());
            let wait = wait.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            if let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
                self.endpoint.handle_datagram(from, &buffer[..len], now());
            }
            self.endpoint.handle_timeout(now());
        }
    }

    #[track_caller]
    pub(crate) fn event(&mut self) -> Event {
        self.event_within(DEADLINE).expect("nothing came of it")
    }

    pub(crate) fn try_ask(&mut self, request: Request) -> Result<Response, RequestError> {
        let asked = self
            .endpoint
            .request(self.server, request, MAX_TRANSMIT_WAIT, now())?;
        loop {
            if let Event::Response { id, result, .. } = self.event()
                && id == asked
            {
                return result;
            }
        }
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, request: Request) -> Response {
        self.try_ask(request).unwrap()
    }

    /// Begins to observe; gives the first representation.
    #[track_caller]
    pub(crate) fn observe(&mut self, request: Request) -> (RequestId, Response) {
        let asked = self
            .endpoint
            .observe(self.server, request, MAX_TRANSMIT_WAIT, now())
            .unwrap();
        let event = self.event();
        let Event::Response {
            result: Ok(first),
            observed: true,
            ..
        } = event
        else {
            panic!("{event:?}");
        };
        (asked, first)
    }

    /// The next notification, and whether it is the last.
    #[track_caller]
    pub(crate) fn notification(&mut self) -> (Response, bool) {
        match self.event() {
            Event::Notification { response, last, .. } => (response, last),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn text(response: &Response) -> String {
    String::from_utf8(response.payload.to_vec()).unwrap()
}
