//! Writing a layer's tar from a directory: an overlay's upper one, a whole tree, or the changed
//! paths of one.
//!
//! The tree may be in use by a container while it is read: every step is by descriptor, no link is
//! followed, a file that vanishes is left out and one that changes its size is cut or padded.
//! The same tree always gives the same bytes. Sockets are left out. Of extended attributes
//! `security.capability` and `user.*` are kept; the others belong to the host.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use longshore_oci::{Digest, Sha256};
use longshore_sys::root::Root;
use longshore_sys::sockpath::fd_path;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::tree::{Dir, OPEN_MAX, join, names, open_beneath, reopen, show, split};
use super::{OPAQUE_NAME, WHITEOUT_PREFIX, is_overlay_xattr};
use crate::error::{Error, IoContext, Result};
use crate::tar::{Entry, EntryKind, Time, Writer, Xattr};

/// Longer paths cannot be unpacked anywhere.
const PATH_MAX: usize = 4096;

/// Bytes of one attribute, as the kernel limits them.
const XATTR_MAX: usize = 64 << 10;

/// What a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeKind {
    /// An overlay's upper directory: its whiteouts and opaque marks become those of a tar.
    OverlayUpper,
    /// Files, all meant as they are.
    Plain,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The digest of the tar.
    pub diff_id: Digest,
    /// Its bytes.
    pub tar_size: u64,
    /// The bytes of all regular files together.
    pub size: u64,
    /// Its entries.
    pub entries: u64,
    /// Sockets, which no archive holds.
    pub left_out: u64,
}

/// Archives all of `dir` in the order of names. The directory itself has no entry.
///
/// # Errors
/// When the tree cannot be read or `out` not be written; `Invalid` if a file of an upper directory
/// has a name that would be a whiteout in a layer.
pub fn write_tree(dir: &Path, kind: TreeKind, out: impl Write) -> Result<Written> {
    let root = Root::open(dir)?;
    let mut job = Job::new(out, kind);
    let top = Dir::at(
        open_beneath(root.fd(), b"", OFlags::RDONLY | OFlags::DIRECTORY)
            .context(|| format!("open {}", dir.display()))?,
    );
    job.walk(top)?;
    job.finish()
}

/// Archives whole trees, each as a directory of the name that stands with it.
///
/// # Errors
/// As [`write_tree`].
pub fn write_trees(trees: &[(&[u8], &Path)], out: impl Write) -> Result<Written> {
    let mut job = Job::new(out, TreeKind::Plain);
    for (name, dir) in trees {
        let root = Root::open(dir)?;
        let top = open_beneath(root.fd(), b"", OFlags::RDONLY | OFlags::DIRECTORY)
            .context(|| format!("open {}", dir.display()))?;
        let stat = rustix::fs::fstat(&top).context(|| format!("stat {}", dir.display()))?;
        let entry = describe(name.to_vec(), &stat)
            .ok_or_else(|| Error::Internal(format!("{} is no directory", dir.display())))?;
        // Numbers of files mean something within a tree only.
        job.links.clear();
        let top = job.directory(top, entry)?;
        job.walk(top)?;
    }
    job.finish()
}

/// Archives the given paths of the tree `dir`; of a pair the second says that the path was deleted.
/// Paths may start with a slash. Entries come in the order of paths.
///
/// # Errors
/// As [`write_tree`].
pub fn write_changes<'a>(
    dir: &Path,
    changes: impl IntoIterator<Item = (&'a [u8], bool)>,
    out: impl Write,
) -> Result<Written> {
    let root = Root::open(dir)?;
    let mut sorted: Vec<(&[u8], bool)> = changes
        .into_iter()
        .map(|(path, deleted)| (path.strip_prefix(b"/").unwrap_or(path), deleted))
        .filter(|(path, _)| !path.is_empty())
        .collect();
    sorted.sort_unstable();
    let mut job = Job::new(out, TreeKind::Plain);
    job.refuse_whiteout_names = true;
    for (path, deleted) in sorted {
        let (parent, name) = split(path);
        if deleted {
            job.whiteout(parent, name, Time::default())?;
            continue;
        }
        let fd = match open_beneath(root.fd(), parent, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(e) => return Err(Error::io(format!("open directory {}", show(parent)), e)),
        };
        let dir = Dir { real: parent.to_owned(), ..Dir::at(fd) };
        job.one(&dir, name)?;
    }
    job.finish()
}

/// Archives what `path` names in the tree `root`, a link at its end as a link, under the name `name`.
///
/// # Errors
/// `NotFound` if there is nothing; as [`write_tree`].
pub fn write_path(root: &Root, path: &Path, name: &[u8], out: impl Write) -> Result<Written> {
    let mut job = Job::new(out, TreeKind::Plain);
    let node = root.resolve_nofollow(path)?;
    let stat = rustix::fs::fstat(&node).context(|| format!("stat {}", path.display()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let entry =
            describe(name.to_owned(), &stat).ok_or_else(|| Error::Internal("a directory is none".into()))?;
        let dir = job.directory(node, entry)?;
        job.walk(dir)?;
    } else {
        let (dir, last) = root.resolve_parent(path)?;
        if let Some(dir) = job.named(&Dir::at(dir), last.as_bytes(), name.to_owned())? {
            job.walk(dir)?;
        }
    }
    job.finish()
}

/// Counts and hashes what passes.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Job<W: Write> {
    tar: Writer<BufWriter<Hashed<W>>>,
    kind: TreeKind,
    refuse_whiteout_names: bool,
    /// First path of inodes with several.
    links: HashMap<(u64, u64), Vec<u8>>,
    buf: Vec<u8>,
    size: u64,
    entries: u64,
    left_out: u64,
}

impl<W: Write> Job<W> {
    fn new(out: W, kind: TreeKind) -> Self {
        let out = Hashed { inner: out, hash: Sha256::new(), size: 0 };
        Self {
            tar: Writer::new(BufWriter::with_capacity(256 << 10, out)),
            kind,
            refuse_whiteout_names: kind == TreeKind::OverlayUpper,
            links: HashMap::new(),
            buf: vec![0; 128 << 10],
            size: 0,
            entries: 0,
            left_out: 0,
        }
    }

    fn finish(self) -> Result<Written> {
        let hashed = self.tar.finish()?.into_inner().map_err(|e| Error::io("write tar", e.into_error()))?;
        Ok(Written {
            diff_id: hashed.hash.finish(),
            tar_size: hashed.size,
            size: self.size,
            entries: self.entries,
            left_out: self.left_out,
        })
    }

    /// Archives all that is below an opened directory.
    fn walk(&mut self, top: Dir) -> Result<()> {
        let mut open = vec![Level::of(top)?];
        while let Some(level) = open.last_mut() {
            let name = level.names.next();
            let sub = match (&level.dir, name) {
                (Some(dir), Some(name)) => self.one(dir, &name)?,
                _ => {
                    let done = open.pop();
                    if let (Some(done), Some(above)) = (done, open.last_mut()) {
                        above.open_again(&done)?;
                    }
                    continue;
                }
            };
            if let Some(sub) = sub {
                open.push(Level::of(sub)?);
                if let Some(far) = open.len().checked_sub(OPEN_MAX + 1) {
                    open[far].dir = None;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, entry: &Entry) -> Result<()> {
        self.entries += 1;
        self.tar.entry(entry)
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8], mtime: Time) -> Result<()> {
        let path = join(parent, &[WHITEOUT_PREFIX, name].concat());
        self.put(&Entry { path, mode: 0o600, mtime, ..Entry::default() })
    }

    fn one(&mut self, dir: &Dir, name: &[u8]) -> Result<Option<Dir>> {
        self.named(dir, name, dir.child(name))
    }

    /// Archives `name` of `dir` as `path`; a directory is given back, opened, for what is in it.
    fn named(&mut self, dir: &Dir, name: &[u8], path: Vec<u8>) -> Result<Option<Dir>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = match rustix::fs::openat(&dir.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(Error::io(format!("open {}", show(&path)), e)),
        };
        let stat = rustix::fs::fstat(&node).context(|| format!("stat {}", show(&path)))?;
        if self.kind == TreeKind::OverlayUpper
            && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == 0
        {
            return self.whiteout(&dir.real, name, mtime(&stat)).map(|()| None);
        }
        if self.refuse_whiteout_names && name.starts_with(WHITEOUT_PREFIX) {
            return Err(Error::Invalid(format!(
                "{}: names that start with .wh. mean deletions in a layer; rename it",
                show(&path)
            )));
        }
        if path.len() > PATH_MAX {
            return Err(Error::TooLarge(format!("path of {} bytes, the limit is {PATH_MAX}", path.len())));
        }
        let Some(mut entry) = describe(path, &stat) else {
            self.left_out += 1;
            return Ok(None);
        };
        if entry.kind == EntryKind::Dir {
            return self.directory(node, entry).map(Some);
        }
        if self.link(&mut entry, &stat)? {
            return Ok(None);
        }
        match entry.kind {
            EntryKind::File => self.file(&node, entry)?,
            EntryKind::Symlink => {
                entry.link = rustix::fs::readlinkat(&node, "", Vec::new())
                    .context(|| format!("readlink {}", show(&entry.path)))?
                    .into_bytes();
                entry.xattrs = self.xattrs(&Source::Named(dir.as_fd(), name), &entry.path)?.kept;
                self.put(&entry)?;
            }
            _ => {
                entry.xattrs = self.xattrs(&Source::Named(dir.as_fd(), name), &entry.path)?.kept;
                self.put(&entry)?;
            }
        }
        Ok(None)
    }

    /// Writes a hard link if the inode was written before.
    fn link(&mut self, entry: &mut Entry, stat: &Stat) -> Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some(first) = self.links.get(&key) else {
            self.links.insert(key, entry.path.clone());
            return Ok(false);
        };
        entry.link.clone_from(first);
        entry.kind = EntryKind::HardLink;
        entry.size = 0;
        self.put(entry)?;
        Ok(true)
    }

    fn directory(&mut self, node: OwnedFd, mut entry: Entry) -> Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&node, ".", flags, Mode::empty())
            .context(|| format!("open directory {}", show(&entry.path)))?;
        drop(node);
        let real = entry.path.clone();
        let xattrs = self.xattrs(&Source::Open(fd.as_fd()), &entry.path)?;
        entry.xattrs = xattrs.kept;
        entry.path.push(b'/');
        self.put(&entry)?;
        if self.kind == TreeKind::OverlayUpper && xattrs.opaque {
            let mark =
                Entry { path: join(&real, OPAQUE_NAME), mode: 0o600, mtime: entry.mtime, ..Entry::default() };
            self.put(&mark)?;
        }
        Ok(Dir { real, ..Dir::at(fd) })
    }

    fn file(&mut self, node: &OwnedFd, mut entry: Entry) -> Result<()> {
        let mut file = reopen(node.as_fd()).context(|| format!("open {}", show(&entry.path)))?;
        entry.xattrs = self.xattrs(&Source::Open(file.as_fd()), &entry.path)?.kept;
        self.put(&entry)?;
        self.size += entry.size;
        self.contents(&mut file, &entry.path)
    }

    fn contents(&mut self, file: &mut File, path: &[u8]) -> Result<()> {
        while self.tar.left() > 0 {
            let want = usize::try_from(self.tar.left()).unwrap_or(usize::MAX).min(self.buf.len());
            match file.read(&mut self.buf[..want]) {
                // It became shorter.
                Ok(0) => return self.tar.pad(),
                Ok(n) => self.tar.data(&self.buf[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io(format!("read {}", show(path)), e)),
            }
        }
        Ok(())
    }

    fn xattrs(&mut self, source: &Source<'_>, path: &[u8]) -> Result<Xattrs> {
        let failed = |e| Error::io(format!("list xattrs of {}", show(path)), e);
        let mut out = Xattrs::default();
        // The kernel limits a list to 64 KiB.
        let len = match source.list(&mut self.buf[..XATTR_MAX]) {
            Ok(len) => len,
            Err(Errno::OPNOTSUPP) => return Ok(out),
            Err(e) => return Err(failed(e)),
        };
        let list = self.buf[..len].to_vec();
        for name in list.split(|&b| b == 0).filter(|n| !n.is_empty()) {
            let opaque = matches!(name, b"trusted.overlay.opaque" | b"user.overlay.opaque");
            let moved = matches!(name, b"trusted.overlay.redirect" | b"trusted.overlay.metacopy")
                || matches!(name, b"user.overlay.redirect" | b"user.overlay.metacopy");
            let keep =
                !is_overlay_xattr(name) && (name == b"security.capability" || name.starts_with(b"user."));
            if moved && self.kind == TreeKind::OverlayUpper {
                return Err(Error::Unimplemented(format!(
                    "{}: overlay directories made with redirect_dir or metacopy are not supported",
                    show(path)
                )));
            }
            if !(keep || opaque) {
                continue;
            }
            let value = match source.get(name, &mut self.buf[..XATTR_MAX]) {
                Ok(len) => &self.buf[..len],
                Err(Errno::NODATA) => continue,
                Err(e) => return Err(failed(e)),
            };
            if opaque {
                out.opaque |= value == b"y";
            } else {
                out.kept.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(out)
    }
}

/// A directory on the way to the one that is read.
struct Level {
    /// `None` while it is far above.
    dir: Option<Dir>,
    real: Vec<u8>,
    id: (u64, u64),
    /// What is still to be archived, in order.
    names: std::vec::IntoIter<Vec<u8>>,
}

impl Level {
    fn of(dir: Dir) -> Result<Self> {
        let mut names = names(&dir)?;
        names.sort_unstable();
        let id = identity(&dir.fd, &dir.real)?;
        Ok(Self { real: dir.real.clone(), id, names: names.into_iter(), dir: Some(dir) })
    }

    /// Opens it again from a directory in it, if it was closed. Where that was moved away meanwhile, what is left of
    /// this one is passed over, like anything else that vanishes.
    fn open_again(&mut self, below: &Self) -> Result<()> {
        let (None, Some(below)) = (&self.dir, &below.dir) else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&below.fd, "..", flags, Mode::empty())
            .context(|| format!("open directory {}", show(&self.real)))?;
        if identity(&fd, &self.real)? == self.id {
            self.dir = Some(Dir { real: self.real.clone(), ..Dir::at(fd) });
        }
        Ok(())
    }
}

fn identity(dir: &OwnedFd, path: &[u8]) -> Result<(u64, u64)> {
    let stat = rustix::fs::fstat(dir).context(|| format!("stat {}", show(path)))?;
    Ok((stat.st_dev, stat.st_ino))
}

#[derive(Default)]
struct Xattrs {
    kept: Vec<Xattr>,
    opaque: bool,
}

/// Where attributes are read: links and devices cannot be opened.
enum Source<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a [u8]),
}

impl Source<'_> {
    fn list(&self, buf: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buf),
            Self::Named(dir, name) => rustix::fs::llistxattr(named(*dir, name), buf),
        }
    }

    fn get(&self, key: &[u8], buf: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, key, buf),
            Self::Named(dir, name) => rustix::fs::lgetxattr(named(*dir, name), key, buf),
        }
    }
}

fn named(dir: BorrowedFd<'_>, name: &[u8]) -> std::path::PathBuf {
    fd_path(dir)
        .join(std::ffi::OsStr::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name)))
}

fn mtime(stat: &Stat) -> Time {
    Time { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// The entry of a node; `None` for what no archive holds.
fn describe(path: Vec<u8>, stat: &Stat) -> Option<Entry> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Dir,
        FileType::Symlink => EntryKind::Symlink,
        FileType::CharacterDevice => EntryKind::Char,
        FileType::BlockDevice => EntryKind::Block,
        FileType::Fifo => EntryKind::Fifo,
        _ => return None,
    };
    let dev = match kind {
        EntryKind::Char | EntryKind::Block => {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        }
        _ => (0, 0),
    };
    Some(Entry {
        path,
        kind,
        mode: if kind == EntryKind::Symlink { 0o777 } else { stat.st_mode & 0o7777 },
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: mtime(stat),
        size: if kind == EntryKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        dev,
        ..Entry::default()
    })
}
