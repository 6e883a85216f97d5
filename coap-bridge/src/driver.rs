//! The socket and the task around the machine: one UDP socket for what nodes send and for what they
//! are asked.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bus::admin::{Admin, Listener};
use bus::bridge::{Orders, Report, ReportError, Reporter, runtime};
use bus::session::SessionError;
use bus::shutdown::Shutdown;
use bus::time::{now, sleep_until};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::config::{Config, InvalidConfig};
use crate::firmware::{Bridge, Rules};
use crate::metrics::Metrics;
use crate::socket::Socket;

/// Batches of datagrams taken in one turn before deadlines, orders and reports are looked at again.
const BATCHES_PER_TURN: usize = 8;
/// Orders taken in one turn.
const ORDERS_PER_TURN: usize = 64;
/// How long the stop waits for the runtime to take the last reports.
const FLUSH: Duration = Duration::from_secs(2);

/// The bridge is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Where nodes send to, with the real port.
    pub address: SocketAddr,
}

/// Why the bridge can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The listener.
    #[error(
        "nodes can't be heard at {address}/udp: choose another address with coap_bridge.listen"
    )]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The connection to the bus.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Starts the bridge and returns once nodes are heard. Whether the bus can be reached is the
/// readiness of the bridge runtime (part `coap`).
///
/// On the stop it answers what has come in and ends.
///
/// # Errors
/// See [`StartError`].
pub async fn start(
    config: Config,
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<Started, StartError> {
    let rules = config.check()?;
    let socket = Socket::bind(config.listen).map_err(|source| StartError::Bind {
        address: config.listen,
        source,
    })?;
    let ends = runtime::start(config.bridge(), config.session(), admin, shutdown)?;
    listen(socket, rules, ends, admin, shutdown).map_err(|source| StartError::Bind {
        address: config.listen,
        source,
    })
}

/// Spawns the task on a bound socket and the two ends of a runtime.
fn listen(
    socket: Socket,
    rules: Rules,
    (reporter, orders): (Reporter, Orders),
    admin: &Admin,
    shutdown: &Shutdown,
) -> io::Result<Started> {
    let address = socket.local_addr()?;
    admin.listening(Listener {
        name: "CoAP",
        scheme: "coap",
        address,
    });
    let metrics = Metrics::default();
    let bridge = Bridge::new(rules, StdRng::from_os_rng(), metrics.clone());
    admin.register(|registry| {
        let registry = registry.sub_registry_with_prefix("coap_bridge");
        metrics.register(registry);
        bridge.endpoint_metrics().register(registry);
    });
    let driver = Driver {
        socket,
        bridge,
        reporter,
        orders,
        metrics,
    };
    shutdown.spawn_vital("coap-bridge", driver.run(shutdown.clone()));
    Ok(Started { address })
}

struct Driver {
    socket: Socket,
    bridge: Bridge,
    reporter: Reporter,
    orders: Orders,
    metrics: Metrics,
}

impl Driver {
    async fn run(mut self, shutdown: Shutdown) -> Result<(), &'static str> {
        loop {
            let full = self.report();
            self.transmit();
            let deadline = self.bridge.poll_timeout();
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
                sent = report(&self.reporter, self.bridge.peek_report()), if full => {
                    if sent {
                        drop(self.bridge.poll_report());
                    } else {
                        break;
                    }
                }
                () = sleep_until(deadline) => self.bridge.handle_timeout(now()),
                readable = self.socket.readable() => {
                    if let Err(error) = readable {
                        tracing::debug!(%error, "the socket reports an error");
                    }
                    self.receive();
                }
            }
        }
        self.receive();
        self.transmit();
        // What nodes were told is taken must reach the runtime; when the bus is away it can't.
        let flushed = tokio::time::timeout(FLUSH, self.flush()).await;
        if flushed.is_err() {
            tracing::warn!("the last readings were dropped: the bus did not take them in time");
        }
        match shutdown.is_stopping() {
            true => Ok(()),
            false => Err("the connection to the bus has ended"),
        }
    }

    async fn flush(&mut self) {
        while let Some(report) = self.bridge.poll_report() {
            if self.reporter.report(report).await.is_err() {
                return;
            }
        }
    }

    /// Takes what has come in, up to [`BATCHES_PER_TURN`].
    fn receive(&mut self) {
        for _ in 0..BATCHES_PER_TURN {
            match self.socket.receive() {
                Ok(batch) => {
                    let now = now();
                    for (from, datagram) in batch {
                        self.bridge.handle_datagram(from, datagram, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // An ICMP error of some peer; the socket is as good as before.
                    self.metrics.receive_errors.inc();
                    tracing::debug!(%error, "a datagram could not be received");
                }
            }
            self.transmit();
        }
    }

    /// Sends what is to be sent. A datagram that can't be sent is lost, as any may be.
    fn transmit(&mut self) {
        while let Some(transmit) = self.bridge.poll_transmit() {
            let to = transmit.to.address();
            if let Err(error) = self.socket.send(to, &transmit.bytes) {
                self.metrics.send_errors.inc();
                tracing::debug!(peer.addr = %to, %error, "a datagram could not be sent");
            }
        }
    }

    /// Passes reports on; true when the runtime has no room for the next.
    fn report(&mut self) -> bool {
        while let Some(next) = self.bridge.peek_report() {
            match self.reporter.try_report(next.clone()) {
                Ok(()) => drop(self.bridge.poll_report()),
                Err(ReportError::Full) => return true,
                Err(ReportError::Closed) => return false,
            }
        }
        false
    }
}

/// Waits until a report is taken; false when the runtime has ended.
async fn report(reporter: &Reporter, report: Option<&Report>) -> bool {
    match report {
        Some(report) => reporter.report(report.clone()).await.is_ok(),
        None => true,
    }
}
