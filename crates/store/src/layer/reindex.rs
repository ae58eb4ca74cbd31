//! A layer's index from its tar, without unpacking: what [`super::apply()`] would write.

use std::collections::HashSet;
use std::io::BufRead;

use super::index::{IndexEntry, IndexKind, IndexWriter};
use super::tree::{clean, join, split};
use super::{OPAQUE_NAME, WHITEOUT_META, WHITEOUT_PREFIX};
use crate::Result;
use crate::tar::{Entry, EntryKind, Limits, Reader};

/// What a tar's index says.
#[derive(Debug)]
pub(crate) struct Reindexed {
    /// The bytes of the index.
    pub(crate) bytes: Vec<u8>,
    /// A directory took the place of a link: what came before it went where the link pointed to, and the index does not
    /// say so.
    pub(crate) odd: bool,
}

/// The index of a tar.
///
/// # Errors
/// As [`super::apply()`] for a bad archive.
pub(crate) fn reindex(tar: impl BufRead) -> Result<Reindexed> {
    let mut reader = Reader::new(tar, Limits::default());
    let (mut entry, mut path) = (Entry::default(), Vec::new());
    let mut index = IndexWriter::default();
    let (mut links, mut odd) = (HashSet::new(), false);
    while reader.next_entry(&mut entry, &mut ())? {
        clean(&entry.path, &mut path)?;
        let (parent, name) = split(&path);
        let hidden;
        let (path, kind) = match name.strip_prefix(WHITEOUT_PREFIX) {
            _ if path.is_empty() => (path.as_slice(), IndexKind::Entry(entry.kind)),
            Some(_) if name == OPAQUE_NAME => (parent, IndexKind::Opaque),
            Some(_) if name.starts_with(WHITEOUT_META) => continue,
            Some(name) => {
                hidden = join(parent, name);
                (hidden.as_slice(), IndexKind::Whiteout)
            }
            None => (path.as_slice(), IndexKind::Entry(entry.kind)),
        };
        match kind {
            IndexKind::Entry(EntryKind::Symlink) => {
                links.insert(path.to_vec());
            }
            IndexKind::Entry(EntryKind::Dir) => odd |= links.contains(path),
            _ => {}
        }
        index.add(&IndexEntry { path, kind, mode: entry.mode, size: entry.size, mtime: entry.mtime })?;
    }
    let mut bytes = Vec::new();
    index.encode(&mut bytes)?;
    Ok(Reindexed { bytes, odd })
}
