//! A broker process that is killed at a random moment under load, again and again.
//!
//! `NODEBUS_KILLS` says how often; ten times when it is not set.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::process::Process;
use crate::support::{Raw, publish};

const TOPICS: u64 = 20;
/// Unacknowledged messages at a time.
const WINDOW: usize = 200;

/// What the publisher did: 0 removes the retained message, and no topic means the queue.
#[derive(Clone, Copy)]
struct Sent {
    topic: Option<u64>,
    value: u64,
}

impl Sent {
    fn random(random: &mut StdRng, value: u64) -> Self {
        let topic = random
            .random_bool(0.5)
            .then(|| random.random_range(0..TOPICS));
        let is_removal = topic.is_some() && random.random_bool(0.1);
        Self {
            topic,
            value: if is_removal { 0 } else { value },
        }
    }

    fn packet(self, pid: u16) -> Vec<u8> {
        let name = self
            .topic
            .map_or("q/x".to_owned(), |topic| format!("r/{topic}"));
        let payload = if self.value == 0 {
            String::new()
        } else {
            self.value.to_string()
        };
        publish(
            4,
            &name,
            payload.as_bytes(),
            1,
            pid,
            self.topic.is_some(),
            &[],
        )
    }
}

fn value(payload: Vec<u8>) -> u64 {
    String::from_utf8(payload).unwrap().parse().unwrap()
}

/// The Packet Identifier of the message with this place.
fn pid(at: usize) -> u16 {
    u16::try_from(at % 65_535 + 1).unwrap()
}

/// What one life of the process took.
#[derive(Default)]
struct Life {
    sent: Vec<Sent>,
    /// How many of them were acknowledged.
    acknowledged: usize,
    /// What the present subscriber got.
    delivered: BTreeSet<u64>,
}

impl Life {
    /// Publishes, with a subscriber present, until the process is killed.
    async fn live(process: &mut Process, random: &mut StdRng, last: &mut u64) -> Self {
        let (mut present, _) = process.client("present", true).await;
        let (client, _) = process.client("publisher", false).await;
        let (mut reader, mut writer) = client.into_stream().into_split();
        let mut life = Self::default();
        let window = Semaphore::new(WINDOW);
        let alive = Duration::from_millis(random.random_range(20..300));
        let publishing = async {
            while let Ok(permit) = window.acquire().await {
                permit.forget();
                *last += 1;
                let one = Sent::random(random, *last);
                let packet = one.packet(pid(life.sent.len()));
                life.sent.push(one);
                if writer.write_all(&packet).await.is_err() {
                    break;
                }
            }
        };
        let reading = async {
            let mut puback = [0; 4];
            while reader.read_exact(&mut puback).await.is_ok() {
                let [high, low] = pid(life.acknowledged).to_be_bytes();
                assert_eq!(puback, [0x40, 2, high, low], "acknowledged in order");
                life.acknowledged += 1;
                window.add_permits(1);
            }
            window.close();
        };
        let subscribing = async {
            while let Ok((first, body)) = present.try_packet().await {
                let message = present.parse(first, &body);
                let [high, low] = message.pid.to_be_bytes();
                life.delivered.insert(value(message.payload));
                present.try_send(&[0x40, 2, high, low]).await;
            }
        };
        let killing = async {
            tokio::time::sleep(alive).await;
            process.kill();
        };
        tokio::join!(publishing, reading, subscribing, killing);
        life
    }

    /// What was acknowledged for the queue.
    fn queued(&self) -> impl Iterator<Item = u64> {
        let acknowledged = self.sent[..self.acknowledged].iter();
        acknowledged
            .filter(|sent| sent.topic.is_none())
            .map(|sent| sent.value)
    }
}

/// Acknowledges everything that waits for a client; gives its values.
async fn take_all(client: &mut Raw<TcpStream>) -> Vec<u64> {
    let mut values = Vec::new();
    loop {
        let messages = client.ping().await;
        if messages.is_empty() {
            return values;
        }
        for (first, body) in messages {
            let message = client.parse(first, &body);
            let [high, low] = message.pid.to_be_bytes();
            client.send(&[0x40, 2, high, low]).await;
            values.push(value(message.payload));
        }
    }
}

/// The values that the retained message of each topic may have; 0 is none.
struct Allowed(HashMap<u64, Vec<u64>>);

impl Allowed {
    fn new() -> Self {
        Self((0..TOPICS).map(|topic| (topic, vec![0])).collect())
    }

    /// What was acknowledged replaces what was before; what was not may have been taken or not.
    fn sent(&mut self, life: &Life) {
        for (at, sent) in life.sent.iter().enumerate() {
            let Some(topic) = sent.topic else { continue };
            let values = self.0.get_mut(&topic).unwrap();
            if at < life.acknowledged {
                values.clear();
            }
            values.push(sent.value);
        }
    }

    async fn check(&mut self, process: &Process) {
        let (mut client, _) = process.client("reader", false).await;
        client.subscribe(4, 1, "r/#", 0).await;
        let mut found: HashMap<u64, u64> = (0..TOPICS).map(|topic| (topic, 0)).collect();
        for (first, body) in client.ping().await {
            let got = client.parse(first, &body);
            found.insert(got.topic[2..].parse().unwrap(), value(got.payload));
        }
        for (topic, value) in found {
            let values = self.0.get_mut(&topic).unwrap();
            assert!(
                values.contains(&value),
                "r/{topic} is {value}, not {values:?}"
            );
            *values = vec![value];
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let kills = std::env::var("NODEBUS_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let seed = StdRng::from_os_rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::start(data.path()).await;
    for id in ["absent", "present"] {
        let (mut client, _) = process.client(id, true).await;
        client.subscribe(4, 1, "q/#", 1).await;
        client.send(&[0xe0, 0]).await;
        client.closed().await;
    }

    let (mut last, mut acknowledged, mut queued) = (0, 0, 0);
    let mut allowed = Allowed::new();
    for _ in 0..kills {
        let life = Life::live(&mut process, &mut random, &mut last).await;
        allowed.sent(&life);
        drop(process);

        process = Process::start(data.path()).await;
        allowed.check(&process).await;
        for id in ["absent", "present"] {
            let (mut client, is_present) = process.client(id, true).await;
            assert!(is_present, "the session of {id} is gone");
            let got = take_all(&mut client).await;
            assert!(got.is_sorted(), "out of order for {id}: {got:?}");
            let mut got = BTreeSet::from_iter(got);
            if id == "present" {
                got.extend(&life.delivered);
            }
            let lost: Vec<u64> = life.queued().filter(|value| !got.contains(value)).collect();
            assert!(lost.is_empty(), "{id} lost {lost:?}");
            client.send(&[0xe0, 0]).await;
            client.closed().await;
        }
        acknowledged += life.acknowledged;
        queued += life.queued().count();
    }
    assert!(
        queued > 0 && queued < acknowledged,
        "nothing was acknowledged"
    );
    println!("{kills} kills, {acknowledged} acknowledged, {queued} of them queued");
}
