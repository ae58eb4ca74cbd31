//! Work in another directory without moving the process.

use std::path::Path;

use rustix::thread::UnshareFlags;

use crate::error::{Context, Result};

/// Runs `f` on a throwaway thread whose working directory is `dir`, so that the kernel resolves relative paths (in
/// mount options, say) from there.
///
/// # Errors
/// When the thread or the directory cannot be had.
pub fn in_directory<T: Send>(dir: &Path, f: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cwd".to_owned()).stack_size(256 * 1024).spawn_scoped(
            scope,
            || {
                unshare_fs()?;
                rustix::process::chdir(dir).context(|| format!("change to {}", dir.display()))?;
                Ok(f())
            },
        );
        match thread.context(|| "start thread")?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[allow(unsafe_code)]
fn unshare_fs() -> Result<()> {
    // SAFETY: CLONE_FS gives this thread, which ends soon, a working directory and umask of its own; memory and
    // descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.context(|| "unshare working directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_there_and_only_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("here"), "x").unwrap();
        let before = std::env::current_dir().unwrap();
        assert_eq!(in_directory(dir.path(), || std::fs::read("here").unwrap()).unwrap(), b"x");
        assert_eq!(std::env::current_dir().unwrap(), before);
        assert!(in_directory(Path::new("/nonexistent"), || ()).is_err());
    }
}
