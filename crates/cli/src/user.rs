//! Where an ordinary user's daemon has what does not outlive a boot; its clients look there, too.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// `XDG_RUNTIME_DIR`; without it what systemd would have made, else a directory in /tmp, which is made. It is nobody's
/// but this user's.
///
/// # Errors
/// When that in /tmp is somebody else's.
pub fn runtime_dir() -> Result<PathBuf, String> {
    let uid = rustix::process::geteuid().as_raw();
    let named = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    // What `su` leaves in the environment is another user's.
    let there = named.into_iter().chain([PathBuf::from(format!("/run/user/{uid}"))]);
    if let Some(dir) = there.into_iter().find(|dir| dir.is_absolute() && is_private(dir, uid)) {
        return Ok(dir);
    }
    let dir = PathBuf::from(format!("/tmp/longshore-{uid}"));
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(format!("cannot make {}: {e}", dir.display())),
        _ if is_private(&dir, uid) => Ok(dir),
        _ => Err(format!(
            "{} is not yours alone, and XDG_RUNTIME_DIR names no directory of yours: set it to one (mode 0700)",
            dir.display()
        )),
    }
}

/// Whether it is a directory that nobody else may change.
fn is_private(dir: &Path, uid: u32) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == uid && m.mode() & 0o022 == 0)
}
