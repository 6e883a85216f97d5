//! Joins CoAP nodes to the bus, as Pyaiot's firmwares speak it.
//!
//! A node sends `POST /alive` with `alive:<uid>` or `reset:<uid>`, is asked for
//! `/.well-known/core` and for each resource, and pushes values with `POST /server`,
//! `<resource>:<value>`. A write reaches it as `PUT /<resource>`.
//!
//! - [`endpoint`]: CoAP itself (RFC 7252, 7641, 7959, 8132, 9175), without IO. It knows no resource.
//! - `firmware`: what firmwares and bridge say to each other, without IO. It knows no message.
//! - `dtls`: DTLS 1.2 for nodes (RFC 6347), without IO. It knows no CoAP.
//! - `content`: values in text, JSON, CBOR, SenML ... (RFC 8949, RFC 8428).
//! - [`link_format`]: lists of resources (RFC 6690).
//! - `socket`, `groups`, `driver`: the sockets; those for multicast; the clock and the task.
//!
//! No topic and no MQTT here: that is the bridge runtime's ([`bus::bridge`]).

#![warn(missing_docs)]

mod allowance;
mod block;
mod config;
mod content;
mod driver;
mod dtls;
pub mod endpoint;
mod firmware;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod inbox;
pub mod link_format;
mod metrics;
mod network;
pub mod socket;

pub use config::{Config, InvalidConfig};
pub use driver::{StartError, Started, start};
pub use dtls::{KeysError, TrustError, shared_keys};
pub use groups::JoinError;
pub use network::{InvalidNetwork, Network};
