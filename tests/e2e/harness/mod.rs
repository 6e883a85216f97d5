//! Starts the system and its peers, and ends them when the test does.

mod mqtt;
mod outage;
mod peers;
mod process;
mod pushers;
mod system;

use std::time::{Duration, Instant};

pub(crate) use mqtt::{Identity, Subscriber, publish};
pub(crate) use outage::{Keeper, Outage};
pub(crate) use peers::{
    Browser, CoapNode, LibcoapNode, PyaiotClient, WsNode, coap_post, coap_post_from, coap_put,
};
pub(crate) use process::{Process, run};
pub(crate) use pushers::{CHANGED, Pusher, Pushers, SERVICE_UNAVAILABLE};
pub(crate) use system::{Distributed, Fleet, System, add_password, certgen, http_get};

/// How long anything may take before the test has failed; far more than it should take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test's patience is real time")]
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
