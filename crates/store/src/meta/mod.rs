//! The metadata database: small records, transactional, one writer that groups commits.
//!
//! Values are JSON inside a version envelope, `{"v":1,"d":…}`. Only one process can have the
//! database open. Reads see every commit that has returned, lazy ones too.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::file::DatabaseFile;
use self::writer::{Job, Shared, Writer};
use crate::error::{Error, IoContext, Result};

mod file;
mod writer;

/// The version that records are written with, and the newest that is read.
pub const RECORD_VERSION: u32 = 1;

/// Database pages kept in memory; the database itself is a few megabytes.
const CACHE_BYTES: usize = 4 << 20;

/// A table of the database; keys are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Table {
    /// Image records by image id.
    Images,
    /// Image ids by reference.
    Tags,
    /// What names stand for besides one image, by reference.
    Indexes,
    /// When each image was last used (nanoseconds since 1970), by image id.
    Used,
    /// Layer records by chain id.
    Layers,
    /// Writable layers by container id.
    Mounts,
    /// Containers by id.
    Containers,
    /// Working containers (images made step by step) by id.
    Working,
    /// Networks by id.
    Networks,
    /// Volumes by name.
    Volumes,
    /// Leases by id.
    Leases,
    /// Repositories that have a blob, by its digest.
    Sources,
    /// Steps of builds, by the digest of everything that they depend on.
    Steps,
    /// What steps of builds depended on, for people, by the digest of that.
    Inputs,
    /// Cache mounts of builds, by the digest of their name.
    Caches,
    /// What servers said of files that builds downloaded, by the digest of their address.
    Fetched,
    /// Single values by name.
    Kv,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 17] = [
        Self::Images,
        Self::Tags,
        Self::Indexes,
        Self::Used,
        Self::Layers,
        Self::Mounts,
        Self::Containers,
        Self::Working,
        Self::Networks,
        Self::Volumes,
        Self::Leases,
        Self::Sources,
        Self::Steps,
        Self::Inputs,
        Self::Caches,
        Self::Fetched,
        Self::Kv,
    ];

    /// The name in the database file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Tags => "tags",
            Self::Indexes => "indexes",
            Self::Used => "used",
            Self::Layers => "layers",
            Self::Mounts => "mounts",
            Self::Containers => "containers",
            Self::Working => "working",
            Self::Networks => "networks",
            Self::Volumes => "volumes",
            Self::Leases => "leases",
            Self::Sources => "sources",
            Self::Steps => "steps",
            Self::Inputs => "inputs",
            Self::Caches => "caches",
            Self::Fetched => "fetched",
            Self::Kv => "kv",
        }
    }

    const fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.name())
    }
}

#[derive(Serialize)]
struct Envelope<'a, T: ?Sized> {
    v: u32,
    d: &'a T,
}

#[derive(Deserialize)]
struct Stored<'a> {
    v: u32,
    #[serde(borrow)]
    d: &'a RawValue,
}

#[derive(Debug)]
enum Op {
    Put(Table, String, Vec<u8>),
    Delete(Table, String),
}

impl Op {
    /// What it leaves behind, by key.
    fn to_pending(&self) -> ((Table, String), Option<Vec<u8>>) {
        match self {
            Self::Put(table, key, value) => ((*table, key.clone()), Some(value.clone())),
            Self::Delete(table, key) => ((*table, key.clone()), None),
        }
    }
}

/// Changes that become visible together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    ops: Vec<Op>,
    failed: Option<String>,
}

impl Batch {
    /// No changes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `value` under `key`. A value that cannot be written as JSON fails the commit.
    #[must_use]
    pub fn put<T: Serialize + ?Sized>(mut self, table: Table, key: &str, value: &T) -> Self {
        match serde_json::to_vec(&Envelope { v: RECORD_VERSION, d: value }) {
            Ok(bytes) => self.ops.push(Op::Put(table, key.to_owned(), bytes)),
            Err(e) => self.failed = Some(format!("encode {} {key}: {e}", table.name())),
        }
        self
    }

    /// Deletes `key`; it need not exist.
    #[must_use]
    pub fn delete(mut self, table: Table, key: &str) -> Self {
        self.ops.push(Op::Delete(table, key.to_owned()));
        self
    }

    /// True if nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.failed.is_none()
    }
}

struct Inner {
    db: Shared,
    jobs: Mutex<Option<Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The database. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Meta {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meta")
    }
}

impl Meta {
    /// Opens or creates the database at `path`. With `sync` false commits do not wait for the
    /// disk, and all since the last clean close may be lost with the power.
    ///
    /// # Errors
    /// `Conflict` if another process has it open; `Corrupt` if the file is no database.
    pub fn open(path: &Path, sync: bool) -> Result<Self> {
        let db: Shared = Arc::new(RwLock::new(Some(open_database(path)?)));
        let (jobs, queue) = channel();
        let writer = Writer { path: path.to_owned(), db: Arc::clone(&db), sync, pending: BTreeMap::new() };
        let writer = std::thread::Builder::new()
            .name("meta-writer".into())
            .spawn(move || writer.run(&queue))
            .map_err(|e| Error::io("start the metadata writer", e))?;
        let inner = Inner { db, jobs: Mutex::new(Some(jobs)), writer: Mutex::new(Some(writer)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The record under `key`.
    ///
    /// # Errors
    /// `Corrupt` if it cannot be decoded, `Unimplemented` if a newer version wrote it.
    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>> {
        self.read(table, |rows| {
            let Some(value) = rows.get(key).map_err(|e| db_error("read", e))? else { return Ok(None) };
            decode(table, key, value.value()).map(Some)
        })
    }

    /// True if there is a record under `key`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn contains(&self, table: Table, key: &str) -> Result<bool> {
        self.read(table, |rows| Ok(rows.get(key).map_err(|e| db_error("read", e))?.is_some()))
    }

    /// All records of a table, in key order.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn list<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        self.read(table, |rows| {
            let mut out = Vec::new();
            for row in rows.iter().map_err(|e| db_error("read", e))? {
                let (key, value) = row.map_err(|e| db_error("read", e))?;
                let record = decode(table, key.value(), value.value())?;
                out.push((key.value().to_owned(), record));
            }
            Ok(out)
        })
    }

    /// All records of a table as JSON, in key order, each with what keeps it from being read.
    ///
    /// # Errors
    /// When the database fails.
    pub fn values(&self, table: Table) -> Result<Vec<(String, Result<serde_json::Value>)>> {
        self.read(table, |rows| {
            let mut out = Vec::new();
            for row in rows.iter().map_err(|e| db_error("read", e))? {
                let (key, value) = row.map_err(|e| db_error("read", e))?;
                out.push((key.value().to_owned(), decode(table, key.value(), value.value())));
            }
            Ok(out)
        })
    }

    /// All keys of a table, in order.
    ///
    /// # Errors
    /// When the database fails.
    pub fn keys(&self, table: Table) -> Result<Vec<String>> {
        self.read(table, |rows| {
            let mut out = Vec::new();
            for row in rows.iter().map_err(|e| db_error("read", e))? {
                out.push(row.map_err(|e| db_error("read", e))?.0.value().to_owned());
            }
            Ok(out)
        })
    }

    /// Reads a table; once more on a database opened again if an earlier failure made this one useless.
    fn read<T>(&self, table: Table, f: impl Fn(&Rows) -> Result<T>) -> Result<T> {
        let attempt = || {
            let db = self.inner.db.read().unwrap_or_else(PoisonError::into_inner);
            let db = db.as_ref().ok_or_else(|| db_error("read", "the database is closed after a failure"))?;
            let read = db.begin_read().map_err(|e| db_error("begin read", e))?;
            f(&read.open_table(table.definition()).map_err(|e| db_error("open table", e))?)
        };
        match attempt() {
            Err(Error::Database { .. }) => {
                self.send(Vec::new(), false)?;
                attempt()
            }
            done => done,
        }
    }

    /// Applies `batch`; it is on disk when this returns. Calls of several threads share one sync.
    ///
    /// # Errors
    /// When the database fails; then nothing of the batch is visible.
    pub fn commit(&self, batch: Batch) -> Result<()> {
        self.submit(batch, true)
    }

    /// Applies `batch`; it is visible when this returns and on disk with the next durable commit.
    /// For state that can be rebuilt.
    ///
    /// # Errors
    /// As [`Meta::commit`].
    pub fn commit_lazy(&self, batch: Batch) -> Result<()> {
        self.submit(batch, false)
    }

    fn submit(&self, batch: Batch, durable: bool) -> Result<()> {
        if let Some(message) = batch.failed {
            return Err(Error::Internal(message));
        }
        if batch.ops.is_empty() {
            return Ok(());
        }
        self.send(batch.ops, durable)
    }

    fn send(&self, ops: Vec<Op>, durable: bool) -> Result<()> {
        let (done, answer) = sync_channel(1);
        let stopped = || Error::Internal("the metadata writer has stopped".into());
        {
            let jobs = lock(&self.inner.jobs);
            let jobs = jobs.as_ref().ok_or_else(stopped)?;
            jobs.send(Job { ops, durable, done }).map_err(|_| stopped())?;
        }
        answer
            .recv()
            .map_err(|_| stopped())?
            .map_err(|message| Error::Database { action: "commit".into(), message })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        lock(&self.jobs).take();
        if let Some(writer) = lock(&self.writer).take() {
            // A panic of the writer was reported to its callers already.
            let _ = writer.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A table that is read.
type Rows = redb::ReadOnlyTable<&'static str, &'static [u8]>;

fn open_database(path: &Path) -> Result<Database> {
    let file = DatabaseFile::open(path).context(|| format!("open {}", path.display()))?;
    let db = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(file)
        .map_err(|e| open_error(path, e))?;
    create_tables(&db)?;
    Ok(db)
}

fn open_error(path: &Path, e: DatabaseError) -> Error {
    match e {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Error::Conflict(format!(
            "data root is in use by another daemon: {} is locked; stop that daemon or choose another --data-root",
            path.display()
        )),
        DatabaseError::UpgradeRequired(found) => Error::Unimplemented(format!(
            "{}: database format {found} is not supported by this version",
            path.display()
        )),
        other => {
            let message = other.to_string();
            match redb::Error::from(other) {
                redb::Error::Io(io) if io.kind() != std::io::ErrorKind::InvalidData => {
                    Error::io(format!("open {}", path.display()), io)
                }
                _ => Error::Corrupt(format!("open {}: {message}", path.display())),
            }
        }
    }
}

fn db_error(action: &str, e: impl Display) -> Error {
    Error::Database { action: action.to_owned(), message: e.to_string() }
}

/// Makes the tables that are missing; no write (and no sync) when there are none.
fn create_tables(db: &Database) -> Result<()> {
    let read = db.begin_read().map_err(|e| db_error("begin read", e))?;
    let have: Vec<String> =
        read.list_tables().map_err(|e| db_error("list tables", e))?.map(|t| t.name().to_owned()).collect();
    let missing: Vec<Table> =
        Table::ALL.into_iter().filter(|t| !have.iter().any(|name| name == t.name())).collect();
    drop(read);
    if missing.is_empty() {
        return Ok(());
    }
    let write = db.begin_write().map_err(|e| db_error("begin write", e))?;
    for table in missing {
        write.open_table(table.definition()).map_err(|e| db_error("create table", e))?;
    }
    write.commit().map_err(|e| db_error("create tables", e))
}

fn decode<T: DeserializeOwned>(table: Table, key: &str, bytes: &[u8]) -> Result<T> {
    let corrupt =
        |e: serde_json::Error| Error::Corrupt(format!("metadata record {} {key}: {e}", table.name()));
    let stored: Stored<'_> = serde_json::from_slice(bytes).map_err(corrupt)?;
    if stored.v > RECORD_VERSION {
        return Err(Error::Unimplemented(format!(
            "metadata record {} {key} has version {}, this version reads up to {RECORD_VERSION}: a newer one wrote it",
            table.name(),
            stored.v
        )));
    }
    serde_json::from_str(stored.d.get()).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_oci::Kind;

    fn open(dir: &Path) -> Result<Meta> {
        Meta::open(&dir.join("longshore.db"), true)
    }

    #[test]
    fn batches_are_seen_and_survive_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(dir.path()).unwrap();
        meta.commit(Batch::new().put(Table::Kv, "a", &1).put(Table::Kv, "b", "two")).unwrap();
        meta.commit_lazy(Batch::new().put(Table::Volumes, "v", &vec![1, 2]).delete(Table::Kv, "b")).unwrap();
        assert_eq!(meta.get::<i32>(Table::Kv, "a").unwrap(), Some(1));
        assert_eq!(meta.get::<String>(Table::Kv, "b").unwrap(), None);
        drop(meta);
        let meta = open(dir.path()).unwrap();
        assert_eq!(meta.list::<Vec<i32>>(Table::Volumes).unwrap(), [("v".to_owned(), vec![1, 2])]);
        assert_eq!(meta.keys(Table::Kv).unwrap(), ["a"]);
        assert!(meta.contains(Table::Kv, "a").unwrap());
    }

    #[test]
    fn second_open_says_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let _meta = open(dir.path()).unwrap();
        let e = open(dir.path()).unwrap_err();
        assert_eq!(e.kind(), Kind::Conflict);
        assert!(e.to_string().contains("in use by another daemon"), "{e}");
    }

    #[test]
    fn newer_records_and_garbage_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(dir.path()).unwrap();
        let db = meta.inner.db.read().unwrap();
        let write = db.as_ref().unwrap().begin_write().unwrap();
        {
            let mut rows = write.open_table(Table::Kv.definition()).unwrap();
            rows.insert("new", br#"{"v":2,"d":1}"#.as_slice()).unwrap();
            rows.insert("bad", b"nonsense".as_slice()).unwrap();
        }
        write.commit().unwrap();
        drop(db);
        assert_eq!(meta.get::<i32>(Table::Kv, "new").unwrap_err().kind(), Kind::Unimplemented);
        assert_eq!(meta.get::<i32>(Table::Kv, "bad").unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn a_file_that_is_no_database_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("longshore.db"), vec![7u8; 8192]).unwrap();
        assert_eq!(open(dir.path()).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn many_threads_share_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(dir.path()).unwrap();
        std::thread::scope(|s| {
            for t in 0..8 {
                let meta = meta.clone();
                s.spawn(move || {
                    for i in 0..10 {
                        meta.commit(Batch::new().put(Table::Kv, &format!("{t}-{i}"), &i)).unwrap();
                    }
                });
            }
        });
        assert_eq!(meta.keys(Table::Kv).unwrap().len(), 80);
    }
}
