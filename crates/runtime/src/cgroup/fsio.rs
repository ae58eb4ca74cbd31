//! Reading, writing and walking in cgroup file systems.

use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use longshore_sys::Context;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// The most directories that are looked at below a container's own.
const MAX_DIRS: usize = 20_000;

pub(super) fn read(path: &Path) -> longshore_sys::Result<String> {
    std::fs::read_to_string(path).context(|| format!("read {}", path.display()))
}

/// Contents of a file that need not be there.
pub(super) fn optional(path: &Path) -> longshore_sys::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        // A file of a cgroup that has just been removed says ENODEV.
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(e) => Err(longshore_sys::Error::new(format!("read {}", path.display()), e)),
    }
}

/// Writes a value with one call, as control files want it.
pub(super) fn write(path: &Path, value: &str) -> longshore_sys::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .context(|| format!("set {} to {value:?}", path.display()))
}

pub(super) fn open_dir(path: &Path) -> longshore_sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).context(|| format!("open cgroup {}", path.display()))
}

/// The number behind a key in a file of `key value` lines.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Makes the directories between the mount point and the last name of `path`.
pub(super) fn make_parents(mount: &Path, path: &Path) -> Result<()> {
    let mut dir = mount.to_owned();
    for part in path.parent().into_iter().flatten() {
        dir.push(part);
        match std::fs::create_dir(&dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(longshore_sys::Error::new(format!("make cgroup {}", dir.display()), e).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// A new v1 cpuset is empty, and with an empty one no process can enter.
pub(super) fn inherit_cpuset(mount: &Path, path: &Path) -> Result<()> {
    let mut dir = mount.to_owned();
    for part in path {
        let above = dir.clone();
        dir.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read(&dir.join(file))?.trim().is_empty() {
                let value = read(&above.join(file))?;
                write(&dir.join(file), value.trim())?;
            }
        }
    }
    Ok(())
}

/// Hands all controllers of a v2 mount down to the directory above the last name of `path`.
pub(super) fn delegate(mount: &Path, path: &Path) -> Result<()> {
    let parents: Vec<_> = path.parent().into_iter().flatten().collect();
    let own = first_own(&parents);
    let mut dir = mount.to_owned();
    for depth in 0..=parents.len() {
        if depth > 0 {
            dir.push(parents[depth - 1]);
        }
        if depth >= own {
            enable_controllers(mount, &dir)?;
        }
    }
    Ok(())
}

/// How many directories of a path belong to systemd, the mount point counted: all above a unit that
/// it has handed over. It has given that one its controllers, and would take others back.
fn first_own(parents: &[&std::ffi::OsStr]) -> usize {
    let is_unit = |name: &&std::ffi::OsStr| {
        let name = name.as_encoded_bytes();
        name.ends_with(b".scope") || name.ends_with(b".service")
    };
    parents.iter().rposition(is_unit).map_or(0, |at| at + 1)
}

fn enable_controllers(mount: &Path, dir: &Path) -> Result<()> {
    let available = read(&dir.join("cgroup.controllers"))?;
    let control = dir.join("cgroup.subtree_control");
    let enabled = read(&control)?;
    let has = |name: &str| enabled.split_whitespace().any(|e| e == name);
    for name in available.split_whitespace().filter(|name| !has(name)) {
        // One by one: a controller that cannot be had (threads with real-time priority hold back
        // `cpu`) must not take the others with it. A limit that needs it says so by itself.
        match write(&control, &format!("+{name}")) {
            Err(e) if e.errno() == Some(libc::EBUSY) && is_own(mount, dir) => {
                make_room(dir)?;
                write(&control, &format!("+{name}"))?;
            }
            Err(e) => tracing::debug!("cgroup controller {name}: {e}"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Whether this process is itself in the cgroup; other people's processes stay where they are.
fn is_own(mount: &Path, dir: &Path) -> bool {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    own.is_some_and(|own| mount.join(own.trim_start_matches('/')) == *dir)
}

/// A cgroup with processes cannot hand controllers down. When it is the one that we were put into
/// (the top of a container, or a delegated scope), everything moves one level down.
fn make_room(dir: &Path) -> Result<()> {
    let inside = dir.join("init");
    match std::fs::create_dir(&inside) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(longshore_sys::Error::new(format!("make cgroup {}", inside.display()), e).into());
        }
        _ => {}
    }
    // Processes come in meanwhile.
    for _ in 0..100 {
        let members = read(&dir.join("cgroup.procs"))?;
        if members.trim().is_empty() {
            return Ok(());
        }
        for pid in members.split_whitespace() {
            match write(&inside.join("cgroup.procs"), pid) {
                // Gone by itself.
                Err(e) if e.errno() == Some(libc::ESRCH) => {}
                done => done?,
            }
        }
    }
    Err(Error::Sys(longshore_sys::Error::new(
        format!("move processes out of cgroup {}", dir.display()),
        rustix::io::Errno::BUSY,
    )))
}

/// Directories from `top` down, parents before what is in them. What vanishes meanwhile is left out.
fn tree(top: &Path) -> longshore_sys::Result<Vec<PathBuf>> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let entries = match std::fs::read_dir(&found[next]) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                next += 1;
                continue;
            }
            Err(e) => {
                return Err(longshore_sys::Error::new(format!("list cgroup {}", found[next].display()), e));
            }
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.push(entry.path());
            }
        }
        if found.len() > MAX_DIRS {
            let action = format!("list cgroup {}: more than {MAX_DIRS} groups", top.display());
            return Err(longshore_sys::Error::new(action, rustix::io::Errno::TOOBIG));
        }
        next += 1;
    }
    Ok(found)
}

/// All processes in a group and those below it.
pub(super) fn pids_below(top: &Path) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for dir in tree(top)? {
        match optional(&dir.join("cgroup.procs")) {
            // 0 is a process that our PID namespace does not see.
            Ok(text) => {
                let numbers = text.iter().flat_map(|t| t.split_whitespace()).filter_map(|n| n.parse().ok());
                pids.extend(numbers.filter(|pid: &u32| *pid != 0));
            }
            // A threaded group: its processes are listed further up.
            Err(e) if e.errno() == Some(libc::EOPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Removes a group and those below it.
pub(super) fn remove_tree(top: &Path) -> longshore_sys::Result<()> {
    let gone = |e: &std::io::Error| e.kind() == ErrorKind::NotFound;
    match std::fs::remove_dir(top) {
        Err(e) if !gone(&e) => {}
        _ => return Ok(()),
    }
    for dir in tree(top)?.iter().rev() {
        match std::fs::remove_dir(dir) {
            Err(e) if !gone(&e) => {
                return Err(longshore_sys::Error::new(format!("remove cgroup {}", dir.display()), e));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) use longshore_sys::userns::inside as in_user_namespace;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_systemds_is_left_alone() {
        let first = |path: &str| first_own(&Path::new(path).iter().collect::<Vec<_>>());
        assert_eq!(first(""), 0);
        assert_eq!(first("longshore-1"), 0);
        assert_eq!(first("my.slice"), 0);
        assert_eq!(first("system.slice/longshore-1.scope"), 2);
        assert_eq!(first("user.slice/user-1.slice/user@1.service/app.slice/l.scope/x"), 5);
    }
}
