//! Puts files into a tree: by descriptor, never outside, and so that nothing but what was copied is changed in it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use longshore_store::tar::Time;
use longshore_sys::root::Root;
use rustix::fs::{AtFlags, FileType, Gid, Mode as Bits, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::context::{Context, Entry, EntryKind};
use crate::error::IoContext as _;
use crate::mode::Mode;
use crate::{Error, Result};

/// Bytes that one call moves.
const PIECE: usize = 8 << 20;

/// One thing to copy.
struct Item<'a> {
    from: &'a Context,
    /// Its place there, and what it is.
    at: usize,
    entry: &'a Entry,
    /// Where it goes, from the tree's root: a clean path.
    to: &'a [u8],
}

/// How things look when they are copied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// User and group; `None`: as they were.
    pub(crate) owner: Option<(u32, u32)>,
    /// What permissions become; `None`: as they were.
    pub(crate) mode: Option<Mode>,
    /// Seconds since 1970, for directories that nothing in the source stands for.
    pub(crate) stamp: i64,
}

impl Look {
    fn mode(&self, mode: u32, directory: bool) -> u32 {
        self.mode.as_ref().map_or(mode, |m| m.apply(mode, directory))
    }
}

/// Puts things into a tree.
pub(crate) struct Placer<'a> {
    to: &'a Root,
    look: Look,
    cancel: &'a Cancel,
    /// Files of the source with several names, by device and inode: the first name in the tree.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Times that directories get at the end: what happens in them changes them.
    times: BTreeMap<Vec<u8>, Timespec>,
    buf: Vec<u8>,
}

impl<'a> Placer<'a> {
    pub(crate) fn new(to: &'a Root, look: Look, cancel: &'a Cancel) -> Self {
        Self { to, look, cancel, links: HashMap::new(), times: BTreeMap::new(), buf: Vec::new() }
    }

    /// Copies the entry at a place of `from` to the clean path `to`; a directory without what is in it.
    pub(crate) fn copy(&mut self, from: &Context, at: usize, to: &[u8]) -> Result<()> {
        if self.cancel.is_off() {
            return Err(Error::Cancelled);
        }
        let entry = from.tree().get(at);
        let entry = entry.ok_or_else(|| Error::Internal("a copy of what is not in its tree".into()))?;
        let item = Item { from, at, entry, to };
        let (parent, name) = split(to);
        let dir = self.parent(parent)?;
        if entry.kind == EntryKind::Dir {
            return self.directory(&dir, name, &item);
        }
        self.clear(&dir, name, to)?;
        if self.link(&dir, name, &item)? {
            return Ok(());
        }
        match entry.kind {
            EntryKind::File => self.file(&dir, name, &item),
            EntryKind::Symlink => self.symlink(&dir, name, &item),
            EntryKind::Fifo => self.special(&dir, name, &item, FileType::Fifo, 0),
            EntryKind::Char(major, minor) => {
                self.special(&dir, name, &item, FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            EntryKind::Block(major, minor) => {
                self.special(&dir, name, &item, FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
            EntryKind::Dir => Ok(()),
        }
    }

    /// What a source holds goes into the directory `to`, which is made if need be. As in BuildKit it looks like every
    /// directory that a copy makes, but for its time, which is the source's even if it was there.
    pub(crate) fn merge(&mut self, to: &[u8], time: Option<Time>) -> Result<()> {
        self.parent(to)?;
        if let Some(time) = time {
            self.times.insert(to.to_vec(), timespec(time));
        }
        Ok(())
    }

    /// From here on another source is copied: what has several names in two sources are two files.
    pub(crate) fn next_source(&mut self) {
        self.links.clear();
    }

    /// Makes a file of given bytes.
    pub(crate) fn write(&mut self, to: &[u8], content: &[u8]) -> Result<()> {
        let (parent, name) = split(to);
        let dir = self.parent(parent)?;
        self.clear(&dir, name, to)?;
        let mut file = File::from(create(&dir, name, to)?);
        file.write_all(content).context(|| format!("write {}", show(to)))?;
        let (uid, gid) = self.look.owner.unwrap_or((0, 0));
        let mtime = Timespec { tv_sec: self.look.stamp, tv_nsec: 0 };
        set_look(file.as_fd(), to, (uid, gid), self.look.mode(0o644, false), mtime)
    }

    /// Who owns what is copied, if not who owned it before.
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        self.look.owner
    }

    /// Makes a directory with those that lead to it; one that is there stays as it is.
    pub(crate) fn make_dir(&mut self, to: &[u8]) -> Result<OwnedFd> {
        // What copied files get, it does not.
        let mode = self.look.mode.take();
        let made = self.parent(to);
        self.look.mode = mode;
        made
    }

    /// The end: directories get their times.
    pub(crate) fn finish(self) -> Result<()> {
        // The deepest first: only what is below changes a directory.
        for (to, time) in self.times.iter().rev() {
            let dir = self.to.open_file(path(to), OFlags::RDONLY | OFlags::DIRECTORY, Bits::empty())?;
            rustix::fs::futimens(&dir, &both(*time)).context(|| format!("set times of {}", show(to)))?;
        }
        Ok(())
    }

    /// The directory `to`; what is missing of it is made. Links that lead to it are followed, inside the tree.
    fn parent(&mut self, to: &[u8]) -> Result<OwnedFd> {
        if let Ok(dir) = self.to.open_dir(path(to)) {
            self.keep_time(to)?;
            return Ok(dir);
        }
        let mut at = Vec::new();
        for part in to.split(|&b| b == b'/').filter(|p| !p.is_empty()) {
            let above = at.clone();
            if !at.is_empty() {
                at.push(b'/');
            }
            at.extend_from_slice(part);
            match self.to.open_dir(path(&at)) {
                Ok(_) => continue,
                Err(e) if e.errno() == Some(Errno::NOENT.raw_os_error()) => {}
                Err(e) if e.errno() == Some(Errno::NOTDIR.raw_os_error()) => {
                    return Err(in_the_way(&at, false));
                }
                Err(e) => return Err(e.into()),
            }
            self.keep_time(&above)?;
            let dir = self.to.mkdir_all(path(&at), Bits::from_raw_mode(0o700))?;
            let (uid, gid) = self.look.owner.unwrap_or((0, 0));
            rustix::fs::fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .context(|| format!("chown {}", show(&at)))?;
            // Also where it can then not be entered, as in BuildKit; clauses say nothing of what was not there.
            let mode = if let Some(Mode::Octal(mode)) = self.look.mode { mode } else { 0o755 };
            rustix::fs::fchmod(&dir, Bits::from_raw_mode(mode)).context(|| format!("chmod {}", show(&at)))?;
            self.times.insert(at.clone(), Timespec { tv_sec: self.look.stamp, tv_nsec: 0 });
        }
        Ok(self.to.open_dir(path(to))?)
    }

    /// A directory that is there keeps the time that it has.
    fn keep_time(&mut self, to: &[u8]) -> Result<()> {
        if !self.times.contains_key(to) {
            let dir = self.to.open_dir(path(to))?;
            let stat = rustix::fs::fstat(&dir).context(|| format!("stat {}", show(to)))?;
            self.times.insert(to.to_owned(), mtime(&stat));
        }
        Ok(())
    }

    fn directory(&mut self, dir: &OwnedFd, name: &OsStr, item: &Item<'_>) -> Result<()> {
        match rustix::fs::mkdirat(dir, name, Bits::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::io(format!("make directory {}", show(item.to)), e)),
        }
        // Without following: a link where a directory is to go is in the way.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::openat(dir, name, flags, Bits::empty()).map_err(|e| match e {
            Errno::NOTDIR | Errno::LOOP => in_the_way(item.to, false),
            e => Error::io(format!("open directory {}", show(item.to)), e),
        })?;
        let time = timespec(item.entry.mtime);
        set_look(opened.as_fd(), item.to, self.owner_of(item), self.look.mode(item.entry.mode, true), time)?;
        set_attributes(item, opened.as_fd())?;
        self.times.insert(item.to.to_vec(), time);
        Ok(())
    }

    fn file(&mut self, dir: &OwnedFd, name: &OsStr, item: &Item<'_>) -> Result<()> {
        let source = item.from.open_file(item.at)?;
        let mut file = File::from(create(dir, name, item.to)?);
        self.content(&source, &mut file).context(|| format!("copy {}", show(&item.entry.path)))?;
        let (uid, gid) = self.owner_of(item);
        // Attributes first where the owner clears capabilities, times last.
        rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .context(|| format!("chown {}", show(item.to)))?;
        set_attributes(item, file.as_fd())?;
        rustix::fs::fchmod(&file, Bits::from_raw_mode(self.look.mode(item.entry.mode, false)))
            .context(|| format!("chmod {}", show(item.to)))?;
        rustix::fs::futimens(&file, &both(timespec(item.entry.mtime)))
            .context(|| format!("set times of {}", show(item.to)))
    }

    fn owner_of(&self, item: &Item<'_>) -> (u32, u32) {
        self.look.owner.unwrap_or((item.entry.uid, item.entry.gid))
    }

    /// Shares the blocks where the file system can, lets the kernel copy where it will, else copies.
    fn content(&mut self, source: &File, file: &mut File) -> std::io::Result<()> {
        if rustix::fs::ioctl_ficlone(&*file, source).is_ok() {
            return Ok(());
        }
        loop {
            match rustix::fs::copy_file_range(source, None, &*file, None, PIECE) {
                Ok(0) => return Ok(()),
                Ok(_) if self.cancel.is_off() => return Err(Errno::CANCELED.into()),
                Ok(_) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => break,
                Err(e) => return Err(e.into()),
            }
        }
        self.buf.resize(256 << 10, 0);
        let mut source = source;
        loop {
            let n = source.read(&mut self.buf)?;
            if n == 0 {
                return Ok(());
            }
            file.write_all(self.buf.get(..n).unwrap_or_default())?;
        }
    }

    /// What has several names in the source has several names in the tree.
    fn link(&mut self, dir: &OwnedFd, name: &OsStr, item: &Item<'_>) -> Result<bool> {
        let Some(twin) = item.entry.twin else { return Ok(false) };
        let Some(first) = self.links.get(&twin) else {
            self.links.insert(twin, item.to.to_vec());
            return Ok(false);
        };
        let (parent, last) = split(first);
        let from = self.to.open_dir(path(parent))?;
        rustix::fs::linkat(&from, last, dir, name, AtFlags::empty())
            .context(|| format!("link {}", show(item.to)))?;
        Ok(true)
    }

    fn symlink(&self, dir: &OwnedFd, name: &OsStr, item: &Item<'_>) -> Result<()> {
        rustix::fs::symlinkat(path(&item.entry.link), dir, name)
            .context(|| format!("make link {}", show(item.to)))?;
        self.named_look(dir, name, item)
    }

    fn special(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        item: &Item<'_>,
        kind: FileType,
        device: u64,
    ) -> Result<()> {
        rustix::fs::mknodat(dir, name, kind, Bits::from_raw_mode(0o600), device)
            .context(|| format!("make {}", show(item.to)))?;
        self.named_look(dir, name, item)?;
        rustix::fs::chmodat(
            dir,
            name,
            Bits::from_raw_mode(self.look.mode(item.entry.mode, false)),
            AtFlags::empty(),
        )
        .context(|| format!("chmod {}", show(item.to)))
    }

    /// Owner and times of what cannot be opened.
    fn named_look(&self, dir: &OwnedFd, name: &OsStr, item: &Item<'_>) -> Result<()> {
        let (uid, gid) = self.owner_of(item);
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("chown {}", show(item.to)))?;
        rustix::fs::utimensat(dir, name, &both(timespec(item.entry.mtime)), AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("set times of {}", show(item.to)))
    }

    /// Removes what stands where something is to go; a directory is in the way.
    fn clear(&self, dir: &OwnedFd, name: &OsStr, to: &[u8]) -> Result<()> {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => Err(in_the_way(to, true)),
            Err(e) => Err(Error::io(format!("replace {}", show(to)), e)),
        }
    }
}

/// Gives a copy the attributes that reach layers.
fn set_attributes(item: &Item<'_>, to: BorrowedFd<'_>) -> Result<()> {
    for (name, value) in item.from.attributes(item.at)? {
        match rustix::fs::fsetxattr(to, name.as_slice(), &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(Error::io(format!("set attributes of {}", show(item.to)), e)),
        }
    }
    Ok(())
}

fn create(dir: &OwnedFd, name: &OsStr, to: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Bits::from_raw_mode(0o600))
        .context(|| format!("create {}", show(to)))
}

fn set_look(fd: BorrowedFd<'_>, to: &[u8], owner: (u32, u32), mode: u32, time: Timespec) -> Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
        .context(|| format!("chown {}", show(to)))?;
    rustix::fs::fchmod(fd, Bits::from_raw_mode(mode)).context(|| format!("chmod {}", show(to)))?;
    rustix::fs::futimens(fd, &both(time)).context(|| format!("set times of {}", show(to)))
}

fn in_the_way(to: &[u8], directory: bool) -> Error {
    Error::Invalid(if directory {
        format!("cannot replace the directory /{} with a file", show(to))
    } else {
        format!("cannot copy to /{}: it is not a directory", show(to))
    })
}

fn mtime(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() }
}

fn both(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

fn split(to: &[u8]) -> (&[u8], &OsStr) {
    match to.iter().rposition(|&b| b == b'/') {
        Some(at) => {
            (to.get(..at).unwrap_or_default(), OsStr::from_bytes(to.get(at + 1..).unwrap_or_default()))
        }
        None => (b"", OsStr::from_bytes(to)),
    }
}

/// As the kernel takes it.
pub(crate) fn path(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Text for messages.
pub(crate) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
