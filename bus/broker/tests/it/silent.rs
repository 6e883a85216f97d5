//! Those who open a connection and say nothing, or half a word.

use std::net::SocketAddr;

use bus_broker::Role;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::passwords::{File, with_passwords};
use crate::support::{DEADLINE, Options, TestBroker, authority, start};

const CONNECTIONS: &str = "bus_broker_connections";

/// A client at each listener connects, is answered and leaves.
async fn come_and_go(broker: &TestBroker) {
    broker.role(Role::Admin, "me").await.ping().await;
    broker.login("ann", "ann", "secret").await.ping().await;
    broker.lives().await;
    let mut plain = broker.ws().await;
    plain.connect(5, "ws", &Options::default()).await;
    let mut secure = broker.wss(Some("urn:nodebus:viewer:me")).await.unwrap();
    secure.connect(5, "me:wss", &Options::default()).await;
}

#[tokio::test]
async fn silent_connections_delay_nobody() {
    let any: Option<SocketAddr> = Some("127.0.0.1:0".parse().unwrap());
    let file = File::new();
    file.add(certs::Role::Viewer, "ann", "secret");
    let broker = start(Role::Admin, authority(), None, |config| {
        with_passwords(config, &file.path());
        (config.ws_listen, config.wss_listen) = (any, any);
        // Fewer than they are.
        config.limits.handshakes = 10;
    })
    .await;
    let started = broker.started;
    let listeners = [
        Some(started.mqtts),
        started.password,
        started.wss,
        started.mqtt,
        started.ws,
    ];
    let mut silent = Vec::new();
    for listener in listeners.into_iter().flatten() {
        silent.clear();
        broker.metric_sinks(CONNECTIONS, 50.0).await;
        for i in 0..500 {
            let mut stream = TcpStream::connect(listener).await.unwrap();
            // The first byte of a ClientHello, a CONNECT or a request.
            if i % 2 == 1 {
                let first = match listener {
                    plain if Some(plain) == started.mqtt => b"\x10",
                    ws if Some(ws) == started.ws => b"G",
                    _ => b"\x16",
                };
                stream.write_all(first).await.unwrap();
            }
            silent.push(stream);
        }
        broker.metric_reaches(CONNECTIONS, "", 500.0).await;
        // While all of them are open, others come and go.
        come_and_go(&broker).await;
        assert!(broker.metric(CONNECTIONS, "") >= 500.0);
    }
    // They are closed when their time for a CONNECT is over.
    let closed = async {
        for stream in silent {
            stream.readable().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.unwrap();
}
