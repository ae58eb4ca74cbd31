//! The directory that a layer is unpacked into: every directory below is reached by descriptor and
//! resolved by the kernel inside the root.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::rc::Rc;

use longshore_sys::root::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::index_writer::IMPLIED_MODE;
use crate::error::{Error, IoContext, Result};

/// Descriptors kept open; a daemon may hold a few thousand in all.
const CACHE_MAX: usize = 200;

/// Directories that are open at once, of those that lead to the one being worked on: a tree may be deeper than
/// descriptors and stack allow.
pub(super) const OPEN_MAX: usize = 64;

/// An open directory.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
    /// Its path from the root, without links.
    pub(super) real: Vec<u8>,
    /// New entries get the directory's group.
    pub(super) setgid: Cell<bool>,
}

impl Dir {
    /// A directory whose path is not needed.
    pub(super) fn at(fd: OwnedFd) -> Self {
        Self { fd, real: Vec::new(), setgid: Cell::new(false) }
    }

    pub(super) fn child(&self, name: &[u8]) -> Vec<u8> {
        join(&self.real, name)
    }

    pub(super) fn stat(&self, name: &[u8]) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::io(format!("stat {}", show(&self.child(name))), e)),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Text for messages.
pub(super) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + name.len() + 1);
    path.extend_from_slice(parent);
    if !parent.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Parent and last name of a clean path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Writes the clean form of `path` to `out`: no empty, `.` or `..` components, no slash at either
/// end; empty for the root. A relative path that leaves the root is refused.
pub(super) fn clean(path: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    let absolute = path.first() == Some(&b'/');
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if out.is_empty() && !absolute => {
                return Err(Error::Invalid(format!("layer: path {} leaves the root", show(path))));
            }
            b".." => out.truncate(split(out).0.len()),
            _ => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(part);
            }
        }
    }
    Ok(())
}

/// Called with each regular file before it is removed: parent, name, status.
pub(super) type OnRemove<'a> = &'a mut dyn FnMut(&Dir, &[u8], &Stat) -> Result<()>;

/// The root and its open directories.
#[derive(Debug)]
pub(super) struct Tree {
    root: Root,
    /// Where the root is, to cut it from the paths that the kernel tells.
    location: Vec<u8>,
    cache: HashMap<Vec<u8>, Rc<Dir>>,
    /// Inodes that belong to the layer being unpacked, where that must be known.
    pub(super) own: Option<HashSet<u64>>,
}

impl Tree {
    pub(super) fn open(path: &Path, track: bool) -> Result<Self> {
        let root = Root::open(path)?;
        let location = location(root.fd())?;
        Ok(Self { root, location, cache: HashMap::new(), own: track.then(HashSet::new) })
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Marks what was just made as part of the layer.
    pub(super) fn adopt(&mut self, ino: u64) {
        if let Some(own) = &mut self.own {
            own.insert(ino);
        }
    }

    /// The directory at a clean path; what is missing of it is made. Upwards to what is there and down again, without
    /// recursion: a path can be deeper than a stack.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Rc<Dir>> {
        let mut missing = Vec::new();
        let mut at = path;
        let mut dir = loop {
            if let Some(dir) = self.find(at)? {
                break dir;
            }
            missing.push(at);
            at = split(at).0;
        };
        for path in missing.into_iter().rev() {
            dir = Rc::new(self.make(&dir, path)?);
            self.remember(path, Rc::clone(&dir));
        }
        Ok(dir)
    }

    /// The directory at a clean path, if there is one.
    fn find(&mut self, path: &[u8]) -> Result<Option<Rc<Dir>>> {
        if let Some(dir) = self.cache.get(path) {
            return Ok(Some(Rc::clone(dir)));
        }
        let dir = match self.open_dir(path) {
            Err(e) if e.errno() == Some(Errno::NOENT.raw_os_error()) && !path.is_empty() => return Ok(None),
            other => Rc::new(other?),
        };
        self.remember(path, Rc::clone(&dir));
        Ok(Some(dir))
    }

    /// Keeps `dir` open: it is what the clean path `path` names.
    pub(super) fn remember(&mut self, path: &[u8], dir: Rc<Dir>) {
        if self.cache.len() >= CACHE_MAX {
            self.cache.clear();
        }
        self.cache.insert(path.to_owned(), dir);
    }

    fn make(&mut self, parent: &Dir, path: &[u8]) -> Result<Dir> {
        let (_, name) = split(path);
        match rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                let dir = self.open_dir(path)?;
                // mkdir obeys the umask; the layer does not.
                rustix::fs::fchmod(&dir.fd, Mode::from_raw_mode(IMPLIED_MODE))
                    .context(|| format!("chmod {}", show(path)))?;
                if self.own.is_some() {
                    let stat = rustix::fs::fstat(&dir.fd).context(|| format!("stat {}", show(path)))?;
                    self.adopt(stat.st_ino);
                }
                Ok(dir)
            }
            // A link whose target is missing: the target is made, inside the root.
            Err(Errno::EXIST) => {
                let fd = self.root.mkdir_all(OsStr::from_bytes(path), Mode::from_raw_mode(IMPLIED_MODE))?;
                self.describe(fd, None)
            }
            Err(e) => Err(Error::io(format!("make directory {}", show(path)), e)),
        }
    }

    fn open_dir(&self, path: &[u8]) -> Result<Dir> {
        match open_beneath(self.root.fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => self.describe(fd, Some(path)),
            Err(Errno::LOOP) => {
                let fd = self.root.open_dir(OsStr::from_bytes(path)).map_err(|e| not_a_dir(path, e))?;
                self.describe(fd, None)
            }
            Err(Errno::NOTDIR) => {
                // The message differs for a link to a directory, which is followed.
                let fd = self.root.open_dir(OsStr::from_bytes(path)).map_err(|e| not_a_dir(path, e))?;
                self.describe(fd, None)
            }
            Err(e) => Err(Error::io(format!("open directory {}", show(path)), e)),
        }
    }

    fn describe(&self, fd: OwnedFd, real: Option<&[u8]>) -> Result<Dir> {
        let stat = rustix::fs::fstat(&fd).context(|| "stat directory")?;
        let real = match real {
            Some(path) => path.to_owned(),
            None => self.relative(location(fd.as_fd())?)?,
        };
        Ok(Dir { fd, real, setgid: Cell::new(stat.st_mode & 0o2000 != 0) })
    }

    fn relative(&self, path: Vec<u8>) -> Result<Vec<u8>> {
        let outside = || Error::Internal(format!("layer: directory {} is not in the root", show(&path)));
        let rest = path.strip_prefix(self.location.as_slice()).ok_or_else(outside)?;
        match rest {
            [] => Ok(Vec::new()),
            [b'/', rest @ ..] => Ok(rest.to_owned()),
            _ => Err(outside()),
        }
    }

    /// Removes `name` and all below it.
    pub(super) fn remove(&mut self, dir: &Dir, name: &[u8], stat: &Stat, on: OnRemove<'_>) -> Result<()> {
        // Paths may lead elsewhere once a directory or a link is gone.
        if matches!(file_type(stat), FileType::Directory | FileType::Symlink) {
            self.cache.clear();
        }
        self.remove_all(dir, name, stat, on, false)
    }

    /// Removes what does not belong to the layer: `name` and all below it, except own entries and
    /// the directories that hold some.
    pub(super) fn remove_foreign(&mut self, dir: &Dir, name: &[u8], on: OnRemove<'_>) -> Result<()> {
        let Some(stat) = dir.stat(name)? else { return Ok(()) };
        self.cache.clear();
        self.remove_all(dir, name, &stat, on, true)
    }

    /// By a list of what is open, not by calls: a layer can be deeper than a stack.
    fn remove_all(
        &mut self,
        dir: &Dir,
        name: &[u8],
        stat: &Stat,
        on: OnRemove<'_>,
        keep_own: bool,
    ) -> Result<()> {
        if file_type(stat) != FileType::Directory {
            return self.remove_file(dir, name, stat, on, keep_own);
        }
        let mut open = vec![Emptied::open(dir, name, stat)?];
        while let Some(here) = open.last_mut() {
            if let Some(child) = here.names.next() {
                let at = here.dir.as_ref().ok_or_else(|| Error::Internal("a directory was closed".into()))?;
                match at.stat(&child)? {
                    Some(stat) if file_type(&stat) == FileType::Directory => {
                        let sub = Emptied::open(at, &child, &stat)?;
                        open.push(sub);
                        if let Some(far) = open.len().checked_sub(OPEN_MAX + 1) {
                            open[far].dir = None;
                        }
                    }
                    Some(stat) => self.remove_file(at, &child, &stat, &mut *on, keep_own)?,
                    None => {}
                }
                continue;
            }
            let Some(done) = open.pop() else { break };
            match open.last_mut() {
                Some(above) => self.remove_dir(above.open_again(&done)?, &done, keep_own)?,
                None => self.remove_dir(dir, &done, keep_own)?,
            }
        }
        Ok(())
    }

    fn is_own(&self, ino: u64) -> bool {
        self.own.as_ref().is_some_and(|own| own.contains(&ino))
    }

    fn disown(&mut self, ino: u64) {
        if let Some(own) = &mut self.own {
            own.remove(&ino);
        }
    }

    fn remove_file(
        &mut self,
        dir: &Dir,
        name: &[u8],
        stat: &Stat,
        on: OnRemove<'_>,
        keep_own: bool,
    ) -> Result<()> {
        if keep_own && self.is_own(stat.st_ino) {
            return Ok(());
        }
        if file_type(stat) == FileType::RegularFile {
            on(dir, name, stat)?;
        }
        if stat.st_nlink == 1 {
            self.disown(stat.st_ino);
        }
        rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty())
            .context(|| format!("remove {}", show(&dir.child(name))))
    }

    fn remove_dir(&mut self, parent: &Dir, done: &Emptied, keep_own: bool) -> Result<()> {
        if keep_own && self.is_own(done.ino) {
            return Ok(());
        }
        match rustix::fs::unlinkat(&parent.fd, done.name.as_slice(), AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) if keep_own => return Ok(()),
            removed => removed.context(|| format!("remove {}", show(&done.real)))?,
        }
        self.disown(done.ino);
        Ok(())
    }
}

/// A directory that is being emptied.
struct Emptied {
    /// `None` while it is far above.
    dir: Option<Dir>,
    real: Vec<u8>,
    /// In its parent.
    name: Vec<u8>,
    ino: u64,
    /// What is still to be removed.
    names: std::vec::IntoIter<Vec<u8>>,
}

impl Emptied {
    fn open(parent: &Dir, name: &[u8], stat: &Stat) -> Result<Self> {
        let dir = open_child(parent, name)?;
        let names = names(&dir)?.into_iter();
        Ok(Self { real: dir.real.clone(), dir: Some(dir), name: name.to_owned(), ino: stat.st_ino, names })
    }

    /// Opens it again from a directory in it, if it was closed. Nobody else moves anything.
    fn open_again(&mut self, below: &Self) -> Result<&Dir> {
        if self.dir.is_none()
            && let Some(below) = &below.dir
        {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&below.fd, "..", flags, Mode::empty())
                .context(|| format!("open directory {}", show(&self.real)))?;
            self.dir = Some(Dir { real: self.real.clone(), ..Dir::at(fd) });
        }
        self.dir.as_ref().ok_or_else(|| Error::Internal("a directory was closed".into()))
    }
}

fn not_a_dir(path: &[u8], e: longshore_sys::Error) -> Error {
    match e.errno().map(Errno::from_raw_os_error) {
        Some(Errno::NOTDIR) => {
            Error::Invalid(format!("layer: {} is used as a directory and is none", show(path)))
        }
        Some(Errno::LOOP) => Error::Invalid(format!("layer: too many links in {}", show(path))),
        _ => Error::from(e),
    }
}

/// Opens what a clean path names, refusing every link on the way.
pub(super) fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Opens for reading the very file that an `O_PATH` descriptor holds; its type was checked there, so
/// that no device or pipe is opened in its place.
pub(crate) fn reopen(node: BorrowedFd<'_>) -> rustix::io::Result<File> {
    let path = longshore_sys::sockpath::fd_path(node);
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

pub(super) fn open_child(dir: &Dir, name: &[u8]) -> Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let real = dir.child(name);
    let fd = rustix::fs::openat(&dir.fd, name, flags, Mode::empty())
        .context(|| format!("open directory {}", show(&real)))?;
    Ok(Dir { fd, real, setgid: Cell::new(false) })
}

/// The names in a directory, unsorted.
pub(super) fn names(dir: &Dir) -> Result<Vec<Vec<u8>>> {
    let reading = || format!("read directory {}", show(&dir.real));
    let mut out = Vec::new();
    for entry in rustix::fs::Dir::read_from(&dir.fd).context(reading)? {
        let entry = entry.context(reading)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            out.push(name.to_owned());
        }
    }
    Ok(out)
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Where the kernel sees a directory.
fn location(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let link = longshore_sys::sockpath::fd_path(fd);
    let target = std::fs::read_link(&link).context(|| format!("read {}", link.display()))?;
    Ok(OsString::from(target).into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_17_paths_are_cleaned_or_refused() {
        let mut out = Vec::new();
        for (path, want) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/etc/x", "etc/x"),
            ("a/../b", "b"),
            ("a/b/../../c", "c"),
            ("/../../x", "x"),
            ("./", ""),
            (".", ""),
        ] {
            clean(path.as_bytes(), &mut out).unwrap();
            assert_eq!(show(&out), want, "{path}");
        }
        for bad in ["../x", "a/../../x", "./.."] {
            assert!(clean(bad.as_bytes(), &mut out).is_err(), "{bad}");
        }
    }
}
