//! What a checkout looks like, whoever made it and when: so that the same commit gives the same layer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use longshore_build::context::{Context, Entry, EntryKind, Options};
use longshore_build::ignore::Ignore;
use longshore_build::{Error as BuildError, Result};
use longshore_sys::root::Root;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

/// Gives everything the permissions that Git has for it and the time `time`, and removes what leads from a submodule to
/// its repository, unless the repository is kept.
///
/// # Errors
/// When the system refuses.
pub(super) fn tidy(root: &Root, keep: bool, time: Option<i64>) -> Result<()> {
    let context = Context::walk(root.try_clone()?, &Ignore::default(), &Options::default())?;
    // Last things first: what is done in a directory changes its time.
    for entry in context.tree().entries().iter().rev() {
        let failed = |e: rustix::io::Errno| {
            BuildError::io(format!("tidy {}", String::from_utf8_lossy(&entry.path)), e)
        };
        if !keep && entry.name() == b".git" && entry.kind == EntryKind::File {
            let (dir, name) = root.resolve_parent(path(entry))?;
            rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).map_err(failed)?;
            continue;
        }
        set(root, entry, time, keep && is_own(entry)).map_err(|e| match e {
            Failed::Sys(e) => e.into(),
            Failed::Errno(e) => failed(e),
        })?;
    }
    Ok(())
}

enum Failed {
    Sys(longshore_sys::Error),
    Errno(rustix::io::Errno),
}

impl From<rustix::io::Errno> for Failed {
    fn from(e: rustix::io::Errno) -> Self {
        Self::Errno(e)
    }
}

impl From<longshore_sys::Error> for Failed {
    fn from(e: longshore_sys::Error) -> Self {
        Self::Sys(e)
    }
}

fn set(root: &Root, entry: &Entry, time: Option<i64>, as_it_is: bool) -> Result<(), Failed> {
    let times = time.map(|tv_sec| {
        let time = Timespec { tv_sec, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    });
    let mode = match entry.kind {
        EntryKind::Dir => 0o755,
        EntryKind::File if entry.mode & 0o111 != 0 => 0o755,
        EntryKind::File => 0o644,
        _ => {
            if let Some(times) = times {
                let (dir, name) = root.resolve_parent(path(entry))?;
                rustix::fs::utimensat(&dir, &name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            return Ok(());
        }
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let at = if entry.path.is_empty() { OsStr::new(".") } else { path(entry) };
    let file = root.open_file(at, flags, Mode::empty())?;
    if !as_it_is {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    }
    Ok(times.map_or(Ok(()), |times| rustix::fs::futimens(&file, &times))?)
}

/// Whether it is of the repository itself.
fn is_own(entry: &Entry) -> bool {
    entry.path == b".git" || entry.path.starts_with(b".git/")
}

fn path(entry: &Entry) -> &OsStr {
    OsStr::from_bytes(&entry.path)
}
