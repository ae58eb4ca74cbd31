//! The container's file system: what the child does to see only it.
//!
//! Everything is done relative to the descriptor of the root; paths come from the image or from
//! volumes that other containers change at the same time, so none is used twice.

use crate::fd::{AsFd, OwnedFd};
use crate::prelude::*;
use alloc::ffi::CString;
use core::ffi::CStr;

use longshore_monitor::plan::{Container, Device, Hierarchy, Mount, MountKind};
use longshore_monitor::proto::Step;

use crate::os::{self, Links, Sys};

/// What failed in the child.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) errno: i32,
    pub(crate) detail: String,
}

/// Names a failed step.
pub(crate) trait Named<T> {
    fn at(self, step: Step, detail: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Named<T> for Sys<T> {
    fn at(self, step: Step, detail: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure { step, errno, detail: detail() })
    }
}

pub(crate) fn text(s: &CStr) -> String {
    s.to_string_lossy().into_owned()
}

/// Host files opened before the child has left the host's view.
#[derive(Debug)]
pub(crate) struct Sources {
    root: OwnedFd,
    binds: Vec<Option<OwnedFd>>,
    /// The host's /dev/null, checked, if there are paths to hide.
    null: Option<OwnedFd>,
    /// The host's device nodes, for user namespaces, where none can be made.
    devices: Vec<OwnedFd>,
}

impl Sources {
    /// Opens them, as detached copies of mounts, so that nothing on the way can be exchanged later.
    pub(crate) fn open(c: &Container, userns: bool) -> Result<Self, Failure> {
        let path = libc::O_PATH;
        let root = os::open_at(None, &c.rootfs, path | libc::O_DIRECTORY, 0)
            .and_then(|fd| os::clone_tree(fd, true))
            .at(Step::Rootfs, || text(&c.rootfs))?;
        let mut binds = Vec::with_capacity(c.mounts.len());
        for mount in &c.mounts {
            binds.push(match &mount.what {
                MountKind::Bind { source, recursive } => Some(
                    os::open_at(None, source, path, 0)
                        .and_then(|fd| os::clone_tree(fd, *recursive))
                        .at(Step::Mount, || format!("bind source {}", text(source)))?,
                ),
                _ => None,
            });
        }
        let null = if c.masked.is_empty() {
            None
        } else {
            Some(own_copy(host_null()?).at(Step::Mask, || "/dev/null".into())?)
        };
        let mut devices = Vec::new();
        if userns || c.bind_devices {
            for device in &c.devices {
                let fd = os::open_at(None, &device.path, path | libc::O_NOFOLLOW, 0)
                    .at(Step::Device, || text(&device.path))?;
                check_device(&fd, device)?;
                devices.push(own_copy(fd).at(Step::Device, || text(&device.path))?);
            }
        }
        Ok(Self { root, binds, null, devices })
    }
}

/// A copy of a mount that is no peer of it: what is mounted over it is not seen on the host.
fn own_copy(fd: OwnedFd) -> Sys<OwnedFd> {
    let copy = os::clone_tree(fd, false)?;
    os::mount_setattr(&copy, 0, 0, libc::MS_PRIVATE, false)?;
    Ok(copy)
}

/// A file that everything can be hidden behind must really be the null device, not something that
/// somebody put in its place.
fn host_null() -> Result<OwnedFd, Failure> {
    let fd = os::open_at(None, c"/dev/null", libc::O_PATH | libc::O_NOFOLLOW, 0)
        .at(Step::Mask, || "/dev/null".into())?;
    let st = os::stat(&fd).at(Step::Mask, || "/dev/null".into())?;
    if st.st_mode & libc::S_IFMT != libc::S_IFCHR || st.st_rdev != libc::makedev(1, 3) {
        return Err(Failure {
            step: Step::Mask,
            errno: libc::ENODEV,
            detail: "/dev/null of the host is not the null device".into(),
        });
    }
    Ok(fd)
}

fn check_device(fd: &OwnedFd, device: &Device) -> Result<(), Failure> {
    let st = os::stat(fd).at(Step::Device, || text(&device.path))?;
    let same = st.st_mode & libc::S_IFMT == device.mode & libc::S_IFMT
        && st.st_rdev == libc::makedev(device.major, device.minor);
    if same {
        return Ok(());
    }
    let detail = format!("{} of the host is another device", text(&device.path));
    Err(Failure { step: Step::Device, errno: libc::ENODEV, detail })
}

/// The root that has been set up, and what later steps need of it.
#[derive(Debug)]
pub(crate) struct Rootfs {
    root: OwnedFd,
    /// The new instance at /dev/pts.
    devpts: Option<OwnedFd>,
    /// A procfs of ours, proven to be one because we made it.
    proc: Option<OwnedFd>,
    /// Mounts that become read-only when all is in place.
    late_readonly: Vec<(OwnedFd, u64)>,
}

impl Rootfs {
    /// Puts the root and all mounts in place. The process is in its new mount namespace.
    pub(crate) fn build(c: &Container, sources: Sources) -> Result<(Self, Option<OwnedFd>), Failure> {
        // Nothing done here may reach the host. The copies in `sources` keep their peers.
        let private = libc::MS_PRIVATE | libc::MS_REC;
        os::mount_propagation(c"/", private).at(Step::Rootfs, || "make / private".into())?;
        let Sources { root, binds, null, devices } = sources;
        os::mount_setattr(&root, 0, 0, libc::MS_PRIVATE, true).at(Step::Rootfs, || text(&c.rootfs))?;
        os::open_at(None, &c.rootfs, libc::O_PATH | libc::O_DIRECTORY, 0)
            .and_then(|at| os::attach(&root, at))
            .at(Step::Rootfs, || text(&c.rootfs))?;
        let mut this = Self { root, devpts: None, proc: None, late_readonly: Vec::new() };
        for (mount, bind) in c.mounts.iter().zip(binds) {
            this.mount(mount, bind)?;
        }
        if devices.is_empty() {
            for device in &c.devices {
                this.make_device(device)?;
            }
        } else {
            for (device, source) in c.devices.iter().zip(devices) {
                let at = this.file_target(&device.path, Step::Device)?;
                os::attach(source, at).at(Step::Device, || text(&device.path))?;
            }
        }
        if c.dev_links {
            this.dev_links()?;
        }
        if c.process.cwd.to_bytes() != b"/" {
            // As Docker does; a file in its place is reported when the process enters it.
            match mkdir_all(&this.root, &c.process.cwd, Links::Inside) {
                Ok(_) | Err(libc::ENOTDIR | libc::EROFS) => {}
                Err(errno) => {
                    let detail = format!("make working directory {}", text(&c.process.cwd));
                    return Err(Failure { step: Step::Cwd, errno, detail });
                }
            }
        }
        Ok((this, null))
    }

    fn mount(&mut self, m: &Mount, bind: Option<OwnedFd>) -> Result<(), Failure> {
        let name = || text(&m.target);
        if m.target.to_bytes().iter().all(|b| *b == b'/') {
            return Err(Failure {
                step: Step::Mount,
                errno: libc::EINVAL,
                detail: "a mount cannot replace the root".into(),
            });
        }
        match &m.what {
            MountKind::New { fstype, source, options } => {
                // Special file systems go where they are expected, or nowhere: what relies on them
                // later must not be led elsewhere by a link in the image.
                let strict = matches!(fstype.to_bytes(), b"proc" | b"sysfs" | b"devpts" | b"mqueue")
                    || m.target.to_bytes() == b"/dev";
                let links = if strict { Links::Refuse } else { Links::Inside };
                let at = mkdir_all(&self.root, &m.target, links).at(Step::Mount, || match strict {
                    true => format!("{}: must be a directory without links", name()),
                    false => name(),
                })?;
                outside_proc(m, &at, fstype.to_bytes() == b"proc")?;
                let tmpfs = fstype.to_bytes() == b"tmpfs";
                let late = if tmpfs { m.set & os::MOUNT_ATTR_RDONLY } else { 0 };
                let fd = new_fs(fstype, source, options, m.set & !late).map_err(|(errno, what)| Failure {
                    step: Step::Mount,
                    errno,
                    detail: format!("{}: {what}", name()),
                })?;
                os::attach(&fd, at).at(Step::Mount, name)?;
                set_propagation(&fd, m)?;
                match fstype.to_bytes() {
                    b"devpts" => self.devpts = Some(fd),
                    b"proc" if self.proc.is_none() => self.proc = Some(fd),
                    _ if late != 0 => self.late_readonly.push((fd, late)),
                    _ => {}
                }
            }
            MountKind::Bind { source, .. } => {
                let Some(fd) = bind else { return Ok(()) };
                let st = os::stat(&fd).at(Step::Mount, || text(source))?;
                let at = if st.st_mode & libc::S_IFMT == libc::S_IFDIR {
                    mkdir_all(&self.root, &m.target, Links::Inside).at(Step::Mount, name)?
                } else {
                    self.file_target(&m.target, Step::Mount)?
                };
                let is_proc = prove_proc(&fd).is_ok() && is_procs_root(&fd);
                outside_proc(m, &at, is_proc)?;
                if m.set_recursive != 0 {
                    os::mount_setattr(&fd, m.set_recursive, 0, 0, true).at(Step::Mount, name)?;
                }
                if m.set | m.clear != 0 {
                    os::mount_setattr(&fd, m.set, m.clear, 0, false).at(Step::Mount, name)?;
                }
                if m.propagation == 0 {
                    // Nobody asked for what is mounted here to reach the host, or the reverse.
                    os::mount_setattr(&fd, 0, 0, libc::MS_PRIVATE, true).at(Step::Mount, name)?;
                }
                set_propagation(&fd, m)?;
                os::attach(&fd, at).at(Step::Mount, name)?;
                if is_proc && self.proc.is_none() {
                    self.proc = Some(fd);
                }
            }
            MountKind::Cgroup { v1 } => self.mount_cgroup(m, v1)?,
        }
        Ok(())
    }

    fn mount_cgroup(&mut self, m: &Mount, v1: &[Hierarchy]) -> Result<(), Failure> {
        let name = || text(&m.target);
        let failed = |(errno, what): (i32, String)| Failure {
            step: Step::Mount,
            errno,
            detail: format!("{}: {what}", name()),
        };
        let at = mkdir_all(&self.root, &m.target, Links::Inside).at(Step::Mount, name)?;
        outside_proc(m, &at, false)?;
        if v1.is_empty() {
            let fd = new_fs(c"cgroup2", c"cgroup", &[], m.set).map_err(failed)?;
            os::attach(&fd, at).at(Step::Mount, name)?;
            return set_propagation(&fd, m);
        }
        let late = m.set & os::MOUNT_ATTR_RDONLY;
        let mode = [(c"mode".to_owned(), c"755".to_owned())];
        let top = new_fs(c"tmpfs", c"tmpfs", &mode, m.set & !late).map_err(failed)?;
        os::attach(&top, at).at(Step::Mount, name)?;
        for h in v1 {
            let here = || format!("{}/{}", name(), text(&h.dir));
            os::mkdir_at(&top, &h.dir, 0o755).at(Step::Mount, here)?;
            let at = os::open_at(Some(top.as_fd()), &h.dir, libc::O_PATH | libc::O_NOFOLLOW, 0)
                .at(Step::Mount, here)?;
            let fd = match &h.bind {
                None => new_fs(&h.fstype, c"cgroup", &h.options, m.set).map_err(failed)?,
                Some(path) => os::open_at(None, path, libc::O_PATH | libc::O_DIRECTORY, 0)
                    .and_then(|fd| os::clone_tree(fd, false))
                    .and_then(|fd| os::mount_setattr(&fd, m.set, 0, libc::MS_PRIVATE, false).map(|()| fd))
                    .at(Step::Mount, here)?,
            };
            os::attach(fd, at).at(Step::Mount, here)?;
            for link in &h.links {
                os::symlink_at(&h.dir, &top, link).at(Step::Mount, here)?;
            }
        }
        set_propagation(&top, m)?;
        if late != 0 {
            self.late_readonly.push((top, late));
        }
        Ok(())
    }

    /// A file to mount on; made if nothing is there.
    fn file_target(&self, path: &CStr, step: Step) -> Result<OwnedFd, Failure> {
        let open = || os::open_in(&self.root, path, libc::O_PATH, 0, Links::Inside);
        let made = match open() {
            Err(libc::ENOENT) => {
                let (parent, _) = split(path);
                mkdir_all(&self.root, &parent, Links::Inside)
                    .and_then(|_| {
                        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
                        os::open_in(&self.root, path, flags, 0o644, Links::Inside)
                    })
                    .and_then(|_| open())
            }
            r => r,
        };
        made.at(step, || text(path))
    }

    fn make_device(&self, d: &Device) -> Result<(), Failure> {
        let name = || text(&d.path);
        let (parent, last) = split(&d.path);
        let dir = mkdir_all(&self.root, &parent, Links::Inside).at(Step::Device, name)?;
        match os::mknod_at(&dir, &last, d.mode, d.major, d.minor) {
            Err(libc::EEXIST) => {
                // A bind or the image put something there: fine if it is that device.
                let fd = os::open_in(&dir, &last, libc::O_PATH | libc::O_NOFOLLOW, 0, Links::Refuse)
                    .at(Step::Device, name)?;
                let st = os::stat(&fd).at(Step::Device, name)?;
                if st.st_mode & libc::S_IFMT == d.mode & libc::S_IFMT
                    && st.st_rdev == libc::makedev(d.major, d.minor)
                {
                    return Ok(());
                }
                return Err(Failure { step: Step::Device, errno: libc::EEXIST, detail: name() });
            }
            r => r.at(Step::Device, name)?,
        }
        // mknod obeys the umask; we set it to 0 before, so only the owner is missing.
        os::chown_at(&dir, &last, d.uid, d.gid).at(Step::Device, name)
    }

    fn dev_links(&self) -> Result<(), Failure> {
        let dev = mkdir_all(&self.root, c"/dev", Links::Refuse).at(Step::Device, || "/dev".into())?;
        let links: [(&CStr, &CStr); 5] = [
            (c"/proc/self/fd", c"fd"),
            (c"/proc/self/fd/0", c"stdin"),
            (c"/proc/self/fd/1", c"stdout"),
            (c"/proc/self/fd/2", c"stderr"),
            (c"/proc/kcore", c"core"),
        ];
        for (target, name) in links {
            match os::symlink_at(target, &dev, name) {
                Ok(()) | Err(libc::EEXIST) => {}
                r => r.at(Step::Device, || format!("/dev/{}", text(name)))?,
            }
        }
        if self.devpts.is_some() {
            match os::symlink_at(c"pts/ptmx", &dev, c"ptmx") {
                Ok(()) | Err(libc::EEXIST) => {}
                r => r.at(Step::Device, || "/dev/ptmx".into())?,
            }
        }
        Ok(())
    }

    /// A new terminal from the container's own devpts: the two ends. The slave is also bound to
    /// /dev/console if asked for, by descriptor, so that no path in the container matters.
    pub(crate) fn terminal(&self) -> Result<(OwnedFd, OwnedFd), Failure> {
        let Some(devpts) = &self.devpts else {
            return Err(Failure {
                step: Step::Terminal,
                errno: libc::ENODEV,
                detail: "a terminal needs a devpts mount at /dev/pts".into(),
            });
        };
        let (master, slave) = open_terminal(devpts)?;
        let here = || "/dev/console".to_owned();
        let dev = os::open_in(&self.root, c"/dev", libc::O_PATH | libc::O_DIRECTORY, 0, Links::Refuse)
            .at(Step::Terminal, here)?;
        let at = match os::open_at(
            Some(dev.as_fd()),
            c"console",
            libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY,
            0o600,
        ) {
            Ok(fd) => fd,
            Err(libc::EEXIST) => {
                os::open_at(Some(dev.as_fd()), c"console", libc::O_PATH | libc::O_NOFOLLOW, 0)
                    .at(Step::Terminal, here)?
            }
            Err(errno) => return Err(Failure { step: Step::Terminal, errno, detail: here() }),
        };
        let st = os::stat(&at).at(Step::Terminal, here)?;
        if matches!(st.st_mode & libc::S_IFMT, libc::S_IFLNK | libc::S_IFDIR) {
            return Err(Failure { step: Step::Terminal, errno: libc::EINVAL, detail: here() });
        }
        os::clone_tree(&slave, false).and_then(|tree| os::attach(tree, at)).at(Step::Terminal, here)?;
        Ok((master, slave))
    }

    /// Kernel settings, written through a procfs that cannot be anything else.
    pub(crate) fn sysctl(&self, settings: &[(CString, CString)]) -> Result<(), Failure> {
        if settings.is_empty() {
            return Ok(());
        }
        let own;
        let proc = match &self.proc {
            Some(fd) => fd,
            None => {
                own = own_proc().at(Step::Sysctl, || "mount proc".into())?;
                &own
            }
        };
        for (key, value) in settings {
            let mut path = b"sys/".to_vec();
            path.extend_from_slice(key.to_bytes());
            let name = || text(key);
            let path = CString::new(path).map_err(|_| libc::EINVAL).at(Step::Sysctl, name)?;
            let file = os::open_in(proc, &path, libc::O_WRONLY, 0, Links::Refuse).at(Step::Sysctl, name)?;
            prove_proc(&file).at(Step::Sysctl, name)?;
            os::write_all(file, value.to_bytes()).at(Step::Sysctl, name)?;
        }
        Ok(())
    }

    /// Hides and protects paths.
    pub(crate) fn protect(&self, c: &Container, null: Option<OwnedFd>) -> Result<(), Failure> {
        for path in &c.readonly_paths {
            let name = || text(path);
            let fd = match os::open_in(&self.root, path, libc::O_PATH, 0, Links::Refuse) {
                Err(libc::ENOENT | libc::ENOTDIR) => continue,
                r => r.at(Step::Mask, name)?,
            };
            let tree = os::clone_tree(&fd, true).at(Step::Mask, name)?;
            os::mount_setattr(&tree, os::MOUNT_ATTR_RDONLY, 0, 0, true).at(Step::Mask, name)?;
            os::attach(tree, fd).at(Step::Mask, name)?;
        }
        // A cover is attached where it is first needed; from then on copies of it are: only what is
        // attached in this namespace can be copied.
        let mut null = null.map(Cover::New);
        let mut empty: Option<Cover> = None;
        for path in &c.masked {
            let name = || text(path);
            let fd = match os::open_in(&self.root, path, libc::O_PATH, 0, Links::Refuse) {
                Err(libc::ENOENT | libc::ENOTDIR) => continue,
                r => r.at(Step::Mask, name)?,
            };
            let st = os::stat(&fd).at(Step::Mask, name)?;
            let cover = if st.st_mode & libc::S_IFMT == libc::S_IFDIR {
                if empty.is_none() {
                    empty = Some(Cover::New(empty_dir().at(Step::Mask, name)?));
                }
                &mut empty
            } else {
                &mut null
            };
            cover.as_mut().ok_or(libc::ENODEV).and_then(|cover| cover.put(&fd)).at(Step::Mask, name)?;
        }
        Ok(())
    }

    /// Makes the root the process's root, and nothing else reachable.
    pub(crate) fn enter(self, c: &Container) -> Result<Option<OwnedFd>, Failure> {
        for (fd, attrs) in &self.late_readonly {
            os::mount_setattr(fd, *attrs, 0, 0, false).at(Step::Mount, || "read-only".into())?;
        }
        let name = || "enter root file system".to_owned();
        let old = os::open_at(None, c"/", libc::O_PATH | libc::O_DIRECTORY, 0).at(Step::Rootfs, name)?;
        os::fchdir(&self.root).at(Step::Rootfs, name)?;
        os::pivot_root_here().at(Step::Rootfs, name)?;
        os::fchdir(&old).at(Step::Rootfs, name)?;
        os::detach_here().at(Step::Rootfs, name)?;
        os::chdir(c"/").at(Step::Rootfs, name)?;
        if c.propagation != 0 {
            os::mount_propagation(c"/", c.propagation).at(Step::Rootfs, || "propagation of /".into())?;
        }
        if c.readonly {
            os::mount_setattr(&self.root, os::MOUNT_ATTR_RDONLY, 0, 0, false)
                .at(Step::Rootfs, || "read-only /".into())?;
        }
        Ok(self.proc)
    }
}

/// What hides a path.
enum Cover {
    New(OwnedFd),
    Attached(OwnedFd),
}

impl Cover {
    fn put(&mut self, at: &OwnedFd) -> Sys<()> {
        match self {
            Self::Attached(fd) => os::attach(os::clone_tree(&*fd, false)?, at),
            Self::New(fd) => {
                os::attach(&*fd, at)?;
                let fd = os::duplicate(&*fd)?;
                *self = Self::Attached(fd);
                Ok(())
            }
        }
    }
}

/// A directory with nothing in it, for ever.
fn empty_dir() -> Sys<OwnedFd> {
    let attrs = os::MOUNT_ATTR_RDONLY | os::MOUNT_ATTR_NOSUID | os::MOUNT_ATTR_NODEV | os::MOUNT_ATTR_NOEXEC;
    let options = [(c"nr_blocks".to_owned(), c"1".to_owned()), (c"nr_inodes".to_owned(), c"1".to_owned())];
    new_fs(c"tmpfs", c"tmpfs", &options, attrs).map_err(|(errno, _)| errno)
}

/// A terminal of the devpts instance that `devpts` is (or is in).
pub(crate) fn open_terminal(devpts: impl AsFd) -> Result<(OwnedFd, OwnedFd), Failure> {
    let here = || "open terminal".to_owned();
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = os::open_in(devpts, c"ptmx", flags, 0, Links::Refuse).at(Step::Terminal, here)?;
    let st = os::stat(&master).at(Step::Terminal, here)?;
    if os::fs_type(&master) != Ok(libc::DEVPTS_SUPER_MAGIC) || st.st_rdev != libc::makedev(5, 2) {
        return Err(Failure { step: Step::Terminal, errno: libc::ENODEV, detail: "not a devpts".into() });
    }
    os::unlock_pty(&master).at(Step::Terminal, here)?;
    let slave = os::open_peer(&master).at(Step::Terminal, here)?;
    Ok((master, slave))
}

/// A detached procfs of the process's own pid namespace.
pub(crate) fn own_proc() -> Sys<OwnedFd> {
    let fs = os::fsopen(c"proc")?;
    os::fsmount(fs, os::MOUNT_ATTR_NOSUID | os::MOUNT_ATTR_NODEV | os::MOUNT_ATTR_NOEXEC)
}

/// What may be mounted over a file of procfs: settings and figures that lxcfs and its like replace.
const PROC_FILES: [&[u8]; 10] = [
    b"/proc/cpuinfo",
    b"/proc/diskstats",
    b"/proc/meminfo",
    b"/proc/stat",
    b"/proc/swaps",
    b"/proc/uptime",
    b"/proc/loadavg",
    b"/proc/slabinfo",
    b"/proc/sys/kernel/ns_last_pid",
    b"/proc/sys/crypto/fips_enabled",
];

/// A fake /proc would be what programs and runtimes trust to set labels and limits (CVE-2019-16884): nothing but a
/// procfs is mounted there, and little on it. `at` is what the target turned out to be.
fn outside_proc(m: &Mount, at: &OwnedFd, is_proc: bool) -> Result<(), Failure> {
    let target = m.target.to_bytes();
    let target = &target[..target.len() - target.iter().rev().take_while(|b| **b == b'/').count()];
    let refuse = |why: &str| {
        let detail = format!("{}: {why}", text(&m.target));
        Err(Failure { step: Step::Mount, errno: libc::EPERM, detail })
    };
    let on_proc = prove_proc(at).is_ok();
    if target == b"/proc" || (on_proc && is_procs_root(at)) {
        return if is_proc { Ok(()) } else { refuse("cannot be mounted because it is not of type proc") };
    }
    if (on_proc || target.starts_with(b"/proc/")) && !PROC_FILES.contains(&target) {
        return refuse("cannot be mounted because it is inside /proc");
    }
    Ok(())
}

/// Whether a file on procfs is its top.
fn is_procs_root(fd: &OwnedFd) -> bool {
    os::stat(fd).is_ok_and(|st| st.st_ino == 1)
}

/// Refuses anything that is not on procfs.
pub(crate) fn prove_proc(fd: impl AsFd) -> Sys<()> {
    if os::fs_type(fd)? == libc::PROC_SUPER_MAGIC { Ok(()) } else { Err(libc::EXDEV) }
}

type NewFs = Result<OwnedFd, (i32, String)>;

fn new_fs(fstype: &CStr, source: &CStr, options: &[(CString, CString)], attrs: u64) -> NewFs {
    let fs = os::fsopen(fstype).map_err(|e| (e, format!("file system {}", text(fstype))))?;
    if !source.is_empty() {
        os::fsconfig(&fs, c"source", source).map_err(|e| (e, "source".to_owned()))?;
    }
    for (key, value) in options {
        os::fsconfig(&fs, key, value).map_err(|e| (e, format!("option {}={}", text(key), text(value))))?;
    }
    os::fsmount(fs, attrs).map_err(|e| (e, format!("mount {}", text(fstype))))
}

fn set_propagation(fd: &OwnedFd, m: &Mount) -> Result<(), Failure> {
    if m.propagation == 0 {
        return Ok(());
    }
    os::mount_setattr(fd, 0, 0, m.propagation, m.propagation_recursive)
        .at(Step::Mount, || format!("propagation of {}", text(&m.target)))
}

/// Parent directory and last name.
fn split(path: &CStr) -> (CString, CString) {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
    let bytes = &bytes[..end];
    let at = bytes.iter().rposition(|b| *b == b'/');
    let (parent, name) = match at {
        Some(i) => (&bytes[..i], &bytes[i + 1..]),
        None => (&b""[..], bytes),
    };
    // No NUL can be in parts of a C string.
    (CString::new(parent).unwrap_or_default(), CString::new(name).unwrap_or_default())
}

/// Opens a directory inside the root, made with its parents if missing.
pub(crate) fn mkdir_all(root: &OwnedFd, path: &CStr, links: Links) -> Sys<OwnedFd> {
    mkdir_rec(root, path, links, &mut 0)
}

fn mkdir_rec(root: &OwnedFd, path: &CStr, links: Links, followed: &mut u32) -> Sys<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match os::open_in(root, path, flags, 0, links) {
        Err(libc::ENOENT) => {}
        r => return r,
    }
    let (parent, name) = split(path);
    if name.is_empty() || matches!(name.to_bytes(), b"." | b"..") {
        return Err(libc::ENOENT);
    }
    let dir = mkdir_rec(root, &parent, links, followed)?;
    match os::mkdir_at(&dir, &name, 0o755) {
        Ok(()) | Err(libc::EEXIST) => {}
        Err(e) => return Err(e),
    }
    match os::open_in(root, path, flags, 0, links) {
        Err(libc::ENOENT) => {}
        r => return r,
    }
    // A dangling link: make what it points to, inside.
    *followed += 1;
    if *followed > 40 {
        return Err(libc::ELOOP);
    }
    let target = os::readlink_at(&dir, &name)?;
    let mut next = if target.first() == Some(&b'/') { Vec::new() } else { parent.into_bytes() };
    next.push(b'/');
    next.extend_from_slice(&target);
    let next = CString::new(next).map_err(|_| libc::EINVAL)?;
    mkdir_rec(root, &next, links, followed)
}
