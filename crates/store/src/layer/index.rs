//! File indexes: what a layer holds, sorted by path, readable without unpacking anything.
//!
//! The format is described in `docs/ON-DISK.md`. [`Index`] reads and checks a whole one; [`super::IndexFile`] reads
//! only what is asked for.

use std::cmp::Ordering;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::Crc;

use crate::error::{Error, IoContext, Result};
use crate::tar::{EntryKind, Time};

pub(super) const MAGIC: &[u8; 8] = b"LSINDEX\0";
/// The version that is written.
pub(crate) const VERSION: u32 = 2;
pub(super) const HEAD: usize = 8 + 4 + 4 + 8;
/// Bytes of the check sum at the end, since version 2.
pub(super) const TAIL: usize = 4;
/// No entry of the tar describes this directory.
pub(super) const IMPLIED: u8 = 1;
/// The file has other names in the layer.
pub(super) const SHARED: u8 = 2;

/// What an entry of a layer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// It adds a file of this type.
    Entry(EntryKind),
    /// It hides the path of the layers below.
    Whiteout,
    /// It hides what the directory holds in the layers below.
    Opaque,
}

impl IndexKind {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Entry(EntryKind::File) => 0,
            Self::Entry(EntryKind::HardLink) => 1,
            Self::Entry(EntryKind::Symlink) => 2,
            Self::Entry(EntryKind::Char) => 3,
            Self::Entry(EntryKind::Block) => 4,
            Self::Entry(EntryKind::Dir) => 5,
            Self::Entry(EntryKind::Fifo) => 6,
            Self::Whiteout => 16,
            Self::Opaque => 17,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Entry(EntryKind::File),
            1 => Self::Entry(EntryKind::HardLink),
            2 => Self::Entry(EntryKind::Symlink),
            3 => Self::Entry(EntryKind::Char),
            4 => Self::Entry(EntryKind::Block),
            5 => Self::Entry(EntryKind::Dir),
            6 => Self::Entry(EntryKind::Fifo),
            16 => Self::Whiteout,
            17 => Self::Opaque,
            _ => return None,
        })
    }
}

/// One line of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry<'a> {
    /// The clean path, without a slash at the start; of a whiteout, the path that it hides.
    pub path: &'a [u8],
    /// What it is. Since version 2 a hard link is one to a regular file of the layer; other types show themselves under
    /// all their names.
    pub kind: IndexKind,
    /// Permission bits.
    pub mode: u32,
    /// Bytes of a file; since version 2 of a hard link too.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// User and group; `None` in version 1.
    pub owner: Option<(u32, u32)>,
    /// Target of a symbolic link as it stands in it; of a hard link the path of the file in this layer. Empty for
    /// others, and in version 1.
    pub link: &'a [u8],
    /// Numbers of a device.
    pub dev: (u32, u32),
    /// A directory that the layer has only because something lies in it.
    pub implied: bool,
    /// A file that has other names in this layer.
    pub shared: bool,
}

impl IndexEntry<'_> {
    /// An entry of this kind that says nothing else.
    #[must_use]
    pub fn bare(path: &[u8], kind: IndexKind) -> IndexEntry<'_> {
        IndexEntry {
            path,
            kind,
            mode: 0,
            size: 0,
            mtime: Time::default(),
            owner: None,
            link: b"",
            dev: (0, 0),
            implied: false,
            shared: false,
        }
    }
}

/// The order of a tree's paths: what a directory holds follows it at once.
#[must_use]
pub fn tree_order(a: &[u8], b: &[u8]) -> Ordering {
    match a.iter().zip(b).find(|(x, y)| x != y) {
        None => a.len().cmp(&b.len()),
        Some((b'/', _)) => Ordering::Less,
        Some((_, b'/')) => Ordering::Greater,
        Some((x, y)) => x.cmp(y),
    }
}

/// Whether `path` lies below the directory `dir`.
#[must_use]
pub fn is_below(path: &[u8], dir: &[u8]) -> bool {
    match dir {
        b"" => !path.is_empty(),
        _ => path.len() > dir.len() && path[dir.len()] == b'/' && path.starts_with(dir),
    }
}

pub(super) fn bad(what: &str) -> Error {
    Error::Corrupt(format!("layer index: {what}"))
}

/// Where things are in an index of some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) version: u32,
    pub(super) count: usize,
    /// Bytes of all names.
    names: u64,
}

/// The fixed part of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Where its path starts among the names; the target of its link follows.
    pub(super) at: u64,
    pub(super) path_len: usize,
    pub(super) link_len: usize,
    pub(super) kind: IndexKind,
    flags: u8,
    mode: u32,
    size: u64,
    mtime: Time,
    owner: Option<(u32, u32)>,
    dev: (u32, u32),
}

impl Row {
    /// The entry, given path and target.
    pub(super) fn entry<'a>(&self, path: &'a [u8], link: &'a [u8]) -> IndexEntry<'a> {
        IndexEntry {
            path,
            kind: self.kind,
            mode: self.mode,
            size: self.size,
            mtime: self.mtime,
            owner: self.owner,
            link,
            dev: self.dev,
            implied: self.flags & IMPLIED != 0,
            shared: self.flags & SHARED != 0,
        }
    }
}

impl Layout {
    /// Reads a header; `len` is the size of the file.
    pub(super) fn read(head: &[u8], len: u64) -> Result<Self> {
        if head.len() < HEAD || &head[..8] != MAGIC {
            return Err(bad("not an index"));
        }
        let version = u32_at(head, 8);
        if version > VERSION {
            return Err(Error::Unimplemented(format!(
                "layer index version {version}: a newer version wrote it"
            )));
        }
        let layout = Self { version, count: u32_at(head, 12) as usize, names: u64_at(head, 16) };
        let tail = if version >= 2 { TAIL as u64 } else { 0 };
        let rows = (layout.count as u64).checked_mul(layout.row() as u64);
        let want = rows
            .and_then(|n| n.checked_add(HEAD as u64 + tail))
            .and_then(|n| n.checked_add(layout.names))
            .filter(|_| version > 0);
        if want != Some(len) {
            return Err(bad("not complete"));
        }
        Ok(layout)
    }

    /// Bytes of a row.
    pub(super) const fn row(&self) -> usize {
        if self.version >= 2 { 56 } else { 40 }
    }

    /// Where a row lies in the file.
    pub(super) const fn row_at(&self, i: usize) -> u64 {
        (HEAD + i * self.row()) as u64
    }

    /// Where the names start in the file.
    pub(super) const fn names_at(&self) -> u64 {
        self.row_at(self.count)
    }

    /// How paths are sorted.
    pub(super) fn order(&self) -> fn(&[u8], &[u8]) -> Ordering {
        if self.version >= 2 { tree_order } else { |a, b| a.cmp(b) }
    }

    /// Reads a row; its names lie within the names.
    pub(super) fn parse(&self, row: &[u8]) -> Option<Row> {
        if row.len() < self.row() {
            return None;
        }
        let two = self.version >= 2;
        let out = Row {
            at: u64_at(row, 0),
            path_len: usize::from(u16_at(row, 8)),
            link_len: if two { usize::from(u16_at(row, 52)) } else { 0 },
            kind: IndexKind::from_code(row[10])?,
            flags: if two { row[11] } else { 0 },
            mode: u32_at(row, 12),
            size: u64_at(row, 16),
            mtime: Time { secs: u64_at(row, 24).cast_signed(), nanos: u32_at(row, 32) },
            owner: two.then(|| (u32_at(row, 36), u32_at(row, 40))),
            dev: if two { (u32_at(row, 44), u32_at(row, 48)) } else { (0, 0) },
        };
        let end = out.at.checked_add((out.path_len + out.link_len) as u64)?;
        (end <= self.names).then_some(out)
    }
}

/// A layer's index, in memory.
#[derive(Debug)]
pub struct Index {
    data: Vec<u8>,
    layout: Layout,
}

impl Index {
    /// Reads and checks an index: that it is whole, and since version 2 its check sum.
    ///
    /// # Errors
    /// `Corrupt` if it is none or is not complete; `Unimplemented` if a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        let mut data = Vec::new();
        File::open(path)
            .and_then(|mut f| f.read_to_end(&mut data))
            .context(|| format!("read {}", path.display()))?;
        Self::parse(data)
    }

    pub(super) fn parse(data: Vec<u8>) -> Result<Self> {
        let layout = Layout::read(&data, data.len() as u64)?;
        if layout.version >= 2 {
            let (body, tail) = data.split_at(data.len() - TAIL);
            let mut sum = Crc::new();
            sum.update(body);
            if sum.sum() != u32_at(tail, 0) {
                return Err(bad("its check sum is wrong"));
            }
        }
        let index = Self { data, layout };
        let order = layout.order();
        let mut last: Option<&[u8]> = None;
        for i in 0..layout.count {
            let entry = index.entry(i).ok_or_else(|| bad("bad row"))?;
            if last.is_some_and(|last| order(last, entry.path) == Ordering::Greater) {
                return Err(bad("not sorted"));
            }
            last = Some(entry.path);
        }
        Ok(index)
    }

    /// The version of the format.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.layout.version
    }

    /// The index as it stands in its file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data
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

    /// The entry at a position in path order.
    #[must_use]
    pub fn entry(&self, i: usize) -> Option<IndexEntry<'_>> {
        if i >= self.layout.count {
            return None;
        }
        let start = usize::try_from(self.layout.row_at(i)).ok()?;
        let row = self.layout.parse(self.data.get(start..start + self.layout.row())?)?;
        let at = usize::try_from(self.layout.names_at() + row.at).ok()?;
        let names = self.data.get(at..at + row.path_len + row.link_len)?;
        let (path, link) = names.split_at(row.path_len);
        Some(row.entry(path, link))
    }

    /// All entries in path order: in [`tree_order`] since version 2, before that by their bytes.
    pub fn iter(&self) -> impl Iterator<Item = IndexEntry<'_>> {
        (0..self.len()).filter_map(|i| self.entry(i))
    }

    /// What the layer says about a clean path: nothing, one entry, or a directory with its opaque
    /// mark.
    pub fn get(&self, path: &[u8]) -> impl Iterator<Item = IndexEntry<'_>> {
        let (mut low, mut high) = (0, self.len());
        let order = self.layout.order();
        while low < high {
            let mid = low + (high - low) / 2;
            if self.entry(mid).is_some_and(|e| order(e.path, path) == Ordering::Less) {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        let end =
            (low..self.len()).find(|&i| self.entry(i).is_none_or(|e| e.path != path)).unwrap_or(self.len());
        (low..end).filter_map(|i| self.entry(i))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0u8; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0u8; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn a_directory_is_followed_by_what_it_holds() {
        let mut paths = ["a-b", "a/b/c", "a", "a/b", "a/b-c", "", "a.d/x", "b", "a/b/a"];
        paths.sort_by(|a, b| tree_order(a.as_bytes(), b.as_bytes()));
        assert_eq!(paths, ["", "a", "a/b", "a/b/a", "a/b/c", "a/b-c", "a-b", "a.d/x", "b"]);
        assert!(
            is_below(b"a/b", b"a") && is_below(b"a", b"") && !is_below(b"a-b", b"a") && !is_below(b"a", b"a")
        );
    }

    /// Version 1: rows of 40 bytes, sorted by the bytes of their paths, no check sum.
    pub(in crate::layer) fn version_1(rows: &[(&str, IndexKind, u64)]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(1u32.to_le_bytes());
        out.extend(u32::try_from(rows.len()).unwrap().to_le_bytes());
        out.extend(rows.iter().map(|r| r.0.len() as u64).sum::<u64>().to_le_bytes());
        let mut at = 0u64;
        for (path, kind, size) in rows {
            out.extend(at.to_le_bytes());
            out.extend(u16::try_from(path.len()).unwrap().to_le_bytes());
            out.extend([kind.code(), 0]);
            out.extend(0o644u32.to_le_bytes());
            out.extend(size.to_le_bytes());
            out.extend((-5i64).to_le_bytes());
            out.extend(7u32.to_le_bytes());
            out.extend([0; 4]);
            at += path.len() as u64;
        }
        rows.iter().for_each(|r| out.extend(r.0.as_bytes()));
        out
    }

    #[test]
    fn version_1_is_still_read() {
        let (file, dir) = (IndexKind::Entry(EntryKind::File), IndexKind::Entry(EntryKind::Dir));
        let data = version_1(&[
            ("a", IndexKind::Whiteout, 0),
            ("b", dir, 0),
            ("b", IndexKind::Opaque, 0),
            ("b-c", file, 3),
            ("b/c", file, 2),
        ]);
        let index = Index::parse(data.clone()).unwrap();
        assert_eq!((index.version(), index.len()), (1, 5));
        let found: Vec<_> = index.get(b"b/c").collect();
        assert_eq!((found.len(), found[0].size, found[0].mode, found[0].owner), (1, 2, 0o644, None));
        assert_eq!(found[0].mtime, Time { secs: -5, nanos: 7 });
        assert_eq!(index.get(b"b").count(), 2);
        assert_eq!(index.get(b"zz").count(), 0);
        assert!(Index::parse(data[..data.len() - 1].to_vec()).is_err());
        let mut future = data;
        future[8] = 9;
        assert!(matches!(Index::parse(future), Err(Error::Unimplemented(_))));
    }
}
