//! Joins CoAP nodes to the bus.
