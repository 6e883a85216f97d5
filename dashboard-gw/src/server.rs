//! The HTTP server: routes, upgrades, and a listener that strangers can't exhaust.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use bus::id::NodeId;
use bus::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::guard::{Guard, guard};
use crate::https::{Https, Wire};
use crate::hub::{Hub, Seat};
use crate::message::Node;
use crate::metrics::{Kind, Metrics, Refusal};
use crate::socket::MAX_MESSAGE;
use crate::{pages, stream, ws};

/// A connection on which nothing moves for so long is closed; WebSockets are pinged more often.
const IDLE: Duration = Duration::from_secs(60);

/// What the routes share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) hub: Arc<Hub>,
    pub(crate) shutdown: Shutdown,
    /// Clients say goodbye when it is cancelled.
    pub(crate) goodbye: CancellationToken,
}

/// All routes.
pub(crate) fn router(app: App, checks: Guard) -> Router {
    let checks = (Arc::new(checks), app.hub.metrics.clone());
    Router::new()
        .route("/api/stream", get(upgrade_stream))
        .route("/ws", get(upgrade_ws))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{id}", get(node))
        .fallback(pages::page)
        .layer(from_fn_with_state(checks, guard))
        .layer(map_response(pages::harden))
        .with_state(app)
}

async fn upgrade_stream(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    let (hub, goodbye) = (app.hub.clone(), app.goodbye.clone());
    seated(app, Kind::Stream, upgrade, |socket, seat| {
        stream::run(socket, hub, seat, goodbye)
    })
}

async fn upgrade_ws(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    let (hub, goodbye) = (app.hub.clone(), app.goodbye.clone());
    seated(app, Kind::Pyaiot, upgrade, |socket, seat| {
        ws::run(socket, hub, seat, goodbye)
    })
}

/// Upgrades when there is a seat; the client's task is one of ours, so that a stop waits for it.
fn seated<F>(
    app: App,
    kind: Kind,
    upgrade: WebSocketUpgrade,
    run: impl FnOnce(WebSocket, Seat) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(seat) = app.hub.seat(kind) else {
        let words = "As many clients as there may be are connected: try again later, or raise \
            dashboard_gw.max_clients.\n";
        return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    };
    upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(move |socket| {
            app.shutdown.spawn(run(socket, seat));
            std::future::ready(())
        })
}

async fn nodes(State(app): State<App>) -> Json<Vec<Node>> {
    Json(app.hub.nodes())
}

async fn node(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Node>, StatusCode> {
    let node = NodeId::new(&id).ok().and_then(|id| app.hub.node(&id));
    node.map(Json).ok_or(StatusCode::NOT_FOUND)
}

/// A listener with room for so many connections; one more is closed at once.
pub(crate) struct Limited {
    listener: TcpListener,
    https: Option<Arc<Https>>,
    room: Arc<Semaphore>,
    metrics: Metrics,
}

impl Limited {
    pub(crate) fn new(
        listener: TcpListener,
        https: Option<Arc<Https>>,
        connections: usize,
        metrics: Metrics,
    ) -> Self {
        Self {
            listener,
            https,
            room: Arc::new(Semaphore::new(connections)),
            metrics,
        }
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (stream, from) = Listener::accept(&mut self.listener).await;
            let Ok(permit) = self.room.clone().try_acquire_owned() else {
                self.metrics.refused(Refusal::Busy);
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection ended as it came");
                continue;
            }
            let connection = Connection {
                wire: Wire::new(stream, self.https.as_deref()),
                idle: Box::pin(sleep(IDLE)),
                _permit: permit,
            };
            return (connection, from);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing moves on it.
pub(crate) struct Connection {
    wire: Wire,
    idle: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Puts the end off when something moved, and ends the connection when nothing did.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            let end = bus::time::now().mono + IDLE;
            self.idle.as_mut().reset(end.into());
            return polled;
        }
        ready!(self.idle.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.wire).poll_read(context, buffer);
        self.watch(context, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.wire).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.wire).poll_write_vectored(context, buffers);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}
