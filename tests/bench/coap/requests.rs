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
use super::{Bridge, aiocoap, endpoint_alone, libcoap};
use crate::Args;
use crate::bus::{Setting, on_one_thread};
use crate::program::{Program, own_cpu};
use crate::report::{median, number, table};

const WARM_UP: Duration = Duration::from_millis(300);
/// Nodes that ask, and requests of each on their way: 128 in all, which fit into the buffer of a
/// socket of whatever size.
const NODES: usize = 32;
const WINDOW: u32 = 4;
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

#[derive(Debug, Default)]
pub(super) struct Counts {
    answered: Cell<u64>,
    lost: Cell<u64>,
    refused: Cell<u64>,
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
            while self.sent - self.ended < WINDOW {
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
}

async fn measure(
    addresses: &mut Addresses,
    server: SocketAddr,
    question: Question,
    programs: &[&Program],
    span: Duration,
) -> anyhow::Result<Measured> {
    let counts = Rc::new(Counts::default());
    let mut tasks = JoinSet::new();
    for _ in 0..NODES {
        let uid = addresses.used();
        let socket = UdpSocket::from_std(addresses.bind(server)?)?;
        let mut node = Node::new(socket, question, counts.clone());
        if question == Question::Reading {
            timeout(PATIENCE, node.introduce(uid)).await??;
        }
        tasks.spawn_local(node.ask());
    }
    let state = || {
        let mut cpu = [0.0; 3];
        for (cpu, program) in cpu.iter_mut().zip(programs) {
            *cpu = program.cpu()?;
        }
        cpu[2] = own_cpu()?;
        anyhow::Ok((now().mono, counts.answered.get(), cpu))
    };
    tokio::time::sleep(WARM_UP).await;
    let (from, before, cpu_before) = state()?;
    tokio::time::sleep(span).await;
    let (to, after, cpu_after) = state()?;
    if let Some(ended) = tasks.try_join_next() {
        ended??;
    }
    ensure!(after > before, "nothing was answered");
    let (count, seconds) = ((after - before) as f64, (to - from).as_secs_f64());
    let cpu = |at: usize| cpu_after[at] - cpu_before[at];
    Ok(Measured {
        rate: count / seconds,
        cpu: [cpu(0) * 1e6 / count, cpu(1) * 1e6 / count],
        load: cpu(2) / seconds,
        lost: (counts.lost.get() + counts.refused.get()) as f64,
    })
}

/// The most readings a second that a bridge takes.
pub(super) async fn capacity(
    addresses: &mut Addresses,
    bridge: &Bridge,
    span: Duration,
) -> anyhow::Result<f64> {
    let programs = [&bridge.program];
    let measured = measure(
        addresses,
        bridge.address,
        Question::Reading,
        &programs,
        span,
    );
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
    let time = Question::Time;
    let cells = [
        ("libcoap, GET", libcoap.1, time, vec![&libcoap.0]),
        ("aiocoap, GET", aiocoap.1, time, vec![&aiocoap.0]),
        (
            "the endpoint alone, GET",
            endpoint.1,
            time,
            vec![&endpoint.0],
        ),
        (
            "the bridge, POST /server onto the bus",
            bridge.address,
            Question::Reading,
            vec![&bridge.program, &bridge.bus.program],
        ),
    ];
    let mut found = cells.each_ref().map(|_| Vec::new());
    let span = Duration::from_millis(args.millis);
    for _ in 0..args.pairs {
        for ((_, server, question, programs), found) in cells.iter().zip(&mut found) {
            let measured = measure(addresses, *server, *question, programs, span);
            found.push(on_one_thread(measured)?);
        }
    }
    let of =
        |found: &[Measured], pick: fn(&Measured) -> f64| median(found.iter().map(pick).collect());
    let libcoap = (of(&found[0], |m| m.rate), of(&found[0], |m| m.cpu[0]));
    let rows = cells.iter().zip(&found).map(|((name, ..), found)| {
        let (rate, cpu) = (of(found, |m| m.rate), of(found, |m| m.cpu[0]));
        let broker = of(found, |m| m.cpu[1]);
        vec![
            (*name).to_owned(),
            number(rate),
            number(rate / libcoap.0),
            number(cpu),
            number(cpu / libcoap.1),
            number(1e6 / cpu),
            if broker > 0.0 {
                number(broker)
            } else {
                "-".to_owned()
            },
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
        "lost",
        "load",
    ];
    table(
        "CoAP requests a second, closed loop, 32 nodes with 4 each",
        &headings,
        &rows.collect::<Vec<_>>(),
    );
    println!(
        "ratio: to libcoap. req/CPU s: what one core could serve. bus: the broker's CPU time for each. \
         lost: not answered or refused. load: of one core, what the load generator needed."
    );
    Ok(())
}
