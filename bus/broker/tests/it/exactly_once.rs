//! QoS 2 over the death of the process: what was begun is completed, and nothing comes twice.

use tokio::net::TcpStream;

use crate::process::Process;
use crate::support::Raw;

async fn with_pid(client: &mut Raw<TcpStream>, kind: u8, pid: u16) {
    let [high, low] = pid.to_be_bytes();
    client.send(&[kind, 2, high, low]).await;
}

fn acknowledges(packet: &(u8, Vec<u8>), kind: u8, pid: u16) -> bool {
    *packet == (kind, pid.to_be_bytes().to_vec())
}

#[tokio::test]
async fn what_a_client_sends_is_delivered_once() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    let (mut subscriber, _) = process.client("s", true).await;
    subscriber.subscribe(4, 1, "a", 2).await;
    let (mut publisher, _) = process.client("p", true).await;
    publisher.publish(4, "a", b"one", 2, 1, false).await;
    assert!(acknowledges(&publisher.packet().await, 0x50, 1));
    // Another one is released, and its identifier free again.
    publisher.publish(4, "a", b"two", 2, 2, false).await;
    assert!(acknowledges(&publisher.packet().await, 0x50, 2));
    with_pid(&mut publisher, 0x62, 2).await;
    assert!(acknowledges(&publisher.packet().await, 0x70, 2));
    drop(process);

    let process = Process::start(data.path()).await;
    let (mut publisher, is_present) = process.client("p", true).await;
    assert!(is_present);
    publisher.publish(4, "a", b"one", 2, 1, false).await;
    assert!(acknowledges(&publisher.packet().await, 0x50, 1));
    publisher.publish(4, "a", b"three", 2, 2, false).await;
    assert!(acknowledges(&publisher.packet().await, 0x50, 2));
    for pid in [1, 2] {
        with_pid(&mut publisher, 0x62, pid).await;
        assert!(acknowledges(&publisher.packet().await, 0x70, pid));
    }
    let (mut subscriber, _) = process.client("s", true).await;
    for payload in [&b"one"[..], b"two", b"three"] {
        assert_eq!(subscriber.message().await.payload, payload);
    }
    assert_eq!(subscriber.ping().await, []);
}

#[tokio::test]
async fn what_a_client_gets_goes_on_where_it_was() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    let (mut subscriber, _) = process.client("s", true).await;
    subscriber.subscribe(4, 1, "a", 2).await;
    let (mut publisher, _) = process.client("p", false).await;
    for pid in 1..=3 {
        publisher
            .publish(4, "a", &[pid], 2, pid.into(), false)
            .await;
    }
    let mut pids = Vec::new();
    for _ in 0..3 {
        pids.push(subscriber.message().await.pid);
    }
    // The first is done with, the second released, the third not even that.
    for &pid in &pids[..2] {
        with_pid(&mut subscriber, 0x50, pid).await;
        assert!(acknowledges(&subscriber.packet().await, 0x62, pid));
    }
    with_pid(&mut subscriber, 0x70, pids[0]).await;
    assert_eq!(subscriber.ping().await, []);
    drop(process);

    let process = Process::start(data.path()).await;
    let (mut subscriber, is_present) = process.client("s", true).await;
    assert!(is_present);
    let mut packet = subscriber.packet().await;
    if acknowledges(&packet, 0x62, pids[0]) {
        // Its end was not on disk yet; saying it once more does no harm.
        packet = subscriber.packet().await;
    }
    assert!(acknowledges(&packet, 0x62, pids[1]), "{packet:?}");
    let third = subscriber.message().await;
    assert_eq!((third.pid, third.dup), (pids[2], true));
    assert_eq!(subscriber.ping().await, []);
}
