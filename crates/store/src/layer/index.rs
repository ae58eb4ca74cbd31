//! File indexes: what a layer holds, sorted by path, readable without unpacking anything.
//!
//! The format is described in `docs/ON-DISK.md`.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, IoContext, Result};
use crate::tar::{EntryKind, Time};

const MAGIC: &[u8; 8] = b"LSINDEX\0";
const VERSION: u32 = 1;
const HEAD: usize = 8 + 4 + 4 + 8;
const ROW: usize = 40;

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
    const fn code(self) -> u8 {
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
    /// What it is.
    pub kind: IndexKind,
    /// Permission bits.
    pub mode: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
}

struct Row {
    at: usize,
    len: u16,
    kind: IndexKind,
    mode: u32,
    size: u64,
    mtime: Time,
}

/// Collects an index while a layer is unpacked.
#[derive(Default)]
pub(super) struct IndexWriter {
    paths: Vec<u8>,
    rows: Vec<Row>,
}

impl IndexWriter {
    pub(super) fn add(&mut self, entry: &IndexEntry<'_>) -> Result<()> {
        let too_long = |_| Error::TooLarge("layer: path too long for the index".into());
        self.rows.push(Row {
            at: self.paths.len(),
            len: u16::try_from(entry.path.len()).map_err(too_long)?,
            kind: entry.kind,
            mode: entry.mode,
            size: entry.size,
            mtime: entry.mtime,
        });
        self.paths.extend_from_slice(entry.path);
        Ok(())
    }

    /// Sorts and writes to a file.
    pub(super) fn write(self, path: &Path, sync: bool) -> Result<()> {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .context(|| format!("create {}", path.display()))?;
        let mut out = BufWriter::with_capacity(256 << 10, file);
        self.encode(&mut out)?;
        let file = out.into_inner().map_err(|e| Error::io("write index", e.into_error()))?;
        if sync {
            file.sync_all().context(|| format!("sync {}", path.display()))?;
        }
        Ok(())
    }

    /// Sorts and writes. Of several entries of a path the last stays; an opaque mark and the
    /// directory it stands in both do.
    pub(super) fn encode(mut self, out: &mut impl Write) -> Result<()> {
        let name = |row: &Row| &self.paths[row.at..row.at + usize::from(row.len)];
        self.rows.sort_by(|a, b| {
            let key = |r: &Row| r.kind == IndexKind::Opaque;
            name(a).cmp(name(b)).then(key(a).cmp(&key(b)))
        });
        let mut kept: Vec<&Row> = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let same = |last: &&Row| {
                name(last) == name(row) && (last.kind == IndexKind::Opaque) == (row.kind == IndexKind::Opaque)
            };
            if kept.last().is_some_and(same) {
                kept.pop();
            }
            kept.push(row);
        }
        let names: usize = kept.iter().map(|r| usize::from(r.len)).sum();
        let mut put = |bytes: &[u8]| out.write_all(bytes).context(|| "write index");
        put(MAGIC)?;
        put(&VERSION.to_le_bytes())?;
        put(&u32::try_from(kept.len()).map_err(|_| bad("too many entries"))?.to_le_bytes())?;
        put(&(names as u64).to_le_bytes())?;
        let mut at = 0u64;
        for row in &kept {
            put(&at.to_le_bytes())?;
            put(&row.len.to_le_bytes())?;
            put(&[row.kind.code(), 0])?;
            put(&row.mode.to_le_bytes())?;
            put(&row.size.to_le_bytes())?;
            put(&row.mtime.secs.to_le_bytes())?;
            put(&row.mtime.nanos.to_le_bytes())?;
            put(&[0; 4])?;
            at += u64::from(row.len);
        }
        kept.iter().try_for_each(|row| put(name(row)))
    }
}

fn bad(what: &str) -> Error {
    Error::Corrupt(format!("layer index: {what}"))
}

/// A layer's index, in memory.
#[derive(Debug)]
pub struct Index {
    data: Vec<u8>,
    count: usize,
}

impl Index {
    /// Reads and checks an index.
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

    fn parse(data: Vec<u8>) -> Result<Self> {
        if data.len() < HEAD || &data[..8] != MAGIC {
            return Err(bad("not an index"));
        }
        let version = u32_at(&data, 8);
        if version > VERSION {
            return Err(Error::Unimplemented(format!(
                "layer index version {version}: a newer version wrote it"
            )));
        }
        let count = u32_at(&data, 12) as usize;
        let names = usize::try_from(u64_at(&data, 16)).map_err(|_| bad("bad length"))?;
        let want =
            count.checked_mul(ROW).and_then(|n| n.checked_add(HEAD)).and_then(|n| n.checked_add(names));
        if want != Some(data.len()) {
            return Err(bad("not complete"));
        }
        let index = Self { data, count };
        for i in 0..count {
            if index.entry(i).is_none() {
                return Err(bad("bad row"));
            }
        }
        Ok(index)
    }

    /// The index as it stands in its file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entry at a position in path order.
    #[must_use]
    pub fn entry(&self, i: usize) -> Option<IndexEntry<'_>> {
        if i >= self.count {
            return None;
        }
        let row = &self.data[HEAD + i * ROW..][..ROW];
        let at = usize::try_from(u64_at(row, 0)).ok()?;
        let len = usize::from(u16::from_le_bytes([row[8], row[9]]));
        let names = &self.data[HEAD + self.count * ROW..];
        Some(IndexEntry {
            path: names.get(at..at.checked_add(len)?)?,
            kind: IndexKind::from_code(row[10])?,
            mode: u32_at(row, 12),
            size: u64_at(row, 16),
            mtime: Time { secs: u64_at(row, 24).cast_signed(), nanos: u32_at(row, 32) },
        })
    }

    /// All entries in path order.
    pub fn iter(&self) -> impl Iterator<Item = IndexEntry<'_>> {
        (0..self.count).filter_map(|i| self.entry(i))
    }

    /// What the layer says about a clean path: nothing, one entry, or a directory with its opaque
    /// mark.
    pub fn get(&self, path: &[u8]) -> impl Iterator<Item = IndexEntry<'_>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let mid = low + (high - low) / 2;
            if self.entry(mid).is_some_and(|e| e.path < path) {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        let end =
            (low..self.count).find(|&i| self.entry(i).is_none_or(|e| e.path != path)).unwrap_or(self.count);
        (low..end).filter_map(|i| self.entry(i))
    }
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
mod tests {
    use super::*;

    #[test]
    fn sorted_searched_and_the_last_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let mut w = IndexWriter::default();
        let file = IndexKind::Entry(EntryKind::File);
        let entry = |path, kind, size| IndexEntry {
            path,
            kind,
            mode: 0o644,
            size,
            mtime: Time { secs: -5, nanos: 7 },
        };
        w.add(&entry(b"b/c", file, 1)).unwrap();
        w.add(&entry(b"b", IndexKind::Opaque, 0)).unwrap();
        w.add(&entry(b"a", IndexKind::Whiteout, 0)).unwrap();
        w.add(&entry(b"b", IndexKind::Entry(EntryKind::Dir), 0)).unwrap();
        w.add(&entry(b"b/c", file, 2)).unwrap();
        w.write(&path, false).unwrap();
        let index = Index::open(&path).unwrap();
        let paths: Vec<_> = index.iter().map(|e| e.path.to_vec()).collect();
        assert_eq!(paths, [&b"a"[..], b"b", b"b", b"b/c"]);
        assert_eq!(index.get(b"b/c").collect::<Vec<_>>(), [entry(b"b/c", file, 2)]);
        assert_eq!(index.get(b"b").count(), 2);
        assert_eq!(index.get(b"zz").count(), 0);
        let mut data = std::fs::read(&path).unwrap();
        data.pop();
        assert!(Index::parse(data).is_err());
    }
}
