//! The listeners that the settings ask for: where, and how their clients show who they are.

use std::net::SocketAddr;
use std::sync::Arc;

use bus::origin::Origins;
use tokio::sync::Semaphore;

use crate::config::{Config, ConfigError};
use crate::identity::Role;
use crate::tls::Asked;
use crate::websocket::Terms;

/// How clients of a listener show who they are.
pub(crate) enum Credentials {
    /// Over TLS, by a certificate or by the name and password of their CONNECT.
    Tls {
        asked: Asked,
        /// Handshakes under way. Each listener has its own, so that strangers at one of them take
        /// nothing from the others.
        handshakes: Arc<Semaphore>,
    },
    /// Not at all: everybody has this role.
    Nothing(Role),
}

/// What a listener is for.
pub(crate) struct Door {
    pub(crate) credentials: Credentials,
    /// MQTT comes over WebSocket, from whom these terms let.
    pub(crate) websocket: Option<Terms>,
}

/// A listener to be bound.
pub(crate) struct Wanted {
    /// The setting.
    pub(crate) key: &'static str,
    pub(crate) address: SocketAddr,
    /// What it speaks, for people.
    pub(crate) name: &'static str,
    /// The scheme of its URLs.
    pub(crate) scheme: &'static str,
    pub(crate) door: Door,
}

/// All listeners that the settings ask for; the first is the one of `bus.listen`.
pub(crate) fn wanted(config: &Config) -> Result<Vec<Wanted>, ConfigError> {
    let tls = |asked| Credentials::Tls {
        asked,
        handshakes: Arc::new(Semaphore::new(
            config.limits.handshakes.min(Semaphore::MAX_PERMITS),
        )),
    };
    let origins = Origins::new(&config.allowed_origins)?;
    let terms = |is_proven| {
        Some(Terms {
            origins: origins.clone(),
            is_proven,
        })
    };
    let mut all = vec![Wanted {
        key: "bus.listen",
        address: config.listen,
        name: "MQTT over mTLS",
        scheme: "mqtts",
        door: Door {
            credentials: tls(Asked::Certificate),
            websocket: None,
        },
    }];
    let mut add = |key, address: Option<SocketAddr>, name, scheme, door: Door| {
        all.extend(address.map(|address| Wanted {
            key,
            address,
            name,
            scheme,
            door,
        }));
    };
    let door = Door {
        credentials: tls(Asked::Nothing),
        websocket: None,
    };
    let (key, name) = ("bus.password_listen", "MQTT with password");
    add(key, config.password_listen, name, "mqtts", door);
    let asked = match config.passwords {
        Some(_) => Asked::Either,
        None => Asked::Certificate,
    };
    let door = Door {
        credentials: tls(asked),
        websocket: terms(true),
    };
    let (key, name) = ("bus.wss_listen", "MQTT over WSS");
    add(key, config.wss_listen, name, "wss", door);
    if let Some(role) = config.anonymous {
        let door = Door {
            credentials: Credentials::Nothing(role),
            websocket: None,
        };
        let (key, name) = ("bus.plain_listen", "MQTT without TLS");
        add(key, config.plain_listen, name, "mqtt", door);
        let door = Door {
            credentials: Credentials::Nothing(role),
            websocket: terms(false),
        };
        let (key, name) = ("bus.ws_listen", "MQTT over WS");
        add(key, config.ws_listen, name, "ws", door);
    }
    Ok(all)
}
