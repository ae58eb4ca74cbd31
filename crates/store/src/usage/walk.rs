//! What trees take on disk, by descriptor and never through a link. As `du` counts: blocks, not lengths; an inode with
//! several names once; nothing of another file system.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::ops::AddAssign;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::snapshot::tree::{Place, is_dir, names, stat_at};
use crate::{Error, IoContext, Result};

/// Bytes of a block as stat(2) counts them, whatever the file system's own are.
const BLOCK: u64 = 512;
/// Threads that walk at once, at most.
const MAX_THREADS: usize = 8;

/// What something takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Bytes of the blocks.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl AddAssign for Allocated {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

impl Allocated {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK, inodes: 1 }
    }
}

/// Files with several names that were counted, shared by all who count.
#[derive(Debug, Default)]
pub(super) struct Links(Mutex<HashSet<(u64, u64)>>);

impl Links {
    /// Whether this is the first of an inode's names.
    fn is_new(&self, stat: &Stat) -> bool {
        stat.st_nlink < 2
            || self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((stat.st_dev, stat.st_ino))
    }
}

/// A directory whose entries are counted, each with all below it.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) fd: OwnedFd,
    device: u64,
    own: Allocated,
}

impl Base {
    /// Opens a directory, never through a link; `None` when there is none.
    pub(super) fn open(at: impl AsFd, path: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(at, path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(Error::io(format!("open {}", path.display()), e)),
        };
        let stat = rustix::fs::fstat(&fd).context(|| format!("stat {}", path.display()))?;
        Ok(Some(Self { fd, device: stat.st_dev, own: Allocated::of(&stat) }))
    }

    /// What the directory itself takes.
    pub(super) fn own(&self) -> Allocated {
        self.own
    }

    pub(super) fn names(&self) -> Result<Vec<CString>> {
        Ok(names(&self.fd)?.into_iter().map(|(name, _)| name).collect())
    }
}

/// An entry and all below it. What goes away meanwhile takes nothing.
pub(super) fn measure(base: &Base, name: &CStr, links: &Links) -> Result<Allocated> {
    let mut total = Allocated::default();
    let Some(stat) = stat_at(&base.fd, name)? else { return Ok(total) };
    if stat.st_dev != base.device || (!is_dir(&stat) && !links.is_new(&stat)) {
        return Ok(total);
    }
    total += Allocated::of(&stat);
    if !is_dir(&stat) {
        return Ok(total);
    }
    let mut todo = vec![Place::below(&base.fd, name)?];
    while let Some(place) = todo.pop() {
        let Some(here) = place.open()? else { continue };
        for (name, _) in names(&here)? {
            let Some(stat) = stat_at(&here, &name)? else { continue };
            if stat.st_dev != base.device {
                continue;
            }
            if is_dir(&stat) {
                todo.push(place.child(&here, &name)?);
            } else if !links.is_new(&stat) {
                continue;
            }
            total += Allocated::of(&stat);
        }
    }
    Ok(total)
}

/// What one tree takes on disk, its own directory included; nothing where there is none.
///
/// # Errors
/// When it cannot be looked at.
pub fn allocated(path: &Path) -> Result<Allocated> {
    let bad = || Error::Invalid(format!("{} is no file to measure", path.display()));
    let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(bad)?;
    let name = CString::new(name.as_bytes()).map_err(|_| bad())?;
    match Base::open(rustix::fs::CWD, parent)? {
        Some(base) => measure(&base, &name, &Links::default()),
        None => Ok(Allocated::default()),
    }
}

/// One entry of a base.
#[derive(Debug)]
pub(super) struct Part {
    /// Which base.
    pub(super) base: usize,
    pub(super) name: CString,
}

/// Measures all parts, several at once; the answers stand in the order of the parts. `links` has what was counted before.
pub(super) fn measure_all(bases: &[&Base], parts: &[&Part], links: &Links) -> Result<Vec<Allocated>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Allocated)>> {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(i) else { return Ok(done) };
            let Some(base) = bases.get(part.base) else { continue };
            done.push((i, measure(base, &part.name, links)?));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
    let found: Vec<Result<_>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let panicked = |_| Err(Error::Internal("a thread that measures files panicked".into()));
        threads.into_iter().map(|t| t.join().unwrap_or_else(panicked)).collect()
    });
    let mut out = vec![Allocated::default(); parts.len()];
    for list in found {
        for (i, size) in list? {
            out[i] = size;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn du(path: &Path) -> u64 {
        let out = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn as_du_counts() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/full"), vec![1; 70_000]).unwrap();
        fs::write(top.join("a/empty"), b"").unwrap();
        fs::hard_link(top.join("a/full"), top.join("a/b/again")).unwrap();
        fs::File::create(top.join("sparse")).unwrap().set_len(10 << 20).unwrap();
        std::os::unix::fs::symlink("/", top.join("out")).unwrap();
        std::os::unix::fs::symlink("x".repeat(300), top.join("long")).unwrap();
        let base = Base::open(rustix::fs::CWD, dir.path()).unwrap().unwrap();
        let got = measure(&base, c"top", &Links::default()).unwrap();
        assert_eq!(got.bytes, du(&top));
        assert_eq!(got.inodes, 8);
        assert_eq!(measure(&base, c"gone", &Links::default()).unwrap(), Allocated::default());
        assert_eq!(allocated(&top).unwrap(), got);
        assert_eq!(allocated(&top.join("a/gone/x")).unwrap(), Allocated::default());
        // Names of one inode that lie in different parts count once.
        let part = |name: &CStr| Part { base: 0, name: name.to_owned() };
        let inside = Base::open(&base.fd, "top/a").unwrap().unwrap();
        let parts = [part(c"full"), part(c"b")];
        let both = measure_all(&[&inside], &parts.each_ref(), &Links::default()).unwrap();
        assert_eq!(both.iter().map(|p| p.inodes).sum::<u64>(), 2);
    }

    #[test]
    fn atk_59_deep_trees() {
        let dir = tempfile::tempdir().unwrap();
        let base = Base::open(rustix::fs::CWD, dir.path()).unwrap().unwrap();
        let mut at = base.fd.try_clone().unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(measure(&base, c"d", &Links::default()).unwrap().inodes, 3000);
        crate::remove_tree(&dir.path().join("d")).unwrap();
    }
}
