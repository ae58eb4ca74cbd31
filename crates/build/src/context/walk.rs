//! Walking a tree with an ignore file applied.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use longshore_oci::Kind;
use longshore_store::tar::Time;
use longshore_sys::root::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::Options;
use super::error::{Error, Result, show};
use super::tree::{Entry, EntryKind, Tree, join};
use crate::ignore::Ignore;
use crate::pattern::{MAX_PATH, PatternList, Scope};

/// Directories that wait for a reader before more threads than one read.
const MANY: usize = 32;
/// Threads at most: they wait for locks of the kernel rather than for the disk.
const MAX_THREADS: usize = 8;

pub(super) fn walk(root: &Root, ignore: &Ignore, options: &Options) -> Result<Tree> {
    let job = Walk { root, patterns: ignore.patterns(), options, count: AtomicUsize::new(0) };
    let top = rustix::fs::fstat(root.fd()).map_err(|e| Error::io("stat", b"", e))?;
    let described = job.describe(root.fd(), b"", Vec::new(), &top)?;
    let mut top = described.ok_or_else(|| Error::io("open", b"", Errno::NOTDIR))?;
    if !options.root_from_disk {
        (top.mode, top.uid, top.gid) = (0o755, 0, 0);
    }
    let first = Task { id: 0, path: Vec::new(), scope: ignore.scope(), hidden: false };
    let mut queue = Queue { tasks: vec![first], next: 1, ..Queue::default() };
    let mut done = Vec::new();
    while queue.tasks.len() < MANY
        && let Some(task) = queue.tasks.pop()
    {
        let (id, read) = job.task(task)?;
        let read = read.map(|found| queue.add(found));
        done.push((id, read));
    }
    if !queue.tasks.is_empty() {
        done.extend(in_threads(&job, &mut queue)?);
    }
    let mut read: Vec<Option<Vec<Listed>>> = Vec::new();
    read.resize_with(queue.next, || None);
    for (id, listed) in done {
        if let Some(place) = read.get_mut(id) {
            *place = listed;
        }
    }
    Ok(Tree::new(assemble(top, read)))
}

/// A directory to read. It is not open: a tree may be deeper than there are descriptors.
struct Task {
    id: usize,
    path: Vec<u8>,
    scope: Scope,
    /// Excluded, and shown only if something in it is.
    hidden: bool,
}

/// Something in a directory.
struct Found {
    entry: Entry,
    /// For a directory to look into: what is known there, and whether it is excluded itself.
    inner: Option<(Scope, bool)>,
}

/// The same with the directory's task in place of it.
struct Listed {
    entry: Entry,
    task: Option<usize>,
    hidden: bool,
}

/// What was read by a task; nothing for a directory that is gone.
type Read = (usize, Option<Vec<Listed>>);

#[derive(Default)]
struct Queue {
    tasks: Vec<Task>,
    /// The id of the next task.
    next: usize,
    /// Tasks that are being done, and may give more.
    active: usize,
    failed: bool,
}

impl Queue {
    /// Makes tasks of directories.
    fn add(&mut self, found: Vec<Found>) -> Vec<Listed> {
        let listed = found.into_iter().map(|Found { entry, inner }| {
            let Some((scope, hidden)) = inner else { return Listed { entry, task: None, hidden: false } };
            let id = self.next;
            self.next += 1;
            self.tasks.push(Task { id, path: entry.path.clone(), scope, hidden });
            Listed { entry, task: Some(id), hidden }
        });
        listed.collect()
    }
}

fn in_threads(job: &Walk<'_>, queue: &mut Queue) -> Result<Vec<Read>> {
    let shared = (Mutex::new(std::mem::take(queue)), Condvar::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let done: Vec<Result<Vec<Read>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(|| worker(job, &shared))).collect();
        let own = worker(job, &shared);
        let panicked = |_| Err(Error::Internal("a walking thread panicked"));
        let others = workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked));
        std::iter::once(own).chain(others).collect()
    });
    *queue = shared.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut all = Vec::new();
    for part in done {
        all.extend(part?);
    }
    Ok(all)
}

fn worker(job: &Walk<'_>, (queue, wake): &(Mutex<Queue>, Condvar)) -> Result<Vec<Read>> {
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let mut done = Vec::new();
    let mut held = lock();
    loop {
        if held.failed {
            return Ok(done);
        }
        let Some(task) = held.tasks.pop() else {
            if held.active == 0 {
                return Ok(done);
            }
            held = wake.wait(held).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        held.active += 1;
        drop(held);
        let outcome = {
            let _wakes = OnPanic(queue, wake);
            job.task(task)
        };
        held = lock();
        held.active -= 1;
        held.failed |= outcome.is_err();
        let listed = outcome.map(|(id, found)| (id, found.map(|found| held.add(found))));
        wake.notify_all();
        done.push(listed?);
    }
}

/// Lets the others end, who would wait for what does not come.
struct OnPanic<'a>(&'a Mutex<Queue>, &'a Condvar);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
            self.1.notify_all();
        }
    }
}

/// Puts what was read into the order of the tree, and leaves out hidden directories in which nothing is shown.
fn assemble(top: Entry, mut read: Vec<Option<Vec<Listed>>>) -> Vec<Entry> {
    let mut out = vec![top];
    let mut take = |id: usize| read.get_mut(id).and_then(Option::take).map(Vec::into_iter);
    // The directories that lead to where we are, those held back being the innermost without a gap.
    let mut open: Vec<(Option<Entry>, std::vec::IntoIter<Listed>)> =
        take(0).into_iter().map(|inner| (None, inner)).collect();
    while let Some((_, inner)) = open.last_mut() {
        let Some(Listed { entry, task, hidden }) = inner.next() else {
            open.pop();
            continue;
        };
        let below = task.and_then(&mut take);
        if task.is_some() && below.is_none() {
            continue;
        }
        let held = if hidden {
            Some(entry)
        } else {
            let first = open.iter().rposition(|(held, _)| held.is_none()).map_or(0, |at| at + 1);
            out.extend(open.iter_mut().skip(first).filter_map(|(held, _)| held.take()));
            out.push(entry);
            None
        };
        open.extend(below.map(|below| (held, below)));
    }
    out
}

struct Walk<'a> {
    root: &'a Root,
    patterns: &'a PatternList,
    options: &'a Options,
    /// Entries so far.
    count: AtomicUsize,
}

impl Walk<'_> {
    fn task(&self, task: Task) -> Result<(usize, Option<Vec<Found>>)> {
        match self.read(&task.path, &task.scope) {
            Ok(found) => Ok((task.id, Some(found))),
            // Nobody sees it: then nobody misses what is in it.
            Err(e) if task.hidden && e.kind() == Kind::Denied => Ok((task.id, None)),
            Err(e) if task.id > 0 && is_gone(&e) => Ok((task.id, None)),
            Err(e) => Err(e),
        }
    }

    /// Reads a directory at once.
    fn read(&self, path: &[u8], scope: &Scope) -> Result<Vec<Found>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = self.open(path, flags)?;
        let failed = |e: Errno| Error::io("read directory", path, e);
        let mut found = Vec::new();
        let mut state = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                let child = self.child(&fd, path, name, entry.file_type(), scope, &mut state)?;
                if child.is_some() && self.count.fetch_add(1, Ordering::Relaxed) >= self.options.entries {
                    return Err(Error::TooLarge(format!(
                        "the context has more than {} files: exclude some with a .dockerignore file",
                        self.options.entries
                    )));
                }
                found.extend(child);
            }
        }
        found.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
        Ok(found)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        self.root
            .open_file(OsStr::from_bytes(path), flags, Mode::empty())
            .map_err(|e| Error::io("open", path, std::io::Error::from_raw_os_error(e.errno().unwrap_or(0))))
    }

    fn child(
        &self,
        dir: &OwnedFd,
        parent: &[u8],
        name: &[u8],
        kind: FileType,
        scope: &Scope,
        state: &mut Vec<u64>,
    ) -> Result<Option<Found>> {
        let may_be_dir = matches!(kind, FileType::Directory | FileType::Unknown);
        if !may_be_dir && self.patterns.matches_in(scope, name, state) {
            return Ok(None);
        }
        let known = if may_be_dir { Some(self.patterns.enter(scope, name)) } else { None };
        if known.as_ref().is_some_and(|(_, verdict)| verdict.matched && !verdict.open_below) {
            return Ok(None);
        }
        let path = join(parent, name);
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(Error::io("stat", &path, e)),
        };
        let Some(entry) = self.describe(dir.as_fd(), name, path, &stat)? else { return Ok(None) };
        let inner = match (entry.kind, known) {
            (EntryKind::Dir, Some((inner, verdict))) => Some((inner, verdict.matched)),
            // It became one after its name was read.
            (EntryKind::Dir, None) => {
                let (inner, verdict) = self.patterns.enter(scope, name);
                Some((inner, verdict.matched))
            }
            (_, Some((_, verdict))) if verdict.matched => return Ok(None),
            _ => None,
        };
        Ok(Some(Found { entry, inner }))
    }

    /// `None` for what is left out, and for what is gone.
    fn describe(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
        stat: &Stat,
    ) -> Result<Option<Entry>> {
        if path.len() >= MAX_PATH {
            let start = path.get(..64).unwrap_or(&path);
            return Err(Error::TooLarge(format!(
                "the context has a path of {} bytes ({}…): there must be less than {MAX_PATH}",
                path.len(),
                show(start)
            )));
        }
        let dev = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Dir,
            FileType::Symlink => EntryKind::Symlink,
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::Char(dev().0, dev().1),
            FileType::BlockDevice => EntryKind::Block(dev().0, dev().1),
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        let link = match kind {
            EntryKind::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
                Ok(target) => target.into_bytes(),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(e) => return Err(Error::io("read link", &path, e)),
            },
            _ => Vec::new(),
        };
        let (uid, gid) = self.options.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let size = if kind == EntryKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        Ok(Some(Entry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            size,
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            link,
            ino: stat.st_ino,
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            twin: (kind != EntryKind::Dir && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino)),
        }))
    }
}

pub(super) fn time(secs: i64, nanos: u64) -> Time {
    Time { secs, nanos: u32::try_from(nanos).unwrap_or(0) }
}

/// Removed, or replaced by something else, after its name was read.
fn is_gone(e: &Error) -> bool {
    let Error::Io { source, .. } = e else { return false };
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(|e| Some(e.raw_os_error()));
    gone.contains(&source.raw_os_error())
}
