//! Long runs against a broker process, which is weighed meanwhile: what grows without end shows.
//!
//! `make soak` runs them, in a release build. `NODEBUS_SOAK` makes them shorter or longer: 1 is the
//! full length.

#![expect(clippy::print_stdout, reason = "the figures are what one runs it for")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use crate::process::Process;
use crate::support::{packet, publish, split, string};

/// How many parts a run has; the broker is weighed after each.
const ROUNDS: usize = 20;
/// After these, everything that is bounded has reached its bound.
const WARM: usize = 5;
/// What the memory of a broker that holds no more than before may change by, bytes.
const SLACK: u64 = 24 * 1024 * 1024;

fn scaled(full: u64) -> u64 {
    let factor = std::env::var("NODEBUS_SOAK").map_or(1.0, |factor| factor.parse().unwrap());
    ((full as f64 * factor) as u64).max(1)
}

/// The memory of a process over a run.
#[derive(Default)]
struct Curve(Vec<u64>);

impl Curve {
    fn weigh(&mut self, process: &Process, what: &str) {
        let memory = process.memory();
        println!(
            "{:3} {:6.1} MiB  {what}",
            self.0.len() + 1,
            mebibytes(memory)
        );
        self.0.push(memory);
    }

    /// After the warm-up it goes up and down, and not on and on.
    fn is_bounded(&self) {
        let warm = self.0[..WARM].iter().max().unwrap();
        let after = self.0[WARM..].iter().max().unwrap();
        let grown = after.saturating_sub(*warm);
        println!(
            "{:.1} MiB after the warm-up, {:.1} MiB at most later",
            mebibytes(*warm),
            mebibytes(*after)
        );
        let allowed = SLACK + warm / 10;
        assert!(grown <= allowed, "grew by {:.1} MiB", mebibytes(grown));
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

async fn halves(process: &Process, id: &str) -> (OwnedReadHalf, OwnedWriteHalf) {
    let (client, _) = process.client(id, false).await;
    client.into_stream().into_split()
}

fn subscribe(filters: &[String], qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        body.extend(string(filter));
        body.push(qos);
    }
    packet(0x82, &body)
}

/// Reads until the broker ends, acknowledges, and counts messages.
async fn read(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf, count: Arc<AtomicU64>) {
    let (mut input, mut acks) = (BytesMut::new(), Vec::new());
    while reader.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        while let Some((first, body)) = split(&mut input) {
            if first & 0xf0 != 0x30 {
                continue;
            }
            count.fetch_add(1, Ordering::Relaxed);
            if first & 6 != 0 {
                let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                acks.extend([0x40, 2, body[at], body[at + 1]]);
            }
        }
        if writer.write_all(&acks).await.is_err() {
            return;
        }
        acks.clear();
    }
}

/// Publishes what `next` makes of each number, the odd ones with QoS 1, and waits for all
/// acknowledgements.
async fn send(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    numbers: std::ops::Range<u64>,
    next: impl Fn(u64) -> (String, bool),
) {
    const BATCH: u64 = 500;
    let (mut input, mut at) = (BytesMut::new(), numbers.start);
    while at < numbers.end {
        let (mut batch, mut awaited) = (Vec::new(), 0);
        let end = numbers.end.min(at + BATCH);
        for number in at..end {
            let (topic, retain) = next(number);
            let qos = u8::try_from(number % 2).unwrap();
            awaited += u64::from(qos);
            let pid = u16::try_from(number % BATCH + 1).unwrap();
            let payload = format!("{number:0>100}");
            let packet = publish(4, &topic, payload.as_bytes(), qos, pid, retain, &[]);
            batch.extend(packet);
        }
        writer.write_all(&batch).await.unwrap();
        while awaited > 0 {
            match split(&mut input) {
                Some(_) => awaited -= 1,
                None => assert!(reader.read_buf(&mut input).await.unwrap() > 0),
            }
        }
        at = end;
    }
}

/// One of the 100,000 topics.
fn topic(number: u64) -> String {
    let number = number % 100_000;
    let (one, two, three) = (number % 10, number / 10 % 100, number / 1000);
    format!("s/{one}/area-{two}/node-{three}")
}

/// Clients of all kinds: one that reads everything, a hundred that read some, one that is away, and
/// one that never reads.
async fn audience(process: &Process, readers: &mut JoinSet<()>) -> (Arc<AtomicU64>, TcpStream) {
    let (mut away, _) = process.client("away", true).await;
    away.subscribe(4, 1, "s/3/#", 1).await;
    drop(away);
    let (mut deaf, _) = process.client("deaf", false).await;
    deaf.subscribe(4, 1, "s/#", 0).await;
    let (everything, some) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (reader, mut writer) = halves(process, "everything").await;
    writer
        .write_all(&subscribe(&["s/#".to_owned()], 0))
        .await
        .unwrap();
    readers.spawn(read(reader, writer, everything.clone()));
    for client in 0..100 {
        let (reader, mut writer) = halves(process, &format!("some-{client}")).await;
        let exact = (0..20).map(|filter| topic(client * 997 + filter * 4999));
        let mut filters: Vec<String> = exact.collect();
        filters.push(format!("s/+/area-{client}/node-7"));
        let packet = subscribe(&filters, 1);
        writer.write_all(&packet).await.unwrap();
        readers.spawn(read(reader, writer, some.clone()));
    }
    (everything, deaf.into_stream())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make soak"]
async fn ten_million_messages_over_100_000_topics_leave_no_trace() {
    const PUBLISHERS: u64 = 4;
    let total = scaled(10_000_000);
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    let mut readers = JoinSet::new();
    let (everything, _deaf) = audience(&process, &mut readers).await;
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        publishers.push(halves(&process, &format!("publisher-{publisher}")).await);
    }
    let (mut curve, mut done) = (Curve::default(), 0);
    let share = total / ROUNDS as u64 / PUBLISHERS;
    for _ in 0..ROUNDS {
        let mut sending = JoinSet::new();
        for (mut reader, mut writer) in publishers.drain(..) {
            let numbers = done..done + share;
            done += share;
            sending.spawn(async move {
                let next = |number| (topic(number), number % 4 == 0);
                send(&mut reader, &mut writer, numbers, next).await;
                (reader, writer)
            });
        }
        publishers.extend(sending.join_all().await);
        let read = everything.load(Ordering::Relaxed);
        curve.weigh(&process, &format!("{done} published, {read} read"));
    }
    let file = std::fs::metadata(data.path().join("bus/bus.redb")).unwrap();
    println!("store: {:.1} MiB", mebibytes(file.len()));
    curve.is_bounded();
    assert!(file.len() < 256 * 1024 * 1024, "the store grows");
    // What it read is what it was not too slow for; that it was not thrown out is the point.
    assert!(everything.load(Ordering::Relaxed) > done / 2);
}

/// A client that was never here before, asks for what nobody asked for, and leaves for ever.
async fn stranger(address: std::net::SocketAddr, number: u64) {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = crate::support::Raw::new(stream);
    let options = crate::support::Options {
        is_kept: number.is_multiple_of(2),
        // A second.
        properties: if number.is_multiple_of(2) {
            vec![0x11, 0, 0, 0, 1]
        } else {
            vec![]
        },
        ..Default::default()
    };
    client
        .connect(5, &format!("stranger-{number}"), &options)
        .await;
    let exact = format!("x/{number}/{}/{}", number * 7, number * 13);
    let filters = [
        exact.clone(),
        format!("{exact}/#"),
        format!("+/{number}/+/{}", number * 13),
    ];
    for (pid, filter) in (1..).zip(&filters) {
        assert_eq!(client.subscribe(5, pid, filter, 1).await, 1);
    }
    client.publish(5, &exact, b"x", 1, 1, false).await;
    while client.packet().await.0 & 0xf0 != 0x40 {}
    let mut body = vec![0, 9, 0];
    body.extend(string(&exact));
    client.send(&packet(0xa2, &body)).await;
    while client.packet().await.0 & 0xf0 != 0xb0 {}
    client.send(&[0xe0, 0]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make soak"]
async fn strangers_and_their_topics_leave_no_trace() {
    const AT_A_TIME: u64 = 32;
    let (strangers, topics) = (
        scaled(100_000) / ROUNDS as u64,
        scaled(2_000_000) / ROUNDS as u64,
    );
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    let count = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    let (reader, mut writer) = halves(&process, "everything").await;
    let all = subscribe(&["#".to_owned()], 1);
    writer.write_all(&all).await.unwrap();
    readers.spawn(read(reader, writer, count.clone()));
    let (mut reader, mut writer) = halves(&process, "publisher").await;

    let mut curve = Curve::default();
    for round in 0..ROUNDS as u64 {
        let mut coming = JoinSet::new();
        let address = process.plain;
        for worker in 0..AT_A_TIME {
            let first = round * strangers + worker;
            let numbers = (first..(round + 1) * strangers).step_by(AT_A_TIME as usize);
            coming.spawn(async move {
                for number in numbers {
                    stranger(address, number).await;
                }
            });
        }
        // A topic is used once, as for the answer to a request.
        let next = |number: u64| {
            let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (
                format!("y/{}/{number}/{scattered}/res", scattered % 9973),
                false,
            )
        };
        let numbers = round * topics..(round + 1) * topics;
        send(&mut reader, &mut writer, numbers, next).await;
        coming.join_all().await;
        // Until the last sessions of this round have expired.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (came, used) = ((round + 1) * strangers, (round + 1) * topics);
        let read = count.load(Ordering::Relaxed);
        let what = format!("{came} strangers, {used} topics, {read} read");
        curve.weigh(&process, &what);
    }
    curve.is_bounded();
}
