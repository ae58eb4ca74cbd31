//! The vfs driver: every snapshot is a whole tree, copied from its parent (by reflinks where the file system can).
//!
//! ```text
//! vfs/dir/<cache id>/             the tree
//! vfs/parent/<cache id>           its parent's id; absent for one without
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use longshore_oci::IdMap;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::overlay::make_dir;
use super::{Change, DriverName, Mounts, SnapshotDriver, Usage, changes, check_id, measure};
use crate::{Error, IoContext, Result};

const REMOVING: &str = "-removing";

/// The driver; its state is the directory.
#[derive(Debug)]
pub struct Vfs {
    dirs: PathBuf,
    parents: PathBuf,
}

impl Vfs {
    /// Opens (and makes) `<data root>/vfs`.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(data_root: &Path) -> Result<Self> {
        let root = data_root.join("vfs");
        let (dirs, parents) = (root.join("dir"), root.join("parent"));
        make_dir(&root, 0o710)?;
        make_dir(&dirs, 0o710)?;
        make_dir(&parents, 0o700)?;
        Ok(Self { dirs, parents })
    }

    fn parent(&self, id: &str) -> Result<Option<String>> {
        let path = self.parents.join(id);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
        }
    }

    fn existing(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        let dir = self.dirs.join(id);
        if dir.is_dir() { Ok(dir) } else { Err(Error::NotFound(format!("no snapshot {id}"))) }
    }
}

impl SnapshotDriver for Vfs {
    fn name(&self) -> DriverName {
        DriverName::Vfs
    }

    fn prepare(&self, id: &str, parent: Option<&str>) -> Result<()> {
        check_id(id)?;
        let dir = self.dirs.join(id);
        if dir.exists() {
            return Err(Error::Conflict(format!("snapshot {id} exists already")));
        }
        let from = parent.map(|p| self.existing(p)).transpose()?;
        make_dir(&dir, 0o755)?;
        let made = from.map_or(Ok(()), |from| copy_tree(&from, &dir)).and_then(|()| {
            let Some(parent) = parent else { return Ok(()) };
            let file = self.parents.join(id);
            fs::write(&file, parent).context(|| format!("write {}", file.display()))
        });
        if made.is_err() {
            let _ = self.remove(id);
        }
        made
    }

    fn stages(&self) -> bool {
        false
    }

    fn stage(&self, _id: &str) -> Result<()> {
        Err(Error::Internal("vfs cannot unpack a layer before its parent is known".into()))
    }

    fn place(&self, _id: &str, _parent: Option<&str>) -> Result<()> {
        Err(Error::Internal("vfs cannot unpack a layer before its parent is known".into()))
    }

    fn apply_dir(&self, id: &str) -> PathBuf {
        self.dirs.join(id)
    }

    fn keeps_whiteouts(&self) -> bool {
        false
    }

    fn mounts(&self, id: &str, map: &IdMap) -> Result<Mounts> {
        if !map.is_identity() {
            return Err(Error::Unimplemented("mapping ids with the vfs driver is not supported yet".into()));
        }
        self.existing(id).map(Mounts::Directory)
    }

    fn mount(&self, id: &str, map: &IdMap) -> Result<PathBuf> {
        self.mounts(id, map)?;
        self.existing(id)
    }

    fn unmount(&self, id: &str) -> Result<()> {
        check_id(id)
    }

    fn changes(&self, id: &str, parent: Option<&str>) -> Result<Vec<Change>> {
        let old = parent.map(|p| self.existing(p)).transpose()?;
        changes::of_trees(&self.existing(id)?, old.as_deref())
    }

    fn usage(&self, id: &str) -> Result<Usage> {
        let own = measure(&self.existing(id)?)?;
        let below = match self.parent(id)? {
            Some(parent) => measure(&self.existing(&parent)?)?,
            None => Usage::default(),
        };
        // What it holds beyond its parent; the copies below are counted with the parent.
        Ok(Usage {
            bytes: own.bytes.saturating_sub(below.bytes),
            inodes: own.inodes.saturating_sub(below.inodes),
        })
    }

    fn graph_data(&self, id: &str) -> Result<BTreeMap<String, String>> {
        let dir = self.existing(id)?;
        Ok(BTreeMap::from([("Dir".to_owned(), dir.to_string_lossy().into_owned())]))
    }

    fn remove(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let (dir, aside) = (self.dirs.join(id), self.dirs.join(format!("{id}{REMOVING}")));
        if dir.exists() {
            fs::rename(&dir, &aside).context(|| format!("rename {}", dir.display()))?;
            fs::remove_dir_all(&aside).context(|| format!("remove {}", aside.display()))?;
        }
        match fs::remove_file(self.parents.join(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove the parent of {id}"), e))
            }
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        let action = || format!("read {}", self.dirs.display());
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dirs).context(action)? {
            let name = entry.context(action)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(REMOVING) {
                let path = self.dirs.join(&name);
                fs::remove_dir_all(&path).context(|| format!("remove {}", path.display()))?;
            } else {
                ids.push(name);
            }
        }
        Ok(ids)
    }

    fn sync(&self) -> Result<()> {
        let dir = fs::File::open(&self.dirs).context(|| format!("open {}", self.dirs.display()))?;
        rustix::fs::syncfs(&dir).context(|| format!("sync {}", self.dirs.display()))
    }
}

/// Copies everything below `from` into the empty directory `to`: owners, modes, times, attributes, hard links, holes.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let open = |p: &Path| {
        rustix::fs::open(p, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {}", p.display()))
    };
    let (from_fd, to_fd) = (open(from)?, open(to)?);
    let mut copy = Copy { links: HashMap::new(), target: open(to)? };
    copy.dir(&from_fd, &to_fd, Path::new(""))?;
    let stat = rustix::fs::fstat(&from_fd).context(|| format!("stat {}", from.display()))?;
    copy.finish(&from_fd, &to_fd, &stat, from)
}

struct Copy {
    /// Device and inode of files with several names, to the first copy's path.
    links: HashMap<(u64, u64), PathBuf>,
    target: OwnedFd,
}

impl Copy {
    fn dir(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path) -> Result<()> {
        let reader = rustix::fs::Dir::read_from(from).context(|| format!("read {}", path.display()))?;
        for entry in reader {
            let entry = entry.context(|| format!("read {}", path.display()))?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                let path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                self.entry(from, to, name, &path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, path: &Path) -> Result<()> {
        let action = || format!("copy {}", path.display());
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).context(action)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => {
                    return rustix::fs::linkat(&self.target, first, to, name, AtFlags::empty())
                        .context(action);
                }
                None => self.links.insert((stat.st_dev, stat.st_ino), path.to_owned()),
            };
        }
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU).context(action)?;
                let (a, b) = (open_dir(from, name).context(action)?, open_dir(to, name).context(action)?);
                self.dir(&a, &b, path)?;
                self.finish(&a, &b, &stat, path)
            }
            FileType::RegularFile => {
                let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let a =
                    rustix::fs::openat(from, name, OFlags::RDONLY | flags, Mode::empty()).context(action)?;
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
                let b = rustix::fs::openat(to, name, new, Mode::RUSR | Mode::WUSR).context(action)?;
                copy_data(&a, &b, stat.st_size.cast_unsigned()).context(action)?;
                self.finish(&a, &b, &stat, path)
            }
            FileType::Symlink => {
                let target: CString = rustix::fs::readlinkat(from, name, Vec::new()).context(action)?;
                rustix::fs::symlinkat(&target, to, name).context(action)?;
                own(to, name, &stat).context(action)?;
                rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW).context(action)
            }
            // A socket of a process that is gone means nothing in a copy.
            FileType::Socket => Ok(()),
            _ => {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev).context(action)?;
                own(to, name, &stat).context(action)?;
                rustix::fs::chmodat(to, name, mode, AtFlags::empty()).context(action)?;
                rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW).context(action)
            }
        }
    }

    /// Owner, then mode (a change of owner drops setuid), then attributes (and file capabilities), then times.
    fn finish(&self, from: &OwnedFd, to: &OwnedFd, stat: &Stat, path: &Path) -> Result<()> {
        let action = || format!("copy {}", path.display());
        rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
            .context(action)?;
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode)).context(action)?;
        copy_xattrs(from, to).context(action)?;
        rustix::fs::futimens(to, &times(stat)).context(action)
    }
}

fn open_dir(at: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn own(at: &OwnedFd, name: &CStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    let spec = |sec: i64, nsec: u64| Timespec { tv_sec: sec, tv_nsec: i64::try_from(nsec).unwrap_or(0) };
    Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// A reflink where the file system can, else the kernel's copy of each run of data, holes kept.
fn copy_data(from: &OwnedFd, to: &OwnedFd, size: u64) -> rustix::io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    rustix::fs::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e),
        };
        let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(start))?.min(size);
        let (mut a, mut b) = (start, start);
        while a < end {
            let want = usize::try_from(end - a).unwrap_or(usize::MAX);
            if rustix::fs::copy_file_range(from, Some(&mut a), to, Some(&mut b), want)? == 0 {
                break;
            }
        }
        at = end;
    }
    Ok(())
}

fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let mut list = vec![0u8; 64 << 10];
    let n = match rustix::fs::flistxattr(from, &mut list[..]) {
        Ok(n) => n,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(e) => return Err(e),
    };
    for name in list[..n].split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let mut value = vec![0u8; 64 << 10];
        match rustix::fs::fgetxattr(from, name, &mut value[..]) {
            Ok(len) => rustix::fs::fsetxattr(to, name, &value[..len], XattrFlags::empty())?,
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
