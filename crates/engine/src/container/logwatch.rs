//! Noticing that a log has grown.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// How often is looked where the kernel does not tell.
const POLL: Duration = Duration::from_millis(50);

/// Changes of the files in a directory, from the moment it was made.
pub(super) struct Changes(Option<AsyncFd<OwnedFd>>);

impl Changes {
    /// Watches a directory. The kernel allows a user few watchers: without one, `next` comes by the clock.
    pub(super) fn of(dir: &Path) -> Self {
        Self(watch(dir).inspect_err(|e| tracing::debug!("watch {}: {e}", dir.display())).ok())
    }

    /// Resolves when something has changed since the last time, or may have.
    pub(super) async fn next(&self) {
        let Some(fd) = &self.0 else { return tokio::time::sleep(POLL).await };
        let Ok(mut guard) = fd.readable().await else { return tokio::time::sleep(POLL).await };
        let mut block = [0u8; 4096];
        // All that is there: one look at the log is enough for many changes.
        while rustix::io::read(fd.get_ref(), &mut block).is_ok_and(|n| n > 0) {}
        guard.clear_ready();
    }
}

fn watch(dir: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let wanted = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
    inotify::add_watch(&fd, dir, wanted)?;
    #[expect(deprecated, reason = "the descriptor is owned and stays open as long as it is registered")]
    AsyncFd::new(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_noticed() {
        let dir = tempfile::tempdir().expect("folder");
        let changes = Changes::of(dir.path());
        assert!(changes.0.is_some());
        for text in ["one", "two"] {
            std::fs::write(dir.path().join("log"), text).expect("write");
            tokio::time::timeout(Duration::from_secs(10), changes.next()).await.expect("noticed");
        }
        let by_the_clock = Changes::of(Path::new("/nosuch"));
        tokio::time::timeout(Duration::from_secs(10), by_the_clock.next()).await.expect("the clock goes on");
    }
}
