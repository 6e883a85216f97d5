//! A disk that fails when the test says so, and what the store makes of it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use bus::admin::Admin;
use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::*;
use crate::message::{Draft, Parts};
use crate::wire::Qos;

/// A file on a disk that can be full.
#[derive(Debug)]
struct Full(FileBackend, Arc<AtomicBool>);

impl Full {
    fn check(&self) -> Result<(), io::Error> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl StorageBackend for Full {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.check()?;
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.check()?;
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.check()?;
        self.0.write(offset, data)
    }
}

fn message(seq: u64, topic: &str, payload: &str) -> Message {
    Draft::new(&Parts {
        topic,
        payload: payload.as_bytes(),
        qos: Qos::AtLeastOnce,
        retain: true,
        origin: 0,
        expires: None,
        properties: &[],
    })
    .seal(seq, 0)
}

fn writing(store: &Store, work: impl FnOnce(&mut Writes)) -> Ticket {
    let mut writes = Writes::default();
    work(&mut writes);
    store.write(writes)
}

fn retain(store: &Store, seq: u64, topic: &str, payload: &str) -> Ticket {
    writing(store, |writes| writes.retain(&message(seq, topic, payload)))
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&Admin::default()))
}

/// A store on a disk that takes nothing while `is_full`.
pub(crate) fn on_disk(folder: &Path, is_full: Arc<AtomicBool>) -> Store {
    let path = folder.join("bus.redb");
    let open = move || {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let backend = Full(FileBackend::new(file)?, is_full.clone());
        Ok(Database::builder().create_with_backend(backend)?)
    };
    let (disk, _) = Disk::with(Box::new(open)).unwrap();
    Store::start(disk, metrics()).unwrap()
}

/// What became of a write, once it is decided.
pub(crate) fn outcome(store: &Store, ticket: Ticket) -> Outcome {
    let progress = store.progress().unwrap();
    let deadline = bus::time::now().after(Duration::from_secs(20));
    loop {
        assert!(bus::time::now().mono < deadline.mono, "no commit in time");
        let outcome = progress.borrow().outcome(ticket);
        if outcome != Outcome::Pending {
            return outcome;
        }
        std::thread::yield_now();
    }
}

fn payloads(folder: &Path) -> Vec<(String, String)> {
    let (_, loaded) = Disk::open(folder).unwrap();
    let text = |message: &Message| String::from_utf8(message.payload().to_vec()).unwrap();
    let found = loaded.retained.iter();
    let mut found: Vec<_> = found.map(|m| (m.topic().to_owned(), text(m))).collect();
    found.sort();
    found
}

#[test]
fn the_last_value_of_a_topic_is_kept_and_removals_too() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path(), metrics()).unwrap();
    for seq in 0..100 {
        retain(&store, seq, "a", &seq.to_string());
    }
    retain(&store, 100, "b", "x");
    let ticket = retain(&store, 101, "c", "x");
    assert_eq!(outcome(&store, ticket), Outcome::Stored);
    retain(&store, 102, "b", "");
    store.close();
    let kept = [("a", "99"), ("c", "x")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(payloads(folder.path()), kept);
}

#[test]
fn waiting_messages_go_with_their_session() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path(), metrics()).unwrap();
    for number in 1..=3 {
        store.keep(number, vec![1]);
        for seq in 0..10 {
            writing(&store, |writes| {
                writes.queue(number, &message(seq, "a", "x"));
                writes.receive(number, 7);
                writes.send(number, 8, Some(seq));
                writes.send(number, 9, None);
            });
        }
        if number == 2 {
            let ticket = store.keep(2, vec![2]);
            assert_eq!(outcome(&store, ticket), Outcome::Stored);
        }
    }
    writing(&store, |writes| {
        (0..9).for_each(|seq| writes.unqueue(1, seq))
    });
    writing(&store, |writes| writes.complete(1, 9));
    writing(&store, |writes| writes.release(1, 99));
    store.end(2);
    store.end(3);
    store.close();
    let (_, loaded) = Disk::open(folder.path()).unwrap();
    assert_eq!(loaded.sessions, [(1, vec![1])]);
    let flows = &loaded.flows[&1];
    let waiting: Vec<u64> = flows.queued.iter().map(Message::seq).collect();
    assert_eq!((waiting, loaded.flows.len()), (vec![9], 1));
    assert_eq!(
        (&flows.received[..], &flows.sent[..]),
        (&[7][..], &[(8, Some(9))][..])
    );
}

#[test]
fn a_write_that_was_undone_before_its_commit_counts_as_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path(), metrics()).unwrap();
    for seq in 0..50 {
        let ticket = writing(&store, |writes| writes.queue(1, &message(seq, "a", "x")));
        writing(&store, |writes| writes.unqueue(1, seq));
        assert_eq!(outcome(&store, ticket), Outcome::Stored);
    }
    store.close();
}

#[test]
fn what_a_full_disk_refuses_is_not_stored_and_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let store = on_disk(folder.path(), is_full.clone());
    let before = retain(&store, 1, "a", "before");
    assert_eq!(outcome(&store, before), Outcome::Stored);

    is_full.store(true, Ordering::SeqCst);
    let refused = retain(&store, 2, "b", "refused");
    let older = retain(&store, 3, "c", "older");
    assert_eq!(outcome(&store, refused), Outcome::Failed);
    assert_eq!(outcome(&store, older), Outcome::Failed);
    assert!(store.is_failing());
    retain(&store, 4, "c", "newer");
    is_full.store(false, Ordering::SeqCst);
    let after = retain(&store, 5, "d", "after");
    while store.is_failing() {
        std::thread::yield_now();
    }
    assert_eq!(outcome(&store, after), Outcome::Stored);
    store.close();
    drop(store);
    let kept = [
        ("a", "before"),
        ("b", "refused"),
        ("c", "newer"),
        ("d", "after"),
    ];
    let kept = kept.map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(payloads(folder.path()), kept);
}

#[test]
fn a_file_that_is_no_store_is_an_error_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bus.redb"), vec![7; 8192]).unwrap();
    let error = Store::open(folder.path(), metrics()).unwrap_err();
    assert!(error.to_string().contains("move it away"), "{error}");
    let error = Store::open(&folder.path().join("bus.redb"), metrics()).unwrap_err();
    assert!(error.to_string().contains("bus.data"), "{error}");
}
