//! Files of the pool that go into directories which the copy itself made: their names are noted, and the files made once
//! the tree is no longer mounted, in the writable layer itself and on all processors. What an overlay asks of every new
//! file, whether there is one below, is answered there: nothing is.
//!
//! A file that no layer has yet is not copied: the layer gets the pool's own, which then has two names. It gets no third
//! one: two files of one tree that were one would be taken for links of each other.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use longshore_sys::root::Root;
use longshore_sys::sockpath::fd_path;
use rustix::fs::{AtFlags, Gid, Mode as Bits, OFlags, Timespec, Uid};
use rustix::io::Errno;

use super::place::{Look, both, content, create, in_the_way, path, set_attributes, show, split, timespec};
use crate::cancel::Cancel;
use crate::context::Context;
use crate::error::IoContext as _;
use crate::{Error, Result};

/// Files that a thread takes at a time.
const BATCH: usize = 64;
const MAX_THREADS: usize = 8;

/// What is still to be made.
#[derive(Debug, Default)]
pub(super) struct Later {
    /// Directories that this copy made, by where they are asked for; and where they are without a link on the way.
    made: HashMap<Vec<u8>, Option<Vec<u8>>>,
    /// Places in the context, by where the files go.
    files: BTreeMap<Vec<u8>, usize>,
}

impl Later {
    /// This directory was just made, and so is empty.
    pub(super) fn made(&mut self, dir: &[u8]) {
        self.made.insert(dir.to_vec(), None);
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Notes a file; false where it has to be made at once.
    pub(super) fn takes(&mut self, root: &Root, to: &[u8], at: usize) -> Result<bool> {
        let (parent, _) = split(to);
        let Some(real) = self.made.get_mut(parent) else { return Ok(false) };
        if real.is_none() {
            let dir = root.open_dir(path(parent))?;
            let whole = |fd: &OwnedFd| {
                std::fs::read_link(fd_path(fd.as_fd())).context(|| format!("find {}", show(parent)))
            };
            let top =
                std::fs::read_link(fd_path(root.fd())).context(|| "find the root of a tree".to_owned())?;
            let inside = whole(&dir)?;
            let inside = inside.strip_prefix(&top);
            let inside =
                inside.map_err(|_| Error::Internal(format!("/{} is not in its tree", show(parent))))?;
            *real = Some(inside.as_os_str().as_bytes().to_vec());
        }
        self.files.insert(to.to_vec(), at);
        Ok(true)
    }

    /// Something is made at `to` now. A file that was noted there gives way, unless that is a directory.
    pub(super) fn gives_way(&mut self, to: &[u8], directory: bool) -> Result<()> {
        if directory && self.files.contains_key(to) {
            return Err(in_the_way(to, false));
        }
        self.files.remove(to);
        Ok(())
    }

    /// Makes the files in the writable layer `upper`, and gives directories the times that they are to have.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub(super) fn carry_out(
        self,
        upper: &Path,
        context: &Context,
        look: &Look,
        times: &BTreeMap<Vec<u8>, Timespec>,
        cancel: &Cancel,
    ) -> Result<()> {
        let root = Root::open(upper)?;
        let mut files: Vec<(Vec<u8>, &[u8], usize)> = Vec::with_capacity(self.files.len());
        for (to, at) in &self.files {
            let (parent, name) = split(to);
            let real = self.made.get(parent).and_then(Option::as_ref);
            let real = real.ok_or_else(|| Error::Internal(format!("/{} has no directory", show(to))))?;
            files.push((real.clone(), name.as_bytes(), *at));
        }
        files.sort_unstable();
        let maker = Maker { root: &root, context, look, cancel };
        maker.all(&files)?;
        for (dir, real) in &self.made {
            if let (Some(real), Some(time)) = (real, times.get(dir)) {
                let fd = root.open_file(path(real), OFlags::RDONLY | OFlags::DIRECTORY, Bits::empty())?;
                rustix::fs::futimens(&fd, &both(*time)).context(|| format!("set times of {}", show(dir)))?;
            }
        }
        Ok(())
    }
}

struct Maker<'a> {
    root: &'a Root,
    context: &'a Context,
    look: &'a Look,
    cancel: &'a Cancel,
}

impl Maker<'_> {
    /// All files, on all processors.
    fn all(&self, files: &[(Vec<u8>, &[u8], usize)]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let mut open: Option<(&[u8], OwnedFd)> = None;
            let mut buffer = Vec::new();
            loop {
                let from = next.fetch_add(BATCH, Ordering::Relaxed);
                let Some(rest) = files.get(from..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
                for (dir, name, at) in rest.iter().take(BATCH) {
                    if self.cancel.is_off() {
                        return Err(Error::Cancelled);
                    }
                    let fd = match open.take() {
                        Some((there, fd)) if there == dir.as_slice() => fd,
                        _ => self.root.open_dir(path(dir))?,
                    };
                    self.file(&fd, OsStr::from_bytes(name), *at, &mut buffer)?;
                    open = Some((dir, fd));
                }
            }
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.min(MAX_THREADS).min(files.len() / BATCH + 1);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for other in others {
                let panicked = |_| Err(Error::Internal("a thread that copies files panicked".into()));
                done = done.and(other.join().unwrap_or_else(panicked));
            }
            done
        })
    }

    fn file(&self, dir: &OwnedFd, name: &OsStr, at: usize, buffer: &mut Vec<u8>) -> Result<()> {
        let entry = self.context.tree().get(at);
        let entry = entry.ok_or_else(|| Error::Internal("a copy of what is not in its tree".into()))?;
        let (uid, gid) = self.look.owner.unwrap_or((entry.uid, entry.gid));
        let mode = Bits::from_raw_mode(self.look.mode(entry.mode, false));
        let time = both(timespec(entry.mtime));
        let shown = || show(&entry.path);
        let give_look = |file: &File| -> Result<()> {
            // Attributes first where the owner clears capabilities, times last.
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .context(|| format!("chown {}", shown()))?;
            set_attributes(self.context, at, &entry.path, file.as_fd())?;
            rustix::fs::fchmod(file, mode).context(|| format!("chmod {}", shown()))?;
            rustix::fs::futimens(file, &time).context(|| format!("set times of {}", shown()))
        };
        if let Some(lent) = self.context.lend(at)? {
            give_look(lent.file())?;
            match lent.link(dir, name) {
                Ok(()) => return Ok(()),
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::EXIST) => {}
                Err(e) => return Err(Error::io(format!("link {}", shown()), e)),
            }
        }
        let source = self.context.open_file(at)?;
        let file = match create(dir, name, &entry.path) {
            Ok(fd) => fd,
            // What an earlier source left under this name.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(|e| match e {
                    Errno::ISDIR | Errno::PERM => in_the_way(&entry.path, true),
                    e => Error::io(format!("replace {}", shown()), e),
                })?;
                create(dir, name, &entry.path)?
            }
            Err(e) => return Err(e),
        };
        let mut file = File::from(file);
        content(&source, &mut file, buffer, self.cancel).context(|| format!("copy {}", shown()))?;
        give_look(&file)
    }
}
