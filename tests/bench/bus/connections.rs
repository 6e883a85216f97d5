//! How fast clients come, and what each holds while it is quiet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use bus::time::now;
use tokio::task::JoinSet;

use super::client::{Client, Dialer};
use super::{BOTH, Setting, Software, Who};
use crate::Args;
use crate::report::{median, number, table};

/// Clients that connect at a time.
const AT_A_TIME: usize = 64;
/// Clients of one measurement of their rate.
const STORM: usize = 3000;
/// Until a broker has done what it does after a connection began.
const SETTLE: Duration = Duration::from_secs(2);

/// Connects so many clients; each subscribes to a filter of its own if asked to.
async fn crowd(dialer: &Dialer, count: usize, subscribes: bool) -> anyhow::Result<Vec<Client>> {
    let (next, mut workers) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..AT_A_TIME {
        let (next, dialer) = (next.clone(), dialer.clone());
        workers.spawn(async move {
            let mut clients = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(clients);
                }
                let mut client = dialer.client(&format!("n{number}")).await?;
                if subscribes {
                    let filter = format!("nodebus/v1/nodes/n{number}/res/+/set");
                    client.subscribe(&filter, 1).await?;
                }
                clients.push(client);
            }
        });
    }
    let mut clients = Vec::with_capacity(count);
    while let Some(joined) = workers.join_next().await {
        clients.extend(joined?.context("a client could not connect")?);
    }
    Ok(clients)
}

/// The three ways to connect.
#[derive(Debug, Clone, Copy)]
enum How {
    Plain,
    Full,
    Resumed,
}

/// Connections a second, and the broker's CPU time for each in microseconds.
async fn storm(setting: &mut Setting, software: Software, how: How) -> anyhow::Result<(f64, f64)> {
    let broker = setting.start(software)?;
    let with_tls = !matches!(how, How::Plain);
    let mut dialer = setting.dialer(&broker, Who::Bridge, with_tls)?;
    if let How::Resumed = how {
        dialer.tls = Some(setting.connector(Who::Bridge, true)?);
        drop(crowd(&dialer, AT_A_TIME, false).await?);
    }
    let (from, before) = (now().mono, broker.program.cpu()?);
    let clients = crowd(&dialer, STORM, false).await?;
    let (to, after) = (now().mono, broker.program.cpu()?);
    let count = clients.len() as f64;
    drop(clients);
    broker.program.stop()?;
    Ok((
        count / (to - from).as_secs_f64(),
        (after - before) * 1e6 / count,
    ))
}

/// Resident memory of each idle connection, KiB.
async fn idle(
    setting: &mut Setting,
    software: Software,
    count: usize,
    (with_tls, subscribes): (bool, bool),
) -> anyhow::Result<f64> {
    let broker = setting.start(software)?;
    // The bridge may subscribe to commands, whatever the node.
    let dialer = setting.dialer(&broker, Who::Bridge, with_tls)?;
    let before = broker.program.resident()?;
    let clients = crowd(&dialer, count, subscribes).await?;
    tokio::time::sleep(SETTLE).await;
    let after = broker.program.resident()?;
    drop(clients);
    broker.program.stop()?;
    Ok((after - before) / count as f64)
}

/// Measures both and prints them.
pub(crate) fn connections(setting: &mut Setting, args: &Args) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().build().context("no runtime")?;
    let mut rows = Vec::new();
    let ways = [
        ("plain", How::Plain),
        ("mTLS, full handshake", How::Full),
        ("mTLS, session resumed", How::Resumed),
    ];
    for (name, how) in ways {
        let mut found: [Vec<(f64, f64)>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..args.pairs {
            for (software, found) in BOTH.into_iter().zip(&mut found) {
                found.push(runtime.block_on(storm(setting, software, how))?);
            }
        }
        let [ours, theirs] = found;
        let pairs = ours.iter().zip(&theirs);
        let ratio = median(pairs.map(|(ours, theirs)| ours.0 / theirs.0).collect());
        let rate = |found: &[(f64, f64)]| median(found.iter().map(|found| found.0).collect());
        let cpu = |found: &[(f64, f64)]| median(found.iter().map(|found| found.1).collect());
        rows.push(vec![
            name.to_owned(),
            number(rate(&ours)),
            number(rate(&theirs)),
            number(ratio),
            number(cpu(&ours)),
            number(cpu(&theirs)),
        ]);
    }
    let title = format!("Clients connected a second, {STORM} of them, {AT_A_TIME} at a time");
    let headings = [
        "clients",
        "nodebus/s",
        "mosquitto/s",
        "ratio",
        "CPU µs each",
        "mosquitto",
    ];
    table(&title, &headings, &rows);

    let mut rows = Vec::new();
    let ways = [
        ("plain", (false, false)),
        ("plain, one subscription", (false, true)),
        ("mTLS", (true, false)),
        ("mTLS, one subscription", (true, true)),
    ];
    for (name, how) in ways {
        let mut row = vec![name.to_owned()];
        for software in BOTH {
            let kib = runtime.block_on(idle(setting, software, args.connections, how))?;
            row.push(number(kib));
        }
        rows.push(row);
    }
    let title = format!(
        "Resident memory of {} idle connections, KiB each",
        args.connections
    );
    table(&title, &["connections", "nodebus", "mosquitto"], &rows);
    Ok(())
}
