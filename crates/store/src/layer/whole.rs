//! Whether a directory holds what a layer's index says, and nothing else.
//!
//! The contents of files are the recipe's to check; here it is what a recipe does not read: that everything is there,
//! of the right kind, with the right mode and size, and that nothing was added. Where a layer is odd (paths through its
//! own links, one entry in the way of another) the doubt is in favour of the directory.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use longshore_sys::root::Root;

use super::index::{Index, IndexEntry, IndexKind};
use super::tree::{open_beneath, show, split};
use crate::snapshot::tree::{Place, is_dir, names, os, stat_at};
use crate::tar::EntryKind;
use crate::{Error, IoContext, Result};

/// Differences that are told; one is enough to know.
const MAX_TOLD: usize = 5;

/// What a directory is expected to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) index: &'a Index,
    /// Deletions are marks in the directory, which holds nothing of other layers.
    pub(crate) alone: bool,
    /// Device nodes can be made here.
    pub(crate) devices: bool,
}

/// What differs, in words; the first few.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn differences(dir: &Path, expected: &Expected<'_>) -> Result<Vec<String>> {
    let root = Root::open(dir)?;
    let mut told = Vec::new();
    // Entries that are no directories: what an archive puts below them goes elsewhere, or they gave way.
    let solid: HashSet<&[u8]> = expected
        .index
        .iter()
        .filter(|e| !matches!(e.kind, IndexKind::Entry(EntryKind::Dir) | IndexKind::Opaque))
        .map(|e| e.path)
        .collect();
    let mut odd = false;
    for entry in expected.index.iter() {
        if ancestors(entry.path).any(|a| solid.contains(a)) {
            odd = true;
            continue;
        }
        if let Some(what) = wrong(&root, &entry, expected)? {
            told.push(format!("{}: {what}", shown(entry.path)));
            if told.len() == MAX_TOLD {
                return Ok(told);
            }
        }
    }
    if expected.alone && !odd {
        extra(dir, expected.index, &mut told)?;
    }
    Ok(told)
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() { "its root".to_owned() } else { show(path) }
}

fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(split(path).0), |p| (!p.is_empty()).then(|| split(p).0))
        .filter(|p| !p.is_empty())
}

/// What is wrong with an entry.
fn wrong(root: &Root, entry: &IndexEntry<'_>, expected: &Expected<'_>) -> Result<Option<String>> {
    if entry.kind == IndexKind::Whiteout && !expected.alone {
        return Ok(None);
    }
    let path = if entry.path.is_empty() { b"." } else { entry.path };
    let fd = match open_beneath(root.fd(), path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
            let devices = [EntryKind::Char, EntryKind::Block].map(IndexKind::Entry);
            let left_out = !expected.devices && devices.contains(&entry.kind);
            return Ok((!left_out).then(|| "is not there".to_owned()));
        }
        Err(Errno::NAMETOOLONG) => return Ok(None),
        Err(e) => return Err(Error::io(format!("open {}", shown(entry.path)), e)),
    };
    let stat = rustix::fs::fstat(&fd).context(|| format!("stat {}", shown(entry.path)))?;
    let IndexKind::Entry(kind) = entry.kind else {
        // Something of the layer itself may stand where it hides what is below.
        return Ok(None);
    };
    let is = FileType::from_raw_mode(stat.st_mode);
    if !fits(kind, is) {
        return Ok(Some(format!("is another kind of file ({is:?})")));
    }
    if kind == EntryKind::File && u64::try_from(stat.st_size).ok() != Some(entry.size) {
        return Ok(Some(format!("has {} bytes instead of {}", stat.st_size, entry.size)));
    }
    // The header of another name may have changed a file that has several.
    let own = kind == EntryKind::Dir || (kind == EntryKind::File && stat.st_nlink < 2);
    if own && stat.st_mode & 0o7777 != entry.mode & 0o7777 {
        return Ok(Some(format!(
            "has mode {:o} instead of {:o}",
            stat.st_mode & 0o7777,
            entry.mode & 0o7777
        )));
    }
    Ok(None)
}

fn fits(kind: EntryKind, is: FileType) -> bool {
    match kind {
        EntryKind::File => is == FileType::RegularFile,
        EntryKind::HardLink => is != FileType::Directory,
        EntryKind::Symlink => is == FileType::Symlink,
        EntryKind::Char => is == FileType::CharacterDevice,
        EntryKind::Block => is == FileType::BlockDevice,
        EntryKind::Dir => is == FileType::Directory,
        EntryKind::Fifo => is == FileType::Fifo,
    }
}

/// What the directory holds and no entry names.
fn extra(dir: &Path, index: &Index, told: &mut Vec<String>) -> Result<()> {
    // Directories that nothing describes are there for what lies in them.
    let implied: HashSet<&[u8]> = index.iter().flat_map(|e| ancestors(e.path)).collect();
    let mut todo = vec![(Place::root(dir)?, Vec::new())];
    while let Some((place, path)) = todo.pop() {
        let Some(here) = place.open()? else { continue };
        for (name, _) in names(&here)? {
            let Some(stat): Option<Stat> = stat_at(&here, &name)? else { continue };
            let path = super::tree::join(&path, os(&name).as_bytes());
            if index.get(&path).next().is_none() && !(is_dir(&stat) && implied.contains(path.as_slice())) {
                told.push(format!("{}: is not of the layer", show(&path)));
                if told.len() >= MAX_TOLD {
                    return Ok(());
                }
            } else if is_dir(&stat) {
                todo.push((place.child(&here, &name)?, path));
            }
        }
    }
    Ok(())
}
