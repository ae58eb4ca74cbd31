use std::io::BufRead;

use super::header::{
    self, Block, DEVMAJOR, DEVMINOR, Dialect, Field, GID, MODE, MTIME, SIZE, UID, field, is_zero, number,
    text,
};
use super::pax::{self, Pax};
use super::{BLOCK, Entry, EntryKind, Limits, Time, sparse};
use crate::error::{Error, IoContext, Result};

/// From here on a size does not fit into the octal field of a header.
const OCTAL_SIZE_END: u64 = 8 << 30;

/// Takes the bytes of an archive that are not payload of its entries, in order.
pub trait RawSink {
    /// The next bytes.
    ///
    /// # Errors
    /// When they cannot be kept; reading stops.
    fn raw(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Keeps nothing.
impl RawSink for () {
    fn raw(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

impl RawSink for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads an archive entry by entry.
///
/// Bytes reach the caller straight from the buffer of `R`: give it a large one.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    left: u64,
    padding: usize,
    entries: u64,
    file_bytes: u64,
    done: bool,
    open_end: bool,
}

/// Headers that stand before an entry and belong to it.
#[derive(Default)]
struct Before {
    pax: Option<Pax>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `inner`, within `limits`.
    pub fn new(inner: R, limits: Limits) -> Self {
        Self { inner, limits, left: 0, padding: 0, entries: 0, file_bytes: 0, done: false, open_end: false }
    }

    /// The padding of the last entry may be missing, as the end marker may be: Docker's command line sends build
    /// contexts like that.
    #[must_use]
    pub fn with_open_end(mut self, open_end: bool) -> Self {
        self.open_end = open_end;
        self
    }

    /// Moves to the next entry and describes it in `entry`; false at the end of the archive, when
    /// all that followed it has been read too. Payload that was not read goes to `sink` with the
    /// headers and the padding.
    ///
    /// # Errors
    /// `Corrupt` if the archive is malformed or contradicts itself, `TooLarge` if over a limit.
    pub fn next_entry(&mut self, entry: &mut Entry, sink: &mut impl RawSink) -> Result<bool> {
        self.skip_payload(sink)?;
        let mut before = Before::default();
        while !self.done {
            let Some(block) = self.header(sink)? else {
                if before.pax.is_some() || before.path.is_some() || before.link.is_some() {
                    return Err(corrupt("extended header without an entry"));
                }
                self.drain(sink)?;
                return Ok(false);
            };
            let dialect = header::dialect(&block)?;
            let stored = u64::try_from(number(field(&block, SIZE), SIZE.2)?)
                .map_err(|_| corrupt("header with a negative size"))?;
            match block[156] {
                b'x' => {
                    let data = self.meta(stored, sink)?;
                    once(&mut before.pax, pax::parse(&data, &self.limits)?, "extended header")?;
                }
                b'g' => pax::check_global(&self.meta(stored, sink)?)?,
                b'L' => {
                    let name = self.long_name(stored, sink)?;
                    once(&mut before.path, name, "long name")?;
                }
                b'K' => {
                    let name = self.long_name(stored, sink)?;
                    once(&mut before.link, name, "long link name")?;
                }
                _ => {
                    self.count_entry()?;
                    self.fill(entry, &block, dialect, stored, before, sink)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Payload bytes of the current entry that were not consumed yet.
    pub fn payload_left(&self) -> u64 {
        self.left
    }

    /// Payload that is at hand; empty only at the end of the payload.
    ///
    /// # Errors
    /// When the source fails, or ends in the middle of the payload.
    pub fn payload(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let data = self.inner.fill_buf().context(|| "read tar")?;
        if data.is_empty() {
            return Err(corrupt("archive ends in the middle of an entry"));
        }
        let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
        Ok(&data[..n])
    }

    /// Marks `n` bytes of what [`Reader::payload`] gave as used.
    pub fn consume(&mut self, n: usize) {
        let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(n);
        self.inner.consume(n);
        self.left -= n as u64;
    }

    fn skip_payload(&mut self, sink: &mut impl RawSink) -> Result<()> {
        while self.left > 0 {
            let data = self.payload()?;
            let n = data.len();
            sink.raw(data)?;
            self.consume(n);
        }
        let padding = std::mem::take(&mut self.padding);
        if padding > 0 && self.open_end && self.inner.fill_buf().context(|| "read tar")?.is_empty() {
            return Ok(());
        }
        self.pass(padding, sink)
    }

    /// Passes `n` bytes to the sink.
    fn pass(&mut self, mut n: usize, sink: &mut impl RawSink) -> Result<()> {
        while n > 0 {
            let data = self.inner.fill_buf().context(|| "read tar")?;
            if data.is_empty() {
                return Err(corrupt("archive ends in the middle of an entry"));
            }
            let take = data.len().min(n);
            sink.raw(&data[..take])?;
            self.inner.consume(take);
            n -= take;
        }
        Ok(())
    }

    /// Passes everything up to the end of the source; nothing after the end marker has a meaning.
    fn drain(&mut self, sink: &mut impl RawSink) -> Result<()> {
        self.done = true;
        loop {
            let data = self.inner.fill_buf().context(|| "read tar")?;
            if data.is_empty() {
                return Ok(());
            }
            let n = data.len();
            sink.raw(data)?;
            self.inner.consume(n);
        }
    }

    /// The next block; `None` at the end of the source.
    fn block(&mut self, sink: &mut impl RawSink) -> Result<Option<Block>> {
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let data = self.inner.fill_buf().context(|| "read tar")?;
            if data.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(corrupt("archive ends in the middle of a header"));
            }
            let take = data.len().min(BLOCK - filled);
            block[filled..filled + take].copy_from_slice(&data[..take]);
            self.inner.consume(take);
            filled += take;
        }
        sink.raw(&block)?;
        Ok(Some(block))
    }

    /// The next header; `None` at the end marker, two blocks of zeros, or where the source ends.
    fn header(&mut self, sink: &mut impl RawSink) -> Result<Option<Block>> {
        let Some(block) = self.block(sink)? else { return Ok(None) };
        if !is_zero(&block) {
            return Ok(Some(block));
        }
        match self.block(sink)? {
            Some(second) if !is_zero(&second) => Err(corrupt("a lone block of zeros before an entry")),
            _ => Ok(None),
        }
    }

    /// The payload of a header that describes the next entry.
    fn meta(&mut self, size: u64, sink: &mut impl RawSink) -> Result<Vec<u8>> {
        if size > self.limits.header_bytes {
            return Err(Error::TooLarge(format!(
                "tar: extended header of {size} bytes, the limit is {}",
                self.limits.header_bytes
            )));
        }
        let len = usize::try_from(size).map_err(|_| corrupt("extended header too long"))?;
        let mut data = Vec::with_capacity(len.min(64 << 10));
        while data.len() < len {
            let chunk = self.inner.fill_buf().context(|| "read tar")?;
            if chunk.is_empty() {
                return Err(corrupt("archive ends in the middle of a header"));
            }
            let take = chunk.len().min(len - data.len());
            data.extend_from_slice(&chunk[..take]);
            self.inner.consume(take);
        }
        sink.raw(&data)?;
        self.pass(padding_of(size), sink)?;
        Ok(data)
    }

    fn long_name(&mut self, size: u64, sink: &mut impl RawSink) -> Result<Vec<u8>> {
        let data = self.meta(size, sink)?;
        let name = text(&data);
        if name.len() > self.limits.path_bytes {
            return Err(Error::TooLarge(format!(
                "tar: path of {} bytes, the limit is {}",
                name.len(),
                self.limits.path_bytes
            )));
        }
        Ok(name.to_owned())
    }

    fn count_entry(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::TooLarge(format!("tar: more than {} entries", self.limits.entries)));
        }
        Ok(())
    }

    fn fill(
        &mut self,
        entry: &mut Entry,
        block: &Block,
        dialect: Dialect,
        header_size: u64,
        before: Before,
        sink: &mut impl RawSink,
    ) -> Result<()> {
        let mut pax = before.pax.unwrap_or_default();
        set_names(entry, block, dialect, before.path, before.link, &mut pax)?;
        let named = |e: Error| match e {
            Error::Corrupt(m) => {
                Error::Corrupt(format!("{m} (entry {})", String::from_utf8_lossy(&entry.path)))
            }
            other => other,
        };
        let stored = agreed_size(header_size, pax.size).map_err(named)?;
        entry.kind = kind(block[156], &entry.path)?;
        entry.mode = u32::try_from(number(field(block, MODE), MODE.2)? & 0o7777).unwrap_or(0);
        entry.uid = id(block, UID, pax.uid)?;
        entry.gid = id(block, GID, pax.gid)?;
        entry.mtime = match pax.mtime {
            Some(time) => time,
            None => Time { secs: number(field(block, MTIME), MTIME.2)?, nanos: 0 },
        };
        entry.dev = device(block, dialect, entry.kind)?;
        entry.xattrs = std::mem::take(&mut pax.xattrs);
        entry.sparse = None;
        entry.size = stored;
        match entry.kind {
            EntryKind::File => self.set_payload(entry, block, stored, pax, sink)?,
            // Writers leave the size of the target in the header; no data follow a hard link.
            EntryKind::HardLink => entry.size = 0,
            // Readers disagree about what follows such an entry.
            _ if stored != 0 => {
                return Err(corrupt(&format!(
                    "{}: size {stored} on an entry that has no data",
                    String::from_utf8_lossy(&entry.path)
                )));
            }
            _ => {}
        }
        Ok(())
    }

    fn set_payload(
        &mut self,
        entry: &mut Entry,
        block: &Block,
        stored: u64,
        pax: Pax,
        sink: &mut impl RawSink,
    ) -> Result<()> {
        self.left = stored;
        self.padding = padding_of(stored);
        let mut map = None;
        if block[156] == b'S' {
            if pax.sparse.present() {
                return Err(corrupt("two sparse maps for one entry"));
            }
            entry.size = sparse::old_gnu_size(block)?;
            map = Some(self.old_gnu_map(block, sink)?);
        } else if pax.sparse.present() {
            entry.size = pax.sparse.real_size.ok_or_else(|| corrupt("sparse file without its size"))?;
            map = Some(match (pax.sparse.major, pax.sparse.minor) {
                (None | Some(0), None | Some(0 | 1)) => {
                    if pax.sparse.blocks.is_some_and(|n| n != pax.sparse.map.len() as u64) {
                        return Err(corrupt("sparse map has another number of segments than announced"));
                    }
                    pax.sparse.map
                }
                (Some(1), None | Some(0)) => self.map_in_payload(sink)?,
                _ => return Err(corrupt("unknown version of sparse map")),
            });
        }
        if let Some(map) = map {
            entry.sparse = Some(sparse::check(map, entry.size, self.left)?);
        }
        self.file_bytes = self.file_bytes.saturating_add(entry.size);
        if self.file_bytes > self.limits.file_bytes {
            return Err(Error::TooLarge(format!("tar: files of more than {} bytes", self.limits.file_bytes)));
        }
        Ok(())
    }

    fn old_gnu_map(&mut self, block: &Block, sink: &mut impl RawSink) -> Result<Vec<(u64, u64)>> {
        let mut map = Vec::new();
        sparse::old_gnu(&block[386..482], &mut map)?;
        let mut extended = block[482] != 0;
        while extended {
            let more = self.block(sink)?.ok_or_else(|| corrupt("archive ends in the middle of a header"))?;
            sparse::old_gnu(&more[..504], &mut map)?;
            extended = more[504] != 0;
            if map.len() > self.limits.sparse_segments {
                return Err(Error::TooLarge("tar: sparse file has too many segments".into()));
            }
        }
        Ok(map)
    }

    fn map_in_payload(&mut self, sink: &mut impl RawSink) -> Result<Vec<(u64, u64)>> {
        let mut lines = sparse::Lines::default();
        loop {
            self.left = self
                .left
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| corrupt("sparse map is longer than its entry"))?;
            let block = self.block(sink)?.ok_or_else(|| corrupt("archive ends in the middle of an entry"))?;
            if lines.push(&block, self.limits.sparse_segments)? {
                return Ok(lines.into_map());
            }
        }
    }
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("tar: {what}"))
}

fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<()> {
    if slot.replace(value).is_some() {
        return Err(corrupt(&format!("two {what}s for one entry")));
    }
    Ok(())
}

fn padding_of(size: u64) -> usize {
    // Less than a block, so it fits.
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0)
}

/// The size in a header and in its extended header must not lead readers to different places.
fn agreed_size(header: u64, pax: Option<u64>) -> Result<u64> {
    match pax {
        None => Ok(header),
        Some(pax) if pax == header || header == 0 || pax >= OCTAL_SIZE_END => Ok(pax),
        Some(pax) => Err(corrupt(&format!("header says {header} bytes, extended header {pax}"))),
    }
}

fn set_names(
    entry: &mut Entry,
    block: &Block,
    dialect: Dialect,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: &mut Pax,
) -> Result<()> {
    let pax_path = pax.sparse.name.take().or_else(|| pax.path.take());
    match (pax_path, long_path) {
        (Some(a), Some(b)) if a != b => return Err(corrupt("two different long names for one entry")),
        (Some(path), _) | (None, Some(path)) => entry.path = path,
        (None, None) => {
            entry.path.clear();
            let prefix = match dialect {
                Dialect::Ustar => text(&block[345..500]),
                Dialect::Star => text(&block[345..476]),
                Dialect::V7 | Dialect::Gnu => &[],
            };
            if !prefix.is_empty() {
                entry.path.extend_from_slice(prefix);
                entry.path.push(b'/');
            }
            entry.path.extend_from_slice(text(&block[..100]));
        }
    }
    match (pax.link.take(), long_link) {
        (Some(a), Some(b)) if a != b => return Err(corrupt("two different long link names for one entry")),
        (Some(link), _) | (None, Some(link)) => entry.link = link,
        (None, None) => {
            entry.link.clear();
            entry.link.extend_from_slice(text(&block[157..257]));
        }
    }
    Ok(())
}

fn kind(flag: u8, path: &[u8]) -> Result<EntryKind> {
    Ok(match flag {
        // In the oldest archives a directory is a file whose name ends in a slash.
        0 if path.ends_with(b"/") => EntryKind::Dir,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::Char,
        b'4' => EntryKind::Block,
        b'5' => EntryKind::Dir,
        b'6' => EntryKind::Fifo,
        other => {
            return Err(Error::Invalid(format!(
                "tar: {}: entries of type {:?} are not supported",
                String::from_utf8_lossy(path),
                char::from(other)
            )));
        }
    })
}

fn id(block: &Block, f: Field, pax: Option<u64>) -> Result<u32> {
    let value = match pax {
        Some(value) => value,
        None => {
            u64::try_from(number(field(block, f), f.2)?).map_err(|_| corrupt(&format!("negative {}", f.2)))?
        }
    };
    // The last value means "unchanged" to chown(2).
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Error::Invalid(format!("tar: {} {value} is out of range", f.2)))
}

fn device(block: &Block, dialect: Dialect, kind: EntryKind) -> Result<(u32, u32)> {
    if dialect == Dialect::V7 || !matches!(kind, EntryKind::Char | EntryKind::Block) {
        return Ok((0, 0));
    }
    let part = |f: Field| {
        u32::try_from(number(field(block, f), f.2)?).map_err(|_| corrupt("device number out of range"))
    };
    Ok((part(DEVMAJOR)?, part(DEVMINOR)?))
}
