//! What a create request may ask for: every option that is not supported is refused here, by name.
//! Pure; what needs other objects (images, containers, paths) is looked up by `create`.

use super::{health, ports};
use crate::model::{ContainerConfig, HostConfig, MountSpec, Resources, RestartPolicy};
use crate::{Error, Result, signals};
use longshore_runtime::Runtimes;

const MIB: i64 = 1 << 20;

/// What the machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
}

/// Checks the portable part.
///
/// # Errors
/// In Docker's words.
pub(crate) fn config(c: &ContainerConfig) -> Result<()> {
    for e in c.run.env.iter().flatten() {
        if e.is_empty() || e.starts_with('=') || e.contains('\0') {
            return Err(Error::invalid(format!("invalid environment variable: {e}")));
        }
    }
    if let Some(s) = c.run.stop_signal.as_deref().filter(|s| !s.is_empty()) {
        signals::parse(s)?;
    }
    let dir = &c.run.working_dir;
    if !dir.is_empty() && !dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    for volume in c.run.volumes.iter().flatten().map(|(k, _)| k) {
        if volume.contains(':') {
            return Err(Error::invalid(format!("invalid volume specification: '{volume}'")));
        }
        check_target(volume).map_err(|e| e.context(format!("invalid volume specification: '{volume}'")))?;
    }
    c.run.healthcheck.as_ref().map_or(Ok(()), health::check)
}

/// Checks the name of a runtime.
///
/// # Errors
/// In Docker's words for one that was not registered.
pub(crate) fn runtime(known: &Runtimes, name: &str) -> Result<()> {
    match known.get(name) {
        Some(_) => Ok(()),
        None => Err(Error::invalid(format!("unknown or invalid runtime name: {name}"))),
    }
}

/// Checks what belongs to this host.
///
/// # Errors
/// In Docker's words, or `Unimplemented` naming the option.
pub(crate) fn host(h: &HostConfig, machine: Machine) -> Result<()> {
    if !["", "default"].contains(&h.isolation.as_str()) {
        return Err(Error::invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            h.isolation
        )));
    }
    restart(&h.restart)?;
    if h.auto_remove && !["", "no"].contains(&h.restart.name.as_str()) {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    for (key, list) in h.port_bindings.iter().flatten() {
        ports::parse(key)?;
        for b in list.iter().flatten().filter(|b| !b.host_port.is_empty()) {
            ports::parse(&b.host_port)?;
        }
    }
    log(h)?;
    modes(h)?;
    security(h)?;
    resources(&h.resources, machine)?;
    if h.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if !(-1000..=1000).contains(&h.oom_score_adj) {
        let n = h.oom_score_adj;
        return Err(Error::invalid(format!("Invalid value {n}, range for oom score adj is [-1000, 1000]")));
    }
    storage(h)?;
    for (what, given) in [
        ("the volume driver", !["", "local"].contains(&h.volume_driver.as_str())),
        ("the cgroup of another container", !h.cgroup.is_empty()),
    ] {
        if given {
            return Err(Error::unimplemented(what));
        }
    }
    for m in h.mounts.iter().flatten() {
        mount(m).map_err(|e| e.context(format!("invalid mount config for type {:?}", m.kind)))?;
    }
    for (target, options) in h.tmpfs.iter().flatten() {
        check_target(target)?;
        tmpfs_options(options)?;
    }
    extra_hosts(h)
}

fn restart(r: &RestartPolicy) -> Result<()> {
    let fail = |text: String| Err(Error::invalid(format!("invalid restart policy: {text}")));
    match r.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if r.max_retries != 0 => {
            let tail = if r.max_retries < 0 { " and cannot be negative" } else { "" };
            fail(format!("maximum retry count can only be used with 'on-failure'{tail}"))
        }
        "on-failure" if r.max_retries < 0 => fail("maximum retry count cannot be negative".into()),
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => fail(format!(
            "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

fn log(h: &HostConfig) -> Result<()> {
    let driver = h.log.driver.as_str();
    let known: &[&str] = match driver {
        "" | "json-file" => {
            &["max-size", "max-file", "labels", "labels-regex", "env", "env-regex", "tag", "compress", "mode"]
        }
        "none" => &[],
        "local" | "syslog" | "journald" | "gelf" | "fluentd" | "awslogs" | "splunk" | "gcplogs"
        | "etwlogs" => {
            return Err(Error::unimplemented(format!("the logging driver {driver}")));
        }
        other => {
            return Err(Error::invalid(format!(
                "error looking up logging plugin {other}: plugin \"{other}\" not found"
            )));
        }
    };
    for (key, value) in &h.log.options {
        if !known.contains(&key.as_str()) {
            let driver = if driver.is_empty() { "json-file" } else { driver };
            return Err(Error::invalid(format!("unknown log opt '{key}' for {driver} log driver")));
        }
        match key.as_str() {
            "max-size" => {
                log_size(value)?;
            }
            "max-file" => {
                log_files(value)?;
            }
            "compress" if value == "false" => {}
            "mode" if value == "blocking" => {}
            _ => return Err(Error::unimplemented(format!("the log option {key}={value}"))),
        }
    }
    if log_files(h.log.options.get("max-file").map_or("1", String::as_str))? > 1
        && !h.log.options.contains_key("max-size")
    {
        return Err(Error::invalid("max-file cannot be set when max-size is not set"));
    }
    Ok(())
}

/// `10m` in bytes; `-1`: no limit (0).
///
/// # Errors
/// When it is no size.
pub(crate) fn log_size(text: &str) -> Result<u64> {
    if text == "-1" {
        return Ok(0);
    }
    let bad = || Error::invalid(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let factor: u64 = match lower[number.len()..].trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0).ok_or_else(bad)
}

/// `max-file`.
///
/// # Errors
/// When it is no count of at least one.
pub(crate) fn log_files(text: &str) -> Result<u32> {
    match text.parse::<u32>() {
        Ok(0) => Err(Error::invalid("max-file cannot be less than 1")),
        Ok(n) if n <= 1000 => Ok(n),
        _ => Err(Error::invalid(format!("invalid value for max-file: {text}"))),
    }
}

/// Namespaces that are shared.
fn modes(h: &HostConfig) -> Result<()> {
    let container = |m: &str| m.strip_prefix("container:").is_some_and(|n| !n.is_empty());
    let is = |m: &str, names: &[&str]| names.contains(&m);
    if !(is(&h.ipc_mode, &["", "none", "private", "shareable", "host"]) || container(&h.ipc_mode)) {
        return Err(Error::invalid(format!("invalid IPC mode: {}", h.ipc_mode)));
    }
    if !(is(&h.pid_mode, &["", "host"]) || container(&h.pid_mode)) {
        return Err(Error::invalid(format!("invalid PID mode: {}", h.pid_mode)));
    }
    if !is(&h.uts_mode, &["", "host"]) {
        return Err(Error::invalid(format!("invalid UTS mode: {}", h.uts_mode)));
    }
    if !is(&h.cgroupns_mode, &["", "private", "host"]) {
        return Err(Error::invalid(format!("invalid cgroup namespace mode: {}", h.cgroupns_mode)));
    }
    if !is(&h.userns_mode, &["", "host"]) {
        return Err(Error::invalid(format!("invalid user namespace mode: {}", h.userns_mode)));
    }
    if h.annotations.iter().flatten().any(|(k, _)| k.is_empty()) {
        return Err(Error::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    if h.network_mode == "container:" {
        return Err(Error::invalid("invalid container format container:<name|id>"));
    }
    if h.network_mode.starts_with("container:") && h.port_bindings.as_ref().is_some_and(|p| !p.is_empty()) {
        return Err(Error::invalid(
            "conflicting options: port publishing and the container type network mode",
        ));
    }
    Ok(())
}

fn security(h: &HostConfig) -> Result<()> {
    let fail = |i: usize, o: &str| Err(Error::internal(format!("invalid --security-opt {i}: {o:?}")));
    for (i, opt) in h.security_opt.iter().flatten().enumerate() {
        if opt == "no-new-privileges" {
            continue;
        }
        let Some((key, value)) = opt.split_once('=').or_else(|| opt.split_once(':')) else {
            return fail(i + 1, opt);
        };
        match (key, value) {
            ("no-new-privileges", "true" | "false")
            | ("seccomp", "unconfined" | "builtin")
            | ("apparmor", _) => {}
            // A profile comes as its JSON text: clients read the file.
            ("seccomp", v) if v.trim_start().starts_with('{') => {}
            ("systempaths", "unconfined") => {}
            ("label", "disable") => {}
            ("label" | "seccomp" | "writable-cgroups", _) => {
                return Err(Error::unimplemented(format!("the security option {key}={value}")));
            }
            _ => return fail(i + 1, opt),
        }
    }
    Ok(())
}

fn resources(r: &Resources, machine: Machine) -> Result<()> {
    if r.memory != 0 && r.memory < 6 * MIB {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory {
        return Err(Error::invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if r.memory == 0 && r.memory_swap > 0 {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if r.memory_reservation != 0 && r.memory_reservation < 6 * MIB {
        return Err(Error::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if r.memory > 0 && r.memory_reservation > r.memory {
        return Err(Error::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if r.memory_swappiness.is_some_and(|s| !(-1..=100).contains(&s)) {
        let s = r.memory_swappiness.unwrap_or_default();
        return Err(Error::invalid(format!("Invalid value: {s}, valid memory swappiness range is 0-100")));
    }
    if r.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            r.cpu_shares
        )));
    }
    if r.nano_cpus != 0 {
        for (given, what) in [(r.cpu_period != 0, "Period"), (r.cpu_quota != 0, "Quota")] {
            if given {
                return Err(Error::invalid(format!(
                    "Conflicting options: Nano CPUs and CPU {what} cannot both be set"
                )));
            }
        }
        let most = i64::try_from(machine.cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        if r.nano_cpus < 10_000_000 || r.nano_cpus > most {
            let n = machine.cpus;
            return Err(Error::invalid(format!(
                "range of CPUs is from 0.01 to {n}.00, as there are only {n} CPUs available"
            )));
        }
    }
    if r.cpu_period != 0 && !(1_000..=1_000_000).contains(&r.cpu_period) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1_000 {
        return Err(Error::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    for (set, what) in [(&r.cpuset_cpus, "cpuset cpus"), (&r.cpuset_mems, "cpuset mems")] {
        if !set.is_empty() && !is_cpuset(set) {
            return Err(Error::invalid(format!("Invalid value {set} for {what}: invalid format: {set}")));
        }
    }
    if r.blkio_weight != 0 && !(10..=1000).contains(&r.blkio_weight) {
        return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
    }
    let some = |v: bool, what: &str| if v { Err(Error::unimplemented(what)) } else { Ok(()) };
    some(r.device_requests.as_ref().is_some_and(|d| !d.is_empty()), "requesting devices by driver (--gpus)")?;
    some(r.cpu_realtime_period != 0 || r.cpu_realtime_runtime != 0, "real-time processor limits")
}

/// Options of `--tmpfs`.
fn tmpfs_options(text: &str) -> Result<()> {
    const VALUES: [&str; 6] = ["mode", "uid", "gid", "size", "nr_blocks", "nr_inodes"];
    const FLAGS: &str = " defaults ro rw suid nosuid dev nodev exec noexec async nomand atime noatime diratime \
        nodiratime relatime norelatime strictatime nostrictatime \
        private rprivate shared rshared slave rslave unbindable runbindable ";
    for option in text.split(',').filter(|o| !o.is_empty()) {
        let known = match option.split_once('=') {
            Some((key, _)) => VALUES.contains(&key) || ["mpol", "huge"].contains(&key),
            None => FLAGS.contains(&format!(" {option} ")),
        };
        if !known {
            let key = option.split_once('=').map_or(option, |(key, _)| key);
            return Err(Error::invalid(format!("invalid tmpfs option {key:?}")));
        }
    }
    Ok(())
}

/// Options of the container's own layer, none of which can be had here.
fn storage(h: &HostConfig) -> Result<()> {
    match h.storage_opt.iter().flatten().next() {
        None => Ok(()),
        Some((key, _)) if key == "size" => Err(Error::invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        )),
        Some((key, _)) => Err(Error::invalid(format!("Unknown option {key}"))),
    }
}

/// `0-3,5`.
fn is_cpuset(text: &str) -> bool {
    text.split(',').all(|part| {
        let (lo, hi) = part.split_once('-').unwrap_or((part, part));
        matches!((lo.parse::<u32>(), hi.parse::<u32>()), (Ok(l), Ok(h)) if l <= h && h < 8192)
    })
}

/// One `--mount`; the caller adds its type to the message.
fn mount(m: &MountSpec) -> Result<()> {
    let need = |field: &str| Err(Error::invalid(format!("field {field} must not be empty")));
    match m.kind.as_str() {
        "bind" | "volume" | "tmpfs" => {}
        "image" | "npipe" | "cluster" => {
            return Err(Error::unimplemented(format!("mounts of type {}", m.kind)));
        }
        _ => return Err(Error::invalid("mount type unknown")),
    }
    if m.target.is_empty() {
        return need("Target");
    }
    check_target(&m.target)?;
    let extra = |given: bool, field: &str| {
        if given { Err(Error::invalid(format!("field {field} must not be specified"))) } else { Ok(()) }
    };
    match m.kind.as_str() {
        "bind" => {
            if m.source.is_empty() {
                return need("Source");
            }
            extra(m.has_volume, "VolumeOptions")?;
            extra(m.has_tmpfs, "TmpfsOptions")?;
            if !m.source.starts_with('/') {
                return Err(Error::invalid(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    m.source
                )));
            }
            let propagation = ["", "private", "rprivate", "shared", "rshared", "slave", "rslave"];
            if !propagation.contains(&m.bind_propagation.as_str()) {
                return Err(Error::invalid(format!("invalid propagation mode: {}", m.bind_propagation)));
            }
            if m.bind_read_only_force_recursive && !m.read_only {
                return Err(Error::invalid("mount option conflict: ReadOnlyForceRecursive needs ReadOnly"));
            }
        }
        "volume" => {
            extra(m.has_bind, "BindOptions")?;
            extra(m.has_tmpfs, "TmpfsOptions")?;
            if m.source.is_empty() && m.read_only {
                return Err(Error::invalid("must not set ReadOnly mode when using anonymous volumes"));
            }
            if m.source.is_empty() && !m.volume_subpath.is_empty() {
                return Err(Error::invalid("must not set Subpath when using anonymous volumes"));
            }
            if m.volume_subpath.starts_with('/') || m.volume_subpath.split('/').any(|p| p == "..") {
                return Err(Error::invalid(format!(
                    "subpath must be a relative path within the volume: {}",
                    m.volume_subpath
                )));
            }
            if !m.source.is_empty() {
                crate::volume::check_name(&m.source)?;
            }
            if !["", "local"].contains(&m.volume_driver.as_str()) {
                return Err(Error::unimplemented(format!("the volume driver {}", m.volume_driver)));
            }
            if !m.volume_driver_options.is_empty() {
                return Err(Error::unimplemented("options of the local volume driver"));
            }
        }
        _ => {
            extra(m.has_bind, "BindOptions")?;
            extra(m.has_volume, "VolumeOptions")?;
            extra(!m.source.is_empty(), "Source")?;
            if m.tmpfs_size < 0 {
                return Err(Error::invalid("invalid tmpfs size"));
            }
        }
    }
    Ok(())
}

/// A mount's place in the container.
///
/// # Errors
/// When it is relative, or the root itself.
pub(crate) fn check_target(target: &str) -> Result<()> {
    if !target.starts_with('/') || target.contains('\0') {
        return Err(Error::invalid(format!("invalid mount path: '{target}' mount path must be absolute")));
    }
    if target.split('/').all(|p| p.is_empty() || p == ".") || target.split('/').any(|p| p == "..") {
        return Err(Error::invalid("invalid specification: destination can't be '/'"));
    }
    Ok(())
}

fn extra_hosts(h: &HostConfig) -> Result<()> {
    for entry in h.extra_hosts.iter().flatten() {
        let Some((_, ip)) = entry.split_once(':').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::invalid(format!("bad format for add-host: {entry:?}")));
        };
        if ip != "host-gateway" && ip.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("invalid IP address in add-host: {ip:?}")));
        }
    }
    for server in h.dns.iter().flatten() {
        if server.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("{server} is not an ip address")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceMapping, LogConfig, PortBinding};

    const MACHINE: Machine = Machine { cpus: 2 };

    fn host_says(change: impl FnOnce(&mut HostConfig)) -> String {
        let mut h = HostConfig::default();
        change(&mut h);
        host(&h, MACHINE).map_or_else(|e| e.to_string(), |()| "ok".into())
    }

    #[test]
    fn dockers_words_for_host_settings() {
        fn says(change: impl FnOnce(&mut HostConfig)) -> String {
            host_says(change)
        }
        assert_eq!(says(|h| h.resources.memory = 1000), "Minimum memory limit allowed is 6MB");
        assert_eq!(
            says(|h| h.resources.cpu_shares = -1),
            "invalid CPU shares (-1): value must be a positive integer"
        );
        assert_eq!(
            says(|h| h.resources.nano_cpus = 99_000_000_000),
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
        );
        assert_eq!(
            says(|h| h.restart.name = "bad".into()),
            "invalid restart policy: unknown policy 'bad'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        );
        assert_eq!(
            says(|h| h.restart = RestartPolicy { name: "always".into(), max_retries: 3 }),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        );
        assert_eq!(
            says(|h| h.isolation = "x".into()),
            "invalid isolation (x): linux only supports 'default'"
        );
        assert_eq!(
            says(|h| h.log = LogConfig { driver: "nosuch".into(), options: Default::default() }),
            "error looking up logging plugin nosuch: plugin \"nosuch\" not found"
        );
        assert_eq!(
            says(|h| {
                h.auto_remove = true;
                h.restart.name = "always".into();
            }),
            "can't create 'AutoRemove' container with restart policy"
        );
        assert_eq!(says(|h| h.security_opt = Some(vec!["bad".into()])), "invalid --security-opt 1: \"bad\"");
        assert_eq!(says(|h| h.ipc_mode = "bad".into()), "invalid IPC mode: bad");
        assert_eq!(
            says(|h| h.port_bindings = Some([("abc/tcp".into(), Some(vec![PortBinding::default()]))].into())),
            "invalid port specification: \"abc\""
        );
        let missing = DeviceMapping {
            host: "/dev/nosuch".into(),
            container: "/dev/x".into(),
            permissions: "rwm".into(),
        };
        assert_eq!(says(|h| h.resources.devices = Some(vec![missing])), "ok", "found out at start");
    }

    #[test]
    fn dockers_words_for_mounts() {
        let says = |kind: &str, target: &str| {
            host_says(|h| {
                h.mounts =
                    Some(vec![MountSpec { kind: kind.into(), target: target.into(), ..Default::default() }]);
            })
        };
        assert_eq!(says("bad", "/x"), "invalid mount config for type \"bad\": mount type unknown");
        assert_eq!(
            says("volume", ""),
            "invalid mount config for type \"volume\": field Target must not be empty"
        );
        assert_eq!(says("tmpfs", "/x"), "ok");
    }

    #[test]
    fn dockers_words_for_the_config() {
        let says = |change: fn(&mut ContainerConfig)| {
            let mut c = ContainerConfig::default();
            change(&mut c);
            config(&c).map_or_else(|e| e.to_string(), |()| "ok".into())
        };
        assert_eq!(says(|c| c.run.stop_signal = Some("SIGBAD".into())), "invalid signal: SIGBAD");
        assert_eq!(
            says(|c| c.run.working_dir = "rel".into()),
            "the working directory 'rel' is invalid, it needs to be an absolute path"
        );
        assert_eq!(says(|c| c.run.env = Some(vec!["=x".into()])), "invalid environment variable: =x");
        assert_eq!(says(|c| c.hostname = "a".repeat(70)), "ok", "found out at start");
    }

    #[test]
    fn sizes() {
        assert_eq!(log_size("10m").expect("size"), 10 << 20);
        assert_eq!(log_size("-1").expect("size"), 0);
        assert!(log_size("x").is_err() && log_size("").is_err() && log_size("0").is_err());
        assert!(is_cpuset("0-3,5") && !is_cpuset("3-1") && !is_cpuset("a") && !is_cpuset("0-99999"));
    }
}
