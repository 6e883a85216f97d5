//! The store's file: one redb database with a table for each kind.

use std::collections::HashMap;
use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::{Batch, Key};
use crate::message::Message;

const RETAINED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("retained");
const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions");
const QUEUED: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("queued");
const RECEIVED: TableDefinition<'_, (u64, u16), ()> = TableDefinition::new("received");
const SENT: TableDefinition<'_, (u64, u16), u64> = TableDefinition::new("sent");

/// Pages kept in memory, bytes. The messages themselves are in memory already.
const CACHE: usize = 8 * 1024 * 1024;
const FILE: &str = "bus.redb";

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its folder can't be made.
    #[error("bus.data = {} can't be made: choose a folder that nodebus may write to", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its file can't be opened or read.
    #[error(
        "the store {} can't be opened: see that nodebus may write to it and that no other nodebus uses it; if it is damaged, move it away and the bus starts empty",
        path.display()
    )]
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

/// All that a store held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) retained: Vec<Message>,
    /// Sessions by number, as they were written.
    pub(crate) sessions: Vec<(u64, Vec<u8>)>,
    /// What belongs to sessions, by their number.
    pub(crate) flows: HashMap<u64, Flows>,
}

/// The messages of one session that were under way.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    /// Messages that wait for it, oldest first.
    pub(crate) queued: Vec<Message>,
    /// Packet Identifiers of QoS 2 messages from it that were not released.
    pub(crate) received: Vec<u16>,
    /// Packet Identifiers of QoS 2 messages that it was sent, with their numbers; none when PUBCOMP
    /// is awaited.
    pub(crate) sent: Vec<(u16, Option<u64>)>,
}

impl Loaded {
    /// The highest number of a message in it.
    pub(crate) fn last_seq(&self) -> u64 {
        self.messages().map(Message::seq).max().unwrap_or(0)
    }

    /// The highest number of a session in it, or of one that a message came from.
    pub(crate) fn last_session(&self) -> u64 {
        let origins = self.messages().map(Message::origin);
        let sessions = self.sessions.iter().map(|(number, _)| *number);
        origins.chain(sessions).max().unwrap_or(0)
    }

    fn messages(&self) -> impl Iterator<Item = &Message> {
        let queued = self.flows.values().flat_map(|flows| &flows.queued);
        self.retained.iter().chain(queued)
    }
}

/// Opens the database; once at the start, and again after a failure.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

pub(super) struct Disk {
    open: Opener,
    /// None after a failure: redb asks to be opened again then.
    database: Option<Database>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl Disk {
    pub(super) fn open(folder: &Path) -> Result<(Self, Loaded), StoreError> {
        // What clients say to each other is nobody else's business.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| StoreError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let path = folder.join(FILE);
        let file = path.clone();
        let open = move || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE);
            Ok(builder.create(&file)?)
        };
        Self::with(Box::new(open)).map_err(|source| StoreError::Unusable {
            path,
            source: Box::new(source),
        })
    }

    pub(super) fn with(open: Opener) -> Result<(Self, Loaded), redb::Error> {
        let database = open()?;
        // All tables are there from now on, and the file can be written.
        let transaction = database.begin_write()?;
        transaction.open_table(RETAINED)?;
        transaction.open_table(SESSIONS)?;
        transaction.open_table(QUEUED)?;
        transaction.open_table(RECEIVED)?;
        transaction.open_table(SENT)?;
        transaction.commit()?;
        let loaded = load(&database)?;
        let disk = Self {
            open,
            database: Some(database),
        };
        Ok((disk, loaded))
    }

    /// Writes everything, or nothing.
    pub(super) fn commit(&mut self, batch: &Batch, ended: &[u64]) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)()?,
        };
        commit(&database, batch, ended)?;
        self.database = Some(database);
        Ok(())
    }
}

fn commit(database: &Database, batch: &Batch, ended: &[u64]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut retained = transaction.open_table(RETAINED)?;
        let mut sessions = transaction.open_table(SESSIONS)?;
        let mut queued = transaction.open_table(QUEUED)?;
        let mut received = transaction.open_table(RECEIVED)?;
        let mut sent = transaction.open_table(SENT)?;
        for &number in ended {
            queued.retain_in((number, 0)..=(number, u64::MAX), |_, _| false)?;
            received.retain_in((number, 0)..=(number, u16::MAX), |_, ()| false)?;
            sent.retain_in((number, 0)..=(number, u16::MAX), |_, _| false)?;
        }
        for (key, value) in batch {
            match (key, value.as_deref()) {
                (Key::Retained(topic), Some(value)) => {
                    retained.insert(topic.as_str(), value)?;
                }
                (Key::Retained(topic), None) => {
                    retained.remove(topic.as_str())?;
                }
                (Key::Session(number), Some(value)) => {
                    sessions.insert(number, value)?;
                }
                (Key::Session(number), None) => {
                    sessions.remove(number)?;
                }
                (&Key::Queued(number, seq), Some(value)) => {
                    queued.insert((number, seq), value)?;
                }
                (&Key::Queued(number, seq), None) => {
                    queued.remove((number, seq))?;
                }
                (&Key::Received(number, pid), Some(_)) => {
                    received.insert((number, pid), ())?;
                }
                (&Key::Received(number, pid), None) => {
                    received.remove((number, pid))?;
                }
                (&Key::Sent(number, pid), Some(value)) => {
                    let seq = value.try_into().map_or(0, u64::from_be_bytes);
                    sent.insert((number, pid), seq)?;
                }
                (&Key::Sent(number, pid), None) => {
                    sent.remove((number, pid))?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn message(bytes: &[u8]) -> Option<Message> {
    let message = Message::from_bytes(Bytes::copy_from_slice(bytes));
    if message.is_none() {
        tracing::error!("the store holds something that is no message: it is left out");
    }
    message
}

fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_read()?;
    let mut loaded = Loaded::default();
    let retained = transaction.open_table(RETAINED)?;
    let count = usize::try_from(retained.len()?).unwrap_or(0);
    loaded.retained.reserve(count);
    for entry in retained.iter()? {
        loaded.retained.extend(message(entry?.1.value()));
    }
    for entry in transaction.open_table(SESSIONS)?.iter()? {
        let (number, session) = entry?;
        let session = session.value().to_vec();
        loaded.sessions.push((number.value(), session));
    }
    for entry in transaction.open_table(QUEUED)?.iter()? {
        let (key, value) = entry?;
        let (number, _) = key.value();
        let flows = loaded.flows.entry(number).or_default();
        flows.queued.extend(message(value.value()));
    }
    for entry in transaction.open_table(RECEIVED)?.iter()? {
        let (number, pid) = entry?.0.value();
        loaded.flows.entry(number).or_default().received.push(pid);
    }
    for entry in transaction.open_table(SENT)?.iter()? {
        let (key, seq) = entry?;
        let (number, pid) = key.value();
        let seq = Some(seq.value()).filter(|&seq| seq > 0);
        loaded
            .flows
            .entry(number)
            .or_default()
            .sent
            .push((pid, seq));
    }
    Ok(loaded)
}
