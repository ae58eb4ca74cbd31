//! Ending an exec'd process with what it started.

use std::time::Duration;

use longshore_monitor::proto::Request;
use longshore_sys::pidfd;

use crate::error::Result;
use crate::task::Task;

/// A process can start another one while it is killed; what does so more often than this is given up.
const ROUNDS: usize = 20;
/// Between two rounds.
const BREATH: Duration = Duration::from_millis(5);

impl Task {
    /// Kills the exec'd process `pid` and all that it started, but for what has begun a session of its own: the end of
    /// the process alone would leave its children to the container.
    ///
    /// # Errors
    /// When the container's processes cannot be listed.
    pub fn kill_exec(&self, pid: u32) -> Result<()> {
        // It may have ended already, and its children not.
        let _ = self.simple(&Request::Signal { pid, signal: libc::SIGKILL });
        for _ in 0..ROUNDS {
            let mut any = false;
            for member in self.pids()? {
                let Ok(fd) = pidfd::open(member) else { continue };
                // Opened first, then found to be of the session: the number cannot be another's.
                if pidfd::session(member).ok() == Some(pid) {
                    any |= pidfd::send_signal(&fd, libc::SIGKILL).is_ok();
                }
            }
            if !any {
                break;
            }
            // What was killed may have started another one just before.
            std::thread::sleep(BREATH);
        }
        Ok(())
    }
}
