//! End-to-end tests: the real binaries on free ports, and programs that are not ours as peers.
//!
//! What they need is installed by `scripts/install-test-deps`; `make test` runs it. Nothing here
//! sleeps for a result: every wait is for a condition, with a deadline.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod harness;

mod actuators;
mod browser;
mod certificates;
mod coap_nodes;
mod command_line;
mod content_formats;
mod dtls;
mod dtls_nodes;
mod listeners;
mod liveness;
mod mqtt_clients;
mod outages;
mod pyaiot_client;
mod refusals;
mod simulate;
mod ws_nodes;
