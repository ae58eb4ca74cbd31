//! The database's file: its space is allocated before it is needed, so that records can still be changed, and above
//! all deleted, on a full disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Beyond this, no space is set aside for growth: the database is megabytes.
const RESERVE_MAX: u64 = 64 << 20;

/// A file whose bytes all have blocks, with as many set aside behind its end: redb doubles a small file when it grows.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    inner: FileBackend,
    /// The same open file.
    file: File,
}

impl DatabaseFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let inner = FileBackend::new(file.try_clone()?).map_err(io::Error::other)?;
        let this = Self { inner, file };
        // A file of an earlier version may have holes. A full disk does not keep it from being opened.
        let _ = this.allocate(this.file.metadata()?.len());
        Ok(this)
    }

    /// Gives the first `len` bytes blocks. File systems that cannot do so are not asked to.
    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        fallocate(&self.file, FallocateFlags::KEEP_SIZE, len)?;
        // Not having it is no failure yet.
        let _ = fallocate(&self.file, FallocateFlags::KEEP_SIZE, len.saturating_add(len.min(RESERVE_MAX)));
        Ok(())
    }
}

fn fallocate(file: &File, flags: FallocateFlags, len: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, flags, 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.inner.len()? {
            self.allocate(len)?;
            return self.inner.set_len(len);
        }
        self.inner.set_len(len)?;
        // Shortening gave the reserve away, too.
        let _ = self.allocate(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
