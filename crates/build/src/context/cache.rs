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

use super::error::Result;
use super::hash::{Content, NONE};
use super::tree::{Entry, Tree};
use crate::pattern::MAX_PATH;

const MAGIC: &[u8] = b"longshore digests 1\n";
const SUM: usize = 32;
/// Files that are remembered.
const MAX_RECORDS: usize = 1 << 20;
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    mtime: Time,
    ctime: Time,
    ino: u64,
    mode: u32,
}

impl Stamp {
    fn of(entry: &Entry) -> Self {
        Self { size: entry.size, mtime: entry.mtime, ctime: entry.ctime, ino: entry.ino, mode: entry.mode }
    }
}

impl Record {
    pub(super) fn new(entry: &Entry, content: Content) -> Self {
        Self { path: entry.path.clone(), stamp: Stamp::of(entry), content }
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
        while !input.0.is_empty() {
            let record = input.record(&mut path)?;
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
            let shared = path.iter().zip(before).take_while(|(a, b)| a == b).count();
            let rest = path.get(shared..).unwrap_or_default();
            // Paths are shorter than 4096 bytes.
            for len in [shared, rest.len()] {
                out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
            }
            out.extend_from_slice(rest);
            before = path;
            out.extend_from_slice(&stamp.size.to_le_bytes());
            for time in [stamp.mtime, stamp.ctime] {
                out.extend_from_slice(&time.secs.to_le_bytes());
                out.extend_from_slice(&time.nanos.to_le_bytes());
            }
            out.extend_from_slice(&stamp.ino.to_le_bytes());
            out.extend_from_slice(&stamp.mode.to_le_bytes());
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

    /// Makes one digest a wrong one.
    #[cfg(test)]
    pub(super) fn lie_about(&mut self, path: &[u8]) {
        let of = self.records.iter_mut().filter(|record| record.path == path);
        of.for_each(|record| record.content.bytes = Digest::of(b"a lie"));
    }

    /// For questions in the order of the tree.
    pub(super) fn lookup(&self) -> Lookup<'_> {
        Lookup { records: &self.records, at: 0 }
    }

    /// Adds records, which are in the order of the tree. Paths that are no longer in `tree` are forgotten once they
    /// are many.
    pub(super) fn add(&mut self, new: Vec<Record>, tree: &Tree) {
        let stale = self.records.len() + new.len() > 2 * tree.entries().len() + 1024;
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

/// What is still to be read of a cache.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn record(&mut self, path: &mut Vec<u8>) -> Option<Record> {
        let shared = usize::from(u16::from_le_bytes(self.take()?));
        let rest = usize::from(u16::from_le_bytes(self.take()?));
        if shared > path.len() || shared + rest >= MAX_PATH {
            return None;
        }
        let (bytes, after) = self.0.split_at_checked(rest)?;
        path.truncate(shared);
        path.extend_from_slice(bytes);
        self.0 = after;
        let size = u64::from_le_bytes(self.take()?);
        let (mtime, ctime) = (self.time()?, self.time()?);
        let ino = u64::from_le_bytes(self.take()?);
        let mode = u32::from_le_bytes(self.take()?);
        let [present] = self.take()?;
        let mut digest = |bit: u8| match present & bit {
            0 => Some(NONE),
            _ => Some(Digest::from_bytes(self.take()?)),
        };
        let content = Content { bytes: digest(1)?, xattrs: digest(2)? };
        Some(Record { path: path.clone(), stamp: Stamp { size, mtime, ctime, ino, mode }, content })
    }

    fn time(&mut self) -> Option<Time> {
        Some(Time { secs: i64::from_le_bytes(self.take()?), nanos: u32::from_le_bytes(self.take()?) })
    }
}
