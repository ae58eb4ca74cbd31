//! What a snapshot changed: by its upper directory (costs what was changed), or by comparing two trees.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::{Error, IoContext, Result};

/// Directories nested deeper than this are refused: path length ends earlier in practice.
const MAX_DEPTH: usize = 2048;

/// How an entry differs; numbered as Docker numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ChangeKind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Absolute within the tree.
    pub path: PathBuf,
    #[allow(missing_docs)]
    pub kind: ChangeKind,
}

/// Changes of an overlay: `upper` over `lowers`, the topmost first.
///
/// Prints what Docker's comparison of the two mounted trees prints: entries copied up but equal to the lower one are
/// not changes, parents of changes are, and below an opaque directory the lower names that are gone are deletions.
pub(super) fn of_overlay(upper: &Path, lowers: &[PathBuf]) -> Result<Vec<Change>> {
    let open = |p: &Path| {
        rustix::fs::open(p, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {}", p.display()))
    };
    let mut walk = Walk { changes: Vec::new(), path: PathBuf::from("/") };
    let lowers = lowers.iter().map(|p| open(p)).collect::<Result<Vec<_>>>()?;
    walk.dir(&open(upper)?, &lowers, 0)?;
    Ok(walk.changes)
}

/// Changes between two whole trees.
pub(super) fn of_trees(new: &Path, old: Option<&Path>) -> Result<Vec<Change>> {
    let open = |p: &Path| {
        rustix::fs::open(p, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {}", p.display()))
    };
    let mut walk = Walk { changes: Vec::new(), path: PathBuf::from("/") };
    let old = old.map(open).transpose()?;
    walk.tree(&open(new)?, old.as_ref(), 0)?;
    Ok(walk.changes)
}

struct Walk {
    changes: Vec<Change>,
    path: PathBuf,
}

/// What the layers below show at a name.
enum Below {
    Nothing,
    /// Not a directory.
    Entry(Box<Stat>, OwnedFd),
    /// The directories that are merged, the topmost first, and the status of the topmost.
    Dirs(Box<Stat>, Vec<OwnedFd>),
}

impl Walk {
    fn push(&mut self, name: &OsStr, kind: ChangeKind) {
        self.changes.push(Change { path: self.path.join(name), kind });
    }

    /// Walks one directory of the upper tree, whose merged lower directories are `lowers`.
    fn dir(&mut self, upper: &OwnedFd, lowers: &[OwnedFd], depth: usize) -> Result<()> {
        self.limit(depth)?;
        for name in names(upper, &self.path)? {
            let stat = rustix::fs::statat(upper, &name, AtFlags::SYMLINK_NOFOLLOW)
                .context(|| format!("stat {}", self.path.join(os(&name)).display()))?;
            let below = look_below(lowers, &name)?;
            let name_os = os(&name).to_owned();
            if is_whiteout(&stat) {
                if !matches!(below, Below::Nothing) {
                    self.push(&name_os, ChangeKind::Deleted);
                }
            } else if is_dir(&stat) {
                self.upper_dir(upper, &name, &stat, below, depth)?;
            } else {
                match below {
                    Below::Nothing => self.push(&name_os, ChangeKind::Added),
                    Below::Entry(old, old_fd) => {
                        if differs(&stat, &old) || capability(upper, &name)? != capability_of(&old_fd)? {
                            self.push(&name_os, ChangeKind::Modified);
                        }
                    }
                    Below::Dirs(_, dirs) => {
                        self.push(&name_os, ChangeKind::Modified);
                        self.gone(&name_os, &dirs, &BTreeSet::new())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn upper_dir(
        &mut self,
        upper: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        below: Below,
        depth: usize,
    ) -> Result<()> {
        let fd = open_dir(upper, name).context(|| format!("open {}", self.path.join(os(name)).display()))?;
        let name_os = os(name).to_owned();
        let at = self.changes.len();
        let (own, dirs) = match below {
            Below::Nothing => (Some(ChangeKind::Added), Vec::new()),
            Below::Entry(..) => (Some(ChangeKind::Modified), Vec::new()),
            Below::Dirs(old, dirs) => (differs(stat, &old).then_some(ChangeKind::Modified), dirs),
        };
        self.path.push(&name_os);
        self.dir(&fd, &dirs, depth + 1)?;
        self.path.pop();
        if is_opaque(&fd) {
            let present: BTreeSet<OsString> =
                names(&fd, &self.path)?.iter().map(|n| os(n).to_owned()).collect();
            self.gone(&name_os, &dirs, &present)?;
        }
        // A directory with changes inside is itself shown, before them.
        if let Some(kind) = own.or((self.changes.len() > at).then_some(ChangeKind::Modified)) {
            self.changes.insert(at, Change { path: self.path.join(&name_os), kind });
            self.changes[at..].sort_by(|a, b| a.path.cmp(&b.path));
        }
        Ok(())
    }

    /// Names of merged lower directories that `present` does not have any more.
    fn gone(&mut self, dir: &OsStr, lowers: &[OwnedFd], present: &BTreeSet<OsString>) -> Result<()> {
        let mut all = BTreeSet::new();
        for lower in lowers {
            all.extend(names(lower, &self.path)?);
        }
        for name in all {
            if !present.contains(os(&name)) && !matches!(look_below(lowers, &name)?, Below::Nothing) {
                let path = self.path.join(dir).join(os(&name));
                self.changes.push(Change { path, kind: ChangeKind::Deleted });
            }
        }
        Ok(())
    }

    /// Walks one directory of a whole tree beside the old one.
    fn tree(&mut self, new: &OwnedFd, old: Option<&OwnedFd>, depth: usize) -> Result<()> {
        self.limit(depth)?;
        let new_names: BTreeSet<CString> = names(new, &self.path)?.into_iter().collect();
        let old_names: BTreeSet<CString> = match old {
            Some(o) => names(o, &self.path)?.into_iter().collect(),
            None => BTreeSet::new(),
        };
        for name in new_names.union(&old_names) {
            let name_os = os(name).to_owned();
            if !new_names.contains(name) {
                self.push(&name_os, ChangeKind::Deleted);
                continue;
            }
            let stat = rustix::fs::statat(new, name, AtFlags::SYMLINK_NOFOLLOW)
                .context(|| format!("stat {}", self.path.join(&name_os).display()))?;
            let below = look_below(old.map(std::slice::from_ref).unwrap_or_default(), name)?;
            let at = self.changes.len();
            let (own, old_dir) = match below {
                Below::Nothing => (Some(ChangeKind::Added), None),
                Below::Entry(old, fd) => {
                    let changed = differs(&stat, &old) || capability(new, name)? != capability_of(&fd)?;
                    (changed.then_some(ChangeKind::Modified), None)
                }
                Below::Dirs(old, mut dirs) => {
                    (differs(&stat, &old).then_some(ChangeKind::Modified), dirs.pop())
                }
            };
            if is_dir(&stat) {
                let fd =
                    open_dir(new, name).context(|| format!("open {}", self.path.join(&name_os).display()))?;
                self.path.push(&name_os);
                self.tree(&fd, old_dir.as_ref(), depth + 1)?;
                self.path.pop();
            } else if let Some(dir) = old_dir {
                self.gone(&name_os, &[dir], &BTreeSet::new())?;
            }
            if let Some(kind) = own.or((self.changes.len() > at).then_some(ChangeKind::Modified)) {
                self.changes.insert(at, Change { path: self.path.join(&name_os), kind });
            }
        }
        Ok(())
    }

    fn limit(&self, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::TooLarge(format!("directories are nested deeper than {MAX_DEPTH}")));
        }
        Ok(())
    }
}

/// What `lowers` show at `name`, as the kernel's overlay would merge it.
fn look_below(lowers: &[OwnedFd], name: &CStr) -> Result<Below> {
    let mut dirs = Vec::new();
    let mut first: Option<Stat> = None;
    for lower in lowers {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(lower, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(e) => return Err(Error::io(format!("open {}", os(name).display()), e)),
        };
        let stat = rustix::fs::fstat(&fd).context(|| format!("stat {}", os(name).display()))?;
        if !is_dir(&stat) {
            return Ok(match first {
                Some(top) => Below::Dirs(Box::new(top), dirs),
                None if is_whiteout(&stat) => Below::Nothing,
                None => Below::Entry(Box::new(stat), fd),
            });
        }
        let dir = open_dir(lower, name).context(|| format!("open {}", os(name).display()))?;
        let opaque = is_opaque(&dir);
        first.get_or_insert(stat);
        dirs.push(dir);
        if opaque {
            break;
        }
    }
    Ok(match first {
        Some(top) => Below::Dirs(Box::new(top), dirs),
        None => Below::Nothing,
    })
}

fn open_dir(at: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// The names in a directory, sorted.
fn names(dir: impl AsFd, path: &Path) -> Result<Vec<CString>> {
    let mut out = Vec::new();
    let reader = rustix::fs::Dir::read_from(dir).context(|| format!("read {}", path.display()))?;
    for entry in reader {
        let entry = entry.context(|| format!("read {}", path.display()))?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            out.push(name.to_owned());
        }
    }
    out.sort();
    Ok(out)
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Overlay's mark of a deletion: a character device 0/0.
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0u8; 1];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| rustix::fs::fgetxattr(dir, *name, &mut value[..]) == Ok(1) && value[0] == b'y')
}

/// Docker's comparison: of directories only mode, owner and device count.
fn differs(new: &Stat, old: &Stat) -> bool {
    let meta = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
    let content = |s: &Stat| (s.st_size, s.st_mtime, s.st_mtime_nsec);
    meta(new) != meta(old) || (!is_dir(new) && content(new) != content(old))
}

fn capability(dir: impl AsFd, name: &CStr) -> Result<Vec<u8>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())
        .context(|| format!("open {}", os(name).display()))?;
    capability_of(&fd)
}

/// The file capability of an `O_PATH` handle; xattrs of such a handle are reached through its procfs name.
fn capability_of(fd: &OwnedFd) -> Result<Vec<u8>> {
    use std::os::fd::AsRawFd;

    let mut value = vec![0u8; 64];
    match rustix::fs::getxattr(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        "security.capability",
        &mut value[..],
    ) {
        Ok(n) => {
            value.truncate(n);
            Ok(value)
        }
        // None, or an entry that cannot have any.
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(Vec::new()),
        Err(e) => Err(Error::io("read security.capability", e)),
    }
}
