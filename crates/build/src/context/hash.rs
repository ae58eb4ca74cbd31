//! The digest of what a COPY takes.
//!
//! Every field has a length before it or a fixed one, and every list its number: two selections that differ have two
//! inputs. It covers names from the source on, kinds, permission bits, owners, the attributes that reach a layer,
//! targets of links, numbers of devices and contents; no times, no inodes, no order of the disk.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use longshore_oci::{Digest, Sha256};
use longshore_store::tar::{Time, Xattr};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Context;
use super::cache::{DigestCache, Record};
use super::error::{Error, Result, show};
use super::select::Selected;
use super::tree::{Entry, EntryKind};
use super::walk::time;

/// What the digest starts with: another format is another digest.
const FORMAT: &[u8] = b"longshore context 1\n";
/// Bytes that are read at a time.
const CHUNK: usize = 128 << 10;
/// Files that a thread takes at a time.
const BATCH: usize = 16;
const MAX_THREADS: usize = 16;
/// Bytes of the names of the attributes of a file, and of the value of one: the kernel has no larger ones.
const MAX_XATTR: usize = 64 << 10;

impl Context {
    /// The digest of `selected`, of which the order counts.
    ///
    /// # Errors
    /// When a file cannot be read; the error names it.
    pub fn hash(&self, selected: &[Selected]) -> Result<Digest> {
        self.hash_cached(selected, &mut DigestCache::default())
    }

    /// The same, reading only files that changed since `cache` saw them. What is read now is added to it.
    ///
    /// # Errors
    /// As [`Context::hash`].
    pub fn hash_cached(&self, selected: &[Selected], cache: &mut DigestCache) -> Result<Digest> {
        let contents = self.contents(selected, cache)?;
        let mut hash = Framed::default();
        hash.0.update(FORMAT);
        hash.number(selected.len() as u64);
        for one in selected {
            let is_dir = one.is_dir(self.tree());
            hash.number(u64::from(is_dir));
            hash.bytes(if is_dir { b"" } else { &one.name });
            hash.number(one.entries.len() as u64);
            for ((name, entry), at) in one.items(self.tree()).zip(&one.entries) {
                hash.bytes(name);
                frame(&mut hash, entry, contents.get(at));
            }
        }
        Ok(hash.0.finish())
    }

    /// What is behind the files and directories that are selected, by their places in the tree.
    fn contents(&self, selected: &[Selected], cache: &mut DigestCache) -> Result<Contents> {
        let mut wanted: Vec<usize> = selected.iter().flat_map(|one| one.entries.iter().copied()).collect();
        if !wanted.is_sorted_by(|a, b| a < b) {
            wanted.sort_unstable();
            wanted.dedup();
        }
        let mut contents = Contents { at: Vec::with_capacity(wanted.len()), content: Vec::new() };
        let mut misses = Vec::new();
        let mut lookup = cache.lookup();
        for at in wanted {
            let Some(entry) = self.tree().get(at) else { continue };
            if !matches!(entry.kind, EntryKind::File | EntryKind::Dir) {
                continue;
            }
            let known = lookup.get(entry);
            if known.is_none() {
                misses.push((contents.at.len(), entry));
            }
            contents.at.push(at);
            contents.content.push(known.unwrap_or(Content::EMPTY));
        }
        let mut records = Vec::new();
        for (place, content, keep) in self.read_all(&misses)? {
            let at = contents.at.get(place).and_then(|at| self.tree().get(*at));
            if let (Some(slot), Some(entry)) = (contents.content.get_mut(place), at) {
                *slot = content;
                records.extend(keep.then(|| Record::new(entry, content)));
            }
        }
        cache.add(records, self.tree());
        Ok(contents)
    }

    /// Reads files on all processors; the answers in the order of the questions.
    fn read_all(&self, misses: &[(usize, &Entry)]) -> Result<Vec<(usize, Content, bool)>> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Content, bool)>> {
            let mut done = Vec::new();
            let mut chunk = vec![0; CHUNK];
            loop {
                let at = next.fetch_add(BATCH, Ordering::Relaxed);
                let Some(rest) = misses.get(at..).filter(|rest| !rest.is_empty()) else { return Ok(done) };
                for (place, entry) in rest.iter().take(BATCH) {
                    let (content, keep) = self.read(entry, &mut chunk)?;
                    done.push((*place, content, keep));
                }
            }
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.min(MAX_THREADS).min(misses.len() / BATCH + 1);
        let parts: Vec<_> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            let panicked = |_| Err(Error::Internal("a hashing thread panicked"));
            let joined = others.into_iter().map(|other| other.join().unwrap_or_else(panicked));
            std::iter::once(own).chain(joined).collect()
        });
        let mut all = Vec::with_capacity(misses.len());
        for part in parts {
            all.extend(part?);
        }
        all.sort_unstable_by_key(|(place, ..)| *place);
        Ok(all)
    }

    /// What is behind an entry, and whether it may be remembered: it is what the walk saw, and nothing can have
    /// written to it since without leaving a trace.
    fn read(&self, entry: &Entry, chunk: &mut [u8]) -> Result<(Content, bool)> {
        let before = SystemTime::now();
        if entry.kind == EntryKind::Dir {
            let fd = self.open_entry(entry, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
            let content = Content { xattrs: xattrs(fd.as_fd(), entry)?, bytes: NONE };
            return Ok((content, self.is_settled(&fd, entry, before)));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_entry(entry, flags)?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("stat", &entry.path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Changed(show(&entry.path)));
        }
        let mut file = File::from(fd);
        let mut hash = Sha256::new();
        loop {
            match file.read(chunk) {
                Ok(0) => break,
                Ok(n) => hash.update(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", &entry.path, e)),
            }
        }
        let xattrs = xattrs(file.as_fd(), entry)?;
        Ok((Content { xattrs, bytes: hash.finish() }, self.is_settled(&file, entry, before)))
    }

    /// Whether a file that was just read is the one that the walk saw, and was last written to so long ago that a
    /// write from now on has another time: file systems count in steps.
    fn is_settled(&self, fd: impl AsFd, entry: &Entry, before: SystemTime) -> bool {
        let Ok(stat) = rustix::fs::fstat(fd) else { return false };
        let (mtime, ctime) =
            (time(stat.st_mtime, stat.st_mtime_nsec), time(stat.st_ctime, stat.st_ctime_nsec));
        let size = if entry.kind == EntryKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        let same = (stat.st_ino, stat.st_mode & 0o7777, size, mtime, ctime)
            == (entry.ino, entry.mode, entry.size, entry.mtime, entry.ctime);
        let limit = before.checked_sub(self.settled).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let limit = limit
            .and_then(|at| Some(Time { secs: i64::try_from(at.as_secs()).ok()?, nanos: at.subsec_nanos() }));
        same && limit.is_some_and(|limit| mtime < limit && ctime < limit)
    }

    pub(super) fn open_entry(&self, entry: &Entry, flags: OFlags) -> Result<OwnedFd> {
        let opened = self.root().open_file(OsStr::from_bytes(&entry.path), flags, Mode::empty());
        opened.map_err(|e| match e.errno().map(Errno::from_raw_os_error) {
            Some(Errno::LOOP | Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => {
                Error::Changed(show(&entry.path))
            }
            Some(errno) => Error::io("open", &entry.path, errno),
            None => Error::Sys(e),
        })
    }
}

/// Adds what an entry is to the digest.
fn frame(hash: &mut Framed, entry: &Entry, content: &Content) {
    let (kind, device) = match entry.kind {
        EntryKind::File => (b'f', (0, 0)),
        EntryKind::Dir => (b'd', (0, 0)),
        EntryKind::Symlink => (b'l', (0, 0)),
        EntryKind::Fifo => (b'p', (0, 0)),
        EntryKind::Char(major, minor) => (b'c', (major, minor)),
        EntryKind::Block(major, minor) => (b'b', (major, minor)),
    };
    // The kernel gives links a mode that means nothing.
    let mode = if entry.kind == EntryKind::Symlink { 0o777 } else { entry.mode };
    let mut fixed = [0; 24];
    let numbers = [u32::from(kind), mode, entry.uid, entry.gid, device.0, device.1];
    for (place, number) in fixed.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    hash.0.update(&fixed);
    hash.bytes(&entry.link);
    hash.0.update(content.xattrs.as_bytes());
    hash.0.update(content.bytes.as_bytes());
}

/// What is behind the files of a selection.
struct Contents {
    /// Their places in the tree, ascending.
    at: Vec<usize>,
    content: Vec<Content>,
}

impl Contents {
    fn get(&self, at: &usize) -> &Content {
        self.at.binary_search(at).ok().and_then(|place| self.content.get(place)).unwrap_or(&Content::EMPTY)
    }
}

/// The digests of what is behind an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) xattrs: Digest,
    pub(super) bytes: Digest,
}

impl Content {
    /// Of links and devices.
    pub(super) const EMPTY: Self = Self { xattrs: NONE, bytes: NONE };
}

/// In place of the digest of what is not there.
pub(super) const NONE: Digest = Digest::from_bytes([0; 32]);

/// A hash of fields of which none can be taken for a part of another.
#[derive(Default)]
struct Framed(Sha256);

impl Framed {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}

/// The digest of the attributes that reach a layer; [`NONE`] without any.
fn xattrs(fd: BorrowedFd<'_>, entry: &Entry) -> Result<Digest> {
    let kept = attributes(fd, entry)?;
    if kept.is_empty() {
        return Ok(NONE);
    }
    let mut hash = Framed::default();
    for (name, value) in kept {
        hash.bytes(&name);
        hash.bytes(&value);
    }
    Ok(hash.0.finish())
}

/// The attributes that reach a layer, by name.
pub(super) fn attributes(fd: BorrowedFd<'_>, entry: &Entry) -> Result<Vec<Xattr>> {
    let failed = |e: Errno| Error::io("read the attributes of", &entry.path, e);
    let mut names = [0u8; 256];
    let mut long;
    let list: &[u8] = match rustix::fs::flistxattr(fd, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(n) => names.get(..n).unwrap_or_default(),
        Err(Errno::RANGE) => {
            long = vec![0; MAX_XATTR];
            let n = rustix::fs::flistxattr(fd, &mut long[..]).map_err(failed)?;
            long.get(..n).unwrap_or_default()
        }
        Err(e) => return Err(failed(e)),
    };
    let mut kept: Vec<&[u8]> = list.split(|b| *b == 0).filter(|name| reaches_layers(name)).collect();
    kept.sort_unstable();
    let mut out = Vec::with_capacity(kept.len());
    for name in kept {
        let mut value = vec![0; MAX_XATTR];
        let n = rustix::fs::fgetxattr(fd, name, &mut value[..]).map_err(failed)?;
        value.truncate(n);
        value.shrink_to_fit();
        out.push((name.to_vec(), value));
    }
    Ok(out)
}

/// As layers are written: capabilities, and what users set; not what steers overlayfs.
fn reaches_layers(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}
