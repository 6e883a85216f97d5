//! `/api/stream`: the driver between a page's socket, its machine and the hub.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use bus::id::{NodeId, ResourceId};
use bus::payload::{Ack, AckStatus};
use bus::time::{now, sleep_until};
use bus::topic::{Base, Topic};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::client::{Allowance, Client, Keepalive, Silence};
use crate::commands::{Request, own_ack};
use crate::hub::{Hub, Seat, text};
use crate::message::{ClientMessage, ServerMessage};
use crate::metrics::Sent;
use crate::socket::{Closing, Incoming, Lost, close, incoming, send};

type Answer = Pin<Box<dyn Future<Output = ServerMessage> + Send>>;

/// Why a page's connection ended.
enum End {
    /// It is gone already.
    Gone,
    /// To be closed.
    Close(Closing),
}

impl From<Lost> for End {
    fn from(Lost: Lost) -> Self {
        Self::Gone
    }
}

struct Page {
    socket: WebSocket,
    hub: Arc<Hub>,
    seat: Seat,
    client: Client,
    keepalive: Keepalive,
    allowance: Allowance,
    answers: FuturesUnordered<Answer>,
}

/// Serves one page until it leaves or the gateway stops.
pub(crate) async fn run(socket: WebSocket, hub: Arc<Hub>, seat: Seat, stop: CancellationToken) {
    let start = now().mono;
    let mut page = Page {
        socket,
        hub,
        seat,
        client: Client::new(start),
        keepalive: Keepalive::new(start),
        allowance: Allowance::new(start),
        answers: FuturesUnordered::new(),
    };
    let End::Close(closing) = page.serve(stop).await else {
        return;
    };
    if let Some(refusal) = closing.refusal {
        page.hub.metrics.refused(refusal);
        tracing::debug!(?refusal, "a page was closed");
    }
    close(page.socket, closing).await;
}

impl Page {
    async fn serve(&mut self, stop: CancellationToken) -> End {
        match self.talk(stop).await {
            Ok(closing) => End::Close(closing),
            Err(end) => end,
        }
    }

    async fn talk(&mut self, stop: CancellationToken) -> Result<Closing, End> {
        let mut changes = self.hub.changes();
        let hello = text(&self.hub.hello());
        self.send(hello).await?;
        loop {
            let rev = *changes.borrow_and_update();
            if let Some(frame) = self.hub.frame(&mut self.client, now()) {
                self.send(frame).await?;
            }
            let is_behind = self.client.is_behind(rev);
            let frame_at = self.client.poll_timeout(rev);
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.last_answers().await?;
                    return Ok(Closing::STOPPING);
                }
                received = self.socket.recv() => self.received(incoming(received))?,
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => {
                    self.hub.metrics.sent(Sent::Ack, 1);
                    self.send(text(&answer)).await?;
                }
                // A page that is behind anyway waits for its next frame, not for more changes.
                changed = changes.changed(), if !is_behind => {
                    if changed.is_err() {
                        return Ok(Closing::STOPPING);
                    }
                }
                () = sleep_until(frame_at) => {}
                () = sleep_until(Some(self.keepalive.poll_timeout())) => {
                    match self.keepalive.handle_timeout(now().mono) {
                        Some(Silence::Ping) => {
                            send(&mut self.socket, Message::Ping(bytes::Bytes::new())).await?;
                        }
                        Some(Silence::Gone) => return Ok(Closing::SILENT),
                        None => {}
                    }
                }
            }
        }
    }

    async fn send(&mut self, text: Utf8Bytes) -> Result<(), Lost> {
        send(&mut self.socket, Message::Text(text)).await
    }

    /// The answers to all that was asked; the hub has given them when it is stopped.
    async fn last_answers(&mut self) -> Result<(), Lost> {
        while let Some(answer) = self.answers.next().await {
            self.send(text(&answer)).await?;
        }
        Ok(())
    }

    fn received(&mut self, incoming: Incoming) -> Result<(), End> {
        self.keepalive.handle_message();
        if !self.allowance.admit(now().mono) {
            return Err(End::Close(Closing::RATE));
        }
        match incoming {
            Incoming::Alive => Ok(()),
            Incoming::Closed => Err(End::Gone),
            Incoming::Refuse(closing) => Err(End::Close(closing)),
            Incoming::Text(text) => match serde_json::from_str(&text) {
                Ok(message) => {
                    self.handle(message);
                    Ok(())
                }
                Err(_) => Err(End::Close(Closing::MALFORMED)),
            },
        }
    }

    fn handle(&mut self, message: ClientMessage) {
        let (request, asked) = match message {
            ClientMessage::Resume { stream, rev } => {
                self.hub.resume(&mut self.client, stream.as_deref(), rev);
                return;
            }
            ClientMessage::Set {
                request,
                node,
                resource,
                value,
            } => {
                let target = target(&node, &resource);
                (
                    request,
                    target.map(|(n, r)| Request::Set(n, r, value)).ok_or("set"),
                )
            }
            ClientMessage::Get {
                request,
                node,
                resource,
            } => {
                let target = target(&node, &resource);
                (
                    request,
                    target.map(|(n, r)| Request::Get(n, r)).ok_or("get"),
                )
            }
            ClientMessage::Command { request, node, op } => {
                // The topic tree alone knows which operations there are.
                let base = Base::default();
                let asked = match base.parse(&base.join(&format!("nodes/{node}/cmd/{op}"))) {
                    Some(Topic::Command(node, command)) => Ok(Request::Command(node, command)),
                    _ => Err("command"),
                };
                (request, asked)
            }
        };
        self.answers.push(match asked {
            Ok(asked) => {
                let op = asked.op();
                let answer = self.hub.request(self.seat.id, &asked, now());
                Box::pin(async move {
                    let lost = || own_ack(op, AckStatus::Error, "the gateway lost the request");
                    reply(request, answer.await.unwrap_or_else(|_| lost()))
                })
            }
            Err(op) => {
                let words = "there is no such node, resource or command";
                let ack = own_ack(op, AckStatus::Rejected, words);
                Box::pin(std::future::ready(reply(request, ack)))
            }
        });
    }
}

fn target(node: &str, resource: &str) -> Option<(NodeId, ResourceId)> {
    Some((NodeId::new(node).ok()?, ResourceId::new(resource).ok()?))
}

fn reply(request: String, ack: Ack) -> ServerMessage {
    ServerMessage::Ack { request, ack }
}
