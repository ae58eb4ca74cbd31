//! The identity of this boot.

use crate::error::{Context, Result};

/// The kernel's random id of this boot: what was written with another one (pids, mounts) is void.
///
/// # Errors
/// When procfs is not there.
pub fn boot_id() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context(|| "read boot id")?;
    Ok(text.trim().to_owned())
}
