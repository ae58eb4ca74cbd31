//! Blobs by digest, and ingests that become visible only when they are committed.
//!
//! `content/blobs/sha256/<hex>` and `content/ingest/<random>`. A blob is written beside, checked,
//! made durable, then renamed into its place: a name under `blobs/` always has all its bytes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_oci::{Digest, Sha256};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};

/// Bytes of an ingest that are sent on their way to the disk at a time.
const WRITEBACK: u64 = 4 << 20;

/// 64 random hex digits.
///
/// # Errors
/// When the system gives no random bytes.
pub fn random_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| Error::Internal(format!("get random bytes: {e}")))?;
    Ok(Digest::from_bytes(bytes).hex())
}

#[derive(Debug)]
struct Dirs {
    path: PathBuf,
    blobs: File,
    ingest: File,
    sync: bool,
    /// Names of the ingests that are being written.
    live: Mutex<BTreeSet<String>>,
}

impl Dirs {
    fn live(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Content {
    dirs: Arc<Dirs>,
}

impl Content {
    /// Opens or creates the store in the directory `path`; ingests left by an earlier process are
    /// deleted. With `sync` false nothing waits for the disk.
    ///
    /// # Errors
    /// When directories cannot be made or read.
    pub fn open(path: &Path, sync: bool) -> Result<Self> {
        let open = |name: &str| {
            let dir = path.join(name);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .context(|| format!("create {}", dir.display()))?;
            File::open(&dir).context(|| format!("open {}", dir.display()))
        };
        let (blobs, ingest) = (open("blobs/sha256")?, open("ingest")?);
        let dirs = Dirs { path: path.to_owned(), blobs, ingest, sync, live: Mutex::default() };
        let content = Self { dirs: Arc::new(dirs) };
        content.remove_stale_ingests()?;
        Ok(content)
    }

    fn remove_stale_ingests(&self) -> Result<()> {
        for name in names(&self.dirs.ingest, "content/ingest")? {
            rustix::fs::unlinkat(&self.dirs.ingest, &name, AtFlags::empty())
                .context(|| format!("delete stale ingest {}", name.to_string_lossy()))?;
        }
        Ok(())
    }

    /// Starts a blob; it is invisible until [`Ingest::commit`] and deleted if dropped before.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn ingest(&self) -> Result<Ingest> {
        let name = random_id()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        self.dirs.live().insert(name.clone());
        let fd = match rustix::fs::openat(&self.dirs.ingest, &name, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => fd,
            Err(e) => {
                self.dirs.live().remove(&name);
                return Err(Error::io(format!("create ingest {name}"), e));
            }
        };
        Ok(Ingest {
            content: self.clone(),
            name: Some(name),
            file: File::from(fd),
            hash: Sha256::new(),
            size: 0,
            limit: u64::MAX,
        })
    }

    /// Stores `bytes` as a blob.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.exists(&digest)? {
            if self.dirs.sync {
                // Whoever wrote it may not have waited yet.
                self.open_blob(&digest)?.sync_all().context(|| format!("sync blob {digest}"))?;
            }
            return Ok(digest);
        }
        let mut ingest = self.ingest()?;
        ingest.write_all(bytes).context(|| format!("write blob {digest}"))?;
        Ok(ingest.commit(Some(digest), None)?.digest)
    }

    /// The same as [`Ingest::commit_later`] has it.
    pub(crate) fn put_later(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.exists(&digest)? {
            return Ok(digest);
        }
        let mut ingest = self.ingest()?;
        ingest.write_all(bytes).context(|| format!("write blob {digest}"))?;
        Ok(ingest.commit_later(digest)?.digest)
    }

    /// The blob's file. It is not checked; see [`Content::reader`] and [`Content::read`].
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.dirs.blobs, digest.hex(), flags, Mode::empty()) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::NOENT) => Err(not_found(digest)),
            Err(e) => Err(Error::io(format!("open blob {digest}"), e)),
        }
    }

    /// A reader that fails at its end if the bytes are not those of `digest`.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn reader(&self, digest: &Digest) -> Result<VerifiedReader<File>> {
        let file = self.open_blob(digest)?;
        let size = file.metadata().context(|| format!("stat blob {digest}"))?.len();
        Ok(VerifiedReader::new(file, *digest, Some(size)))
    }

    /// A whole small blob, checked.
    ///
    /// # Errors
    /// `NotFound`; `TooLarge` over `limit`; `Corrupt` if it was altered.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let size = self.size(digest)?;
        if size > limit {
            return Err(Error::TooLarge(format!("blob {digest} has {size} bytes, the limit is {limit}")));
        }
        let mut bytes = Vec::new();
        self.reader(digest)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .context(|| format!("read blob {digest}"))?;
        Ok(bytes)
    }

    /// True if the blob is here.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn exists(&self, digest: &Digest) -> Result<bool> {
        match self.size(digest) {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The blob's size.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn size(&self, digest: &Digest) -> Result<u64> {
        match rustix::fs::statat(&self.dirs.blobs, digest.hex(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
            Err(Errno::NOENT) => Err(not_found(digest)),
            Err(e) => Err(Error::io(format!("stat blob {digest}"), e)),
        }
    }

    /// All blobs.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let names = names(&self.dirs.blobs, "content/blobs")?;
        Ok(names.iter().filter_map(|n| Digest::from_hex(n.to_str().ok()?).ok()).collect())
    }

    /// Deletes a blob; it need not exist. Gives the bytes of the disk that this freed.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn delete(&self, digest: &Digest) -> Result<u64> {
        let stat = rustix::fs::statat(&self.dirs.blobs, digest.hex(), AtFlags::SYMLINK_NOFOLLOW);
        let freed = stat.map_or(0, |s| u64::try_from(s.st_blocks).unwrap_or(0) * 512);
        match rustix::fs::unlinkat(&self.dirs.blobs, digest.hex(), AtFlags::empty()) {
            Ok(()) => Ok(freed),
            Err(Errno::NOENT) => Ok(0),
            Err(e) => Err(Error::io(format!("delete blob {digest}"), e)),
        }
    }

    /// Names of the files in `ingest/` that are being written.
    pub(crate) fn ingests(&self) -> BTreeSet<String> {
        self.dirs.live().clone()
    }

    /// The directory of the store.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dirs.path
    }
}

fn not_found(digest: &Digest) -> Error {
    Error::NotFound(format!("no such blob: {digest}"))
}

fn names(dir: &File, what: &str) -> Result<Vec<std::ffi::CString>> {
    let mut out = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).context(|| format!("read {what}"))? {
        let entry = entry.context(|| format!("read {what}"))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            out.push(entry.file_name().to_owned());
        }
    }
    Ok(out)
}

/// What an ingest became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// A blob being written; hashed as bytes pass.
#[derive(Debug)]
pub struct Ingest {
    content: Content,
    name: Option<String>,
    file: File,
    hash: Sha256,
    size: u64,
    limit: u64,
}

impl Ingest {
    /// Refuses bytes over `limit`.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Bytes written so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of the bytes written so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.hash.clone().finish()
    }

    /// Reads back what was written, from `offset`.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    /// Checks the bytes against what was announced and makes the blob visible and durable.
    ///
    /// # Errors
    /// `Corrupt` if digest or size differ: nothing is kept then.
    pub fn commit(self, expected: Option<Digest>, expected_size: Option<u64>) -> Result<Committed> {
        let wait = self.content.dirs.sync;
        self.settle(expected, expected_size, wait)
    }

    /// The same, but durable only with the next sync of the whole file system: for a blob among many, before a record
    /// names it. Until then a power cut may leave its name without its bytes, which the next open removes.
    ///
    /// # Errors
    /// As [`Ingest::commit`].
    pub(crate) fn commit_later(self, expected: Digest) -> Result<Committed> {
        // In the place of one that a record may name already, nothing half-written is put.
        let wait = self.content.dirs.sync && self.content.exists(&expected)?;
        self.settle(Some(expected), None, wait)
    }

    fn settle(
        mut self,
        expected: Option<Digest>,
        expected_size: Option<u64>,
        wait: bool,
    ) -> Result<Committed> {
        if let Some(want) = expected_size
            && want != self.size
        {
            return Err(Error::Corrupt(format!("blob has {} bytes, expected {want}", self.size)));
        }
        let digest = std::mem::take(&mut self.hash).finish();
        if let Some(expected) = expected
            && expected != digest
        {
            return Err(Error::DigestMismatch { what: "blob".into(), expected, actual: digest });
        }
        let dirs = Arc::clone(&self.content.dirs);
        if wait {
            self.file.sync_all().context(|| format!("sync blob {digest}"))?;
        }
        if let Some(name) = &self.name {
            rustix::fs::renameat(&dirs.ingest, name, &dirs.blobs, digest.hex())
                .context(|| format!("rename blob {digest}"))?;
        }
        if let Some(name) = self.name.take() {
            dirs.live().remove(&name);
        }
        if wait {
            dirs.blobs.sync_all().context(|| "sync content/blobs")?;
        }
        Ok(Committed { digest, size: self.size })
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() as u64 > self.limit.saturating_sub(self.size) {
            return Err(Error::TooLarge(format!("blob is over its limit of {} bytes", self.limit)).into());
        }
        let n = self.file.write(buf)?;
        self.hash.update(&buf[..n]);
        let before = self.size;
        self.size += n as u64;
        if self.content.dirs.sync && before / WRITEBACK != self.size / WRITEBACK {
            longshore_sys::writeback::begin(&self.file, before / WRITEBACK * WRITEBACK, WRITEBACK);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else { return };
        if let Err(e) = rustix::fs::unlinkat(&self.content.dirs.ingest, &name, AtFlags::empty()) {
            tracing::warn!(ingest = name, error = %e, "ingest not deleted; it goes when the store is opened again");
        }
        self.content.dirs.live().remove(&name);
    }
}

/// Passes bytes through and checks them: too many fail at once, a wrong number or a wrong digest
/// fails instead of the end of file.
#[derive(Debug)]
pub struct VerifiedReader<R> {
    inner: R,
    expected: Digest,
    size: Option<u64>,
    seen: u64,
    hash: Option<Sha256>,
}

impl<R: Read> VerifiedReader<R> {
    /// Checks `inner` against `expected` and, if known, `size`.
    pub fn new(inner: R, expected: Digest, size: Option<u64>) -> Self {
        Self { inner, expected, size, seen: 0, hash: Some(Sha256::new()) }
    }

    fn end(&mut self) -> Result<()> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        if let Some(size) = self.size
            && size != self.seen
        {
            return Err(Error::Corrupt(format!("{}: {} bytes, expected {size}", self.expected, self.seen)));
        }
        let actual = hash.finish();
        if actual != self.expected {
            return Err(Error::DigestMismatch { what: "blob".into(), expected: self.expected, actual });
        }
        Ok(())
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if n == 0 && !buf.is_empty() {
            self.end()?;
            return Ok(0);
        }
        self.seen += n as u64;
        if let Some(size) = self.size
            && self.seen > size
        {
            return Err(
                Error::Corrupt(format!("{}: more than the expected {size} bytes", self.expected)).into()
            );
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&buf[..n]);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_oci::Kind;

    fn open(dir: &Path) -> Content {
        Content::open(&dir.join("content"), true).unwrap()
    }

    #[test]
    fn a_blob_is_visible_only_when_committed() {
        let dir = tempfile::tempdir().unwrap();
        let content = open(dir.path());
        let digest = Digest::of(b"hello");
        let mut ingest = content.ingest().unwrap();
        ingest.write_all(b"hello").unwrap();
        assert!(!content.exists(&digest).unwrap());
        assert_eq!(ingest.commit(Some(digest), Some(5)).unwrap(), Committed { digest, size: 5 });
        assert_eq!(content.read(&digest, 100).unwrap(), b"hello");
        assert_eq!(content.list().unwrap(), [digest]);
        assert_eq!(content.read(&digest, 4).unwrap_err().kind(), Kind::TooLarge);
        content.delete(&digest).unwrap();
        content.delete(&digest).unwrap();
        assert_eq!(content.size(&digest).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn lies_about_digest_or_size_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let content = open(dir.path());
        for (digest, size) in [(Some(Digest::of(b"other")), None), (None, Some(4))] {
            let mut ingest = content.ingest().unwrap();
            ingest.write_all(b"hello").unwrap();
            assert_eq!(ingest.commit(digest, size).unwrap_err().kind(), Kind::Corrupt);
        }
        let mut ingest = content.ingest().unwrap();
        ingest.set_limit(4);
        let e = Error::io("write", ingest.write_all(b"hello").unwrap_err());
        assert_eq!(e.kind(), Kind::TooLarge);
        drop(ingest);
        assert_eq!(std::fs::read_dir(dir.path().join("content/ingest")).unwrap().count(), 0);
        assert_eq!(content.list().unwrap(), []);
    }

    #[test]
    fn a_killed_ingest_goes_at_the_next_open() {
        let dir = tempfile::tempdir().unwrap();
        std::mem::forget(open(dir.path()).ingest().unwrap());
        assert_eq!(std::fs::read_dir(dir.path().join("content/ingest")).unwrap().count(), 1);
        open(dir.path());
        assert_eq!(std::fs::read_dir(dir.path().join("content/ingest")).unwrap().count(), 0);
    }

    #[test]
    fn atk_27_an_altered_blob_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let content = open(dir.path());
        let digest = content.put(b"hello").unwrap();
        let path = dir.path().join("content/blobs/sha256").join(digest.hex());
        std::fs::write(path, b"jello").unwrap();
        assert_eq!(content.read(&digest, 100).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn atk_32_short_and_long_streams_fail() {
        let digest = Digest::of(b"hello");
        for bytes in [&b"hell"[..], b"hello!"] {
            let mut out = Vec::new();
            assert!(VerifiedReader::new(bytes, digest, Some(5)).read_to_end(&mut out).is_err());
        }
        let mut out = Vec::new();
        VerifiedReader::new(&b"hello"[..], digest, Some(5)).read_to_end(&mut out).unwrap();
    }
}
