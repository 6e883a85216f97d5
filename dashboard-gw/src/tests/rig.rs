//! A gateway on a free port without a bus, and clients that are not ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::admin::Admin;
use bus::session::{Message as BusMessage, Publication};
use bus::shutdown::Shutdown;
use bus::time::now;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::hub::{Hub, Publish};
use crate::{Config, bind, serve};

/// Nothing here takes that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it takes too long")
}

pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) hub: Arc<Hub>,
    pub(super) shutdown: Shutdown,
    pub(super) published: mpsc::Receiver<Publication>,
    admin: Admin,
}

pub(super) async fn rig() -> Rig {
    rig_with(Config::default()).await
}

/// A gateway that is connected to a bus with one bridge and one node.
pub(super) async fn rig_with(config: Config) -> Rig {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (sender, published) = mpsc::channel(64);
    let publish: Publish = Box::new(move |publication| {
        sender.try_send(publication).unwrap();
        Ok(())
    });
    let (admin, shutdown) = (Admin::default(), Shutdown::new());
    let (address, hub) = serve(
        &config,
        config.checked().unwrap(),
        listener,
        publish,
        &admin,
        &shutdown,
    )
    .unwrap();
    let rig = Rig {
        address,
        hub,
        shutdown,
        published,
        admin,
    };
    rig.hub.handle_connected(now());
    rig.bridge("online");
    rig.node("n1");
    rig
}

impl Rig {
    pub(super) fn say(&self, topic: &str, payload: &Value) {
        let message = BusMessage {
            topic: format!("nodebus/v1/{topic}"),
            payload: payload.to_string().into(),
            retain: false,
            response_topic: None,
            correlation: None,
            expiry: None,
        };
        self.hub.handle_message(&message, now());
    }

    pub(super) fn bridge(&self, state: &str) {
        let status = json!({"state": state, "protocol": "coap", "version": "1"});
        self.say("bridges/coap/status", &status);
    }

    pub(super) fn node(&self, id: &str) {
        let descriptor = json!({
            "id": id, "uid": format!("UID-{id}"), "name": id, "protocol": "coap", "bridge": "coap",
            "address": "[fd00::1]:5683", "first_seen": now().wall,
        });
        self.say(&format!("nodes/{id}"), &descriptor);
        let status = json!({"state": "online", "reason": "alive", "last_seen": now().wall});
        self.say(&format!("nodes/{id}/status"), &status);
    }

    pub(super) fn value(&self, id: &str, resource: &str, value: &Value) {
        let reading = json!({"v": value, "ts": now().wall});
        self.say(&format!("nodes/{id}/res/{resource}"), &reading);
    }

    /// Answers a request as the bridge would.
    pub(super) fn confirm(&self, request: &Publication) {
        let asked: Value = serde_json::from_slice(&request.payload).unwrap();
        let topic = request.topic.strip_prefix("nodebus/v1/").unwrap();
        let topic = topic.strip_suffix("/set").unwrap();
        let ack = json!({"id": asked["id"], "op": "set", "status": "ok", "v": asked["v"], "ms": 7});
        self.say(&format!("{topic}/ack"), &ack);
    }

    pub(super) async fn request(&mut self) -> Publication {
        within(self.published.recv()).await.unwrap()
    }

    pub(super) fn metrics(&self) -> String {
        self.admin.metrics()
    }

    /// Whether the metrics have this line.
    pub(super) fn counts(&self, line: &str) -> bool {
        self.admin.metrics().lines().any(|found| found == line)
    }

    pub(super) async fn connect(&self, path: &str) -> Client {
        self.connect_from(path, None).await.unwrap()
    }

    pub(super) async fn connect_from(
        &self,
        path: &str,
        origin: Option<&str>,
    ) -> Result<Client, Error> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        if let Some(origin) = origin {
            request
                .headers_mut()
                .insert("origin", origin.parse().unwrap());
        }
        let (socket, _) = within(connect_async(request)).await?;
        Ok(Client(socket))
    }

    /// A page that has its snapshot.
    pub(super) async fn page(&self) -> Client {
        let mut page = self.connect("/api/stream").await;
        assert_eq!(page.read().await["type"], "hello");
        page.write(&json!({"type": "resume", "stream": null, "rev": null}))
            .await;
        assert_eq!(page.read().await["type"], "snapshot");
        page
    }

    /// The whole response to a GET.
    pub(super) async fn get(&self, path: &str, host: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        within(socket.read_to_end(&mut response)).await.unwrap();
        String::from_utf8_lossy(&response).into_owned()
    }
}

pub(super) struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub(super) async fn send(&mut self, message: Message) {
        within(self.0.send(message)).await.unwrap();
    }

    pub(super) async fn write(&mut self, message: &Value) {
        self.send(Message::text(message.to_string())).await;
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            match within(self.0.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(super) async fn read(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// Reads until a message fits.
    pub(super) async fn read_until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.read().await;
            if fits(&message) {
                return message;
            }
        }
    }

    /// Reads on until the close, and gives its code.
    pub(super) async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.next().await? {
                Message::Close(frame) => return frame.map(|frame| frame.code.into()),
                _ => continue,
            }
        }
    }
}
