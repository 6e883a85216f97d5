//! A bridge between a node's WebSocket and a registry.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bus::admin::Admin;
use bus::bridge::registry::Registry;
use bus::bridge::{Order, Report, runtime};
use bus::session::Message as BusMessage;
use bus::shutdown::Shutdown;
use bus::time::now;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::Config;
use crate::driver::detached;

pub(super) type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// A bridge with the registry behind it, and what the bus would hold.
pub(super) struct Bench {
    pub(super) address: SocketAddr,
    pub(super) shutdown: Shutdown,
    pub(super) admin: Admin,
    pub(super) registry: Registry,
    pub(super) reported: mpsc::Receiver<Report>,
    pub(super) ordered: mpsc::Sender<Order>,
    pub(super) topics: HashMap<String, Value>,
    /// Every state of every node in order, as `<node>:<state>:<reason>`.
    pub(super) states: Vec<String>,
}

pub(super) fn config() -> Config {
    Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        ..Config::default()
    }
}

impl Bench {
    pub(super) async fn start(config: Config) -> Self {
        let (ends, bus) = runtime::detached();
        let (admin, shutdown) = (Admin::default(), Shutdown::new());
        let started = detached::start(&config, ends, &admin, &shutdown).await;
        let mut registry = Registry::new(config.bridge());
        registry.handle_connected(now());
        registry.finish_restoring();
        registry.handle_caught_up(false);
        Self {
            address: started.unwrap().address,
            shutdown,
            admin,
            registry,
            reported: bus.reported,
            ordered: bus.ordered,
            topics: HashMap::new(),
            states: Vec::new(),
        }
    }

    pub(super) async fn connect(&self) -> Client {
        let url = format!("ws://{}/node", self.address);
        let connecting = tokio::time::timeout(DEADLINE, connect_async(url));
        connecting.await.unwrap().unwrap().0
    }

    /// A node that was asked for its values and gave its led.
    pub(super) async fn node(&self, uid: &str) -> Client {
        let mut node = self.connect().await;
        assert_eq!(hears(&mut node).await, json!({"request": "discover"}));
        says(&mut node, json!({"type": "hello", "uid": uid})).await;
        says(&mut node, json!({"type": "update", "data": {"led": "0"}})).await;
        node
    }

    pub(super) fn drain(&mut self) {
        while let Some(publication) = self.registry.poll_publication() {
            let topic = publication.topic.strip_prefix("nodebus/v1/").unwrap();
            let payload: Value = serde_json::from_slice(&publication.payload).unwrap_or_default();
            if let Some(node) = topic.strip_suffix("/status")
                && let Some(node) = node.strip_prefix("nodes/")
            {
                let word = |key| payload[key].as_str().unwrap_or("removed");
                let (state, reason) = (word("state"), word("reason"));
                self.states.push(format!("{node}:{state}:{reason}"));
            }
            self.topics.insert(topic.to_owned(), payload);
        }
    }

    /// Runs the registry until the bus is as wanted.
    #[track_caller]
    pub(super) fn until<'a>(
        &'a mut self,
        what: &'a str,
        wanted: impl Fn(&Self) -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let deadline = now().mono + DEADLINE;
            loop {
                self.drain();
                if wanted(self) {
                    return;
                }
                let report = tokio::time::timeout_at(deadline.into(), self.reported.recv()).await;
                let Ok(Some(report)) = report else {
                    panic!("{place}: never came: {what}; {:#?}", self.topics);
                };
                self.registry.handle_report(report, now());
            }
        }
    }

    pub(super) async fn until_value(&mut self, topic: &str, v: Value) {
        let what = format!("{topic} = {v}");
        self.until(&what, |bench| {
            bench
                .topics
                .get(topic)
                .is_some_and(|payload| payload["v"] == v)
        })
        .await;
    }

    pub(super) async fn until_state(&mut self, state: &str) {
        self.until(state, |bench| bench.states.iter().any(|s| s == state))
            .await;
    }

    /// Somebody publishes a request.
    pub(super) async fn asks(&mut self, topic: &str, payload: &str) {
        let message = BusMessage {
            topic: format!("nodebus/v1/{topic}"),
            payload: payload.to_owned().into(),
            retain: false,
            response_topic: None,
            correlation: None,
            expiry: None,
        };
        self.registry.handle_message(&message, now());
        while let Some(order) = self.registry.poll_order() {
            self.ordered.send(order).await.unwrap();
        }
    }

    pub(super) fn metric(&self, line: &str) -> bool {
        self.admin.metrics().lines().any(|l| l == line)
    }
}

pub(super) async fn says(node: &mut Client, message: Value) {
    node.send(Message::text(message.to_string())).await.unwrap();
}

pub(super) async fn next(node: &mut Client) -> Option<Result<Message, Error>> {
    tokio::time::timeout(DEADLINE, node.next())
        .await
        .expect("nothing came in time")
}

/// The next text message.
pub(super) async fn hears(node: &mut Client) -> Value {
    loop {
        match next(node).await {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("no text: {other:?}"),
        }
    }
}

/// Reads on to the close frame.
pub(super) async fn is_closed(node: &mut Client) -> (u16, String) {
    loop {
        match next(node).await {
            Some(Ok(Message::Close(Some(frame)))) => {
                return (frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}
