//! Joins WebSocket nodes to the bus.
//!
//! A node connects to `GET /node`, is asked for its values with `{"request":"discover"}`, and tells
//! them with `{"type":"update","data":{"<resource>":<value>}}`. A write reaches it as
//! `{"endpoint":"<resource>","payload":<value>}`; its next update of that resource confirms it.
//! `{"type":"hello","uid":"..."}`, sent first, gives a node a name that outlives its connection.
//!
//! - [`message`]: the JSON of both directions, from untrusted text to types.
//! - [`node`]: one connection's machine, without IO; [`close`]: why it ends.
//! - [`hub`]: which connection speaks for which uid.
//! - [`places`], [`handshake`], [`connection`], [`driver`]: the sockets.
//!
//! No topic and no MQTT here: that is the bridge runtime's ([`bus::bridge`]).

#![warn(missing_docs)]

mod close;
mod config;
mod connection;
mod driver;
mod handshake;
mod hub;
mod message;
mod metrics;
mod node;
mod places;
#[cfg(test)]
mod tests;

pub use config::{Config, InvalidConfig};
pub use driver::{StartError, Started, start};
