//! Trees that containers wrote, read and removed without trust: by descriptor, never through a link, and whatever their
//! depth without recursion, so that no tree can exhaust the stack or the descriptors of the daemon.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::Usage;
use crate::{Error, IoContext, Result};

/// A relative path longer than this gets a descriptor of its own to start from; the kernel takes 4095 bytes.
const LONG: usize = 2048;
/// Nesting that removal descends before it brings what is deeper to the top.
const REMOVE_DEPTH: usize = 32;

/// A directory that a walk will come to: a path below a descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    base: Rc<OwnedFd>,
    rest: PathBuf,
}

impl Place {
    /// The root of a tree.
    pub(crate) fn root(path: &Path) -> Result<Self> {
        Ok(Self { base: Rc::new(open_root(path)?), rest: PathBuf::new() })
    }

    /// An entry of an open directory.
    pub(crate) fn below(dir: &OwnedFd, name: &CStr) -> Result<Self> {
        let base = dir.try_clone().context(|| "open a directory again")?;
        Ok(Self { base: Rc::new(base), rest: PathBuf::from(os(name)) })
    }

    /// Opens it for reading, never through a link; `None` when it is no directory (any more).
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>> {
        open_beneath(&self.base, &self.rest)
    }

    /// The place of an entry, given the opened directory.
    pub(crate) fn child(&self, dir: &OwnedFd, name: &CStr) -> Result<Self> {
        if self.rest.as_os_str().len() < LONG {
            return Ok(Self { base: Rc::clone(&self.base), rest: self.rest.join(os(name)) });
        }
        Self::below(dir, name)
    }
}

/// Opens the root of a tree.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {}", path.display()))
}

/// Opens a directory below `root` for reading; `None` when there is none.
pub(super) fn open_beneath(root: impl AsFd, rest: &Path) -> Result<Option<OwnedFd>> {
    beneath(root, rest, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Looks at an entry below `root` without opening it; `None` when there is none.
pub(crate) fn look_beneath(root: impl AsFd, rest: &Path) -> Result<Option<(OwnedFd, Stat)>> {
    let Some(fd) = beneath(root, rest, OFlags::PATH | OFlags::NOFOLLOW)? else { return Ok(None) };
    let stat = rustix::fs::fstat(&fd).context(|| format!("stat {}", rest.display()))?;
    Ok(Some((fd, stat)))
}

fn beneath(root: impl AsFd, rest: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
    let path = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(fd) => return Ok(Some(fd)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(Errno::NAMETOOLONG) => {
                return Err(Error::TooLarge("directories are nested deeper than a path can say".into()));
            }
            Err(e) => return Err(Error::io(format!("open {}", path.display()), e)),
        }
    }
}

/// The status of an entry; `None` when it is gone.
pub(crate) fn stat_at(dir: impl AsFd, name: &CStr) -> Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::io(format!("stat {}", os(name).display()), e)),
    }
}

/// The names in a directory, in no order, with their types as far as the file system tells.
pub(crate) fn names(dir: impl AsFd) -> Result<Vec<(CString, FileType)>> {
    let mut out = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).context(|| "read a directory")? {
        let entry = entry.context(|| "read a directory")?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            out.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(out)
}

pub(crate) fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Bytes and inodes below `dir`, each inode once. What goes away meanwhile does not count.
pub(super) fn measure(dir: &Path) -> Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    let mut todo = vec![Place::root(dir)?];
    while let Some(place) = todo.pop() {
        let Some(here) = place.open()? else { continue };
        for (name, _) in names(&here)? {
            let Some(stat) = stat_at(&here, &name)? else { continue };
            if is_dir(&stat) {
                usage.inodes += 1;
                todo.push(place.child(&here, &name)?);
            } else if stat.st_nlink < 2 || seen.insert(stat.st_ino) {
                usage.inodes += 1;
                usage.bytes += u64::try_from(stat.st_size).unwrap_or(0);
            }
        }
    }
    Ok(usage)
}

/// Removes the directory `top` and all below it, however deep: containers make such trees. Goes on after a failure and
/// tells the first; what is gone already is fine.
///
/// # Errors
/// When the system refuses.
pub fn remove_tree(top: &Path) -> Result<()> {
    let root = match open_root(top) {
        Err(e) if e.errno() == Some(Errno::NOENT.raw_os_error()) => return Ok(()),
        done => done?,
    };
    let mut removal = Removal { root: &root, moved: 0, failed: None };
    loop {
        let before = removal.moved;
        removal.clear(&root, 0);
        if removal.moved == before || removal.failed.is_some() {
            break;
        }
    }
    match removal.failed {
        Some(e) => Err(Error::io(format!("remove {}", top.display()), e)),
        None => match fs::remove_dir(top) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", top.display()), e))
            }
            _ => Ok(()),
        },
    }
}

struct Removal<'a> {
    root: &'a OwnedFd,
    /// Directories that were brought to the top because they lay too deep.
    moved: u64,
    failed: Option<Errno>,
}

impl Removal<'_> {
    fn clear(&mut self, dir: &OwnedFd, depth: usize) {
        let names = match names(dir) {
            Ok(names) => names,
            Err(e) => return self.fail(e.errno().map_or(Errno::IO, Errno::from_raw_os_error)),
        };
        for (name, kind) in names {
            let done = match kind {
                FileType::Directory => Err(Errno::ISDIR),
                _ => rustix::fs::unlinkat(dir, &name, AtFlags::empty()),
            };
            match done {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => self.clear_dir(dir, &name, depth),
                Err(e) => self.fail(e),
            }
        }
    }

    fn clear_dir(&mut self, dir: &OwnedFd, name: &CStr, depth: usize) {
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(e) => return self.fail(e),
        }
        if depth >= REMOVE_DEPTH {
            return self.bring_up(dir, name);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(child) => self.clear(&child, depth + 1),
            Err(e) => return self.fail(e),
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => self.fail(e),
        }
    }

    fn bring_up(&mut self, dir: &OwnedFd, name: &CStr) {
        loop {
            let to = format!("deep-{}", self.moved);
            self.moved += 1;
            match rustix::fs::renameat_with(dir, name, self.root, &to, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::NOENT) => return,
                Err(Errno::EXIST) => {}
                Err(e) => return self.fail(e),
            }
        }
    }

    fn fail(&mut self, e: Errno) {
        self.failed.get_or_insert(e);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nest(at: &Path, depth: usize) {
        let mut dir = open_root(at).unwrap();
        for n in 0..depth {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&dir, "deep-0", Mode::RWXU).unwrap();
            rustix::fs::symlinkat("/etc", &dir, "out").unwrap();
            if n == depth / 2 {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&dir, "file", flags, Mode::RWXU).unwrap();
                rustix::io::write(&file, b"12345").unwrap();
                rustix::fs::linkat(&dir, "file", &dir, "hard", AtFlags::empty()).unwrap();
            }
            dir = open_beneath(&dir, Path::new("d")).unwrap().unwrap();
        }
    }

    #[test]
    fn atk_59_deep_trees_are_measured_and_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let top = tmp.path().join("top");
        fs::create_dir(&top).unwrap();
        nest(&top, 6000);
        let usage = measure(&top).unwrap();
        assert_eq!(usage, Usage { bytes: 5 + 6000 * 4, inodes: 3 * 6000 + 1 });
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }

    #[test]
    fn atk_17_links_are_not_followed() {
        let tmp = tempfile::tempdir().unwrap();
        let (top, outside) = (tmp.path().join("top"), tmp.path().join("outside"));
        fs::create_dir_all(top.join("a")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("a/link")).unwrap();
        let root = open_root(&top).unwrap();
        assert!(open_beneath(&root, Path::new("a/link")).unwrap().is_none());
        assert!(look_beneath(&root, Path::new("a/link/canary")).unwrap().is_none());
        assert!(look_beneath(&root, Path::new("a/link")).unwrap().is_some());
        remove_tree(&top).unwrap();
        assert!(outside.join("canary").exists());
    }
}
