//! Joins CoAP nodes to the bus.

#![warn(missing_docs)]

pub mod endpoint;
