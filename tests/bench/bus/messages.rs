//! Messages per second in a closed loop: every publisher has a window of messages that not every
//! subscriber has yet, so that no broker has a reason to drop one, and each message counts once
//! for every subscriber that got it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bus::time::now;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::client::{self, Client};
use super::{BOTH, Broker, Setting, Who, on_one_thread};
use crate::Args;
use crate::program::own_cpu;
use crate::report::{median, number, table};

/// Before a measurement begins.
const WARM_UP: Duration = Duration::from_millis(300);
/// The most that a publisher writes at once, bytes.
const WRITE: usize = 64 * 1024;

/// One cell of the table.
#[derive(Debug, Clone, Copy)]
struct Case {
    publishers: usize,
    subscribers: usize,
    /// Messages of one publisher on their way.
    window: usize,
    qos: u8,
    bytes: usize,
    with_tls: bool,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let shapes = [(1, 1, 512), (200, 1, 4), (1, 200, 32)];
        let mut cells = Vec::new();
        for with_tls in [false, true] {
            for (publishers, subscribers, window) in shapes {
                for qos in [0, 1] {
                    for bytes in [64, 1024] {
                        cells.push(Self {
                            publishers,
                            subscribers,
                            window,
                            qos,
                            bytes,
                            with_tls,
                        });
                    }
                }
            }
        }
        cells.into_iter()
    }

    fn name(&self) -> String {
        format!(
            "{} {} to {}, QoS {}, {} B",
            if self.with_tls { "mTLS " } else { "plain" },
            self.publishers,
            self.subscribers,
            self.qos,
            self.bytes
        )
    }
}

/// The messages of one publisher.
struct Line {
    sent: Cell<u32>,
    /// Messages that all subscribers got.
    complete: Cell<u32>,
    /// How many subscribers got each message of the window.
    counts: RefCell<Vec<usize>>,
    room: Notify,
}

struct Flow {
    cell: Case,
    lines: Vec<Line>,
    delivered: Cell<u64>,
}

impl Flow {
    fn new(cell: Case) -> Rc<Self> {
        let line = |_| Line {
            sent: Cell::new(0),
            complete: Cell::new(0),
            counts: RefCell::new(vec![0; cell.window]),
            room: Notify::new(),
        };
        Rc::new(Self {
            cell,
            lines: (0..cell.publishers).map(line).collect(),
            delivered: Cell::new(0),
        })
    }

    /// A subscriber got a message; its payload begins with its publisher and its number.
    fn deliver(&self, payload: &[u8]) {
        let word = |at: usize| {
            let bytes = payload
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            u32::from_be_bytes(bytes.unwrap_or_default()) as usize
        };
        let (publisher, number) = (word(0), word(4));
        self.delivered.set(self.delivered.get() + 1);
        let line = &self.lines[publisher];
        let mut counts = line.counts.borrow_mut();
        let count = &mut counts[number % self.cell.window];
        *count += 1;
        if *count == self.cell.subscribers {
            *count = 0;
            line.complete.set(line.complete.get() + 1);
            line.room.notify_one();
        }
    }
}

async fn publish(flow: Rc<Flow>, at: usize, mut client: Client) -> anyhow::Result<()> {
    let (cell, line) = (flow.cell, &flow.lines[at]);
    let mut payload = vec![b'x'; cell.bytes];
    payload[..4].copy_from_slice(&u32::try_from(at)?.to_be_bytes());
    let topic = format!("nodebus/v1/nodes/n{at}/res/temperature");
    let mut packet = client::publish(&topic, &payload, cell.qos, false);
    let number_at = packet.len() - cell.bytes + 4;
    let (window, mut acknowledged, mut batch) = (cell.window as u32, 0_u32, Vec::new());
    loop {
        let behind = match cell.qos {
            0 => line.complete.get(),
            _ => line.complete.get().min(acknowledged),
        };
        batch.clear();
        while line.sent.get() - behind < window && batch.len() < WRITE {
            let number = line.sent.get();
            packet[number_at..number_at + 4].copy_from_slice(&number.to_be_bytes());
            if cell.qos > 0 {
                let id = u16::try_from(number % 60_000)? + 1;
                packet[number_at - 6..number_at - 4].copy_from_slice(&id.to_be_bytes());
            }
            batch.extend_from_slice(&packet);
            line.sent.set(number + 1);
        }
        if !batch.is_empty() {
            client.send(&batch).await?;
        } else if line.sent.get() - acknowledged < window || cell.qos == 0 {
            // Only subscribers can make room, or a PUBACK that came meanwhile is no news.
            tokio::select! {
                () = line.room.notified() => {}
                read = read_acks(&mut client, &mut acknowledged), if cell.qos > 0 => read?,
            }
        } else {
            read_acks(&mut client, &mut acknowledged).await?;
        }
    }
}

async fn read_acks(client: &mut Client, acknowledged: &mut u32) -> anyhow::Result<()> {
    client
        .read(|first, _| *acknowledged += u32::from(first == client::PUBACK))
        .await
}

async fn subscribe(flow: Rc<Flow>, mut client: Client) -> anyhow::Result<()> {
    let mut acks = Vec::new();
    loop {
        client
            .read(|first, body| {
                if first & 0xf0 != client::PUBLISH {
                    return;
                }
                let mut at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                if first & 0b110 != 0 {
                    acks.extend_from_slice(&[client::PUBACK, 2, body[at], body[at + 1]]);
                    at += 2;
                }
                flow.deliver(&body[at..]);
            })
            .await?;
        if !acks.is_empty() {
            client.stream.write_all(&acks).await?;
            client.stream.flush().await?;
            acks.clear();
        }
    }
}

/// What one measurement found.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Deliveries a second.
    rate: f64,
    /// The broker's CPU time for each, microseconds.
    cpu: f64,
    /// How much of its one thread the load generator used.
    load: f64,
}

async fn measure(
    setting: &Setting,
    broker: &Broker,
    cell: Case,
    span: Duration,
) -> anyhow::Result<Measured> {
    let flow = Flow::new(cell);
    let mut tasks = JoinSet::new();
    let viewer = setting.dialer(broker, Who::Viewer, cell.with_tls)?;
    for at in 0..cell.subscribers {
        let mut client = viewer.client(&format!("sub-{at}")).await?;
        client.subscribe("nodebus/v1/nodes/#", cell.qos).await?;
        tasks.spawn_local(subscribe(flow.clone(), client));
    }
    let bridge = setting.dialer(broker, Who::Bridge, cell.with_tls)?;
    for at in 0..cell.publishers {
        let client = bridge.client(&format!("pub-{at}")).await?;
        tasks.spawn_local(publish(flow.clone(), at, client));
    }
    let state = || {
        let cpu = (broker.program.cpu()?, own_cpu()?);
        anyhow::Ok((now().mono, flow.delivered.get(), cpu))
    };
    tokio::time::sleep(WARM_UP).await;
    let (from, before, cpu_before) = state()?;
    tokio::time::sleep(span).await;
    let (to, after, cpu_after) = state()?;
    if let Some(ended) = tasks.try_join_next() {
        ended?.with_context(|| format!("{} with {}", cell.name(), broker.program.name))?;
    }
    let (count, seconds) = ((after - before) as f64, (to - from).as_secs_f64());
    ensure!(
        count > 0.0,
        "{}: {} lost messages, or stands still",
        cell.name(),
        broker.program.name
    );
    Ok(Measured {
        rate: count / seconds,
        cpu: (cpu_after.0 - cpu_before.0) * 1e6 / count,
        load: (cpu_after.1 - cpu_before.1) / seconds,
    })
}

/// Measures every cell and prints them.
pub(crate) fn messages(setting: &mut Setting, args: &Args) -> anyhow::Result<()> {
    let brokers = BOTH.map(|software| setting.start(software));
    let [nodebus, mosquitto] = brokers;
    let brokers = [nodebus?, mosquitto?];
    let (mut rows, span) = (Vec::new(), Duration::from_millis(args.millis));
    for cell in Case::all().filter(|cell| cell.name().contains(&args.only)) {
        let mut found: [Vec<Measured>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..args.pairs {
            for (broker, found) in brokers.iter().zip(&mut found) {
                found.push(on_one_thread(measure(setting, broker, cell, span))?);
            }
        }
        let [ours, theirs] = found;
        let pairs = ours.iter().zip(&theirs);
        let ratio = median(
            pairs
                .map(|(ours, theirs)| ours.rate / theirs.rate)
                .collect(),
        );
        let of = |found: &[Measured], pick: fn(&Measured) -> f64| {
            median(found.iter().map(pick).collect())
        };
        rows.push(vec![
            cell.name(),
            number(of(&ours, |found| found.rate)),
            number(of(&theirs, |found| found.rate)),
            number(ratio),
            number(of(&ours, |found| found.cpu)),
            number(of(&theirs, |found| found.cpu)),
            format!("{:.0}%", of(&ours, |found| found.load) * 100.0),
        ]);
    }
    let headings = [
        "messages",
        "nodebus/s",
        "mosquitto/s",
        "ratio",
        "CPU µs each",
        "mosquitto",
        "load",
    ];
    table("Messages delivered a second, closed loop", &headings, &rows);
    println!(
        "CPU: the broker's, per delivery. load: of one core, what the load generator needed beside nodebus."
    );
    Ok(())
}
