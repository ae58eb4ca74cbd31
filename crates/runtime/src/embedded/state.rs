//! What is remembered of a running container until the next boot.

use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::external::Program;

/// Name of the file in a container's exec directory.
const NAME: &str = "state.json";
/// Version of its contents.
const VERSION: u32 = 1;

/// The processes of a container, so that they can be found again and not be mistaken for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) v: u32,
    /// Everything here is void after a reboot.
    pub(super) boot_id: String,
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) monitor_pid: u32,
    pub(super) monitor_start_time: u64,
    /// Parent and name of its cgroup.
    pub(super) cgroup: (String, String),
    pub(super) exit_file: PathBuf,
    /// Whether it has a system call filter, which is then kept beside this; `None` in what an older
    /// version wrote.
    #[serde(default)]
    pub(super) seccomp: Option<bool>,
    /// The OCI runtime that made it, unless it was ours.
    #[serde(default)]
    pub(super) program: Option<Program>,
}

impl State {
    /// Version that is written.
    pub(super) const CURRENT: u32 = VERSION;

    /// Writes it; need not survive a crash of the machine.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|e| Error::State { id: dir.display().to_string(), what: e.to_string() })?;
        longshore_sys::atomic::write_atomic_path(&dir.join(NAME), &bytes, Mode::from_raw_mode(0o600), false)?;
        Ok(())
    }

    /// Reads it; `None` if there is none.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
            Err(e) => return Err(longshore_sys::Error::new(format!("read {}", path.display()), e).into()),
        };
        let broken = |what: String| Error::State { id: dir.display().to_string(), what };
        let state: Self = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
        if state.v == VERSION { Ok(Some(state)) } else { Err(broken(format!("unknown version {}", state.v))) }
    }
}
