//! What retained messages hold, and how long a broker needs to have them again after a restart.

use std::time::Duration;

use anyhow::ensure;
use bus::time::now;

use super::client::{self, Client};
use super::{BOTH, Setting, Software, Who, on_one_thread};
use crate::Args;
use crate::report::{number, table};

/// Bytes of each payload.
const PAYLOAD: usize = 200;
/// Messages that are not acknowledged, at most.
const WINDOW: usize = 10_000;
/// Until a broker has written what it writes.
const SETTLE: Duration = Duration::from_secs(2);

async fn fill(client: &mut Client, count: usize) -> anyhow::Result<()> {
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < count {
        let mut batch = Vec::new();
        while sent < count && sent - acknowledged < WINDOW {
            let topic = format!("nodebus/v1/nodes/n{}/res/r{}", sent / 50, sent % 50);
            let at = batch.len() + 3 + 2 + topic.len();
            batch.extend(client::publish(&topic, &[b'x'; PAYLOAD], 1, true));
            let id = u16::try_from(sent % 60_000)? + 1;
            batch[at..at + 2].copy_from_slice(&id.to_be_bytes());
            sent += 1;
        }
        if !batch.is_empty() {
            client.send(&batch).await?;
        }
        let acks = |first, _: &[u8]| acknowledged += usize::from(first == client::PUBACK);
        client.read(acks).await?;
    }
    Ok(())
}

/// Counts the retained messages that a subscriber gets.
async fn count(client: &mut Client, expected: usize) -> anyhow::Result<()> {
    client.subscribe("nodebus/v1/nodes/#", 0).await?;
    let mut got = 0;
    while got < expected {
        let publishes = |first, _: &[u8]| got += usize::from(first & 0xf0 == client::PUBLISH);
        let read = tokio::time::timeout(Duration::from_secs(20), client.read(publishes));
        ensure!(
            read.await.is_ok_and(|read| read.is_ok()),
            "{got} of {expected} came back"
        );
    }
    Ok(())
}

/// What one broker needs.
struct Needs {
    empty: f64,
    filled: f64,
    restarted: f64,
    seconds: f64,
}

async fn measure(
    setting: &mut Setting,
    software: Software,
    messages: usize,
) -> anyhow::Result<Needs> {
    let broker = setting.start(software)?;
    let empty = broker.program.resident()?;
    let dialer = setting.dialer(&broker, Who::Bridge, false)?;
    fill(&mut dialer.client("fill").await?, messages).await?;
    tokio::time::sleep(SETTLE).await;
    let filled = broker.program.resident()?;
    broker.program.stop()?;

    let from = now().mono;
    let broker = setting.start_on(software, broker.data)?;
    let dialer = setting.dialer(&broker, Who::Bridge, false)?;
    let mut client = dialer.client("count").await?;
    let seconds = (now().mono - from).as_secs_f64();
    let restarted = broker.program.resident()?;
    count(&mut client, messages).await?;
    broker.program.stop()?;
    Ok(Needs {
        empty,
        filled,
        restarted,
        seconds,
    })
}

/// Measures both brokers and prints it.
pub(crate) fn retained(setting: &mut Setting, args: &Args) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for software in BOTH {
        let needs = on_one_thread(measure(setting, software, args.retained))?;
        let mib = |kib: f64| number(kib / 1024.0);
        rows.push(vec![
            format!("{software:?}").to_lowercase(),
            mib(needs.empty),
            mib(needs.filled),
            mib(needs.restarted),
            number(needs.seconds),
        ]);
    }
    let title = format!(
        "{} retained messages of {PAYLOAD} B: resident memory in all, MiB, and seconds from the start \
         to the first CONNACK",
        args.retained
    );
    let headings = ["broker", "empty", "filled", "after restart", "restart s"];
    table(&title, &headings, &rows);
    Ok(())
}
