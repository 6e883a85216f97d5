//! What the fleet did so far, for the status line.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bus::time::Timestamp;

/// A bridge reads its nodes at least so often; more silence than that is worth a word.
const SILENCE: Duration = Duration::from_secs(60);

/// Counters, shared by all nodes.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Nodes that were started.
    pub(crate) coap_nodes: AtomicU64,
    /// Nodes that were started.
    pub(crate) ws_nodes: AtomicU64,
    /// WebSocket nodes that are connected now.
    pub(crate) connected: AtomicU64,
    /// Values that were pushed.
    pub(crate) pushes: AtomicU64,
    /// Requests that were answered, other than writes.
    pub(crate) reads: AtomicU64,
    /// Writes that were carried out.
    pub(crate) writes: AtomicU64,
    /// Whatever failed.
    errors: AtomicU64,
    /// When a CoAP node last heard from the server, in milliseconds; 0 for never.
    heard: AtomicI64,
    /// The last error in words, until it was told.
    last_error: Mutex<Option<String>>,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A number of things, in words.
pub(crate) fn plural(n: u64, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}

impl Stats {
    pub(crate) fn error(&self, why: impl Into<String>) {
        count(&self.errors);
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(why.into());
    }

    pub(crate) fn heard(&self, now: Timestamp) {
        self.heard.store(now.unix_millis(), Ordering::Relaxed);
    }

    /// One line; tells the last error once.
    pub(crate) fn line(&self, coap_server: &str, now: Timestamp) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (coap, ws) = (of(&self.coap_nodes), of(&self.ws_nodes));
        let mut line = String::new();
        if coap > 0 {
            line += &format!("{}, ", plural(coap, "CoAP node"));
        }
        if ws > 0 {
            let connected = of(&self.connected);
            line += &format!(
                "{connected} of {} connected, ",
                plural(ws, "WebSocket node")
            );
        }
        line += &format!(
            "{} pushed, {} and {} answered, {}",
            plural(of(&self.pushes), "value"),
            plural(of(&self.reads), "read"),
            plural(of(&self.writes), "write"),
            plural(of(&self.errors), "error"),
        );
        let heard = Timestamp::from_unix_millis(self.heard.load(Ordering::Relaxed));
        let silence = now.saturating_since(heard);
        if coap > 0 && silence > SILENCE {
            line += &format!("; nothing comes from {coap_server}: does a CoAP bridge run there?");
        }
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = last.take() {
            line += &format!("; last error: {error}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_an_operator_would_ask() {
        let stats = Stats::default();
        let now = Timestamp::from_unix_millis(1_000_000_000);
        count(&stats.coap_nodes);
        count(&stats.pushes);
        count(&stats.pushes);
        let line = stats.line("192.0.2.1:5683", now);
        assert!(line.starts_with("1 CoAP node, 2 values pushed, 0 reads and 0 writes answered"));
        assert!(line.contains("192.0.2.1:5683"), "{line}");
        stats.heard(now);
        stats.error("the network is down");
        let line = stats.line("192.0.2.1:5683", now);
        assert!(
            line.ends_with("1 error; last error: the network is down"),
            "{line}"
        );
        assert!(!stats.line("192.0.2.1:5683", now).contains("down"));
    }
}
