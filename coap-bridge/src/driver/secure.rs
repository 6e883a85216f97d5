//! The second socket, for nodes that speak DTLS.

use std::io;
use std::net::SocketAddr;

use bus::time::{Now, now};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{BATCHES_PER_TURN, StartError};
use crate::allowance::Allowance;
use crate::config::Config;
use crate::dtls::{Event, Keys, Metrics, Server, Trust};
use crate::endpoint::{Remote, Transmit};
use crate::firmware::Bridge;
use crate::metrics;
use crate::socket::Socket;

pub(super) struct Secure {
    socket: Socket,
    allowance: Allowance,
    pub(super) server: Server,
}

impl Secure {
    /// Binds the socket; with the credentials that are there. Others may come later.
    pub(super) fn bind(
        config: &Config,
        keys: Option<Keys>,
        trust: Option<Trust>,
        allowance: Allowance,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let address = config.dtls_listen;
        let socket = Socket::bind(address, config.interface.as_deref())
            .map_err(|source| StartError::BindSecure { address, source })?;
        let (limits, rng) = (config.dtls(), StdRng::from_os_rng());
        let keys = keys.unwrap_or_default();
        let server = Server::new(limits, keys, trust, rng, metrics, now().mono)
            .map_err(|error| StartError::Dtls(error.to_string()))?;
        Ok(Self {
            socket,
            allowance,
            server,
        })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Completes when there is something to receive; never without DTLS. Cancel safe.
    pub(super) async fn readable(this: Option<&Self>) -> io::Result<()> {
        match this {
            Some(secure) => secure.socket.readable().await,
            None => std::future::pending().await,
        }
    }

    /// Takes what has come in, and passes on what nodes said.
    pub(super) fn receive(&mut self, bridge: &mut Bridge, metrics: &metrics::Metrics) {
        for _ in 0..BATCHES_PER_TURN {
            let now = now();
            match self.socket.receive() {
                Ok(batch) => {
                    for (from, datagram) in batch {
                        if self.allowance.admits(from, now.mono) {
                            self.server.handle_datagram(from, datagram, now);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    metrics.receive_errors.inc();
                    tracing::debug!(%error, "a datagram could not be received");
                }
            }
            self.pass_on(bridge, now);
        }
    }

    /// Tells the bridge what has happened.
    pub(super) fn pass_on(&mut self, bridge: &mut Bridge, now: Now) {
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Established {
                    session,
                    address,
                    name,
                } => bridge.handle_session(session, Remote::Secure(session, address), &name, now),
                Event::Data {
                    session,
                    address,
                    bytes,
                } => bridge.handle_datagram(Remote::Secure(session, address), &bytes, now),
                Event::Ended { session, why } => {
                    tracing::debug!(reason = why.label(), "a DTLS session ended");
                    bridge.handle_session_end(session, now);
                }
            }
        }
    }

    /// Encrypts a datagram of the bridge.
    pub(super) fn encrypt(&mut self, transmit: &Transmit, now: Now) {
        if let Some(session) = transmit.to.session() {
            self.server.send(session, &transmit.bytes, now.mono);
        }
    }

    /// Sends what is to be sent.
    pub(super) fn transmit(&mut self, metrics: &metrics::Metrics) {
        while let Some((to, datagram)) = self.server.poll_transmit() {
            if let Err(error) = self.socket.send(to, &datagram) {
                metrics.send_errors.inc();
                tracing::debug!(peer.addr = %to, %error, "a datagram could not be sent");
            }
        }
    }
}
