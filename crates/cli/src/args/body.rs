//! The request that the options of `create` and `run` make.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value, json};

use super::create::CreateArgs;
use super::network::{self, Network};
use super::ports::{self, Bindings};
use super::units::{bytes, bytes_or_unlimited, cpus, duration};
use super::{env, gpus, kinds, mount, ulimit};
use crate::error::{Context, Failure, Result};

/// Which of a container's streams this terminal gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Attached {
    /// No stream at all.
    pub(crate) const NONE: Self = Self { stdin: false, stdout: false, stderr: false };
}

impl CreateArgs {
    /// The streams that `--attach` names; without it, all that make sense.
    pub(crate) fn attached(&self) -> Attached {
        if self.attach.is_empty() {
            return Attached { stdin: self.interactive, stdout: true, stderr: true };
        }
        let named = |name: &str| self.attach.iter().any(|a| a.eq_ignore_ascii_case(name));
        Attached {
            stdin: self.interactive || named("stdin"),
            stdout: named("stdout"),
            stderr: named("stderr"),
        }
    }

    /// The body of the create request. `attached` is all false for a detached container.
    pub(crate) fn body(&self, attached: Attached, console: Option<(u16, u16)>) -> Result<Value> {
        self.check()?;
        let mut exposed = ports::exposed(&self.expose)?;
        let bindings = ports::published(&self.publish)?;
        exposed.extend(bindings.keys().map(|k| (k.clone(), json!({}))));
        let (binds, volumes) = self.volumes()?;
        let (mode, endpoints) = self.networks()?;
        let mut body = json!({
            "Hostname": self.hostname, "Domainname": self.domainname, "User": self.user,
            "AttachStdin": attached.stdin, "AttachStdout": attached.stdout, "AttachStderr": attached.stderr,
            "ExposedPorts": exposed, "Tty": self.tty, "OpenStdin": self.interactive,
            "StdinOnce": self.interactive && attached.stdin,
            "Env": env::variables(&self.env_file, &self.env)?,
            "Cmd": if self.command.is_empty() { Value::Null } else { json!(self.command) },
            "Image": self.image, "Volumes": volumes, "WorkingDir": self.workdir,
            "Entrypoint": self.entrypoint.as_ref().map(|e| json!([e])),
            "Labels": pairs(&env::labels(&self.label_file, &self.label)?),
            "StopSignal": self.stop_signal, "StopTimeout": self.stop_timeout,
            "HostConfig": self.host(binds, bindings, &mode, console)?,
            "NetworkingConfig": {"EndpointsConfig": endpoints},
        });
        if let Some(health) = self.health()? {
            body["Healthcheck"] = health;
        }
        Ok(body)
    }

    /// What the docker command line refuses before it asks a daemon.
    fn check(&self) -> Result<()> {
        let of = |mode: &str, known: &[&str]| known.contains(&mode);
        let pid = self.pid.strip_prefix("container:").is_some_and(|c| !c.is_empty());
        for (good, message) in [
            (of(&self.pid, &["", "host"]) || pid, "--pid: invalid PID mode"),
            (of(&self.uts, &["", "host"]), "--uts: invalid UTS mode"),
            (of(&self.userns, &["", "host"]), "--userns: invalid USER mode"),
            (of(&self.cgroupns, &["", "host", "private"]), "--cgroupns: invalid CGROUP mode"),
            (self.storage_opt.iter().all(|o| o.contains('=')), "invalid storage option"),
            (self.log_driver != "none" || self.log_opt.is_empty(), "invalid logging opts for driver none"),
            (!self.use_api_socket, "--use-api-socket is not implemented yet"),
            (
                !self.rm || ["", "no"].contains(&self.restart.as_str()),
                "conflicting options: cannot specify both --restart and --rm",
            ),
        ] {
            if !good {
                return Err(Failure::new(message));
            }
        }
        super::registry::no_content_trust(self.disable_content_trust)?;
        if let Some(s) = self.memory_swappiness.filter(|s| !(-1..=100).contains(s)) {
            return Err(Failure::new(format!("invalid value: {s}. Valid memory swappiness range is 0-100")));
        }
        if !self.mac_address.is_empty() && !is_mac(&self.mac_address) {
            return Err(Failure::new(format!("{} is not a valid mac address", self.mac_address)));
        }
        Ok(())
    }

    fn host(
        &self,
        binds: Vec<String>,
        bindings: Bindings,
        mode: &str,
        console: Option<(u16, u16)>,
    ) -> Result<Value> {
        let size = |v: &Option<String>| v.as_deref().map_or(Ok(0), bytes);
        let (security, paths_unmasked) = self.security()?;
        let (devices, cdi) = self.devices()?;
        let (cap_add, cap_drop) = super::caps::effective(&self.cap_add, &self.cap_drop);
        let extra_hosts = self.add_host.iter().map(|h| kinds::host(h)).collect::<Result<Vec<_>, _>>()?;
        let mut host = json!({
            "Binds": list(&binds), "ContainerIDFile": self.cidfile,
            "LogConfig": {"Type": self.log_driver, "Config": pairs(&self.log_opt)},
            "NetworkMode": mode, "PortBindings": bindings, "RestartPolicy": restart(&self.restart)?,
            "AutoRemove": self.rm, "VolumeDriver": self.volume_driver, "VolumesFrom": list(&self.volumes_from),
            "ConsoleSize": console.map_or([0, 0], |(h, w)| [h, w]), "Annotations": pairs(&self.annotation),
            "CapAdd": list(&cap_add), "CapDrop": list(&cap_drop), "CgroupnsMode": self.cgroupns,
            "Dns": self.dns, "DnsOptions": self.dns_option, "DnsSearch": self.dns_search,
            "ExtraHosts": list(&extra_hosts),
            "GroupAdd": list(&self.group_add), "IpcMode": self.ipc, "Isolation": self.isolation,
            "Links": list(&self.link), "OomScoreAdj": self.oom_score_adj,
            "PidMode": self.pid, "Privileged": self.privileged, "PublishAllPorts": self.publish_all,
            "ReadonlyRootfs": self.read_only, "SecurityOpt": if self.security_opt.is_empty() { Value::Null } else { json!(security) }, "UTSMode": self.uts,
            "UsernsMode": self.userns, "ShmSize": size(&self.shm_size)?, "Runtime": self.runtime,
            "CpuShares": self.cpu_shares, "Memory": size(&self.memory)?,
            "NanoCpus": self.cpus.as_deref().map_or(Ok(0), cpus)?, "CgroupParent": self.cgroup_parent,
            "BlkioWeight": self.blkio_weight.unwrap_or(0), "CpuPeriod": self.cpu_period, "CpuQuota": self.cpu_quota,
            "CpuRealtimePeriod": self.cpu_rt_period, "CpuRealtimeRuntime": self.cpu_rt_runtime,
            "CpusetCpus": self.cpuset_cpus, "CpusetMems": self.cpuset_mems, "Devices": devices,
            "DeviceCgroupRules": list(&self.device_cgroup_rule), "KernelMemory": size(&self.kernel_memory)?,
            "MemoryReservation": size(&self.memory_reservation)?,
            "MemorySwap": self.memory_swap.as_deref().map_or(Ok(0), bytes_or_unlimited)?,
            "MemorySwappiness": self.memory_swappiness, "OomKillDisable": self.oom_kill_disable,
            "PidsLimit": self.pids_limit, "Init": self.init, "Sysctls": pairs(&self.sysctl),
            "StorageOpt": pairs(&self.storage_opt), "Tmpfs": split(&self.tmpfs, ':'),
        });
        self.throttles(&mut host)?;
        let mut limits = self.ulimit.iter().map(|u| ulimit::parse(u)).collect::<Result<Vec<_>, _>>()?;
        limits.sort_by_key(|l| l["Name"].as_str().unwrap_or_default().to_owned());
        host["Ulimits"] = Value::Array(limits);
        let mut requests = self.gpus.iter().map(|g| gpus::parse(g)).collect::<Result<Vec<_>, _>>()?;
        if !cdi.is_empty() {
            requests.push(json!({"Driver": "cdi", "DeviceIDs": cdi}));
        }
        for (key, values) in [
            ("DeviceRequests", requests),
            ("Mounts", self.mount.iter().map(|m| mount::parse(m)).collect::<Result<_, _>>()?),
        ] {
            if !values.is_empty() {
                host[key] = Value::Array(values);
            }
        }
        if paths_unmasked {
            host["MaskedPaths"] = json!([]);
            host["ReadonlyPaths"] = json!([]);
        }
        Ok(host)
    }

    fn throttles(&self, host: &mut Value) -> Result<()> {
        let rates = |values: &[String], read: fn(&str) -> Result<(&str, u64), String>, key: &str| {
            let one = |v: &String| read(v).map(|(path, n)| json!({"Path": path, key: n}));
            values.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        for (key, values) in [
            ("BlkioWeightDevice", rates(&self.blkio_weight_device, kinds::weight, "Weight")?),
            ("BlkioDeviceReadBps", rates(&self.device_read_bps, kinds::rate, "Rate")?),
            ("BlkioDeviceWriteBps", rates(&self.device_write_bps, kinds::rate, "Rate")?),
            ("BlkioDeviceReadIOps", rates(&self.device_read_iops, kinds::iops, "Rate")?),
            ("BlkioDeviceWriteIOps", rates(&self.device_write_iops, kinds::iops, "Rate")?),
        ] {
            host[key] = Value::Array(values);
        }
        Ok(())
    }

    /// What is mounted from elsewhere, and the anonymous volumes.
    fn volumes(&self) -> Result<(Vec<String>, Map<String, Value>)> {
        let (mut binds, mut volumes) = (Vec::new(), Map::new());
        for text in &self.volume {
            let parts: Vec<&str> = text.split(':').collect();
            if text.is_empty() {
                return Err(Failure::new("invalid empty volume spec"));
            }
            // Two letters or fewer are always a path in the container.
            if text.len() <= 2 || parts.len() == 1 {
                volumes.insert(text.clone(), json!({}));
                continue;
            }
            if parts.iter().any(|p| p.is_empty()) {
                return Err(Failure::new(format!("invalid spec: {text}: empty section between colons")));
            }
            if parts.len() > 3 {
                return Err(Failure::new(format!("invalid spec: {text}: too many colons")));
            }
            let (source, rest) = text.split_once(':').unwrap_or((text, ""));
            binds.push(format!("{}:{rest}", absolute(source)));
        }
        Ok((binds, volumes))
    }

    /// The network mode, and the endpoints that the options make.
    fn networks(&self) -> Result<(String, Value)> {
        let mut networks = self.network.iter().map(|n| network::parse(n)).collect::<Result<Vec<_>, _>>()?;
        if networks.is_empty() {
            networks.push(Network { name: "default".into(), ..Network::default() });
        }
        let mode = networks[0].name.clone();
        let alone = networks.len() == 1;
        let mut endpoints = Map::new();
        let mut kinds = [false, false];
        for (i, mut network) in networks.into_iter().enumerate() {
            kinds[usize::from(network.is_user_defined())] = true;
            let mut links: &[String] = &[];
            if i == 0 {
                self.first_network(&mut network)?;
                // On the default network a link is the container's, not the endpoint's.
                links = if network.is_user_defined() { &self.link } else { &[] };
            }
            if !network.is_user_defined() && !network.aliases.is_empty() {
                return Err(Failure::new(
                    "network-scoped aliases are only supported for user-defined networks",
                ));
            }
            if alone && network.is_plain() && links.is_empty() {
                continue;
            }
            let endpoint = network.endpoint(links);
            if endpoints.insert(network.name.clone(), endpoint).is_some() {
                return Err(Failure::new(format!("network {:?} is specified multiple times", network.name)));
            }
        }
        if kinds == [true, true] {
            return Err(Failure::new(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ));
        }
        Ok((mode, Value::Object(endpoints)))
    }

    /// Gives the first network what options of their own say.
    fn first_network(&self, network: &mut Network) -> Result<()> {
        let both = |option: &str, what: &str| {
            Failure::new(format!(
                "conflicting options: cannot specify both --{option} and per-network {what}"
            ))
        };
        let give = |slot: &mut String, value: &String, option: &str, what: &str| {
            if value.is_empty() {
                return Ok(());
            }
            if !slot.is_empty() {
                return Err(both(option, what));
            }
            slot.clone_from(value);
            Ok(())
        };
        let give_all = |slot: &mut Vec<String>, values: &Vec<String>, option: &str, what: &str| {
            if values.is_empty() {
                return Ok(());
            }
            if !slot.is_empty() {
                return Err(both(option, what));
            }
            slot.clone_from(values);
            Ok(())
        };
        give_all(&mut network.aliases, &self.network_alias, "network-alias", "alias")?;
        give(&mut network.ip, &self.ip, "ip", "IPv4 address")?;
        give(&mut network.ip6, &self.ip6, "ip6", "IPv6 address")?;
        give(&mut network.mac, &self.mac_address, "mac-address", "MAC address")?;
        give_all(&mut network.link_local, &self.link_local_ip, "link-local-ip", "link-local IP addresses")
    }

    fn health(&self) -> Result<Option<Value>> {
        let mut times = Vec::new();
        for (name, key, text) in [
            ("interval", "Interval", &self.health_interval),
            ("timeout", "Timeout", &self.health_timeout),
            ("start-period", "StartPeriod", &self.health_start_period),
            ("start-interval", "StartInterval", &self.health_start_interval),
        ] {
            times.push((name, key, text.as_deref().map_or(Ok(0), duration)?));
        }
        let command = self.health_cmd.as_deref().filter(|c| !c.is_empty());
        let retries = self.health_retries.unwrap_or(0);
        let given = command.is_some() || retries != 0 || times.iter().any(|(.., nanos)| *nanos != 0);
        if self.no_healthcheck && given {
            return Err(Failure::new("--no-healthcheck conflicts with --health-* options"));
        }
        if self.no_healthcheck {
            return Ok(Some(json!({"Test": ["NONE"]})));
        }
        if !given {
            return Ok(None);
        }
        let negative = |name: &str| Failure::new(format!("--health-{name} cannot be negative"));
        if retries < 0 {
            return Err(negative("retries"));
        }
        let mut health = json!({"Test": command.map(|c| json!(["CMD-SHELL", c])), "Retries": retries});
        for (name, key, nanos) in times {
            if nanos < 0 {
                return Err(negative(name));
            }
            health[key] = json!(nanos);
        }
        Ok(Some(health))
    }

    /// Security options, and whether the system's paths stay open. A seccomp profile is read here: the daemon may be
    /// elsewhere.
    fn security(&self) -> Result<(Vec<String>, bool)> {
        let (mut out, mut unmasked) = (Vec::new(), false);
        for option in &self.security_opt {
            let (key, value) =
                option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
            if value.is_empty() && key != "no-new-privileges" {
                return Err(Failure::new(format!("Invalid --security-opt: {option:?}")));
            }
            match (key, value) {
                ("systempaths", "unconfined") => unmasked = true,
                ("seccomp", file) if !["unconfined", "builtin"].contains(&file) => {
                    let text = fs::read_to_string(file).map_err(|e| {
                        let e = crate::error::words(&e);
                        Failure::new(format!("opening seccomp profile ({file}) failed: open {file}: {e}"))
                    })?;
                    let profile: Value = serde_json::from_str(&text)
                        .context(|| format!("compacting json for seccomp profile ({file}) failed"))?;
                    out.push(format!("seccomp={profile}"));
                }
                _ => out.push(option.clone()),
            }
        }
        Ok((out, unmasked))
    }

    /// Devices of this machine, and names of devices that a vendor describes (CDI).
    fn devices(&self) -> Result<(Value, Vec<&str>)> {
        let (mut devices, mut cdi) = (Vec::new(), Vec::new());
        for text in &self.device {
            if text.split_once('=').is_some_and(|(kind, _)| !kind.starts_with('/') && kind.contains('/')) {
                cdi.push(text.as_str());
            } else {
                devices.push(device(text)?);
            }
        }
        Ok((Value::Array(devices), cdi))
    }
}

fn device(text: &str) -> Result<Value> {
    let parts: Vec<&str> = text.split(':').collect();
    let mode = |m: &str| {
        !m.is_empty() && m.len() <= 3 && m.chars().all(|c| "rwm".contains(c) && m.matches(c).count() == 1)
    };
    let (host, container, permissions) = match parts.as_slice() {
        [""] | ["", ..] => return Err(Failure::new(format!("bad format for path: {text}"))),
        [host] => (*host, *host, "rwm"),
        [host, m] if mode(m) => (*host, *host, *m),
        [host, container] => (*host, *container, "rwm"),
        [host, container, m] if mode(m) => (*host, *container, *m),
        [_, _, m] => return Err(Failure::new(format!("bad mode specified: {m}"))),
        _ => return Err(Failure::new(format!("bad format for path: {text}"))),
    };
    if !container.starts_with('/') {
        return Err(Failure::new(format!("{container} is not an absolute path")));
    }
    Ok(json!({"PathOnHost": host, "PathInContainer": container, "CgroupPermissions": permissions}))
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    [6, 8, 20].contains(&parts.len())
        && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn list(values: &[String]) -> Value {
    if values.is_empty() { Value::Null } else { json!(values) }
}

fn split(values: &[String], separator: char) -> Value {
    let split = |v: &String| {
        v.split_once(separator).map_or((v.clone(), json!("")), |(k, v)| (k.to_owned(), json!(v)))
    };
    Value::Object(values.iter().map(split).collect())
}

/// `key=value` texts as a map.
pub(crate) fn pairs(values: &[String]) -> Value {
    split(values, '=')
}

/// A path that starts with a dot is one of this machine's: without `.` and `..`.
pub(super) fn absolute(text: &str) -> String {
    if !text.starts_with('.') {
        return text.to_owned();
    }
    let Ok(path) = std::path::absolute(Path::new(text)) else { return text.to_owned() };
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean.display().to_string()
}

pub(crate) fn restart(text: &str) -> Result<Value> {
    let (name, count) = text.split_once(':').map_or((text, None), |(n, c)| (n, Some(c)));
    if name.is_empty() && count.is_some() {
        return Err(Failure::new("invalid restart policy format: no policy provided before colon"));
    }
    let count = count
        .map_or(Ok(0), str::parse::<i64>)
        .map_err(|_| Failure::new("invalid restart policy format: maximum retry count must be an integer"))?;
    Ok(json!({"Name": name, "MaximumRetryCount": count}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Options, parse};

    fn try_body(line: &str) -> Result<Value> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let create = CreateArgs::from_matches(&parse(CreateArgs::FLAGS, &words, false)?);
        create.body(Attached { stdin: false, stdout: true, stderr: true }, None)
    }

    fn body(line: &str) -> Value {
        try_body(line).map_err(|e| e.message).unwrap()
    }

    #[test]
    fn flags_after_the_image_are_the_commands() {
        let b = body("-e A=1 --rm img sh -c --rm -e");
        assert_eq!(b["Cmd"], json!(["sh", "-c", "--rm", "-e"]));
        assert_eq!((&b["Env"], &b["HostConfig"]["AutoRemove"]), (&json!(["A=1"]), &json!(true)));
    }

    #[test]
    fn limits_and_maps() {
        let b = body(
            "-m 64m --memory-swap -1 --cpus 1.5 --ulimit nofile=1:2 --tmpfs /t:size=1m --sysctl net.a=1 \
             -v vol:/x:ro -v /anon --restart on-failure:3 -p 8080:80 --init=false img",
        );
        let h = &b["HostConfig"];
        assert_eq!(
            (&h["Memory"], &h["MemorySwap"], &h["NanoCpus"]),
            (&json!(64 << 20), &json!(-1), &json!(1_500_000_000))
        );
        assert_eq!(h["Ulimits"], json!([{"Name": "nofile", "Soft": 1, "Hard": 2}]));
        assert_eq!((&h["Tmpfs"], &h["Sysctls"]), (&json!({"/t": "size=1m"}), &json!({"net.a": "1"})));
        assert_eq!((&h["Binds"], &b["Volumes"]), (&json!(["vol:/x:ro"]), &json!({"/anon": {}})));
        assert_eq!(h["RestartPolicy"], json!({"Name": "on-failure", "MaximumRetryCount": 3}));
        assert_eq!((&b["ExposedPorts"], &h["Init"]), (&json!({"80/tcp": {}}), &json!(false)));
    }

    #[test]
    fn networks_and_their_options() {
        assert_eq!(body("img")["HostConfig"]["NetworkMode"], "default");
        assert_eq!(body("--network web img")["NetworkingConfig"], json!({"EndpointsConfig": {}}));
        let b = body("--network web --ip 10.0.0.2 --network-alias a img");
        let endpoint = &b["NetworkingConfig"]["EndpointsConfig"]["web"];
        assert_eq!(
            (&endpoint["Aliases"], &endpoint["IPAMConfig"]["IPv4Address"]),
            (&json!(["a"]), &json!("10.0.0.2"))
        );
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for (line, want) in [
            ("--pid foo img", "--pid: invalid PID mode"),
            ("--rm --restart always img", "conflicting options: cannot specify both --restart and --rm"),
            ("--network-alias x img", "network-scoped aliases are only supported for user-defined networks"),
            ("--device foo img", "foo is not an absolute path"),
            ("--device a:b:c:d img", "bad format for path: a:b:c:d"),
            ("-v /a:/b:/c:/d img", "invalid spec: /a:/b:/c:/d: too many colons"),
            ("--mac-address x img", "x is not a valid mac address"),
            ("--health-cmd x --no-healthcheck img", "--no-healthcheck conflicts with --health-* options"),
            ("--no-healthcheck --health-retries 1 img", "--no-healthcheck conflicts with --health-* options"),
            ("--health-interval=-1s img", "--health-interval cannot be negative"),
            ("--health-start-interval=-1s img", "--health-start-interval cannot be negative"),
            ("--health-retries=-1 img", "--health-retries cannot be negative"),
            ("--restart x:y img", "invalid restart policy format: maximum retry count must be an integer"),
            ("--security-opt x img", "Invalid --security-opt: \"x\""),
            ("--use-api-socket img", "--use-api-socket is not implemented yet"),
        ] {
            assert_eq!(try_body(line).unwrap_err().message, want, "{line}");
        }
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute("./a/../b"), here.join("b").display().to_string());
        assert_eq!(absolute("vol"), "vol");
    }
}
