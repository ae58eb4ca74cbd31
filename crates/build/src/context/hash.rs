//! The digest of what a COPY takes.
//!
//! Every field has a length before it or a fixed one, and every list its number: two selections that differ have two
//! inputs. It covers names from the source on, kinds, permission bits, owners, the attributes that reach a layer,
//! targets of links, numbers of devices and contents; no times, no inodes, no order of the disk.

use std::borrow::Cow;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use longshore_oci::{Digest, Sha256};
use longshore_sys::root::Root;

use super::Context;
use super::error::{Error, Result};
use super::files::{self, Content, Files, NONE};
use super::select::Selected;
use super::tree::{Entry, EntryKind};

/// What the digest starts with: another format is another digest.
const FORMAT: &[u8] = b"longshore context 1\n";
/// Bytes that are read at a time.
const CHUNK: usize = 128 << 10;
/// Files that a thread takes at a time.
const BATCH: usize = 16;
const MAX_THREADS: usize = 16;

impl Context {
    /// The digest of `selected`, of which the order counts.
    ///
    /// # Errors
    /// When a file cannot be read; the error names it.
    pub fn hash(&self, selected: &[Selected]) -> Result<Digest> {
        let contents = self.contents(selected)?;
        let mut hash = Framed::default();
        hash.0.update(FORMAT);
        hash.number(selected.len() as u64);
        for one in selected {
            let is_dir = one.is_dir(self.tree());
            hash.number(u64::from(is_dir));
            hash.bytes(if is_dir { b"" } else { &one.name });
            hash.number(one.entries.len() as u64);
            for (name, at, entry) in one.items(self.tree()) {
                hash.bytes(name);
                frame(&mut hash, entry, contents.get(at).unwrap_or(&Content::EMPTY));
            }
        }
        Ok(hash.0.finish())
    }

    /// The files of `selected` with a digest of each, for people: of a pool, where that costs nothing, and only as long as
    /// they are `most` at most.
    #[must_use]
    pub fn listing(&self, selected: &[Selected], most: usize) -> Vec<(String, String)> {
        let Files::Pool(pooled) = &self.files else { return Vec::new() };
        if selected.iter().map(|one| one.entries.len()).sum::<usize>() > most {
            return Vec::new();
        }
        let items = selected.iter().flat_map(|one| one.items(self.tree()));
        let one = |(_, at, entry): (&[u8], usize, &Entry)| {
            let mut hash = Framed::default();
            frame(&mut hash, entry, pooled.contents.get(at).unwrap_or(&Content::EMPTY));
            (String::from_utf8_lossy(&entry.path).into_owned(), hash.0.finish().short())
        };
        items.map(one).collect()
    }

    /// What is behind the files and directories that are selected, by their places in the tree.
    fn contents(&self, selected: &[Selected]) -> Result<Cow<'_, [Content]>> {
        let root = match &self.files {
            Files::Pool(pooled) => return Ok(Cow::Borrowed(&pooled.contents)),
            Files::None => return Ok(Cow::Borrowed(&[])),
            Files::Disk(root) => root,
        };
        let mut wanted: Vec<usize> = selected.iter().flat_map(|one| one.entries.iter().copied()).collect();
        if !wanted.is_sorted_by(|a, b| a < b) {
            wanted.sort_unstable();
            wanted.dedup();
        }
        let entries = wanted.iter().filter_map(|at| Some((*at, self.tree().get(*at)?)));
        let entries: Vec<_> =
            entries.filter(|(_, e)| matches!(e.kind, EntryKind::File | EntryKind::Dir)).collect();
        let mut contents = vec![Content::EMPTY; self.tree().entries().len()];
        for (at, content) in read_all(root, &entries)? {
            contents.get_mut(at).into_iter().for_each(|slot| *slot = content);
        }
        Ok(Cow::Owned(contents))
    }
}

/// Reads files on all processors.
fn read_all(root: &Root, wanted: &[(usize, &Entry)]) -> Result<Vec<(usize, Content)>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Content)>> {
        let mut done = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let at = next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(rest) = wanted.get(at..).filter(|rest| !rest.is_empty()) else { return Ok(done) };
            for (place, entry) in rest.iter().take(BATCH) {
                done.push((*place, read(root, entry, &mut chunk)?));
            }
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(MAX_THREADS).min(wanted.len() / BATCH + 1);
    let parts: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let panicked = |_| Err(Error::Internal("a hashing thread panicked"));
        let joined = others.into_iter().map(|other| other.join().unwrap_or_else(panicked));
        std::iter::once(own).chain(joined).collect()
    });
    let mut all = Vec::with_capacity(wanted.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

/// What is behind an entry.
fn read(root: &Root, entry: &Entry, chunk: &mut [u8]) -> Result<Content> {
    if entry.kind == EntryKind::Dir {
        let fd = files::open_any(root, entry)?;
        return Ok(Content { xattrs: files::digest(&files::attributes(fd.as_fd(), entry)?), bytes: NONE });
    }
    let mut file = files::open_file(root, entry)?;
    let mut hash = Sha256::new();
    loop {
        match file.read(chunk) {
            Ok(0) => break,
            Ok(n) => hash.update(chunk.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", &entry.path, e)),
        }
    }
    let xattrs = files::digest(&files::attributes(file.as_fd(), entry)?);
    Ok(Content { xattrs, bytes: hash.finish() })
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

/// A hash of fields of which none can be taken for a part of another.
#[derive(Default)]
pub(super) struct Framed(pub(super) Sha256);

impl Framed {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}
