//! The daemon's pid file.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A file with this process's id, removed when dropped.
#[derive(Debug)]
pub(super) struct Pidfile(PathBuf);

impl Pidfile {
    /// Writes the file; refuses when a live process other than this one stands in it.
    pub(super) fn create(path: &Path) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        if let Some(pid) = read(path)
            && pid != std::process::id()
            && is_daemon(pid)
        {
            bail!(
                "a daemon runs already: process {pid} stands in {}; end it or choose another --pidfile",
                path.display()
            );
        }
        let temp = path.with_extension("pid.tmp");
        let mut file = fs::File::create(&temp).with_context(|| format!("cannot write {}", temp.display()))?;
        write!(file, "{}", std::process::id())?;
        fs::rename(&temp, path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if read(&self.0) == Some(std::process::id()) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

fn read(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether `pid` is alive and runs this program; a number left by an earlier boot may be anyone's.
fn is_daemon(pid: u32) -> bool {
    let exe = |p: &str| fs::read_link(format!("/proc/{p}/exe")).ok();
    match (exe(&pid.to_string()), exe("self")) {
        (Some(theirs), Some(ours)) => program(&theirs) == program(&ours),
        _ => false,
    }
}

/// The name of a program, also of one whose file was replaced while it runs (proc_pid_exe(5)).
fn program(exe: &Path) -> Option<&[u8]> {
    let name = exe.file_name()?.as_bytes();
    Some(name.strip_suffix(b" (deleted)").unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_was_upgraded_meanwhile_is_one() {
        let of = |exe: &'static str| program(Path::new(exe)).expect("a name");
        assert_eq!(of("/usr/bin/longshore (deleted)"), of("/opt/longshore"));
        assert_ne!(of("/usr/bin/long"), of("/usr/bin/longshore"));
    }
}
