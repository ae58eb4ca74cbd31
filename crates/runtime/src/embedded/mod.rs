//! The launcher of our own: a plan, a monitor, and a way to find both again.

pub(crate) mod filter;
mod home;
mod mountopt;
pub(crate) mod plan;
pub(crate) mod spawn;
mod state;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::task::{CreateRequest, Recovered, Runtime, Task};
pub use home::monitors;
pub(crate) use home::{Home, make_private_dir};

/// Settings of the launcher.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Where the state of running containers is kept; emptied by a reboot.
    pub exec_root: PathBuf,
    /// Below which cgroup containers are put.
    pub cgroup_parent: String,
    /// The slice of systemd that the scope of all containers is made in, where that is not `system.slice`.
    pub slice: Option<String>,
}

/// Containers started by the embedded launcher.
#[derive(Clone, Debug)]
pub struct Embedded {
    home: Arc<Home>,
}

impl Embedded {
    /// Its name.
    pub const NAME: &str = "longshore";

    /// Prepares the launcher: its directory and the monitor's program in memory.
    ///
    /// # Errors
    /// When the directory cannot be made or the kernel does not allow executable memory files.
    pub fn new(options: RuntimeOptions) -> Result<Self> {
        Ok(Self { home: Arc::new(Home::new(options)?) })
    }

    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }
}

impl Runtime for Embedded {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn create(&self, request: CreateRequest) -> Result<Task> {
        self.home.create(request, None)
    }

    fn recover(&self, id: &str) -> Result<Recovered> {
        self.home.recover(id)
    }

    fn delete(&self, id: &str) -> Result<()> {
        self.home.delete(id)
    }
}

#[cfg(test)]
mod tests {
    use super::home::MONITOR;

    /// All of it is touched sooner or later, once for every machine, and its heap and stack once for
    /// every container. A dependency that brings the standard library back would show here.
    #[test]
    fn the_monitor_is_small() {
        if cfg!(target_arch = "x86_64") {
            assert!(MONITOR.len() < 160 * 1024, "{} bytes", MONITOR.len());
        }
    }
}
