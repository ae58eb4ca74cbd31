//! An index on disk of which only what is asked for is read: a path is found in a large layer within microseconds,
//! and a layer of any size is gone through with little memory.

use std::cmp::Ordering;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::index::{HEAD, Index, IndexEntry, IndexKind, Layout, bad, is_below, tree_order};
use crate::error::{IoContext, Result};
use crate::tar::{EntryKind, Time};

/// Bytes that are read at once to find one path.
const BLOCK: usize = 4 << 10;
/// Bytes that are read at once to go through all.
const LONG_BLOCK: usize = 32 << 10;
/// Blocks that are kept.
const BLOCKS: usize = 24;

/// A line of an index that stands by itself; see [`IndexEntry`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OwnedEntry {
    pub path: Vec<u8>,
    pub kind: IndexKind,
    pub mode: u32,
    pub size: u64,
    pub mtime: Time,
    pub owner: Option<(u32, u32)>,
    pub link: Vec<u8>,
    pub dev: (u32, u32),
    pub implied: bool,
    pub shared: bool,
}

impl OwnedEntry {
    /// True for a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == IndexKind::Entry(EntryKind::Dir)
    }

    /// True for a regular file, also under another of its names.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.kind, IndexKind::Entry(EntryKind::File | EntryKind::HardLink))
    }

    /// True for a symbolic link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.kind == IndexKind::Entry(EntryKind::Symlink)
    }
}

impl From<IndexEntry<'_>> for OwnedEntry {
    fn from(e: IndexEntry<'_>) -> Self {
        Self {
            path: e.path.to_owned(),
            kind: e.kind,
            mode: e.mode,
            size: e.size,
            mtime: e.mtime,
            owner: e.owner,
            link: e.link.to_owned(),
            dev: e.dev,
            implied: e.implied,
            shared: e.shared,
        }
    }
}

/// What a layer says about one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// An entry or a whiteout.
    pub entry: Option<OwnedEntry>,
    /// It hides what the directory holds in the layers below.
    pub opaque: bool,
    /// It has something below the path.
    pub below: bool,
}

/// An index that is open for reading. It is ours: only its header was checked, and each row is as it is used.
#[derive(Debug)]
pub struct IndexFile {
    layout: Layout,
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(Blocks),
    /// Version 1 is sorted otherwise: all of it, and its rows in the order of a tree.
    Sorted(Index, Vec<u32>),
}

impl IndexFile {
    /// Opens an index to look paths up.
    ///
    /// # Errors
    /// `Corrupt` if it is none or is not complete; `Unimplemented` if a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, BLOCK, BLOCKS)
    }

    /// Opens an index to go through all of it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_scan(path: &Path) -> Result<Self> {
        Self::open_with(path, LONG_BLOCK, 3)
    }

    fn open_with(path: &Path, block: usize, keep: usize) -> Result<Self> {
        let reading = || format!("read {}", path.display());
        let file = File::open(path).context(reading)?;
        let len = file.metadata().context(reading)?.len();
        let mut head = [0u8; HEAD];
        match file.read_exact_at(&mut head, 0) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Err(bad("not an index")),
            done => done.context(reading)?,
        }
        let layout = Layout::read(&head, len)?;
        let source = if layout.version >= 2 {
            Source::File(Blocks {
                file,
                len,
                block: block as u64,
                keep,
                held: Vec::new(),
                joined: Vec::new(),
            })
        } else {
            let index = Index::open(path)?;
            let name = |i: u32| index.entry(i as usize).map_or(&[][..], |e| e.path);
            let count = u32::try_from(layout.count).map_err(|_| bad("too many entries"))?;
            let mut order: Vec<u32> = (0..count).collect();
            order.sort_by(|a, b| tree_order(name(*a), name(*b)));
            Source::Sorted(index, order)
        };
        Ok(Self { layout, source })
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.count
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layout.count == 0
    }

    /// Whether it knows owners and the targets of links.
    #[must_use]
    pub fn knows_links(&self) -> bool {
        self.layout.version >= 2
    }

    /// Gives the entry at a position, in the order of a tree, to `f`.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn with<T>(&mut self, i: usize, f: impl FnOnce(&IndexEntry<'_>) -> T) -> Result<T> {
        if i >= self.layout.count {
            return Err(bad("no such row"));
        }
        match &mut self.source {
            Source::Sorted(index, order) => {
                index.entry(order[i] as usize).map(|e| f(&e)).ok_or_else(|| bad("bad row"))
            }
            Source::File(blocks) => {
                let row = blocks.get(self.layout.row_at(i), self.layout.row())?;
                let row = self.layout.parse(row).ok_or_else(|| bad("bad row"))?;
                let names = blocks.get(self.layout.names_at() + row.at, row.path_len + row.link_len)?;
                let (path, link) = names.split_at(row.path_len);
                Ok(f(&row.entry(path, link)))
            }
        }
    }

    /// The entry at a position, in the order of a tree.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn entry(&mut self, i: usize) -> Result<OwnedEntry> {
        self.with(i, |e| OwnedEntry::from(*e))
    }

    /// The first position at or after `from` whose path is not before `path`.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn seek(&mut self, path: &[u8], from: usize) -> Result<usize> {
        self.first_where(from, |p| tree_order(p, path) != Ordering::Less)
    }

    /// The first position at or after `from` that is neither `dir` nor below it nor before it.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn seek_past(&mut self, dir: &[u8], from: usize) -> Result<usize> {
        self.first_where(from, |p| tree_order(p, dir) == Ordering::Greater && !is_below(p, dir))
    }

    /// The first position at or after `from` whose path fulfils `f`; those before it do not, those after it do. Looks
    /// near `from` first.
    fn first_where(&mut self, from: usize, f: impl Fn(&[u8]) -> bool) -> Result<usize> {
        let (mut low, mut step) = (from, 1);
        let mut high = loop {
            let at = low + step - 1;
            if at >= self.layout.count {
                break self.layout.count;
            }
            if self.with(at, |e| f(e.path))? {
                break at;
            }
            (low, step) = (at + 1, step * 2);
        };
        while low < high {
            let mid = low + (high - low) / 2;
            if self.with(mid, |e| f(e.path))? { high = mid } else { low = mid + 1 }
        }
        Ok(low)
    }

    /// What the layer says about a clean path.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn find(&mut self, path: &[u8]) -> Result<Said> {
        let (mut low, mut high) = (0, self.layout.count);
        while low < high {
            let mid = low + (high - low) / 2;
            if self.with(mid, |e| tree_order(e.path, path) == Ordering::Less)? {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        self.read_at(path, low).map(|(said, _)| said)
    }

    /// What the rows from position `i` on say about `path`, and the position after them.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn read_at(&mut self, path: &[u8], mut i: usize) -> Result<(Said, usize)> {
        let mut said = Said::default();
        while i < self.layout.count {
            let (at, below, entry) = self.with(i, |e| {
                let at = e.path == path;
                let entry = (at && e.kind != IndexKind::Opaque).then(|| OwnedEntry::from(*e));
                (at, is_below(e.path, path), entry)
            })?;
            if !at {
                said.below = below;
                break;
            }
            said.opaque |= entry.is_none();
            if entry.is_some() {
                said.entry = entry;
            }
            i += 1;
        }
        Ok((said, i))
    }
}

/// Blocks of a file, the last used last.
#[derive(Debug)]
struct Blocks {
    file: File,
    len: u64,
    /// Bytes of a block.
    block: u64,
    /// How many are kept.
    keep: usize,
    held: Vec<(u64, Vec<u8>)>,
    /// What lies in several blocks.
    joined: Vec<u8>,
}

impl Blocks {
    fn get(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(bad("a row points outside"));
        }
        let (first, last) = (at / self.block, (at + len.max(1) as u64 - 1) / self.block);
        let offset = usize::try_from(at % self.block).unwrap_or(0);
        if first == last {
            let held = self.load(first)?;
            return self.held[held].1.get(offset..offset + len).ok_or_else(|| bad("it became shorter"));
        }
        self.joined.clear();
        for block in first..=last {
            let held = self.load(block)?;
            let from = if block == first { offset } else { 0 };
            let data = self.held[held].1.get(from..).unwrap_or_default();
            let want = data.len().min(len - self.joined.len());
            self.joined.extend_from_slice(&data[..want]);
        }
        if self.joined.len() == len { Ok(&self.joined) } else { Err(bad("it became shorter")) }
    }

    /// Where the block is among those that are held.
    fn load(&mut self, block: u64) -> Result<usize> {
        let last = self.held.len().wrapping_sub(1);
        if let Some(i) = self.held.iter().rposition(|(b, _)| *b == block) {
            if i != last {
                let found = self.held.remove(i);
                self.held.push(found);
            }
            return Ok(last);
        }
        let mut data = if self.held.len() < self.keep { Vec::new() } else { self.held.remove(0).1 };
        let start = block * self.block;
        let size = usize::try_from(self.block.min(self.len - start)).unwrap_or(0);
        data.resize(size, 0);
        self.file.read_exact_at(&mut data, start).context(|| "read a layer's index")?;
        self.held.push((block, data));
        Ok(self.held.len() - 1)
    }
}
