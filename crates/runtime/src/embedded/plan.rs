//! The specification becomes a plan: pure, complete, and refused if anything in it would be ignored.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use longshore_monitor::plan::{Caps, Container, Device, Hierarchy, Mount, MountKind, Process};
use longshore_oci::{IdMap, IdMapping};

use super::mountopt::{MountOptions, propagation};
use crate::error::{Error, Result};
use crate::spec::{self, LinuxNamespaceType, PosixRlimitType, Spec};
use crate::spec_defaults::{OwnNamespaces, check_sysctl};

/// Device nodes that every container has, with the default rules of the specification.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// What the monitor gets, and what the daemon has to bring along.
#[derive(Debug)]
pub(super) struct Planned {
    /// For the child.
    pub(super) container: Container,
    /// `CLONE_NEW*` to make, without the cgroup namespace.
    pub(super) namespaces: u64,
    pub(super) cgroup_namespace: bool,
    /// `CLONE_NEW*` and path of namespaces to join.
    pub(super) joins: Vec<(u64, PathBuf)>,
    pub(super) id_maps: Option<(Vec<u8>, Vec<u8>)>,
}

/// Facts about the machine and the request that the plan depends on.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// A network namespace is handed over.
    pub(super) netns: bool,
    pub(super) userns: Option<&'a IdMap>,
    pub(super) terminal: Option<(u16, u16)>,
    pub(super) init: bool,
    /// cgroup v1 hierarchies as they are to appear; empty for pure v2.
    pub(super) hierarchies: &'a [Hierarchy],
    /// Where the host has its one hierarchy, on pure v2.
    pub(super) unified: Option<&'a Path>,
    /// The container has no cgroup: none is shown.
    pub(super) no_cgroups: bool,
    /// Device nodes cannot be made: those of the host are bound.
    pub(super) bind_devices: bool,
}

/// Plans a container.
pub(super) fn container(spec: &Spec, facts: &Facts<'_>) -> Result<Planned> {
    refuse_unsupported(spec)?;
    let root = spec.root().as_ref().ok_or_else(|| invalid("the specification has no root"))?;
    let linux = spec.linux().clone().unwrap_or_default();
    let process_spec = spec.process().as_ref().ok_or_else(|| invalid("the specification has no process"))?;
    let mut planned = Planned {
        container: Container {
            rootfs: path(root.path())?,
            readonly: root.readonly().unwrap_or(false),
            propagation: root_propagation(&linux)?,
            init: facts.init,
            bind_devices: facts.bind_devices,
            process: process(process_spec, facts.terminal)?,
            ..Container::default()
        },
        namespaces: 0,
        cgroup_namespace: false,
        joins: Vec::new(),
        id_maps: None,
    };
    plan_namespaces(&mut planned, &linux, facts)?;
    let own = own_namespaces(&planned, facts);
    let c = &mut planned.container;
    let cgroup_namespace = planned.cgroup_namespace;
    let shown = |m: &&spec::Mount| {
        let of_cgroups = matches!(m.typ().as_deref(), Some("cgroup" | "cgroup2"));
        !(facts.no_cgroups && of_cgroups)
    };
    for mount in spec.mounts().iter().flatten().filter(shown) {
        let mut mount = plan_mount(mount, facts, cgroup_namespace)?;
        let shown = !facts.bind_devices || bind_the_hosts(&mut mount, own);
        if shown {
            c.mounts.push(mount);
        }
    }
    plan_names(&mut planned, spec)?;
    let c = &mut planned.container;
    plan_devices(c, &linux)?;
    c.masked = strings(linux.masked_paths().iter().flatten())?;
    c.readonly_paths = strings(linux.readonly_paths().iter().flatten())?;
    for (key, value) in linux.sysctl().iter().flatten() {
        c.sysctl.push(sysctl(key, value, own)?);
    }
    c.sysctl.sort();
    Ok(planned)
}

fn invalid(what: impl Into<String>) -> Error {
    Error::Invalid(what.into())
}

fn string(s: impl AsRef<[u8]>) -> Result<CString> {
    let s = s.as_ref();
    CString::new(s).map_err(|_| invalid(format!("{:?} has a NUL in it", String::from_utf8_lossy(s))))
}

fn strings<'a>(list: impl Iterator<Item = &'a String>) -> Result<Vec<CString>> {
    list.map(string).collect()
}

fn path(p: &Path) -> Result<CString> {
    string(p.as_os_str().as_bytes())
}

/// Parent and name of the container's cgroup: a relative path is below the daemon's own, and without
/// a path the container's id is the name.
pub(super) fn cgroup(spec: &Spec, parent: &str, id: &str) -> Result<(String, String)> {
    let given = spec.linux().as_ref().and_then(|l| l.cgroups_path().clone()).unwrap_or_default();
    let text = given.to_str().ok_or_else(|| invalid("the cgroup's path is not UTF-8"))?;
    let (above, name) = match text.rsplit_once('/') {
        _ if text.is_empty() => ("", id),
        Some((above, name)) => (above, name),
        None => ("", text),
    };
    let absolute = text.starts_with('/');
    let parent = if absolute { above.to_owned() } else { format!("{parent}/{above}") };
    let parent = parent.trim_matches('/');
    if parent.is_empty() || name.is_empty() {
        return Err(invalid(format!("cgroup path {text} needs a parent and a name")));
    }
    Ok((parent.to_owned(), name.to_owned()))
}

/// Limits and device rules. The devices that every container has may be used whatever the rules say;
/// that is part of the specification's idea of a container.
pub(super) fn resources(spec: &Spec) -> spec::LinuxResources {
    let mut resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.extend(crate::spec_defaults::device_rules().into_iter().filter(spec::LinuxDeviceCgroup::allow));
    resources.set_devices(Some(rules));
    resources
}

/// What we do not do must not be taken for done.
fn refuse_unsupported(spec: &Spec) -> Result<()> {
    let unsupported = |what: &str| Err(Error::Unsupported(what.to_owned()));
    if let Some(hooks) = spec.hooks()
        && *hooks != spec::Hooks::default()
    {
        return unsupported("hooks in the specification");
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    if linux.intel_rdt().is_some() {
        return unsupported("Intel RDT");
    }
    if linux.personality().is_some() {
        return unsupported("personality");
    }
    if linux.memory_policy().is_some() {
        return unsupported("memory policy");
    }
    if linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty()) {
        return unsupported("time offsets");
    }
    if linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()) {
        return unsupported("moving network devices");
    }
    if linux.mount_label().as_ref().is_some_and(|l| !l.is_empty()) {
        return unsupported("SELinux mount label");
    }
    Ok(())
}

fn root_propagation(linux: &spec::Linux) -> Result<u64> {
    match linux.rootfs_propagation().as_deref() {
        None | Some("" | "private" | "rprivate") => Ok(0),
        Some(name) => propagation(name)
            .map(|(flag, recursive)| flag | if recursive { libc::MS_REC } else { 0 })
            .ok_or_else(|| invalid(format!("root propagation {name} is unknown"))),
    }
}

fn plan_namespaces(planned: &mut Planned, linux: &spec::Linux, facts: &Facts<'_>) -> Result<()> {
    let mut seen = HashSet::new();
    for ns in linux.namespaces().iter().flatten() {
        let kind = ns.typ();
        let flag = kind as u64;
        if !seen.insert(flag) {
            return Err(invalid(format!("namespace {kind} is listed twice")));
        }
        match (kind, ns.path()) {
            (LinuxNamespaceType::Time, _) => return Err(Error::Unsupported("time namespace".into())),
            (LinuxNamespaceType::Network, _) if facts.netns => {}
            (LinuxNamespaceType::Mount | LinuxNamespaceType::User | LinuxNamespaceType::Cgroup, Some(_)) => {
                return Err(Error::Unsupported(format!("joining a {kind} namespace")));
            }
            (LinuxNamespaceType::Cgroup, None) => planned.cgroup_namespace = true,
            (LinuxNamespaceType::User, None) => {}
            (_, Some(path)) => planned.joins.push((flag, path.clone())),
            (_, None) => planned.namespaces |= flag,
        }
    }
    if !seen.contains(&(LinuxNamespaceType::Mount as u64)) {
        return Err(invalid("a container needs a mount namespace of its own"));
    }
    let own_map = spec_map(linux);
    let map = facts.userns.or(own_map.as_ref());
    match (map, seen.contains(&(LinuxNamespaceType::User as u64))) {
        (Some(map), _) if !map.is_identity() => {
            planned.namespaces |= LinuxNamespaceType::User as u64;
            planned.id_maps = Some((map_lines(&map.uids), map_lines(&map.gids)));
        }
        (_, true) => return Err(invalid("a user namespace needs id mappings")),
        _ => {}
    }
    Ok(())
}

fn spec_map(linux: &spec::Linux) -> Option<IdMap> {
    let list = |maps: &Option<Vec<spec::LinuxIdMapping>>| -> Vec<IdMapping> {
        maps.iter()
            .flatten()
            .map(|m| IdMapping { inner: m.container_id(), outer: m.host_id(), size: m.size() })
            .collect()
    };
    let map = IdMap { uids: list(linux.uid_mappings()), gids: list(linux.gid_mappings()) };
    (!map.is_identity()).then_some(map)
}

fn map_lines(maps: &[IdMapping]) -> Vec<u8> {
    let lines = maps.iter().map(|m| format!("{} {} {}\n", m.inner, m.outer, m.size));
    lines.collect::<String>().into_bytes()
}

fn plan_names(planned: &mut Planned, spec: &Spec) -> Result<()> {
    let names = [spec.hostname(), spec.domainname()];
    if names.iter().any(|n| n.as_ref().is_some_and(|n| !n.is_empty()))
        && planned.namespaces & LinuxNamespaceType::Uts as u64 == 0
    {
        return Err(invalid("a host name needs a UTS namespace of the container's own"));
    }
    let named = |name: &Option<String>| name.as_ref().filter(|n| !n.is_empty()).map(string).transpose();
    planned.container.hostname = named(spec.hostname())?;
    planned.container.domainname = named(spec.domainname())?;
    Ok(())
}

fn plan_mount(m: &spec::Mount, facts: &Facts<'_>, cgroup_namespace: bool) -> Result<Mount> {
    let target = m.destination();
    let name = target.display();
    if !target.is_absolute() || target.components().any(|c| c == Component::ParentDir) {
        return Err(invalid(format!("mount destination {name} must be absolute and without ..")));
    }
    let options = MountOptions::parse(m.options().as_deref().unwrap_or_default())?;
    let fstype = m.typ().as_deref().unwrap_or("");
    let mut clear = options.clear;
    let what = if let Some(recursive) = options.bind.or((fstype == "bind").then_some(false)) {
        if let Some((key, _)) = options.data.first() {
            return Err(invalid(format!("mount {name}: option {key} is not possible with a bind mount")));
        }
        // `rw` is the absence of `ro`, not a way to write to what the host mounted read-only.
        clear &= !libc::MOUNT_ATTR_RDONLY;
        let source = m.source().as_ref().ok_or_else(|| invalid(format!("mount {name} has no source")))?;
        if !source.is_absolute() {
            return Err(invalid(format!("mount {name}: source {} must be absolute", source.display())));
        }
        MountKind::Bind { source: path(source)?, recursive }
    } else if matches!(fstype, "cgroup" | "cgroup2") {
        match facts.unified.filter(|_| !cgroup_namespace) {
            // The options of a new mount in the host's own cgroup namespace count for every mount of the
            // tree: without them the host would lose its `nsdelegate` and `memory_recursiveprot`.
            Some(top) => {
                clear &= !libc::MOUNT_ATTR_RDONLY;
                MountKind::Bind { source: path(top)?, recursive: false }
            }
            None => {
                let mut v1 = facts.hierarchies.to_vec();
                if cgroup_namespace {
                    v1.iter_mut().for_each(|h| h.bind = None);
                }
                MountKind::Cgroup { v1 }
            }
        }
    } else if fstype.is_empty() {
        return Err(invalid(format!("mount {name} has no type")));
    } else {
        let source = match m.source() {
            Some(source) => path(source)?,
            None => string(fstype)?,
        };
        let pairs = options.data.iter().map(|(k, v)| Ok((string(k)?, string(v)?)));
        MountKind::New { fstype: string(fstype)?, source, options: pairs.collect::<Result<_>>()? }
    };
    Ok(Mount {
        target: path(target)?,
        what,
        set: options.set,
        clear,
        set_recursive: options.set_recursive,
        propagation: options.propagation,
        propagation_recursive: options.propagation_recursive,
    })
}

/// A user namespace has no right to mount afresh what shows a namespace that belongs to one further out: the host's own
/// mount is shown. Whether there is one.
fn bind_the_hosts(mount: &mut Mount, own: OwnNamespaces) -> bool {
    let MountKind::New { fstype, .. } = &mount.what else { return true };
    let source = match fstype.to_bytes() {
        b"proc" if !own.pid => c"/proc",
        b"sysfs" if !own.network => c"/sys",
        b"mqueue" if !own.ipc => c"/dev/mqueue",
        _ => return true,
    };
    let source = source.to_owned();
    let there = Path::new(OsStr::from_bytes(source.to_bytes())).is_dir();
    mount.what = MountKind::Bind { source, recursive: true };
    mount.clear = 0;
    there
}

fn plan_devices(c: &mut Container, linux: &spec::Linux) -> Result<()> {
    let mut listed = HashSet::new();
    for d in linux.devices().iter().flatten() {
        let kind = match d.typ() {
            spec::LinuxDeviceType::C | spec::LinuxDeviceType::U => libc::S_IFCHR,
            spec::LinuxDeviceType::B => libc::S_IFBLK,
            spec::LinuxDeviceType::P => libc::S_IFIFO,
            spec::LinuxDeviceType::A => {
                return Err(invalid(format!("device {} has no type", d.path().display())));
            }
        };
        let number = |n: i64| {
            u32::try_from(n).map_err(|_| invalid(format!("device {}: bad number {n}", d.path().display())))
        };
        listed.insert(d.path().clone());
        c.devices.push(Device {
            path: path(d.path())?,
            mode: kind | (d.file_mode().unwrap_or(0o666) & 0o7777),
            major: number(d.major())?,
            minor: number(d.minor())?,
            uid: d.uid().unwrap_or(0),
            gid: d.gid().unwrap_or(0),
        });
    }
    // A /dev that is a bind mount belongs to whoever made it.
    let own_dev = c.mounts.iter().rfind(|m| m.target.to_bytes() == b"/dev");
    if !own_dev.is_some_and(|m| matches!(m.what, MountKind::New { .. })) {
        return Ok(());
    }
    c.dev_links = true;
    for (name, major, minor) in DEFAULT_DEVICES {
        if !listed.contains(Path::new(name)) {
            let mode = libc::S_IFCHR | 0o666;
            c.devices.push(Device { path: string(name)?, mode, major, minor, uid: 0, gid: 0 });
        }
    }
    Ok(())
}

/// A setting must belong to a namespace of the container, or it would change the host.
fn sysctl(key: &str, value: &str, own: OwnNamespaces) -> Result<(CString, CString)> {
    check_sysctl(key, own)?;
    let slashed = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    if slashed.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(invalid(format!("sysctl {key} is malformed")));
    }
    Ok((string(slashed)?, string(value)?))
}

/// Which namespaces the container does not share with the host.
fn own_namespaces(planned: &Planned, facts: &Facts<'_>) -> OwnNamespaces {
    let made = |kind: LinuxNamespaceType| planned.namespaces & kind as u64 != 0;
    let joined = |kind: LinuxNamespaceType| planned.joins.iter().any(|(k, _)| *k == kind as u64);
    OwnNamespaces {
        ipc: made(LinuxNamespaceType::Ipc) || joined(LinuxNamespaceType::Ipc),
        network: made(LinuxNamespaceType::Network) || joined(LinuxNamespaceType::Network) || facts.netns,
        uts: made(LinuxNamespaceType::Uts),
        pid: made(LinuxNamespaceType::Pid) || joined(LinuxNamespaceType::Pid),
        user: made(LinuxNamespaceType::User),
    }
}

/// Plans a process: the container's first or an exec. `terminal` is the size of its terminal.
pub(crate) fn process(p: &spec::Process, terminal: Option<(u16, u16)>) -> Result<Process> {
    let unsupported = |what: &str| Err(Error::Unsupported(what.to_owned()));
    if p.selinux_label().as_ref().is_some_and(|l| !l.is_empty()) {
        return unsupported("SELinux label");
    }
    if p.scheduler().is_some() {
        return unsupported("scheduler");
    }
    if p.exec_cpu_affinity().is_some() {
        return unsupported("exec CPU affinity");
    }
    let args = strings(p.args().iter().flatten())?;
    if args.is_empty() {
        return Err(invalid("no command specified"));
    }
    if !p.cwd().is_absolute() {
        return Err(invalid(format!("working directory {} must be absolute", p.cwd().display())));
    }
    let user = p.user();
    // -1 means "leave as it is" to the system.
    let ids = [user.uid(), user.gid()];
    let groups = user.additional_gids().clone().unwrap_or_default();
    if ids.iter().chain(&groups).any(|id| *id == u32::MAX) {
        return Err(invalid("4294967295 is no user or group id"));
    }
    let mut rlimits = Vec::new();
    for limit in p.rlimits().iter().flatten() {
        rlimits.push((rlimit(limit.typ()), limit.soft(), limit.hard()));
    }
    Ok(Process {
        args,
        env: strings(p.env().iter().flatten())?,
        cwd: path(p.cwd())?,
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: user.umask(),
        caps: p.capabilities().as_ref().map(caps).unwrap_or_default(),
        rlimits,
        oom_score_adj: p.oom_score_adj(),
        no_new_privs: p.no_new_privileges().unwrap_or(false),
        apparmor: p.apparmor_profile().as_ref().filter(|a| !a.is_empty()).map(string).transpose()?,
        seccomp: None,
        terminal,
        ioprio: p.io_priority().as_ref().map(ioprio).transpose()?,
    })
}

fn rlimit(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType::*;
    match kind {
        RlimitCpu => libc::RLIMIT_CPU,
        RlimitFsize => libc::RLIMIT_FSIZE,
        RlimitData => libc::RLIMIT_DATA,
        RlimitStack => libc::RLIMIT_STACK,
        RlimitCore => libc::RLIMIT_CORE,
        RlimitRss => libc::RLIMIT_RSS,
        RlimitNproc => libc::RLIMIT_NPROC,
        RlimitNofile => libc::RLIMIT_NOFILE,
        RlimitMemlock => libc::RLIMIT_MEMLOCK,
        RlimitAs => libc::RLIMIT_AS,
        RlimitLocks => libc::RLIMIT_LOCKS,
        RlimitSigpending => libc::RLIMIT_SIGPENDING,
        RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitNice => libc::RLIMIT_NICE,
        RlimitRtprio => libc::RLIMIT_RTPRIO,
        RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

fn ioprio(p: &spec::LinuxIOPriority) -> Result<u32> {
    let class = match p.class() {
        spec::IOPriorityClass::IoprioClassRt => 1,
        spec::IOPriorityClass::IoprioClassBe => 2,
        spec::IOPriorityClass::IoprioClassIdle => 3,
    };
    let priority = u32::try_from(p.priority()).ok().filter(|p| *p < 8);
    let priority = priority.ok_or_else(|| invalid("I/O priority must be between 0 and 7"))?;
    Ok(class << 13 | priority)
}

/// The sets as bits. What the specification says of the inheritable set does not count: a process
/// gets exactly the ambient ones there, or files in the image could raise what an ordinary user of
/// the container has (CVE-2022-24769).
fn caps(c: &spec::LinuxCapabilities) -> Caps {
    let bits = |set: &Option<spec::Capabilities>| {
        set.iter().flatten().fold(0u64, |all, cap| all | 1 << capability(*cap))
    };
    let (bounding, permitted) = (bits(c.bounding()), bits(c.permitted()));
    let ambient = bits(c.ambient()) & permitted & bits(c.inheritable());
    Caps { bounding, permitted, effective: bits(c.effective()) & permitted, ambient }
}

/// Number of a capability (capability(7)).
fn capability(cap: spec::Capability) -> u32 {
    use spec::Capability::*;
    match cap {
        Chown => 0,
        DacOverride => 1,
        DacReadSearch => 2,
        Fowner => 3,
        Fsetid => 4,
        Kill => 5,
        Setgid => 6,
        Setuid => 7,
        Setpcap => 8,
        LinuxImmutable => 9,
        NetBindService => 10,
        NetBroadcast => 11,
        NetAdmin => 12,
        NetRaw => 13,
        IpcLock => 14,
        IpcOwner => 15,
        SysModule => 16,
        SysRawio => 17,
        SysChroot => 18,
        SysPtrace => 19,
        SysPacct => 20,
        SysAdmin => 21,
        SysBoot => 22,
        SysNice => 23,
        SysResource => 24,
        SysTime => 25,
        SysTtyConfig => 26,
        Mknod => 27,
        Lease => 28,
        AuditWrite => 29,
        AuditControl => 30,
        Setfcap => 31,
        MacOverride => 32,
        MacAdmin => 33,
        Syslog => 34,
        WakeAlarm => 35,
        BlockSuspend => 36,
        AuditRead => 37,
        Perfmon => 38,
        Bpf => 39,
        CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn base() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "root": { "path": "/merged" },
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["a"], "cwd": "/" },
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }] },
        })
    }

    fn planned(spec: Value, facts: &Facts<'_>) -> Result<Planned> {
        container(&serde_json::from_value(spec).unwrap(), facts)
    }

    fn refused(spec: Value) -> String {
        planned(spec, &Facts::default()).unwrap_err().to_string()
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let mut spec = base();
        spec["linux"]["personality"] = json!({ "domain": "LINUX" });
        assert_eq!(refused(spec), "personality is not supported");
        let mut spec = base();
        spec["process"]["selinuxLabel"] = json!("x");
        assert_eq!(refused(spec), "SELinux label is not supported");
        let mut spec = base();
        spec["linux"]["namespaces"] = json!([{ "type": "pid" }]);
        assert!(refused(spec).contains("mount namespace"));
        let mut spec = base();
        spec["linux"]["namespaces"][1]["type"] = json!("mount");
        assert!(refused(spec).contains("twice"));
        let mut spec = base();
        spec["mounts"] = json!([{ "destination": "/a/../b", "type": "tmpfs" }]);
        assert!(refused(spec).contains("without .."));
        let mut spec = base();
        spec["hostname"] = json!("h");
        spec["linux"]["namespaces"] = json!([{ "type": "mount" }]);
        assert!(refused(spec).contains("UTS namespace"));
        let mut spec = base();
        spec["linux"]["sysctl"] = json!({ "net.core.somaxconn": "1" });
        assert!(refused(spec).contains("not allowed in host network namespace"));
        let mut spec = base();
        spec["process"]["args"] = json!(["a\u{0}b"]);
        assert!(refused(spec).contains("NUL"));
    }

    #[test]
    fn namespaces_are_made_or_joined() {
        let mut spec = base();
        spec["linux"]["namespaces"] = json!([
            { "type": "mount" }, { "type": "cgroup" }, { "type": "network" }, { "type": "ipc", "path": "/proc/7/ns/ipc" },
        ]);
        let p = planned(spec.clone(), &Facts { netns: true, ..Facts::default() }).unwrap();
        assert_eq!(p.namespaces, LinuxNamespaceType::Mount as u64);
        assert!(p.cgroup_namespace);
        assert_eq!(p.joins, [(LinuxNamespaceType::Ipc as u64, PathBuf::from("/proc/7/ns/ipc"))]);
        let p = planned(spec.clone(), &Facts::default()).unwrap();
        assert_ne!(p.namespaces & LinuxNamespaceType::Network as u64, 0);
        let map = IdMapping { inner: 0, outer: 1000, size: 10 };
        let map = IdMap { uids: vec![map], gids: vec![map] };
        let p = planned(spec, &Facts { userns: Some(&map), ..Facts::default() }).unwrap();
        assert_ne!(p.namespaces & LinuxNamespaceType::User as u64, 0);
        assert_eq!(p.id_maps.unwrap().0, b"0 1000 10\n");
    }

    #[test]
    fn the_hosts_own_cgroup_mount_keeps_its_options() {
        let mut spec = base();
        spec["mounts"] = json!([{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["ro", "nosuid"] }]);
        let facts = Facts { unified: Some(Path::new("/sys/fs/cgroup")), ..Facts::default() };
        let mount = |spec: &Value| planned(spec.clone(), &facts).unwrap().container.mounts.remove(0);
        let shared = mount(&spec);
        assert_eq!(shared.what, MountKind::Bind { source: c"/sys/fs/cgroup".into(), recursive: false });
        assert_eq!(shared.set, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID);
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
        assert_eq!(mount(&spec).what, MountKind::Cgroup { v1: Vec::new() });
    }

    #[test]
    fn default_devices_come_with_a_dev_of_our_own_only() {
        let mut spec = base();
        assert!(planned(spec.clone(), &Facts::default()).unwrap().container.devices.is_empty());
        spec["mounts"] = json!([{ "destination": "/dev", "type": "tmpfs", "options": ["mode=755"] }]);
        spec["linux"]["devices"] =
            json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600 }]);
        let c = planned(spec.clone(), &Facts::default()).unwrap().container;
        assert_eq!(c.devices.len(), DEFAULT_DEVICES.len());
        assert_eq!(c.devices[0].mode & 0o777, 0o600);
        assert!(c.dev_links);
        spec["mounts"] =
            json!([{ "destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"] }]);
        assert!(!planned(spec, &Facts::default()).unwrap().container.dev_links);
    }

    #[test]
    fn atk_11_ambient_needs_permitted_and_inheritable() {
        let sets = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL", "CAP_CHOWN"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL", "CAP_CHOWN"],
        });
        let set = caps(&serde_json::from_value(sets).unwrap());
        assert_eq!((set.bounding, set.permitted, set.effective, set.ambient), (0x21, 0x20, 0x20, 0x20));
    }

    #[test]
    fn atk_12_minus_one_is_no_id() {
        for ids in [
            json!({ "uid": u32::MAX, "gid": 0 }),
            json!({ "uid": 0, "gid": 0, "additionalGids": [u32::MAX] }),
        ] {
            let mut spec = base();
            spec["process"]["user"] = ids;
            assert!(refused(spec).contains("4294967295"));
        }
    }

    #[test]
    fn cgroups_are_below_the_daemons_or_where_they_were_asked_for() {
        let place = |path: Option<&str>| {
            let mut spec = base();
            if let Some(path) = path {
                spec["linux"]["cgroupsPath"] = json!(path);
            }
            cgroup(&serde_json::from_value(spec).unwrap(), "parent", "id")
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(place(None).unwrap(), pair("parent", "id"));
        assert_eq!(place(Some("name")).unwrap(), pair("parent", "name"));
        assert_eq!(place(Some("/other/deep/name")).unwrap(), pair("other/deep", "name"));
        assert!(place(Some("/name")).is_err());
        assert!(place(Some("x/")).is_err());
    }
}
