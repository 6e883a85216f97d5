//! Joins WebSocket nodes to the bus.
