//! Namespaces for this process itself, while it is still a single thread: how a daemon without root gets a world in which
//! it is root.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::{Context, Error, Result};

/// Puts this process into a new user namespace. Its id maps are for somebody outside to write: `map` runs in a child
/// that stays there, and gets this process's id.
///
/// # Errors
/// When there are other threads, the kernel refuses, or `map` does.
pub fn enter_new(map: impl FnOnce(u32) -> Result<(), String>) -> Result<()> {
    alone()?;
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(|| "make pipe");
    let ((go, tell_to_go), (outcome, tell_outcome)) = (pipe()?, pipe()?);
    let Some(helper) = fork()? else {
        drop((tell_to_go, outcome));
        help(go, tell_outcome, map);
    };
    drop((go, tell_outcome));
    let done = unshare(UnshareFlags::NEWUSER, "create user namespace");
    let done = done.and_then(|()| ask(tell_to_go, outcome));
    let ended = rustix::io::retry_on_intr(|| waitpid(Some(helper), WaitOptions::empty()));
    ended.context(|| "wait for the helper that maps ids")?;
    done
}

/// The child: waits until the other is in its namespace, and says how it went.
fn help(go: OwnedFd, outcome: OwnedFd, map: impl FnOnce(u32) -> Result<(), String>) -> ! {
    let parent = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    let mut one = [0];
    let told = File::from(go).read(&mut one).is_ok_and(|n| n == 1);
    if told {
        let said = map(parent.unsigned_abs()).err().unwrap_or_default();
        // If nobody listens any more, nobody needs to know.
        let _ = File::from(outcome).write_all(said.as_bytes());
    }
    std::process::exit(0)
}

fn ask(go: OwnedFd, outcome: OwnedFd) -> Result<()> {
    let about = || "map ids";
    File::from(go).write_all(b"g").context(about)?;
    let mut said = String::new();
    File::from(outcome).read_to_string(&mut said).context(about)?;
    if said.is_empty() { Ok(()) } else { Err(Error::new(about(), std::io::Error::other(said))) }
}

/// Gives this process a mount namespace: what it mounts is seen nowhere else, what the host mounts is seen here.
///
/// # Errors
/// When there are other threads, or the kernel refuses.
pub fn unshare_mounts() -> Result<()> {
    alone()?;
    unshare(UnshareFlags::NEWNS, "create mount namespace")?;
    let down = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", down).context(|| "keep mounts to ourselves")
}

/// Enters the user and mount namespaces of somebody else.
///
/// # Errors
/// When there are other threads, or they are not this user's.
pub fn join(user: BorrowedFd<'_>, mounts: BorrowedFd<'_>) -> Result<()> {
    alone()?;
    for (ns, kind, name) in
        [(user, LinkNameSpaceType::User, "user"), (mounts, LinkNameSpaceType::Mount, "mount")]
    {
        rustix::thread::move_into_link_name_space(ns, Some(kind))
            .context(|| format!("enter {name} namespace"))?;
    }
    Ok(())
}

/// Gives the calling thread, and those that it starts from now on, a network namespace. Its loopback is down.
///
/// # Errors
/// When the kernel refuses.
pub fn unshare_network() -> Result<()> {
    unshare(UnshareFlags::NEWNET, "create network namespace")
}

/// Moves the calling thread, and those that it starts from now on, into a network namespace.
///
/// # Errors
/// When the kernel refuses.
pub fn join_network(ns: BorrowedFd<'_>) -> Result<()> {
    rustix::thread::move_into_link_name_space(ns, Some(LinkNameSpaceType::Network))
        .context(|| "enter network namespace")
}

/// Whether user ids here are not the machine's own.
#[must_use]
pub fn inside() -> bool {
    // The first namespace maps every id to itself (user_namespaces(7)).
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}

/// The kernel changes user and mount namespaces only of single threads; a fork copies only one.
fn alone() -> Result<()> {
    let about = || "change namespaces";
    let threads = std::fs::read_dir("/proc/self/task").context(about)?.count();
    if threads == 1 { Ok(()) } else { Err(Error::new(about(), Errno::INVAL)) }
}

#[allow(unsafe_code)]
fn unshare(what: UnshareFlags, action: &str) -> Result<()> {
    // SAFETY: of the flags that are passed here none takes memory or descriptors from another thread.
    unsafe { rustix::thread::unshare_unsafe(what) }.context(|| action)
}

/// `None` in the child.
#[allow(unsafe_code)]
fn fork() -> Result<Option<Pid>> {
    let parent = getpid();
    // SAFETY: the caller has made sure that this is the only thread, so that the child is whole: no lock is held by
    // a thread that it has not.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        -1 => {
            Err(Error::new(format!("fork process {}", parent.as_raw_pid()), std::io::Error::last_os_error()))
        }
        pid => Ok(Pid::from_raw(pid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_stays_where_it_is() {
        // The test's own thread is not the main one.
        let refused = enter_new(|_| Ok(())).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::EINVAL), "{refused}");
        assert!(unshare_mounts().is_err());
    }
}
