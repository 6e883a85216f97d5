//! Starts the bridge: the listener, and the task that hands out orders.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::admin::{Admin, Listener};
use bus::bridge::{Order, Orders, Report, Reporter, Uid, runtime};
use bus::origin::Origins;
use bus::payload::AckStatus;
use bus::shutdown::Shutdown;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{Checked, Config, InvalidConfig};
use crate::connection;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::node::{Limits, refusal};
use crate::places::Places;

/// The bridge is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Where nodes connect, with the real port.
    pub address: SocketAddr,
}

/// Why the bridge can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The listener.
    #[error("nodes can't connect at {address}: choose another address with ws_bridge.listen")]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The connection to the bus, or what must outlive it.
    #[error(transparent)]
    Runtime(#[from] bus::bridge::StartError),
}

/// What all connections share. The runtime's end waits for the [`Reporter`] in it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) hub: Hub,
    pub(crate) reporter: Reporter,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    pub(crate) origins: Origins,
    pub(crate) max_message_bytes: usize,
    pub(crate) handshake_timeout: Duration,
}

/// Starts the bridge and returns once nodes can connect. Whether the bus can be reached is the
/// readiness of the bridge runtime (part `websocket`).
///
/// On the stop it accepts no further connection, reports its nodes lost, closes their WebSockets
/// with 1001 and ends.
///
/// # Errors
/// See [`StartError`].
pub async fn start(
    config: Config,
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<Started, StartError> {
    let checked = config.checked()?;
    let listener = bind(config.listen).await?;
    let ends = runtime::start(config.bridge(), config.session(), admin, shutdown)?;
    listen(listener, &config, checked, ends, admin, shutdown)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| StartError::Bind { address, source })
}

/// Spawns the tasks on a bound listener and the two ends of a runtime.
fn listen(
    listener: TcpListener,
    config: &Config,
    checked: Checked,
    (reporter, orders): (Reporter, Orders),
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<Started, StartError> {
    let address = listener.local_addr().map_err(|source| StartError::Bind {
        address: config.listen,
        source,
    })?;
    admin.listening(Listener {
        name: "WebSocket nodes",
        scheme: "ws",
        address,
    });
    let shared = Arc::new(Shared {
        hub: Hub::default(),
        reporter,
        shutdown: shutdown.clone(),
        metrics: Metrics::register(admin),
        limits: checked.limits,
        origins: checked.origins,
        max_message_bytes: config.max_message_bytes,
        handshake_timeout: config.handshake_timeout,
    });
    let places = Places::new(config.max_connections, config.max_connections_per_address);
    shutdown.spawn(dispatch(orders, shared.clone()));
    shutdown.spawn(accept(listener, places, shared));
    Ok(Started { address })
}

async fn accept(listener: TcpListener, places: Places, shared: Arc<Shared>) {
    let mut rng = StdRng::from_os_rng();
    let mut connection = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.shutdown.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                connection += 1;
                let random = random_uid(&mut rng);
                admit(stream, peer, connection, random, &places, &shared);
            }
            Err(error) => {
                shared.metrics.refused("accept");
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors it fails again at once; others may end meanwhile.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    id: u64,
    random: Uid,
    places: &Places,
    shared: &Arc<Shared>,
) {
    let place = match places.take(peer.ip()) {
        Ok(place) => place,
        Err(error) => {
            shared.metrics.refused("full");
            tracing::debug!(peer.addr = %peer, %error, "connection refused");
            return;
        }
    };
    // Without it small frames wait for the peer's acknowledgement; a socket that refuses still works.
    stream.set_nodelay(true).ok();
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let task = shared.clone();
    shared.shutdown.spawn(async move {
        task.metrics.connections.inc();
        connection::serve(stream, peer, id, random, task.clone()).await;
        task.metrics.connections.dec();
        drop(place);
    });
}

/// A uid for one connection: 64 random bits, so that two never meet.
fn random_uid(rng: &mut StdRng) -> Uid {
    let text = format!("ws-{:016x}", rng.random::<u64>());
    Uid::new(&text).expect("19 characters of hexadecimal are a uid")
}

/// Hands orders to the connections they are for.
async fn dispatch(mut orders: Orders, shared: Arc<Shared>) {
    loop {
        let order = tokio::select! {
            biased;
            () = shared.shutdown.stopping() => return,
            order = orders.recv() => order,
        };
        let Some(order) = order else { return };
        match order {
            Order::Execute(request) => {
                let id = request.id;
                if let Err(error) = shared.hub.request(request).await {
                    shared.metrics.unroutable.inc();
                    let answer = refusal(AckStatus::Rejected, &error.to_string());
                    if shared
                        .reporter
                        .report(Report::Answer { id, answer })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
            // A node comes back by connecting; until then nothing can be done for it.
            Order::Restore { .. } => {}
            Order::Forget { uid } => shared.hub.forget(&uid).await,
        }
    }
}

#[cfg(test)]
pub(crate) mod detached {
    //! The bridge without a bus, for tests.

    use super::*;

    pub(crate) async fn start(
        config: &Config,
        ends: (Reporter, Orders),
        admin: &Admin,
        shutdown: &Shutdown,
    ) -> Result<Started, StartError> {
        let checked = config.checked()?;
        let listener = bind(config.listen).await?;
        listen(listener, config, checked, ends, admin, shutdown)
    }
}
