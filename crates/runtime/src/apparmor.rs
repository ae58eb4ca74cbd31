//! AppArmor: where the kernel has it, every container runs under a profile.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;

use longshore_sys::{Context, userns};

use crate::error::{Error, Result};

/// Name of the profile of containers that ask for no other.
pub const DEFAULT_PROFILE: &str = "longshore-default";

/// Label of a process without a profile.
pub const UNCONFINED: &str = "unconfined";

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Where distributions put the parser.
const PARSERS: [&str; 3] = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];

/// Whether the kernel has AppArmor switched on.
#[must_use]
pub fn is_enabled() -> bool {
    std::fs::read_to_string(ENABLED).is_ok_and(|text| text.trim_start().starts_with('Y'))
}

/// The label for a container: what it asked for (`--security-opt apparmor=...`, empty if it did not),
/// `None` where the kernel has no AppArmor. Loads the default profile when it is needed first; a daemon without root, which
/// cannot, uses it where root's has loaded it, and else nothing: what its containers may do is bounded by what its user
/// may.
///
/// # Errors
/// When a profile was asked for that cannot be had, or the default one cannot be loaded: a container
/// is never unconfined unless it asked for that, or is privileged.
pub fn label(asked: &str, privileged: bool) -> Result<Option<String>> {
    let wanted = choose(asked, privileged, is_enabled())?;
    if let Some(name) = &wanted {
        if name == DEFAULT_PROFILE && userns::inside() {
            if asked.is_empty() && !default_loaded() {
                return Ok(None);
            }
            require(name)?;
        } else if name == DEFAULT_PROFILE {
            load_default()?;
        } else if name != UNCONFINED {
            require(name)?;
        }
    }
    Ok(wanted)
}

fn require(name: &str) -> Result<()> {
    let why = format!("apparmor profile {name} is not loaded (load it with apparmor_parser)");
    if is_loaded(name)? { Ok(()) } else { Err(Error::Invalid(why)) }
}

/// Whether the kernel has the default profile, as far as this process may know.
#[must_use]
pub fn default_loaded() -> bool {
    is_loaded(DEFAULT_PROFILE).unwrap_or(false)
}

fn choose(asked: &str, privileged: bool, enabled: bool) -> Result<Option<String>> {
    if asked.contains(|c: char| c.is_control()) {
        return Err(Error::Invalid(format!("apparmor profile name {asked:?} is malformed")));
    }
    match (asked, enabled) {
        ("" | UNCONFINED, false) => Ok(None),
        (name, false) => {
            Err(Error::Invalid(format!("apparmor profile {name}: the kernel has AppArmor not enabled")))
        }
        ("", true) => Ok(Some(if privileged { UNCONFINED } else { DEFAULT_PROFILE }.to_owned())),
        (name, true) => Ok(Some(name.to_owned())),
    }
}

/// Makes sure that the kernel has the default profile: loads it once, and again if somebody has removed it
/// (`aa-remove-unknown` does, as it belongs to no file).
///
/// # Errors
/// When it cannot be loaded; the message says what is missing.
pub fn load_default() -> Result<()> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !*done || !is_loaded(DEFAULT_PROFILE)? {
        let parser = PARSERS.into_iter().map(Path::new).find(|p| p.exists());
        match parser {
            // An older version of it may be there: this one replaces it.
            Some(parser) => load(parser, &profile_text(DEFAULT_PROFILE, &own_label()))?,
            None if is_loaded(DEFAULT_PROFILE)? => {}
            None => {
                return Err(Error::Unsupported(format!(
                    "the kernel has AppArmor, but loading the profile {DEFAULT_PROFILE} without apparmor_parser \
                     (install the package apparmor, or run with --security-opt apparmor=unconfined)"
                )));
            }
        }
        *done = true;
    }
    Ok(())
}

/// Whether the kernel has a profile of this name.
fn is_loaded(name: &str) -> Result<bool> {
    let list = std::fs::read_to_string(LOADED).context(|| format!("read {LOADED}"))?;
    Ok(list_has(&list, name))
}

/// Lines are `name (mode)`; names may have blanks in them.
fn list_has(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(loaded, _)| loaded == name))
}

/// Hands a profile to the parser on standard input; nothing is written to disk.
fn load(parser: &Path, text: &str) -> Result<()> {
    let failed = |what: String| Error::Invalid(format!("load apparmor profile {DEFAULT_PROFILE}: {what}"));
    let mut child = Command::new(parser)
        .args(["--replace", "--skip-cache", "--quiet"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| format!("run {}", parser.display()))?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(text.as_bytes()),
        None => Ok(()),
    };
    // It may have given up before it had read everything; then its own words count.
    let output = child.wait_with_output().context(|| format!("wait for {}", parser.display()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    written.map_err(|e| failed(e.to_string()))
}

/// The label that we run under ourselves, and so send signals with.
fn own_label() -> String {
    let text = std::fs::read_to_string("/proc/self/attr/apparmor/current")
        .or_else(|_| std::fs::read_to_string("/proc/self/attr/current"))
        .unwrap_or_default();
    let label = text.trim().rsplit_once(" (").map_or(text.trim(), |(name, _)| name);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:".contains(c);
    // What would need quoting is not a label that we know how to name in a rule.
    if label.is_empty() || !label.chars().all(plain) { UNCONFINED.to_owned() } else { label.to_owned() }
}

/// The default profile: everything but what reaches the kernel's or the machine's settings.
fn profile_text(name: &str, daemon: &str) -> String {
    let installed = |file: &str| Path::new("/etc/apparmor.d").join(file).exists();
    // With the rules of a newer version, "network" would not mean Unix sockets any more.
    let abi = if installed("abi/3.0") { "abi <abi/3.0>,\n" } else { "" };
    let tunables = if installed("tunables/global") { "#include <tunables/global>" } else { "@{PROC}=/proc/" };
    let base = if installed("abstractions/base") { "  #include <abstractions/base>\n" } else { "" };
    // Other OCI runtimes, which have profiles of their own in newer distributions.
    let mut peers = vec![UNCONFINED, "runc", "crun"];
    if daemon != UNCONFINED {
        peers.push(daemon);
    }
    let signals: String = peers.iter().map(|peer| format!("  signal (receive) peer={peer},\n")).collect();
    format!(
        "{abi}{tunables}

profile {name} flags=(attach_disconnected,mediate_deleted) {{
{base}
  capability,
  file,
  network,
  umount,
  deny mount,
  # The kernel's cryptography is not the container's business.
  deny network alg,

  # Stopped from outside; inside, everybody may signal and trace everybody.
{signals}  signal (send, receive) peer={name},
  ptrace (trace, tracedby, read, readby) peer={name},

  # Of /proc, only directories of processes and the settings of shared memory may be written to.
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}}/** w,
  deny @{{PROC}}/sys/[^k]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny @{{PROC}}/{{kcore,sysrq-trigger}} rwklx,

  # Of /sys, only the control groups.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/{{firmware,devices/virtual/powercap,kernel/security}}/** rwklx,
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_unconfined_only_if_it_asked() {
        let chosen = |asked, privileged, enabled| choose(asked, privileged, enabled).unwrap();
        assert_eq!(chosen("", false, true).as_deref(), Some(DEFAULT_PROFILE));
        assert_eq!(chosen("", true, true).as_deref(), Some(UNCONFINED));
        assert_eq!(chosen(UNCONFINED, false, true).as_deref(), Some(UNCONFINED));
        assert_eq!(chosen("mine", true, true).as_deref(), Some("mine"));
        assert_eq!(chosen("", false, false), None);
        assert_eq!(chosen(UNCONFINED, false, false), None);
        assert!(choose("mine", false, false).is_err());
        assert!(choose("a\nb", false, true).is_err());
    }

    #[test]
    fn loaded_profiles_are_found_by_their_whole_name() {
        let list = "longshore-default (enforce)\n/usr/bin/a b (complain)\n";
        assert!(list_has(list, "longshore-default") && list_has(list, "/usr/bin/a b"));
        assert!(!list_has(list, "longshore") && !list_has(list, ""));
    }

    #[test]
    fn the_profile_names_who_may_stop_containers() {
        let text = profile_text(DEFAULT_PROFILE, "/usr/bin/longshore");
        assert!(text.contains("profile longshore-default flags="));
        assert!(text.contains("peer=unconfined,\n  signal (receive) peer=runc,\n"));
        assert!(
            text.contains("  signal (receive) peer=crun,\n  signal (receive) peer=/usr/bin/longshore,\n")
        );
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert_eq!(profile_text("p", UNCONFINED).matches("peer=unconfined").count(), 1);
    }

    #[test]
    fn a_parser_that_fails_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let parser = dir.path().join("parser");
        std::fs::write(&parser, "#!/bin/sh\necho syntax error >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&parser, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = load(&parser, &profile_text("p", UNCONFINED)).unwrap_err();
        assert_eq!(error.to_string(), "load apparmor profile longshore-default: syntax error");
        std::fs::write(&parser, "#!/bin/sh\nexec grep -q mediate_deleted\n").unwrap();
        load(&parser, &profile_text("p", UNCONFINED)).unwrap();
    }
}
