//! Removing what no record names.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use longshore_oci::Digest;
use longshore_sys::mount;

use super::owners::{Owners, is_ours};
use super::{Kind, allocated};
use crate::open::Store;
use crate::{Error, Result, remove_tree, snapshot};

impl Store {
    /// Removes leftovers, each a path from the data root that the ledger named. What meanwhile belongs to somebody, or
    /// has a name that this program does not give, stays. Gives the paths that are gone, with the bytes of the disk that
    /// each freed; goes on after a failure and tells the first.
    ///
    /// Nobody may be making containers: their directories have no record yet.
    ///
    /// # Errors
    /// When files cannot be removed or the metadata not be read.
    pub fn remove_leftovers(&self, paths: &BTreeSet<String>) -> Result<Vec<(String, u64)>> {
        let mut removed = Vec::new();
        let mut failed = Ok(());
        for path in paths.iter().filter(|path| is_ours(path)) {
            // Nothing comes into being while this is held.
            let _graph = self.collecting();
            if self.is_nobodys(path)? {
                let size = allocated(&self.root().join(path)).map_or(0, |a| a.bytes);
                match self.remove_leftover(path) {
                    Ok(()) => removed.push((path.clone(), size)),
                    Err(e) => failed = failed.and(Err(e)),
                }
            }
        }
        failed.map(|()| removed)
    }

    /// Whether nothing names a path of this program's, nothing being about to be named.
    pub(crate) fn is_leftover(&self, path: &str) -> Result<bool> {
        let _graph = self.collecting();
        self.is_nobodys(path)
    }

    fn is_nobodys(&self, path: &str) -> Result<bool> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let link = fs::read_link(self.root().join(path)).ok().map(|l| l.to_string_lossy().into_owned());
        let owners = Owners::read(self)?;
        let owner = match dir {
            "containers" => owners.of_dir(path),
            _ => owners.of(dir, name, link.as_deref()),
        };
        Ok(owner.0 == Kind::Leftover)
    }

    fn remove_leftover(&self, path: &str) -> Result<()> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let full = self.root().join(path);
        match dir {
            "content/blobs/sha256" => match Digest::from_hex(name) {
                Ok(digest) => self.drop_blobs([digest]).map(drop),
                Err(_) => Ok(()),
            },
            "content/ingest" | "overlay2/l" | "vfs/parent" => remove_file(&full),
            _ => {
                // Its own driver also knows its other names.
                if snapshot::is_id(name)
                    && dir != "layers"
                    && self.driver().list()?.iter().any(|id| id == name)
                {
                    return self.drop_snapshot(name);
                }
                mount::detach(&full.join("merged"))?;
                remove_tree(&full)
            }
        }
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), e))
        }
        _ => Ok(()),
    }
}
