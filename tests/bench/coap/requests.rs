//! Requests per second in a closed loop, and the CPU time of each.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::ensure;
use bus::time::now;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::line::{self, Addresses, Came};
use super::{Bridge, aiocoap, endpoint_alone, libcoap, receive};
use crate::Args;
use crate::bus::{Setting, on_one_thread};
use crate::program::{Program, own_cpu};
use crate::report::{median, number, table};

const WARM_UP: Duration = Duration::from_millis(300);
/// Nodes that ask.
const NODES: usize = 32;
/// What is not answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// Message IDs of a node.
const MIDS: u32 = 65_536;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// `GET /time`.
    Time,
    /// `POST /server` with a reading.
    Reading,
}

impl Question {
    /// Requests of each node on their way. Those that are answered at once are 128 in all, which fit into
    /// the buffer of a socket of whatever size; a reading waits for the bus to have committed it.
    const fn window(self) -> u32 {
        match self {
            Self::Time => 4,
            Self::Reading => 128,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    answered: Cell<u64>,
    lost: Cell<u64>,
    refused: Cell<u64>,
    /// Values that a subscriber got.
    delivered: Cell<u64>,
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

/// A node that asks.
pub(super) struct Node {
    socket: UdpSocket,
    question: Question,
    counts: Rc<Counts>,
    out: Vec<u8>,
    input: Vec<u8>,
    sent: u32,
    ended: u32,
}

impl Node {
    pub(super) fn new(socket: UdpSocket, question: Question, counts: Rc<Counts>) -> Self {
        Self {
            socket,
            question,
            counts,
            out: Vec::new(),
            input: vec![0; 2048],
            sent: 0,
            ended: 0,
        }
    }

    /// Says that it is there, and waits for the answer.
    pub(super) async fn introduce(&mut self, uid: usize) -> anyhow::Result<()> {
        let alive = format!("alive:bench-{uid}");
        line::request(
            &mut self.out,
            true,
            u16::MAX,
            u32::MAX,
            "alive",
            alive.as_bytes(),
        );
        self.socket.send(&self.out).await?;
        while self.receive(u32::MAX).await? == 0 {}
        Ok(())
    }

    /// Takes what waits, at least one datagram; gives how many answers there were.
    async fn receive(&mut self, alive: u32) -> anyhow::Result<u32> {
        self.socket.readable().await?;
        let mut answers = 0;
        while let Ok(len) = self.socket.try_recv(&mut self.input) {
            match line::read(&self.input[..len], "</t>") {
                Came::Answer { token, ok } if ok || token == alive => answers += 1,
                Came::Answer { .. } => {
                    answers += 1;
                    add(&self.counts.refused, 1);
                }
                Came::Question(answer) => drop(self.socket.try_send(&answer)),
                Came::Other => {}
            }
        }
        Ok(answers)
    }

    async fn ask(mut self) -> anyhow::Result<()> {
        loop {
            while self.sent - self.ended < self.question.window() {
                ensure!(self.sent < MIDS - 1, "a node has used all its Message IDs");
                let mid = self.sent as u16;
                match self.question {
                    Question::Time => {
                        line::request(&mut self.out, false, mid, self.sent, "time", b"");
                    }
                    Question::Reading => {
                        let reading = format!("t:{}.5°C", self.sent % 100);
                        let payload = reading.as_bytes();
                        line::request(&mut self.out, true, mid, self.sent, "server", payload);
                    }
                }
                self.sent += 1;
                self.socket.send(&self.out).await?;
            }
            match timeout(PATIENCE, self.receive(0)).await {
                Ok(answers) => {
                    let answers = answers?;
                    self.ended += answers;
                    add(&self.counts.answered, u64::from(answers));
                }
                Err(_) => {
                    add(&self.counts.lost, u64::from(self.sent - self.ended));
                    self.ended = self.sent;
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    rate: f64,
    /// CPU time of each program for a request, microseconds.
    cpu: [f64; 2],
    load: f64,
    lost: f64,
    /// Values that a subscriber got for each request.
    delivered: f64,
}

/// What is measured: a server, or a bridge with its bus.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Server(&'a Program, SocketAddr),
    Bridge(&'a Setting, &'a Bridge),
}

impl Subject<'_> {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Server(_, address) => *address,
            Self::Bridge(_, bridge) => bridge.address,
        }
    }

    fn question(&self) -> Question {
        match self {
            Self::Server(..) => Question::Time,
            Self::Bridge(..) => Question::Reading,
        }
    }

    /// CPU time of the server, and of the bus, so far.
    fn cpu(&self) -> anyhow::Result<[f64; 2]> {
        match self {
            Self::Server(program, _) => Ok([program.cpu()?, 0.0]),
            Self::Bridge(_, bridge) => Ok([bridge.program.cpu()?, bridge.bus.program.cpu()?]),
        }
    }
}

async fn measure(
    addresses: &mut Addresses,
    subject: Subject<'_>,
    span: Duration,
) -> anyhow::Result<Measured> {
    let counts = Rc::new(Counts::default());
    let mut tasks = JoinSet::new();
    if let Subject::Bridge(setting, bridge) = subject {
        let id = format!("requests-{}", addresses.used());
        let client = bridge.subscriber(setting, &id).await?;
        let counts = counts.clone();
        tasks.spawn_local(receive(client, move |_| add(&counts.delivered, 1)));
    }
    for _ in 0..NODES {
        let uid = addresses.used();
        let socket = UdpSocket::from_std(addresses.bind(subject.address())?)?;
        let mut node = Node::new(socket, subject.question(), counts.clone());
        if matches!(subject, Subject::Bridge(..)) {
            timeout(PATIENCE, node.introduce(uid)).await??;
        }
        tasks.spawn_local(node.ask());
    }
    let state = || {
        let counted = [counts.answered.get(), counts.delivered.get()];
        anyhow::Ok((now().mono, counted, subject.cpu()?, own_cpu()?))
    };
    tokio::time::sleep(WARM_UP).await;
    let (from, before, cpu_before, own_before) = state()?;
    tokio::time::sleep(span).await;
    let (to, after, cpu_after, own_after) = state()?;
    if let Some(ended) = tasks.try_join_next() {
        ended??;
    }
    let [count, delivered] = [0, 1].map(|at| (after[at] - before[at]) as f64);
    ensure!(count > 0.0, "nothing was answered");
    let seconds = (to - from).as_secs_f64();
    Ok(Measured {
        rate: count / seconds,
        cpu: [0, 1].map(|at| (cpu_after[at] - cpu_before[at]) * 1e6 / count),
        load: (own_after - own_before) / seconds,
        lost: (counts.lost.get() + counts.refused.get()) as f64,
        delivered: delivered / count,
    })
}

/// The most readings a second that a bridge takes.
pub(super) async fn capacity(
    setting: &Setting,
    addresses: &mut Addresses,
    bridge: &Bridge,
    span: Duration,
) -> anyhow::Result<f64> {
    let measured = measure(addresses, Subject::Bridge(setting, bridge), span);
    Ok(measured.await?.rate)
}

/// Measures each server and prints them.
pub(crate) fn requests(
    setting: &mut Setting,
    addresses: &mut Addresses,
    args: &Args,
) -> anyhow::Result<()> {
    let (endpoint, libcoap, aiocoap) = (
        endpoint_alone(setting)?,
        libcoap(setting)?,
        aiocoap(setting)?,
    );
    let bridge = Bridge::start(setting)?;
    let cells = [
        ("libcoap, GET", Subject::Server(&libcoap.0, libcoap.1)),
        ("aiocoap, GET", Subject::Server(&aiocoap.0, aiocoap.1)),
        (
            "the endpoint alone, GET",
            Subject::Server(&endpoint.0, endpoint.1),
        ),
        (
            "the bridge, POST /server onto the bus",
            Subject::Bridge(setting, &bridge),
        ),
    ];
    let mut found = cells.each_ref().map(|_| Vec::new());
    let span = Duration::from_millis(args.millis);
    for _ in 0..args.pairs {
        for ((_, subject), found) in cells.iter().zip(&mut found) {
            found.push(on_one_thread(measure(addresses, *subject, span))?);
        }
    }
    let of =
        |found: &[Measured], pick: fn(&Measured) -> f64| median(found.iter().map(pick).collect());
    let libcoap = (of(&found[0], |m| m.rate), of(&found[0], |m| m.cpu[0]));
    let rows = cells.iter().zip(&found).map(|((name, subject), found)| {
        let (rate, cpu) = (of(found, |m| m.rate), of(found, |m| m.cpu[0]));
        let on_bus = matches!(subject, Subject::Bridge(..));
        let if_on_bus = |text: String| if on_bus { text } else { "-".to_owned() };
        vec![
            (*name).to_owned(),
            number(rate),
            number(rate / libcoap.0),
            number(cpu),
            number(cpu / libcoap.1),
            number(1e6 / cpu),
            if_on_bus(number(of(found, |m| m.cpu[1]))),
            if_on_bus(format!("{:.1}%", of(found, |m| m.delivered) * 100.0)),
            format!("{:.0}", of(found, |m| m.lost)),
            format!("{:.0}%", of(found, |m| m.load) * 100.0),
        ]
    });
    let headings = [
        "server",
        "req/s",
        "ratio",
        "CPU µs each",
        "ratio",
        "req/CPU s",
        "bus µs",
        "delivered",
        "lost",
        "load",
    ];
    table(
        "CoAP requests a second, closed loop, 32 nodes with 4 each, and with 128 each to the bridge",
        &headings,
        &rows.collect::<Vec<_>>(),
    );
    println!(
        "ratio: to libcoap. req/CPU s: what one core could serve. bus: the broker's CPU time for each. \
         delivered: to a subscriber with mTLS and QoS 1, in the same time. lost: not answered, or refused. \
         load: of one core, what the load generator needed."
    );
    Ok(())
}
