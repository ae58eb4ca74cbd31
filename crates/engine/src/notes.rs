//! What the daemon knows of its containers and must still know after `kill -9`, but not after a reboot: the latest
//! record of each, as a file in the exec root. A start changes a record several times; a file costs microseconds where
//! a durable commit of the database costs a disk's sync.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::{Paths, make_dir};
use crate::record::Record;
use crate::{Error, Result};

#[derive(Serialize)]
struct Note<'a> {
    v: u32,
    boot: &'a str,
    record: &'a Record,
}

#[derive(Deserialize)]
struct Stored {
    v: u32,
    boot: String,
    record: Record,
}

const VERSION: u32 = 1;

fn file(paths: &Paths, id: &str) -> PathBuf {
    paths.exec.join("records").join(id)
}

/// Writes a record's latest state, in one step.
///
/// # Errors
/// When the exec root cannot be written.
pub(crate) fn write(paths: &Paths, boot: &str, record: &Record) -> Result<()> {
    let path = file(paths, &record.id);
    let text = serde_json::to_vec(&Note { v: VERSION, boot, record })
        .map_err(|e| Error::internal(format!("write the state of {}: {e}", record.id)))?;
    let temp = path.with_extension("tmp");
    let failed = |e| Error::io(format!("write {}", path.display()), e);
    match fs::write(&temp, &text) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            make_dir(&paths.exec.join("records"), 0o700)?;
            fs::write(&temp, &text).map_err(failed)?;
        }
        done => done.map_err(failed)?,
    }
    fs::rename(&temp, &path).map_err(failed)
}

/// The latest state of a record of this boot; none if it cannot be understood: then the database's is the best there is.
pub(crate) fn read(paths: &Paths, boot: &str, id: &str) -> Option<Record> {
    let text = fs::read(file(paths, id)).ok()?;
    let stored: Stored = serde_json::from_slice(&text)
        .inspect_err(|e| tracing::warn!(container = id, "its last state cannot be read: {e}"))
        .ok()?;
    (stored.v == VERSION && stored.boot == boot && stored.record.id == id).then_some(stored.record)
}

/// Forgets a container; idempotent.
pub(crate) fn remove(paths: &Paths, id: &str) {
    if let Err(e) = fs::remove_file(file(paths, id))
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(container = id, "forget its state: {e}");
    }
}

/// Ids that there are notes of.
pub(crate) fn ids(paths: &Paths) -> Vec<String> {
    let entries = fs::read_dir(paths.exec.join("records")).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.len() == 64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        let text = serde_json::json!({
            "id": id, "name": "n", "created": 1, "image": format!("sha256:{}", "0".repeat(64)), "path": "sh", "args": [],
            "config": {}, "host": {},
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn the_last_word_of_this_boot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { data: dir.path().join("data"), exec: dir.path().join("exec"), resolv_conf: None };
        let id = "a".repeat(64);
        assert_eq!(read(&paths, "boot", &id), None);
        let mut r = record(&id);
        write(&paths, "boot", &r).unwrap();
        r.restart_count = 7;
        write(&paths, "boot", &r).unwrap();
        assert_eq!(read(&paths, "boot", &id), Some(r));
        assert_eq!(read(&paths, "another boot", &id), None);
        assert_eq!(ids(&paths), std::slice::from_ref(&id));
        remove(&paths, &id);
        remove(&paths, &id);
        assert_eq!(read(&paths, "boot", &id), None);
    }
}
