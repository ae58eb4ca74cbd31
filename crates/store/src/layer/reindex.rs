//! A layer's index from its tar, without unpacking: what [`super::apply()`] would write.

use std::collections::HashMap;
use std::io::BufRead;

use super::index::IndexKind;
use super::index_writer::IndexWriter;
use super::tree::{clean, join, split};
use super::{OPAQUE_NAME, WHITEOUT_META, WHITEOUT_PREFIX};
use crate::tar::{Entry, EntryKind, Limits, Reader};
use crate::{IoContext, Result};

/// What a tar's index says.
#[derive(Debug)]
pub(crate) struct Reindexed {
    /// The bytes of the index.
    pub(crate) bytes: Vec<u8>,
    /// Something in the layer goes where only its directory shows: through a link of its own, or to a file of a lower
    /// layer. The index of the unpacked layer says more than this one.
    pub(crate) odd: bool,
}

/// The index of a tar. `implied` is as where it was unpacked: who owns directories that no entry describes, and `None`
/// where layers share a directory.
///
/// # Errors
/// As [`super::apply()`] for a bad archive.
pub(crate) fn reindex(tar: impl BufRead, implied: Option<(u32, u32)>) -> Result<Reindexed> {
    let mut reader = Reader::new(tar, Limits::default());
    let (mut entry, mut path) = (Entry::default(), Vec::new());
    let mut indexing = Indexing::default();
    while reader.next_entry(&mut entry, &mut ())? {
        clean(&entry.path, &mut path)?;
        indexing.entry(&path, &entry)?;
    }
    let mut bytes = Vec::new();
    indexing.index.encode(&mut bytes, implied).context(|| "write index")?;
    Ok(Reindexed { bytes, odd: indexing.seen.odd })
}

/// An index on its way, entry by entry.
#[derive(Default)]
pub(super) struct Indexing {
    index: IndexWriter,
    seen: Seen,
}

impl Indexing {
    /// Notes an entry that goes to the clean path `path`.
    pub(super) fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let (parent, name) = split(path);
        self.seen.leads_through(path);
        match name.strip_prefix(WHITEOUT_PREFIX) {
            Some(_) if name == OPAQUE_NAME => self.index.add(parent, IndexKind::Opaque, entry, b"", 0),
            Some(_) if name.starts_with(WHITEOUT_META) => Ok(()),
            Some(hidden) => self.index.add(&join(parent, hidden), IndexKind::Whiteout, entry, b"", 0),
            None => self.plain(path, entry),
        }
    }

    fn plain(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        if self.seen.put(path, entry.kind) {
            self.index.cleared(path);
        }
        let kind = IndexKind::Entry(entry.kind);
        match entry.kind {
            EntryKind::HardLink => {
                let mut target = Vec::new();
                clean(&entry.link, &mut target)?;
                self.seen.leads_through(&target);
                self.seen.odd |= !self.seen.kinds.contains_key(&target);
                self.index.add(path, kind, entry, &target, 0)
            }
            EntryKind::Symlink => self.index.add(path, kind, entry, &entry.link, 0),
            EntryKind::File => self.index.add(path, kind, entry, b"", entry.size),
            _ => self.index.add(path, kind, entry, b"", 0),
        }
    }

    /// The index of all entries so far.
    pub(super) fn into_index(self) -> IndexWriter {
        self.index
    }
}

/// What stands where, as far as the tar tells.
#[derive(Default)]
struct Seen {
    kinds: HashMap<Vec<u8>, EntryKind>,
    odd: bool,
}

impl Seen {
    /// Notes the directories that a path leads through.
    fn leads_through(&mut self, path: &[u8]) {
        let mut at = split(path).0;
        while !at.is_empty() {
            match self.kinds.get(at) {
                Some(EntryKind::Dir) => return,
                Some(_) => {
                    self.odd = true;
                    return;
                }
                None => drop(self.kinds.insert(at.to_owned(), EntryKind::Dir)),
            }
            at = split(at).0;
        }
    }

    /// Puts an entry; true if it takes the place of a directory.
    fn put(&mut self, path: &[u8], kind: EntryKind) -> bool {
        match self.kinds.insert(path.to_owned(), kind) {
            Some(EntryKind::Dir) => kind != EntryKind::Dir,
            // A directory may go where a link leads.
            Some(before) => {
                self.odd |= kind == EntryKind::Dir && before != EntryKind::Dir;
                false
            }
            None => false,
        }
    }
}
