//! UNIX sockets below paths of any length: `sun_path` has 108 bytes, so the directory is opened
//! and named through procfs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// The name of a descriptor of this process, for calls that know only paths.
#[must_use]
pub fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Listens on `path`. The socket has `mode` before anyone can connect; what stands there must have
/// been removed before.
///
/// # Errors
/// As bind(2); `EADDRINUSE` if something is at the path.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener> {
    let action = || format!("listen on {}", path.display());
    let (dir, short) = shorten(path).context(action)?;
    let listener = UnixListener::bind(&short).context(action)?;
    // bind(2) obeys the umask; connections are only possible when the mode has been set, because a
    // caller's directory is private until then or its umask at least as strict.
    if let Err(e) = rustix::fs::chmod(&short, Mode::from_raw_mode(mode)) {
        let _ = rustix::fs::unlink(&short);
        return Err(Error::new(action(), e));
    }
    drop(dir);
    Ok(listener)
}

/// Connects to `path`.
///
/// # Errors
/// As connect(2).
pub fn connect(path: &Path) -> Result<UnixStream> {
    let action = || format!("connect to {}", path.display());
    let (dir, short) = shorten(path).context(action)?;
    let stream = UnixStream::connect(&short).context(action)?;
    drop(dir);
    Ok(stream)
}

/// The path through a descriptor of its directory, which must stay open while it is used.
fn shorten(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = fd_path(dir.as_fd()).join(name);
    Ok((dir, short))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn long_paths_work() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("s.sock");
        let listener = bind(&path, 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let _client = connect(&path).unwrap();
        listener.accept().unwrap();
        assert!(bind(&path, 0o600).is_err());
    }
}
