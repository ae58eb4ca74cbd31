//! Kernel settings below /proc/sys/net, of the calling thread's network namespace.

use std::io;

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, openat2};
use rustix::io::Errno;

use crate::error::{Error, Result};

fn open(path: &str, flags: OFlags) -> io::Result<std::fs::File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let proc = openat2(
        CWD,
        "/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )?;
    // What is mounted at /proc must be a procfs, and the setting must not be covered by another mount of a
    // different kind.
    let file = openat2(&proc, format!("sys/net/{path}"), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    if fstatfs(&file)?.f_type != PROC_SUPER_MAGIC {
        return Err(Errno::INVAL.into());
    }
    Ok(file.into())
}

/// Reads a setting; none if the kernel has no such.
pub(crate) fn read(path: &str) -> Result<Option<String>> {
    let get = || -> io::Result<String> {
        let mut buffer = [0u8; 64];
        let length = rustix::io::read(open(path, OFlags::RDONLY)?, &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
    };
    match get() {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::system(format!("read /proc/sys/net/{path}"), e)),
    }
}

/// Gives a setting a value; does not write if it has it already (/proc/sys may be read-only then).
pub(crate) fn set(path: &str, value: &str) -> Result<()> {
    if read(path)?.as_deref() == Some(value) {
        return Ok(());
    }
    let put = || -> io::Result<()> {
        rustix::io::write(open(path, OFlags::WRONLY)?, value.as_bytes())?;
        Ok(())
    };
    put().map_err(|e| Error::system(format!("set /proc/sys/net/{path} to {value}"), e))
}

/// Like [`set`], for a setting that this kernel may not have or not let us change.
pub(crate) fn set_lenient(path: &str, value: &str) {
    match read(path) {
        Ok(None) => {}
        Ok(Some(_)) | Err(_) => {
            if let Err(error) = set(path, value) {
                tracing::debug!(%error, "kept a kernel setting");
            }
        }
    }
}

/// Whether this host has IPv6 at all.
pub fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// Lets this host pass IPv6 packets on. A host that does is a router, and hears no router any more, unless told to: where it
/// heard some, it goes on to.
pub(crate) fn forward_ipv6() -> Result<()> {
    const FORWARDING: &str = "ipv6/conf/all/forwarding";
    match read(FORWARDING)?.as_deref() {
        Some("1") => return Ok(()),
        Some(_) => {}
        None => {
            return Err(Error::Unimplemented(
                "this kernel has no IPv6: leave it out of the network".to_owned(),
            ));
        }
    }
    let interfaces = std::fs::read_dir("/proc/sys/net/ipv6/conf");
    let interfaces = interfaces.map_err(|e| Error::system("list /proc/sys/net/ipv6/conf", e))?;
    for name in interfaces.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let accepts = format!("ipv6/conf/{name}/accept_ra");
        if read(&accepts).is_ok_and(|value| value.as_deref() == Some("1")) {
            set_lenient(&accepts, "2");
        }
    }
    set(FORWARDING, "1")
}
