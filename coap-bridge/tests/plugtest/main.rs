//! The cases of the ETSI CoAP plugtests (CoAP#4: base, links, blocks, observation), each under its own
//! name and in both roles: `..._server` has libcoap's `coap-client` or aiocoap ask the example
//! `plugtest-server`; `..._client` has our endpoint ask aiocoap or libcoap's `coap-server`.
//!
//! Between the two sits a relay that keeps every datagram, and loses some where the case says so: what
//! is asserted is what went over the wire, and what the other program displays.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aiocoap;
mod client;
mod libcoap;
mod relay;
#[path = "../../examples/plugtest/mod.rs"]
mod server;

mod block;
mod core;
mod link;
mod obs;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

fn now() -> Instant {
    bus::time::now().mono
}

/// Waits until `check` gives something.
#[track_caller]
fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = now() + DEADLINE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address of this machine that nothing else of this run has.
fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [low, high, ..] = std::process::id().to_le_bytes();
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{nth}", 128 | high, low.max(1))
}

/// The example `plugtest-server`, in a thread of its own.
struct Ours {
    address: SocketAddr,
    running: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ours {
    fn start() -> Self {
        Self::with(server::Settings {
            change_every: Duration::from_millis(300),
            separate_after: Duration::from_millis(1500),
            ack_timeout: Duration::from_millis(300),
        })
    }

    fn with(settings: server::Settings) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let running = Arc::new(AtomicBool::new(true));
        let going = running.clone();
        let thread = std::thread::spawn(move || {
            server::serve(&socket, settings, &going).unwrap();
        });
        Self {
            address,
            running,
            thread: Some(thread),
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server has panicked");
        }
    }
}
