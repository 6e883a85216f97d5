//! What is bound and read before anything runs, and why it can't be.

use std::io;
use std::net::SocketAddr;

use bus::admin::{Admin, Listener};
use bus::bridge::{Orders, Reporter};
use bus::shutdown::Shutdown;
use bus::time::now;
use bus::tls::Expiry;
use bus::watch::Watch;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::Driver;
use super::credentials::{self, Credentials, Had, Sources};
use super::secure::Secure;
use crate::allowance::Allowance;
use crate::config::{Config, InvalidConfig};
use crate::dtls::{self, KeysError, TrustError};
use crate::firmware::Bridge;
use crate::groups::{Groups, JoinError};
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::socket::Socket;

/// ENODEV of Linux: what binding to an interface gives that is not there.
const NO_SUCH_DEVICE: i32 = 19;

/// The bridge is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Where nodes send to, with the real port.
    pub address: SocketAddr,
    /// Where they send to over DTLS.
    pub secure: Option<SocketAddr>,
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
    /// Multicast.
    #[error(transparent)]
    Groups(#[from] JoinError),
    /// The listener for DTLS.
    #[error(
        "nodes can't be heard over DTLS at {address}/udp: choose another address with \
         coap_bridge.dtls_listen"
    )]
    BindSecure {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such interface.
    #[error(
        "there is no network interface {interface}: set coap_bridge.interface to one that `ip link` \
         lists, or leave it out"
    )]
    Interface {
        /// The setting.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file of shared keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The cryptography does not work.
    #[error("DTLS can't be used: {0}")]
    Dtls(String),
    /// The connection to the bus, or what must outlive it.
    #[error(transparent)]
    Runtime(#[from] bus::bridge::StartError),
}

/// What is bound and read before anything runs.
pub(super) struct Doors {
    started: Started,
    socket: Socket,
    allowance: Allowance,
    groups: Groups,
    secure: Option<Secure>,
    bridge: Bridge,
    metrics: Metrics,
    dtls_metrics: dtls::Metrics,
    files: Option<Files>,
}

/// The files of credentials, as they were read.
struct Files {
    sources: Sources,
    watch: Watch,
    had: Had,
    expiry: Option<Expiry>,
}

impl Doors {
    pub(super) fn open(config: &Config) -> Result<Self, StartError> {
        let rules = config.checked()?;
        let bind = |source: io::Error| match &config.interface {
            Some(interface) if source.raw_os_error() == Some(NO_SUCH_DEVICE) => {
                StartError::Interface {
                    interface: interface.clone(),
                    source,
                }
            }
            _ => StartError::Bind {
                address: config.listen,
                source,
            },
        };
        let interface = config.interface.as_deref();
        let socket = Socket::bind(config.listen, interface).map_err(bind)?;
        let groups = join(config, &socket)?;
        let (metrics, dtls_metrics) = (Metrics::default(), dtls::Metrics::default());
        let mut bridge = Bridge::new(rules, StdRng::from_os_rng(), metrics.clone());
        if !groups.is_empty() {
            bridge.start_search(now());
        }
        let mut started = Started {
            address: socket.local_addr().map_err(bind)?,
            secure: None,
        };
        let (mut secure, mut files) = (None, None);
        if let Some(sources) = Sources::of(config) {
            let watch = sources.watch();
            let read = sources.read()?;
            let mut had = Had::default();
            had.note(&read);
            let Credentials { keys, trust } = read;
            if let Some(keys) = &keys {
                bridge.handle_keys(keys.names().cloned().collect(), now());
            }
            files = Some(Files {
                sources,
                watch,
                had,
                expiry: trust.as_ref().and_then(|trust| trust.expiry.clone()),
            });
            let allowance = config.allowance(&metrics);
            let second = Secure::bind(config, keys, trust, allowance, dtls_metrics.clone())?;
            started.secure = Some(second.local_addr().map_err(|source| {
                let address = config.dtls_listen;
                StartError::BindSecure { address, source }
            })?);
            secure = Some(second);
        }
        Ok(Self {
            started,
            socket,
            allowance: config.allowance(&metrics),
            groups,
            secure,
            bridge,
            metrics,
            dtls_metrics,
            files,
        })
    }

    /// Spawns the task on the two ends of a runtime.
    pub(super) fn serve(
        self,
        (reporter, orders): (Reporter, Orders),
        admin: &Admin,
        shutdown: &Shutdown,
    ) -> Started {
        let started = self.started;
        admin.listening(Listener {
            name: "CoAP",
            scheme: "coap",
            address: started.address,
        });
        if let Some(address) = started.secure {
            admin.listening(Listener {
                name: "CoAP over DTLS",
                scheme: "coaps",
                address,
            });
        }
        admin.register(|registry| {
            let registry = registry.sub_registry_with_prefix("coap_bridge");
            self.metrics.register(registry);
            self.bridge.endpoint_metrics().register(registry);
            if self.secure.is_some() {
                self.dtls_metrics.register(registry);
            }
        });
        let (to_driver, credentials) = mpsc::channel(1);
        if let Some(files) = self.files {
            if let Some(expiry) = files.expiry {
                admin.certificate(expiry);
            }
            let (sources, watch) = (files.sources, files.watch);
            let told = (admin.clone(), self.metrics.clone());
            let stop = shutdown.clone();
            shutdown.spawn(credentials::keep(
                sources, watch, files.had, to_driver, told, stop,
            ));
        }
        let driver = Driver {
            socket: self.socket,
            allowance: self.allowance,
            groups: self.groups,
            inbox: Inbox::new(self.metrics.clone()),
            datagram: Vec::new(),
            behind: None,
            secure: self.secure,
            bridge: self.bridge,
            settled: reporter.settled(),
            reporter,
            orders,
            credentials,
            metrics: self.metrics,
        };
        shutdown.spawn_vital("coap-bridge", driver.run(shutdown.clone()));
        started
    }
}

/// Joins the groups that are to be joined.
fn join(config: &Config, socket: &Socket) -> Result<Groups, StartError> {
    let interfaces = &config.multicast_interfaces;
    if interfaces.is_empty() {
        return Ok(Groups::default());
    }
    let address = config.listen;
    let port = socket.local_addr().map(|bound| bound.port());
    let joined = port
        .and_then(|port| socket.share_port(|| Groups::join(interfaces, port, address.is_ipv6())));
    let joined = joined.map_err(|source| StartError::Bind { address, source })?;
    Ok(joined?)
}
