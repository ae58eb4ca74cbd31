use std::io::Write;

use super::header::{DEVMAJOR, DEVMINOR, GID, MODE, MTIME, SIZE, UID, put_checksum, put_number};
use super::{BLOCK, Entry, EntryKind, pax};
use crate::error::{Error, IoContext, Result};

/// The largest numbers that octal fields hold.
const MAX_ID: u64 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// Writes an archive: ustar headers, pax records only where something does not fit. The same
/// entries always give the same bytes.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    left: u64,
    padding: usize,
    records: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes to `inner`: give it a large buffer.
    pub fn new(inner: W) -> Self {
        Self { inner, left: 0, padding: 0, records: Vec::new() }
    }

    /// Starts an entry. For a file exactly `entry.size` bytes of [`Writer::data`] must follow.
    /// Maps of sparse files are not written.
    ///
    /// # Errors
    /// When `inner` fails, or the entry before is not complete.
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_entry()?;
        self.write_records(entry)?;
        let mut block = [0u8; BLOCK];
        put_name(&mut block, &entry.path);
        let link = &entry.link[..entry.link.len().min(100)];
        block[157..157 + link.len()].copy_from_slice(link);
        put_number(&mut block, MODE, u64::from(entry.mode));
        put_number(&mut block, UID, fitting(u64::from(entry.uid), MAX_ID));
        put_number(&mut block, GID, fitting(u64::from(entry.gid), MAX_ID));
        let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
        put_number(&mut block, SIZE, fitting(size, MAX_SIZE));
        put_number(&mut block, MTIME, u64::try_from(entry.mtime.secs).map_or(0, |s| fitting(s, MAX_SIZE)));
        if matches!(entry.kind, EntryKind::Char | EntryKind::Block) {
            put_number(&mut block, DEVMAJOR, u64::from(entry.dev.0));
            put_number(&mut block, DEVMINOR, u64::from(entry.dev.1));
        } else {
            put_number(&mut block, DEVMAJOR, 0);
            put_number(&mut block, DEVMINOR, 0);
        }
        self.finish_header(block, flag(entry.kind))?;
        self.left = size;
        self.padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        Ok(())
    }

    /// Payload of the current entry.
    ///
    /// # Errors
    /// When `inner` fails, or these are more bytes than announced.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| Error::Internal("tar: more data than the entry announced".into()))?;
        self.put(bytes)
    }

    /// Fills the rest of the current entry with zeros, as tar does when a file shrank.
    ///
    /// # Errors
    /// When `inner` fails.
    pub fn pad(&mut self) -> Result<()> {
        let zeros = [0u8; 8192];
        while self.left > 0 {
            let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(zeros.len());
            self.data(&zeros[..n])?;
        }
        Ok(())
    }

    /// Bytes that the current entry still wants.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Writes the end marker and gives `inner` back.
    ///
    /// # Errors
    /// When `inner` fails, or the last entry is not complete.
    pub fn finish(mut self) -> Result<W> {
        self.end_entry()?;
        self.put(&[0u8; 2 * BLOCK])?;
        self.inner.flush().context(|| "write tar")?;
        Ok(self.inner)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).context(|| "write tar")
    }

    fn end_entry(&mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::Internal("tar: less data than the entry announced".into()));
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(&[0u8; BLOCK][..padding])
    }

    fn write_records(&mut self, entry: &Entry) -> Result<()> {
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        collect_records(entry, &mut records);
        if !records.is_empty() {
            let mut block = [0u8; BLOCK];
            put_name(&mut block, b"PaxHeaders.0/entry");
            put_number(&mut block, MODE, 0o644);
            for f in [UID, GID, MTIME, DEVMAJOR, DEVMINOR] {
                put_number(&mut block, f, 0);
            }
            put_number(&mut block, SIZE, records.len() as u64);
            self.finish_header(block, b'x')?;
            self.put(&records)?;
            let padding = records.len().wrapping_neg() % BLOCK;
            self.put(&[0u8; BLOCK][..padding])?;
        }
        self.records = records;
        Ok(())
    }

    fn finish_header(&mut self, mut block: [u8; BLOCK], flag: u8) -> Result<()> {
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        put_checksum(&mut block);
        self.put(&block)
    }
}

fn flag(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::Char => b'3',
        EntryKind::Block => b'4',
        EntryKind::Dir => b'5',
        EntryKind::Fifo => b'6',
    }
}

/// What does not fit is 0 in the header and stands in a record.
fn fitting(n: u64, max: u64) -> u64 {
    if n > max { 0 } else { n }
}

/// Where to split a name between the prefix and name fields, if it fits there.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    // The name may not be empty, so a slash at the end does not count.
    let inner = path.strip_suffix(b"/").unwrap_or(path);
    let earliest = path.len().checked_sub(101)?;
    let at = (earliest..inner.len().min(156)).find(|&i| inner[i] == b'/' && i > 0)?;
    Some((&path[..at], &path[at + 1..]))
}

fn put_name(block: &mut [u8; BLOCK], path: &[u8]) {
    match split(path) {
        Some((prefix, name)) => {
            block[..name.len()].copy_from_slice(name);
            block[345..345 + prefix.len()].copy_from_slice(prefix);
        }
        None => block[..100].copy_from_slice(&path[..100]),
    }
}

/// The records of an entry, sorted by key.
fn collect_records(entry: &Entry, out: &mut Vec<u8>) {
    let mut xattrs: Vec<_> = entry.xattrs.iter().collect();
    xattrs.sort();
    for (name, value) in xattrs {
        let mut key = b"SCHILY.xattr.".to_vec();
        key.extend_from_slice(name);
        pax::put(out, &key, value);
    }
    let number = |out: &mut Vec<u8>, key: &[u8], n: u64, max: u64| {
        if n > max {
            pax::put(out, key, n.to_string().as_bytes());
        }
    };
    number(out, b"gid", u64::from(entry.gid), MAX_ID);
    if entry.link.len() > 100 {
        pax::put(out, b"linkpath", &entry.link);
    }
    let time = entry.mtime;
    if time.nanos != 0 || time.secs < 0 || time.secs.unsigned_abs() > MAX_SIZE {
        pax::put(out, b"mtime", time_text(time.secs, time.nanos).as_bytes());
    }
    if split(&entry.path).is_none() {
        pax::put(out, b"path", &entry.path);
    }
    if entry.kind == EntryKind::File {
        number(out, b"size", entry.size, MAX_SIZE);
    }
    number(out, b"uid", u64::from(entry.uid), MAX_ID);
}

fn time_text(secs: i64, nanos: u32) -> String {
    let mut text = if secs < 0 && nanos > 0 {
        format!("-{}.{:09}", (secs + 1).unsigned_abs(), 1_000_000_000 - nanos)
    } else if nanos > 0 {
        format!("{secs}.{nanos:09}")
    } else {
        return secs.to_string();
    };
    text.truncate(text.trim_end_matches('0').len());
    text
}
