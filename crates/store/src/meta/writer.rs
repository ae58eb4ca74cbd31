//! The one thread that writes. redb refuses all further use of a database after an I/O error, a full disk included:
//! then it is opened again here, and what was committed but not yet on disk is applied once more.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, Durability, ReadableDatabase};

use super::{Op, Table, open_database};
use crate::error::{Result, errno_text};

const GROUP_MAX: usize = 256;

/// The database; `None` while it could not be opened again after a failure.
pub(super) type Shared = Arc<RwLock<Option<Database>>>;

/// A batch on its way to the writer. One without operations asks for a database that works.
pub(super) struct Job {
    pub(super) ops: Vec<Op>,
    pub(super) durable: bool,
    pub(super) done: SyncSender<Result<(), String>>,
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) db: Shared,
    pub(super) sync: bool,
    /// What was committed since the last commit that reached the disk; `None` for what was deleted.
    pub(super) pending: BTreeMap<(Table, String), Option<Vec<u8>>>,
}

impl Writer {
    /// Works until all senders are gone.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = queue.try_recv()
            {
                group.push(next);
            }
            let outcome = self.commit(&group);
            for job in group {
                // The caller waits for it; if its thread died there is nobody to tell.
                let _ = job.done.send(outcome.clone());
            }
        }
        if !self.pending.is_empty()
            && let Err(message) = self.write(&[], true)
        {
            tracing::warn!(message, "metadata: the last commit could not be made durable");
        }
    }

    fn commit(&mut self, group: &[Job]) -> Result<(), String> {
        let durable = self.sync && group.iter().any(|job| job.durable);
        let ops: Vec<&Op> = group.iter().flat_map(|job| &job.ops).collect();
        let outcome = match self.write(&ops, durable) {
            Ok(()) => Ok(()),
            Err(message) => {
                tracing::warn!(message, "metadata: a commit failed; opening the database again");
                self.reopen()?;
                // An error of the last sync leaves open whether the commit is on disk.
                if !ops.is_empty() && self.holds(&ops)? { Ok(()) } else { Err(message) }
            }
        };
        match outcome {
            Ok(()) if durable => self.pending.clear(),
            Ok(()) => self.pending.extend(ops.into_iter().map(Op::to_pending)),
            // The caller only asked for a database that works.
            Err(_) if ops.is_empty() => return Ok(()),
            Err(_) => {}
        }
        outcome
    }

    fn write(&self, ops: &[&Op], durable: bool) -> Result<(), String> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or("the database is closed after a failure")?;
        write(db, durable, |put| {
            ops.iter().try_for_each(|op| match op {
                Op::Put(table, key, value) => put(*table, key, Some(value)),
                Op::Delete(table, key) => put(*table, key, None),
            })
        })
    }

    fn reopen(&self) -> Result<(), String> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the file is locked.
        *db = None;
        let again = open_database(&self.path).map_err(|e| e.to_string())?;
        if !self.pending.is_empty() {
            write(&again, false, |put| {
                self.pending.iter().try_for_each(|((table, key), value)| put(*table, key, value.as_deref()))
            })?;
        }
        *db = Some(again);
        Ok(())
    }

    /// Whether the database says what it would after `ops`.
    fn holds(&self, ops: &[&Op]) -> Result<bool, String> {
        let mut wanted = BTreeMap::new();
        wanted.extend(ops.iter().map(|op| op.to_pending()));
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or("the database is closed after a failure")?;
        let read = db.begin_read().map_err(words)?;
        for ((table, key), value) in wanted {
            let rows = read.open_table(table.definition()).map_err(words)?;
            let there = rows.get(key.as_str()).map_err(words)?;
            if there.as_ref().map(|v| v.value()) != value.as_deref() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn words(e: impl Into<redb::Error>) -> String {
    match e.into() {
        redb::Error::Io(e) => errno_text(&e),
        other => other.to_string(),
    }
}

/// Takes a table, a key, and a value or nothing.
type Put<'a> = dyn FnMut(Table, &str, Option<&[u8]>) -> Result<(), String> + 'a;

fn write(
    db: &Database,
    durable: bool,
    fill: impl FnOnce(&mut Put<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut write = db.begin_write().map_err(words)?;
    let durability = if durable { Durability::Immediate } else { Durability::None };
    write.set_durability(durability).map_err(words)?;
    fill(&mut |table, key, value| {
        let mut rows = write.open_table(table.definition()).map_err(words)?;
        match value {
            Some(value) => rows.insert(key, value).map(drop),
            None => rows.remove(key).map(drop),
        }
        .map_err(words)
    })?;
    write.commit().map_err(words)
}
