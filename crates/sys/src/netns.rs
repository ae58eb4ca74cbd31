//! Network namespaces, made and entered only on threads that end right after.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::{Context, Error, Result};

/// A new network namespace. Its loopback is down.
///
/// # Errors
/// When the kernel refuses (no right, too many namespaces).
pub fn create() -> Result<OwnedFd> {
    on_thread(|| {
        unshare_net()?;
        let file = File::open("/proc/thread-self/ns/net").context(|| "open new network namespace")?;
        Ok(OwnedFd::from(file))
    })
}

/// Runs `f` on a thread of its own that has entered the namespace.
///
/// # Errors
/// When the namespace cannot be entered; otherwise what `f` returns.
pub fn with_netns<T: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> T + Send) -> Result<T> {
    on_thread(|| {
        rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
            .context(|| "enter network namespace")?;
        Ok(f())
    })
}

/// Keeps a namespace alive by a bind mount at `path`, which is created as an empty file.
///
/// # Errors
/// When the file cannot be made or the mount is refused; the file is then removed again.
pub fn pin(netns: impl AsFd, path: &Path) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .context(|| format!("create {}", path.display()))?;
    // nsfs cannot be cloned by open_tree before 6.15, so this is a classic bind through procfs.
    let source = crate::sockpath::fd_path(netns.as_fd());
    let done = rustix::mount::mount_bind(&source, path);
    if done.is_err() {
        let _ = rustix::fs::unlink(path);
    }
    done.context(|| format!("pin network namespace at {}", path.display()))
}

/// Opens a pinned namespace.
///
/// # Errors
/// When the path is missing or is no namespace.
pub fn open(path: &Path) -> Result<OwnedFd> {
    open_file(path, OFlags::NOFOLLOW)
}

/// The namespace of the process `pid` that started at `start`, see [`crate::pidfd::start_time`].
///
/// # Errors
/// When that process is gone.
pub fn of(pid: u32, start: u64) -> Result<OwnedFd> {
    let fd = open_file(Path::new(&format!("/proc/{pid}/ns/net")), OFlags::empty())?;
    // Only now is it certain whose namespace that was.
    let process = crate::pidfd::open_same(pid, start)?;
    if crate::pidfd::exited(&process)? {
        return Err(Error::new(format!("open the network namespace of process {pid}"), Errno::SRCH));
    }
    Ok(fd)
}

fn open_file(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let action = || format!("open network namespace {}", path.display());
    let fd = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty())
        .context(action)?;
    let fs = rustix::fs::fstatfs(&fd).context(action)?;
    if fs.f_type == libc::NSFS_MAGIC { Ok(fd) } else { Err(Error::new(action(), Errno::INVAL)) }
}

/// Undoes [`pin`]; idempotent.
///
/// # Errors
/// When unmounting or removing fails for another reason than being gone already.
pub fn unpin(path: &Path) -> Result<()> {
    crate::mount::detach(path)?;
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(Error::new(format!("remove {}", path.display()), e)),
    }
}

#[allow(unsafe_code)]
fn unshare_net() -> Result<()> {
    // SAFETY: CLONE_NEWNET changes nothing that memory safety rests on (no FILES, no VM), and only
    // this thread, which ends soon.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.context(|| "create network namespace")
}

fn on_thread<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .stack_size(512 * 1024)
            .spawn_scoped(scope, f)
            .context(|| "start thread")?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_namespaces_are_made_pinned_entered_and_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns");
        let ns = create().unwrap();
        pin(&ns, &path).unwrap();
        drop(ns);
        let ns = open(&path).unwrap();
        let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let there =
            with_netns(ns.as_fd(), || std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
        assert_ne!(here, there);
        assert_eq!(here, std::fs::read_link("/proc/thread-self/ns/net").unwrap());
        unpin(&path).unwrap();
        unpin(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "no namespace").unwrap();
        assert!(open(&path).is_err());
    }
}
