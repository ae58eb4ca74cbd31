//! From a record to the runtime specification. Pure: what has to be looked up comes in [`Facts`].

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use longshore_runtime::caps::CapSet;
use longshore_runtime::spec::{LinuxSeccomp, Spec};
use longshore_runtime::spec_defaults::{self, DEFAULT_PATH};
use longshore_runtime::user::User;
use serde_json::{Value, json};

use crate::model::{CreateExec, DeviceMapping, HostConfig, MountPoint, Resources};
use crate::record::Record;
use crate::{Error, Result};

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: String,
    /// `c` or `b`.
    pub(crate) kind: &'static str,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) access: String,
}

/// What was looked up for one start.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Root of the container in the host's mount namespace.
    pub(crate) rootfs: PathBuf,
    /// The directory with hostname, hosts, resolv.conf.
    pub(crate) dir: PathBuf,
    pub(crate) user: User,
    /// Volumes and binds with the sources to be used now.
    pub(crate) mounts: Vec<MountPoint>,
    /// Shared memory of the host's mount namespace; `None`: a tmpfs of its own.
    pub(crate) shm: Option<PathBuf>,
    pub(crate) devices: Vec<Device>,
    /// Namespaces to join: type and path.
    pub(crate) joins: Vec<(&'static str, PathBuf)>,
    pub(crate) apparmor: Option<String>,
    pub(crate) cgroup: String,
    /// Variables that tell of the containers that it is linked to.
    pub(crate) linked_env: Vec<String>,
    /// The filter of system calls; `None`: unconfined.
    pub(crate) seccomp: Option<LinuxSeccomp>,
}

/// Whether the capability names are known, for the door.
///
/// # Errors
/// In Docker's words.
pub(crate) fn check_capabilities(host: &HostConfig) -> Result<()> {
    capabilities(host).map(drop)
}

/// The set that the container gets.
///
/// # Errors
/// For names that are unknown.
pub(super) fn capabilities(host: &HostConfig) -> Result<CapSet> {
    let list = |l: &Option<Vec<String>>| l.clone().unwrap_or_default();
    Ok(CapSet::resolve(host.privileged, &list(&host.cap_add), &list(&host.cap_drop))?)
}

/// Whether a container may change its own interfaces and addresses.
pub(crate) fn may_configure_network(host: &HostConfig) -> bool {
    capabilities(host).is_ok_and(|set| set.contains("CAP_NET_ADMIN"))
}

/// Docker answers an unknown user with a server error.
pub(crate) fn user_error(e: longshore_runtime::Error) -> Error {
    Error::internal(e.to_string())
}

/// The whole specification.
///
/// # Errors
/// For values that only turn out wrong now.
pub(crate) fn build(r: &Record, f: &Facts) -> Result<Spec> {
    let h = &r.host;
    let own_uts = h.uts_mode != "host";
    let own_names = own_uts && h.network_mode != "host";
    let linux = json!({
        "namespaces": namespaces(h, f),
        "cgroupsPath": f.cgroup,
        "resources": resources(h, f)?,
        "devices": f.devices.iter().map(node).collect::<Vec<_>>(),
        "maskedPaths": h.masked_paths.clone().unwrap_or_default(),
        "readonlyPaths": h.readonly_paths.clone().unwrap_or_default(),
        "sysctl": h.sysctls.clone().unwrap_or_default(),
        "rootfsPropagation": root_propagation(&f.mounts),
    });
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "root": {"path": f.rootfs, "readonly": h.readonly_rootfs},
        "process": process(r, f)?,
        "mounts": mounts(r, f)?,
        "linux": linux,
        "annotations": h.annotations.clone().unwrap_or_default(),
    });
    if own_uts {
        spec["hostname"] = json!(r.config.hostname);
        if own_names && !r.config.domainname.is_empty() {
            spec["domainname"] = json!(r.config.domainname);
        }
    }
    let mut spec: Spec =
        serde_json::from_value(spec).map_err(|e| Error::internal(format!("build specification: {e}")))?;
    // Large: not through text.
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(f.seccomp.clone());
    }
    Ok(spec)
}

/// An exec's process: everything that the container's init got, but for what was asked.
///
/// # Errors
/// For values that turn out wrong.
pub(crate) fn exec_process(
    r: &Record,
    f: &Facts,
    e: &CreateExec,
) -> Result<longshore_runtime::spec::Process> {
    let mut host = r.host.clone();
    host.privileged |= e.privileged;
    let mut env = environment(r, e.tty, &f.linked_env);
    for entry in &e.env {
        let key = entry.split('=').next().unwrap_or(entry);
        crate::changes::set_env(&mut env, key, entry.split_once('=').map_or("", |(_, v)| v));
    }
    home(&mut env, &f.user);
    let cwd = match (e.working_dir.as_str(), r.config.run.working_dir.as_str()) {
        ("", "") => "/",
        ("", own) => own,
        (asked, _) => asked,
    };
    let mut p = common(&host, f)?;
    p["args"] = json!(e.cmd);
    p["env"] = json!(env);
    p["cwd"] = json!(cwd);
    p["terminal"] = json!(e.tty);
    serde_json::from_value(p).map_err(|e| Error::internal(format!("build process: {e}")))
}

fn process(r: &Record, f: &Facts) -> Result<Value> {
    let mut env = environment(r, r.config.tty, &f.linked_env);
    home(&mut env, &f.user);
    let mut p = common(&r.host, f)?;
    p["args"] = json!(std::iter::once(&r.path).chain(&r.args).collect::<Vec<_>>());
    p["env"] = json!(env);
    p["cwd"] = json!(if r.config.run.working_dir.is_empty() { "/" } else { &r.config.run.working_dir });
    p["terminal"] = json!(r.config.tty);
    let (rows, cols) = r.host.console_size;
    if rows > 0 && cols > 0 {
        p["consoleSize"] = json!({"height": rows, "width": cols});
    }
    Ok(p)
}

/// What init and execs share.
fn common(host: &HostConfig, f: &Facts) -> Result<Value> {
    let no_new = host.security_opt.iter().flatten().any(|o| {
        matches!(o.as_str(), "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true")
    });
    let mut p = json!({
        "user": {"uid": f.user.uid, "gid": f.user.gid, "additionalGids": f.user.groups},
        "capabilities": capabilities(host)?.to_process(f.user.uid),
        "noNewPrivileges": no_new,
        "rlimits": rlimits(&host.resources)?,
    });
    if host.oom_score_adj != 0 {
        p["oomScoreAdj"] = json!(host.oom_score_adj);
    }
    if let Some(profile) = &f.apparmor {
        p["apparmorProfile"] = json!(profile);
    }
    Ok(p)
}

fn environment(r: &Record, tty: bool, linked: &[String]) -> Vec<String> {
    let mut env = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={}", r.config.hostname)];
    if tty {
        env.push("TERM=xterm".into());
    }
    for entry in linked.iter().chain(r.config.run.env.iter().flatten()) {
        match entry.split_once('=') {
            Some((k, v)) => crate::changes::set_env(&mut env, k, v),
            // A bare name takes the variable away.
            None => env.retain(|e| e.split('=').next() != Some(entry)),
        }
    }
    env
}

fn home(env: &mut Vec<String>, user: &User) {
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
}

fn rlimits(r: &Resources) -> Result<Vec<Value>> {
    let limit = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    r.ulimits
        .iter()
        .flatten()
        .map(|u| {
            let kind = spec_defaults::rlimit(&u.name)?;
            if u.hard >= 0 && (u.soft > u.hard || u.soft < 0) {
                let n = &u.name;
                return Err(Error::internal(format!("ulimit {n}: the soft limit is above the hard limit")));
            }
            Ok(json!({"type": kind, "soft": limit(u.soft), "hard": limit(u.hard)}))
        })
        .collect()
}

fn namespaces(h: &HostConfig, f: &Facts) -> Vec<Value> {
    let mut out = vec![json!({"type": "mount"})];
    let mut add = |kind: &str, own: bool| match f.joins.iter().find(|(k, _)| *k == kind) {
        Some((_, path)) => out.push(json!({"type": kind, "path": path})),
        None if own => out.push(json!({"type": kind})),
        None => {}
    };
    add("pid", h.pid_mode != "host");
    add("ipc", h.ipc_mode != "host");
    add("uts", h.uts_mode != "host");
    add("network", h.network_mode != "host");
    add("cgroup", h.cgroupns_mode != "host");
    out
}

/// A mount that propagates needs a root that does.
fn root_propagation(mounts: &[MountPoint]) -> &'static str {
    let has = |names: [&str; 2]| mounts.iter().any(|m| names.contains(&m.propagation.as_str()));
    if has(["shared", "rshared"]) {
        "shared"
    } else if has(["slave", "rslave"]) {
        "rslave"
    } else {
        "rprivate"
    }
}

fn resources(h: &HostConfig, f: &Facts) -> Result<Value> {
    let r = &h.resources;
    let mut memory = json!({});
    let mut cpu = json!({});
    for (key, value) in [("limit", r.memory), ("reservation", r.memory_reservation), ("swap", r.memory_swap)]
    {
        if value != 0 {
            memory[key] = json!(value);
        }
    }
    if let Some(s) = r.memory_swappiness {
        memory["swappiness"] = json!(s);
    }
    if r.oom_kill_disable == Some(true) {
        memory["disableOOMKiller"] = json!(true);
    }
    let (period, quota) = match r.nano_cpus {
        0 => (r.cpu_period, r.cpu_quota),
        n => (100_000, n / 10_000),
    };
    for (key, value) in [("shares", r.cpu_shares), ("period", period), ("quota", quota)] {
        if value != 0 {
            cpu[key] = json!(value);
        }
    }
    for (key, set) in [("cpus", &r.cpuset_cpus), ("mems", &r.cpuset_mems)] {
        if !set.is_empty() {
            cpu[key] = json!(set);
        }
    }
    let mut out = json!({"memory": memory, "cpu": cpu, "devices": rules(h, f)?});
    if let Some(limit) = r.pids_limit.filter(|l| *l > 0) {
        out["pids"] = json!({"limit": limit});
    }
    let block = block_io(r)?;
    if block != json!({}) {
        out["blockIO"] = block;
    }
    Ok(out)
}

/// Shares and limits of block devices, which are named by path.
fn block_io(r: &Resources) -> Result<Value> {
    let mut out = json!({});
    if r.blkio_weight != 0 {
        out["weight"] = json!(r.blkio_weight);
    }
    let weights: Vec<Value> = r
        .blkio_weight_device
        .iter()
        .flatten()
        .map(|d| block_device(&d.path).map(|(a, b)| json!({"major": a, "minor": b, "weight": d.weight})))
        .collect::<Result<_>>()?;
    if !weights.is_empty() {
        out["weightDevice"] = json!(weights);
    }
    for (key, list) in [
        ("throttleReadBpsDevice", &r.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &r.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &r.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &r.blkio_device_write_iops),
    ] {
        let limits: Vec<Value> = list
            .iter()
            .flatten()
            .map(|d| block_device(&d.path).map(|(a, b)| json!({"major": a, "minor": b, "rate": d.rate})))
            .collect::<Result<_>>()?;
        if !limits.is_empty() {
            out[key] = json!(limits);
        }
    }
    Ok(out)
}

fn block_device(path: &str) -> Result<(u32, u32)> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(format!("device {path}"), e))?;
    if !meta.file_type().is_block_device() {
        return Err(Error::invalid(format!("{path} is no block device")));
    }
    Ok((rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())))
}

/// Who may use which device.
fn rules(h: &HostConfig, f: &Facts) -> Result<Vec<Value>> {
    let value = |rule: &longshore_runtime::spec::LinuxDeviceCgroup| json!(rule);
    if h.privileged {
        return Ok(vec![value(&spec_defaults::all_devices_rule())]);
    }
    let mut out: Vec<Value> = spec_defaults::device_rules().iter().map(value).collect();
    for d in &f.devices {
        out.push(
            json!({"allow": true, "type": d.kind, "major": d.major, "minor": d.minor, "access": d.access}),
        );
    }
    for text in h.resources.device_cgroup_rules.iter().flatten() {
        out.push(value(&spec_defaults::parse_device_rule(text)?));
    }
    Ok(out)
}

fn node(d: &Device) -> Value {
    json!({"path": d.path, "type": d.kind, "major": d.major, "minor": d.minor, "fileMode": d.mode, "uid": d.uid, "gid": d.gid})
}

/// The access that `--device` asks for.
pub(crate) fn access(d: &DeviceMapping) -> Result<String> {
    let text = if d.permissions.is_empty() { "rwm" } else { &d.permissions };
    if text.bytes().all(|b| b"rwm".contains(&b)) {
        return Ok(text.to_owned());
    }
    Err(Error::invalid(format!("invalid device mode: {text}")))
}

fn mounts(r: &Record, f: &Facts) -> Result<Vec<Value>> {
    let h = &r.host;
    let words = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let shm_size = u64::try_from(h.shm_size).unwrap_or(spec_defaults::DEFAULT_SHM_SIZE);
    let mut system: Vec<Value> =
        spec_defaults::mounts(h.privileged, shm_size).iter().map(|m| json!(m)).collect();
    if f.shm.is_some() || h.ipc_mode == "none" {
        system.retain(|m| m["destination"] != "/dev/shm");
    }
    let own = |target: &str| f.mounts.iter().any(|m| m.destination == target);
    system.retain(|m| !own(m["destination"].as_str().unwrap_or_default()));
    let mut asked: Vec<(&str, Value)> = Vec::new();
    if let Some(source) = &f.shm
        && !own("/dev/shm")
    {
        let options = words(&["bind", "rprivate", "rw", "nosuid", "noexec", "nodev"]);
        asked.push(("/dev/shm", bind(source, "/dev/shm", options)));
    }
    let files = if h.readonly_rootfs { "ro" } else { "rw" };
    for target in ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"] {
        if !own(target) {
            let source = f.dir.join(target.trim_start_matches("/etc/"));
            asked.push((target, bind(&source, target, words(&["rbind", "rprivate", files]))));
        }
    }
    for m in &f.mounts {
        asked.push((&m.destination, asked_mount(m, h)?));
    }
    // A mount above another one comes first: also a volume at /etc, which has these files then.
    asked.sort_by_key(|(target, _)| target.matches('/').count());
    system.extend(asked.into_iter().map(|(_, mount)| mount));
    Ok(system)
}

fn bind(source: &Path, target: &str, options: Vec<String>) -> Value {
    json!({"destination": target, "type": "bind", "source": source, "options": options})
}

fn asked_mount(m: &MountPoint, h: &HostConfig) -> Result<Value> {
    let mut options: Vec<String> = Vec::new();
    if m.kind == "tmpfs" {
        options.extend(["noexec", "nosuid", "nodev"].map(str::to_owned));
        for o in m.tmpfs_options.split(',').filter(|o| !o.is_empty()) {
            // What was asked for replaces its opposite.
            let opposite = match o {
                "exec" => "noexec",
                "suid" => "nosuid",
                "dev" => "nodev",
                _ => "",
            };
            options.retain(|d| d != opposite && d != o);
            options.push(o.to_owned());
        }
        return Ok(
            json!({"destination": m.destination, "type": "tmpfs", "source": "tmpfs", "options": options}),
        );
    }
    options.push(if m.non_recursive { "bind" } else { "rbind" }.into());
    if !m.rw {
        options.push("ro".into());
    }
    options.push(if m.propagation.is_empty() { "rprivate".into() } else { m.propagation.clone() });
    let spec = h
        .mounts
        .iter()
        .flatten()
        .find(|s| s.kind == "bind" && super::mounts::clean(&s.target) == m.destination);
    if let Some(s) = spec.filter(|s| s.read_only) {
        // Read-only means below, too, where asked.
        if s.bind_read_only_force_recursive {
            options.retain(|o| o != "ro");
            options.push("rro".into());
        }
    }
    Ok(bind(&m.source, &m.destination, options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContainerConfig, Ulimit};

    fn record(host: HostConfig) -> Record {
        serde_json::from_value(json!({
            "id": "a".repeat(64), "name": "n", "created": 0,
            "image": longshore_oci::Digest::of(b""), "path": "sh", "args": ["-c", "x"],
            "config": serde_json::to_value(ContainerConfig { hostname: "h".into(), ..Default::default() }).expect("json"),
            "host": serde_json::to_value(host).expect("json"),
        }))
        .expect("record")
    }

    fn facts() -> Facts {
        Facts {
            rootfs: "/r".into(),
            dir: "/c".into(),
            mounts: vec![],
            shm: None,
            devices: vec![],
            joins: vec![],
            apparmor: None,
            cgroup: String::new(),
            linked_env: Vec::new(),
            seccomp: None,
            user: User { uid: 0, gid: 0, groups: vec![], home: "/root".into(), name: None },
        }
    }

    fn json_of(host: HostConfig, f: &Facts) -> Value {
        serde_json::to_value(build(&record(host), f).expect("spec")).expect("json")
    }

    #[test]
    fn atk_11_nothing_inheritable_and_less_for_users() {
        let mut f = facts();
        let root = json_of(HostConfig::default(), &f);
        assert_eq!(root["process"]["capabilities"]["effective"].as_array().map(Vec::len), Some(14));
        f.user.uid = 1000;
        let user = json_of(HostConfig::default(), &f);
        let caps = &user["process"]["capabilities"];
        assert!(caps["inheritable"].as_array().is_none_or(Vec::is_empty));
        assert!(caps["effective"].as_array().is_none_or(Vec::is_empty), "{caps}");
        assert_eq!(caps["bounding"].as_array().map(Vec::len), Some(14));
    }

    #[test]
    fn atk_15_cgroups_are_private_and_read_only() {
        let spec = json_of(HostConfig::default(), &facts());
        let mounts = spec["mounts"].as_array().expect("mounts");
        let cgroup = mounts.iter().find(|m| m["destination"] == "/sys/fs/cgroup").expect("cgroup");
        assert!(cgroup["options"].as_array().expect("options").contains(&json!("ro")));
        let kinds: Vec<_> =
            spec["linux"]["namespaces"].as_array().expect("ns").iter().map(|n| n["type"].clone()).collect();
        assert!(kinds.contains(&json!("cgroup")) && kinds.contains(&json!("network")), "{kinds:?}");
    }

    #[test]
    fn devices_are_denied_unless_listed() {
        let spec = json_of(HostConfig::default(), &facts());
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], json!(false));
    }

    #[test]
    fn limits_and_environment() {
        let host = HostConfig {
            resources: Resources { nano_cpus: 500_000_000, memory: 1 << 30, ..Default::default() },
            ..Default::default()
        };
        let spec = json_of(host, &facts());
        assert_eq!(spec["linux"]["resources"]["cpu"]["quota"], json!(50_000));
        let env = spec["process"]["env"].as_array().expect("env").clone();
        assert_eq!(env, [json!(format!("PATH={DEFAULT_PATH}")), json!("HOSTNAME=h"), json!("HOME=/root")]);
        let bad = Resources {
            ulimits: Some(vec![Ulimit { name: "bad".into(), soft: 1, hard: 1 }]),
            ..Default::default()
        };
        assert_eq!(rlimits(&bad).unwrap_err().to_string(), "wrong rlimit value: RLIMIT_BAD");
    }

    #[test]
    fn asked_mounts_replace_the_system_s_and_parents_come_first() {
        let m = |d: &str| MountPoint {
            kind: "bind".into(),
            source: "/s".into(),
            destination: d.into(),
            rw: true,
            ..Default::default()
        };
        let f = Facts { mounts: vec![m("/a/b"), m("/a"), m("/dev/shm")], ..facts() };
        let spec = json_of(HostConfig::default(), &f);
        let targets: Vec<String> = spec["mounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .map(|m| m["destination"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(targets.iter().filter(|t| *t == "/dev/shm").count(), 1);
        let at = |t: &str| targets.iter().position(|x| x == t);
        assert!(at("/a") < at("/a/b"));
    }
}
