//! Digests of files that need not be read again.
//!
//! A file is known by its path, size, times, inode and mode. One that was written to shortly before it was read is
//! not remembered: a second write within the same step of the file system's clock would leave no trace.
//!
//! The cache is one file, and only ever a shortcut: where it is missing, damaged or foreign, all is read again.
//!
//! ```text
//! "longshore digests 1\n"
//! records in the order of the tree, numbers in little endian:
//!   u16 bytes shared with the path before, u16 bytes that follow, the bytes
//!   u64 size, i64 + u32 mtime, i64 + u32 ctime, u64 inode, u32 mode
//!   u8: bit 0 content, bit 1 attributes; 32 bytes for each
//! sha256 of all before it
//! ```

use std::fs::File;
use std::io::Read;
use std::path::Path;

use longshore_oci::Digest;
use longshore_store::layer::tree_order;
use longshore_store::tar::Time;
use rustix::fs::Mode;

use super::bytes::{Input, put_path, put_time};
use super::error::Result;
use super::files::{Content, NONE};
use super::tree::{Entry, Tree};

const MAGIC: &[u8] = b"longshore digests 1\n";
const SUM: usize = 32;
/// Files that are remembered.
const MAX_RECORDS: usize = 1 << 20;
/// Files that are remembered although they are not in the tree that was looked at: another build may look at more.
const SLACK: usize = 1 << 16;
/// Bytes of a cache that is read.
const MAX_FILE: u64 = 512 << 20;

/// What is known of files from earlier builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestCache {
    /// In the order of the tree.
    records: Vec<Record>,
    dirty: bool,
}

/// What was read of a file, and how it looked then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    path: Vec<u8>,
    stamp: Stamp,
    content: Content,
}

/// How something looked: whatever is written to it changes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) ino: u64,
    /// Permission bits.
    pub(super) mode: u32,
}

impl Stamp {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { size: entry.size, mtime: entry.mtime, ctime: entry.ctime, ino: entry.ino, mode: entry.mode }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.size.to_le_bytes());
        put_time(out, self.mtime);
        put_time(out, self.ctime);
        out.extend_from_slice(&self.ino.to_le_bytes());
        out.extend_from_slice(&self.mode.to_le_bytes());
    }

    pub(super) fn get(input: &mut Input<'_>) -> Option<Self> {
        let size = u64::from_le_bytes(input.take()?);
        let (mtime, ctime) = (input.time()?, input.time()?);
        let (ino, mode) = (u64::from_le_bytes(input.take()?), u32::from_le_bytes(input.take()?));
        Some(Self { size, mtime, ctime, ino, mode })
    }
}

impl Record {
    pub(super) fn new(entry: &Entry, content: Content) -> Self {
        Self { path: entry.path.clone(), stamp: Stamp::of(entry), content }
    }

    fn get(input: &mut Input<'_>, path: &mut Vec<u8>) -> Option<Self> {
        input.path(path)?;
        let stamp = Stamp::get(input)?;
        let [present] = input.take()?;
        let mut digest = |bit: u8| match present & bit {
            0 => Some(NONE),
            _ => Some(Digest::from_bytes(input.take()?)),
        };
        let content = Content { bytes: digest(1)?, xattrs: digest(2)? };
        Some(Self { path: path.clone(), stamp, content })
    }
}

impl DigestCache {
    /// Reads a cache; an empty one where there is none that can be used.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        Self::read(path).unwrap_or_default()
    }

    fn read(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.len() > MAX_FILE {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).ok()?);
        Read::by_ref(&mut file).take(MAX_FILE + 1).read_to_end(&mut bytes).ok()?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
        let mut input = Input(body.strip_prefix(MAGIC)?);
        if Digest::of(body).as_bytes() != sum {
            return None;
        }
        let mut records: Vec<Record> = Vec::with_capacity((body.len() / 128).min(MAX_RECORDS));
        let mut path = Vec::new();
        while !input.is_empty() {
            let record = Record::get(&mut input, &mut path)?;
            let ordered = records.last().is_none_or(|last| tree_order(&last.path, &record.path).is_lt());
            if !ordered || records.len() == MAX_RECORDS {
                return None;
            }
            records.push(record);
        }
        Some(Self { records, dirty: false })
    }

    /// Writes the cache if anything was added, in one step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&mut self, path: &Path) -> Result<()> {
        if self.dirty {
            longshore_sys::atomic::write_atomic_path(
                path,
                &self.to_bytes(),
                Mode::from_raw_mode(0o600),
                false,
            )?;
            self.dirty = false;
        }
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAGIC.len() + self.records.len() * 128 + SUM);
        out.extend_from_slice(MAGIC);
        let mut before: &[u8] = b"";
        for Record { path, stamp, content } in &self.records {
            put_path(&mut out, before, path);
            before = path;
            stamp.put(&mut out);
            let digests = [content.bytes, content.xattrs];
            let present = digests.map(|digest| u8::from(digest != NONE));
            out.push(present[0] | present[1] << 1);
            digests.iter().filter(|d| **d != NONE).for_each(|d| out.extend_from_slice(d.as_bytes()));
        }
        let sum = Digest::of(&out);
        out.extend_from_slice(sum.as_bytes());
        out
    }

    /// How many files are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The digests of all contents that it names.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        let all = self.records.iter().flat_map(|record| [record.content.bytes, record.content.xattrs]);
        all.filter(|digest| *digest != NONE)
    }

    /// The files that it names, by the digests of their bytes, with their sizes.
    pub fn files(&self) -> impl Iterator<Item = (Digest, u64)> {
        let files = self.records.iter().filter(|record| record.content.bytes != NONE);
        files.map(|record| (record.content.bytes, record.stamp.size))
    }

    /// For questions in the order of the tree.
    pub(super) fn lookup(&self) -> Lookup<'_> {
        Lookup { records: &self.records, at: 0 }
    }

    /// Adds records, which are in the order of the tree. Paths that are no longer in `tree` are forgotten once they
    /// are many.
    pub(super) fn add(&mut self, new: Vec<Record>, tree: &Tree) {
        let stale = self.records.len() + new.len() > 2 * tree.entries().len() + SLACK;
        if new.is_empty() && !stale {
            return;
        }
        self.dirty = true;
        let old = std::mem::take(&mut self.records);
        let mut merged = Vec::with_capacity(old.len() + new.len());
        let mut old = old.into_iter().filter(|r| !stale || tree.find(&r.path).is_some()).peekable();
        for record in new {
            while let Some(before) = old.next_if(|r| tree_order(&r.path, &record.path).is_lt()) {
                merged.push(before);
            }
            old.next_if(|r| r.path == record.path);
            merged.push(record);
        }
        merged.extend(old);
        merged.truncate(MAX_RECORDS);
        self.records = merged;
    }
}

/// A place in the records.
pub(super) struct Lookup<'a> {
    records: &'a [Record],
    at: usize,
}

impl Lookup<'_> {
    /// What is behind an entry, if it looks as it did.
    pub(super) fn get(&mut self, entry: &Entry) -> Option<Content> {
        // Mostly it is the next one.
        let is = |at: &usize| self.records.get(*at).is_some_and(|record| record.path == entry.path);
        let at = Some(self.at)
            .filter(is)
            .or_else(|| self.records.binary_search_by(|record| tree_order(&record.path, &entry.path)).ok())?;
        self.at = at + 1;
        self.records.get(at).filter(|record| record.stamp == Stamp::of(entry)).map(|record| record.content)
    }
}
