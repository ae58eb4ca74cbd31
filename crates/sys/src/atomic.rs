//! Files that are there completely or not at all.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Writes `bytes` to a temporary name in `dir` and renames it to `name`. With `sync`, both the
/// file and the directory are on disk when this returns.
///
/// # Errors
/// When writing fails; the temporary file is then gone again.
pub fn write_atomic(
    dir: impl AsFd,
    name: impl AsRef<OsStr>,
    bytes: &[u8],
    mode: Mode,
    sync: bool,
) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = name.as_ref();
    let action = || format!("write {}", name.to_string_lossy());
    if name.is_empty() || name == "." || name == ".." || name.as_encoded_bytes().contains(&b'/') {
        return Err(Error::new(action(), Errno::INVAL));
    }
    let temp = format!(".tmp-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(&dir, &temp, flags, mode).context(action)?;
    let done = (|| {
        // The mode as asked for, whatever the umask is.
        rustix::fs::fchmod(&fd, mode)?;
        let mut file = File::from(fd);
        file.write_all(bytes)?;
        if sync {
            file.sync_all()?;
        }
        rustix::fs::renameat(&dir, &temp, &dir, name)?;
        if sync {
            rustix::fs::fsync(&dir)?;
        }
        std::io::Result::Ok(())
    })();
    if done.is_err() {
        let _ = rustix::fs::unlinkat(&dir, &temp, AtFlags::empty());
    }
    done.context(action)
}

/// [`write_atomic`] for a path of the host.
///
/// # Errors
/// As [`write_atomic`]; `EINVAL` for a path without a name.
pub fn write_atomic_path(path: &Path, bytes: &[u8], mode: Mode, sync: bool) -> Result<()> {
    let action = || format!("write {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::new(action(), Errno::INVAL))?;
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, parent, flags, Mode::empty()).context(action)?;
    write_atomic(dir, name, bytes, mode, sync)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomic_path(&path, b"a long first text", Mode::from_raw_mode(0o666), true).unwrap();
        write_atomic_path(&path, b"short", Mode::from_raw_mode(0o604), false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o604);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let fd = File::open(dir.path()).unwrap();
        assert!(write_atomic(&fd, "a/b", b"", Mode::empty(), false).is_err());
        std::fs::create_dir(dir.path().join("d")).unwrap();
        assert!(write_atomic(&fd, "d", b"", Mode::empty(), false).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
