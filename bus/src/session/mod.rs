//! An MQTT 5 client session that loses nothing it accepted.
//!
//! What is accepted stays in an outbox until it is acknowledged, over as many connections as it takes,
//! with back-off between them; the subscriptions are renewed after each connect, renewed certificates
//! taken up, and the end is clean. rumqttc gives the packets of MQTT 5 and their codec, not its event
//! loop: that takes and writes one publication at a time, and here many share one write and one TLS
//! record.
//!
//! - [`outbox`] and `connection` are the machines, without IO; `wire` has the packets' contents.
//! - `handle` is what the owner holds, [`driver`] the task that keeps a connection; `link` and
//!   `transport` are its bytes, `identity` its certificates, `error` what it says when it fails.

mod connection;
mod driver;
mod error;
mod handle;
mod identity;
mod link;
pub mod outbox;
mod transport;
mod url;
mod wire;

use std::path::PathBuf;

use bytes::Bytes;

pub use driver::start;
pub use handle::{Inbox, Session};
pub use outbox::Ticket;
pub use url::{BusUrl, InvalidUrl};

use crate::tls::TlsError;

/// How surely a message is delivered (MQTT 5 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The Topic Name.
    pub topic: String,
    /// The Application Message.
    pub payload: Bytes,
    /// How surely it is delivered.
    pub qos: Qos,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// Where an answer is wanted (MQTT 5 section 3.3.2.3.5).
    pub response_topic: Option<String>,
    /// What an answer carries (MQTT 5 section 3.3.2.3.6).
    pub correlation: Option<Bytes>,
    /// After so many seconds it is of no use (MQTT 5 section 3.3.2.3.3).
    pub expiry: Option<u32>,
}

impl Publication {
    /// A QoS 1 message that is not kept.
    #[must_use]
    pub fn passing(topic: String, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            response_topic: None,
            correlation: None,
            expiry: None,
        }
    }

    /// A QoS 1 message that is kept for later subscribers; an empty payload removes what was kept.
    #[must_use]
    pub fn retained(topic: String, payload: impl Into<Bytes>) -> Self {
        Self {
            retain: true,
            ..Self::passing(topic, payload)
        }
    }
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The Topic Name.
    pub topic: String,
    /// The Application Message.
    pub payload: Bytes,
    /// It was kept by the broker from before the subscription.
    pub retain: bool,
    /// Where an answer is wanted.
    pub response_topic: Option<String>,
    /// What an answer carries.
    pub correlation: Option<Bytes>,
    /// After so many seconds it is of no use.
    pub expiry: Option<u32>,
}

/// Whom to connect to, and as whom.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The broker.
    pub url: BusUrl,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem`; read again at each connect. When the
    /// certificate is replaced while connected, the session connects anew.
    pub pki: PathBuf,
    /// The Client Identifier: the identity's name, or `name:anything`.
    pub client_id: String,
    /// What the broker publishes when this session is lost.
    pub will: Option<Publication>,
    /// What to subscribe to after each connect, in this order, with QoS 1.
    pub filters: Vec<String>,
}

impl SessionConfig {
    /// A session without a Will and without subscriptions.
    #[must_use]
    pub fn new(url: BusUrl, pki: PathBuf, client_id: String) -> Self {
        Self {
            url,
            pki,
            client_id,
            will: None,
            filters: Vec::new(),
        }
    }
}

/// Why a session can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The identity's files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The Client Identifier or a filter is not valid.
    #[error("{0:?} is not a valid filter or client identifier")]
    Invalid(String),
}

/// Why a publication was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// [`outbox::CAPACITY`] publications wait for their acknowledgement already.
    #[error("too many publications wait for the broker")]
    Full,
    /// The session has ended.
    #[error("the session has ended")]
    Closed,
    /// The topic has a wildcard or U+0000, is empty, or longer than 65,535 bytes.
    #[error("the topic is not valid")]
    Topic,
}

/// What a session tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// Connected, and the subscriptions are on their way; the broker kept nothing of an older
    /// connection.
    Connected,
    /// The connection ended; the session goes on trying.
    Disconnected {
        /// Why, in words.
        reason: String,
    },
    /// A message came.
    Message(Message),
}
