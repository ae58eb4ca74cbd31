//! How a container's processes are confined: system call filter and AppArmor profile, from
//! `--security-opt` and the defaults.

use longshore_runtime::spec::LinuxSeccomp;

use crate::record::Record;
use crate::{Error, Result};

/// The profile that containers get where the kernel has AppArmor.
const APPARMOR: &str = "longshore-default";

/// The value of a security option, the last one given.
fn option<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let of = |o: &'a String| {
        let rest = o.strip_prefix(name)?;
        rest.strip_prefix('=').or_else(|| rest.strip_prefix(':'))
    };
    record.host.security_opt.iter().flatten().filter_map(of).next_back()
}

/// The AppArmor profile; `None` where the kernel has none.
///
/// # Errors
/// For a profile asked for on a kernel without AppArmor.
pub(super) fn apparmor(record: &Record, privileged: bool) -> Result<Option<String>> {
    let enabled = crate::info::apparmor_enabled();
    match option(record, "apparmor") {
        Some("unconfined") => Ok(enabled.then(|| "unconfined".to_owned())),
        Some(profile) if !enabled && profile != APPARMOR => Err(Error::invalid(format!(
            "AppArmor is not enabled on this host, so the profile {profile} cannot be applied"
        ))),
        Some(profile) => Ok(enabled.then(|| profile.to_owned())),
        None if !enabled => Ok(None),
        None if privileged => Ok(Some("unconfined".to_owned())),
        None => Ok(Some(APPARMOR.to_owned())),
    }
}

/// The system call filter; `None`: unconfined.
///
/// # Errors
/// For a profile that cannot be read.
pub(super) fn seccomp(record: &Record, privileged: bool) -> Result<Option<LinuxSeccomp>> {
    match option(record, "seccomp") {
        Some("unconfined") => Ok(None),
        None | Some("builtin") if privileged => Ok(None),
        None | Some("builtin") => Ok(None),
        Some(_) => Err(Error::unimplemented("a seccomp profile of one's own")),
    }
}
