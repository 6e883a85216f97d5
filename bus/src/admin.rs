//! What an operator can ask a running process: `/healthz`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::shutdown::Shutdown;
use crate::tls::{Expiries, Expiry};

/// A listener as the operator is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// What it speaks, in words: `MQTT over mTLS`, `CoAP` ...
    pub name: &'static str,
    /// The scheme of its URLs: `mqtts`, `coap`, `http` ...
    pub scheme: &'static str,
    /// The address it got, with the real port.
    pub address: SocketAddr,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    ready: bool,
    parts: BTreeMap<&'static str, Part>,
    listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Serialize)]
struct Part {
    ready: bool,
    reason: String,
}

#[derive(Debug)]
struct Shared {
    report: Mutex<Report>,
    registry: Mutex<Registry>,
    expiries: Expiries,
}

impl Default for Shared {
    fn default() -> Self {
        let (mut registry, expiries) = (Registry::default(), Expiries::default());
        registry.register_collector(Box::new(expiries.clone()));
        Self {
            report: Mutex::default(),
            registry: Mutex::new(registry),
            expiries,
        }
    }
}

/// What the parts of a process tell about themselves. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Admin(Arc<Shared>);

/// Whether one part can do its work; a part that is dropped is not ready.
#[derive(Debug)]
pub struct Readiness {
    admin: Admin,
    part: &'static str,
}

impl Readiness {
    /// The part can do its work.
    pub fn ready(&self) {
        self.set(true, "ready");
    }

    /// The part can't do its work, for this reason in words.
    pub fn not_ready(&self, reason: &str) {
        self.set(false, reason);
    }

    fn set(&self, ready: bool, reason: &str) {
        let mut report = self.admin.report();
        report.parts.insert(
            self.part,
            Part {
                ready,
                reason: reason.to_owned(),
            },
        );
        report.ready = report.parts.values().all(|part| part.ready);
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.set(false, "stopped");
    }
}

impl Admin {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.0.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a part; the process is ready when all of them are.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Readiness {
        let readiness = Readiness {
            admin: self.clone(),
            part: name,
        };
        readiness.not_ready("starting");
        readiness
    }

    /// Announces a bound listener: a log line now, and an entry in `/readyz`.
    pub fn listening(&self, listener: Listener) {
        tracing::info!(name = listener.name, address = %listener.address, "listening");
        self.report().listeners.push(listener);
    }

    /// All listeners announced so far.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        self.report().listeners.clone()
    }

    /// Whether every announced part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let report = self.report();
        report.ready && !report.parts.is_empty()
    }

    /// Registers metrics; `register` gets the process's registry. Names carry the part's prefix.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(
            &mut self
                .0
                .registry
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Tells how long a certificate of this process is valid, as
    /// `nodebus_certificate_expiry_seconds{role,name}`; again after a renewal.
    pub fn certificate(&self, expiry: Expiry) {
        self.0.expiries.set(expiry);
    }

    /// The metrics in Prometheus' text format (OpenMetrics 1.0).
    #[must_use]
    pub fn metrics(&self) -> String {
        let registry = self
            .0
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
            tracing::error!("the metrics could not be written");
        }
        text
    }

    /// Binds `address` and answers there until the stop.
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn serve(&self, address: SocketAddr, shutdown: &Shutdown) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        self.listening(Listener {
            name: "admin",
            scheme: "http",
            address: listener.local_addr()?,
        });
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self.clone());
        let stop = shutdown.clone();
        shutdown.spawn_vital("admin", async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(async move { stop.stopping().await })
                .await
        });
        Ok(())
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let status = if admin.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let report = serde_json::to_value(&*admin.report()).unwrap_or_default();
    (status, Json(report))
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_certificate_of_a_name_counts() {
        let admin = Admin::default();
        let expiry = |seconds: i64| Expiry {
            role: "broker".to_owned(),
            name: "bus".to_owned(),
            not_after: crate::time::Timestamp::from_unix_millis(
                crate::time::now().wall.unix_millis() + 1000 * seconds,
            ),
        };
        admin.certificate(expiry(-10));
        admin.certificate(expiry(86_400));
        let text = admin.metrics();
        let line = "nodebus_certificate_expiry_seconds{role=\"broker\",name=\"bus\"} 86";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_process_is_ready_when_all_its_parts_are() {
        let admin = Admin::default();
        assert!(!admin.is_ready());
        let (one, two) = (admin.part("one"), admin.part("two"));
        one.ready();
        assert!(!admin.is_ready());
        two.ready();
        assert!(admin.is_ready());
        drop(two);
        assert!(!admin.is_ready());
    }
}
