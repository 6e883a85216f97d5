//! The queue on a real disk.

use std::cell::Cell;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::session::outbox::Outbox;

const PATIENCE: Duration = Duration::from_secs(20);

fn config(folder: Option<&Path>) -> QueueConfig {
    QueueConfig {
        folder: folder.map(Path::to_owned),
        max_bytes: 1000,
    }
}

fn open(folder: &Path) -> Queue {
    let opened = Queue::open(&config(Some(folder)), Metrics::default());
    opened.unwrap().0
}

/// 100 bytes as a record.
fn publication(n: usize) -> Publication {
    let payload = format!("{n:0>90}");
    Publication::retained("topic".to_owned(), payload)
}

/// Everything that can be sent, as the numbers in the payloads.
async fn send_all(queue: &mut Queue, outbox: &mut Outbox) -> Vec<usize> {
    let mut sent = Vec::new();
    while !queue.is_sent() {
        while let Some((number, publication)) = queue.next() {
            assert!(publication.retain && publication.topic == "topic");
            let text = std::str::from_utf8(&publication.payload).unwrap();
            sent.push(text.parse().unwrap());
            let ticket = outbox.push(publication);
            queue.sent(number, ticket);
        }
        if !queue.is_sent() {
            let changed = tokio::time::timeout(PATIENCE, queue.changed());
            changed.await.expect("nothing was read");
            queue.handle_changed();
        }
    }
    sent
}

#[tokio::test]
async fn records_outlive_the_process_until_they_are_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(folder.path());
    (0..5).for_each(|n| queue.push(&publication(n)));
    queue.keep("n".to_owned(), Some(b"node".to_vec()));
    queue.keep("gone".to_owned(), Some(b"node".to_vec()));
    queue.keep("gone".to_owned(), None);
    queue.close();
    let (mut queue, nodes) = Queue::open(&config(Some(folder.path())), Metrics::default()).unwrap();
    assert_eq!(nodes, [("n".to_owned(), b"node".to_vec())]);
    let mut outbox = Outbox::default();
    assert_eq!(send_all(&mut queue, &mut outbox).await, [0, 1, 2, 3, 4]);
    let left = Cell::new(3);
    queue.acknowledge(|_| left.replace(left.get() - 1) > 0);
    queue.push(&publication(5));
    queue.close();
    let mut queue = open(folder.path());
    let mut outbox = Outbox::default();
    assert_eq!(send_all(&mut queue, &mut outbox).await, [3, 4, 5]);
    queue.acknowledge(|_| true);
    queue.close();
    assert!(open(folder.path()).is_sent());
}

#[tokio::test]
async fn past_the_bound_the_oldest_are_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    let opened = Queue::open(&config(Some(folder.path())), metrics.clone());
    let mut queue = opened.unwrap().0;
    (0..25).for_each(|n| queue.push(&publication(n)));
    assert!(queue.take_lost() && !queue.take_lost());
    assert_eq!(metrics.dropped_for(Reason::QueueFull), 15);
    assert_eq!(
        (metrics.waiting.get(), metrics.waiting_bytes.get()),
        (10, 1000)
    );
    queue.close();
    let mut queue = open(folder.path());
    let sent = send_all(&mut queue, &mut Outbox::default()).await;
    assert_eq!(sent, (15..25).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_the_session_gives_back_keeps_its_place() {
    let mut queue = Queue::open(&config(None), Metrics::default()).unwrap().0;
    let mut outbox = Outbox::default();
    outbox.push(publication(0));
    outbox.push(publication(1));
    (2..4).for_each(|n| queue.push(&publication(n)));
    assert_eq!(send_all(&mut queue, &mut outbox).await, [2, 3]);
    outbox.push(publication(4));
    let unsent = outbox.take_back();
    assert_eq!(unsent.len(), 5);
    queue.rewind(unsent, Some);
    queue.push(&publication(5));
    let sent = send_all(&mut queue, &mut Outbox::default()).await;
    assert_eq!(sent, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn what_is_written_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(folder.path());
    for n in 1..=3 {
        queue.push(&publication(n));
        assert_eq!(queue.appended(), n as u64);
        assert!(queue.written() < queue.appended(), "a commit takes time");
        while queue.written() < queue.appended() {
            let changed = tokio::time::timeout(PATIENCE, queue.changed());
            changed.await.expect("nothing was written");
        }
        // As it is on disk now, after a crash.
        let crashed = tempfile::tempdir().unwrap();
        let copy = crashed.path().join("bridge.redb");
        std::fs::copy(folder.path().join("bridge.redb"), copy).unwrap();
        let mut after = open(crashed.path());
        let sent = send_all(&mut after, &mut Outbox::default()).await;
        assert_eq!(sent, (1..=n).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_is_moved_aside() {
    type Damage = fn(&mut std::fs::File);
    let damages: [Damage; 3] = [
        |file| file.set_len(20_000).unwrap(),
        |file| file.set_len(0).unwrap(),
        |file| {
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(&[0xa5; 16_384]).unwrap();
        },
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = open(folder.path());
        (0..9).for_each(|n| queue.push(&publication(n)));
        queue.close();
        let path = folder.path().join("bridge.redb");
        let mut file = std::fs::File::options().write(true).open(path).unwrap();
        damage(&mut file);
        let mut queue = open(folder.path());
        assert!(queue.is_sent(), "damage {n}");
        queue.push(&publication(7));
        queue.close();
        let mut queue = open(folder.path());
        let sent = send_all(&mut queue, &mut Outbox::default()).await;
        assert_eq!(sent, [7], "damage {n}");
    }
}

#[test]
fn a_folder_that_can_not_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Queue::open(&config(Some(&file)), Metrics::default()).unwrap_err();
    assert!(error.to_string().contains("file can't be made"), "{error}");
    let _queue = open(folder.path());
    let error = Queue::open(&config(Some(folder.path())), Metrics::default()).unwrap_err();
    assert!(
        error.to_string().contains("no other bridge uses it"),
        "{error}"
    );
}

#[test]
fn no_damage_keeps_a_bridge_from_starting() {
    let mut rng = SmallRng::seed_from_u64(1);
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(folder.path());
    (0..9).for_each(|n| queue.push(&publication(n)));
    queue.close();
    let sound = std::fs::read(folder.path().join("bridge.redb")).unwrap();
    for _ in 0..20 {
        let mut damaged = sound.clone();
        for _ in 0..rng.random_range(1..200) {
            let at = rng.random_range(0..damaged.len());
            damaged[at] = rng.random();
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bridge.redb"), &damaged).unwrap();
        let mut queue = open(folder.path());
        queue.push(&publication(9));
        queue.close();
        assert!(!open(folder.path()).is_sent());
    }
}
