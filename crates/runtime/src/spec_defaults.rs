//! What every container has unless it asks for something else: mounts, hidden paths, devices,
//! and the tables that options are checked against.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::spec::{
    LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, Mount, MountBuilder, PosixRlimitType,
};

/// Search path of a container whose image sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Size of `/dev/shm` in bytes.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// Paths that a container does not see.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that a container cannot write to.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Masked paths as the specification wants them.
#[must_use]
pub fn masked_paths() -> Vec<String> {
    MASKED_PATHS.map(str::to_owned).to_vec()
}

/// Read-only paths as the specification wants them.
#[must_use]
pub fn readonly_paths() -> Vec<String> {
    READONLY_PATHS.map(str::to_owned).to_vec()
}

/// The mounts of a container, outermost first. A privileged one may write to `/sys` and its cgroups.
#[must_use]
pub fn mounts(privileged: bool, shm_size: u64) -> Vec<Mount> {
    let shm = format!("size={shm_size}");
    let access = if privileged { "rw" } else { "ro" };
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &[access, "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ]
}

fn mount(target: &str, fstype: &str, source: &str, options: &[&str]) -> Mount {
    MountBuilder::default()
        .destination(target)
        .typ(fstype)
        .source(PathBuf::from(source))
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
        .unwrap_or_default()
}

/// Rules of the device controller: everything is refused but making nodes (`m`) and what every
/// container has in `/dev`. Rules for further devices go behind these.
#[must_use]
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    use LinuxDeviceType::{B, C};
    let any = None;
    let mut rules = vec![device_rule(false, LinuxDeviceType::A, any, any, "rwm")];
    rules.extend([device_rule(true, C, any, any, "m"), device_rule(true, B, any, any, "m")]);
    let character = [
        (1, Some(3)), // null
        (1, Some(5)), // zero
        (1, Some(7)), // full
        (1, Some(8)), // random
        (1, Some(9)), // urandom
        (5, Some(0)), // tty
        (5, Some(1)), // console
        (5, Some(2)), // ptmx
        (136, any),   // pts
    ];
    rules.extend(character.map(|(major, minor)| device_rule(true, C, Some(major), minor, "rwm")));
    rules
}

/// The one rule of a privileged container.
#[must_use]
pub fn all_devices_rule() -> LinuxDeviceCgroup {
    device_rule(true, LinuxDeviceType::A, None, None, "rwm")
}

/// A rule; no number means any.
#[must_use]
pub fn device_rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    if let Some(major) = major {
        rule = rule.major(major);
    }
    if let Some(minor) = minor {
        rule = rule.minor(minor);
    }
    rule.build().unwrap_or_default()
}

/// Parses a rule as `--device-cgroup-rule` has it: `c 1:3 rwm`, numbers may be `*`.
///
/// # Errors
/// When it is malformed.
pub fn parse_device_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    parse_rule(text).ok_or_else(|| Error::Invalid(format!("invalid device cgroup rule format: '{text}'")))
}

fn parse_rule(text: &str) -> Option<LinuxDeviceCgroup> {
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = parts[..] else { return None };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let plausible = (1..=3).contains(&access.len()) && access.chars().all(|c| "rwm".contains(c));
    plausible.then_some(())?;
    Some(device_rule(true, kind, device_number(major)?, device_number(minor)?, access))
}

/// A device number; the inner `None` is `*`.
#[expect(clippy::option_option, reason = "malformed and any are different answers")]
fn device_number(text: &str) -> Option<Option<i64>> {
    if text == "*" {
        return Some(None);
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse::<u32>().ok().map(|n| Some(i64::from(n)))
}

/// Resource limit of an `--ulimit` name (`nofile`), or of its long form.
///
/// # Errors
/// When the name is unknown.
pub fn rlimit(name: &str) -> Result<PosixRlimitType> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("RLIMIT_").unwrap_or(&upper);
    PosixRlimitType::from_str(&format!("RLIMIT_{short}"))
        .map_err(|_| Error::Invalid(format!("wrong rlimit value: RLIMIT_{short}")))
}

/// Namespaces of the container's own, which decide what kernel settings it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnNamespaces {
    /// IPC.
    pub ipc: bool,
    /// Network; one shared with another container counts.
    pub network: bool,
    /// Host name.
    pub uts: bool,
    /// Processes; one shared with another container counts.
    pub pid: bool,
    /// Users.
    pub user: bool,
}

/// Settings of the IPC namespace outside `fs.mqueue`.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Checks that a kernel setting belongs to a namespace of the container's own, so that it does not
/// change the host.
///
/// # Errors
/// When it does not, or its name is malformed.
pub fn check_sysctl(name: &str, own: OwnNamespaces) -> Result<()> {
    let dotted = dotted(name);
    if dotted.split(['.', '/']).any(str::is_empty) {
        return Err(Error::Invalid(format!("sysctl \"{name}\" is malformed")));
    }
    let refuse = |why: &str| Err(Error::Invalid(format!("sysctl \"{dotted}\" {why}")));
    if IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        return if own.ipc { Ok(()) } else { refuse("is not allowed in the hosts ipc namespace") };
    }
    if dotted.starts_with("net.") {
        return if own.network { Ok(()) } else { refuse("not allowed in host network namespace") };
    }
    if dotted.starts_with("user.") {
        return if own.user { Ok(()) } else { refuse("is not allowed in the hosts user namespace") };
    }
    match dotted.as_str() {
        "kernel.domainname" if own.uts => Ok(()),
        "kernel.domainname" => refuse("is not allowed in the hosts uts namespace"),
        "kernel.hostname" => refuse("is not allowed as it conflicts with the OCI config.hostname field"),
        _ => refuse("is not in a separate kernel namespace"),
    }
}

/// A name with slashes (in which a dot is part of a name) in the form with dots.
fn dotted(name: &str) -> String {
    let first = name.find(['.', '/']).and_then(|at| name[at..].chars().next());
    if first != Some('/') {
        return name.to_owned();
    }
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    name.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_15_a_container_has_the_well_known_mounts_with_cgroups_read_only() {
        let list = mounts(false, DEFAULT_SHM_SIZE);
        let targets: Vec<_> = list.iter().map(|m| m.destination().to_str().unwrap()).collect();
        assert_eq!(
            targets,
            ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
        );
        let options = |at: usize| list[at].options().clone().unwrap();
        assert!(options(3).contains(&"ro".to_owned()) && options(4).contains(&"ro".to_owned()));
        assert!(options(6).contains(&"size=67108864".to_owned()));
        let privileged = mounts(true, 1);
        for at in [3, 4] {
            let options = privileged[at].options().clone().unwrap();
            assert!(options.contains(&"rw".to_owned()) && !options.contains(&"ro".to_owned()));
        }
    }

    #[test]
    fn devices_are_refused_first() {
        let rules = device_rules();
        assert!(
            !rules[0].allow() && rules[0].major().is_none() && rules[0].access().as_deref() == Some("rwm")
        );
        assert!(rules[1..].iter().all(LinuxDeviceCgroup::allow));
        let open = rules[1..].iter().filter(|r| r.access().as_deref() != Some("m"));
        assert!(open.clone().all(|r| r.typ() == Some(LinuxDeviceType::C) && r.major().is_some()));
        assert_eq!(open.count(), 9);
    }

    #[test]
    fn device_rules_are_parsed() {
        let rule = parse_device_rule("c 1:* rm").unwrap();
        assert_eq!((rule.major(), rule.minor(), rule.access().as_deref()), (Some(1), None, Some("rm")));
        for bad in [
            "",
            "c",
            "c 1:3",
            "x 1:3 r",
            "c 1 r",
            "c 1:3 q",
            "c 1:3 ",
            "c -1:3 r",
            "c 1:3 rwmr",
            "c 1:4294967296 r",
            "c  1:3 r",
        ] {
            let error = parse_device_rule(bad).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid device cgroup rule format: '{bad}'"));
        }
    }

    #[test]
    fn limits_are_known_by_name() {
        for name in [
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
            "as",
        ] {
            rlimit(name).unwrap();
        }
        assert_eq!(rlimit("nofile").unwrap(), PosixRlimitType::RlimitNofile);
        assert_eq!(rlimit("bad").unwrap_err().to_string(), "wrong rlimit value: RLIMIT_BAD");
        assert!(rlimit("").is_err());
    }

    #[test]
    fn settings_of_the_host_are_refused() {
        let own = OwnNamespaces { ipc: true, network: true, uts: true, pid: true, user: false };
        for good in [
            "kernel.shmmax",
            "fs.mqueue.msg_max",
            "net.ipv4.ip_forward",
            "kernel.domainname",
            "net/ipv4/conf/eth0.1/forwarding",
        ] {
            check_sysctl(good, own).unwrap();
            assert!(check_sysctl(good, OwnNamespaces::default()).is_err(), "{good}");
        }
        let message = |name: &str| check_sysctl(name, own).unwrap_err().to_string();
        assert_eq!(message("kernel.bad"), "sysctl \"kernel.bad\" is not in a separate kernel namespace");
        assert_eq!(message("kernel/bad"), "sysctl \"kernel.bad\" is not in a separate kernel namespace");
        for bad in [
            "",
            "net",
            "kernel",
            "kernel.hostname",
            "vm.swappiness",
            "net..x",
            "net.../../kernel",
            "user.max",
            "net/../kernel/core_pattern",
            "/net/x",
            "net.",
        ] {
            assert!(check_sysctl(bad, own).is_err(), "{bad}");
        }
    }
}
