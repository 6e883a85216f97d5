//! What the bridge counts.

use bus::admin::Admin;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: &'static str,
}

/// The counters, shared by all connections.
#[derive(Debug, Default, Clone)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    refused: Family<Reason, Counter>,
    ended: Family<Reason, Counter>,
    pub(crate) messages: Counter,
    pub(crate) invalid: Counter,
    pub(crate) pauses: Counter,
    pub(crate) unroutable: Counter,
}

impl Metrics {
    pub(crate) fn register(admin: &Admin) -> Self {
        let metrics = Self::default();
        admin.register(|registry| {
            let registry = registry.sub_registry_with_prefix("ws_bridge");
            registry.register(
                "connections",
                "Connections that are open",
                metrics.connections.clone(),
            );
            registry.register(
                "connections_refused",
                "Connections that did not become a WebSocket, by reason",
                metrics.refused.clone(),
            );
            registry.register(
                "connections_ended",
                "WebSockets that ended, by reason",
                metrics.ended.clone(),
            );
            registry.register(
                "messages",
                "Text messages of nodes",
                metrics.messages.clone(),
            );
            registry.register(
                "messages_invalid",
                "Messages that were not taken and ended their connection",
                metrics.invalid.clone(),
            );
            registry.register(
                "pauses",
                "Times that a node was over its rate and its messages had to wait",
                metrics.pauses.clone(),
            );
            registry.register(
                "requests_unroutable",
                "Requests for a node that is not connected or does not take them",
                metrics.unroutable.clone(),
            );
        });
        metrics
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&Reason { reason }).inc();
    }
}
