//! Whether a whole copy of a tree still has what it took over from the tree below: everything that its own layer says
//! nothing of. For drivers that copy.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use longshore_sys::root::Root;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::index::{Index, IndexKind};
use super::tree::{join, open_beneath, reopen, show, split};
use crate::snapshot::tree::{Place, is_dir, names, os, stat_at};
use crate::tar::EntryKind;
use crate::{Error, IoContext, Result};

/// Differences that are told.
const MAX_TOLD: usize = 5;
const CHUNK: usize = 256 << 10;

/// What `dir` lacks of `below`, has otherwise, or has too much, in words; the first few. Where the layer's own paths lead
/// through links, it cannot be told which files are its, and nothing is said.
///
/// # Errors
/// When a tree cannot be read.
pub(crate) fn inherited(dir: &Path, below: &Path, index: &Index) -> Result<Vec<String>> {
    let root = Root::open(dir)?;
    let mut seen = HashSet::new();
    for entry in index.iter() {
        let (parent, _) = split(entry.path);
        if seen.insert(parent.to_vec())
            && matches!(
                open_beneath(root.fd(), parent, OFlags::PATH | OFlags::DIRECTORY),
                Err(Errno::LOOP | Errno::NOTDIR)
            )
        {
            return Ok(Vec::new());
        }
    }
    let mut compare = Compare { index, implied: implied(index), root, told: Vec::new() };
    compare.taken_over(below)?;
    if compare.told.len() < MAX_TOLD {
        compare.added(dir, below)?;
    }
    Ok(compare.told)
}

/// Directories that are there for what the layer has in them.
fn implied(index: &Index) -> HashSet<&[u8]> {
    let parents = |path| std::iter::successors(Some(split(path).0), |p| (!p.is_empty()).then(|| split(p).0));
    index.iter().flat_map(|e| parents(e.path)).filter(|p| !p.is_empty()).collect()
}

struct Compare<'a> {
    index: &'a Index,
    implied: HashSet<&'a [u8]>,
    root: Root,
    told: Vec<String>,
}

impl Compare<'_> {
    fn tell(&mut self, path: &[u8], what: &str) {
        if self.told.len() < MAX_TOLD {
            self.told.push(format!("{}: {what}", show(path)));
        }
    }

    /// What the layer says of a path: nothing, that it has a directory there, or something else.
    fn said(&self, path: &[u8]) -> Said {
        let mut said = Said::default();
        for entry in self.index.get(path) {
            match entry.kind {
                IndexKind::Entry(EntryKind::Dir) => said.dir = true,
                IndexKind::Opaque => said.opaque = true,
                _ => said.other = true,
            }
        }
        said
    }

    /// Everything of the tree below that the layer leaves alone.
    fn taken_over(&mut self, below: &Path) -> Result<()> {
        let mut todo = vec![(Place::root(below)?, Vec::new())];
        while let Some((place, path)) = todo.pop() {
            if self.said(&path).opaque {
                continue;
            }
            let Some(here) = place.open()? else { continue };
            for (name, _) in names(&here)? {
                if self.told.len() == MAX_TOLD {
                    return Ok(());
                }
                let Some(stat) = stat_at(&here, &name)? else { continue };
                let path = join(&path, os(&name).as_bytes());
                let said = self.said(&path);
                if said.other {
                    continue;
                }
                let same = self.compare(&here, &name, &stat, &path, said.dir)?;
                if same && is_dir(&stat) {
                    todo.push((place.child(&here, &name)?, path));
                }
            }
        }
        Ok(())
    }

    /// Compares one entry; true if it is the same.
    fn compare(
        &mut self,
        here: &OwnedFd,
        name: &std::ffi::CStr,
        old: &Stat,
        path: &[u8],
        described: bool,
    ) -> Result<bool> {
        let kind = FileType::from_raw_mode(old.st_mode);
        // A copy leaves sockets out.
        if kind == FileType::Socket {
            return Ok(true);
        }
        let fd = match open_beneath(self.root.fd(), path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.tell(path, "is not there");
                return Ok(false);
            }
            Err(e) => return Err(Error::io(format!("open {}", show(path)), e)),
        };
        let new = rustix::fs::fstat(&fd).context(|| format!("stat {}", show(path)))?;
        if FileType::from_raw_mode(new.st_mode) != kind {
            self.tell(path, "is another kind of file than below");
            return Ok(false);
        }
        if described {
            return Ok(true);
        }
        let look =
            |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev, if is_dir(s) { 0 } else { s.st_size });
        if look(&new) != look(old) {
            self.tell(path, "is not like the one below (mode, owner or size)");
            return Ok(false);
        }
        let same = match kind {
            FileType::RegularFile => same_bytes(here, name, &fd, path)?,
            FileType::Symlink => {
                let link = |at: &OwnedFd, name: &std::ffi::CStr| {
                    rustix::fs::readlinkat(at, name, Vec::new()).context(|| format!("read {}", show(path)))
                };
                link(here, name)? == link(&fd, c"")?
            }
            _ => true,
        };
        if !same {
            self.tell(path, "has other contents than below");
        }
        Ok(same)
    }

    /// What neither the layer nor the tree below has.
    fn added(&mut self, dir: &Path, below: &Path) -> Result<()> {
        let old = Root::open(below)?;
        let mut todo = vec![(Place::root(dir)?, Vec::new())];
        while let Some((place, path)) = todo.pop() {
            let Some(here) = place.open()? else { continue };
            for (name, _) in names(&here)? {
                let Some(stat) = stat_at(&here, &name)? else { continue };
                let path = join(&path, os(&name).as_bytes());
                let said = self.said(&path);
                let known =
                    said.dir || said.other || (is_dir(&stat) && self.implied.contains(path.as_slice()));
                if !known
                    && matches!(
                        open_beneath(old.fd(), &path, OFlags::PATH | OFlags::NOFOLLOW),
                        Err(Errno::NOENT)
                    )
                {
                    self.tell(&path, "is not of the layer, nor below");
                } else if is_dir(&stat) {
                    todo.push((place.child(&here, &name)?, path));
                }
                if self.told.len() == MAX_TOLD {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Said {
    dir: bool,
    opaque: bool,
    other: bool,
}

fn same_bytes(here: &OwnedFd, name: &std::ffi::CStr, new: &OwnedFd, path: &[u8]) -> Result<bool> {
    let action = || format!("read {}", show(path));
    let old =
        rustix::fs::openat(here, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let (mut old, mut new) = (File::from(old.context(action)?), reopen(new.as_fd()).context(action)?);
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let n = old.read(&mut a).context(action)?;
        if n == 0 {
            return Ok(new.read(&mut b).context(action)? == 0);
        }
        match new.read_exact(&mut b[..n]) {
            Ok(()) if a[..n] == b[..n] => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(Error::io(action(), e)),
        }
    }
}
