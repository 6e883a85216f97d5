//! A broker process that is killed at a random moment under load, again and again.
//!
//! `NODEBUS_KILLS` says how often; ten times when it is not set.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bus_broker::Role;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::{DEADLINE, Options, Raw, authority, publish, start};

/// Tells the process that is to be killed where its data is.
const DATA: &str = "NODEBUS_TEST_DATA";
const TOPICS: u64 = 20;
/// Unacknowledged messages at a time.
const WINDOW: usize = 200;

/// Not a test: what the other process runs.
#[tokio::test]
#[ignore = "run by the tests that kill it"]
async fn the_process_that_is_killed() {
    let Some(data) = std::env::var_os(DATA) else {
        return;
    };
    let data = Path::new(&data);
    let store = data.join("bus");
    let broker = start(Role::Admin, authority(), None, |config| {
        config.data = Some(store);
    })
    .await;
    let new = data.join("new");
    std::fs::write(&new, broker.plain().to_string()).unwrap();
    std::fs::rename(new, data.join("address")).unwrap();
    std::future::pending().await
}

pub(crate) struct Process(Child, SocketAddr);

impl Process {
    pub(crate) async fn start(data: &Path) -> Self {
        let address = data.join("address");
        std::fs::remove_file(&address).unwrap_or_default();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::the_process_that_is_killed", "--exact", "--ignored"])
            .env(DATA, data)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let told = async {
            while !address.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, told).await.unwrap();
        let address = std::fs::read_to_string(address).unwrap();
        Self(child, address.parse().unwrap())
    }

    pub(crate) async fn client(&self, id: &str, is_kept: bool) -> (Raw<TcpStream>, bool) {
        let mut raw = Raw::new(TcpStream::connect(self.1).await.unwrap());
        let options = Options {
            is_kept,
            ..Options::default()
        };
        let is_present = raw.connect(4, id, &options).await;
        (raw, is_present)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

/// What the publisher did: 0 removes the retained message, and no topic means the queue.
#[derive(Clone, Copy)]
struct Sent {
    topic: Option<u64>,
    value: u64,
}

/// Publishes until the process is killed; gives all that was sent and how much of it was acknowledged.
async fn load(process: &mut Process, random: &mut StdRng, value: &mut u64) -> (Vec<Sent>, usize) {
    let (client, _) = process.client("publisher", false).await;
    let (mut reader, mut writer) = client.into_stream().into_split();
    let (mut sent, mut acknowledged) = (Vec::new(), 0);
    let window = Semaphore::new(WINDOW);
    let alive = Duration::from_millis(random.random_range(20..300));
    let publishing = async {
        while let Ok(permit) = window.acquire().await {
            permit.forget();
            *value += 1;
            let topic = random
                .random_bool(0.5)
                .then(|| random.random_range(0..TOPICS));
            let is_removal = topic.is_some() && random.random_bool(0.1);
            let one = Sent {
                topic,
                value: if is_removal { 0 } else { *value },
            };
            let name = topic.map_or("q/x".to_owned(), |topic| format!("r/{topic}"));
            let payload = if is_removal {
                String::new()
            } else {
                value.to_string()
            };
            let pid = u16::try_from(sent.len() % 65_535 + 1).unwrap();
            sent.push(one);
            let packet = publish(4, &name, payload.as_bytes(), 1, pid, topic.is_some(), &[]);
            if writer.write_all(&packet).await.is_err() {
                break;
            }
        }
    };
    let reading = async {
        let mut puback = [0; 4];
        while reader.read_exact(&mut puback).await.is_ok() {
            let pid = u16::try_from(acknowledged % 65_535 + 1).unwrap();
            let [high, low] = pid.to_be_bytes();
            assert_eq!(puback, [0x40, 2, high, low], "acknowledged in order");
            acknowledged += 1;
            window.add_permits(1);
        }
        window.close();
    };
    let killing = async {
        tokio::time::sleep(alive).await;
        process.0.kill().unwrap();
    };
    tokio::join!(publishing, reading, killing);
    (sent, acknowledged)
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let kills = std::env::var("NODEBUS_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let seed = StdRng::from_os_rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::start(data.path()).await;
    let (mut absent, _) = process.client("absent", true).await;
    absent.subscribe(4, 1, "q/#", 1).await;
    absent.send(&[0xe0, 0]).await;
    absent.closed().await;

    let (mut value, mut total) = (0, 0);
    // The values that the retained message of a topic may have; 0 is none.
    let mut allowed: HashMap<u64, Vec<u64>> = (0..TOPICS).map(|topic| (topic, vec![0])).collect();
    for _ in 0..kills {
        let (sent, acknowledged) = load(&mut process, &mut random, &mut value).await;
        total += acknowledged;
        for (at, sent) in sent.iter().enumerate() {
            let Some(topic) = sent.topic else { continue };
            let values = allowed.get_mut(&topic).unwrap();
            if at < acknowledged {
                values.clear();
            }
            values.push(sent.value);
        }
        drop(process);

        process = Process::start(data.path()).await;
        let (mut client, _) = process.client("reader", false).await;
        client.subscribe(4, 1, "r/#", 0).await;
        let mut found: HashMap<u64, u64> = (0..TOPICS).map(|topic| (topic, 0)).collect();
        for (first, body) in client.ping().await {
            let got = client.parse(first, &body);
            let topic = got.topic[2..].parse().unwrap();
            found.insert(
                topic,
                String::from_utf8(got.payload).unwrap().parse().unwrap(),
            );
        }
        for (topic, value) in found {
            let values = allowed.get_mut(&topic).unwrap();
            assert!(
                values.contains(&value),
                "r/{topic} is {value}, not {values:?}"
            );
            *values = vec![value];
        }

        let (mut absent, is_present) = process.client("absent", true).await;
        assert!(is_present, "the session is gone");
        let mut got = Vec::new();
        for (first, body) in absent.ping().await {
            let message = absent.parse(first, &body);
            let [high, low] = message.pid.to_be_bytes();
            absent.send(&[0x40, 2, high, low]).await;
            let value: u64 = String::from_utf8(message.payload).unwrap().parse().unwrap();
            got.push(value);
        }
        let queued = sent[..acknowledged]
            .iter()
            .filter(|sent| sent.topic.is_none());
        for one in queued {
            assert!(got.contains(&one.value), "{} is lost", one.value);
        }
        assert!(got.is_sorted(), "out of order: {got:?}");
        absent.send(&[0xe0, 0]).await;
        absent.closed().await;
    }
    assert!(total > 0, "nothing was acknowledged in time");
    println!("{total} acknowledged");
}

#[tokio::test]
async fn sighup_reads_the_files_again_and_ends_nothing() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    let (mut client, _) = process.client("c", false).await;
    let id = process.0.id().to_string();
    let hung_up = Command::new("kill").args(["-HUP", &id]).status().unwrap();
    assert!(hung_up.success());
    assert_eq!(client.ping().await, []);
    let (mut next, _) = process.client("next", false).await;
    assert_eq!(next.ping().await, []);
}
