//! Work inside another network namespace.

use std::os::fd::BorrowedFd;

use crate::error::{Error, Result};

/// Runs `work` on a thread of its own inside `netns`.
pub(crate) fn within<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    longshore_sys::netns::with_netns(netns, work)
        .map_err(|e| Error::system("work in the container's network namespace", e))?
}
