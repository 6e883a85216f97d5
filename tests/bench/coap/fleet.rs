//! Many quiet nodes: what the bridge holds for them, and what it costs to ask them all.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bus::time::now;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::Bridge;
use super::line::{self, Addresses, Came};
use crate::Args;
use crate::bus::{Setting, on_one_thread};
use crate::report::{number, table};

const ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const LIST: &str = "</a>,</b>,</c>,</d>,</e>,</f>,</g>,</h>,</i>,</j>";
const RESOURCES: u64 = 10;
/// By then each node has been asked for everything, or will not be.
const PATIENCE: Duration = Duration::from_secs(180);
const SPAN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Counts {
    reads: Cell<u64>,
    alive: Cell<u64>,
}

/// A node that says that it is alive, and answers.
async fn live(
    socket: UdpSocket,
    uid: usize,
    first: Duration,
    counts: Rc<Counts>,
) -> anyhow::Result<()> {
    tokio::time::sleep(first).await;
    let alive = format!("alive:fleet-{uid}");
    let (mut out, mut input, mut mid) = (Vec::new(), vec![0; 512], 0_u16);
    let mut beat = tokio::time::interval(ALIVE_INTERVAL);
    loop {
        tokio::select! {
            _ = beat.tick() => {
                line::request(&mut out, true, mid, mid.into(), "alive", alive.as_bytes());
                mid = mid.wrapping_add(1);
                socket.send(&out).await?;
            }
            readable = socket.readable() => readable?,
        }
        while let Ok(len) = socket.try_recv(&mut input) {
            let counter = match line::read(&input[..len], LIST) {
                Came::Question(answer) => {
                    drop(socket.try_send(&answer));
                    &counts.reads
                }
                Came::Answer { .. } => &counts.alive,
                Came::Other => continue,
            };
            counter.set(counter.get() + 1);
        }
    }
}

async fn measure(
    bridge: &Bridge,
    addresses: &mut Addresses,
    nodes: u64,
) -> anyhow::Result<Vec<String>> {
    let empty = bridge.program.resident()?;
    let counts = Rc::new(Counts::default());
    let mut tasks = JoinSet::new();
    for at in 0..nodes {
        let uid = addresses.used();
        let socket = UdpSocket::from_std(addresses.bind(bridge.address)?)?;
        let first = ALIVE_INTERVAL.mul_f64(at as f64 / nodes as f64);
        tasks.spawn_local(live(socket, uid, first, counts.clone()));
    }
    let start = now().mono;
    // The list and each resource.
    while counts.reads.get() < nodes * (RESOURCES + 1) && now().mono < start + PATIENCE {
        if let Some(ended) = tasks.try_join_next() {
            ended??;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let complete = (now().mono - start).as_secs_f64();
    let state = || {
        let cpu = (bridge.program.cpu()?, bridge.bus.program.cpu()?);
        anyhow::Ok((now().mono, cpu, counts.reads.get(), counts.alive.get()))
    };
    let before = state()?;
    tokio::time::sleep(SPAN).await;
    let after = state()?;
    let seconds = (after.0 - before.0).as_secs_f64();
    let rate = |from: u64, to: u64| number((to - from) as f64 / seconds);
    let load = |from: f64, to: f64| format!("{:.1}%", (to - from) / seconds * 100.0);
    Ok(vec![
        format!("{} nodes", number(nodes as f64)),
        number(complete),
        rate(before.3, after.3),
        rate(before.2, after.2),
        load(before.1.0, after.1.0),
        load(before.1.1, after.1.1),
        number(empty / 1024.0),
        number(bridge.program.resident()? / 1024.0),
        number(bridge.program.peak()? / 1024.0),
        number(bridge.bus.program.resident()? / 1024.0),
    ])
}

/// Measures a fleet and prints what it needs.
pub(crate) fn fleet(
    setting: &mut Setting,
    addresses: &mut Addresses,
    args: &Args,
) -> anyhow::Result<()> {
    let bridge = Bridge::start(setting)?;
    let row = on_one_thread(measure(&bridge, addresses, args.nodes))?;
    let headings = [
        "fleet",
        "known s",
        "alive/s",
        "reads/s",
        "CPU",
        "bus CPU",
        "empty MiB",
        "MiB",
        "peak",
        "bus MiB",
    ];
    table(
        "Nodes alive every 30 s with 10 resources each",
        &headings,
        &[row],
    );
    println!(
        "known: until each was asked for all it has. CPU: of one core, while all are read every 30 s."
    );
    Ok(())
}
