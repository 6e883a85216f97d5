//! What the gateway and the page say to each other on `/api/stream`: one JSON object a frame.
//!
//! The TypeScript types in `web/src/__generated__/messages.ts` are made from these (`make generate`).
//!
//! The gateway opens with [`ServerMessage::Hello`]. The page answers with
//! [`ClientMessage::Resume`], and gets either the delta it missed (which may be empty) or a
//! snapshot; from then on a delta whenever something changed, at most ten a second, and an empty one
//! after 15 s without any, so that a page can tell a quiet bus from a dead connection. `rev` counts
//! changes within one `stream` (a run of the gateway); a page that gets another `stream` starts from
//! a snapshot.

use bus::payload::{Ack, BridgeStatus, Descriptor, Event, NodeStatus, Reading, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// From the gateway to the page.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The first frame.
    Hello {
        /// Names this run of the gateway.
        stream: String,
        /// The gateway's version.
        version: String,
        /// The base of the topics, for showing raw topics.
        base: String,
        /// Whether this client may write.
        can_write: bool,
        /// The command that attaches a simulated node, as a person would type it.
        demo_command: String,
        /// Where a CoAP node must send, as a person would configure it; empty when unknown.
        coap_address: String,
        /// The bus's port for MQTT over mTLS, for showing lines for a terminal.
        mqtt_port: u16,
    },
    /// All there is, in place of all the page knew.
    Snapshot {
        /// The change it is complete up to.
        rev: u64,
        /// The gateway's connection to the bus.
        bus: BusState,
        /// All bridges.
        bridges: Vec<Bridge>,
        /// All nodes.
        nodes: Vec<Node>,
        /// The latest events, oldest first, at most 200.
        events: Vec<Event>,
    },
    /// What changed since the page's `rev`.
    Delta {
        /// The change the page is now complete up to.
        rev: u64,
        /// In order; per resource only the latest value.
        changes: Vec<Change>,
    },
    /// A request of this page ended.
    Ack {
        /// The page's own id for it.
        request: String,
        /// How it ended.
        ack: Ack,
    },
}

/// One change; a page applies it by replacing what it had under the same key.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// The gateway's connection to the bus changed.
    Bus {
        /// What it is now.
        bus: BusState,
    },
    /// A bridge is new or changed.
    Bridge {
        /// What it is now.
        bridge: Bridge,
    },
    /// A bridge's topic was removed.
    BridgeGone {
        /// Which.
        id: String,
    },
    /// A node is new, or more than its values changed: all of it.
    Node {
        /// What it is now.
        node: Box<Node>,
    },
    /// A node was forgotten.
    NodeGone {
        /// Which.
        id: String,
    },
    /// A node's status changed.
    Status {
        /// Which node.
        id: String,
        /// What it is now.
        status: NodeStatus,
    },
    /// A value came.
    Value {
        /// Which node.
        id: String,
        /// Which resource.
        resource: String,
        /// The value.
        reading: Reading,
    },
    /// Something happened.
    Event {
        /// What.
        event: Event,
    },
}

/// The gateway's connection to the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct BusState {
    /// Whether it stands.
    pub connected: bool,
    /// Since when, RFC 3339.
    pub since: String,
}

/// A bridge as the page gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Bridge {
    /// Its name.
    pub id: String,
    /// What it last said, or its Will.
    pub status: BridgeStatus,
}

/// A node as the page gets it. A node whose bridge is offline is in an unknown state, whatever
/// `status` says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Node {
    /// The level of its topics.
    pub id: String,
    /// Who it is; none until its descriptor came.
    pub descriptor: Option<Descriptor>,
    /// Whether it is there; none until its status came.
    pub status: Option<NodeStatus>,
    /// What it has.
    pub resources: Vec<Resource>,
    /// The last value of each resource, by the resource's name.
    pub values: std::collections::BTreeMap<String, Reading>,
}

/// From the page to the gateway.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientMessage {
    /// The answer to hello: where the page stands; both absent when it knows nothing.
    Resume {
        /// The stream that the page's state is from.
        stream: Option<String>,
        /// The change it is complete up to.
        rev: Option<u64>,
    },
    /// Write a resource. Exactly one `ack` follows.
    Set {
        /// The page's own id for it.
        request: String,
        /// Which node.
        node: String,
        /// Which resource.
        resource: String,
        /// What to write.
        value: Value,
    },
    /// Read a resource from the node now. Exactly one `ack` follows.
    Get {
        /// The page's own id for it.
        request: String,
        /// Which node.
        node: String,
        /// Which resource.
        resource: String,
    },
    /// `rediscover`, `forget` or `ping`. Exactly one `ack` follows.
    Command {
        /// The page's own id for it.
        request: String,
        /// Which node.
        node: String,
        /// What to do.
        op: String,
    },
}
