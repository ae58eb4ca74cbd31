use super::UnixNanos;

/// The numbers behind `docker info`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct SystemInfo {
    /// Of this data root; made once.
    pub id: String,
    pub containers: usize,
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    pub driver: String,
    pub driver_status: Vec<(String, String)>,
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub cpu_cfs_period: bool,
    pub cpu_cfs_quota: bool,
    pub cpu_shares: bool,
    pub cpuset: bool,
    pub pids_limit: bool,
    pub oom_kill_disable: bool,
    pub ipv4_forwarding: bool,
    pub debug: bool,
    /// Open descriptors of the daemon.
    pub fds: usize,
    pub event_listeners: usize,
    pub system_time: UnixNanos,
    /// `cgroupfs`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    pub kernel_version: String,
    pub operating_system: String,
    pub os_version: String,
    /// As the kernel names it: `x86_64`.
    pub architecture: String,
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    pub root_dir: String,
    pub hostname: String,
    /// `name=seccomp,profile=builtin`, ...
    pub security_options: Vec<String>,
    pub runtimes: Vec<(String, String)>,
    pub default_runtime: String,
    pub log_drivers: Vec<String>,
    pub volume_drivers: Vec<String>,
    pub network_drivers: Vec<String>,
    pub warnings: Vec<String>,
    /// Addresses of the mirrors of Docker's registry.
    pub mirrors: Vec<String>,
    /// Registries that need not be trusted, beside those of this machine: names and networks.
    pub insecure_registries: Vec<String>,
}

/// What `docker version` shows of the machine.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct SystemVersion {
    pub kernel_version: String,
    /// Go's name: `amd64`.
    pub architecture: String,
    pub os: String,
}

/// What is asked about.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct UsageOf {
    pub images: bool,
    pub containers: bool,
    pub volumes: bool,
    /// Every byte under the data root.
    pub ledger: bool,
}

/// `docker system df`.
#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
    /// Bytes of all layers of images, each counted once.
    pub layers_size: u64,
    /// With the sizes that they share.
    pub images: Vec<super::ImageView>,
    /// With their sizes.
    pub containers: Vec<super::ContainerSummary>,
    #[allow(missing_docs)]
    pub volumes: Vec<VolumeUsage>,
    #[allow(missing_docs)]
    pub ledger: Option<Ledger>,
}

/// Every byte under the data root, in blocks of the file system, and whose it is.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By kind, then by name.
    pub rows: Vec<LedgerRow>,
    /// Bytes of all rows.
    pub total: u64,
    #[allow(missing_docs)]
    pub data_root: String,
}

/// One object of the ledger.
#[derive(Clone, Debug, Default)]
pub struct LedgerRow {
    /// `layer`, `compressed-layer`, `document`, `writable-layer`, `container-files`, `log`, `volume`, `metadata`,
    /// `arriving`, `leftover`.
    pub kind: &'static str,
    /// A chain id, a digest, a container's id, a volume's name, or a path.
    pub name: String,
    /// Allocated bytes.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
    /// How many images have it, of a layer and what belongs to one.
    pub shared: usize,
    /// What a person calls it: an image's or a container's name.
    pub of: String,
}

/// A volume and what it takes.
#[derive(Clone, Debug, Default)]
pub struct VolumeUsage {
    #[allow(missing_docs)]
    pub volume: super::Volume,
    /// Containers that mount it.
    pub users: usize,
    /// Bytes.
    pub size: u64,
}
