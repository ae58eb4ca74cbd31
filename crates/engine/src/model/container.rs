use std::collections::BTreeMap;
use std::path::PathBuf;

use longshore_oci::Digest;
use longshore_oci::image::RunConfig;
use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970, UTC; 0 stands for "never" (Docker's `0001-01-01T00:00:00Z`).
pub type UnixNanos = i64;

/// What a container runs and what it is called: the client's request merged with the image's
/// configuration. Persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// User, environment, entrypoint, command, ports, volumes, labels, working directory...
    pub run: RunConfig,
    /// Reference or id exactly as the client gave it.
    pub image: String,
    /// First label of the host name; empty: the first 12 digits of the id.
    pub hostname: String,
    /// NIS domain.
    pub domainname: String,
    /// A terminal is process's standard input, output and error.
    pub tty: bool,
    /// Standard input stays open although nobody is attached.
    pub open_stdin: bool,
    /// Standard input closes when the first attached client leaves.
    pub stdin_once: bool,
    /// What `docker run` attached to; shown by inspect, nothing else.
    pub attach_stdin: bool,
    #[allow(missing_docs)]
    pub attach_stdout: bool,
    #[allow(missing_docs)]
    pub attach_stderr: bool,
    /// No network at all.
    pub network_disabled: bool,
    /// Seconds that `stop` waits before it kills; `None`: 10. Negative: for ever.
    pub stop_timeout: Option<i64>,
    /// Deprecated place of the MAC address (API < 1.44).
    pub mac_address: String,
}

/// How a container is set up on this host. Persisted. Names follow Docker's `HostConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct HostConfig {
    /// `-v` as given: `source:target[:options]`.
    pub binds: Option<Vec<String>>,
    /// `--mount`.
    pub mounts: Option<Vec<MountSpec>>,
    /// `--tmpfs`: target to options.
    pub tmpfs: Option<BTreeMap<String, String>>,
    pub volume_driver: String,
    pub volumes_from: Option<Vec<String>>,
    pub container_id_file: String,
    pub log: LogConfig,
    /// `default`/`bridge`, `host`, `none`, `container:<id>`, or a network's name or id.
    pub network_mode: String,
    /// `80/tcp` to host addresses and ports.
    pub port_bindings: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
    pub publish_all_ports: bool,
    pub publish_mode: PublishMode,
    pub restart: RestartPolicy,
    pub auto_remove: bool,
    /// Rows, columns.
    pub console_size: (u32, u32),
    pub annotations: Option<BTreeMap<String, String>>,
    pub cap_add: Option<Vec<String>>,
    pub cap_drop: Option<Vec<String>>,
    /// `host`, `private`, or empty for the host's default.
    pub cgroupns_mode: String,
    pub dns: Option<Vec<String>>,
    pub dns_options: Option<Vec<String>>,
    pub dns_search: Option<Vec<String>>,
    pub extra_hosts: Option<Vec<String>>,
    pub group_add: Option<Vec<String>>,
    /// `private`, `shareable`, `host`, `none`, `container:<id>`.
    pub ipc_mode: String,
    pub cgroup: String,
    pub links: Option<Vec<String>>,
    pub oom_score_adj: i64,
    pub pid_mode: String,
    pub privileged: bool,
    pub readonly_rootfs: bool,
    pub security_opt: Option<Vec<String>>,
    pub storage_opt: Option<BTreeMap<String, String>>,
    pub uts_mode: String,
    pub userns_mode: String,
    /// Bytes; 0: 64 MiB.
    pub shm_size: i64,
    pub sysctls: Option<BTreeMap<String, String>>,
    pub runtime: String,
    pub isolation: String,
    pub resources: Resources,
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    /// `--init`; `None`: the daemon's default.
    pub init: Option<bool>,
}

/// How what comes to a published port gets to the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// As the daemon is set up: by rules of the firewall, if it can.
    #[default]
    Unset,
    /// By rules of the firewall: it is forwarded, and the container sees who asks.
    Nat,
    /// The engine listens on the host and passes it on: for the host's firewall it is what comes to the host itself.
    Local,
}

impl PublishMode {
    /// Empty if nothing is asked for.
    pub fn word(self) -> &'static str {
        match self {
            PublishMode::Unset => "",
            PublishMode::Nat => "nat",
            PublishMode::Local => "local",
        }
    }
}

impl std::str::FromStr for PublishMode {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        match text {
            "" => Ok(PublishMode::Unset),
            "nat" => Ok(PublishMode::Nat),
            "local" => Ok(PublishMode::Local),
            _ => Err(crate::Error::invalid(format!("invalid publish mode {text:?}: want nat or local"))),
        }
    }
}

/// Limits. Bytes, microseconds and Docker's units throughout; 0 or `None`: unlimited or default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Resources {
    pub cpu_shares: i64,
    pub memory: i64,
    pub memory_reservation: i64,
    /// Memory and swap together; -1: unlimited swap.
    pub memory_swap: i64,
    pub memory_swappiness: Option<i64>,
    /// Billionths of a processor.
    pub nano_cpus: i64,
    pub cgroup_parent: String,
    pub blkio_weight: u16,
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: i64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub devices: Option<Vec<DeviceMapping>>,
    pub device_cgroup_rules: Option<Vec<String>>,
    pub device_requests: Option<Vec<serde_json::Value>>,
    pub oom_kill_disable: Option<bool>,
    pub pids_limit: Option<i64>,
    pub ulimits: Option<Vec<Ulimit>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct WeightDevice {
    pub path: String,
    pub weight: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ThrottleDevice {
    pub path: String,
    pub rate: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeviceMapping {
    pub host: String,
    pub container: String,
    /// Of `rwm`.
    pub permissions: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LogConfig {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PortBinding {
    pub host_ip: String,
    /// A port, a range, or empty for any.
    pub host_port: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RestartPolicy {
    /// `""`/`no`, `always`, `on-failure`, `unless-stopped`.
    pub name: String,
    pub max_retries: i64,
}

/// `--mount`, as asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct MountSpec {
    /// `bind`, `volume`, `tmpfs` (others are refused).
    pub kind: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub consistency: String,
    pub bind_propagation: String,
    pub bind_non_recursive: bool,
    pub bind_create_mountpoint: bool,
    pub bind_read_only_non_recursive: bool,
    pub bind_read_only_force_recursive: bool,
    pub volume_no_copy: bool,
    pub volume_subpath: String,
    pub volume_labels: BTreeMap<String, String>,
    pub volume_driver: String,
    pub volume_driver_options: BTreeMap<String, String>,
    pub tmpfs_size: i64,
    pub tmpfs_mode: u32,
    pub tmpfs_options: Vec<Vec<String>>,
    /// Which of the option groups the client sent, so that inspect can show the same.
    pub has_bind: bool,
    pub has_volume: bool,
    pub has_tmpfs: bool,
}

/// A mount as resolved at create: what inspect's `Mounts` shows. Persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    pub name: String,
    pub source: PathBuf,
    pub destination: String,
    pub driver: String,
    pub mode: String,
    pub rw: bool,
    pub propagation: String,
    /// Copy the image's content into a new volume.
    pub copy_up: bool,
    /// Below the volume's root.
    pub subpath: String,
    pub non_recursive: bool,
    /// Mount options of a tmpfs.
    pub tmpfs_options: String,
    /// Created for an image's VOLUME or `-v /path`: removed with `rm -v`.
    pub anonymous: bool,
    /// `--mount` names it, so a missing bind source is an error rather than made.
    pub from_mounts: bool,
}

/// A create request, already checked for form at the door.
#[derive(Clone, Debug, Default)]
pub struct CreateContainer {
    /// Without the leading slash; `None`: a made-up one.
    pub name: Option<String>,
    /// Text of a platform asked for.
    pub platform: Option<String>,
    #[allow(missing_docs)]
    pub config: ContainerConfig,
    #[allow(missing_docs)]
    pub host: HostConfig,
    /// `NetworkingConfig.EndpointsConfig`.
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// The answer to a create request.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Restarting,
        Self::Removing,
        Self::Exited,
        Self::Dead,
    ];

    /// The status that Docker has this word for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }

    /// Docker's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// `State` of inspect. Persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct State {
    pub status: Status,
    pub pid: u32,
    pub exit_code: i32,
    pub error: String,
    pub oom_killed: bool,
    pub started: UnixNanos,
    pub finished: UnixNanos,
    /// What its health check says; `None` before the first start of a container that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// What a container's health check says. Persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// What follows from the results so far.
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The latest results, the oldest first.
    pub log: Vec<HealthResult>,
    /// The check that runs now: a daemon that starts ends what an earlier one left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<HealthProbe>,
}

/// Whether a container is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthStatus {
    /// No check has succeeded yet, and not enough have failed.
    #[default]
    Starting,
    /// The last check succeeded, or fewer failed since than it takes.
    Healthy,
    /// Too many failed, or nobody checks.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How one check went. Persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct HealthResult {
    pub start: UnixNanos,
    pub end: UnixNanos,
    /// 0 is well; -1 stands for a check that could not be run or took too long.
    pub exit_code: i32,
    pub output: String,
}

/// The process of a check. Persisted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthProbe {
    /// As the daemon numbers it.
    pub pid: u32,
    /// When it started, in clock ticks since boot: together with the number its identity.
    pub start_time: u64,
}

/// One network of a container: what was asked, and what it has while running. Persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct EndpointSettings {
    pub aliases: Option<Vec<String>>,
    pub links: Option<Vec<String>>,
    /// Asked for by the client.
    pub ipam_ipv4: String,
    pub ipam_ipv6: String,
    pub has_ipam: bool,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub gw_priority: i64,
    pub network_id: String,
    pub endpoint_id: String,
    pub gateway: String,
    pub ip_address: String,
    pub ip_prefix_len: u32,
    pub ipv6_gateway: String,
    pub global_ipv6_address: String,
    pub global_ipv6_prefix_len: u32,
    /// The one that it has, or will have.
    pub mac_address: String,
    /// Asked for by the client.
    #[serde(default)]
    pub asked_mac: String,
    pub dns_names: Option<Vec<String>>,
}

/// What is to be different of a container; nothing of what is `None`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct UpdateContainer {
    /// All that it is to publish from now on.
    pub ports: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
    pub restart: Option<RestartPolicy>,
}

/// Everything about one container, for inspect.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ContainerView {
    pub id: String,
    /// Without the slash.
    pub name: String,
    pub created: UnixNanos,
    pub path: String,
    pub args: Vec<String>,
    pub state: State,
    pub image_id: Digest,
    pub restart_count: u32,
    pub config: ContainerConfig,
    pub host: HostConfig,
    pub mounts: Vec<MountPoint>,
    pub driver: String,
    pub graph: BTreeMap<String, String>,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    pub mount_label: String,
    pub process_label: String,
    pub apparmor_profile: String,
    pub exec_ids: Vec<String>,
    pub sandbox_id: String,
    pub sandbox_key: String,
    /// Published ports while running: `80/tcp` to bindings (empty list: exposed only).
    pub ports: BTreeMap<String, Vec<PortBinding>>,
    pub networks: BTreeMap<String, EndpointSettings>,
    /// Bytes of the writable layer and of the whole tree, when asked for.
    pub sizes: Option<(u64, u64)>,
}

/// What `ps` shows; the same data, so one type serves both.
pub type ContainerSummary = ContainerView;

/// Which containers `ps` wants. Filters are Docker's (ancestor, before, exited, expose, health,
/// id, is-task, label, name, network, publish, since, status, volume); unknown ones are refused
/// by the engine with Docker's words.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct ListContainers {
    pub all: bool,
    pub limit: Option<usize>,
    pub size: bool,
    pub filters: Filters,
}

/// Docker's filters: name to values; several values of one name are alternatives (labels: all).
pub type Filters = BTreeMap<String, Vec<String>>;

/// What `docker exec` asks for.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct CreateExec {
    pub user: String,
    pub privileged: bool,
    pub tty: bool,
    pub console_size: Option<(u32, u32)>,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub detach_keys: Option<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub cmd: Vec<String>,
}

/// `GET /exec/{id}/json`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ExecView {
    pub id: String,
    pub container_id: String,
    pub request: CreateExec,
    pub running: bool,
    pub exit_code: Option<i32>,
    pub pid: u32,
    pub can_remove: bool,
}

/// `GET /containers/{id}/top`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Processes {
    pub titles: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Kinds of a filesystem change, numbered as Docker numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ChangeKind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

/// One line of `docker diff`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FsChange {
    pub path: String,
    pub kind: ChangeKind,
}

/// When `wait` returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum WaitCondition {
    #[default]
    NotRunning,
    NextExit,
    Removed,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct WaitResult {
    pub code: i64,
    pub error: Option<String>,
}

/// Which log lines are wanted. Times are nanoseconds.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct LogsRequest {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub since: Option<UnixNanos>,
    pub until: Option<UnixNanos>,
    pub timestamps: bool,
    /// Last lines only; `None`: all.
    pub tail: Option<u64>,
    pub details: bool,
}

/// A piece of a process's output.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct OutputChunk {
    pub stream: OutputStream,
    pub data: bytes::Bytes,
}

/// Numbered as in multiplexed frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OutputStream {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
}

/// Which streams an attach wants, and whether what was logged comes first.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct AttachRequest {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub logs: bool,
    pub stream: bool,
    pub detach_keys: Option<String>,
}

/// `HEAD /containers/{id}/archive`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct PathStat {
    pub name: String,
    pub size: i64,
    /// Go's `os.FileMode` bits.
    pub mode: u32,
    pub mtime: UnixNanos,
    pub link_target: String,
}

/// How `rm` removes.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct RemoveOptions {
    /// Kill it first when it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
    /// The link of that name, not the container (refused: links are not supported).
    pub link: bool,
    /// Tell what of the disk it gives back, which costs a look at every file.
    pub measure: bool,
}

/// `PUT /containers/{id}/archive`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArchivePutFlags {
    /// An entry that is not a directory must not replace one, nor a directory what is none.
    pub no_overwrite_dir_non_dir: bool,
    /// Owners as in the archive; otherwise the container's user.
    pub copy_uid_gid: bool,
}
