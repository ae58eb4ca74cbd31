//! What is written down about a container's end.

use crate::fd::{AsFd, OwnedFd};
use crate::os::{self, Errno};
use crate::prelude::*;
use alloc::ffi::CString;

use longshore_monitor::proto::Exit;

/// Whether the cgroup's counter of out-of-memory kills is above zero.
pub(crate) fn out_of_memory(file: &OwnedFd) -> bool {
    let mut buf = [0; 512];
    let n = os::pread(file, &mut buf).unwrap_or(0);
    buf[..n]
        .split(|b| *b == b'\n')
        .filter_map(|line| line.strip_prefix(b"oom_kill "))
        .any(|count| count != b"0")
}

/// Writes the exit file beside its name, then renames it: whoever sees it sees all of it. One line:
/// code, signal, out of memory (0 or 1), nanoseconds since 1970. A failure leaves nothing.
pub(crate) fn write(dir: &OwnedFd, name: &CString, exit: &Exit) -> Result<(), Errno> {
    let line = format!("{} {} {} {}\n", exit.code, exit.signal, u8::from(exit.oom), exit.finished_ns);
    let temp = CString::new([name.as_bytes(), b".tmp"].concat()).map_err(|_| libc::EINVAL)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
    let written = os::open_at(Some(dir.as_fd()), &temp, flags, 0o600)
        .and_then(|file| os::write_all(file, line.as_bytes()))
        .and_then(|()| os::rename_at(dir, &temp, name));
    if written.is_err() {
        let _ = os::unlink_at(dir, &temp);
    }
    written
}
