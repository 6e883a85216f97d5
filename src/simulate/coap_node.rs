//! One simulated CoAP node: its own socket, its own resources, and the rhythm of the firmwares.
//!
//! It says `reset` and `alive` when it starts, `alive` every 30 s, and pushes its values; all of it
//! Non-confirmable, from the one socket on which it answers too.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::shutdown::Shutdown;
use bus::time::{Now, now, sleep_until};
use coap_bridge::endpoint::options::{format, number};
use coap_bridge::endpoint::{Code, Endpoint, Event, Limits, Method, Request, Response};
use rand::SeedableRng;
use rand::rngs::{SmallRng, StdRng};
use tokio::net::UdpSocket;

use super::model::{Device, Firmware, Refusal};
use super::pace::Pace;
use super::session::{Progress, Session};
use super::stats::{Stats, count};

/// Between two signs of life.
const ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The buffer of the old firmwares: what is longer never reaches them, nor leaves them.
const OLD_DATAGRAM: usize = 128;
/// What their list of links may have so that its message fits.
const OLD_LINKS: usize = 112;
/// Their buffer for values, sent whole and filled up with NULs.
const OLD_VALUE: usize = 64;
/// Their buffer for what is written to `led`; more than that ends them.
const OLD_LED: usize = 16;

/// Blocks of 128 bytes, as fit a low-power radio; what moves fits one block.
const SZX: u8 = 3;

/// A node with its socket.
pub(crate) struct Node {
    device: Device,
    firmware: Firmware,
    socket: UdpSocket,
    server: SocketAddr,
    endpoint: Endpoint,
    limits: Limits,
    rng: StdRng,
    /// An old firmware has written past the end of its buffer.
    crashed: bool,
    /// With a node that speaks DTLS.
    session: Option<Session>,
    pace: Pace,
    alive_at: Instant,
    stats: Arc<Stats>,
}

impl Node {
    /// Gives `device` a socket from which `server` can be reached, with a session over DTLS or
    /// without.
    ///
    /// # Errors
    /// The system has no further socket.
    pub(crate) async fn new(
        device: Device,
        server: SocketAddr,
        session: Option<Session>,
        pace: Pace,
        stats: Arc<Stats>,
        rng: &mut SmallRng,
    ) -> io::Result<Self> {
        let any = match server.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        // A node knows one or two bridges, not the whole network.
        let limits = Limits {
            max_seen: 128,
            max_seen_per_peer: 64,
            max_backlog: 4,
            max_requests: 4,
            max_exchanges: 16,
            max_body: 1024,
            szx: SZX,
            // No firmware asks who is asking.
            amplification: None,
            ..Limits::default()
        };
        Ok(Self {
            firmware: device.firmware(),
            device,
            socket: UdpSocket::bind((any, 0)).await?,
            server,
            session,
            endpoint: Endpoint::new(limits.clone(), StdRng::from_rng(rng)),
            limits,
            rng: StdRng::from_rng(rng),
            crashed: false,
            pace,
            alive_at: now().mono + ALIVE_INTERVAL,
            stats,
        })
    }

    /// Runs until the stop; then it is gone without a word, as a node is.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut buffer = [0; 2048];
        if self.session.is_none() {
            self.say_start(now().mono);
        }
        loop {
            self.drain(now()).await;
            if self.crashed {
                return;
            }
            let deadline = [
                Some(self.alive_at),
                self.session.as_ref().map(Session::deadline),
                self.pace.next(),
                self.endpoint.poll_timeout(),
            ];
            let deadline = deadline.into_iter().flatten().min();
            tokio::select! {
                biased;
                () = shutdown.stopping() => return,
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.receive(from, &buffer[..length], now()).await,
                    Err(error) => self.stats.error(format!("nothing can be received: {error}")),
                },
                () = sleep_until(deadline) => self.handle_timeout(now()).await,
            }
        }
    }

    async fn receive(&mut self, from: SocketAddr, datagram: &[u8], now: Now) {
        if from.ip() == self.server.ip() {
            self.stats.heard(now.wall);
        }
        match &mut self.session {
            None => self.take(from, datagram, now),
            Some(session) => {
                let progress = session.handle_datagram(datagram, now.mono);
                self.progress(progress, now).await;
            }
        }
    }

    /// What has come of an input to the session.
    async fn progress(&mut self, progress: Progress, now: Now) {
        for datagram in progress.send {
            self.send(&datagram, self.server).await;
        }
        if progress.began {
            self.say_start(now.mono);
        }
        for datagram in progress.received {
            self.take(self.server, &datagram, now);
        }
    }

    fn take(&mut self, from: SocketAddr, datagram: &[u8], now: Now) {
        if self.firmware == Firmware::Old {
            if datagram.len() > OLD_DATAGRAM || is_ping(datagram) {
                return;
            }
            // It does not remember what it has heard: the same message again is done again.
            let rng = StdRng::from_rng(&mut self.rng);
            self.endpoint = Endpoint::new(self.limits.clone(), rng);
        }
        self.endpoint.handle_datagram(from, datagram, now.mono);
    }

    async fn handle_timeout(&mut self, now: Now) {
        if let Some(session) = &mut self.session
            && session.deadline() <= now.mono
        {
            let progress = session.handle_timeout(now.mono);
            self.progress(progress, now).await;
        }
        if self.alive_at <= now.mono {
            self.alive_at = now.mono + ALIVE_INTERVAL;
            self.say_alive("alive", now.mono);
        }
        if self.pace.take(now.mono) {
            self.device.advance(now.wall);
            let (path, text) = self.device.next_push();
            self.post("server", format!("{path}:{text}"), now.mono);
            count(&self.stats.pushes);
        }
        self.endpoint.handle_timeout(now.mono);
    }

    fn say_start(&mut self, now: Instant) {
        for word in ["reset", "alive"] {
            self.say_alive(word, now);
        }
    }

    fn say_alive(&mut self, word: &str, now: Instant) {
        let text = format!("{word}:{}", self.device.uid());
        self.post("alive", text, now);
    }

    fn post(&mut self, path: &str, text: String, now: Instant) {
        let request = Request::new(Method::Post, path)
            .with_format(format::TEXT)
            .with_payload(text)
            .non_confirmable();
        self.endpoint.tell(self.server, request, now);
    }

    /// Answers what was asked and sends what is to be sent.
    async fn drain(&mut self, now: Now) {
        while let Some(event) = self.endpoint.poll_event() {
            // It asks nothing itself, so that nothing else can come.
            if let Event::Request {
                exchange, request, ..
            } = event
            {
                if self.firmware == Firmware::Old && overflows(&request) {
                    self.crashed = true;
                    let uid = self.device.uid();
                    let why = format!("{uid} crashed: a write to led of {OLD_LED} bytes or more");
                    return self.stats.error(why);
                }
                self.device.advance(now.wall);
                let response = respond(&mut self.device, &request);
                if response.code == Code::CHANGED {
                    count(&self.stats.writes);
                } else {
                    count(&self.stats.reads);
                }
                self.endpoint.respond(exchange, response, now.mono);
            }
        }
        while let Some(datagram) = self.endpoint.poll_transmit() {
            match &mut self.session {
                None => self.send(&datagram.bytes, datagram.to.address()).await,
                Some(session) => {
                    let progress = session.send(&datagram.bytes, now.mono);
                    self.progress(progress, now).await;
                }
            }
        }
    }

    async fn send(&self, datagram: &[u8], to: SocketAddr) {
        if let Err(error) = self.socket.send_to(datagram, to).await {
            self.stats.error(format!("{to} can't be reached: {error}"));
        }
    }
}

/// What the old firmwares copy into the buffer for their LED without a look at its length.
fn overflows(request: &Request) -> bool {
    let writes = matches!(request.method, Method::Put | Method::Post);
    writes && request.path().as_deref() == Some("led") && request.payload.len() >= OLD_LED
}

/// An empty Confirmable message (RFC 7252 section 4.3).
fn is_ping(datagram: &[u8]) -> bool {
    matches!(datagram, [first, 0, _, _] if first >> 4 == 0b0100)
}

/// What the firmware answers.
fn respond(device: &mut Device, request: &Request) -> Response {
    let Some(path) = request.path() else {
        return Response::new(Code::NOT_FOUND);
    };
    match request.method {
        Method::Get if path == ".well-known/core" => {
            let mut links = device.links();
            if device.firmware() == Firmware::Old {
                links.truncate(OLD_LINKS);
            }
            Response::content(format::LINK, links)
        }
        Method::Get => match device.read(&path) {
            Some(text) => {
                let response = Response::content(format::TEXT, on_the_wire(device, &path, text));
                pretend_to_observe(device, &path, request, response)
            }
            None => Response::new(Code::NOT_FOUND),
        },
        Method::Put | Method::Post => write(device, &path, &request.payload),
        Method::Delete | Method::Fetch | Method::Patch | Method::IPatch => {
            Response::new(Code::METHOD_NOT_ALLOWED)
        }
    }
}

/// The old firmwares agree to notify of any resource but `led`, and never do.
fn pretend_to_observe(
    device: &Device,
    path: &str,
    request: &Request,
    mut response: Response,
) -> Response {
    let asked = request.options.uint(number::OBSERVE) == Some(0);
    if device.firmware() == Firmware::Old && asked && path != "led" {
        response.options.set_uint(number::OBSERVE, 1);
    }
    response
}

/// A value as the old firmwares send it when they are asked: with the path of `imu` in front, and
/// measurements filled up with NULs.
fn on_the_wire(device: &Device, path: &str, text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    if device.firmware() == Firmware::Old {
        if path == "imu" {
            bytes.splice(..0, *b"imu:");
        } else if device.is_measured(path) {
            bytes.resize(OLD_VALUE, 0);
        }
    }
    bytes
}

fn write(device: &mut Device, path: &str, payload: &[u8]) -> Response {
    let text = std::str::from_utf8(payload).unwrap_or_default();
    let mut written = device.write(path, text);
    // The old firmwares take anything for their LED; what is no number counts as 0.
    if device.firmware() == Firmware::Old && path == "led" && written == Err(Refusal::BadValue) {
        written = device.write(path, "0");
    }
    match written {
        Ok(value) => {
            let mut response = Response::new(Code::CHANGED);
            response
                .options
                .set_uint(number::CONTENT_FORMAT, u32::from(format::TEXT));
            response.with_payload(format!("{path}:{value}"))
        }
        Err(Refusal::Unknown) => Response::new(Code::NOT_FOUND),
        Err(Refusal::ReadOnly) => Response::new(Code::METHOD_NOT_ALLOWED),
        Err(Refusal::BadValue) => Response::new(Code::BAD_REQUEST),
    }
}

#[cfg(test)]
mod tests;
