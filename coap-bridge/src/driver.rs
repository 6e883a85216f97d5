//! The sockets and the task around the machines: one UDP socket for what nodes send and for what they
//! are asked, and another one for those that speak DTLS.

mod credentials;
mod doors;
mod secure;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, Instant};

use bus::admin::Admin;
use bus::bridge::{Orders, ReportError, Reporter, Settled, runtime};
use bus::shutdown::Shutdown;
use bus::time::{Now, now, sleep_until};
use tokio::sync::mpsc;

use crate::allowance::Allowance;
use crate::config::Config;
use crate::endpoint::Remote;
use crate::firmware::Bridge;
use crate::groups::Groups;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::socket::Socket;
use credentials::Credentials;
use doors::Doors;
pub use doors::{StartError, Started};
use secure::Secure;

/// Batches of datagrams handled in one turn before deadlines, orders and reports are looked at again.
const BATCHES_PER_TURN: usize = 8;
/// Datagrams that are handled before their answers go out.
const BATCH: usize = 32;
/// Batches taken from the system in one turn: more than are handled, so that it has no reason to drop
/// any before the [`Inbox`] has looked at them.
const BATCHES_TAKEN_IN: usize = 32;
/// While the bus is behind, pushed values wait for so long; then nodes are told to try again later.
const BRIEFLY: Duration = Duration::from_millis(500);
/// Orders taken in one turn.
const ORDERS_PER_TURN: usize = 64;
/// How long the stop waits for the bus or the disk to have the last readings.
const FLUSH: Duration = Duration::from_secs(2);

/// Starts the bridge and returns once nodes are heard. Whether the bus can be reached is the
/// readiness of the bridge runtime (part `coap`).
///
/// On the stop it answers what has come in, as soon as the bus or the disk has it, and ends.
///
/// # Errors
/// See [`StartError`].
pub async fn start(
    config: Config,
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<Started, StartError> {
    let doors = Doors::open(&config)?;
    let ends = runtime::start(config.bridge(), config.session(), admin, shutdown)?;
    Ok(doors.serve(ends, admin, shutdown))
}

struct Driver {
    socket: Socket,
    allowance: Allowance,
    groups: Groups,
    inbox: Inbox,
    /// The one that is being handled.
    datagram: Vec<u8>,
    /// Since when the bus is behind.
    behind: Option<Instant>,
    secure: Option<Secure>,
    bridge: Bridge,
    reporter: Reporter,
    settled: Settled,
    orders: Orders,
    credentials: mpsc::Receiver<Credentials>,
    metrics: Metrics,
}

impl Driver {
    async fn run(mut self, shutdown: Shutdown) -> Result<(), &'static str> {
        loop {
            let full = self.report();
            self.transmit();
            let pushes = self.wants_pushes(now().mono);
            let patience = self.behind.filter(|_| !pushes).map(|since| since + BRIEFLY);
            let deadline = self.poll_timeout().into_iter().chain(patience).min();
            let waits = self.inbox.has_next(pushes);
            tokio::select! {
                biased;
                () = shutdown.stopping() => break,
                order = self.orders.recv() => {
                    // The runtime has ended: nobody wants to know any more.
                    let Some(order) = order else { break };
                    self.bridge.handle_order(order, now());
                    for _ in 1..ORDERS_PER_TURN {
                        let Some(order) = self.orders.try_recv() else { break };
                        self.bridge.handle_order(order, now());
                    }
                }
                settled = self.settled.more() => match settled {
                    Ok(settled) => self.bridge.handle_settled(settled, now()),
                    Err(_) => break,
                },
                // The next turn passes on what waits.
                room = self.reporter.room(), if full => if room.is_err() { break },
                Some(credentials) = self.credentials.recv() => self.take(credentials, now()),
                () = sleep_until(deadline) => self.handle_timeout(now()),
                readable = Secure::readable(self.secure.as_ref()) => {
                    if let Err(error) = readable {
                        tracing::debug!(%error, "the socket for DTLS reports an error");
                    }
                    self.receive_secure();
                }
                () = self.groups.readable() => {
                    let bridge = &mut self.bridge;
                    self.groups.receive(|from, datagram| {
                        bridge.handle_group_datagram(from, datagram, now());
                    });
                }
                readable = self.socket.readable(), if !waits => {
                    if let Err(error) = readable {
                        tracing::debug!(%error, "the socket reports an error");
                    }
                    self.receive();
                }
                () = std::future::ready(()), if waits => self.receive(),
            }
        }
        self.receive();
        self.receive_secure();
        self.transmit();
        let flushed = tokio::time::timeout(FLUSH, self.flush()).await;
        if flushed.is_err() {
            tracing::warn!(
                "neither bus nor disk took the last readings in time: their nodes got no answer"
            );
        }
        if let Some(secure) = &mut self.secure {
            secure.server.close(now().mono);
            secure.transmit(&self.metrics);
        }
        match shutdown.is_stopping() {
            true => Ok(()),
            false => Err("the connection to the bus has ended"),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let secure = self.secure.as_ref();
        let deadlines = [
            self.bridge.poll_timeout(),
            secure.and_then(|secure| secure.server.poll_timeout()),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Now) {
        self.bridge.handle_timeout(now);
        if let Some(secure) = &mut self.secure {
            secure.server.handle_timeout(now);
            secure.pass_on(&mut self.bridge, now);
        }
    }

    /// Other keys and certificates are in force from here on.
    fn take(&mut self, credentials: Credentials, now: Now) {
        let Some(secure) = &mut self.secure else {
            return;
        };
        if let Some(keys) = credentials.keys {
            self.bridge
                .handle_keys(keys.names().cloned().collect(), now);
            secure.server.handle_keys(keys, now);
        }
        if let Some(trust) = credentials.trust {
            secure.server.handle_trust(trust, now);
        }
        secure.pass_on(&mut self.bridge, now);
    }

    /// Passes the last reports on, and answers their nodes when they are settled.
    async fn flush(&mut self) {
        while let Some(report) = self.bridge.poll_report() {
            if self.reporter.report(report).await.is_err() {
                return;
            }
        }
        while self.bridge.has_unsettled()
            && let Ok(settled) = self.settled.more().await
        {
            self.bridge.handle_settled(settled, now());
            self.transmit();
        }
    }

    /// Takes what has come in, and handles what comes first of it.
    fn receive(&mut self) {
        self.take_in();
        let now = now();
        for _ in 0..BATCHES_PER_TURN {
            let pushes = self.wants_pushes(now.mono);
            for _ in 0..BATCH {
                let Some(from) = self.inbox.pop(pushes, &mut self.datagram) else {
                    return self.transmit();
                };
                self.bridge.handle_datagram(from, &self.datagram, now);
            }
            self.transmit();
        }
    }

    /// Whether pushed values are handled. While the bus is behind they wait, and cost next to nothing;
    /// if it stays behind, their nodes are told.
    fn wants_pushes(&mut self, now: Instant) -> bool {
        if self.bridge.is_behind() {
            now >= *self.behind.get_or_insert(now) + BRIEFLY
        } else {
            self.behind = None;
            true
        }
    }

    fn take_in(&mut self) {
        let now = now().mono;
        for _ in 0..BATCHES_TAKEN_IN {
            match self.socket.receive() {
                Ok(batch) => {
                    for (from, datagram) in batch {
                        if self.allowance.admits(from, now) {
                            self.inbox.push(from, datagram);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // An ICMP error of some peer; the socket is as good as before.
                    self.metrics.receive_errors.inc();
                    tracing::debug!(%error, "a datagram could not be received");
                }
            }
        }
    }

    fn receive_secure(&mut self) {
        if let Some(secure) = &mut self.secure {
            secure.receive(&mut self.bridge, &self.metrics);
        }
    }

    /// Sends what is to be sent. A datagram that can't be sent is lost, as any may be.
    fn transmit(&mut self) {
        while let Some(transmit) = self.bridge.poll_transmit() {
            match (transmit.to, &mut self.secure) {
                (Remote::Plain(to), _) if to.ip().is_multicast() => {
                    self.groups.send(to, &transmit.bytes);
                }
                (Remote::Plain(to), _) => {
                    if let Err(error) = self.socket.send(to, &transmit.bytes) {
                        self.metrics.send_errors.inc();
                        tracing::debug!(peer.addr = %to, %error, "a datagram could not be sent");
                    }
                }
                (Remote::Secure(..), Some(secure)) => {
                    secure.encrypt(&transmit, now());
                    secure.pass_on(&mut self.bridge, now());
                }
                (Remote::Secure(..), None) => {}
            }
        }
        if let Some(secure) = &mut self.secure {
            secure.transmit(&self.metrics);
        }
    }

    /// Passes reports on; true when the runtime has no room for the next.
    fn report(&mut self) -> bool {
        while self.bridge.has_report() {
            match self.reporter.try_reserve() {
                Ok(slot) => self
                    .bridge
                    .poll_report()
                    .map_or((), |next| slot.report(next)),
                Err(ReportError::Full) => return true,
                Err(ReportError::Closed) => return false,
            }
        }
        false
    }
}
