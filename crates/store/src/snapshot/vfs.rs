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
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use longshore_oci::IdMap;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::overlay::{REMOVING, finish_removals, list_snapshots, make_dir, remove_aside};
use super::tree::{self, Place, measure, open_beneath, open_root};
use super::{Change, DriverName, Mounts, SnapshotDriver, Usage, changes, check_id, mend};
use crate::layer::{WhiteoutFormat, is_overlay_xattr};
use crate::{Error, IoContext, Result};

/// Bytes of a path that can be linked to.
const PATH_MAX: usize = 4095;

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

    fn place(&self, _id: &str, _parent: Option<&str>, _own_root: bool) -> Result<()> {
        Err(Error::Internal("vfs cannot unpack a layer before its parent is known".into()))
    }

    fn apply_dir(&self, id: &str) -> PathBuf {
        self.dirs.join(id)
    }

    fn whiteouts(&self) -> WhiteoutFormat {
        WhiteoutFormat::Remove
    }

    fn lower_dirs(&self, id: &str, paths: &[&Path]) -> Result<Vec<Option<OwnedFd>>> {
        // The copy is the parent's tree.
        let root = open_root(&self.existing(id)?)?;
        paths.iter().map(|path| open_beneath(&root, path)).collect()
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

    fn paths(&self, id: &str) -> Vec<PathBuf> {
        if check_id(id).is_err() { Vec::new() } else { vec![self.dirs.join(id), self.parents.join(id)] }
    }

    fn remove(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let (dir, aside) = (self.dirs.join(id), self.dirs.join(format!("{id}{REMOVING}")));
        if dir.exists() {
            remove_aside(&dir, &aside)?;
        }
        match fs::remove_file(self.parents.join(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove the parent of {id}"), e))
            }
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        list_snapshots(&self.dirs)
    }

    fn tidy(&self) -> Result<()> {
        finish_removals(&self.dirs)?;
        let action = || format!("read {}", self.parents.display());
        for entry in fs::read_dir(&self.parents).context(action)? {
            let name = entry.context(action)?.file_name().to_string_lossy().into_owned();
            if check_id(&name).is_ok() && !self.dirs.join(&name).exists() {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    fn inspect(&self, id: &str, parent: Option<&str>, _committed: bool) -> Result<Vec<String>> {
        check_id(id)?;
        let mut faults = Vec::new();
        if !self.dirs.join(id).is_dir() {
            faults.push("its directory is not there".to_owned());
        }
        let named = self.parent(id)?;
        if named.as_deref() != parent {
            let words = |p: Option<&str>| p.unwrap_or("nothing").to_owned();
            faults.push(format!("it is said to stand on {}, not {}", words(named.as_deref()), words(parent)));
        }
        Ok(faults)
    }

    fn mend(&self, id: &str, parent: Option<&str>, _committed: bool) -> Result<()> {
        self.existing(id)?;
        let file = self.parents.join(id);
        match parent {
            Some(parent) => mend::write(&file, parent, 0o644),
            None => mend::remove(&file),
        }
    }

    fn exchange(&self, a: &str, b: &str) -> Result<()> {
        mend::exchange(&self.existing(a)?, &self.existing(b)?)
    }

    fn sync(&self) -> Result<()> {
        let dir = fs::File::open(&self.dirs).context(|| format!("open {}", self.dirs.display()))?;
        rustix::fs::syncfs(&dir).context(|| format!("sync {}", self.dirs.display()))
    }
}

/// Copies everything below `from` into the empty directory `to`: owners, modes, times, attributes, hard links, holes.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Copy { links: HashMap::new(), target: open_root(to)?, todo: Vec::new(), dirs: Vec::new() };
    copy.todo.push(Pair { from: Place::root(from)?, to: Place::root(to)?, path: PathBuf::new() });
    while let Some(next) = copy.todo.pop() {
        copy.dir(next)?;
    }
    // What is put into a directory changes its times, and its mode may forbid it: that comes last.
    while let Some(pair) = copy.dirs.pop() {
        let (from, to) = pair.open()?;
        let stat = rustix::fs::fstat(&from).context(|| format!("stat {}", pair.path.display()))?;
        copy.finish(&from, &to, &stat, &pair.path)?;
    }
    Ok(())
}

/// A directory and its copy.
struct Pair {
    from: Place,
    to: Place,
    /// From the root, for links and messages.
    path: PathBuf,
}

impl Pair {
    fn open(&self) -> Result<(OwnedFd, OwnedFd)> {
        match (self.from.open()?, self.to.open()?) {
            (Some(from), Some(to)) => Ok((from, to)),
            _ => Err(Error::Conflict(format!("{} was changed while it was copied", self.path.display()))),
        }
    }
}

struct Copy {
    /// Device and inode of files with several names, to the first copy's path.
    links: HashMap<(u64, u64), PathBuf>,
    target: OwnedFd,
    todo: Vec<Pair>,
    /// Directories with all their entries, parents before children.
    dirs: Vec<Pair>,
}

impl Copy {
    fn dir(&mut self, pair: Pair) -> Result<()> {
        let (from, to) = pair.open()?;
        for (name, _) in tree::names(&from)? {
            let path = pair.path.join(tree::os(&name));
            if path.as_os_str().len() > PATH_MAX {
                return Err(Error::TooLarge("directories are nested deeper than a path can say".into()));
            }
            if self.entry(&from, &to, &name, &path)? {
                let (from, to) = (pair.from.child(&from, &name)?, pair.to.child(&to, &name)?);
                self.todo.push(Pair { from, to, path });
            }
        }
        self.dirs.push(pair);
        Ok(())
    }

    /// Copies one entry; true for a directory, whose entries are still to come.
    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, path: &Path) -> Result<bool> {
        let action = || format!("copy {}", path.display());
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).context(action)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => {
                    rustix::fs::linkat(&self.target, first, to, name, AtFlags::empty()).context(action)?;
                    return Ok(false);
                }
                None => self.links.insert((stat.st_dev, stat.st_ino), path.to_owned()),
            };
        }
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU).context(action)?;
                return Ok(true);
            }
            FileType::RegularFile => {
                let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let a =
                    rustix::fs::openat(from, name, OFlags::RDONLY | flags, Mode::empty()).context(action)?;
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
                let b = rustix::fs::openat(to, name, new, Mode::RUSR | Mode::WUSR).context(action)?;
                copy_data(&a, &b, stat.st_size.cast_unsigned()).context(action)?;
                self.finish(&a, &b, &stat, path)?;
            }
            FileType::Symlink => {
                let target: CString = rustix::fs::readlinkat(from, name, Vec::new()).context(action)?;
                rustix::fs::symlinkat(&target, to, name).context(action)?;
                own(to, name, &stat).context(action)?;
                rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW).context(action)?;
            }
            // A socket of a process that is gone means nothing in a copy.
            FileType::Socket => {}
            _ => {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev).context(action)?;
                own(to, name, &stat).context(action)?;
                rustix::fs::chmodat(to, name, mode, AtFlags::empty()).context(action)?;
                rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW).context(action)?;
            }
        }
        Ok(false)
    }

    /// Owner, then mode (a change of owner drops setuid), then attributes (and file capabilities), then times.
    fn finish(&self, from: &OwnedFd, to: &OwnedFd, stat: &Stat, path: &Path) -> Result<()> {
        let action = || format!("copy {}", path.display());
        look(from, to, stat).context(action)?;
        rustix::fs::futimens(to, &times(stat)).context(action)
    }
}

/// Gives the directory `to` the owner, mode and attributes of `from`.
pub(crate) fn copy_look(from: &OwnedFd, to: &Path) -> Result<()> {
    let stat = rustix::fs::fstat(from).context(|| format!("stat what {} is like", to.display()))?;
    look(from, &open_root(to)?, &stat).context(|| format!("make {} like the image's", to.display()))
}

fn look(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> rustix::io::Result<()> {
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    copy_xattrs(from, to)
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
        if is_overlay_xattr(name.to_bytes()) {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        match rustix::fs::fgetxattr(from, name, &mut value[..]) {
            Ok(len) => rustix::fs::fsetxattr(to, name, &value[..len], XattrFlags::empty())?,
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
