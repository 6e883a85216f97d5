//! What every bridge does alike: its nodes, their liveness, commands, and replay to the bus.
//!
//! A protocol's driver tells what it sees as [`Report`]s and carries out [`Order`]s. Everything
//! about topics, acks, retained state and time-outs is done here:
//!
//! - [`registry`] is the machine, without IO: reports, messages and time in; publications, orders
//!   and a deadline out.
//! - `queue` is what the bus has not got yet, on disk.
//! - `settling` says which reports have reached the bus or the disk.
//! - [`runtime`] is the task that joins them to the MQTT session.
//!
//! A driver never sees a topic, and this module never sees a CoAP message or a WebSocket frame.

mod metrics;
mod node;
mod queue;
pub mod registry;
mod request;
pub mod runtime;
mod settling;
pub mod value;

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::id::BridgeId;
use crate::payload::{AckStatus, Resource, SetMethod};
use crate::time::Timestamp;
use crate::topic::Base;
pub use queue::{QueueConfig, StoreError};
pub use runtime::{Orders, Reporter, Settled, StartError, start};
pub use value::Sample;

/// What a node calls itself: opaque text of 1 to 128 bytes without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Uid(String);

/// Why a text is no uid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a uid is 1 to 128 bytes of text without control characters")]
pub struct InvalidUid;

impl Uid {
    /// Takes a node's own name for itself.
    ///
    /// # Errors
    /// The text is empty, longer than 128 bytes or holds control characters.
    pub fn new(text: &str) -> Result<Self, InvalidUid> {
        let ok = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidUid)
        }
    }

    /// The text as the node sent it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({})", self.0)
    }
}

/// What a bridge is called and how it judges its nodes.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// The level `<b>`, and the name in the bridge's certificate.
    pub name: BridgeId,
    /// What its nodes speak: `coap`, `websocket`.
    pub protocol: &'static str,
    /// Where the topic tree stands.
    pub base: Base,
    /// A node that is silent for so long is offline; none when the protocol itself tells.
    pub max_time: Option<Duration>,
    /// A node that is offline for so long is forgotten.
    pub forget_after: Duration,
    /// How many nodes are taken at the most; further ones are refused and counted.
    pub max_nodes: usize,
    /// What must outlive a connection and the process.
    pub queue: QueueConfig,
}

/// What a driver tells the registry. `uid` is always the node it is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// The node is there, at this address. The first one makes the node known.
    Announce {
        /// The node.
        uid: Uid,
        /// Where it is reached, as its protocol writes addresses.
        address: String,
        /// The node says that it has started anew.
        reset: bool,
    },
    /// The node has said how long it is to be known. It still has to give signs of life; after a restart
    /// it is to be asked for one.
    Registered {
        /// The node.
        uid: Uid,
        /// How long.
        lifetime: Lifetime,
    },
    /// Any other sign of life.
    Seen {
        /// The node.
        uid: Uid,
    },
    /// What the node has, in place of what it had. `name` is assigned here and may be left empty.
    Resources {
        /// The node.
        uid: Uid,
        /// What it has, by its `path`.
        resources: Vec<Resource>,
    },
    /// A value that the node gave, pushed or read; also a sign of life.
    ///
    /// A resource that was in no list is added to it. Text in `name`, `os`, `board`, `mcu`,
    /// `vendor` and `version` goes into the descriptor too.
    Reading {
        /// The node.
        uid: Uid,
        /// The path of the resource, as the node calls it.
        path: String,
        /// The value.
        sample: Sample,
        /// When it came.
        ts: Timestamp,
    },
    /// The node is gone, for this reason: `closed`, `replaced` ...
    Lost {
        /// The node.
        uid: Uid,
        /// One word.
        reason: &'static str,
    },
    /// The node is gone and can't come back under this uid: it is forgotten at once.
    Gone {
        /// The node.
        uid: Uid,
        /// One word.
        reason: &'static str,
    },
    /// A request ended. For a write that the node confirmed, report the value read back first.
    Answer {
        /// The request.
        id: RequestId,
        /// How it ended.
        answer: Answer,
    },
}

/// How long a node is registered (RFC 9176 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// From one renewal to the next, in seconds.
    pub seconds: u32,
    /// Its end, unless it is renewed.
    pub until: Timestamp,
}

/// Names a request between driver and registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Confirmed, refused, too late or failed.
    pub status: AckStatus,
    /// The node's own answer code, as its protocol writes it (`2.04`).
    pub code: Option<String>,
    /// What the resource holds now, as the node said.
    pub v: Option<Value>,
    /// The reason in words, when it did not end well.
    pub error: Option<String>,
}

/// What the registry has a driver do.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Do this and answer with [`Report::Answer`], once. Late or missing answers become `timeout`.
    Execute(Request),
    /// This node was known before the bridge started; nothing was heard of it since.
    Restore {
        /// The node.
        uid: Uid,
        /// Where it was reached.
        address: String,
        /// What it had.
        resources: Vec<Resource>,
        /// How long it is registered, if it is.
        lifetime: Option<Lifetime>,
    },
    /// Drop all that is known of the node.
    Forget {
        /// The node.
        uid: Uid,
    },
}

/// One request to one node, which is online as far as is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Goes into the answer.
    pub id: RequestId,
    /// The node.
    pub uid: Uid,
    /// What to do.
    pub action: Action,
    /// After this nobody waits for the answer any more.
    pub deadline: Instant,
}

/// What to do with a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write a resource.
    Set {
        /// The resource, as the node calls it.
        path: String,
        /// What to write.
        value: Value,
        /// How. A driver whose protocol has no such method answers `rejected`.
        method: SetMethod,
    },
    /// Read a resource; report the reading, then answer with its value.
    Get {
        /// The resource, as the node calls it.
        path: String,
    },
    /// See whether the node answers.
    Ping,
    /// Ask the node for its resources again; answer when they are reported.
    Rediscover,
}

/// How many reports may wait for the registry; full means that [`Reporter::report`] waits and
/// [`Reporter::try_report`] refuses.
pub const REPORT_QUEUE: usize = 4096;

/// How many orders may wait for a driver; full means that requests are answered `rejected`.
pub const ORDER_QUEUE: usize = 1024;

/// Why a report was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// [`REPORT_QUEUE`] reports wait already.
    #[error("the bus is behind")]
    Full,
    /// The runtime has ended.
    #[error("the bridge is stopping")]
    Closed,
}

impl<T> From<mpsc::error::TrySendError<T>> for ReportError {
    fn from(error: mpsc::error::TrySendError<T>) -> Self {
        match error {
            mpsc::error::TrySendError::Full(_) => Self::Full,
            mpsc::error::TrySendError::Closed(_) => Self::Closed,
        }
    }
}
