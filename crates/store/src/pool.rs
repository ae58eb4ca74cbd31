//! The files of build contexts, by their digests: what a client sent once need not be sent again, and what a step
//! copies from here cannot change under it. Only ever a shortcut: it may be emptied whenever no build uses it.
//!
//! ```text
//! contexts/files/<hex>   the bytes of a file, under their SHA-256
//! contexts/<hex>         what is known of one context's files; who builds decides its format
//! ```

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_oci::{Digest, Sha256};

use crate::open::Store;
use crate::snapshot::make_private_dir;
use crate::{Error, IoContext, Result, remove_tree};

/// Where it lies, below the data root.
pub(crate) const DIR: &str = "contexts";
/// Bytes of a file that are gathered before anything is written: the file has its name at once then.
const SMALL: usize = 256 << 10;

/// The files of build contexts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    dir: PathBuf,
}

impl Store {
    /// The files of build contexts.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool { dir: self.root().join(DIR) }
    }

    /// Empties the pool after a power cut, which may have taken the bytes of any file. For a start only.
    pub(crate) fn distrust_pool(&self) -> Result<()> {
        remove_tree(&self.root().join(DIR))
    }
}

impl Pool {
    /// Makes its directories, before anything is added.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn prepare(&self) -> Result<()> {
        make_private_dir(&self.dir, 0o700)?;
        make_private_dir(&self.dir.join("files"), 0o700)
    }

    /// Where what is known of one context is kept.
    #[must_use]
    pub fn record(&self, key: &Digest) -> PathBuf {
        self.dir.join(key.hex())
    }

    /// The records of all contexts, by key.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn records(&self) -> Result<Vec<Digest>> {
        let names = names(&self.dir)?;
        Ok(names.iter().filter_map(|name| Digest::from_hex(name).ok()).collect())
    }

    /// Where the file with these bytes is, if it is here.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("files").join(digest.hex())
    }

    /// Opens the file with these bytes, which are so many; `None` if it is not here.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self, digest: &Digest, size: u64) -> Result<Option<File>> {
        let path = self.path(digest);
        let failed = || format!("open {}", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(failed(), e)),
        };
        // A daemon that was killed while it wrote leaves less.
        let whole = file.metadata().context(failed)?.len() == size;
        Ok(whole.then_some(file))
    }

    /// The bytes of a small file, compared with their digest; `None` if they are not here.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.path(digest);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes).filter(|bytes| Digest::of(bytes) == *digest)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
        }
    }

    /// Whether the file with these bytes is here.
    #[must_use]
    pub fn has(&self, digest: &Digest, size: u64) -> bool {
        fs::symlink_metadata(self.path(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Begins a file whose bytes come in pieces.
    #[must_use]
    pub fn begin(&self) -> Arriving<'_> {
        Arriving { pool: self, hash: Sha256::new(), bytes: Vec::new(), size: 0, file: None }
    }

    /// Adds a file that is in memory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.write_small(&digest, bytes)?;
        Ok(digest)
    }

    fn write_small(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.has(digest, bytes.len() as u64) {
            return Ok(());
        }
        let path = self.path(digest);
        let failed = || format!("write {}", path.display());
        match create(&path) {
            Ok(mut file) => {
                let written = file.write_all(bytes);
                if written.is_err() {
                    let _ = fs::remove_file(&path);
                }
                written.context(failed)
            }
            // Another build writes the same bytes, or was killed while it did.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let mut arriving = self.begin();
                arriving.spill(bytes)?;
                arriving.settle(digest)
            }
            Err(e) => Err(Error::io(failed(), e)),
        }
    }

    /// Removes the records of contexts that `keep` does not name, and the files that `files` does not. No build may use
    /// the pool. Gives the bytes of the disk that this freed.
    ///
    /// # Errors
    /// When something cannot be removed; what was begun is then gone on with the next time.
    pub fn retain(&self, keep: &HashSet<Digest>, files: &HashSet<Digest>) -> Result<u64> {
        let mut freed = 0;
        // Records first: none may name a file that is gone.
        for (dir, kept) in [(self.dir.clone(), keep), (self.dir.join("files"), files)] {
            for name in names(&dir)? {
                let path = dir.join(&name);
                let known = Digest::from_hex(&name).is_ok_and(|digest| kept.contains(&digest));
                let Ok(meta) = fs::symlink_metadata(&path) else { continue };
                if known || !meta.is_file() {
                    continue;
                }
                fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
                // A layer may have it, too.
                if meta.nlink() == 1 {
                    freed += meta.blocks() * 512;
                }
            }
        }
        Ok(freed)
    }
}

/// A file on its way into the pool; dropped, nothing stays of it.
#[derive(Debug)]
pub struct Arriving<'a> {
    pool: &'a Pool,
    hash: Sha256,
    /// What came, as long as it is small.
    bytes: Vec<u8>,
    size: u64,
    file: Option<(PathBuf, File)>,
}

impl Arriving<'_> {
    /// Takes the next piece.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, piece: &[u8]) -> Result<()> {
        self.hash.update(piece);
        self.size += piece.len() as u64;
        if self.file.is_none() && self.bytes.len() + piece.len() <= SMALL {
            self.bytes.extend_from_slice(piece);
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.bytes);
        self.spill(&gathered)?;
        self.spill(piece)
    }

    /// Bytes that came so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    fn spill(&mut self, piece: &[u8]) -> Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (path, file) = match &mut self.file {
            Some(file) => file,
            none => {
                let name = format!(".{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
                let path = self.pool.dir.join("files").join(name);
                let file = create(&path).context(|| format!("write {}", path.display()))?;
                none.insert((path, file))
            }
        };
        file.write_all(piece).context(|| format!("write {}", path.display()))
    }

    /// The file is whole: it has its name from here on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<Digest> {
        let digest = std::mem::take(&mut self.hash).finish();
        if self.file.is_none() {
            self.pool.write_small(&digest, &self.bytes)?;
        } else {
            self.settle(&digest)?;
        }
        Ok(digest)
    }

    fn settle(mut self, digest: &Digest) -> Result<()> {
        let Some((path, _)) = self.file.take() else { return Ok(()) };
        let to = self.pool.path(digest);
        fs::rename(&path, &to)
            .inspect_err(|_| drop(fs::remove_file(&path)))
            .context(|| format!("name {}", to.display()))
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.file {
            let _ = fs::remove_file(path);
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let failed = || format!("read {}", dir.display());
    let mut names = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries.context(failed)?,
    };
    for entry in entries {
        names.extend(entry.context(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn pool() -> (tempfile::TempDir, Pool) {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool { dir: dir.path().join("contexts") };
        assert_eq!(pool.records().unwrap(), []);
        pool.prepare().unwrap();
        (dir, pool)
    }

    fn read(pool: &Pool, digest: &Digest, size: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        pool.open(digest, size as u64).unwrap()?.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn files_of_any_size_come_back() {
        let (_dir, pool) = pool();
        for size in [0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL + 7] {
            let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            for piece in [7919, SMALL] {
                let mut arriving = pool.begin();
                bytes.chunks(piece).for_each(|piece| arriving.push(piece).unwrap());
                assert_eq!(arriving.size(), size as u64);
                let digest = arriving.finish().unwrap();
                assert_eq!(digest, Digest::of(&bytes));
                assert_eq!(read(&pool, &digest, size).unwrap(), bytes);
                assert!(pool.has(&digest, size as u64) && !pool.has(&digest, size as u64 + 1));
            }
            assert_eq!(pool.add(&bytes).unwrap(), Digest::of(&bytes));
        }
        assert_eq!(names(&pool.dir.join("files")).unwrap().len(), 6);
    }

    #[test]
    fn what_was_cut_short_is_not_there_and_is_written_anew() {
        let (_dir, pool) = pool();
        let digest = Digest::of(b"whole");
        fs::write(pool.path(&digest), b"who").unwrap();
        assert!(!pool.has(&digest, 5) && pool.open(&digest, 5).unwrap().is_none());
        pool.add(b"whole").unwrap();
        assert_eq!(read(&pool, &digest, 5).unwrap(), b"whole");
        // One that is given up leaves nothing.
        let mut arriving = pool.begin();
        arriving.push(&vec![1; SMALL + 1]).unwrap();
        assert_eq!(names(&pool.dir.join("files")).unwrap().len(), 2);
        drop(arriving);
        assert_eq!(names(&pool.dir.join("files")).unwrap(), [digest.hex()]);
    }

    #[test]
    fn what_no_context_names_goes() {
        let (_dir, pool) = pool();
        let (a, b) = (pool.add(b"a").unwrap(), pool.add(b"bb").unwrap());
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        fs::write(pool.record(&old), b"123").unwrap();
        fs::write(pool.record(&new), b"").unwrap();
        assert_eq!(pool.records().unwrap().len(), 2);
        fs::write(pool.dir.join("files/.1-1"), b"left").unwrap();
        let blocks = |path: PathBuf| fs::metadata(path).unwrap().blocks() * 512;
        let gone = blocks(pool.record(&old)) + blocks(pool.path(&b)) + blocks(pool.dir.join("files/.1-1"));
        assert_eq!(pool.retain(&HashSet::from([new]), &HashSet::from([a])).unwrap(), gone);
        assert!(pool.has(&a, 1) && !pool.has(&b, 2));
        assert_eq!(pool.records().unwrap(), [new]);
    }
}
