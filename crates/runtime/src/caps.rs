//! Capabilities: the default set and how options change it.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::spec::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

/// Names without `CAP_`; the position is the capability's number (capability(7)).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container gets when nobody asks for anything else.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities; bit n is capability n.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CapSet(u64);

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// The default set of a container.
    #[must_use]
    pub fn default_set() -> Self {
        Self(DEFAULT.iter().filter_map(|name| number(name)).fold(0, |set, n| set | 1 << n))
    }

    /// What this process could pass on: known here, known to the kernel, in its bounding set.
    #[must_use]
    pub fn available() -> Self {
        static AVAILABLE: OnceLock<CapSet> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
            Self(bounding(&status).unwrap_or(u64::MAX) & known() & up_to(&last))
        })
    }

    /// A set from its bits; what has no name here is left out.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & known())
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether the set has nothing in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a capability is in the set; its name may have `CAP_` before it.
    #[must_use]
    pub fn contains(self, name: &str) -> bool {
        number(name.strip_prefix("CAP_").unwrap_or(name)).is_some_and(|n| self.0 & 1 << n != 0)
    }

    /// Names with `CAP_`, in the order of their numbers.
    pub fn names(self) -> impl Iterator<Item = String> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(n, _)| self.0 & 1 << n != 0)
            .map(|(_, name)| format!("CAP_{name}"))
    }

    /// The set in the specification's type.
    #[must_use]
    pub fn to_spec(self) -> Capabilities {
        let named = NAMES.iter().enumerate().filter(|(n, _)| self.0 & 1 << n != 0);
        named.filter_map(|(_, name)| Capability::from_str(name).ok()).collect()
    }

    /// All sets of a process: bounding, permitted and (for root) effective. Nothing is inheritable,
    /// or files of the image could raise what an ordinary user has (CVE-2022-24769).
    #[must_use]
    pub fn to_process(self, uid: u32) -> LinuxCapabilities {
        // A process that starts as another user loses what is effective and permitted at exec
        // anyway; saying so at the start leaves no moment in which it has them.
        let usable = if uid == 0 { self } else { Self::EMPTY };
        LinuxCapabilitiesBuilder::default()
            .bounding(self.to_spec())
            .permitted(usable.to_spec())
            .effective(usable.to_spec())
            .inheritable(Capabilities::new())
            .ambient(Capabilities::new())
            .build()
            .unwrap_or_default()
    }

    /// The set of a container after `--privileged`, `--cap-add` and `--cap-drop`.
    ///
    /// # Errors
    /// When a name is unknown, or the daemon itself could not have the capability.
    pub fn resolve(privileged: bool, add: &[String], drop: &[String]) -> Result<Self> {
        Self::resolve_within(Self::available(), privileged, add, drop)
    }

    fn resolve_within(available: Self, privileged: bool, add: &[String], drop: &[String]) -> Result<Self> {
        let add = Asked::parse(add, available).map_err(|e| Error::Invalid(format!("invalid CapAdd: {e}")))?;
        // What nobody can have may be dropped all the same.
        let drop =
            Asked::parse(drop, Self(known())).map_err(|e| Error::Invalid(format!("invalid CapDrop: {e}")))?;
        Ok(if privileged {
            available
        } else if add.all {
            Self(available.0 & !drop.set)
        } else if drop.all {
            Self(add.set)
        } else {
            // What is both added and dropped is there: the later option list wins, as with Docker.
            Self(Self::default_set().0 & available.0 & !drop.set | add.set)
        })
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// An option list.
struct Asked {
    all: bool,
    set: u64,
}

impl Asked {
    fn parse(names: &[String], available: CapSet) -> Result<Self, String> {
        let mut asked = Self { all: false, set: 0 };
        for given in names {
            let name = given.trim().to_ascii_uppercase();
            if name == "ALL" {
                asked.all = true;
                continue;
            }
            let short = name.strip_prefix("CAP_").unwrap_or(&name);
            let n = number(short).ok_or_else(|| format!("unknown capability: \"CAP_{short}\""))?;
            if available.0 & 1 << n == 0 {
                return Err(format!(
                    "capability not supported by your kernel or not available in the current environment: \
                     \"CAP_{short}\""
                ));
            }
            asked.set |= 1 << n;
        }
        Ok(asked)
    }
}

fn number(short: &str) -> Option<usize> {
    NAMES.iter().position(|name| *name == short)
}

fn known() -> u64 {
    (1 << NAMES.len()) - 1
}

/// Bounding set in the text of /proc/self/status.
fn bounding(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// All capabilities up to the kernel's last one; everything if that is not known.
fn up_to(last: &str) -> u64 {
    match last.trim().parse::<u32>() {
        Ok(last) if last < 63 => (1 << (last + 1)) - 1,
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|s| (*s).to_owned()).collect()
    }

    fn everything() -> CapSet {
        CapSet(known())
    }

    fn resolve(privileged: bool, add: &[&str], drop: &[&str]) -> Result<CapSet> {
        CapSet::resolve_within(everything(), privileged, &list(add), &list(drop))
    }

    #[test]
    fn the_default_set_is_the_well_known_one() {
        assert_eq!(CapSet::default_set().bits(), 0xa804_25fb);
        assert_eq!(resolve(false, &[], &[]).unwrap(), CapSet::default_set());
        assert_eq!(CapSet::default_set().to_spec().len(), 14);
    }

    #[test]
    fn every_name_is_known_to_the_specification() {
        for name in NAMES {
            assert!(Capability::from_str(name).is_ok(), "{name}");
        }
        assert_eq!(everything().to_spec().len(), NAMES.len());
    }

    #[test]
    fn names_are_taken_in_every_spelling() {
        for name in ["SYS_ADMIN", "cap_sys_admin", "CAP_SYS_ADMIN", "Sys_Admin"] {
            let set = resolve(false, &[name], &[]).unwrap();
            assert!(set.contains("SYS_ADMIN") && set.contains("CAP_SYS_ADMIN"));
            assert_eq!(set.names().count(), 15);
        }
    }

    #[test]
    fn all_can_be_added_and_dropped() {
        assert_eq!(resolve(false, &["all"], &[]).unwrap(), everything());
        assert!(!resolve(false, &["ALL"], &["net_raw"]).unwrap().contains("NET_RAW"));
        assert!(resolve(false, &[], &["ALL"]).unwrap().is_empty());
        let only = resolve(false, &["CHOWN"], &["ALL"]).unwrap();
        assert_eq!(only.names().collect::<Vec<_>>(), ["CAP_CHOWN"]);
        assert!(!resolve(false, &[], &["MKNOD"]).unwrap().contains("MKNOD"));
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        let error = resolve(false, &["bad"], &[]).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"CAP_BAD\"");
        let error = resolve(false, &[], &["CAP_BAD"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapDrop: unknown capability: \"CAP_BAD\"");
        assert_eq!(error.kind(), longshore_oci::Kind::Invalid);
    }

    #[test]
    fn nothing_is_given_that_the_daemon_does_not_have() {
        let few = CapSet::from_bits(0b11);
        assert_eq!(CapSet::resolve_within(few, true, &[], &[]).unwrap(), few);
        assert_eq!(CapSet::resolve_within(few, false, &[], &[]).unwrap(), few);
        let error = CapSet::resolve_within(few, false, &list(&["BPF"]), &[]).unwrap_err();
        assert!(error.to_string().contains("not available in the current environment: \"CAP_BPF\""));
        assert!(CapSet::resolve_within(few, false, &[], &list(&["BPF"])).is_ok());
    }

    #[test]
    fn kernel_files_are_understood() {
        assert_eq!(bounding("Name:\tx\nCapBnd:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
        assert_eq!(up_to("40\n"), 0x1ff_ffff_ffff);
        assert_eq!(up_to(""), u64::MAX);
    }

    #[test]
    fn atk_11_nothing_is_inheritable_and_ordinary_users_start_without_capabilities() {
        let caps = CapSet::default_set().to_process(1000);
        assert_eq!(caps.bounding().as_ref().unwrap().len(), 14);
        for set in [caps.effective(), caps.permitted(), caps.inheritable(), caps.ambient()] {
            assert!(set.as_ref().unwrap().is_empty());
        }
        assert_eq!(CapSet::default_set().to_process(0).effective().as_ref().unwrap().len(), 14);
    }
}
