//! The queue's records and the bridge's nodes on disk: one thread around a redb database.
//!
//! What is written gathers in memory and is committed together. While the disk takes nothing it is
//! kept, up to [`MAX_PENDING`], and tried again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use tokio::sync::Notify;

use crate::bridge::metrics::Metrics;

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const NODES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("nodes");

/// The file in the folder.
const FILE: &str = "bridge.redb";
/// Pages kept in memory, in bytes.
const CACHE: usize = 4 * 1024 * 1024;
/// How long writes gather before they are committed.
const WINDOW: Duration = Duration::from_millis(10);
/// Between two tries while the disk takes nothing.
const RETRY: Duration = Duration::from_secs(1);
/// Records that are not committed yet, in bytes. Full: the bridge takes nothing from its nodes.
const MAX_PENDING: usize = 4 * 1024 * 1024;
/// Records are read in pieces of so many bytes.
const CHUNK: usize = 256 * 1024;

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its folder can't be made.
    #[error("the folder {} can't be made: set `data` to a folder that nodebus may write to", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its file can't be opened.
    #[error("{} can't be opened: see that nodebus may write to it and that no other bridge uses it", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// The system gives no thread.
    #[error("the store did not start: the system gave it no thread")]
    Thread(#[source] io::Error),
}

/// What is kept of one node, by its uid.
pub(super) type KeptNode = (String, Vec<u8>);

/// What the store held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The number of the oldest record.
    pub(super) first: Option<u64>,
    /// The sizes of all.
    pub(super) sizes: VecDeque<u32>,
    /// What is kept of nodes.
    pub(super) nodes: Vec<KeptNode>,
}

/// Writes that are committed together: the removal first.
#[derive(Debug, Default)]
struct Batch {
    /// Records before this number go.
    remove_below: Option<u64>,
    records: BTreeMap<u64, Bytes>,
    nodes: HashMap<String, Option<Vec<u8>>>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.remove_below.is_none() && self.records.is_empty() && self.nodes.is_empty()
    }

    fn bytes(&self) -> usize {
        self.records.values().map(Bytes::len).sum()
    }

    /// Takes an older batch, that could not be committed, below this one.
    fn put_back(&mut self, mut older: Self) {
        if let Some(first) = self.remove_below {
            older.records = older.records.split_off(&first);
        }
        self.remove_below = self.remove_below.max(older.remove_below);
        for (number, record) in older.records {
            self.records.entry(number).or_insert(record);
        }
        for (uid, node) in older.nodes {
            self.nodes.entry(uid).or_insert(node);
        }
    }
}

/// Consecutive records, from the first number.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) from: u64,
    pub(super) records: VecDeque<(u64, Bytes)>,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// Bytes of records in the batch and in the commit that is going on.
    pending: usize,
    /// How many records were appended since the start; and how many of them, the oldest, a commit has
    /// dealt with.
    appended: u64,
    committed: u64,
    /// Records are wanted from this number on.
    wanted: Option<u64>,
    read: Option<Chunk>,
    is_failing: bool,
    is_closing: bool,
    has_died: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the thread.
    work: Condvar,
    /// Wakes the bridge: records were read or committed.
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Store {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    is_durable: bool,
    metrics: Metrics,
}

impl Store {
    /// Opens the store in `folder`, or makes it there; without a folder it is in memory. A damaged
    /// file is moved aside.
    pub(super) fn open(
        folder: Option<&Path>,
        metrics: Metrics,
    ) -> Result<(Self, Loaded), StoreError> {
        let (disk, loaded) = match folder {
            Some(folder) => open_in(folder)?,
            None => in_memory()?,
        };
        let shared = Arc::new(Shared::default());
        let (theirs, counters) = (shared.clone(), metrics.clone());
        let thread = std::thread::Builder::new()
            .name("bridge-store".to_owned())
            .spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| run(&theirs, disk, &counters)));
                theirs.state().has_died = ended.is_err();
                theirs.changed.notify_one();
            })
            .map_err(StoreError::Thread)?;
        let store = Self {
            shared,
            thread: Some(thread),
            is_durable: folder.is_some(),
            metrics,
        };
        Ok((store, loaded))
    }

    /// Whether anything outlives the process.
    pub(super) fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// Takes a record; gives how many it has taken.
    pub(super) fn append(&self, number: u64, record: Bytes) -> u64 {
        let mut state = self.shared.state();
        state.pending += record.len();
        state.appended += 1;
        let appended = state.appended;
        self.metrics.unwritten(state.pending);
        state.batch.records.insert(number, record);
        drop(state);
        self.shared.work.notify_one();
        appended
    }

    /// How many of the records taken, the oldest, are on disk, or were removed since.
    pub(super) fn committed(&self) -> u64 {
        self.shared.state().committed
    }

    pub(super) fn remove_below(&self, first: u64) {
        let mut state = self.shared.state();
        let before = state.batch.bytes();
        state.batch.records = state.batch.records.split_off(&first);
        state.pending = state.pending.saturating_sub(before - state.batch.bytes());
        state.batch.remove_below = Some(first);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Keeps what is known of a node; none removes it.
    pub(super) fn keep(&self, uid: String, node: Option<Vec<u8>>) {
        self.shared.state().batch.nodes.insert(uid, node);
        self.shared.work.notify_one();
    }

    /// Whether the thread has ended in a panic, as redb does when its file was changed below it.
    pub(super) fn has_died(&self) -> bool {
        self.shared.state().has_died
    }

    /// Whether further records are taken.
    pub(super) fn has_room(&self) -> bool {
        self.shared.state().pending < MAX_PENDING
    }

    /// Asks for records from this number on; [`Store::changed`] when they are there.
    pub(super) fn want(&self, from: u64) {
        self.shared.state().wanted = Some(from);
        self.shared.work.notify_one();
    }

    /// The records that were asked for last.
    pub(super) fn take_read(&self) -> Option<Chunk> {
        self.shared.state().read.take()
    }

    /// Completes when records were read or committed since the last time. Cancel safe.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Commits what is left and ends the thread. Blocks until it has.
    pub(super) fn close(mut self) {
        self.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread ended with a panic");
        }
    }

    fn end(&self) {
        self.shared.state().is_closing = true;
        self.shared.work.notify_one();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end();
    }
}

fn in_memory() -> Result<(Disk, Loaded), StoreError> {
    let create = || -> Result<_, redb::Error> {
        let database = Database::builder().create_with_backend(InMemoryBackend::new())?;
        let loaded = prepare(&database)?;
        Ok((database, loaded))
    };
    let (database, loaded) = create().map_err(|source| StoreError::Unusable {
        path: PathBuf::from("memory"),
        source: Box::new(source),
    })?;
    let disk = Disk {
        path: None,
        database: Some(database),
    };
    Ok((disk, loaded))
}

fn open_in(folder: &Path) -> Result<(Disk, Loaded), StoreError> {
    // What nodes say is nobody else's business.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| StoreError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    let path = folder.join(FILE);
    let opened = match open(&path) {
        Ok(opened) => Ok(opened),
        Err(error) if is_damage(&error) => {
            let aside = path.with_extension("damaged");
            let error: &dyn std::error::Error = &error;
            tracing::error!(
                error,
                file = %path.display(),
                moved_to = %aside.display(),
                "the store is damaged and was moved aside: what waited in it for the bus is lost"
            );
            let moved = std::fs::rename(&path, &aside).map_err(redb::Error::Io);
            moved.and_then(|()| open(&path))
        }
        Err(error) => Err(error),
    };
    match opened {
        Ok((database, loaded)) => {
            let disk = Disk {
                path: Some(path),
                database: Some(database),
            };
            Ok((disk, loaded))
        }
        Err(source) => Err(StoreError::Unusable {
            path,
            source: Box::new(source),
        }),
    }
}

/// Whether this is what a damaged file gives, and not one that may not be used now.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. } => true,
        redb::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
        ),
        _ => false,
    }
}

fn open(path: &Path) -> Result<(Database, Loaded), redb::Error> {
    // redb finds some damages with an assertion.
    catch_unwind(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        let database = builder.create(path)?;
        let loaded = prepare(&database)?;
        Ok((database, loaded))
    })
    .unwrap_or_else(|_| Err(redb::Error::Corrupted("an assertion failed".to_owned())))
}

/// Makes the tables, and reads what is in them.
fn prepare(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(NODES)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let mut loaded = Loaded::default();
    for entry in transaction.open_table(RECORDS)?.iter()? {
        let (number, record) = entry?;
        let number = number.value();
        let first = *loaded.first.get_or_insert(number);
        if number != first + loaded.sizes.len() as u64 {
            let gap = "a record of the queue is missing".to_owned();
            return Err(StorageError::Corrupted(gap).into());
        }
        let size = u32::try_from(record.value().len()).unwrap_or(u32::MAX);
        loaded.sizes.push_back(size);
    }
    for entry in transaction.open_table(NODES)?.iter()? {
        let (uid, node) = entry?;
        let node = node.value().to_vec();
        loaded.nodes.push((uid.value().to_owned(), node));
    }
    Ok(loaded)
}

/// Commits and reads until the store is closed.
fn run(shared: &Shared, mut disk: Disk, metrics: &Metrics) {
    loop {
        let Gathered {
            batch,
            appended,
            wanted,
            is_closing,
        } = gather(shared);
        let bytes = batch.bytes();
        let result = match batch.is_empty() {
            true => None,
            false => Some(disk.commit(&batch)),
        };
        let mut state = shared.state();
        match result {
            None => {}
            Some(Ok(())) => {
                state.committed = appended;
                state.pending = state.pending.saturating_sub(bytes);
                if std::mem::take(&mut state.is_failing) {
                    tracing::info!("the store can be written again");
                }
            }
            Some(Err(error)) => {
                metrics.failed_commits.inc();
                if !state.is_failing {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(
                        error,
                        "what waits for the bus can't be written: make room on the disk; soon nodes are told to wait"
                    );
                }
                state.is_failing = true;
                state.batch.put_back(batch);
                state.pending = state.batch.bytes();
            }
        }
        metrics.unwritten(state.pending);
        if let Some(from) = wanted {
            state.read = Some(disk.read(from, &state.batch));
        }
        let failing = state.is_failing;
        drop(state);
        shared.changed.notify_one();
        if is_closing {
            if failing {
                tracing::error!("what was written last is not on disk");
            }
            return;
        }
    }
}

/// What there is to do.
struct Gathered {
    batch: Batch,
    /// How many records were appended up to here.
    appended: u64,
    wanted: Option<u64>,
    is_closing: bool,
}

/// Waits until there is something to do and its window is over; takes it.
fn gather(shared: &Shared) -> Gathered {
    let mut state = shared.state();
    while state.batch.is_empty() && state.wanted.is_none() && !state.is_closing {
        let waited = shared.work.wait(state);
        state = waited.unwrap_or_else(PoisonError::into_inner);
    }
    let window = if state.is_failing { RETRY } else { WINDOW };
    let waited = shared.work.wait_timeout_while(state, window, |state| {
        !state.is_closing && state.wanted.is_none()
    });
    let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
    // Whoever wants to read does not wait for a disk that takes nothing.
    let is_too_early = state.is_failing && !state.is_closing && !waited.timed_out();
    let batch = match is_too_early {
        true => Batch::default(),
        false => std::mem::take(&mut state.batch),
    };
    Gathered {
        batch,
        appended: state.appended,
        wanted: state.wanted.take(),
        is_closing: state.is_closing,
    }
}

#[derive(Debug)]
struct Disk {
    /// None when it is in memory.
    path: Option<PathBuf>,
    /// None after a failure: redb asks to be opened again then.
    database: Option<Database>,
}

impl Disk {
    fn database(&mut self) -> Result<&Database, redb::Error> {
        if let (None, Some(path)) = (&self.database, &self.path) {
            self.database = Some(Database::builder().set_cache_size(CACHE).create(path)?);
        }
        let gone = || redb::Error::Corrupted("what was in memory is gone".to_owned());
        self.database.as_ref().ok_or_else(gone)
    }

    /// Writes everything, or nothing.
    fn commit(&mut self, batch: &Batch) -> Result<(), redb::Error> {
        let committed = self.database().and_then(|database| commit(database, batch));
        if committed.is_err() && self.path.is_some() {
            self.database = None;
        }
        committed
    }

    /// Records from a number on without a gap: those on disk, then those that are not yet.
    fn read(&mut self, from: u64, batch: &Batch) -> Chunk {
        let mut records = VecDeque::new();
        let found = self
            .database()
            .and_then(|database| read(database, from, &mut records));
        if let Err(error) = found {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "what waits for the bus can't be read");
        }
        let next = records.back().map_or(from, |(number, _)| number + 1);
        let pending = batch.records.range(next..);
        let without_gap = (next..)
            .zip(pending)
            .take_while(|(next, (number, _))| next == *number);
        records.extend(without_gap.map(|(number, (_, record))| (number, record.clone())));
        Chunk { from, records }
    }
}

fn commit(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut nodes = transaction.open_table(NODES)?;
        if let Some(first) = batch.remove_below {
            records.retain_in(..first, |_, _| false)?;
        }
        for (number, record) in &batch.records {
            records.insert(number, &record[..])?;
        }
        for (uid, node) in &batch.nodes {
            match node {
                Some(node) => nodes.insert(uid.as_str(), &node[..])?,
                None => nodes.remove(uid.as_str())?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(
    database: &Database,
    from: u64,
    records: &mut VecDeque<(u64, Bytes)>,
) -> Result<(), redb::Error> {
    let mut bytes = 0;
    for entry in database.begin_read()?.open_table(RECORDS)?.range(from..)? {
        let (number, record) = entry?;
        let record = Bytes::copy_from_slice(record.value());
        bytes += record.len();
        records.push_back((number.value(), record));
        if bytes >= CHUNK {
            break;
        }
    }
    Ok(())
}
