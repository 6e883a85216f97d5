//! The bridge over real UDP, without a bus.

use std::time::Duration;

use bus::bridge::{Order, Report};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::endpoint::{Code, Endpoint, Event, Limits, Method, Request, Response};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    address: SocketAddr,
    reports: mpsc::Receiver<Report>,
    orders: mpsc::Sender<Order>,
    shutdown: Shutdown,
    admin: Admin,
}

impl Bench {
    fn new(listen_at: &str) -> Self {
        let (ends, (reports, orders)) = runtime::detached();
        let config = Config {
            listen: listen_at.parse().unwrap(),
            ..Config::default()
        };
        let (admin, shutdown) = (Admin::default(), Shutdown::new());
        let started = Doors::open(&config).unwrap().serve(ends, &admin, &shutdown);
        Self {
            address: started.address,
            reports,
            orders,
            shutdown,
            admin,
        }
    }

    /// Waits for a report that `wanted` likes, and gives what it makes of it.
    async fn report<T>(&mut self, mut wanted: impl FnMut(&Report) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                let report = self.reports.recv().await.expect("the driver has ended");
                if let Some(found) = wanted(&report) {
                    return found;
                }
            }
        });
        found.await.expect("no such report came")
    }

    async fn reading(&mut self, resource: &str) -> Value {
        self.report(|report| match report {
            Report::Reading { path, sample, .. } if path == resource => Some(sample.v.clone()),
            _ => None,
        })
        .await
    }
}

/// A node as a firmware would be: a LED and a name, behind its own socket.
async fn serve_node(socket: UdpSocket, bridge: SocketAddr, uid: &str) {
    let mut endpoint = Endpoint::new(Limits::default(), StdRng::seed_from_u64(1));
    let alive = Request::new(Method::Post, "alive").with_payload(format!("alive:{uid}"));
    endpoint.tell(bridge, alive.non_confirmable(), now().mono);
    let mut led = "0".to_owned();
    let mut buffer = [0; 2048];
    loop {
        while let Some(event) = endpoint.poll_event() {
            let Event::Request {
                exchange, request, ..
            } = event
            else {
                continue;
            };
            let response = match (request.method, request.path().as_deref()) {
                (Method::Get, Some(".well-known/core")) => Response::content(40, "</led>,</name>"),
                (Method::Get, Some("led")) => Response::content(0, led.clone()),
                (Method::Get, Some("name")) => Response::content(0, "node\0\0"),
                (Method::Put, Some("led")) => {
                    led = String::from_utf8_lossy(&request.payload).into_owned();
                    Response::new(Code::CHANGED)
                }
                _ => Response::new(Code::NOT_FOUND),
            };
            endpoint.respond(exchange, response, now().mono);
        }
        while let Some(transmit) = endpoint.poll_transmit() {
            socket
                .send_to(&transmit.bytes, transmit.to.address())
                .await
                .unwrap();
        }
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        endpoint.handle_datagram(from, &buffer[..len], now().mono);
    }
}

#[tokio::test]
async fn a_node_is_discovered_read_and_written() {
    let mut bench = Bench::new("127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let bridge = bench.address;
    bench
        .shutdown
        .spawn(async move { serve_node(socket, bridge, "n1").await });
    assert_eq!(bench.reading("led").await, json!(0));
    assert_eq!(bench.reading("name").await, json!("node"));
}

#[tokio::test]
async fn ipv4_and_ipv6_nodes_share_the_socket_and_floods_of_rubbish_change_nothing() {
    let mut bench = Bench::new("[::]:0");
    let port = bench.address.port();
    for (host, uid) in [("127.0.0.1", "four"), ("::1", "six")] {
        let socket = UdpSocket::bind((host, 0)).await.unwrap();
        for rubbish in [&b""[..], b"\x00", b"\xff\xff\xff\xff\xff", &[0x40; 3000]] {
            socket.send_to(rubbish, (host, port)).await.unwrap();
        }
        let datagram = [b"\x41\x02\x00\x01\x07\xb5alive\xffalive:", uid.as_bytes()].concat();
        socket.send_to(&datagram, (host, port)).await.unwrap();
        let mut buffer = [0; 100];
        let answer = timeout(PATIENCE, async {
            loop {
                let len = socket.recv(&mut buffer).await.unwrap();
                // Not the resets of the rubbish, nor the question for resources.
                if buffer[1] == Code::CHANGED.byte() {
                    return buffer[..len].to_vec();
                }
            }
        });
        let expected = [
            b"\x61\x44\x00\x01\x07\xffReceived 'alive:",
            uid.as_bytes(),
            b"'",
        ]
        .concat();
        assert_eq!(answer.await.unwrap(), expected);
        let announced = bench
            .report(|report| match report {
                Report::Announce { uid, .. } => Some(uid.to_string()),
                _ => None,
            })
            .await;
        assert_eq!(announced, uid);
    }
    assert!(bench.admin.metrics().contains("malformed"));
}

#[tokio::test]
async fn the_stop_answers_what_has_come_and_drops_the_reporter() {
    let mut bench = Bench::new("127.0.0.1:0");
    bench.shutdown.stop();
    assert!(bench.shutdown.drained(PATIENCE).await);
    assert_eq!(bench.reports.recv().await, None);
    assert!(bench.orders.is_closed());
}
