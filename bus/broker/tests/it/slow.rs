//! A client that does not read costs its queue, and nobody else's time.

use crate::process::Process;
use crate::support::publish;

/// Far more than what one session may hold.
const FLOOD: usize = 2_000;
const PAYLOAD: usize = 100_000;
/// Output and sockets beside the queue, and what the allocator keeps.
const SLACK: u64 = 32 * 1024 * 1024;

#[tokio::test]
async fn a_client_that_does_not_read_costs_its_queue_and_slows_nobody() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    let queue = bus_broker::Limits::default().queue_bytes as u64;
    let (mut fast, _) = process.client("fast", false).await;
    fast.subscribe(4, 1, "flood", 0).await;
    let (mut publisher, _) = process.client("p", false).await;
    let packet = publish(4, "flood", &[7; PAYLOAD], 0, 0, false, &[]);
    // Once without it, so that what all this costs anyway is known.
    for _ in 0..100 {
        publisher.send(&packet).await;
        assert_eq!(fast.message().await.payload.len(), PAYLOAD);
    }
    let before = process.memory();
    let (mut deaf, _) = process.client("deaf", false).await;
    deaf.subscribe(4, 1, "flood", 0).await;
    let mut most = 0;
    for i in 0..FLOOD {
        publisher.send(&packet).await;
        // Every one comes, and the next one is not sent before that.
        assert_eq!(fast.message().await.payload.len(), PAYLOAD);
        if i % 100 == 0 {
            most = most.max(process.memory());
        }
    }
    let grown = most.saturating_sub(before);
    assert!(grown < queue + SLACK, "it costs {grown} bytes");
    let dropped = process.metric("bus_broker_dropped_messages_total", "queue_full");
    assert!(dropped.await > 1_000.0);
    // It is still there, and gets what its queue held.
    for _ in 0..100 {
        assert_eq!(deaf.message().await.payload.len(), PAYLOAD);
    }
    assert_eq!(fast.ping().await, []);
}
