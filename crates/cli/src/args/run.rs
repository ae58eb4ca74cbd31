//! Options of `create` and `run`, and the request that they make.

use std::collections::BTreeMap;
use std::fs;

use clap::Args;
use serde_json::{Map, Value, json};

use super::units::{bytes, bytes_or_unlimited, cpus, duration};
use crate::error::{Context, Failure, Result};

/// Options of `create`; `run` has a few more.
#[derive(Debug, Default, Args)]
pub(crate) struct CreateArgs {
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long = "add-host", value_name = "LIST")]
    add_host: Vec<String>,
    /// Add an annotation to the container
    #[arg(long, value_name = "MAP")]
    annotation: Vec<String>,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "LIST")]
    pub(crate) attach: Vec<String>,
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "UINT16")]
    blkio_weight: Option<u16>,
    /// Add Linux capabilities
    #[arg(long, value_name = "LIST")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "LIST")]
    cap_drop: Vec<String>,
    /// Parent cgroup for the container
    #[arg(long, value_name = "STRING", default_value = "")]
    cgroup_parent: String,
    /// Cgroup namespace to use (host|private)
    #[arg(long, value_name = "STRING", default_value = "")]
    cgroupns: String,
    /// Write the container ID to the file
    #[arg(long, value_name = "FILE", default_value = "")]
    pub(crate) cidfile: String,
    /// Limit CPU CFS period
    #[arg(long, value_name = "INT", default_value_t = 0)]
    cpu_period: i64,
    /// Limit CPU CFS quota
    #[arg(long, value_name = "INT", default_value_t = 0, allow_hyphen_values = true)]
    cpu_quota: i64,
    /// CPU shares (relative weight)
    #[arg(short, long, value_name = "INT", default_value_t = 0)]
    cpu_shares: i64,
    /// Number of CPUs
    #[arg(long, value_name = "DECIMAL")]
    cpus: Option<String>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "STRING", default_value = "")]
    cpuset_cpus: String,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "STRING", default_value = "")]
    cpuset_mems: String,
    /// Add a host device to the container
    #[arg(long, value_name = "LIST")]
    device: Vec<String>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long, value_name = "LIST")]
    device_cgroup_rule: Vec<String>,
    /// Set custom DNS servers
    #[arg(long, value_name = "LIST")]
    dns: Vec<String>,
    /// Set DNS options
    #[arg(long, alias = "dns-opt", value_name = "LIST")]
    dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "LIST")]
    dns_search: Vec<String>,
    /// Container NIS domain name
    #[arg(long, value_name = "STRING", default_value = "")]
    domainname: String,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "STRING")]
    entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "LIST")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "LIST")]
    env_file: Vec<String>,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "LIST")]
    expose: Vec<String>,
    /// Add additional groups to join
    #[arg(long, value_name = "LIST")]
    group_add: Vec<String>,
    /// Command to run to check health
    #[arg(long, value_name = "STRING")]
    health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "INT")]
    health_retries: Option<i64>,
    /// Start period for the container to initialize (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// Container host name
    #[arg(short = 'h', long, value_name = "STRING", default_value = "")]
    hostname: String,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, value_name = "STRING", default_value = "")]
    ip: String,
    /// IPC mode to use
    #[arg(long, value_name = "STRING", default_value = "")]
    ipc: String,
    /// Set meta data on a container
    #[arg(short, long, value_name = "LIST")]
    label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long, value_name = "LIST")]
    label_file: Vec<String>,
    /// Add link to another container
    #[arg(long, value_name = "LIST")]
    link: Vec<String>,
    /// Logging driver for the container
    #[arg(long, value_name = "STRING", default_value = "")]
    log_driver: String,
    /// Log driver options
    #[arg(long, value_name = "LIST")]
    log_opt: Vec<String>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long, value_name = "STRING", default_value = "")]
    mac_address: String,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Tune container memory swappiness (0 to 100)
    #[arg(long, value_name = "INT", allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Attach a filesystem mount to the container
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Assign a name to the container
    #[arg(long, value_name = "STRING")]
    pub(crate) name: Option<String>,
    /// Connect a container to a network
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Add network-scoped alias for the container
    #[arg(long, alias = "net-alias", value_name = "LIST")]
    network_alias: Vec<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    no_healthcheck: bool,
    /// Disable OOM Killer
    #[arg(long)]
    oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, value_name = "INT", default_value_t = 0, allow_hyphen_values = true)]
    oom_score_adj: i64,
    /// PID namespace to use
    #[arg(long, value_name = "STRING", default_value = "")]
    pid: String,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "INT", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "STRING", default_value = "")]
    pub(crate) platform: String,
    /// Give extended privileges to this container
    #[arg(long)]
    privileged: bool,
    /// Publish a container's port(s) to the host
    #[arg(short, long, value_name = "LIST")]
    publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Pull image before running ("always", "missing", "never")
    #[arg(long, value_name = "STRING", default_value = "missing")]
    pub(crate) pull: String,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    read_only: bool,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "STRING", default_value = "no")]
    restart: String,
    /// Automatically remove the container when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Runtime to use for this container
    #[arg(long, value_name = "STRING", default_value = "")]
    runtime: String,
    /// Security Options
    #[arg(long, value_name = "LIST")]
    security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Signal to stop the container
    #[arg(long, value_name = "STRING")]
    stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, value_name = "INT", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Storage driver options for the container
    #[arg(long, value_name = "LIST")]
    storage_opt: Vec<String>,
    /// Sysctl options
    #[arg(long, value_name = "MAP")]
    sysctl: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "LIST")]
    tmpfs: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Ulimit options
    #[arg(long, value_name = "ULIMIT")]
    ulimit: Vec<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long, value_name = "STRING", default_value = "")]
    user: String,
    /// User namespace to use
    #[arg(long, value_name = "STRING", default_value = "")]
    userns: String,
    /// UTS namespace to use
    #[arg(long, value_name = "STRING", default_value = "")]
    uts: String,
    /// Bind mount a volume
    #[arg(short, long, value_name = "LIST")]
    volume: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long, value_name = "STRING", default_value = "")]
    volume_driver: String,
    /// Mount volumes from the specified container(s)
    #[arg(long, value_name = "LIST")]
    volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "STRING", default_value = "")]
    workdir: String,
    /// Image to run
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Which of a container's streams this terminal gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl CreateArgs {
    /// The body of the create request. `attached` is all false for a detached container.
    pub(crate) fn body(&self, attached: Attached, console: Option<(u16, u16)>) -> Result<Value> {
        let mut exposed = ports(&self.expose)?;
        let bindings = bindings(&self.publish)?;
        exposed.extend(bindings.keys().map(|k| (k.clone(), json!({}))));
        let mut volumes = Map::new();
        let mut binds = Vec::new();
        for v in &self.volume {
            if v.contains(':') {
                binds.push(absolute_bind(v)?)
            } else {
                drop(volumes.insert(v.clone(), json!({})))
            }
        }
        let (mode, endpoints) = self.networks();
        let mut body = json!({
            "Hostname": self.hostname, "Domainname": self.domainname, "User": self.user,
            "AttachStdin": attached.stdin, "AttachStdout": attached.stdout, "AttachStderr": attached.stderr,
            "ExposedPorts": exposed, "Tty": self.tty, "OpenStdin": self.interactive,
            "StdinOnce": self.interactive && attached.stdin,
            "Env": self.environment()?,
            "Cmd": if self.command.is_empty() { Value::Null } else { json!(self.command) },
            "Image": self.image, "Volumes": volumes, "WorkingDir": self.workdir,
            "Entrypoint": self.entrypoint.as_ref().map(|e| if e.is_empty() { json!([""]) } else { json!([e]) }),
            "Labels": self.labels()?, "StopSignal": self.stop_signal, "StopTimeout": self.stop_timeout,
            "HostConfig": self.host(binds, bindings, &mode, console)?,
            "NetworkingConfig": {"EndpointsConfig": endpoints},
        });
        if let Some(health) = self.health()? {
            body["Healthcheck"] = health;
        }
        if !self.mac_address.is_empty() {
            body["MacAddress"] = json!(self.mac_address);
        }
        Ok(body)
    }

    fn host(
        &self,
        binds: Vec<String>,
        bindings: BTreeMap<String, Value>,
        mode: &str,
        console: Option<(u16, u16)>,
    ) -> Result<Value> {
        let size = |v: &Option<String>| v.as_deref().map_or(Ok(0), bytes);
        let mut host = json!({
            "Binds": binds, "ContainerIDFile": self.cidfile,
            "LogConfig": {"Type": self.log_driver, "Config": pairs(&self.log_opt)},
            "NetworkMode": mode, "PortBindings": bindings, "RestartPolicy": restart(&self.restart)?,
            "AutoRemove": self.rm, "VolumeDriver": self.volume_driver, "VolumesFrom": list(&self.volumes_from),
            "ConsoleSize": console.map_or([0, 0], |(h, w)| [h, w]),
            "CapAdd": list(&self.cap_add), "CapDrop": list(&self.cap_drop), "CgroupnsMode": self.cgroupns,
            "Dns": self.dns, "DnsOptions": self.dns_option, "DnsSearch": self.dns_search,
            "ExtraHosts": self.add_host.iter().map(|h| h.replacen('=', ":", 1)).collect::<Vec<_>>(),
            "GroupAdd": list(&self.group_add), "IpcMode": self.ipc, "Links": list(&self.link), "OomScoreAdj": self.oom_score_adj,
            "PidMode": self.pid, "Privileged": self.privileged, "PublishAllPorts": self.publish_all,
            "ReadonlyRootfs": self.read_only, "SecurityOpt": list(&self.security()?), "UTSMode": self.uts, "UsernsMode": self.userns,
            "ShmSize": size(&self.shm_size)?, "Runtime": self.runtime,
            "CpuShares": self.cpu_shares, "Memory": size(&self.memory)?,
            "NanoCpus": self.cpus.as_deref().map_or(Ok(0), cpus)?, "CgroupParent": self.cgroup_parent,
            "BlkioWeight": self.blkio_weight.unwrap_or(0), "CpuPeriod": self.cpu_period, "CpuQuota": self.cpu_quota,
            "CpusetCpus": self.cpuset_cpus, "CpusetMems": self.cpuset_mems, "Devices": self.devices()?,
            "DeviceCgroupRules": list(&self.device_cgroup_rule), "MemoryReservation": size(&self.memory_reservation)?,
            "MemorySwap": self.memory_swap.as_deref().map_or(Ok(0), bytes_or_unlimited)?,
            "MemorySwappiness": self.memory_swappiness, "OomKillDisable": self.oom_kill_disable,
            "PidsLimit": self.pids_limit, "Ulimits": self.ulimits()?, "Init": self.init.then_some(true),
        });
        if !self.mount.is_empty() {
            host["Mounts"] =
                Value::Array(self.mount.iter().map(|m| super::mount::parse(m)).collect::<Result<_>>()?);
        }
        let maps = [
            ("Tmpfs", &self.tmpfs, ':'),
            ("Sysctls", &self.sysctl, '='),
            ("StorageOpt", &self.storage_opt, '='),
            ("Annotations", &self.annotation, '='),
        ];
        for (key, values, separator) in maps {
            if !values.is_empty() {
                let split = |v: &String| {
                    v.split_once(separator).map_or((v.clone(), json!("")), |(k, v)| (k.to_owned(), json!(v)))
                };
                host[key] = Value::Object(values.iter().map(split).collect());
            }
        }
        Ok(host)
    }

    /// The network mode, and the endpoint that its options make.
    fn networks(&self) -> (String, Value) {
        let mut endpoints = Map::new();
        let mode = self.network.first().cloned().unwrap_or_else(|| "default".into());
        for name in &self.network {
            let own = self.network.len() > 1 || !self.ip.is_empty() || !self.network_alias.is_empty();
            if own && !["host", "none", "default"].contains(&name.as_str()) && !name.starts_with("container:")
            {
                let ipam = (!self.ip.is_empty()).then(|| json!({"IPv4Address": self.ip}));
                endpoints
                    .insert(name.clone(), json!({"IPAMConfig": ipam, "Aliases": list(&self.network_alias)}));
            }
        }
        (mode, Value::Object(endpoints))
    }

    fn environment(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for file in &self.env_file {
            for line in lines(file)? {
                all.extend(resolved(&line));
            }
        }
        all.extend(self.env.iter().flat_map(|e| resolved(e)));
        Ok(all)
    }

    fn labels(&self) -> Result<Value> {
        let mut all = Vec::new();
        for file in &self.label_file {
            all.extend(lines(file)?);
        }
        all.extend(self.label.iter().cloned());
        Ok(pairs(&all))
    }

    fn health(&self) -> Result<Option<Value>> {
        if self.no_healthcheck {
            return Ok(Some(json!({"Test": ["NONE"]})));
        }
        let time = |v: &Option<String>| v.as_deref().map_or(Ok(0), duration);
        let given =
            [&self.health_cmd, &self.health_interval, &self.health_start_period, &self.health_timeout];
        if given.iter().all(|g| g.is_none()) && self.health_retries.is_none() {
            return Ok(None);
        }
        Ok(Some(json!({
            "Test": self.health_cmd.as_ref().map(|c| json!(["CMD-SHELL", c])),
            "Interval": time(&self.health_interval)?, "Timeout": time(&self.health_timeout)?,
            "StartPeriod": time(&self.health_start_period)?, "Retries": self.health_retries.unwrap_or(0),
        })))
    }

    /// A seccomp profile is read here: the daemon may be elsewhere.
    fn security(&self) -> Result<Vec<String>> {
        self.security_opt
            .iter()
            .map(|opt| match opt.strip_prefix("seccomp=").or_else(|| opt.strip_prefix("seccomp:")) {
                Some(file) if !["unconfined", "builtin"].contains(&file) => {
                    let text = fs::read_to_string(file)
                        .context(|| format!("opening seccomp profile ({file}) failed"))?;
                    let profile: Value = serde_json::from_str(&text)
                        .context(|| format!("compacting json for seccomp profile ({file}) failed"))?;
                    Ok(format!("seccomp={profile}"))
                }
                _ => Ok(opt.clone()),
            })
            .collect()
    }

    fn devices(&self) -> Result<Value> {
        let parse = |text: &String| {
            let parts: Vec<&str> = text.split(':').collect();
            let mode = |m: &str| !m.is_empty() && m.bytes().all(|b| b"rwm".contains(&b));
            let (host, container, permissions) = match parts.as_slice() {
                [host] => (*host, *host, "rwm"),
                [host, m] if mode(m) => (*host, *host, *m),
                [host, container] => (*host, *container, "rwm"),
                [host, container, m] if mode(m) => (*host, *container, *m),
                _ => return Err(Failure::new(format!("invalid device specification: {text}"))),
            };
            Ok(json!({"PathOnHost": host, "PathInContainer": container, "CgroupPermissions": permissions}))
        };
        Ok(Value::Array(self.device.iter().map(parse).collect::<Result<_>>()?))
    }

    fn ulimits(&self) -> Result<Value> {
        let parse = |text: &String| {
            let bad = || Failure::new(format!("invalid ulimit argument: {text}"));
            let (name, limits) = text.split_once('=').ok_or_else(bad)?;
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            let number = |n: &str| n.parse::<i64>().map_err(|_| bad());
            Ok(json!({"Name": name, "Soft": number(soft)?, "Hard": number(hard)?}))
        };
        if self.ulimit.is_empty() {
            return Ok(Value::Null);
        }
        Ok(Value::Array(self.ulimit.iter().map(parse).collect::<Result<_>>()?))
    }
}

fn list(values: &[String]) -> Value {
    if values.is_empty() { Value::Null } else { json!(values) }
}

fn pairs(values: &[String]) -> Value {
    let split =
        |v: &String| v.split_once('=').map_or((v.clone(), json!("")), |(k, v)| (k.to_owned(), json!(v)));
    Value::Object(values.iter().map(split).collect())
}

/// The lines of a file of variables or labels, without comments.
fn lines(file: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).context(|| format!("open {file}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut out = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let name = line.split('=').next().unwrap_or_default();
        if name.contains(char::is_whitespace) {
            return Err(Failure::new(format!(
                "invalid env file ({file}): variable '{name}' contains whitespaces"
            )));
        }
        if name.is_empty() {
            return Err(Failure::new(format!(
                "invalid env file ({file}): no variable name on line '{line}'"
            )));
        }
        out.push(line.to_owned());
    }
    Ok(out)
}

/// A variable without a value takes this program's, if it has one.
fn resolved(text: &str) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    std::env::var(text).ok().map(|v| format!("{text}={v}"))
}

/// A source that starts with `.` or `~` is a path of this machine.
fn absolute_bind(text: &str) -> Result<String> {
    let (source, rest) = text.split_once(':').unwrap_or((text, ""));
    if source == "." || source == ".." || source.starts_with("./") || source.starts_with("../") {
        let path = std::path::absolute(source).context(|| format!("find {source}"))?;
        let clean = fs::canonicalize(&path).unwrap_or(path);
        return Ok(format!("{}:{rest}", clean.display()));
    }
    Ok(text.to_owned())
}

fn restart(text: &str) -> Result<Value> {
    let (name, count) = text.split_once(':').map_or((text, None), |(n, c)| (n, Some(c)));
    let count = match count {
        None => 0,
        Some(c) => c.parse::<i64>().map_err(|_| {
            Failure::new("invalid restart policy format: maximum retry count must be an integer")
        })?,
    };
    Ok(json!({"Name": name, "MaximumRetryCount": count}))
}

/// `80`, `80/udp`, `8000-8002`.
fn ports(values: &[String]) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for text in values {
        let (range, proto) = text.split_once('/').unwrap_or((text, "tcp"));
        for port in port_range(range, text)? {
            out.insert(format!("{port}/{proto}"), json!({}));
        }
    }
    Ok(out)
}

fn port_range(text: &str, whole: &str) -> Result<std::ops::RangeInclusive<u16>> {
    let bad = || Failure::new(format!("invalid containerPort: {whole}"));
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
    if from > to || from == 0 { Err(bad()) } else { Ok(from..=to) }
}

/// `[[ip:]hostPort:]containerPort[/proto]`, with ranges of equal length.
fn bindings(values: &[String]) -> Result<BTreeMap<String, Value>> {
    let mut out: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for text in values {
        let (spec, proto) = text.split_once('/').unwrap_or((text, "tcp"));
        let (rest, container) = spec.rsplit_once(':').unwrap_or(("", spec));
        let (ip, host) = match rest.strip_prefix('[') {
            Some(v6) => {
                v6.split_once(']').map(|(ip, port)| (ip, port.trim_start_matches(':'))).unwrap_or((v6, ""))
            }
            None => rest.rsplit_once(':').unwrap_or(("", rest)),
        };
        let containers = port_range(container, text)?;
        let hosts: Vec<String> = if host.is_empty() {
            containers.clone().map(|_| String::new()).collect()
        } else {
            let bad = || Failure::new(format!("invalid hostPort: {host}"));
            let range = port_range(host, text).map_err(|_| bad())?;
            if containers.clone().count() == 1 && range.clone().count() > 1 {
                vec![host.to_owned()]
            } else {
                range.map(|p| p.to_string()).collect()
            }
        };
        if hosts.len() != containers.clone().count() {
            return Err(Failure::new(format!(
                "invalid ranges specified for container and host Ports: {text}"
            )));
        }
        for (port, host) in containers.zip(hosts) {
            out.entry(format!("{port}/{proto}")).or_default().push(json!({"HostIp": ip, "HostPort": host}));
        }
    }
    Ok(out.into_iter().map(|(k, v)| (k, Value::Array(v))).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Test {
        #[command(flatten)]
        create: CreateArgs,
    }

    fn body(args: &[&str]) -> Value {
        let all = std::iter::once("run").chain(args.iter().copied());
        let attached = Attached { stdin: false, stdout: true, stderr: true };
        Test::try_parse_from(all).map_err(|e| e.to_string()).unwrap().create.body(attached, None).unwrap()
    }

    #[test]
    fn flags_after_the_image_are_the_commands() {
        let b = body(&["-e", "A=1", "--rm", "img", "sh", "-c", "--rm", "-e"]);
        assert_eq!(b["Cmd"], json!(["sh", "-c", "--rm", "-e"]));
        assert_eq!((&b["Env"], &b["HostConfig"]["AutoRemove"]), (&json!(["A=1"]), &json!(true)));
    }

    #[test]
    fn ports_become_bindings() {
        let b = body(&[
            "-p",
            "8080:80",
            "-p",
            "127.0.0.1:53:53/udp",
            "-p",
            "[::1]::90",
            "-p",
            "7000-7001:6000-6001",
            "img",
        ]);
        let p = &b["HostConfig"]["PortBindings"];
        assert_eq!(p["80/tcp"], json!([{"HostIp": "", "HostPort": "8080"}]));
        assert_eq!(p["53/udp"], json!([{"HostIp": "127.0.0.1", "HostPort": "53"}]));
        assert_eq!(p["90/tcp"], json!([{"HostIp": "::1", "HostPort": ""}]));
        assert_eq!(p["6001/tcp"], json!([{"HostIp": "", "HostPort": "7001"}]));
        assert_eq!(b["ExposedPorts"]["80/tcp"], json!({}));
    }

    #[test]
    fn limits_and_maps() {
        let b = body(&[
            "-m",
            "64m",
            "--memory-swap",
            "-1",
            "--cpus",
            "1.5",
            "--ulimit",
            "nofile=1:2",
            "--tmpfs",
            "/t:size=1m",
            "--sysctl",
            "a.b=1",
            "-v",
            "vol:/x:ro",
            "-v",
            "/anon",
            "--restart",
            "on-failure:3",
            "img",
        ]);
        let h = &b["HostConfig"];
        assert_eq!(
            (&h["Memory"], &h["MemorySwap"], &h["NanoCpus"]),
            (&json!(64 << 20), &json!(-1), &json!(1_500_000_000))
        );
        assert_eq!(h["Ulimits"], json!([{"Name": "nofile", "Soft": 1, "Hard": 2}]));
        assert_eq!((&h["Tmpfs"], &h["Sysctls"]), (&json!({"/t": "size=1m"}), &json!({"a.b": "1"})));
        assert_eq!((&h["Binds"], &b["Volumes"]), (&json!(["vol:/x:ro"]), &json!({"/anon": {}})));
        assert_eq!(h["RestartPolicy"], json!({"Name": "on-failure", "MaximumRetryCount": 3}));
    }
}
