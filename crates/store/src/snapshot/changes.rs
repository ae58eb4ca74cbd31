//! What a snapshot changed: by its upper directory (costs what was changed), or by comparing two trees.
//!
//! The upper tree may belong to a container that runs: it is read as [`super::tree`] reads, and what goes away
//! meanwhile is passed over. Lower trees stand still.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::tree::{self, Place, is_dir, look_beneath, open_beneath, open_root, os, stat_at};
use crate::{Error, Result};

/// Bytes of a path that a client could use.
const PATH_MAX: usize = 4096;

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
/// not changes, parents of changes are, and below an opaque directory the lower names that are gone are deletions. What
/// a directory held that is no directory any more is not told of.
pub(super) fn of_overlay(upper: &Path, lowers: &[PathBuf]) -> Result<Vec<Change>> {
    walk(upper, Stack::open(lowers.iter().map(PathBuf::as_path))?, false)
}

/// Changes between two whole trees.
pub(super) fn of_trees(new: &Path, old: Option<&Path>) -> Result<Vec<Change>> {
    walk(new, Stack::open(old.into_iter())?, true)
}

/// What `lowers`, the topmost first, show at each path: the directory that gives the attributes, opened.
pub(super) fn lower_dirs(lowers: &[PathBuf], paths: &[&Path]) -> Result<Vec<Option<OwnedFd>>> {
    let stack = Stack::open(lowers.iter().map(PathBuf::as_path))?;
    let dir = |path: &Path| match stack.find(path)? {
        Below::Dirs(_, among) => among.first().map_or(Ok(None), |i| open_beneath(&stack.roots[*i], path)),
        _ => Ok(None),
    };
    paths.iter().map(|path| dir(path)).collect()
}

/// `whole`: the upper tree holds everything, so that a missing name is a deletion and whiteouts mean nothing.
fn walk(upper: &Path, lowers: Stack, whole: bool) -> Result<Vec<Change>> {
    let all = (0..lowers.roots.len()).collect();
    let mut walk = Walk { changes: BTreeMap::new(), lowers, whole, todo: Vec::new() };
    walk.todo.push(Todo { place: Place::root(upper)?, path: PathBuf::new(), below: all, alone: whole });
    while let Some(next) = walk.todo.pop() {
        walk.dir(&next)?;
    }
    Ok(walk.finish())
}

/// Lower layers, the topmost first. Only their roots are held open.
struct Stack {
    roots: Vec<OwnedFd>,
}

/// What the layers below show at a path.
enum Below {
    Nothing,
    /// Not a directory.
    Entry(Box<Stat>, OwnedFd),
    /// The layers whose directories are merged there, the topmost first, and the status of the topmost.
    Dirs(Box<Stat>, Vec<usize>),
}

impl Stack {
    fn open<'a>(lowers: impl Iterator<Item = &'a Path>) -> Result<Self> {
        Ok(Self { roots: lowers.map(open_root).collect::<Result<_>>()? })
    }

    /// What the layers `among` show at `path`, as the kernel's overlay merges them.
    fn look(&self, among: &[usize], path: &Path) -> Result<Below> {
        let mut dirs = Vec::new();
        let mut top: Option<Stat> = None;
        for &i in among {
            let Some((fd, stat)) = look_beneath(&self.roots[i], path)? else { continue };
            if !is_dir(&stat) {
                return Ok(match top {
                    Some(top) => Below::Dirs(Box::new(top), dirs),
                    None if is_whiteout(&stat) => Below::Nothing,
                    None => Below::Entry(Box::new(stat), fd),
                });
            }
            top.get_or_insert(stat);
            dirs.push(i);
            if is_opaque(&fd)? {
                break;
            }
        }
        Ok(top.map_or(Below::Nothing, |top| Below::Dirs(Box::new(top), dirs)))
    }

    /// What all layers show at `path`, its parents considered.
    fn find(&self, path: &Path) -> Result<Below> {
        let mut among: Vec<usize> = (0..self.roots.len()).collect();
        let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
        // The last ancestor is the root.
        parents.pop();
        for parent in parents.into_iter().rev() {
            match self.look(&among, parent)? {
                Below::Dirs(_, dirs) => among = dirs,
                _ => return Ok(Below::Nothing),
            }
        }
        self.look(&among, path)
    }

    /// The names that the directories of the layers `among` have at `path`.
    fn names(&self, among: &[usize], path: &Path) -> Result<BTreeSet<CString>> {
        let mut all = BTreeSet::new();
        for &i in among {
            if let Some(dir) = open_beneath(&self.roots[i], path)? {
                all.extend(tree::names(dir)?.into_iter().map(|(name, _)| name));
            }
        }
        Ok(all)
    }
}

struct Todo {
    place: Place,
    /// From the root of the tree.
    path: PathBuf,
    /// The lower layers whose directories are merged there.
    below: Vec<usize>,
    /// Whether nothing of them shows through: what the directory lacks is gone.
    alone: bool,
}

struct Walk {
    changes: BTreeMap<PathBuf, ChangeKind>,
    lowers: Stack,
    whole: bool,
    todo: Vec<Todo>,
}

impl Walk {
    fn dir(&mut self, at: &Todo) -> Result<()> {
        let Some(dir) = at.place.open()? else { return Ok(()) };
        let mut present = BTreeSet::new();
        let is_root = at.path.as_os_str().is_empty();
        let alone = at.alone || (!is_root && is_opaque(&dir)?);
        for (name, _) in tree::names(&dir)? {
            if let Some(stat) = stat_at(&dir, &name)? {
                self.entry(at, alone, &dir, &name, &stat)?;
                present.insert(name);
            }
        }
        if alone { self.gone(&at.path, &at.below, &present) } else { Ok(()) }
    }

    fn entry(&mut self, at: &Todo, alone: bool, dir: &OwnedFd, name: &CStr, stat: &Stat) -> Result<()> {
        let path = at.path.join(os(name));
        if path.as_os_str().len() > PATH_MAX {
            return Err(Error::TooLarge("directories are nested deeper than a path can say".into()));
        }
        let below = self.lowers.look(&at.below, &path)?;
        if !self.whole && is_whiteout(stat) {
            if !matches!(below, Below::Nothing) {
                self.changes.insert(path, ChangeKind::Deleted);
            }
            return Ok(());
        }
        let (kind, merged) = match below {
            Below::Nothing => (Some(ChangeKind::Added), Vec::new()),
            Below::Entry(old, fd) => {
                let changed = differs(stat, &old) || {
                    let Some(own) = capability(dir, name)? else { return Ok(()) };
                    own != capability_of(&fd)?
                };
                (changed.then_some(ChangeKind::Modified), Vec::new())
            }
            Below::Dirs(old, dirs) => (differs(stat, &old).then_some(ChangeKind::Modified), dirs),
        };
        if is_dir(stat) {
            let place = at.place.child(dir, name)?;
            self.todo.push(Todo { place, path: path.clone(), below: merged, alone });
        }
        if let Some(kind) = kind {
            self.changes.insert(path, kind);
        }
        Ok(())
    }

    /// Names of merged lower directories that `present` does not have any more.
    fn gone(&mut self, dir: &Path, among: &[usize], present: &BTreeSet<CString>) -> Result<()> {
        for name in self.lowers.names(among, dir)? {
            let path = dir.join(os(&name));
            if !present.contains(&name) && !matches!(self.lowers.look(among, &path)?, Below::Nothing) {
                self.changes.insert(path, ChangeKind::Deleted);
            }
        }
        Ok(())
    }

    /// Parents of changes are themselves changes; in order of paths they stand before them.
    fn finish(self) -> Vec<Change> {
        let mut all = self.changes;
        let mut parents = BTreeSet::new();
        for path in all.keys() {
            let mut next = path.parent();
            while let Some(parent) = next.filter(|p| !p.as_os_str().is_empty() && !all.contains_key(*p))
                && parents.insert(parent.to_owned())
            {
                next = parent.parent();
            }
        }
        for parent in parents {
            all.entry(parent).or_insert(ChangeKind::Modified);
        }
        let root = Path::new("/");
        all.into_iter().map(|(path, kind)| Change { path: root.join(path), kind }).collect()
    }
}

/// Overlay's mark of a deletion: a character device 0/0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether a directory hides what lies below it: in user namespaces the mark is an attribute of the user.
pub(crate) fn is_opaque(dir: &OwnedFd) -> Result<bool> {
    let name = if super::in_user_namespace() { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
    Ok(xattr(dir, name)?.as_deref() == Some(b"y"))
}

/// Docker's comparison: of directories only mode, owner and device count.
fn differs(new: &Stat, old: &Stat) -> bool {
    let meta = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
    let content = |s: &Stat| (s.st_size, s.st_mtime, s.st_mtime_nsec);
    meta(new) != meta(old) || (!is_dir(new) && content(new) != content(old))
}

/// The file capability of an entry; `None` when it is gone.
fn capability(dir: impl AsFd, name: &CStr) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => capability_of(&fd).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::io(format!("open {}", os(name).display()), e)),
    }
}

fn capability_of(fd: &OwnedFd) -> Result<Vec<u8>> {
    Ok(xattr(fd, "security.capability")?.unwrap_or_default())
}

/// A small attribute of an `O_PATH` handle; such a handle's are reached through its name in procfs.
fn xattr(fd: &OwnedFd, name: &str) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; 64];
    match rustix::fs::getxattr(format!("/proc/self/fd/{}", fd.as_raw_fd()), name, &mut value[..]) {
        Ok(n) => {
            value.truncate(n);
            Ok(Some(value))
        }
        // None, a longer one (which neither of those asked for is), or an entry that cannot have any.
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::RANGE) => {
            Ok(None)
        }
        Err(e) => Err(Error::io(format!("read {name}"), e)),
    }
}
