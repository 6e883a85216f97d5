//! Readings at a fixed rate, whatever becomes of them: what is lost, and how late the rest is at a
//! subscriber. Times count from when a reading was due, so that waiting for a turn counts too.

use std::cell::RefCell;
use std::net::UdpSocket as StdUdpSocket;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bus::time::{Now, now};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::line::{self, Addresses, Came};
use super::mosquitto_sub::MosquittoSub;
use super::requests::{Node, Question, capacity};
use super::{Bridge, receive};
use crate::Args;
use crate::bus::{Setting, on_one_thread};
use crate::program::own_cpu;
use crate::report::{number, table};

/// Has no common divisor with [`ALIVE_EVERY`]: all nodes say that they are alive.
const NODES: u32 = 63;
/// One message of so many says that its node is alive, the others bring readings.
const ALIVE_EVERY: u32 = 100;
/// After the last message, answers are waited for until none has come for so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often answers are looked for when there are far too many.
const INTERVAL: Duration = Duration::from_millis(5);
/// Until the first message.
const LEAD: Duration = Duration::from_millis(200);
/// Waits shorter than this are not worth a sleep.
const SLEEP: Duration = Duration::from_micros(60);
/// In the closed loop that finds the most that is possible.
const CAPACITY_SPAN: Duration = Duration::from_secs(3);

/// When each message is due.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start: Instant,
    rate: u32,
    count: u32,
}

impl Schedule {
    fn due(self, number: u32) -> Instant {
        self.start + Duration::from_secs_f64(f64::from(number) / f64::from(self.rate))
    }
}

fn is_alive(number: u32) -> bool {
    number.is_multiple_of(ALIVE_EVERY)
}

/// Sends everything; gives when that was done.
fn send(sockets: &[StdUdpSocket], first_uid: usize, schedule: Schedule) -> Instant {
    let mut out = Vec::new();
    for number in 0..schedule.count {
        let wait = schedule.due(number).saturating_duration_since(now().mono);
        if wait > SLEEP {
            std::thread::sleep(wait);
        }
        let at = number % NODES;
        let mid = (number / NODES) as u16;
        if is_alive(number) {
            let alive = format!("alive:bench-{}", first_uid + at as usize);
            line::request(&mut out, true, mid, number, "alive", alive.as_bytes());
        } else {
            let reading = format!("t:{number}");
            line::request(&mut out, true, mid, number, "server", reading.as_bytes());
        }
        // What the system does not take is lost on the way.
        drop(sockets[at as usize].send(&out));
    }
    now().mono
}

#[derive(Debug, Default)]
struct Found {
    /// Microseconds until the acknowledgement of readings, and until the subscriber had them.
    acknowledged: Vec<u32>,
    delivered: Vec<u32>,
    refused: u32,
    alive: u32,
    last: Option<Instant>,
}

impl Found {
    fn late(schedule: Schedule, number: u32) -> u32 {
        let late = now().mono.saturating_duration_since(schedule.due(number));
        u32::try_from(late.as_micros()).unwrap_or(u32::MAX)
    }

    fn answer(&mut self, schedule: Schedule, number: u32, ok: bool) {
        self.last = Some(now().mono);
        match (ok, is_alive(number)) {
            (true, true) => self.alive += 1,
            (true, false) => self.acknowledged.push(Self::late(schedule, number)),
            (false, _) => self.refused += 1,
        }
    }

    fn deliver(&mut self, schedule: Schedule, number: u32) {
        self.last = Some(now().mono);
        self.delivered.push(Self::late(schedule, number));
    }
}

/// Takes the answers to a node. Under far too much load it looks for them at intervals, which costs less
/// of the machine that both ends share.
async fn listen(
    socket: UdpSocket,
    schedule: Schedule,
    interval: Duration,
    found: Rc<RefCell<Found>>,
) -> anyhow::Result<()> {
    let mut input = vec![0; 2048];
    loop {
        socket.readable().await?;
        while let Ok(len) = socket.try_recv(&mut input) {
            match line::read(&input[..len], "</t>") {
                Came::Answer { token, ok } => found.borrow_mut().answer(schedule, token, ok),
                Came::Question(answer) => drop(socket.try_send(&answer)),
                Came::Other => {}
            }
        }
        tokio::time::sleep(interval).await;
    }
}

/// The number in `{"v":123,...`; what nodes answer when they are asked is no whole number.
fn value(payload: &[u8]) -> Option<u32> {
    let value = payload.strip_prefix(b"{\"v\":")?;
    let digits = value.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Who gets the readings from the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscriber {
    MosquittoSub,
    /// A client of this program, which costs less.
    Ours,
}

/// The time on both clocks, at the turn of a millisecond, which is as fine as the one for people is.
fn both_clocks() -> Now {
    let first = now();
    loop {
        let now = now();
        if now.wall != first.wall {
            return now;
        }
    }
}

struct Run {
    found: Found,
    /// Messages a second that were really sent.
    offered: f64,
    seconds: f64,
    readings: f64,
    alive: f64,
    cpu: f64,
    bus_cpu: f64,
    own_cpu: f64,
    peak: f64,
}

async fn run(
    setting: &Setting,
    bridge: &Bridge,
    addresses: &mut Addresses,
    (rate, seconds): (u32, u32),
    subscriber: Subscriber,
) -> anyhow::Result<Run> {
    let first_uid = addresses.used();
    let mut sockets = Vec::new();
    for uid in first_uid..first_uid + NODES as usize {
        let socket = addresses.bind(bridge.address)?;
        sockets.push(socket.try_clone()?);
        let mut node = Node::new(
            UdpSocket::from_std(socket)?,
            Question::Reading,
            Rc::default(),
        );
        tokio::time::timeout(PATIENCE, node.introduce(uid)).await??;
    }
    let mut mosquitto_sub = None;
    let mut client = None;
    match subscriber {
        Subscriber::MosquittoSub => mosquitto_sub = Some(MosquittoSub::start(setting, bridge)?),
        Subscriber::Ours => {
            let id = format!("load-{first_uid}");
            client = Some(bridge.subscriber(setting, &id).await?);
        }
    }
    let clocks = both_clocks().after(LEAD);
    let schedule = Schedule {
        start: clocks.mono,
        rate,
        count: rate * seconds,
    };
    let found = Rc::new(RefCell::new(Found::default()));
    let mut tasks = JoinSet::new();
    let interval = match subscriber {
        Subscriber::MosquittoSub => Duration::ZERO,
        Subscriber::Ours => INTERVAL,
    };
    if let Some(client) = client {
        let delivered = found.clone();
        tasks.spawn_local(receive(client, move |payload| {
            if let Some(number) = value(payload) {
                delivered.borrow_mut().deliver(schedule, number);
            }
        }));
    }
    for socket in &sockets {
        let socket = UdpSocket::from_std(socket.try_clone()?)?;
        tasks.spawn_local(listen(socket, schedule, interval, found.clone()));
    }
    let before = (bridge.program.cpu()?, bridge.bus.program.cpu()?);
    let own_before = own_cpu()?;
    let sender = std::thread::spawn(move || send(&sockets, first_uid, schedule));
    while !sender.is_finished()
        || (found.borrow().last).is_some_and(|last| now().mono < last + PATIENCE)
    {
        if let Some(ended) = tasks.try_join_next() {
            ended??;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let done = sender
        .join()
        .map_err(|_| anyhow::anyhow!("the sender has failed"))?;
    let cpu = (bridge.program.cpu()?, bridge.bus.program.cpu()?);
    let own = own_cpu()?;
    if let Some(subscriber) = mosquitto_sub {
        let start = clocks.wall.unix_millis() as f64 / 1000.0;
        let mut found = found.borrow_mut();
        for (at, payload) in subscriber.end()? {
            if let Some(number) = value(payload.as_bytes()) {
                let due = start + f64::from(number) / f64::from(rate);
                found.delivered.push(((at - due) * 1e6) as u32);
            }
        }
    }
    let seconds = (done - schedule.start).as_secs_f64();
    let alive = f64::from(schedule.count.div_ceil(ALIVE_EVERY));
    Ok(Run {
        offered: f64::from(schedule.count) / seconds,
        seconds,
        readings: f64::from(schedule.count) - alive,
        alive,
        cpu: (cpu.0 - before.0) / seconds,
        bus_cpu: (cpu.1 - before.1) / seconds,
        own_cpu: (own - own_before) / seconds,
        peak: bridge.program.peak()?,
        found: found.take(),
    })
}

/// Milliseconds within which this part of the figures lies.
fn quantile(figures: &mut [u32], part: f64) -> String {
    figures.sort_unstable();
    let at = (figures.len() as f64 * part) as usize;
    figures
        .get(at.min(figures.len().saturating_sub(1)))
        .map_or_else(|| "-".to_owned(), |us| number(f64::from(*us) / 1000.0))
}

/// Measures what args tell, and what is far too much.
pub(crate) fn load(
    setting: &mut Setting,
    addresses: &mut Addresses,
    args: &Args,
) -> anyhow::Result<()> {
    let bridge = Bridge::start(setting)?;
    let most = on_one_thread(capacity(setting, addresses, &bridge, CAPACITY_SPAN))?;
    let mut rows = Vec::new();
    for (rate, seconds, subscriber) in [
        (10_000, args.seconds, Subscriber::MosquittoSub),
        (90_000, 5, Subscriber::Ours),
        (100_000, 5, Subscriber::Ours),
        (110_000, 5, Subscriber::Ours),
        (120_000, 10, Subscriber::Ours),
    ] {
        let load = (rate, seconds);
        let mut run = on_one_thread(run(setting, &bridge, addresses, load, subscriber))?;
        let found = &mut run.found;
        let goodput = (found.acknowledged.len() as f64 + f64::from(found.alive)) / run.seconds;
        rows.push(vec![
            format!("{}/s for {seconds} s", number(f64::from(rate))),
            number(run.offered),
            number(goodput),
            number(goodput / most),
            number(run.readings - found.acknowledged.len() as f64),
            number(found.refused.into()),
            number(run.readings - found.delivered.len() as f64),
            format!(
                "{}/{}",
                number(run.alive - f64::from(found.alive)),
                number(run.alive)
            ),
            quantile(&mut found.acknowledged, 0.5),
            quantile(&mut found.acknowledged, 0.99),
            quantile(&mut found.delivered, 0.5),
            quantile(&mut found.delivered, 0.99),
            format!("{:.0}%", run.cpu * 100.0),
            format!("{:.0}%", run.bus_cpu * 100.0),
            format!("{:.0}%", run.own_cpu * 100.0),
            number(run.peak / 1024.0),
        ]);
    }
    let headings = [
        "offered",
        "sent/s",
        "good/s",
        "of most",
        "no ack",
        "refused",
        "not on bus",
        "alive lost",
        "ack p50",
        "p99 ms",
        "bus p50",
        "p99 ms",
        "CPU",
        "bus CPU",
        "load",
        "peak MiB",
    ];
    table(
        "Readings at a fixed rate, CON, never sent again",
        &headings,
        &rows,
    );
    println!(
        "good: acknowledged with success. most: {}/s, the closed loop just before. no ack: readings that were not acknowledged with success, \
         refused: 4.xx or 5.xx among them and the signs of life. \
         load: of one core, what the load generator needed. bus p50, p99: until a subscriber with mTLS and QoS 1 has it, from when it was due; at the lower rate that is mosquitto_sub.",
        number(most)
    );
    Ok(())
}
