//! What a walk found, in the order of the tree.

use std::ops::Range;

use longshore_store::layer::{is_below, tree_order};
use longshore_store::tar::Time;

use super::error::{Error, Result, from_root};
use crate::pattern::clean_in_root;

/// Links that are followed before a path is given up, as in BuildKit's resolver.
const MAX_LINKS: usize = 255;

/// What something in a context is. Sockets are left out by the walk, as Docker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe, which cannot be read: to be refused or to be made anew.
    Fifo,
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
}

/// A file, directory or link of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From the root, clean; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file; 0 for all else.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Inode and time of its last change: whether a digest is still good.
    pub(super) ino: u64,
    pub(super) ctime: Time,
    /// Device and inode of a file with several names.
    pub(crate) twin: Option<(u64, u64)>,
}

impl Entry {
    /// Of root, and without anything else that is known.
    pub(super) fn new(path: Vec<u8>, kind: EntryKind) -> Self {
        Self {
            path,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            link: Vec::new(),
            ino: 0,
            ctime: Time::default(),
            twin: None,
        }
    }

    /// The last component of the path; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        split(&self.path).1
    }
}

/// All that a walk found; the root is the first entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<Entry>,
}

impl Tree {
    /// From entries in any order. The root must be among them, and the directories of all others.
    pub(super) fn new(mut entries: Vec<Entry>) -> Self {
        if !entries.is_sorted_by(|a, b| tree_order(&a.path, &b.path).is_lt()) {
            entries.sort_by(|a, b| tree_order(&a.path, &b.path));
        }
        Self { entries }
    }

    /// Of nothing but the root.
    pub(super) fn empty() -> Self {
        Self { entries: vec![Entry { mode: 0o755, ..Entry::new(Vec::new(), EntryKind::Dir) }] }
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// All entries, the root being the first; what a directory holds follows it at once.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at a place that this tree gave.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&Entry> {
        self.entries.get(at)
    }

    /// Where the clean path `path` is, links not followed.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| tree_order(&entry.path, path)).ok()
    }

    /// All that is below the entry at `at`.
    #[must_use]
    pub fn below(&self, at: usize) -> Range<usize> {
        let start = at.saturating_add(1).min(self.entries.len());
        let Some(dir) = self.entries.get(at) else { return start..start };
        let rest = self.entries.get(start..).unwrap_or_default();
        start..start + rest.partition_point(|entry| is_below(&entry.path, &dir.path))
    }

    /// Where `path` leads, links followed, all inside the root.
    ///
    /// # Errors
    /// [`Error::NotFound`] with BuildKit's words, [`Error::TooManyLinks`].
    pub fn resolve(&self, path: &[u8]) -> Result<usize> {
        let asked = clean_in_root(path);
        let missing = || Error::NotFound(from_root(&asked));
        // What is still to be walked, the next component last.
        let mut rest: Vec<Vec<u8>> = components(&asked).rev().collect();
        let (mut at, mut links) = (0, 0);
        while let Some(part) = rest.pop() {
            let here = self.get(at).ok_or_else(missing)?;
            if part == b".." {
                at = self.find(split(&here.path).0).ok_or_else(missing)?;
                continue;
            }
            let next = self.find(&join(&here.path, &part)).ok_or_else(missing)?;
            let entry = self.get(next).ok_or_else(missing)?;
            if entry.kind != EntryKind::Symlink {
                at = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::TooManyLinks(from_root(&asked)));
            }
            if entry.link.starts_with(b"/") {
                at = 0;
            }
            rest.extend(components(&entry.link).rev());
        }
        Ok(at)
    }
}

/// The components of a path that mean something, `..` among them.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + name.len() + 1);
    path.extend_from_slice(parent);
    if !parent.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Parent and last name of a clean path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|b| *b == b'/');
    let name = path.get(at.map_or(0, |at| at + 1)..).unwrap_or_default();
    (path.get(..at.unwrap_or(0)).unwrap_or_default(), name)
}
