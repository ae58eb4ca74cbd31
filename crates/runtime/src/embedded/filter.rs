//! The container's system call filter, kept for the processes that join it later.

use std::path::Path;

use longshore_monitor::plan::Seccomp;
use longshore_monitor::wire::{Put, Reader};
use rustix::fs::Mode;

use crate::error::{Error, Result};
use crate::spec::LinuxSeccomp;

/// Name of the file in a container's exec directory.
const NAME: &str = "seccomp";

/// Compiles a profile, or takes what was compiled for the last container.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Seccomp> {
    let program = crate::seccomp::compile(profile)?;
    Ok(Seccomp { flags: program.flags, program: program.bytes.clone() })
}

/// Keeps a filter: flags, program.
pub(super) fn keep(dir: &Path, filter: &Seccomp) -> Result<()> {
    let mut bytes = Vec::with_capacity(filter.program.len() + 8);
    bytes.u32(filter.flags);
    bytes.bytes(&filter.program);
    longshore_sys::atomic::write_atomic_path(&dir.join(NAME), &bytes, Mode::from_raw_mode(0o600), false)?;
    Ok(())
}

/// The filter that was kept. `expected` is what the container's state says; a filter that is missing
/// then is not the same as none.
pub(crate) fn kept(dir: &Path, expected: Option<bool>) -> Result<Option<Seccomp>> {
    let path = dir.join(NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && expected != Some(true) => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::State {
                id: dir.display().to_string(),
                what: "its seccomp filter is missing; restart the container".into(),
            });
        }
        Err(e) => return Err(longshore_sys::Error::new(format!("read {}", path.display()), e).into()),
    };
    let mut reader = Reader::new(&bytes);
    let mut read = || Ok(Seccomp { flags: reader.u32()?, program: reader.bytes()?.to_vec() });
    read().map(Some).map_err(|e: longshore_monitor::wire::Malformed| Error::State {
        id: dir.display().to_string(),
        what: format!("seccomp filter: {e}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_kept_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kept(dir.path(), None).unwrap(), None);
        assert_eq!(kept(dir.path(), Some(false)).unwrap(), None);
        assert!(kept(dir.path(), Some(true)).unwrap_err().to_string().contains("filter is missing"));
        let filter = Seccomp { flags: 4, program: vec![1; 24] };
        keep(dir.path(), &filter).unwrap();
        assert_eq!(kept(dir.path(), Some(true)).unwrap(), Some(filter));
        std::fs::write(dir.path().join(NAME), [9; 7]).unwrap();
        assert!(kept(dir.path(), Some(true)).is_err(), "a damaged filter is not the same as none");
    }
}
