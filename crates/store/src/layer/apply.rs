//! Unpacking a layer.
//!
//! The directory is private to the call. As with Docker, the header of a hard link speaks of the
//! file that it links to: where the two differ, the last one holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::Crc;
use longshore_oci::Digest;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::compress::{Compression, decode};
use super::index::IndexKind;
use super::index_writer::IndexWriter;
use super::recipe::RecipeWriter;
use super::tree::{Dir, Tree, clean, file_type, join, names, open_beneath, open_child, show, split};
use super::{OPAQUE_NAME, WHITEOUT_META, WHITEOUT_PREFIX, WhiteoutFormat, is_overlay_xattr};
use crate::error::{Error, IoContext, Result};
use crate::tar::{Entry, EntryKind, Limits, RawSink, Reader, Time};

/// Bytes from which on a file is large enough to be sent to the disk by itself.
const LARGE: u64 = 1 << 20;

/// How a layer is unpacked.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// What deletions become.
    pub whiteouts: WhiteoutFormat,
    /// What is accepted at most.
    pub limits: Limits,
    /// Write a recipe here, to rebuild the tar with.
    pub recipe: Option<PathBuf>,
    /// Write a file index here.
    pub index: Option<PathBuf>,
    /// Wait until all is on disk.
    pub sync: bool,
    /// Send large files on their way to the disk as they are written: a sync comes afterwards.
    pub writeback: bool,
    /// Leave out devices: a user namespace cannot make them.
    pub skip_devices: bool,
    /// Unpack below this directory of the tree; the tree stays the root for links.
    pub below: Vec<u8>,
    /// Refuse to replace a directory by something else, and the other way round.
    pub keep_kinds: bool,
    /// The last entry may lack its padding.
    pub open_end: bool,
    /// Everything belongs to this user and group, whatever the archive says.
    pub owner: Option<(u32, u32)>,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The bytes of the tar.
    pub tar_size: u64,
    /// The bytes of all regular files and of the targets of all links, as Docker counts the size of a layer.
    pub size: u64,
    /// Entries of the tar.
    pub entries: u64,
    /// How the tar came.
    pub compression: Compression,
    /// The digest of the bytes as they came.
    pub compressed: Digest,
    /// Their number.
    pub compressed_size: u64,
}

/// Unpacks a tar, compressed or not, into the directory `dir`. On failure the directory holds a
/// part of the layer and is to be deleted.
///
/// # Errors
/// `Corrupt` and `Invalid` for archives that are malformed or would leave the directory,
/// `TooLarge` over a limit.
pub fn apply<R: Read + Send>(dir: &Path, source: R, options: &ApplyOptions) -> Result<Applied> {
    let tree = Tree::open(dir, options.whiteouts == WhiteoutFormat::Remove)?;
    let mut job = Apply {
        tree,
        options,
        recipe: options.recipe.as_deref().map(RecipeWriter::create).transpose()?,
        index: options.index.is_some().then(IndexWriter::default),
        own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        dir_times: BTreeMap::new(),
        path: Vec::new(),
        size: 0,
        entries: 0,
    };
    let ((), hashes) = decode(source, &options.limits, |decoded| job.run(decoded))?;
    job.set_dir_times()?;
    if let Some(recipe) = job.recipe.take() {
        recipe.finish(&hashes.uncompressed, hashes.uncompressed_size, options.sync)?;
    }
    if let (Some(index), Some(path)) = (job.index.take(), &options.index) {
        // Where layers share a directory, one that was there already is a lower layer's.
        let implied = (options.whiteouts != WhiteoutFormat::Remove).then_some(job.own);
        index.write(path, implied, options.sync)?;
    }
    if options.sync {
        rustix::fs::syncfs(job.tree.root().fd()).context(|| format!("sync {}", dir.display()))?;
    }
    Ok(Applied {
        diff_id: hashes.uncompressed,
        tar_size: hashes.uncompressed_size,
        size: job.size,
        entries: job.entries,
        compression: hashes.compression,
        compressed: hashes.compressed,
        compressed_size: hashes.compressed_size,
    })
}

struct Apply<'a> {
    tree: Tree,
    options: &'a ApplyOptions,
    recipe: Option<RecipeWriter>,
    index: Option<IndexWriter>,
    /// The owner that new files have by themselves.
    own: (u32, u32),
    /// Times of directories, set at the end because every new entry changes them.
    dir_times: BTreeMap<Vec<u8>, Time>,
    path: Vec<u8>,
    size: u64,
    entries: u64,
}

/// The recipe, if one is written.
struct Sink<'a>(&'a mut Option<RecipeWriter>);

impl RawSink for Sink<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), |recipe| recipe.raw(bytes))
    }
}

impl Apply<'_> {
    fn run(&mut self, source: impl BufRead) -> Result<()> {
        let mut reader =
            Reader::new(source, self.options.limits.clone()).with_open_end(self.options.open_end);
        let mut entry = Entry::default();
        let mut path = std::mem::take(&mut self.path);
        while reader.next_entry(&mut entry, &mut Sink(&mut self.recipe))? {
            self.entries += 1;
            clean(&entry.path, &mut path)?;
            if let Some((uid, gid)) = self.options.owner {
                (entry.uid, entry.gid) = (uid, gid);
            }
            if !self.options.below.is_empty() {
                if path.is_empty() {
                    // The directory that is unpacked into keeps its own look.
                    continue;
                }
                path = join(&self.options.below, &path);
            }
            self.entry(&path, &entry, &mut reader)?;
        }
        self.path = path;
        Ok(())
    }

    fn entry<S: BufRead>(&mut self, path: &[u8], entry: &Entry, reader: &mut Reader<S>) -> Result<()> {
        if path.is_empty() {
            return self.root_entry(entry);
        }
        let (parent, name) = split(path);
        if self.options.whiteouts == WhiteoutFormat::Literal {
            return self.plain_entry(path, parent, name, entry, reader);
        }
        if parent.split(|&b| b == b'/').any(|part| part.starts_with(WHITEOUT_PREFIX)) {
            return Err(Error::Invalid(format!("layer: {}: a whiteout has no entries", show(path))));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            return self.whiteout(parent, name, hidden, entry);
        }
        self.plain_entry(path, parent, name, entry, reader)
    }

    fn plain_entry<S: BufRead>(
        &mut self,
        path: &[u8],
        parent: &[u8],
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<S>,
    ) -> Result<()> {
        if self.options.skip_devices && matches!(entry.kind, EntryKind::Char | EntryKind::Block) {
            return Ok(());
        }
        let dir = self.tree.dir(parent)?;
        if self.options.keep_kinds
            && let Some(there) = dir.stat(name)?
        {
            check_kinds(path, entry.kind == EntryKind::Dir, file_type(&there) == FileType::Directory)?;
        }
        if entry.kind != EntryKind::HardLink {
            let link = if entry.kind == EntryKind::Symlink { entry.link.as_slice() } else { b"" };
            self.note(&dir, name, IndexKind::Entry(entry.kind), entry, link)?;
        }
        match entry.kind {
            EntryKind::File => self.file(&dir, name, entry, reader),
            EntryKind::Dir => self.directory(path, &dir, name, entry),
            EntryKind::HardLink => self.hard_link(&dir, name, entry),
            EntryKind::Symlink | EntryKind::Char | EntryKind::Block | EntryKind::Fifo => {
                self.special(&dir, name, entry)
            }
        }
    }

    /// Notes what an entry does where it really goes.
    fn note(&mut self, dir: &Dir, name: &[u8], kind: IndexKind, entry: &Entry, link: &[u8]) -> Result<()> {
        let Some(index) = &mut self.index else { return Ok(()) };
        let size = if kind == IndexKind::Entry(EntryKind::File) { entry.size } else { 0 };
        index.add(&dir.child(name), kind, entry, link, size)
    }

    fn note_dir(&mut self, dir: &Dir, kind: IndexKind, entry: &Entry) -> Result<()> {
        let Some(index) = &mut self.index else { return Ok(()) };
        index.add(&dir.real, kind, entry, b"", 0)
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Dir {
            return Err(Error::Invalid("layer: the root is not a directory".into()));
        }
        let root = self.tree.dir(b"")?;
        self.note_dir(&root, IndexKind::Entry(EntryKind::Dir), entry)?;
        self.dir_attributes(&root, entry)
    }

    fn file<S: BufRead>(
        &mut self,
        dir: &Dir,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<S>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(&dir.fd, name, flags, Mode::from_raw_mode(0o600));
        let file = match create() {
            Err(Errno::EXIST) => {
                self.clear(dir, name)?;
                create()
            }
            done => done,
        };
        let file = File::from(file.context(|| format!("create {}", show(&dir.child(name))))?);
        if self.recipe.is_some() || self.tree.own.is_some() {
            let ino = rustix::fs::fstat(&file).context(|| "stat new file")?.st_ino;
            self.tree.adopt(ino);
            self.write(&file, ino, dir, name, entry, reader)?;
        } else {
            self.write(&file, 0, dir, name, entry, reader)?;
        }
        self.size += entry.size;
        self.attributes(file.as_fd(), dir, name, entry)
    }

    /// Writes the payload, and says to the recipe where it is.
    fn write<S: BufRead>(
        &mut self,
        file: &File,
        ino: u64,
        dir: &Dir,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<S>,
    ) -> Result<()> {
        let whole = [(0, entry.size)];
        let segments = entry.sparse.as_deref().unwrap_or(if entry.size > 0 { &whole } else { &[] });
        let path = if self.recipe.is_some() && !segments.is_empty() { dir.child(name) } else { Vec::new() };
        for &(offset, len) in segments {
            let crc = copy(reader, file, offset, len, self.recipe.is_some())
                .map_err(|e| with_path(e, dir, name))?;
            if self.options.writeback && len >= LARGE {
                longshore_sys::writeback::begin(file, offset, len);
            }
            if let Some(recipe) = &mut self.recipe {
                recipe.segment(&path, offset, len, crc)?;
            }
        }
        let data_end = segments.last().map_or(0, |&(offset, len)| offset + len);
        if data_end < entry.size {
            file.set_len(entry.size).context(|| format!("resize {}", show(&dir.child(name))))?;
        }
        if let Some(recipe) = &mut self.recipe
            && !segments.is_empty()
        {
            recipe.stands_in(ino, entry.size, entry.sparse.as_deref());
        }
        Ok(())
    }

    fn directory(&mut self, path: &[u8], dir: &Rc<Dir>, name: &[u8], entry: &Entry) -> Result<()> {
        let make = || rustix::fs::mkdirat(&dir.fd, name, Mode::from_raw_mode(0o700));
        let mut hides_lower = false;
        match make() {
            Err(Errno::EXIST) => match dir.stat(name)? {
                Some(stat) if file_type(&stat) == FileType::Directory => {}
                Some(stat) => {
                    // A whiteout and a directory of one name: nothing of the lower one shows.
                    hides_lower = file_type(&stat) == FileType::CharacterDevice && stat.st_rdev == 0;
                    self.clear(dir, name)?;
                    make().context(|| format!("make directory {}", show(path)))?;
                }
                None => return Err(Error::Internal(format!("{} changes while it is unpacked", show(path)))),
            },
            done => done.context(|| format!("make directory {}", show(path)))?,
        }
        let opened = Rc::new(open_child(dir, name)?);
        if hides_lower {
            self.mark_opaque(&opened)?;
        }
        if self.tree.own.is_some() {
            let stat = rustix::fs::fstat(&opened.fd).context(|| format!("stat {}", show(path)))?;
            self.tree.adopt(stat.st_ino);
        }
        self.dir_attributes(&opened, entry)?;
        self.tree.remember(path, opened);
        Ok(())
    }

    fn dir_attributes(&mut self, dir: &Dir, entry: &Entry) -> Result<()> {
        let fd = dir.as_fd();
        rustix::fs::fchown(fd, uid(entry), gid(entry)).context(|| format!("chown {}", show(&dir.real)))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
            .context(|| format!("chmod {}", show(&dir.real)))?;
        dir.setgid.set(entry.mode & 0o2000 != 0);
        set_xattrs(entry, &dir.real, |name, value| {
            rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
        })?;
        self.dir_times.insert(dir.real.clone(), entry.mtime);
        Ok(())
    }

    fn hard_link(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<()> {
        let mut target = Vec::new();
        clean(&entry.link, &mut target)?;
        if !self.options.below.is_empty() && !target.is_empty() {
            target = join(&self.options.below, &target);
        }
        let invalid = |why: &str| {
            let link = show(&dir.child(name));
            Error::Invalid(format!("layer: hard link {link} to {}: {why}", show(&entry.link)))
        };
        if target.is_empty() {
            return Err(invalid("the target is a directory"));
        }
        let (parent, last) = split(&target);
        let from = self.tree.dir(parent)?;
        if from.real == dir.real && last == name {
            return Err(invalid("it links to itself"));
        }
        let link = || rustix::fs::linkat(&from.fd, last, &dir.fd, name, AtFlags::empty());
        let done = match link() {
            Err(Errno::EXIST) => {
                self.clear(dir, name)?;
                link()
            }
            done => done,
        };
        match done {
            Ok(()) => {
                let Some(stat) = dir.stat(name)? else { return Ok(()) };
                if let Some(index) = &mut self.index {
                    let kind = IndexKind::Entry(EntryKind::HardLink);
                    let size = u64::try_from(stat.st_size).unwrap_or(0);
                    index.add(&dir.child(name), kind, entry, &from.child(last), size)?;
                }
                self.link_attributes(dir, name, &stat, entry)
            }
            Err(Errno::NOENT) => Err(invalid("the target is not in this layer")),
            Err(Errno::PERM) => Err(invalid("the target is a directory")),
            Err(e) => Err(Error::io(format!("link {}", show(&dir.child(name))), e)),
        }
    }

    /// Gives the file behind a new hard link what the link's header says, where that is something else.
    fn link_attributes(&self, dir: &Dir, name: &[u8], stat: &Stat, entry: &Entry) -> Result<()> {
        let path = || show(&dir.child(name));
        let owned = (stat.st_uid, stat.st_gid) == (entry.uid, entry.gid);
        if !owned {
            rustix::fs::chownat(&dir.fd, name, uid(entry), gid(entry), AtFlags::SYMLINK_NOFOLLOW)
                .context(|| format!("chown {}", path()))?;
        }
        if file_type(stat) == FileType::Symlink {
            return Ok(());
        }
        // A change of the owner took setuid bits away.
        if !owned || stat.st_mode & 0o7777 != entry.mode {
            rustix::fs::chmodat(&dir.fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .context(|| format!("chmod {}", path()))?;
        }
        self.named_xattrs(dir, name, entry)?;
        rustix::fs::utimensat(&dir.fd, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("set times of {}", path()))
    }

    /// Sets attributes of what cannot be opened.
    fn named_xattrs(&self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<()> {
        if entry.xattrs.is_empty() {
            return Ok(());
        }
        let at = longshore_sys::sockpath::fd_path(dir.as_fd()).join(os(name));
        set_xattrs(entry, name, |key, value| {
            rustix::fs::lsetxattr(at.as_path(), key, value, XattrFlags::empty())
        })
    }

    fn special(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<()> {
        let done = match make_special(dir, name, entry) {
            Err(Errno::EXIST) => {
                self.clear(dir, name)?;
                make_special(dir, name, entry)
            }
            done => done,
        };
        done.context(|| format!("create {}", show(&dir.child(name))))?;
        if entry.kind == EntryKind::Symlink {
            self.size += entry.link.len() as u64;
        }
        if self.tree.own.is_some()
            && let Some(stat) = dir.stat(name)?
        {
            self.tree.adopt(stat.st_ino);
        }
        let path = || show(&dir.child(name));
        rustix::fs::chownat(&dir.fd, name, uid(entry), gid(entry), AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("chown {}", path()))?;
        if entry.kind != EntryKind::Symlink {
            // Just made, and not a link.
            rustix::fs::chmodat(&dir.fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .context(|| format!("chmod {}", path()))?;
        }
        self.named_xattrs(dir, name, entry)?;
        rustix::fs::utimensat(&dir.fd, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("set times of {}", path()))
    }

    fn attributes(&self, fd: BorrowedFd<'_>, dir: &Dir, name: &[u8], entry: &Entry) -> Result<()> {
        let path = || show(&dir.child(name));
        // chown clears setuid bits and capabilities, so it comes first.
        if (entry.uid, entry.gid) != self.own || dir.setgid.get() {
            rustix::fs::fchown(fd, uid(entry), gid(entry)).context(|| format!("chown {}", path()))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).context(|| format!("chmod {}", path()))?;
        set_xattrs(entry, name, |key, value| rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty()))?;
        rustix::fs::futimens(fd, &times(entry.mtime)).context(|| format!("set times of {}", path()))
    }

    /// Removes what stands at `name` of an earlier entry or, when layers share a directory, of a
    /// lower layer.
    fn clear(&mut self, dir: &Dir, name: &[u8]) -> Result<()> {
        let Some(stat) = dir.stat(name)? else { return Ok(()) };
        if file_type(&stat) == FileType::Directory {
            let path = dir.child(name);
            self.dir_times
                .retain(|p, _| !(p.starts_with(&path) && matches!(p.get(path.len()), None | Some(b'/'))));
            if let Some(index) = &mut self.index {
                index.cleared(&path);
            }
        }
        let recipe = &mut self.recipe;
        self.tree.remove(dir, name, &stat, &mut |dir, name, stat| save(recipe, dir, name, stat.st_ino))
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8], hidden: &[u8], entry: &Entry) -> Result<()> {
        if name == OPAQUE_NAME {
            let dir = self.tree.dir(parent)?;
            self.note_dir(&dir, IndexKind::Opaque, entry)?;
            return match self.options.whiteouts {
                WhiteoutFormat::Remove => self.remove_lower(&dir),
                _ => self.mark_opaque(&dir),
            };
        }
        if name.starts_with(WHITEOUT_META) {
            // Left over from AUFS; says nothing about files.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::Invalid(format!("layer: invalid whiteout {}", show(name))));
        }
        let dir = self.tree.dir(parent)?;
        self.note(&dir, hidden, IndexKind::Whiteout, entry, b"")?;
        if self.options.whiteouts == WhiteoutFormat::Remove {
            let recipe = &mut self.recipe;
            return self
                .tree
                .remove_foreign(&dir, hidden, &mut |dir, name, stat| save(recipe, dir, name, stat.st_ino));
        }
        self.make_whiteout(&dir, hidden, entry)
    }

    fn make_whiteout(&mut self, dir: &Dir, hidden: &[u8], entry: &Entry) -> Result<()> {
        match rustix::fs::mknodat(&dir.fd, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {}
            // Whiteouts hide lower layers, not what this layer brings.
            Err(Errno::EXIST) => {
                return match dir.stat(hidden)? {
                    Some(stat) if file_type(&stat) == FileType::Directory => {
                        let sub = open_child(dir, hidden)?;
                        self.mark_opaque(&sub)
                    }
                    _ => Ok(()),
                };
            }
            Err(e) => return Err(Error::io(format!("create whiteout {}", show(&dir.child(hidden))), e)),
        }
        rustix::fs::utimensat(&dir.fd, hidden, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("set times of whiteout {}", show(&dir.child(hidden))))
    }

    fn mark_opaque(&self, dir: &Dir) -> Result<()> {
        let key = if self.options.whiteouts == WhiteoutFormat::OverlayUser {
            "user.overlay.opaque"
        } else {
            "trusted.overlay.opaque"
        };
        match self.options.whiteouts {
            WhiteoutFormat::Remove | WhiteoutFormat::Literal => Ok(()),
            _ => rustix::fs::fsetxattr(dir.as_fd(), key, b"y", XattrFlags::empty())
                .context(|| format!("mark {} opaque", show(&dir.real))),
        }
    }

    fn remove_lower(&mut self, dir: &Dir) -> Result<()> {
        for name in names(dir)? {
            let recipe = &mut self.recipe;
            self.tree
                .remove_foreign(dir, &name, &mut |dir, name, stat| save(recipe, dir, name, stat.st_ino))?;
        }
        Ok(())
    }

    fn set_dir_times(&mut self) -> Result<()> {
        for (path, time) in &self.dir_times {
            match open_beneath(self.tree.root().fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(fd) => {
                    rustix::fs::futimens(&fd, &times(*time))
                        .context(|| format!("set times of {}", show(path)))?;
                }
                // A whiteout removed it after its entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(Error::io(format!("open directory {}", show(path)), e)),
            }
        }
        Ok(())
    }
}

fn check_kinds(path: &[u8], new_is_dir: bool, old_is_dir: bool) -> Result<()> {
    match (new_is_dir, old_is_dir) {
        (false, true) => {
            Err(Error::Invalid(format!("cannot overwrite directory \"/{}\" with non-directory", show(path))))
        }
        (true, false) => {
            Err(Error::Invalid(format!("cannot overwrite non-directory \"/{}\" with directory", show(path))))
        }
        _ => Ok(()),
    }
}

/// Keeps for the recipe the bytes of a file that is about to go.
fn save(recipe: &mut Option<RecipeWriter>, dir: &Dir, name: &[u8], ino: u64) -> Result<()> {
    let Some(recipe) = recipe.as_mut().filter(|r| r.needs(ino)) else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::openat(&dir.fd, name, flags, Mode::empty())
        .context(|| format!("open {}", show(&dir.child(name))))?;
    recipe.save(ino, &File::from(fd))
}

/// Copies `len` bytes of payload to `offset`; their checksum if it is wanted.
fn copy<S: BufRead>(reader: &mut Reader<S>, file: &File, offset: u64, len: u64, sum: bool) -> Result<u32> {
    let mut crc = Crc::new();
    let mut done = 0;
    while done < len {
        let data = reader.payload()?;
        let n = usize::try_from(len - done).unwrap_or(usize::MAX).min(data.len());
        if n == 0 {
            return Err(Error::Internal("layer: payload ends before its map".into()));
        }
        if sum {
            crc.update(&data[..n]);
        }
        file.write_all_at(&data[..n], offset + done).context(|| "write file")?;
        reader.consume(n);
        done += n as u64;
    }
    Ok(crc.sum())
}

fn with_path(e: Error, dir: &Dir, name: &[u8]) -> Error {
    match e {
        Error::Io { action, source } => {
            Error::Io { action: format!("{action} {}", show(&dir.child(name))), source }
        }
        other => other,
    }
}

fn make_special(dir: &Dir, name: &[u8], entry: &Entry) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(0o600);
    let dev = rustix::fs::makedev(entry.dev.0, entry.dev.1);
    match entry.kind {
        EntryKind::Symlink => rustix::fs::symlinkat(entry.link.as_slice(), &dir.fd, name),
        EntryKind::Char => rustix::fs::mknodat(&dir.fd, name, FileType::CharacterDevice, mode, dev),
        EntryKind::Block => rustix::fs::mknodat(&dir.fd, name, FileType::BlockDevice, mode, dev),
        _ => rustix::fs::mknodat(&dir.fd, name, FileType::Fifo, mode, 0),
    }
}

/// Sets the attributes of an entry except those that steer overlayfs. As Docker does, what the
/// file system does not support is left out.
fn set_xattrs(
    entry: &Entry,
    path: &[u8],
    set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
) -> Result<()> {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| !is_overlay_xattr(name)) {
        match set(name, value) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => {
                tracing::warn!(
                    path = show(path),
                    xattr = show(name),
                    "file system does not support it: left out"
                );
            }
            // user.* is allowed on files and directories only.
            Err(Errno::PERM) if name.starts_with(b"user.") => {}
            Err(e) => return Err(Error::io(format!("set xattr {} of {}", show(name), show(path)), e)),
        }
    }
    Ok(())
}

fn uid(entry: &Entry) -> Option<Uid> {
    Some(Uid::from_raw(entry.uid))
}

fn gid(entry: &Entry) -> Option<Gid> {
    Some(Gid::from_raw(entry.gid))
}

fn times(time: Time) -> Timestamps {
    let spec = Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) };
    Timestamps { last_access: spec, last_modification: spec }
}

fn os(name: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name)
}
