//! SIGTERM: everybody is told, what was promised is on disk, and the process has gone in time.

use std::sync::Arc;
use std::time::Duration;

use bus::shutdown::GRACE;
use rcgen::ExtendedKeyUsagePurpose;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::process::Process;
use crate::support::{DEADLINE, Options, Raw, TlsClient, certificate, client_config};

/// Clients that connect at a time.
const AT_A_TIME: usize = 32;

async fn crowd(process: &Process, count: usize) -> Vec<Raw<TlsClient>> {
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let uri = Some("urn:nodebus:admin:crowd");
    let identity = certificate(&process.authority, uri, usage, |_| {});
    let config = Arc::new(client_config(&process.authority, Some(identity)));
    let address = process.mqtts;
    let mut coming = JoinSet::new();
    for first in 0..AT_A_TIME.min(count) {
        let config = config.clone();
        coming.spawn(async move {
            let mut clients = Vec::new();
            for number in (first..count).step_by(AT_A_TIME) {
                let connector = TlsConnector::from(config.clone());
                let stream = TcpStream::connect(address).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let mut client = Raw::new(connector.connect(name, stream).await.unwrap());
                let id = format!("crowd:{number}");
                client.connect(5, &id, &Options::default()).await;
                client.subscribe(5, 1, "a/#", 1).await;
                clients.push(client);
            }
            clients
        });
    }
    coming.join_all().await.into_iter().flatten().collect()
}

/// Gives how long the process took to leave.
async fn stop(count: usize) -> Duration {
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::start(data.path()).await;
    let mut clients = crowd(&process, count).await;
    let (mut publisher, _) = process.client("p", false).await;
    publisher.publish(4, "last", b"word", 1, 1, true).await;
    assert_eq!(publisher.packet().await.0, 0x40);

    let started = bus::time::now().mono;
    process.signal("-TERM");
    let mut told = JoinSet::new();
    for mut client in clients.drain(..) {
        told.spawn(async move { client.closed().await });
    }
    let status = process.ended().await;
    let took = bus::time::now().mono.duration_since(started);
    assert!(status.success(), "{status}");
    let told = tokio::time::timeout(DEADLINE, told.join_all())
        .await
        .unwrap();
    let goodbyes = told.iter().filter(|reason| **reason == Some(0x8b)).count();
    assert_eq!(
        goodbyes, count,
        "not all are told that the server shuts down"
    );

    let process = Process::start(data.path()).await;
    let (mut reader, _) = process.client("r", false).await;
    reader.subscribe(4, 1, "last", 0).await;
    assert_eq!(reader.message().await.payload, b"word");
    took
}

#[tokio::test]
async fn a_stop_tells_all_clients_and_keeps_what_was_promised() {
    stop(100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "for a release build: make soak"]
async fn a_stop_with_5_000_clients_is_over_in_time() {
    let took = stop(5_000).await;
    println!("5,000 clients told and the process gone after {took:?}");
    assert!(took < GRACE);
}
