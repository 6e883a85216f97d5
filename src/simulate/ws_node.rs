//! One simulated WebSocket node: connects, tells its values, takes writes, and comes back when the
//! connection ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bus::shutdown::Shutdown;
use bus::time::{now, sleep_until};
use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use rand::rngs::SmallRng;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::model::{Device, Firmware};
use super::pace::Pace;
use super::stats::{Stats, count};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts at first, and at the most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a bridge may send.
#[derive(Deserialize)]
#[serde(untagged)]
enum Order {
    Discover { request: String },
    Write { endpoint: String, payload: Value },
}

/// A node and its way to the server.
pub(crate) struct Node {
    pub(crate) device: Device,
    pub(crate) url: Arc<str>,
    pub(crate) pace: Pace,
    pub(crate) stats: Arc<Stats>,
    pub(crate) rng: SmallRng,
}

impl Node {
    /// Runs until the stop.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut backoff = BACKOFF.0;
        while !shutdown.is_stopping() {
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect_async(&*self.url));
            let connected = tokio::select! {
                () = shutdown.stopping() => return,
                connected = connecting => connected,
            };
            match connected {
                Ok(Ok((socket, _))) => {
                    let since = now().mono;
                    self.stats.connected.fetch_add(1, Ordering::Relaxed);
                    let ended = self.serve(socket, &shutdown).await;
                    self.stats.connected.fetch_sub(1, Ordering::Relaxed);
                    // A server that takes connections only to end them is given time, too.
                    if now().mono.duration_since(since) >= BACKOFF.1 {
                        backoff = BACKOFF.0;
                    }
                    if let Err(why) = ended {
                        self.stats
                            .error(format!("{} ended the connection: {why}", self.url));
                    }
                }
                Ok(Err(error)) => self.stats.error(failed(&self.url, &error)),
                Err(_) => {
                    let why = format!("{} did not answer within {CONNECT_TIMEOUT:?}", self.url);
                    self.stats.error(why);
                }
            }
            // Full jitter: a fleet that lost its server does not come back in one burst.
            let wait = backoff.mul_f64(self.rng.random_range(0.1..1.0));
            backoff = (backoff * 2).min(BACKOFF.1);
            tokio::select! {
                () = shutdown.stopping() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Serves one connection; gives why it ended unless that was the stop.
    async fn serve(&mut self, mut socket: Socket, shutdown: &Shutdown) -> Result<(), String> {
        if self.device.firmware() == Firmware::New {
            let hello = json!({"type": "hello", "uid": self.device.uid()});
            send(&mut socket, &hello).await?;
        }
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => {
                    // The server may be gone already.
                    socket.close(None).await.ok();
                    return Ok(());
                }
                message = socket.next() => {
                    let text = match message {
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Close(frame))) => return Err(goodbye(frame)),
                        Some(Ok(_)) => continue,
                        Some(Err(error)) => return Err(error.to_string()),
                        None => return Err("it was cut".to_owned()),
                    };
                    if let Some(update) = self.answer(&text) {
                        send(&mut socket, &update).await?;
                    }
                }
                () = sleep_until(self.pace.next()) => {
                    let now = now();
                    if self.pace.take(now.mono) {
                        self.device.advance(now.wall);
                        let (path, _) = self.device.next_push();
                        send(&mut socket, &self.update([path])).await?;
                        count(&self.stats.pushes);
                    }
                }
            }
        }
    }

    /// Carries out what the server sent and gives the answer, if it understood.
    fn answer(&mut self, text: &str) -> Option<Value> {
        self.device.advance(now().wall);
        match serde_json::from_str(text) {
            Ok(Order::Discover { request }) if request == "discover" => {
                count(&self.stats.reads);
                Some(self.update(self.device.paths()))
            }
            Ok(Order::Write { endpoint, payload }) => {
                let text = match payload {
                    Value::String(text) => text,
                    Value::Bool(on) => u8::from(on).to_string(),
                    other => other.to_string(),
                };
                // Refused or not, the node tells what it holds: that is all the protocol has.
                if self.device.write(&endpoint, &text).is_ok() {
                    count(&self.stats.writes);
                } else {
                    self.stats
                        .error(format!("a write of {endpoint} that no node takes"));
                }
                let paths = self.device.paths();
                let path = paths.into_iter().find(|path| *path == endpoint)?;
                Some(self.update([path]))
            }
            Ok(Order::Discover { .. }) | Err(_) => {
                self.stats.error("a message that no node understands");
                None
            }
        }
    }

    fn update(&self, paths: impl IntoIterator<Item = &'static str>) -> Value {
        let values = paths
            .into_iter()
            .filter_map(|path| Some((path.to_owned(), self.device.read_json(path)?)));
        json!({"type": "update", "data": values.collect::<Map<_, _>>()})
    }
}

async fn send(socket: &mut Socket, message: &Value) -> Result<(), String> {
    let sent = socket.send(Message::text(message.to_string())).await;
    sent.map_err(|error| error.to_string())
}

fn goodbye(frame: Option<tokio_tungstenite::tungstenite::protocol::CloseFrame>) -> String {
    match frame {
        Some(frame) => format!("{} ({})", frame.reason, u16::from(frame.code)),
        None => "without a reason".to_owned(),
    }
}

fn failed(url: &str, error: &Error) -> String {
    let remedy = match error {
        Error::Io(_) => ": does a WebSocket bridge run there?",
        Error::Http(_) => ": is that the address of a WebSocket bridge, with /node?",
        _ => "",
    };
    format!("{url} can't be reached ({error}){remedy}")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bus::shutdown::GRACE;
    use rand::SeedableRng;
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_async;

    use super::*;

    fn node() -> Node {
        let now = now();
        let mut rng = SmallRng::seed_from_u64(1);
        Node {
            device: Device::ws(0, 1, Firmware::New, now.wall),
            url: Arc::from("ws://localhost/node"),
            pace: Pace::new(1.0, now.mono, &mut rng),
            stats: Arc::default(),
            rng,
        }
    }

    #[test]
    fn a_discover_is_answered_with_everything() {
        let mut node = node();
        let update = node.answer(r#"{"request":"discover"}"#).unwrap();
        assert_eq!(update["type"], "update");
        assert_eq!(update["data"]["led"], 0);
        assert_eq!(update["data"]["os"], "micropython");
        assert!(update["data"]["position"]["lat"].is_number());
    }

    #[test]
    fn a_write_is_answered_with_what_the_node_holds() {
        let mut node = node();
        for (payload, holds) in [("1", 1), ("\"0\"", 0), ("true", 1), ("7", 1)] {
            let write = format!(r#"{{"endpoint":"led","payload":{payload}}}"#);
            let update = node.answer(&write).unwrap();
            assert_eq!(update, json!({"type": "update", "data": {"led": holds}}));
        }
        assert!(
            node.answer(r#"{"endpoint":"nothing","payload":1}"#)
                .is_none()
        );
        assert!(node.answer("rubbish").is_none());
    }

    /// The next message of a node on a connection that a test's server took.
    async fn hears(socket: &mut WebSocketStream<TcpStream>) -> Value {
        let message = tokio::time::timeout(CONNECT_TIMEOUT, socket.next()).await;
        let message = message.unwrap().unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_node_says_who_it_is_and_comes_back_under_the_same_name() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut node = node();
        node.url = Arc::from(format!("ws://{}/node", listener.local_addr().unwrap()));
        node.pace = Pace::new(0.0, now().mono, &mut node.rng);
        let hello = json!({"type": "hello", "uid": node.device.uid()});
        let stats = node.stats.clone();
        let shutdown = Shutdown::new();
        shutdown.spawn(node.run(shutdown.clone()));
        for led in [1, 0] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = accept_async(stream).await.unwrap();
            assert_eq!(hears(&mut socket).await, hello);
            let write = json!({"endpoint": "led", "payload": led});
            socket.send(Message::text(write.to_string())).await.unwrap();
            assert_eq!(hears(&mut socket).await["data"]["led"], led);
            // The connection is cut, as by a restart of the server.
        }
        assert_eq!(stats.writes.load(Ordering::Relaxed), 2);
        shutdown.stop();
        assert!(shutdown.drained(GRACE).await);
    }
}
