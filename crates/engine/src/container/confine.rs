//! How a container's processes are confined: system call filter and AppArmor profile, from
//! `--security-opt` and the defaults.

use longshore_runtime::spec::LinuxSeccomp;
use longshore_runtime::{apparmor, seccomp};

use crate::Result;
use crate::record::Record;

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
/// For a profile that cannot be had: never silently unconfined.
pub(super) fn apparmor(record: &Record, privileged: bool) -> Result<Option<String>> {
    Ok(apparmor::label(option(record, "apparmor").unwrap_or_default(), privileged)?)
}

/// The system call filter; `None`: unconfined.
///
/// # Errors
/// For a profile of one's own that is malformed.
pub(super) fn seccomp(record: &Record, privileged: bool) -> Result<Option<LinuxSeccomp>> {
    let caps = super::spec::capabilities(&record.host)?;
    match option(record, "seccomp") {
        Some("unconfined") => Ok(None),
        None | Some("builtin") if privileged => Ok(None),
        None | Some("builtin") => Ok(Some((*seccomp::default_filter(caps)).clone())),
        Some(own) => Ok(seccomp::Profile::parse(own.as_bytes())?.settle(seccomp::Circumstances::here(caps))?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(options: &[&str]) -> Record {
        let options: Vec<&str> = options.to_vec();
        serde_json::from_value(serde_json::json!({
            "id": "a", "name": "n", "created": 0, "image": longshore_oci::Digest::of(b""), "path": "sh", "args": [],
            "config": {}, "host": {"security_opt": options},
        }))
        .expect("record")
    }

    #[test]
    fn a_filter_unless_told_otherwise() {
        assert!(seccomp(&record(&[]), false).expect("default").is_some());
        assert!(seccomp(&record(&[]), true).expect("privileged").is_none());
        assert!(seccomp(&record(&["seccomp=unconfined"]), false).expect("unconfined").is_none());
        let own = "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\"],\"action\":\"SCMP_ACT_ERRNO\"}]}";
        assert!(seccomp(&record(&[own]), true).expect("own").is_some());
        assert!(seccomp(&record(&["seccomp={"]), false).is_err());
    }
}
