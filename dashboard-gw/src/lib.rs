//! Shows the bus to browsers: the page, its stream, and the client protocol of Pyaiot.
//!
//! - [`message`]: what the page and the gateway say to each other.
//! - `model`, `client`, `commands`, `pyaiot`: machines without IO: the state of the bus, one page,
//!   requests to nodes, Pyaiot's protocol.
//! - `hub`: where they meet. `stream`, `ws`, `server`, `pages`, `guard`: what browsers reach.
//!
//! It holds no state of its own: all there is comes from the bus. Browsers never speak MQTT.

mod client;
mod commands;
mod config;
mod guard;
mod https;
mod hub;
pub mod message;
mod metrics;
mod model;
mod pages;
mod pyaiot;
mod server;
mod socket;
mod stream;
mod ws;

#[cfg(test)]
mod bindings;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bus::admin::{Admin, Listener, Readiness};
use bus::session::{self, Inbox, Session, SessionError, SessionEvent};
use bus::shutdown::Shutdown;
use bus::time::{now, sleep_until};
use bus::tls::TlsError;
use rand::{Rng, SeedableRng};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{Config, InvalidConfig};
use guard::Guard;
pub use guard::InvalidOrigin;
use https::Https;
use hub::{Hub, Publish, Settings};
use metrics::Metrics;
use server::{App, Limited, router};

/// Why the gateway can't start; names the cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The address is taken or not ours.
    #[error(
        "the dashboard can't listen on {address}: set dashboard_gw.listen to a free address, such as 127.0.0.1:8081"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate for browsers can't be used.
    #[error("dashboard_gw.https_pki can't be used: `certgen issue dashboard-server NAME` makes it")]
    Https(#[from] TlsError),
    /// The session to the bus can't be made.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A gateway that listens.
#[derive(Debug, Clone, Copy)]
pub struct Started {
    /// `http`, or `https` when it has a certificate for browsers.
    pub scheme: &'static str,
    /// Where, with the real port.
    pub address: SocketAddr,
}

/// Starts the gateway: once it returns, browsers are answered; what they see comes with the bus.
///
/// # Errors
/// See [`StartError`].
pub async fn start(
    config: Config,
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<Started, StartError> {
    let guard = config.checked()?;
    let readiness = admin.part("dashboard-gw");
    readiness.not_ready("waiting for the bus");
    let listener = bind(config.listen).await?;
    let (session, inbox) = session::start(config.session(), admin, shutdown)?;
    let publisher = session.clone();
    let publish: Publish =
        Box::new(move |publication| publisher.try_publish(publication).map(drop));
    let (address, hub) = serve(&config, guard, listener, publish, admin, shutdown)?;
    let stop = shutdown.clone();
    shutdown.spawn(follow_bus(hub, session, inbox, readiness, stop));
    Ok(Started {
        scheme: config.scheme(),
        address,
    })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Listen { address, source })
}

/// Serves browsers on `listener`; the hub waits for what the bus says.
fn serve(
    config: &Config,
    guard: Guard,
    listener: TcpListener,
    publish: Publish,
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<(SocketAddr, Arc<Hub>), StartError> {
    let listen_error = |source| StartError::Listen {
        address: config.listen,
        source,
    };
    let address = listener.local_addr().map_err(listen_error)?;
    if !config.can_write() {
        tracing::warn!(
            %address,
            "the dashboard only shows, since others than this machine reach it: \
             dashboard_gw.allow_write_without_login lets everybody write"
        );
    }
    let metrics = Metrics::default();
    metrics.register(admin);
    let run: u64 = rand::rngs::StdRng::from_os_rng().random();
    let settings = Settings {
        base: config.base.clone(),
        limits: config.limits(),
        stream: format!("{}-{run:016x}", config.name),
        command_timeout: config.command_timeout,
        max_clients: config.max_clients,
        can_write: config.can_write(),
        demo_command: config.demo_command.clone(),
        coap_address: config.coap_address.clone(),
        mqtt_port: config.bus.port,
    };
    let hub = Arc::new(Hub::new(settings, publish, metrics.clone(), now()));
    let app = App {
        hub: hub.clone(),
        shutdown: shutdown.clone(),
        goodbye: CancellationToken::new(),
    };
    shutdown.spawn(say_goodbye(app.clone()));
    let https = config.https_pki.clone();
    let https = https.map(|folder| Https::start(folder, admin, shutdown));
    let https = https.transpose()?;
    admin.listening(Listener {
        name: "dashboard",
        scheme: config.scheme(),
        address,
    });
    let listener = Limited::new(listener, https, config.max_connections, metrics);
    let (router, stop) = (router(app, guard), shutdown.clone());
    shutdown.spawn_vital("the dashboard's server", async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.stopping().await })
            .await
    });
    Ok((address, hub))
}

/// Once the stop comes: first every request is answered, then the clients are sent away.
async fn say_goodbye(app: App) {
    app.shutdown.stopping().await;
    app.hub.handle_stop(now());
    app.goodbye.cancel();
}

/// The loop between the session and the hub.
async fn follow_bus(
    hub: Arc<Hub>,
    session: Session,
    mut inbox: Inbox,
    readiness: Readiness,
    shutdown: Shutdown,
) {
    let close = async {
        shutdown.stopping().await;
        session.close().await;
    };
    tokio::pin!(close);
    loop {
        tokio::select! {
            event = inbox.recv() => match event {
                Some(event) => handle_event(&hub, &readiness, event),
                None => break,
            },
            () = &mut close => break,
            () = sleep_until(hub.poll_timeout()) => hub.handle_timeout(now()),
            // A request of a client may have to be ended before anything else.
            () = hub.sooner.notified() => {}
        }
    }
    if !shutdown.is_stopping() {
        shutdown.fail("the dashboard's session to the bus ended");
    }
}

fn handle_event(hub: &Hub, readiness: &Readiness, event: SessionEvent) {
    match event {
        SessionEvent::Connected => {
            readiness.ready();
            hub.handle_connected(now());
        }
        SessionEvent::Disconnected { reason } => {
            // The session has warned already, unless it is back at once.
            tracing::info!(reason, "pages show what was known until the bus is back");
            hub.handle_disconnected(now());
        }
        SessionEvent::Message(message) => hub.handle_message(&message, now()),
    }
}
