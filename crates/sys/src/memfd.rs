//! A program in memory that nothing can change any more.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// Copies `program` into a memory file that can be executed (through `/proc/self/fd/N`) and is
/// sealed: a container that reaches it by `/proc/<pid>/exe` cannot write to it (CVE-2019-5736).
///
/// # Errors
/// When memory is short or the kernel forbids executable memory files (`vm.memfd_noexec=2`).
pub fn sealed_program(name: &str, program: &[u8]) -> Result<OwnedFd> {
    let action = || format!("make sealed program {name}");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        // Before 6.3 the flag is unknown and every memory file executable.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        r => r,
    }
    .context(action)?;
    let mut file = File::from(fd);
    file.write_all(program).context(action)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    match rustix::fs::fcntl_add_seals(&file, seals | SealFlags::EXEC | SealFlags::SEAL) {
        Err(Errno::INVAL) => rustix::fs::fcntl_add_seals(&file, seals | SealFlags::SEAL),
        r => r,
    }
    .context(action)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;

    #[test]
    fn atk_01_sealed_program_runs_and_cannot_be_written() {
        let fd = sealed_program("sh", &std::fs::read("/bin/busybox").unwrap()).unwrap();
        let path = crate::sockpath::fd_path(fd.as_fd());
        let out = Command::new(&path).args(["echo", "hi"]).output().unwrap();
        // busybox picks its applet by argv[0]; with the unknown name "N" it reports that, which
        // proves as well that it ran.
        assert!(!out.stdout.is_empty() || !out.stderr.is_empty());
        assert!(rustix::io::write(&fd, b"x").is_err());
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
        let w = rustix::fs::open(&path, rustix::fs::OFlags::WRONLY, rustix::fs::Mode::empty());
        assert!(w.is_err() || rustix::io::write(w.unwrap(), b"x").is_err());
    }
}
