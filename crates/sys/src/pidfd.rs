//! Processes that cannot be mistaken for others: a pidfd, and the start time as the process's identity.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::error::{Context, Error, Result};

fn to_pid(pid: u32) -> Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| Error::new(format!("process {pid}"), Errno::SRCH))
}

/// Opens process `pid`.
///
/// # Errors
/// `ESRCH` if there is none.
pub fn open(pid: u32) -> Result<OwnedFd> {
    rustix::process::pidfd_open(to_pid(pid)?, PidfdFlags::empty()).context(|| format!("open process {pid}"))
}

/// Opens process `pid` only if it started at `start` ([`start_time`]): not a later one with the same number.
///
/// # Errors
/// `ESRCH` if it is gone.
pub fn open_same(pid: u32, start: u64) -> Result<OwnedFd> {
    let fd = open(pid)?;
    // Read after opening: if the number was taken over in between, the times differ.
    if start_time(pid)? == start { Ok(fd) } else { Err(Error::new(format!("process {pid}"), Errno::SRCH)) }
}

/// When process `pid` started, in clock ticks since boot.
///
/// # Errors
/// `ENOENT` if there is none.
pub fn start_time(pid: u32) -> Result<u64> {
    number_of(pid, 22)
}

/// The session of process `pid`: the number of the process that began it.
///
/// # Errors
/// `ENOENT` if there is none; `ESRCH` if it has ended and only waits to be reaped.
pub fn session(pid: u32) -> Result<u32> {
    let action = || format!("read /proc/{pid}/stat");
    let stat = std::fs::read(format!("/proc/{pid}/stat")).context(action)?;
    if matches!(field(&stat, 3), Some("Z" | "X")) {
        return Err(Error::new(action(), Errno::SRCH));
    }
    field(&stat, 6).and_then(|t| t.parse().ok()).ok_or_else(|| Error::new(action(), Errno::INVAL))
}

fn number_of(pid: u32, nth: usize) -> Result<u64> {
    let action = || format!("read /proc/{pid}/stat");
    let stat = std::fs::read(format!("/proc/{pid}/stat")).context(action)?;
    field(&stat, nth).and_then(|t| t.parse().ok()).ok_or_else(|| Error::new(action(), Errno::INVAL))
}

/// A field of /proc/pid/stat, counted from 1 as its manual does; the name (field 2) may hold anything, so count after
/// its last `)`.
fn field(stat: &[u8], nth: usize) -> Option<&str> {
    let after = &stat[stat.iter().rposition(|b| *b == b')')? + 1..];
    std::str::from_utf8(after).ok()?.split_ascii_whitespace().nth(nth.checked_sub(3)?)
}

/// Sends a signal, real-time ones included.
///
/// # Errors
/// `ESRCH` if the process has been reaped; `EINVAL` for no signal.
#[allow(unsafe_code)]
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    // SAFETY: a plain system call with a valid descriptor; a null siginfo is allowed.
    let r = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if r == 0 {
        Ok(())
    } else {
        Err(Error::new(format!("send signal {signal}"), std::io::Error::last_os_error()))
    }
}

/// Whether the process has ended (it may not be reaped yet).
///
/// # Errors
/// As poll(2).
pub fn exited(pidfd: impl AsFd) -> Result<bool> {
    wait_exit(pidfd, Some(0))
}

/// Waits until the process ends, at most so many milliseconds; whether it has ended.
///
/// # Errors
/// As poll(2).
pub fn wait_exit(pidfd: impl AsFd, millis: Option<u32>) -> Result<bool> {
    let timeout =
        millis.map(|ms| Timespec { tv_sec: i64::from(ms / 1000), tv_nsec: i64::from(ms % 1000) * 1_000_000 });
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, timeout.as_ref()))
        .context(|| "wait for process")?;
    Ok(ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_names_with_parentheses() {
        let stat = b"7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!([3, 6, 22].map(|n| field(stat, n)), [Some("S"), Some("3"), Some("4242")]);
        assert_eq!([1, 2, 24].map(|n| field(stat, n)), [None; 3]);
        assert_eq!(field(b"nonsense", 22), None);
    }

    #[test]
    fn a_process_is_found_signalled_and_seen_to_end() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let start = start_time(child.id()).unwrap();
        let fd = open_same(child.id(), start).unwrap();
        assert!(open_same(child.id(), start + 1).is_err());
        assert!(!exited(&fd).unwrap());
        assert_eq!(session(child.id()).unwrap(), session(std::process::id()).unwrap());
        send_signal(&fd, 9).unwrap();
        assert!(wait_exit(&fd, Some(10_000)).unwrap());
        assert_eq!(session(child.id()).unwrap_err().errno(), Some(libc::ESRCH));
        child.wait().unwrap();
        assert!(send_signal(&fd, 9).is_err());
    }
}
