//! The MQTT broker: an edge of our own around rumqttd's Router.
//!
//! A message's way: `listener` → `connection` (bytes and packets: `wire`) → `acl` → `exchange`
//! (order, `retained`) → `fanout`, or `shares` → `session` (QoS, window, queue) → `connection`. The
//! Router behind `fanout` carries messages and decides nothing.
//!
//! Refused on purpose: clients without a role in their certificate, passwords without TLS,
//! publishing to `$` topics, enhanced authentication.

#![warn(missing_docs)]

mod acl;
mod broker;
mod config;
mod connection;
mod door;
mod events;
mod exchange;
mod fanout;
mod filters;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod handshake;
mod identity;
mod kept;
mod limits;
mod listener;
mod logins;
mod message;
mod metrics;
mod passwords;
mod reload;
mod retained;
mod session;
mod sessions;
mod shares;
mod store;
mod sys;
mod tls;
mod topic;
mod upkeep;
mod websocket;
mod will;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bus::admin::{Admin, Listener};
use bus::shutdown::Shutdown;
use tokio::net::TcpListener;

pub use acl::AclError;
pub use config::{Config, ConfigError};
pub use identity::Role;
pub use limits::Limits;
pub use passwords::PasswordsError;
pub use store::StoreError;
pub use tls::ServerTlsError;

use crate::broker::Broker;
use crate::door::Wanted;
use crate::events::Events;
use crate::exchange::Exchange;
use crate::fanout::Fanout;
use crate::fanout::router::RouterFanout;
use crate::gate::{Gate, Sources};
use crate::limits::Admission;
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::passwords::Passwords;
use crate::session::Bounds;
use crate::sessions::Sessions;
use crate::store::{Loaded, Store};
use crate::upkeep::Watchdog;

/// Where the broker listens.
#[derive(Debug, Clone, Copy)]
pub struct Started {
    /// MQTT over mTLS.
    pub mqtts: SocketAddr,
    /// MQTT over TLS with name and password.
    pub password: Option<SocketAddr>,
    /// MQTT over WebSocket and TLS.
    pub wss: Option<SocketAddr>,
    /// MQTT without TLS.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over WebSocket without TLS.
    pub ws: Option<SocketAddr>,
}

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The access list is wrong.
    #[error(transparent)]
    Acl(#[from] AclError),
    /// The file of passwords is wrong.
    #[error(transparent)]
    Passwords(#[from] PasswordsError),
    /// The certificates can't be used.
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
    /// What outlives the process can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener can't be bound.
    #[error("{key} = {address} can't be listened on: {remedy}")]
    Bind {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The message core did not start.
    #[error("the message core did not start: the system gave it no thread")]
    Core,
}

fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = listener::bind(address).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| StartError::Bind {
        key,
        address,
        remedy: match source.kind() {
            io::ErrorKind::AddrInUse => "end what listens there, or set another port",
            io::ErrorKind::PermissionDenied => "use a port above 1023, or run as a user that may",
            io::ErrorKind::AddrNotAvailable => "use an address of this machine, or [::]",
            _ => "set another address",
        },
        source,
    })
}

/// A listener that has its address.
struct Bound {
    wanted: Wanted,
    listener: TcpListener,
    address: SocketAddr,
}

fn bind_all(wanted: Vec<Wanted>) -> Result<Vec<Bound>, StartError> {
    let bind = |wanted: Wanted| {
        let (listener, address) = bind(wanted.key, wanted.address)?;
        Ok(Bound {
            wanted,
            listener,
            address,
        })
    };
    wanted.into_iter().map(bind).collect()
}

fn where_bound(bound: &[Bound], listen: SocketAddr) -> Started {
    let find = |key: &str| {
        let found = bound.iter().find(|bound| bound.wanted.key == key);
        found.map(|bound| bound.address)
    };
    Started {
        mqtts: find("bus.listen").unwrap_or(listen),
        password: find("bus.password_listen"),
        wss: find("bus.wss_listen"),
        mqtt: find("bus.plain_listen"),
        ws: find("bus.ws_listen"),
    }
}

/// Starts the broker; it is listening when this returns.
///
/// One per process: the Router's thread ends with the process only.
///
/// # Errors
/// A setting, the access list, a password or a certificate can't be used, or an address can't be
/// bound.
pub async fn start(
    config: Config,
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<Started, StartError> {
    config.check()?;
    let sources = Sources {
        pki: config.pki.clone(),
        acl: config.acl.clone(),
        passwords: config.passwords.clone(),
        base: config.base.clone(),
    };
    let seen = reload::stamp(&sources);
    let (trust, acl) = (sources.trust()?, sources.acl()?);
    let passwords = sources.passwords(&Passwords::default())?;
    if let Some(expiry) = trust.expiry.clone() {
        admin.certificate(expiry);
    }
    let bound = bind_all(door::wanted(&config)?)?;
    let started = where_bound(&bound, config.listen);

    let readiness = admin.part("bus");
    let metrics = Arc::new(Metrics::new(admin));
    let fanout = RouterFanout::start(metrics.clone(), shutdown);
    let fanout = Arc::new(fanout.map_err(|_| StartError::Core)?);
    let gate = Gate::new(trust, acl, passwords);
    let broker = assemble(&config, gate, fanout, metrics, shutdown).await?;
    let watchdog = Watchdog::start(&broker).await;
    let watchdog = watchdog.map_err(|_| StartError::Core)?;
    warn_of_few_descriptors(config.limits.connections);

    let reload = reload::run(broker.clone(), admin.clone(), sources, seen);
    shutdown.spawn(reload);
    for Bound {
        wanted,
        listener,
        address,
    } in bound
    {
        let door = Arc::new(wanted.door);
        shutdown.spawn(listener::accept(broker.clone(), listener, door));
        admin.listening(Listener {
            name: wanted.name,
            scheme: wanted.scheme,
            address,
        });
    }
    readiness.ready();
    shutdown.spawn_vital("bus", async move {
        // Whoever asks is told that the bus is there as long as this runs.
        let _readiness = readiness;
        upkeep::run(broker, watchdog).await
    });
    Ok(started)
}

/// The broker without its listeners, around this fan-out.
async fn assemble(
    config: &Config,
    gate: Gate,
    fanout: Arc<dyn Fanout>,
    metrics: Arc<Metrics>,
    shutdown: &Shutdown,
) -> Result<Arc<Broker>, StartError> {
    let limits = config.limits.clone();
    let bounds = Bounds {
        messages: limits.queue_messages,
        bytes: limits.queue_bytes,
    };
    let (store, mut loaded) = open_store(config, &metrics)?;
    let store = Arc::new(store);
    let exchange = Exchange::new(fanout, store.clone(), metrics.clone());
    let (last_session, exchange) = (loaded.last_session(), Arc::new(exchange));
    exchange.restore(&mut loaded);
    let sessions = Sessions::new(
        bounds,
        limits.sessions,
        exchange.clone(),
        store.clone(),
        metrics.clone(),
    );
    let restored = sessions
        .restore(loaded, last_session, bus::time::now())
        .await;
    restored.map_err(|_| StartError::Core)?;
    Ok(Arc::new(Broker {
        gate,
        exchange,
        sessions,
        admission: Admission::new(&limits),
        logins: Logins::new(
            limits.password_checks,
            limits.failed_logins_per_minute,
            metrics.clone(),
        ),
        store,
        events: Events::new(&config.base),
        metrics,
        shutdown: shutdown.clone(),
        random: Broker::seed(),
        limits,
    }))
}

fn open_store(config: &Config, metrics: &Arc<Metrics>) -> Result<(Store, Loaded), StoreError> {
    let Some(folder) = &config.data else {
        tracing::warn!(
            "retained messages and sessions are kept in memory only and end with the process: set bus.data to a folder to keep them"
        );
        return Ok((Store::default(), Loaded::default()));
    };
    let started = bus::time::now().mono;
    let (store, loaded) = Store::open(folder, metrics.clone())?;
    tracing::info!(
        folder = %folder.display(),
        retained = loaded.retained.len(),
        sessions = loaded.sessions.len(),
        took = ?bus::time::now().mono.saturating_duration_since(started),
        "store opened"
    );
    Ok((store, loaded))
}

/// Each connection is a file descriptor; the system's limit may be lower than ours.
fn warn_of_few_descriptors(connections: usize) {
    let Ok(limits) = std::fs::read_to_string("/proc/self/limits") else {
        return;
    };
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    if let Some(soft) = soft
        && soft < connections.saturating_add(64)
    {
        tracing::info!(
            descriptors = soft,
            connections,
            "the system allows fewer open files than bus.limits.connections: raise it with ulimit -n or LimitNOFILE="
        );
    }
}
