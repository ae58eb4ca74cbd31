//! A directory that hostile paths cannot leave.
//!
//! Every path is resolved by the kernel as if the directory were `/` (openat2 with
//! `RESOLVE_IN_ROOT`): absolute links and `..` stay inside. Magic links (procfs) are refused.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Dangling links that [`Root::mkdir_all`] follows before it gives up, as the kernel does.
const MAX_LINKS: usize = 40;

/// A directory descriptor that serves as the root of path resolution.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a directory of the host; this path is trusted.
    ///
    /// # Errors
    /// When it is no directory that can be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .context(|| format!("open directory {}", path.display()))?;
        Ok(Self { fd })
    }

    /// Takes a directory descriptor.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The directory.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A second handle on the same directory.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { fd: self.fd.try_clone().context(|| "duplicate directory descriptor")? })
    }

    /// Opens `rel` inside the root, following links inside the root unless `O_NOFOLLOW` is given.
    ///
    /// # Errors
    /// As open(2); `ELOOP` for magic links.
    pub fn open_file(&self, rel: impl AsRef<Path>, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let rel = rel.as_ref();
        self.openat2(rel, flags, mode).context(|| format!("open {}", rel.display()))
    }

    /// Opens a directory for reading inside the root.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_dir(&self, rel: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_file(rel, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// An `O_PATH` handle on what `rel` names, links followed.
    ///
    /// # Errors
    /// As open(2).
    pub fn resolve(&self, rel: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_file(rel, OFlags::PATH, Mode::empty())
    }

    /// An `O_PATH` handle on what `rel` names; a link at the end is opened itself.
    ///
    /// # Errors
    /// As open(2).
    pub fn resolve_nofollow(&self, rel: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_file(rel, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
    }

    /// The directory below as a root of its own.
    ///
    /// # Errors
    /// As open(2).
    pub fn subroot(&self, rel: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { fd: self.open_dir(rel)? })
    }

    /// Opens the directory that holds `rel` and gives the last name, which is not resolved: what
    /// is then created, renamed or removed by descriptor and name cannot be outside.
    ///
    /// # Errors
    /// When the parent cannot be opened, or `rel` ends in `..` or is the root itself.
    pub fn resolve_parent(&self, rel: impl AsRef<Path>) -> Result<(OwnedFd, OsString)> {
        let rel = rel.as_ref();
        let Some((parent, name)) = split(rel) else {
            return Err(Error::new(format!("resolve {}", rel.display()), Errno::INVAL));
        };
        Ok((self.open_dir(parent)?, name))
    }

    /// Status of `rel`, a link at the end not followed.
    ///
    /// # Errors
    /// As stat(2).
    pub fn stat(&self, rel: impl AsRef<Path>) -> Result<Stat> {
        let fd = self.resolve_nofollow(rel.as_ref())?;
        rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)
            .context(|| format!("stat {}", rel.as_ref().display()))
    }

    /// Target of the link `rel`.
    ///
    /// # Errors
    /// As readlink(2).
    pub fn readlink(&self, rel: impl AsRef<Path>) -> Result<PathBuf> {
        let fd = self.resolve_nofollow(rel.as_ref())?;
        let target = rustix::fs::readlinkat(&fd, "", Vec::new())
            .context(|| format!("readlink {}", rel.as_ref().display()))?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Creates or truncates a regular file. A link at the end is followed inside the root.
    ///
    /// # Errors
    /// As open(2).
    pub fn create(&self, rel: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd> {
        self.open_file(rel, OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NONBLOCK, mode)
    }

    /// Creates a file that must not exist yet, nor be a link.
    ///
    /// # Errors
    /// As open(2); `EEXIST`.
    pub fn create_new(&self, rel: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd> {
        self.open_file(rel, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW, mode)
    }

    /// Makes the directories of `rel` that are missing (also the targets of dangling links, inside
    /// the root) and opens the last one.
    ///
    /// # Errors
    /// As mkdir(2) and open(2); `ENOTDIR` if something else stands in the way.
    pub fn mkdir_all(&self, rel: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd> {
        let made = self.mkdir_missing(rel.as_ref().to_owned(), mode);
        made.context(|| format!("make directory {}", rel.as_ref().display()))
    }

    /// Upwards to what is there, then down again, without recursion: a path can be deeper than a stack.
    fn mkdir_missing(&self, mut rel: PathBuf, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let open = |path: &Path| match self.openat2(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            done => done.map(Some),
        };
        for _ in 0..=MAX_LINKS {
            let mut missing = Vec::new();
            let (mut at, mut dir) = loop {
                if let Some(dir) = open(&rel)? {
                    break (rel, dir);
                }
                let (parent, name) = split(&rel).ok_or(Errno::NOENT)?;
                missing.push(name);
                rel = parent;
            };
            let dangling = loop {
                let Some(name) = missing.pop() else { return Ok(dir) };
                match rustix::fs::mkdirat(&dir, name.as_os_str(), mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e),
                }
                let next = at.join(&name);
                match open(&next)? {
                    Some(made) => (at, dir) = (next, made),
                    None => break name,
                }
            };
            // A dangling link: make what it points to.
            let target = rustix::fs::readlinkat(&dir, dangling.as_os_str(), Vec::new())?;
            rel = at.join(OsStr::from_bytes(target.as_bytes()));
            rel.extend(missing.into_iter().rev());
        }
        Err(Errno::LOOP)
    }

    fn openat2(&self, rel: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let rel = if rel.as_os_str().is_empty() { Path::new(".") } else { rel };
        // The kernel answers EAGAIN when a rename ran beside a `..`; an attacker may cause it
        // again and again, so the number of attempts is limited.
        for _ in 0..128 {
            match rustix::fs::openat2(&self.fd, rel, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }
}

/// Parent and last name; `None` for the root and for paths that end in `..`.
fn split(rel: &Path) -> Option<(PathBuf, OsString)> {
    match rel.components().next_back() {
        Some(Component::Normal(name)) => {
            let parent = rel.parent().unwrap_or(Path::new("."));
            Some((parent.to_owned(), name.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_dots_stay_inside() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("root");
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::write(dir.join("etc/passwd"), "inside").unwrap();
        fs::write(top.path().join("secret"), "outside").unwrap();
        symlink("/etc/passwd", dir.join("abs")).unwrap();
        symlink("../secret", dir.join("up")).unwrap();
        let root = Root::open(&dir).unwrap();
        let fd = root.open_file("/abs", OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(std::io::read_to_string(fs::File::from(fd)).unwrap(), "inside");
        assert_eq!(
            root.open_file("up", OFlags::RDONLY, Mode::empty()).unwrap_err().kind(),
            longshore_oci::Kind::NotFound
        );
        assert!(root.open_file("../../secret", OFlags::RDONLY, Mode::empty()).is_err());
        assert_eq!(root.readlink("up").unwrap(), Path::new("../secret"));
        let (dirfd, name) = root.resolve_parent("/etc/new").unwrap();
        assert_eq!(name, "new");
        assert_eq!(rustix::fs::fstat(&dirfd).unwrap().st_ino, root.stat("etc").unwrap().st_ino);
        assert!(root.resolve_parent("/").is_err());
        assert!(root.resolve_parent("etc/..").is_err());
    }

    #[test]
    fn directories_are_made_through_dangling_links_inside_only() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("root");
        fs::create_dir_all(dir.join("var")).unwrap();
        symlink("/run", dir.join("var/run")).unwrap();
        symlink("../../../evil", dir.join("out")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let root = Root::open(&dir).unwrap();
        root.mkdir_all("/var/run/a/b", Mode::from_raw_mode(0o755)).unwrap();
        assert!(dir.join("run/a/b").is_dir());
        root.mkdir_all("/out/x", Mode::from_raw_mode(0o755)).unwrap();
        assert!(dir.join("evil/x").is_dir());
        assert!(!top.path().join("evil").exists());
        assert!(root.mkdir_all("/loop/x", Mode::from_raw_mode(0o755)).is_err());
        fs::write(dir.join("file"), "").unwrap();
        assert!(root.mkdir_all("/file/x", Mode::from_raw_mode(0o755)).is_err());
    }
}
