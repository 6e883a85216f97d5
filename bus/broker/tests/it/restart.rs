//! What outlives the process.

use std::path::Path;

use bus_broker::{Config, Role};

use crate::support::{TestBroker, authority, start};

async fn durable(data: &Path) -> TestBroker {
    let data = data.to_owned();
    let edit = |config: &mut Config| config.data = Some(data);
    start(Role::Admin, authority(), None, edit).await
}

#[tokio::test]
async fn retained_messages_and_their_removal_outlive_the_process() {
    let data = tempfile::tempdir().unwrap();
    let broker = durable(data.path()).await;
    let mut client = broker.v5("c").await;
    for pid in 1..=1000_u16 {
        let topic = format!("a/{pid}");
        client.publish(5, &topic, b"x", 1, pid, true).await;
    }
    client.publish(5, "a/1", b"", 1, 1001, true).await;
    client.publish(5, "a/2", b"new", 2, 1002, true).await;
    client.publish(5, "a/3", b"not kept", 1, 1003, false).await;
    // In order, whatever waits for the store and what does not.
    for pid in 1..=1003_u16 {
        let kind = if pid == 1002 { 0x50 } else { 0x40 };
        let (first, body) = client.packet().await;
        assert_eq!((first, &body[..2]), (kind, &pid.to_be_bytes()[..]));
        assert_eq!(body.get(2).copied().unwrap_or(0), 0);
    }
    broker.stop().await;

    let broker = durable(data.path()).await;
    let mut client = broker.v5("c").await;
    client.subscribe(5, 1, "a/#", 1).await;
    for i in 2..=1000 {
        let message = client.message().await;
        assert!(message.retain);
        if i == 1000 {
            assert_eq!(message.topic, "a/2");
            assert_eq!(message.payload, b"new");
        } else {
            assert_eq!(message.topic, format!("a/{}", i + 1));
        }
    }
    // And what is published now comes after it.
    client.publish(5, "a/2", b"newer", 1, 1, true).await;
    assert_eq!(client.message().await.payload, b"newer");
    broker.stop().await;
}

#[tokio::test]
async fn a_store_that_is_in_use_is_an_error() {
    let data = tempfile::tempdir().unwrap();
    let broker = durable(data.path()).await;
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        pki: broker.pki.path().to_owned(),
        data: Some(data.path().to_owned()),
        ..Config::default()
    };
    let (admin, shutdown) = (bus::admin::Admin::default(), bus::shutdown::Shutdown::new());
    let error = bus_broker::start(config, &admin, &shutdown).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no other nodebus"), "{error}");
    broker.stop().await;
}
