//! Control groups: a container's limits, its device rules, and the way to reach all its processes.
//!
//! Limits are planned purely ([`v1`], [`v2`], [`devices`]) and written here, before the first process
//! is inside. On v1 a container has a directory in every mounted hierarchy; where a unified hierarchy
//! is mounted beside them, it has one there too, for the sake of `cgroup.kill`.

mod detect;
mod devices;
mod fsio;
pub mod scope;
mod stats;
mod v1;
mod v2;

use std::ffi::CString;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_monitor::plan;
use longshore_sys::{Context, bpf};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};

pub use detect::{Hierarchy, Support, Version};
pub use stats::{BlockIoEntry, Cpu, Memory, Stats};

use crate::error::{Error, Result};
use crate::spec::{LinuxDeviceCgroup, LinuxRdma, LinuxResources};
use devices::Policy;

/// How long [`Cgroup::freeze`] waits for the last process to stop.
const FREEZE_TRIES: u32 = 200;

/// How often [`Cgroup::remove`] tries while killed processes are still going away.
const REMOVE_TRIES: u32 = 60;

/// A container's control group.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchy: &'static Hierarchy,
    /// Path below each hierarchy's mount point, without a slash before it.
    path: PathBuf,
    id: String,
}

/// What a new process enters the cgroup with.
#[derive(Debug)]
pub struct LaunchHandles {
    /// Directory to be born in (`CLONE_INTO_CGROUP`).
    pub v2: Option<OwnedFd>,
    /// `cgroup.procs` files to be written to.
    pub procs: Vec<OwnedFd>,
}

/// A value for a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    controller: String,
    file: String,
    value: String,
    /// What to write where the file does not exist.
    alternative: Option<(String, String)>,
    /// It does not matter if the file does not exist.
    optional: bool,
    /// The value is a period; the quota before it is the one that is set.
    keep_quota: bool,
}

impl Write {
    fn new(controller: impl Into<String>, file: impl Into<String>, value: impl Display) -> Self {
        Self {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            alternative: None,
            optional: false,
            keep_quota: false,
        }
    }

    fn or(mut self, file: &str, value: impl Display) -> Self {
        self.alternative = Some((file.to_owned(), value.to_string()));
        self
    }

    fn or_file(self, file: &str) -> Self {
        let value = self.value.clone();
        self.or(file, value)
    }

    fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    fn keeping_quota(mut self) -> Self {
        self.keep_quota = true;
        self
    }
}

/// A limit for files that know `max`.
fn or_max(limit: i64) -> String {
    if limit <= 0 { "max".to_owned() } else { limit.to_string() }
}

/// Checks a page size, which becomes part of a file name.
fn hugepage_size(size: &str) -> Result<&str> {
    let good = !size.is_empty() && size.bytes().all(|b| b.is_ascii_alphanumeric());
    if good { Ok(size) } else { Err(Error::Invalid(format!("huge page size {size:?} is malformed"))) }
}

fn rdma(device: &str, limits: &LinuxRdma) -> Result<Write> {
    if device.is_empty() || device.contains(char::is_whitespace) {
        return Err(Error::Invalid(format!("RDMA device {device:?} is malformed")));
    }
    let mut value = device.to_owned();
    if let Some(handles) = limits.hca_handles() {
        value.push_str(&format!(" hca_handle={handles}"));
    }
    if let Some(objects) = limits.hca_objects() {
        value.push_str(&format!(" hca_object={objects}"));
    }
    Ok(Write::new("rdma", "rdma.max", value))
}

impl Cgroup {
    /// Makes the control group `id` below `parent` (both below the mount points), with its limits
    /// and device rules. On failure nothing is left.
    ///
    /// # Errors
    /// When a limit cannot be set, or the group exists and has processes.
    pub fn create(parent: &str, id: &str, resources: &LinuxResources) -> Result<Self> {
        Self::create_in(Hierarchy::get()?, parent, id, resources)
    }

    fn create_in(
        hierarchy: &'static Hierarchy,
        parent: &str,
        id: &str,
        resources: &LinuxResources,
    ) -> Result<Self> {
        let group = Self::named(hierarchy, parent, id)?;
        let writes = group.plan(resources)?;
        let policy = Policy::new(resources.devices().as_deref().unwrap_or_default())?;
        group.make_dirs()?;
        let limited = group.apply(&writes).and_then(|()| group.restrict_devices(&policy));
        if let Err(e) = limited {
            if let Err(undo) = group.remove() {
                tracing::warn!("cgroup of {id}: {undo}");
            }
            return Err(e);
        }
        Ok(group)
    }

    /// The control group of a container that was made before.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it is not there.
    pub fn open(parent: &str, id: &str) -> Result<Self> {
        let group = Self::named(Hierarchy::get()?, parent, id)?;
        if group.is_bare() || group.primary().is_dir() {
            Ok(group)
        } else {
            Err(Error::NotRunning(id.to_owned()))
        }
    }

    /// Kills what is in the control group and removes it; it need not exist.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn delete(parent: &str, id: &str) -> Result<()> {
        let group = Self::named(Hierarchy::get()?, parent, id)?;
        if group.dirs().any(|dir| dir.is_dir()) {
            group.kill_all()?;
            group.remove()?;
        }
        Ok(())
    }

    /// Removes the directories of `parent` if no container is below it any more.
    ///
    /// # Errors
    /// When the name is malformed or no cgroups are mounted.
    pub fn remove_parent(parent: &str) -> Result<()> {
        let group = Self::named(Hierarchy::get()?, parent, "x")?;
        for dir in group.dirs() {
            if let Some(parent_dir) = dir.parent() {
                // Somebody else's container may be in it.
                let _ = std::fs::remove_dir(parent_dir);
            }
        }
        Ok(())
    }

    fn named(hierarchy: &'static Hierarchy, parent: &str, id: &str) -> Result<Self> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        let parent = parent.trim_matches('/');
        if !parent.split('/').all(plain) {
            return Err(Error::Invalid(format!("cgroup parent {parent:?} is malformed")));
        }
        if !plain(id) || id.contains('/') {
            return Err(Error::Invalid(format!("cgroup name {id:?} is malformed")));
        }
        Ok(Self { hierarchy, path: Path::new(parent).join(id), id: id.to_owned() })
    }

    /// Whether it is none: a daemon without root may have nowhere to make groups. Then there are no limits, and its
    /// processes are known by their monitor.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.hierarchy.is_bare()
    }

    /// Path below the mount points, with a slash before it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// Which interface its limits are set through.
    #[must_use]
    pub fn version(&self) -> Version {
        self.hierarchy.version()
    }

    /// Its directories, one per hierarchy.
    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        let mounts = self.hierarchy.v1.iter().map(|m| &m.dir).chain(&self.hierarchy.unified);
        mounts.map(|mount| mount.join(&self.path))
    }

    /// Directory of a controller.
    fn dir(&self, controller: &str) -> Option<PathBuf> {
        let mount = self.hierarchy.pure_v2().or_else(|| self.hierarchy.v1_dir(controller))?;
        Some(mount.join(&self.path))
    }

    /// Directory in the unified hierarchy.
    fn unified(&self) -> Option<PathBuf> {
        Some(self.hierarchy.unified.as_ref()?.join(&self.path))
    }

    /// The directory whose members count.
    fn primary(&self) -> PathBuf {
        let v1 = || ["pids", "freezer", "memory", "devices"].iter().find_map(|c| self.dir(c));
        let any = || self.dirs().next();
        self.hierarchy.pure_v2().map(|m| m.join(&self.path)).or_else(v1).or_else(any).unwrap_or_default()
    }

    fn plan(&self, resources: &LinuxResources) -> Result<Vec<Write>> {
        if self.version() == Version::V2 { v2::plan(resources) } else { v1::plan(resources) }
    }

    fn make_dirs(&self) -> Result<()> {
        for mount in self.hierarchy.v1.iter().map(|m| &m.dir).chain(&self.hierarchy.unified) {
            let made = self.make_dir(mount);
            if let Err(e) = made {
                if !matches!(e, Error::Exists(_))
                    && let Err(undo) = self.remove()
                {
                    tracing::warn!("cgroup of {}: {undo}", self.id);
                }
                return Err(e);
            }
        }
        Ok(())
    }

    fn make_dir(&self, mount: &Path) -> Result<()> {
        let dir = mount.join(&self.path);
        let is_cpuset = self.hierarchy.v1_dir("cpuset") == Some(mount);
        let is_v2 = self.hierarchy.pure_v2() == Some(mount);
        match std::fs::create_dir(&dir) {
            // The first container below this parent.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                fsio::make_parents(mount, &self.path)?;
                std::fs::create_dir(&dir)
            }
            // Left behind by a crash: limits of old must not stay.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                if !fsio::pids_below(&dir)?.is_empty() {
                    return Err(Error::Exists(self.id.clone()));
                }
                fsio::remove_tree(&dir)?;
                std::fs::create_dir(&dir)
            }
            done => done,
        }
        .context(|| format!("make cgroup {}", dir.display()))?;
        if is_cpuset {
            fsio::inherit_cpuset(mount, &self.path)?;
        }
        if is_v2 {
            fsio::delegate(mount, &self.path)?;
        }
        Ok(())
    }

    /// Changes limits; what `resources` does not say stays. Device rules are changed if there are any.
    ///
    /// # Errors
    /// When a limit cannot be set; those before it are.
    pub fn set(&self, resources: &LinuxResources) -> Result<()> {
        let rules: &[LinuxDeviceCgroup] = resources.devices().as_deref().unwrap_or_default();
        let policy = (!rules.is_empty()).then(|| Policy::new(rules)).transpose()?;
        self.apply(&self.plan(resources)?)?;
        policy.map_or(Ok(()), |policy| self.restrict_devices(&policy))
    }

    /// Writes in order. What is refused is tried once more at the end, because limits that depend on
    /// each other (memory and memory with swap, quota and period) have an order only together with
    /// the old values.
    fn apply(&self, writes: &[Write]) -> Result<()> {
        let mut again = Vec::new();
        for w in writes {
            if self.write(w).is_err() {
                again.push(w);
            }
        }
        again.into_iter().try_for_each(|w| self.write(w))
    }

    fn write(&self, w: &Write) -> Result<()> {
        let missing =
            || Error::Unsupported(format!("{} ({} controller) on this machine", w.file, w.controller));
        let Some(dir) = self.dir(&w.controller) else {
            return if w.optional { Ok(()) } else { Err(missing()) };
        };
        let value = if w.keep_quota {
            let now = fsio::read(&dir.join(&w.file))?;
            format!("{} {}", now.split_whitespace().next().unwrap_or("max"), w.value)
        } else {
            w.value.clone()
        };
        match fsio::write(&dir.join(&w.file), &value) {
            Err(e) if e.errno() == Some(libc::ENOENT) => match &w.alternative {
                Some((file, value)) => Ok(fsio::write(&dir.join(file), value)?),
                None if w.optional => Ok(()),
                None => Err(missing()),
            },
            done => Ok(done?),
        }
    }

    fn restrict_devices(&self, policy: &Policy) -> Result<()> {
        if let Some(dir) = self.hierarchy.v1_dir("devices").map(|mount| mount.join(&self.path)) {
            let list = fsio::read(&dir.join("devices.list"))?;
            for (file, line) in policy.v1_writes(&list) {
                fsio::write(&dir.join(file), &line)?;
            }
            return Ok(());
        }
        match self.unified() {
            Some(dir) => self.attach_program(&dir, policy),
            None if policy.allow || fsio::in_user_namespace() => Ok(()),
            None => Err(Error::Unsupported("restricting devices without a devices cgroup controller".into())),
        }
    }

    fn attach_program(&self, dir: &Path, policy: &Policy) -> Result<()> {
        let fd = fsio::open_dir(dir)?;
        let attached = bpf::load_device_program(&policy.program())
            .and_then(|new| Ok((bpf::device_programs(&fd)?, new)))
            .and_then(|(old, new)| bpf::attach_device_program(&fd, &new).map(|()| old));
        let old = match attached {
            Ok(old) => old,
            // In a user namespace a device node that was made there gives nothing, and those of the
            // host belong to others: there is nothing to restrict, and no right to do so.
            Err(e) if e.errno() == Some(libc::EPERM) && fsio::in_user_namespace() => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        // Until the old ones are gone, both hold.
        Ok(old.iter().try_for_each(|program| bpf::detach_device_program(&fd, program))?)
    }

    /// Handles for the container's first process.
    ///
    /// # Errors
    /// When a directory is gone.
    pub fn handles(&self) -> Result<LaunchHandles> {
        let v2 = self.unified().map(|dir| fsio::open_dir(&dir)).transpose()?;
        let procs = self.hierarchy.v1.iter().map(|m| {
            let file = m.dir.join(&self.path).join("cgroup.procs");
            rustix::fs::open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .context(|| format!("open {}", file.display()))
        });
        Ok(LaunchHandles { v2, procs: procs.collect::<longshore_sys::Result<_>>()? })
    }

    /// Handles for a process that joins the one with the host's process id `init`. A container that
    /// has distributed its controllers among cgroups of its own takes no process at its top.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it is gone.
    pub fn exec_handles(&self, init: u32) -> Result<LaunchHandles> {
        self.try_exec_handles(init).map_err(|e| match e {
            Error::Sys(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH)) => {
                Error::NotRunning(self.id.clone())
            }
            e => e,
        })
    }

    fn try_exec_handles(&self, init: u32) -> Result<LaunchHandles> {
        let mut handles = self.handles()?;
        let Some(top) = self.unified() else { return Ok(handles) };
        let distributes =
            fsio::read(&top.join("cgroup.subtree_control")).is_ok_and(|list| !list.trim().is_empty());
        if distributes && let Some(dir) = self.inner_dir(&top, init)? {
            handles.v2 = Some(fsio::open_dir(&dir)?);
        }
        Ok(handles)
    }

    /// Where below `top` a process is.
    fn inner_dir(&self, top: &Path, pid: u32) -> Result<Option<PathBuf>> {
        let text = fsio::read(Path::new(&format!("/proc/{pid}/cgroup")))?;
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return Ok(None) };
        let own = self.path.to_string_lossy();
        let Some((_, below)) = path.split_once(own.as_ref()) else { return Ok(None) };
        let below = below.trim_matches('/');
        let plain = below.split('/').all(|part| !matches!(part, "." | ".."));
        Ok((plain && !below.is_empty()).then(|| top.join(below)))
    }

    /// A file with an `oom_kill` counter.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn oom_file(&self) -> Result<Option<OwnedFd>> {
        let Some(path) = self.oom_path() else { return Ok(None) };
        match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(longshore_sys::Error::new(format!("open {}", path.display()), e).into()),
        }
    }

    fn oom_path(&self) -> Option<PathBuf> {
        let file = if self.version() == Version::V2 { "memory.events" } else { "memory.oom_control" };
        Some(self.dir("memory")?.join(file))
    }

    /// How many processes the kernel has killed because memory ran out.
    ///
    /// # Errors
    /// When the counter cannot be read.
    pub fn oom_kill_count(&self) -> Result<u64> {
        let Some(path) = self.oom_path() else { return Ok(0) };
        Ok(fsio::optional(&path)?.as_deref().and_then(|text| fsio::field(text, "oom_kill")).unwrap_or(0))
    }

    /// All processes in the group and in groups below it, as the host numbers them.
    ///
    /// # Errors
    /// When they cannot be listed; a group that is gone has none.
    pub fn pids(&self) -> Result<Vec<u32>> {
        if self.is_bare() { Ok(Vec::new()) } else { fsio::pids_below(&self.primary()) }
    }

    /// Stops all processes, and those that they may still make.
    ///
    /// # Errors
    /// When they do not all stop in time; then they go on.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)?;
        for _ in 0..FREEZE_TRIES {
            if self.is_frozen()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
            if self.dir("freezer").is_some() && self.version() != Version::V2 {
                // A v1 group with a process that is being made needs to be told again.
                self.set_frozen(true)?;
            }
        }
        self.set_frozen(false)?;
        let busy =
            longshore_sys::Error::new(format!("freeze container {}", self.id), rustix::io::Errno::BUSY);
        Err(busy.into())
    }

    /// Lets the processes go on.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let (file, values) = self.freezer()?;
        Ok(fsio::write(&file, values[usize::from(frozen)])?)
    }

    /// Whether all processes are stopped.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        let (file, _) = self.freezer()?;
        if file.ends_with("freezer.state") {
            return Ok(fsio::read(&file)?.trim() == "FROZEN");
        }
        let events = fsio::read(&file.with_file_name("cgroup.events"))?;
        Ok(fsio::field(&events, "frozen") == Some(1))
    }

    /// The control file, and what to write for going on and for stopping.
    fn freezer(&self) -> Result<(PathBuf, [&'static str; 2])> {
        if let Some(mount) = self.hierarchy.v1_dir("freezer") {
            return Ok((mount.join(&self.path).join("freezer.state"), ["THAWED", "FROZEN"]));
        }
        let dir = self.unified().ok_or_else(|| {
            Error::Unsupported("pausing containers without a freezer cgroup controller".to_owned())
        })?;
        Ok((dir.join("cgroup.freeze"), ["0", "1"]))
    }

    /// Sends SIGKILL to all processes, also to those that are frozen or being made.
    ///
    /// # Errors
    /// When the processes cannot be listed, or go on being made.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(dir) = self.unified() {
            // Older kernels do not have the file; the loop finds the processes all the same.
            if let Err(e) = fsio::write(&dir.join("cgroup.kill"), "1")
                && e.errno() != Some(libc::ENOENT)
            {
                tracing::debug!("cgroup of {}: {e}", self.id);
            }
        }
        let frozen_by_v1 = self.hierarchy.v1_dir("freezer").is_some();
        if frozen_by_v1 {
            // What is frozen does not die.
            self.thaw_if_there();
        }
        for round in 0..10 {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            // While we go through the list, nobody may make processes that are not in it.
            let freeze = frozen_by_v1 && round > 0;
            if freeze && let Err(e) = self.set_frozen(true) {
                tracing::debug!("cgroup of {}: {e}", self.id);
            }
            for pid in self.pids()? {
                self.kill_member(pid);
            }
            if freeze {
                self.thaw_if_there();
            }
            std::thread::sleep(Duration::from_millis(1 << round.min(4)));
        }
        // Killed, and only waiting for the kernel (or for a disk) to let go of them.
        Ok(())
    }

    fn thaw_if_there(&self) {
        if let Err(e) = self.thaw() {
            tracing::debug!("cgroup of {}: {e}", self.id);
        }
    }

    /// Kills a process if it is (still) a member: the number may have gone to another meanwhile.
    fn kill_member(&self, pid: u32) {
        let Some(pid_t) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        let Ok(fd) = rustix::process::pidfd_open(pid_t, rustix::process::PidfdFlags::empty()) else { return };
        let own = self.path.to_string_lossy();
        let member = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| text.lines().any(|line| line.contains(own.as_ref())));
        if member {
            // It may be gone by itself.
            let _ = rustix::process::pidfd_send_signal(&fd, Signal::KILL);
        }
    }

    /// Removes the group and those that the container made below it. What is gone is gone.
    ///
    /// # Errors
    /// When processes are still inside after some time.
    pub fn remove(&self) -> Result<()> {
        let mut last = None;
        for dir in self.dirs() {
            for attempt in 0..REMOVE_TRIES {
                match fsio::remove_tree(&dir) {
                    Ok(()) => {
                        last = None;
                        break;
                    }
                    Err(e) => last = Some(e),
                }
                std::thread::sleep(Duration::from_millis((1 << attempt.min(6)).min(50)));
            }
            if let Some(e) = last {
                // The others as far as possible, without waiting once more for each.
                for other in self.dirs() {
                    let _ = fsio::remove_tree(&other);
                }
                return Err(e.into());
            }
        }
        Ok(())
    }

    /// Where the one hierarchy of a pure v2 machine is mounted.
    #[must_use]
    pub fn unified_top(&self) -> Option<&'static Path> {
        self.hierarchy.pure_v2()
    }

    /// The hierarchies as the container is to see them below `/sys/fs/cgroup`; empty for pure v2.
    /// `bind` is set for the case without a cgroup namespace.
    ///
    /// # Errors
    /// When a name cannot be passed on.
    pub fn mounts(&self) -> Result<Vec<plan::Hierarchy>> {
        if self.version() == Version::V2 {
            return Ok(Vec::new());
        }
        let text = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| Error::Invalid("a cgroup mount has a NUL in its name".to_owned()))
        };
        let mut all = Vec::new();
        for m in &self.hierarchy.v1 {
            let dir = m.dir.file_name().unwrap_or_default().as_bytes();
            let option = |name: &String| match name.split_once('=') {
                Some((key, value)) => Ok((text(key.as_bytes())?, text(value.as_bytes())?)),
                None => Ok((text(name.as_bytes())?, CString::default())),
            };
            let links = m.controllers.iter().filter(|c| c.as_bytes() != dir && !c.contains('='));
            all.push(plan::Hierarchy {
                dir: text(dir)?,
                fstype: c"cgroup".to_owned(),
                options: m.controllers.iter().map(option).collect::<Result<_>>()?,
                links: links.map(|c| text(c.as_bytes())).collect::<Result<_>>()?,
                bind: Some(text(m.dir.join(&self.path).as_os_str().as_bytes())?),
            });
        }
        if let Some(unified) = &self.hierarchy.unified {
            all.push(plan::Hierarchy {
                dir: text(unified.file_name().unwrap_or_default().as_bytes())?,
                fstype: c"cgroup2".to_owned(),
                options: Vec::new(),
                links: Vec::new(),
                bind: Some(text(unified.join(&self.path).as_os_str().as_bytes())?),
            });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests_support {
    use super::Write;
    use crate::spec::LinuxResources;

    pub(super) fn resources(json: serde_json::Value) -> LinuxResources {
        serde_json::from_value(json).unwrap()
    }

    pub(super) fn lines(writes: &[Write]) -> Vec<String> {
        writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect()
    }
}

#[cfg(test)]
mod tests;
