//! Joins CoAP nodes to the bus, as Pyaiot's firmwares speak it.
//!
//! A node sends `POST /alive` with `alive:<uid>` or `reset:<uid>`, is asked for
//! `/.well-known/core` and for each resource, and pushes values with `POST /server`,
//! `<resource>:<value>`. A write reaches it as `PUT /<resource>`.
//!
//! - [`endpoint`]: CoAP itself (RFC 7252, 7641, 7959, 8132, 9175), without IO. It knows no resource.
//! - `firmware`: what firmwares and bridge say to each other, without IO. It knows no message.
//! - `content`: values in text, JSON, CBOR, SenML ... (RFC 8949, RFC 8428).
//! - [`link_format`]: lists of resources (RFC 6690).
//! - `socket`, `driver`: the socket; the clock and the task.
//!
//! No topic and no MQTT here: that is the bridge runtime's ([`bus::bridge`]). Not here yet: DTLS.

#![warn(missing_docs)]

mod config;
mod content;
mod driver;
pub mod endpoint;
mod firmware;
pub mod link_format;
mod metrics;
mod socket;

pub use config::{Config, InvalidConfig};
pub use driver::{StartError, Started, start};
