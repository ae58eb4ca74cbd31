//! Which cgroup hierarchies this machine has and where they are mounted.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use longshore_sys::Context;

use crate::error::{Error, Result};

/// The cgroup hierarchies of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchy {
    /// v1 hierarchies; empty on a pure v2 machine.
    pub(super) v1: Vec<V1Mount>,
    /// The unified hierarchy. With v1 beside it, it has few controllers or none.
    pub(super) unified: Option<PathBuf>,
    /// On pure v2, the place below which we may make groups, where that is not the top: its controllers count.
    pub(super) base: Option<PathBuf>,
}

/// A mounted v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct V1Mount {
    pub(super) dir: PathBuf,
    /// Controllers, or `name=systemd`.
    pub(super) controllers: Vec<String>,
}

/// Which interface the limits are set through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy per controller.
    V1,
    /// v1 for the limits, and a unified hierarchy without controllers beside them.
    Hybrid,
    /// One hierarchy.
    V2,
}

static NARROWED: OnceLock<Hierarchy> = OnceLock::new();

impl Hierarchy {
    /// Looks at what is mounted now.
    ///
    /// # Errors
    /// When no cgroups are mounted.
    pub fn detect() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
        let found = Self::parse(&text);
        if found.v1.is_empty() && found.unified.is_none() {
            return Err(Error::Unsupported(
                "running containers without cgroups (mount cgroup2 at /sys/fs/cgroup)".to_owned(),
            ));
        }
        Ok(found)
    }

    /// What was mounted when this was first asked; or what [`Self::narrow`] left of it.
    ///
    /// # Errors
    /// When no cgroups are mounted.
    pub fn get() -> Result<&'static Self> {
        static FOUND: OnceLock<Hierarchy> = OnceLock::new();
        if let Some(found) = NARROWED.get().or_else(|| FOUND.get()) {
            return Ok(found);
        }
        let found = Self::detect()?;
        Ok(FOUND.get_or_init(|| found))
    }

    /// For a daemon without root: leaves what it may make groups in, below `parent`, once for this process. Where that is
    /// nothing, containers have no groups of their own.
    pub(crate) fn narrow(parent: &str) {
        let found = Self::detect().unwrap_or_default();
        let parent = parent.trim_matches('/');
        let usable = |mount: &PathBuf| {
            let dir = mount.join(parent);
            std::fs::create_dir_all(&dir).is_ok()
                && rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).is_ok()
        };
        let v1: Vec<_> = found.v1.into_iter().filter(|m| usable(&m.dir)).collect();
        let unified = found.unified.filter(usable);
        let base = unified.as_ref().filter(|_| v1.is_empty()).map(|mount| mount.join(parent));
        // Another daemon of this process, in a test, has found the same.
        let _ = NARROWED.set(Self { v1, unified, base });
    }

    /// Whether containers have no groups of their own.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.v1.is_empty() && self.unified.is_none()
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            let (fstype, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
            let dir = PathBuf::from(unescape(point));
            // Mounts of the same hierarchy elsewhere (a container's) are of no interest.
            if !dir.starts_with("/sys/fs/cgroup") {
                continue;
            }
            match fstype {
                "cgroup2" => found.unified = found.unified.or(Some(dir)),
                "cgroup" => {
                    let controllers: Vec<String> =
                        options.split(',').filter(|o| is_controller(o)).map(str::to_owned).collect();
                    let seen = |c: &String| found.v1.iter().any(|m| m.controllers.contains(c));
                    if !controllers.is_empty() && !controllers.iter().any(seen) {
                        found.v1.push(V1Mount { dir, controllers });
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Which interface the limits are set through.
    #[must_use]
    pub fn version(&self) -> Version {
        match (self.v1.is_empty(), &self.unified) {
            (true, _) => Version::V2,
            (false, Some(_)) => Version::Hybrid,
            (false, None) => Version::V1,
        }
    }

    /// Directory of a v1 controller.
    pub(super) fn v1_dir(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|m| m.controllers.iter().any(|c| c == controller)).map(|m| m.dir.as_path())
    }

    /// The unified hierarchy, if it is what limits are set through.
    pub(super) fn pure_v2(&self) -> Option<&Path> {
        if self.v1.is_empty() { self.unified.as_deref() } else { None }
    }

    /// Whether a controller (`memory`, `cpu`, `pids`, `cpuset`, `io` or its v1 name `blkio`, ...) is here.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        let Some(unified) = self.pure_v2() else {
            let v1 = if controller == "io" { "blkio" } else { controller };
            return self.v1_dir(v1).is_some();
        };
        let v2 = match controller {
            "blkio" => "io",
            "cpuacct" => "cpu",
            // Not controllers of their own in v2.
            "devices" | "freezer" => return true,
            other => other,
        };
        let top = self.base.as_deref().unwrap_or(unified);
        let list = std::fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
        list.split_whitespace().any(|c| c == v2)
    }

    /// The processors (`cpus`) or memory nodes (`mems`) that there are; empty where that is not known.
    #[must_use]
    pub fn cpuset(&self, kind: &str) -> String {
        let v1 = self.v1_dir("cpuset").map(|dir| dir.join(format!("cpuset.effective_{kind}")));
        let v2 = self.pure_v2().map(|dir| dir.join(format!("cpuset.{kind}.effective")));
        let file = v1.or(v2).and_then(|file| std::fs::read_to_string(file).ok());
        file.map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    /// What limits are possible here.
    #[must_use]
    pub fn support(&self) -> Support {
        let file =
            |controller: &str, name: &str| self.v1_dir(controller).is_some_and(|dir| dir.join(name).exists());
        let v2 = self.version() == Version::V2;
        let memory = self.has("memory");
        let cpu = self.has("cpu");
        let blkio = self.has("blkio");
        Support {
            memory,
            swap: if v2 {
                memory && Path::new("/proc/swaps").exists()
            } else {
                file("memory", "memory.memsw.limit_in_bytes")
            },
            swappiness: file("memory", "memory.swappiness"),
            oom_kill_disable: file("memory", "memory.oom_control"),
            memory_reservation: memory,
            cpu_shares: cpu,
            cpu_quota: if v2 { cpu } else { file("cpu", "cpu.cfs_quota_us") },
            cpu_realtime: file("cpu", "cpu.rt_runtime_us"),
            cpuset: self.has("cpuset"),
            pids: self.has("pids"),
            blkio_weight: if v2 {
                blkio
            } else {
                file("blkio", "blkio.weight") || file("blkio", "blkio.bfq.weight")
            },
            blkio_weight_device: if v2 {
                blkio
            } else {
                file("blkio", "blkio.weight_device") || file("blkio", "blkio.bfq.weight_device")
            },
            blkio_throttle: if v2 { blkio } else { file("blkio", "blkio.throttle.read_bps_device") },
        }
    }
}

/// What limits the machine can set; the engine warns about and leaves out what it cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a table of independent facts")]
pub struct Support {
    /// Memory limit.
    pub memory: bool,
    /// Limit of memory and swap together.
    pub swap: bool,
    /// Swappiness per container.
    pub swappiness: bool,
    /// Turning the out-of-memory killer off.
    pub oom_kill_disable: bool,
    /// Memory reservation.
    pub memory_reservation: bool,
    /// CPU shares.
    pub cpu_shares: bool,
    /// CPU quota and period.
    pub cpu_quota: bool,
    /// CPU realtime runtime and period.
    pub cpu_realtime: bool,
    /// Which CPUs and memory nodes.
    pub cpuset: bool,
    /// Number of processes.
    pub pids: bool,
    /// Block I/O weight.
    pub blkio_weight: bool,
    /// Block I/O weight per device.
    pub blkio_weight_device: bool,
    /// Block I/O limits per device.
    pub blkio_throttle: bool,
}

/// Whether a superblock option of a v1 hierarchy names a controller.
fn is_controller(option: &str) -> bool {
    let other = ["rw", "ro", "xattr", "clone_children", "noprefix", "none", "cpuset_v2_mode", "favordynmods"];
    !(option.is_empty() || other.contains(&option) || option.starts_with("release_agent="))
}

/// Undoes mountinfo's octal escapes.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
99 90 0:29 / /var/lib/x/merged/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    #[test]
    fn all_three_layouts_are_recognised() {
        let v1 = Hierarchy::parse(V1);
        assert_eq!(v1.version(), Version::V1);
        let names: Vec<_> = v1.v1.iter().map(|m| m.controllers.join(",")).collect();
        assert_eq!(names, ["name=systemd", "cpu,cpuacct", "memory"]);
        assert_eq!(v1.v1_dir("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(v1.v1_dir("memory"), Some(Path::new("/sys/fs/cgroup/memory")));

        let hybrid =
            Hierarchy::parse(&format!("{V1}40 30 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"));
        assert_eq!(hybrid.version(), Version::Hybrid);
        assert_eq!(hybrid.pure_v2(), None);

        let v2 =
            Hierarchy::parse("30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(v2.version(), Version::V2);
        assert_eq!(v2.pure_v2(), Some(Path::new("/sys/fs/cgroup")));
    }

    #[test]
    fn odd_lines_are_passed_over() {
        assert_eq!(Hierarchy::parse("\n- -\n1 2 3\n a - b\n"), Hierarchy::default());
        assert_eq!(unescape("/a\\040b\\x"), "/a b\\x");
    }
}
