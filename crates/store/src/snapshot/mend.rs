//! What a driver keeps beside a snapshot's tree: whether it is right, and putting it right.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, RenameFlags};

use super::check_id;
use super::overlay::{MAX_LOWERS, Overlay, is_link_name, link_name, make_dir};
use crate::{Error, IoContext, Result};

/// Writes a small file whole, and syncs it.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    Ok(longshore_sys::atomic::write_atomic_path(path, text.as_bytes(), Mode::from_raw_mode(mode), true)?)
}

/// Removes a file that may be gone.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

/// Exchanges two directories in one step, and syncs that.
pub(crate) fn exchange(a: &Path, b: &Path) -> Result<()> {
    swap(a, b)?;
    [a, b].iter().filter_map(|p| p.parent()).try_for_each(sync_dir)
}

/// The same, durable with a later sync.
pub(super) fn swap(a: &Path, b: &Path) -> Result<()> {
    rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
        .context(|| format!("exchange {} and {}", a.display(), b.display()))
}

fn sync_dir(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).context(|| format!("sync {}", path.display()))
}

/// What a file says; `None` when there is none.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
    }
}

impl Overlay {
    fn link_path(&self, link: &str) -> PathBuf {
        self.root().join("l").join(link)
    }

    /// A snapshot's name in `l/`, if it is one and leads to it.
    fn link_of(&self, id: &str) -> Result<Option<String>> {
        let link = read(&self.dir(id).join("link"))?.filter(|l| is_link_name(l));
        Ok(link.filter(|l| fs::read_link(self.link_path(l)).is_ok_and(|to| to == *target(id))))
    }

    /// What `lower` has to say; `None` when the parent's own files are not right.
    fn lower_of(&self, parent: &str) -> Result<Option<String>> {
        let Some(link) = self.link_of(parent)? else { return Ok(None) };
        let below = read(&self.dir(parent).join("lower"))?;
        let lower = below.map_or_else(|| format!("l/{link}"), |below| format!("l/{link}:{below}"));
        Ok(Some(lower).filter(|l| l.split(':').count() <= MAX_LOWERS))
    }

    /// See [`super::SnapshotDriver::inspect`].
    pub(super) fn faults(&self, id: &str, parent: Option<&str>, committed: bool) -> Result<Vec<String>> {
        check_id(id)?;
        let dir = self.dir(id);
        if !dir.join("diff").is_dir() {
            return Ok(vec!["its directory is not there".to_owned()]);
        }
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, what: &str| {
            if wrong {
                faults.push(what.to_owned());
            }
        };
        fault(self.link_of(id)?.is_none(), "its short name does not lead to it (link, l/)");
        let lower = read(&dir.join("lower"))?;
        match parent {
            Some(parent) => {
                let want = self.lower_of(parent)?;
                fault(
                    want.is_none() || lower != want,
                    "the list of the layers below it is not right (lower)",
                );
                fault(!dir.join("work").is_dir(), "its work directory is not there");
            }
            None => fault(lower.is_some(), "it has a list of layers below it, and stands on none (lower)"),
        }
        fault(committed && !dir.join("committed").exists(), "it is not marked as read-only (committed)");
        Ok(faults)
    }

    /// See [`super::SnapshotDriver::mend`].
    pub(super) fn put_right(&self, id: &str, parent: Option<&str>, committed: bool) -> Result<()> {
        check_id(id)?;
        let dir = self.dir(id);
        if !dir.join("diff").is_dir() {
            return Err(Error::Corrupt(format!("snapshot {id}: its directory is not there")));
        }
        if self.link_of(id)?.is_none() {
            self.new_link(id)?;
        }
        match parent {
            Some(parent) => {
                let lower = self.lower_of(parent)?;
                let lower = lower.ok_or_else(|| Error::Corrupt(format!("snapshot {parent} is damaged")))?;
                if read(&dir.join("lower"))?.as_ref() != Some(&lower) {
                    write(&dir.join("lower"), &lower, 0o644)?;
                }
                make_dir(&dir.join("work"), 0o700)?;
            }
            None => remove(&dir.join("lower"))?,
        }
        if committed && !dir.join("committed").exists() {
            write(&dir.join("committed"), "", 0o600)?;
        }
        sync_dir(&dir)
    }

    /// The names in `l/` that lead to a snapshot.
    pub(super) fn links_to(&self, id: &str) -> Result<Vec<String>> {
        let links = self.root().join("l");
        let action = || format!("read {}", links.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&links).context(action)? {
            let entry = entry.context(action)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_link_name(&name) && fs::read_link(entry.path()).is_ok_and(|to| to == *target(id)) {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Gives a snapshot a name in `l/`: the one that leads to it already, or a new one.
    fn new_link(&self, id: &str) -> Result<()> {
        let link = match self.links_to(id)?.pop() {
            Some(link) => link,
            None => {
                // The name that it had leads elsewhere, or nowhere.
                if let Some(old) = read(&self.dir(id).join("link"))?.filter(|l| is_link_name(l))
                    && fs::symlink_metadata(self.link_path(&old)).is_err()
                {
                    self.make_link(id, &old)?;
                    return Ok(());
                }
                let link = link_name()?;
                self.make_link(id, &link)?;
                link
            }
        };
        write(&self.dir(id).join("link"), &link, 0o644)
    }

    fn make_link(&self, id: &str, link: &str) -> Result<()> {
        let path = self.link_path(link);
        std::os::unix::fs::symlink(target(id), &path).context(|| format!("make {}", path.display()))?;
        sync_dir(&self.root().join("l"))
    }
}

/// What a name in `l/` leads to.
fn target(id: &str) -> PathBuf {
    PathBuf::from(format!("../{id}/diff"))
}
