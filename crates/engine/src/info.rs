//! The numbers of `docker info` and `docker version`.

use std::path::Path;

use longshore_oci::Platform;
use longshore_runtime::cgroup::Hierarchy;

use crate::model::{Status, SystemInfo, SystemVersion};
use crate::time::now;
use crate::{Engine, Result};

impl Engine {
    /// Kernel and processor.
    ///
    /// # Errors
    /// None today.
    pub async fn version(&self) -> Result<SystemVersion> {
        Ok(SystemVersion {
            kernel_version: kernel(),
            architecture: Platform::host().architecture,
            os: "linux".into(),
        })
    }

    /// What the engine has and what the machine allows.
    ///
    /// # Errors
    /// When the images cannot be counted.
    pub async fn info(&self) -> Result<SystemInfo> {
        self.blocking(|e| e.info_blocking()).await
    }

    fn info_blocking(&self) -> Result<SystemInfo> {
        let mut info = SystemInfo::default();
        for c in self.all() {
            info.containers += 1;
            match c.read().record.state.status {
                Status::Running | Status::Restarting => info.running += 1,
                Status::Paused => info.paused += 1,
                _ => info.stopped += 1,
            }
        }
        let choice = self.inner.store.driver_choice();
        let v2 = cgroup_v2();
        // What the daemon can give to containers.
        let groups = Hierarchy::get().ok();
        let controller = |name: &str| groups.is_some_and(|groups| groups.has(name));
        let (memory, cpu) = (controller("memory"), controller("cpu"));
        let root = |file: &str| Path::new("/sys/fs/cgroup").join(file).exists();
        let os = os_release();
        Ok(SystemInfo {
            id: self.inner.system_id.clone(),
            images: self.inner.store.images().list()?.len(),
            driver: choice.name.as_str().to_owned(),
            driver_status: choice.status.clone(),
            memory_limit: memory,
            swap_limit: memory && (v2 || root("memory/memory.memsw.limit_in_bytes")),
            cpu_cfs_period: cpu,
            cpu_cfs_quota: cpu,
            cpu_shares: cpu,
            cpuset: controller("cpuset"),
            pids_limit: controller("pids"),
            oom_kill_disable: memory && !v2,
            ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
            debug: self.inner.options.debug,
            fds: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            event_listeners: self.inner.events.listeners(),
            system_time: now(),
            cgroup_driver: if groups.is_some_and(|g| !g.is_bare()) { "cgroupfs" } else { "none" }.into(),
            cgroup_version: if v2 { "2" } else { "1" }.into(),
            kernel_version: kernel(),
            operating_system: os.0,
            os_version: os.1,
            architecture: rustix::system::uname().machine().to_string_lossy().into_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory_total(),
            root_dir: self.inner.paths.data.to_string_lossy().into_owned(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            security_options: self.security_options(v2),
            runtimes: self.inner.runtimes.list(),
            default_runtime: self.inner.runtimes.default_name().to_owned(),
            log_drivers: vec!["json-file".into(), "none".into()],
            volume_drivers: vec!["local".into()],
            network_drivers: ["bridge", "host", "ipvlan", "macvlan", "null"].map(str::to_owned).to_vec(),
            mirrors: self
                .inner
                .options
                .registry
                .mirrors
                .iter()
                .filter(|m| m.registry == "docker.io")
                .map(|m| m.url.clone())
                .collect(),
            insecure_registries: self
                .inner
                .options
                .registry
                .insecure
                .iter()
                .map(ToString::to_string)
                .collect(),
            warnings: self
                .inner
                .networks
                .bridge()
                .err()
                .map(|e| format!("WARNING: {e}"))
                .into_iter()
                .collect(),
            ..info
        })
    }

    /// What happened and what happens.
    ///
    /// # Errors
    /// For unknown filters.
    pub async fn events(&self, request: crate::model::EventsRequest) -> Result<crate::stream::EventStream> {
        self.inner.events.subscribe(request)
    }

    fn security_options(&self, v2: bool) -> Vec<String> {
        let mut out = Vec::new();
        let confines = !self.inner.options.rootless || longshore_runtime::apparmor::default_loaded();
        if apparmor_enabled() && confines {
            out.push("name=apparmor".into());
        }
        out.push("name=seccomp,profile=builtin".into());
        if v2 {
            out.push("name=cgroupns".into());
        }
        if self.inner.options.rootless {
            out.push("name=rootless".into());
        }
        out
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Whether the kernel confines with AppArmor.
pub(crate) fn apparmor_enabled() -> bool {
    read("/sys/module/apparmor/parameters/enabled").starts_with('Y')
}

pub(crate) fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn memory_total() -> u64 {
    let text = read("/proc/meminfo");
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Name and version of the host's system.
fn os_release() -> (String, String) {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .map(|p| read(p))
        .find(|t| !t.is_empty())
        .unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.map(|v| v.trim_matches(['"', '\'']).to_owned())
    };
    (value("PRETTY_NAME").unwrap_or_else(|| "Linux".into()), value("VERSION_ID").unwrap_or_default())
}
