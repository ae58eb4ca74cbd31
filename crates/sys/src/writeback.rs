//! Dirty pages sent on their way to the disk, so that a later sync has less to wait for.

use std::os::fd::{AsFd, AsRawFd};

/// Begins to write a range of a file to the disk and does not wait for it (sync_file_range(2), `SYNC_FILE_RANGE_WRITE`).
/// Says nothing about durability: that is for fsync or syncfs, which it makes shorter. A file system that cannot do
/// so ignores it.
#[allow(unsafe_code)]
pub fn begin(file: impl AsFd, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: the descriptor is open for the time of the call, which touches no memory of ours.
    let _ =
        unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}
