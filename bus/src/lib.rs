//! The contract that every part of nodebus shares.
//!
//! - [`id`], [`topic`], [`payload`]: what stands on the bus, as types that cannot be wrong later.
//! - [`session`]: an MQTT client that loses nothing it accepted.
//! - [`bridge`]: what every bridge does alike: its nodes, their liveness, commands, replay.
//! - [`origin`]: which web pages may open a WebSocket to a part; [`rate`]: how often a peer may do something.
//! - [`time`], [`config`], [`tls`], [`shutdown`], [`admin`]: how a part is run and observed.
//!
//! Nothing here links rumqttd: the broker is the package `bus-broker`.

#![warn(missing_docs)]

pub mod admin;
pub mod bridge;
pub mod config;
pub mod id;
pub mod origin;
pub mod payload;
pub mod rate;
pub mod session;
pub mod shutdown;
pub mod time;
pub mod tls;
pub mod topic;
pub mod watch;
