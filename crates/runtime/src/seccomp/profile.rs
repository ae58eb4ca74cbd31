//! Profiles in the format that Docker's clients pass: rules with conditions on capabilities, kernel
//! and machine, which are settled when a container is made.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::caps::CapSet;
use crate::error::{Error, Result};
use crate::spec::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
    LinuxSyscallBuilder,
};

/// The largest profile that is read.
const MAX_PROFILE: usize = 1 << 20;

/// A system call filter with open conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    pub(super) default_action: Option<LinuxSeccompAction>,
    pub(super) default_errno_ret: Option<u32>,
    pub(super) architectures: Option<Vec<String>>,
    pub(super) arch_map: Option<Vec<ArchMap>>,
    pub(super) flags: Option<Vec<LinuxSeccompFilterFlag>>,
    pub(super) listener_path: Option<std::path::PathBuf>,
    pub(super) syscalls: Option<Vec<Rule>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ArchMap {
    pub(super) architecture: String,
    pub(super) sub_architectures: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) names: Option<Vec<String>>,
    pub(super) action: Option<LinuxSeccompAction>,
    pub(super) errno_ret: Option<u32>,
    pub(super) args: Option<Vec<LinuxSeccompArg>>,
    pub(super) includes: Option<Conditions>,
    pub(super) excludes: Option<Conditions>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Conditions {
    pub(super) arches: Option<Vec<String>>,
    pub(super) caps: Option<Vec<String>>,
    pub(super) min_kernel: Option<String>,
}

/// What conditions are settled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// The container's bounding set.
    pub caps: CapSet,
    /// Version of the kernel: major, minor.
    pub kernel: (u32, u32),
}

impl Circumstances {
    /// Those of a container with these capabilities on this machine.
    #[must_use]
    pub fn here(caps: CapSet) -> Self {
        static KERNEL: OnceLock<(u32, u32)> = OnceLock::new();
        let kernel = *KERNEL.get_or_init(|| {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            version(&release).unwrap_or((0, 0))
        });
        Self { caps, kernel }
    }
}

/// The machine's name in profiles.
const MACHINE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The machine's architecture in profiles.
const ARCHITECTURE: &str =
    if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// When it is malformed, or contradicts itself.
    pub fn parse(json: &[u8]) -> Result<Self> {
        if json.len() > MAX_PROFILE {
            return Err(Error::Invalid(format!("seccomp profile is larger than {MAX_PROFILE} bytes")));
        }
        let decoding = |what: String| Error::Invalid(format!("Decoding seccomp profile failed: {what}"));
        // A list would be taken for an object with few members, and filter nothing.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(decoding("it is no JSON object".to_owned()));
        }
        let profile: Self = serde_json::from_slice(json).map_err(|e| decoding(e.to_string()))?;
        let filled = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|l: &Vec<String>| !l.is_empty());
        if filled(&profile.architectures) && profile.arch_map.as_ref().is_some_and(|m| !m.is_empty()) {
            return Err(Error::Invalid(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, use either \
                 'architectures' or 'archMap'"
                    .to_owned(),
            ));
        }
        for rule in profile.syscalls.iter().flatten() {
            // Left out, it must not become "allow".
            if rule.action.is_none() {
                return Err(Error::Invalid("seccomp profile has a rule without an action".to_owned()));
            }
            if !rule.name.is_empty() && filled(&rule.names) {
                return Err(Error::Invalid(
                    "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
                        .to_owned(),
                ));
            }
        }
        // A later use must not be where a mistake is found.
        for caps in [CapSet::EMPTY, CapSet::from_bits(u64::MAX)] {
            if let Some(settled) = profile.settle(Circumstances { caps, kernel: (u32::MAX, 0) })? {
                super::build(&settled)?;
            }
        }
        Ok(profile)
    }

    /// Settles the conditions; `None` for an empty profile, which filters nothing.
    ///
    /// # Errors
    /// When a condition is malformed.
    pub fn settle(&self, here: Circumstances) -> Result<Option<LinuxSeccomp>> {
        let rules = self.syscalls.as_deref().unwrap_or_default();
        let Some(default_action) = self.default_action else {
            return if rules.is_empty() {
                Ok(None)
            } else {
                Err(Error::Invalid("seccomp profile has rules but no defaultAction".to_owned()))
            };
        };
        let mut syscalls = Vec::with_capacity(rules.len());
        for rule in rules {
            if rule.applies(here)? {
                syscalls.push(rule.to_spec());
            }
        }
        let mut settled = LinuxSeccomp::default();
        settled
            .set_default_action(default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures(Some(self.architectures()))
            .set_flags(self.flags.clone())
            .set_listener_path(self.listener_path.clone())
            .set_syscalls(Some(syscalls));
        Ok(Some(settled))
    }

    fn architectures(&self) -> Vec<Arch> {
        // What has no name in the specification's type is no machine that this program runs on.
        let known = |name: &String| name.parse::<Arch>().ok();
        let mut all: Vec<Arch> = self.architectures.iter().flatten().filter_map(known).collect();
        let own = self.arch_map.iter().flatten().find(|m| m.architecture == ARCHITECTURE);
        if let Some(own) = own {
            all.extend(known(&own.architecture));
            all.extend(own.sub_architectures.iter().flatten().filter_map(known));
        }
        all
    }
}

impl Rule {
    fn applies(&self, here: Circumstances) -> Result<bool> {
        let list = |l: &Option<Vec<String>>| l.clone().unwrap_or_default();
        if let Some(no) = &self.excludes
            && (list(&no.arches).iter().any(|a| a == MACHINE)
                || list(&no.caps).iter().any(|c| here.caps.contains(c))
                || no.kernel_reached(here)?.unwrap_or(false))
        {
            return Ok(false);
        }
        let Some(yes) = &self.includes else { return Ok(true) };
        let arches = list(&yes.arches);
        Ok((arches.is_empty() || arches.iter().any(|a| a == MACHINE))
            && list(&yes.caps).iter().all(|c| here.caps.contains(c))
            && yes.kernel_reached(here)?.unwrap_or(true))
    }

    fn to_spec(&self) -> LinuxSyscall {
        let names = if self.name.is_empty() {
            self.names.clone().unwrap_or_default()
        } else {
            vec![self.name.clone()]
        };
        let mut rule = LinuxSyscallBuilder::default().names(names);
        if let Some(action) = self.action {
            rule = rule.action(action);
        }
        if let Some(errno) = self.errno_ret {
            rule = rule.errno_ret(errno);
        }
        if let Some(args) = self.args.as_ref().filter(|a| !a.is_empty()) {
            rule = rule.args(args.clone());
        }
        rule.build().unwrap_or_default()
    }
}

impl Conditions {
    /// Whether the kernel is new enough; `None` if nothing is said about it.
    fn kernel_reached(&self, here: Circumstances) -> Result<Option<bool>> {
        let Some(text) = self.min_kernel.as_deref().filter(|t| !t.is_empty()) else { return Ok(None) };
        let wanted = version(text)
            .filter(|_| text.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
            .ok_or_else(|| Error::Invalid(format!("seccomp profile: bad kernel version {text:?}")))?;
        Ok(Some(here.kernel >= wanted))
    }
}

/// First two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &Profile, caps: &[&str], kernel: (u32, u32)) -> Vec<String> {
        let bits = crate::caps::CapSet::resolve(true, &[], &[]).unwrap();
        let caps: Vec<String> = caps.iter().map(|c| (*c).to_owned()).collect();
        let set = CapSet::resolve(false, &caps, &["ALL".to_owned()]).unwrap();
        assert!(!bits.is_empty());
        let settled = profile.settle(Circumstances { caps: set, kernel }).unwrap().unwrap();
        settled.syscalls().iter().flatten().flat_map(|s| s.names().clone()).collect()
    }

    #[test]
    fn conditions_are_settled() {
        let json = br#"{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [
              {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
              {"architecture": "SCMP_ARCH_LOONGARCH64", "subArchitectures": null}],
            "syscalls": [
              {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {}, "comment": "x", "args": null},
              {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
              {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
              {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
              {"name": "write", "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
              {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}}]}"#;
        let profile = Profile::parse(json).unwrap();
        assert_eq!(names(&profile, &[], (6, 1)), ["read", "ptrace", "clone", "write"]);
        assert_eq!(names(&profile, &["SYS_CHROOT"], (4, 7)), ["read", "chroot", "write"]);
        assert_eq!(profile.architectures(), [Arch::ScmpArchX86_64, Arch::ScmpArchX86]);
    }

    #[test]
    fn an_empty_profile_filters_nothing() {
        let here = Circumstances::here(CapSet::EMPTY);
        assert_eq!(Profile::parse(b"{}").unwrap().settle(here).unwrap(), None);
        assert!(here.kernel > (2, 6));
    }

    #[test]
    fn malformed_profiles_are_refused() {
        for bad in [
            "",
            "[]",
            r#"{"defaultAction": "SCMP_ACT_NONE"}"#,
            r#"{"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_LOG"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "includes": {"minKernel": "x"}}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
            r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["mount"]}]}"#,
        ] {
            assert!(Profile::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Profile::parse(&vec![b' '; MAX_PROFILE + 1]).is_err());
    }
}
