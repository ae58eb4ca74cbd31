//! `start`: mounts, files, network, processes; everything undone in reverse when a step fails.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longshore_oci::{IdMap, Kind};
use longshore_runtime::user::User;
use longshore_runtime::{CreateRequest, Error as RuntimeError, LogFile, Task};
use longshore_sys::mount;
use longshore_sys::root::Root;
use rustix::fs::Mode;
use rustix::mount::MountAttrFlags;

use super::files;
use super::links::Linked;
use super::spec::{self, Facts};
use super::{Container, confine, copyup, health, mounts, validate};
use crate::engine::make_dir;
use crate::model::{MountPoint, RemoveOptions, Status};
use crate::network::Held;
use crate::record::Record;
use crate::time::now;
use crate::{Engine, Error, Result};

/// What clients look for in a start that failed.
const CREATE_FAILED: &str =
    "failed to create task for container: failed to create shim task: OCI runtime create failed";
/// The same, with what Docker's runtime adds when the process could not be set up.
const LAUNCH: &str = "failed to create task for container: failed to create shim task: OCI runtime create failed: \
                      unable to start container process: error during container init";

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// `NotModified` when it runs; otherwise why it cannot be started, in Docker's words.
    pub async fn start(&self, name: &str) -> Result<()> {
        let c = self.find(name)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _op = c.op.lock().await;
            if c.life.borrow().removed {
                return Err(Error::no_such_container(&c.id));
            }
            let status = c.read().record.state.status;
            match status {
                Status::Running => {
                    return Err(Error::new(
                        Kind::NotModified,
                        format!("container {} is already running", c.id),
                    ));
                }
                Status::Paused => {
                    return Err(Error::conflict("cannot start a paused container, try unpause instead"));
                }
                Status::Removing | Status::Dead => {
                    return Err(Error::conflict("container is marked for removal and cannot be started"));
                }
                Status::Created | Status::Exited | Status::Restarting => {}
            }
            engine.start_locked(&c, true).await
        })
        .await
    }

    /// Starts; the caller holds the operation lock. `by_hand` forgets what restarts counted.
    ///
    /// # Errors
    /// As `start`.
    pub(crate) async fn start_locked(&self, c: &Arc<Container>, by_hand: bool) -> Result<()> {
        if by_hand {
            c.no_restart.notify_waiters();
            c.write().record.restart_count = 0;
        }
        let started = self.start_with_delay(c, super::supervise::first_delay()).await;
        if started.is_err() && c.read().record.host.auto_remove {
            let options = RemoveOptions { volumes: true, ..RemoveOptions::default() };
            if let Err(e) = self.remove_locked(c, options).await {
                tracing::warn!(container = c.id, "could not remove it after its start failed: {e}");
            }
        }
        started
    }

    /// Starts; a restart later waits `delay` first.
    ///
    /// # Errors
    /// As `start`.
    pub(crate) async fn start_with_delay(&self, c: &Arc<Container>, delay: Duration) -> Result<()> {
        let container = c.clone();
        let task = self.blocking(move |e| e.start_blocking(&container)).await?;
        self.supervise(c, &task, delay);
        Ok(())
    }

    fn start_blocking(&self, c: &Arc<Container>) -> Result<Arc<Task>> {
        let mut record = c.record();
        match self.try_start(c, &mut record) {
            Ok(task) => Ok(task),
            Err((code, e)) => {
                self.release_runtime(c);
                let mut data = c.write();
                data.task = None;
                data.held = Held::default();
                data.pending.clear();
                let idle = if data.record.has_run { Status::Exited } else { Status::Created };
                let state = &mut data.record.state;
                state.exit_code = code;
                state.error = e.to_string();
                state.pid = 0;
                state.status = idle;
                let record = data.record.clone();
                drop(data);
                self.save_state(&record);
                c.life.send_modify(|l| {
                    l.code = code;
                    l.running = false;
                    l.error = Some(record.state.error.clone());
                });
                Err(e)
            }
        }
    }

    /// All steps; the code is what `State` shows when one fails.
    pub(crate) fn try_start(
        &self,
        c: &Arc<Container>,
        record: &mut Record,
    ) -> Result<Arc<Task>, (i32, Error)> {
        let early = |e: Error| (128, e);
        let rootfs = self.inner.store.mount_rw(&c.id, &IdMap::default()).map_err(|e| early(e.into()))?;
        let root = Root::open(&rootfs).map_err(|e| early(e.into()))?;
        let mut facts = self.facts(record, &root, rootfs).map_err(early)?;
        self.prepare_mounts(c, record, &root, &mut facts).map_err(early)?;
        let linked = self.linked(record).map_err(early)?;
        facts.linked_env = linked.iter().flat_map(Linked::environment).collect();
        let network = self.connect(c, record).map_err(early)?;
        let own = network.addresses();
        files::write(&self.inner.paths, record, network.files, &own, network.gateway, &linked)
            .map_err(early)?;
        record.apparmor = facts.apparmor.clone().unwrap_or_default();
        let spec = spec::build(record, &facts).map_err(early)?;
        let request = self.request(record, spec, network.netns.as_ref()).map_err(early)?;
        // It may have been registered when the container was made, and not be any more.
        let runtime = self.inner.runtimes.get(&record.host.runtime).ok_or_else(|| {
            let name = &record.host.runtime;
            early(Error::invalid(format!("unknown or invalid runtime name: {name}")))
        })?;
        // The network and the process are set up side by side; both must be there before it runs.
        let (created, attached) = std::thread::scope(|s| {
            let attach = s.spawn(|| self.attach_network(record, &network));
            let created = runtime.create(request);
            let attached = attach
                .join()
                .unwrap_or_else(|_| Err(Error::internal("a worker failed; see the daemon's log")));
            (created, attached)
        });
        let task = Arc::new(created.map_err(launch_error)?);
        let names = attached.map_err(|e| early(e.context("failed to set up container networking")))?;
        c.write().held.names = names;
        self.admit_clients(c, &task);
        task.start().map_err(launch_error)?;
        self.now_running(c, record, &task);
        self.tell_linked(c);
        Ok(task)
    }

    /// What the specification needs to know.
    fn facts(&self, record: &Record, root: &Root, rootfs: PathBuf) -> Result<Facts> {
        let h = &record.host;
        let more = h.group_add.clone().unwrap_or_default();
        let who = longshore_runtime::user::resolve(root, &record.config.run.user, &more)
            .map_err(spec::user_error)?;
        let mut joins = Vec::new();
        for (kind, called, mode) in [("pid", "PID", &h.pid_mode), ("ipc", "IPC", &h.ipc_mode)] {
            if let Some(id) = mode.strip_prefix("container:") {
                let pid = self.running_pid(id, called)?;
                joins.push((kind, PathBuf::from(format!("/proc/{pid}/ns/{kind}"))));
            }
        }
        Ok(Facts {
            rootfs,
            dir: self.inner.paths.container(&record.id),
            mounts: record.mounts.clone(),
            devices: devices(record)?,
            joins,
            cgroup: self.cgroup_of(record),
            ..self.machine_facts(record, who)?
        })
    }

    /// What holds for init and execs alike: the user and how the process is confined.
    ///
    /// # Errors
    /// For a profile that cannot be read.
    pub(crate) fn machine_facts(&self, record: &Record, user: User) -> Result<Facts> {
        let privileged = record.host.privileged;
        Ok(Facts {
            rootfs: PathBuf::new(),
            dir: PathBuf::new(),
            user,
            mounts: Vec::new(),
            shm: None,
            devices: Vec::new(),
            joins: Vec::new(),
            apparmor: confine::apparmor(record, privileged)?,
            cgroup: String::new(),
            linked_env: Vec::new(),
            seccomp: confine::seccomp(record, privileged)?,
        })
    }

    /// The first process of a container whose namespace is to be joined.
    fn running_pid(&self, id: &str, kind: &str) -> Result<u32> {
        let other = self.find(id)?;
        let pid = other.read().record.state.pid;
        if pid == 0 {
            return Err(Error::conflict(format!(
                "failed to join {kind} namespace: container {} is not running",
                other.id
            )));
        }
        Ok(pid)
    }

    fn cgroup_of(&self, record: &Record) -> String {
        match record.host.resources.cgroup_parent.as_str() {
            "" => record.id.clone(),
            parent => format!("/{}/{}", parent.trim_matches('/'), record.id),
        }
    }

    /// Sources of volumes and binds, copy-up, shared memory, the working directory.
    fn prepare_mounts(
        &self,
        c: &Arc<Container>,
        record: &Record,
        root: &Root,
        facts: &mut Facts,
    ) -> Result<()> {
        for m in &mut facts.mounts {
            match m.kind.as_str() {
                "volume" => {
                    let fresh = self.volume_for(&m.name, m.anonymous, None)?;
                    if m.copy_up && m.subpath.is_empty() {
                        copyup::copy_up(root, &m.destination, &fresh)?;
                    }
                    m.source = if m.subpath.is_empty() { fresh } else { below_volume(&fresh, m)? };
                    let more = [
                        ("container", c.id.as_str()),
                        ("destination", m.destination.as_str()),
                        ("driver", "local"),
                        ("propagation", m.propagation.as_str()),
                        ("read/write", if m.rw { "true" } else { "false" }),
                    ];
                    self.event("volume", "mount", &m.name, &more);
                }
                "bind" => bind_source(m)?,
                _ => {}
            }
        }
        facts.shm = self.shared_memory(record)?;
        let dir = &record.config.run.working_dir;
        if !dir.is_empty() {
            // A volume may cover it: then the launcher finds it there.
            let covered = facts.mounts.iter().any(|m| dir.starts_with(&m.destination));
            if !covered && root.resolve(dir.trim_start_matches('/')).is_err() {
                root.mkdir_all(dir.trim_start_matches('/'), Mode::from_raw_mode(0o755))?;
            }
        }
        Ok(())
    }

    /// Shared memory that others can join lives in the host's mount namespace.
    fn shared_memory(&self, record: &Record) -> Result<Option<PathBuf>> {
        match record.host.ipc_mode.as_str() {
            "host" => Ok(Some(PathBuf::from("/dev/shm"))),
            "shareable" => {
                let path = self.inner.paths.shm(&record.id);
                make_dir(&path, 0o700)?;
                if !mount::is_mount_point(&path)? {
                    let size = record.host.shm_size.to_string();
                    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
                        | MountAttrFlags::MOUNT_ATTR_NODEV
                        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                    let fs = mount::new_fs(
                        "tmpfs",
                        &[("mode", "1777"), ("size", &size), ("source", "shm")],
                        attrs,
                    )?;
                    mount::attach_at(fs, &path)?;
                }
                Ok(Some(path))
            }
            mode => match mode.strip_prefix("container:") {
                None => Ok(None),
                Some(id) => {
                    let other = self.find(id)?.record();
                    match other.host.ipc_mode.as_str() {
                        "shareable" => Ok(Some(self.inner.paths.shm(&other.id))),
                        "host" => Ok(Some(PathBuf::from("/dev/shm"))),
                        _ => Err(Error::internal(format!(
                            "failed to join IPC namespace: container {}: non-shareable IPC \
                             (hint: use IpcMode:shareable for the donor container)",
                            other.id
                        ))),
                    }
                }
            },
        }
    }

    fn request(
        &self,
        record: &Record,
        spec: longshore_runtime::spec::Spec,
        netns: Option<&OwnedFd>,
    ) -> Result<CreateRequest> {
        let h = &record.host;
        let option = |name: &str| h.log.options.get(name).map(String::as_str);
        let log = match h.log.driver.as_str() {
            "none" => None,
            _ => Some(LogFile {
                path: self.inner.paths.log(&record.id),
                max_size: option("max-size").map_or(Ok(0), validate::log_size)?,
                max_files: option("max-file").map_or(Ok(1), validate::log_files)?,
            }),
        };
        let size = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let (rows, cols) = h.console_size;
        Ok(CreateRequest {
            id: record.id.clone(),
            spec,
            terminal: record.config.tty,
            console_size: (rows > 0 && cols > 0).then(|| (size(cols), size(rows))),
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            log,
            netns: netns
                .map(|fd| fd.try_clone())
                .transpose()
                .map_err(|e| Error::io("duplicate descriptor", e))?,
            exit_file: self.inner.paths.exit_file(&record.id),
            userns: None,
            init: h.init.unwrap_or(false),
        })
    }

    /// Clients that attached before the start are connected before the command runs.
    fn admit_clients(&self, c: &Container, task: &Arc<Task>) {
        let pending = {
            let mut data = c.write();
            data.task = Some(task.clone());
            std::mem::take(&mut data.pending)
        };
        for p in pending {
            // A client that went away meanwhile is no loss.
            let _ = p.connected.send(task.attach(p.request).map_err(Error::from));
        }
    }

    fn now_running(&self, c: &Arc<Container>, record: &mut Record, task: &Task) {
        record.state.status = Status::Running;
        record.state.pid = task.pid();
        record.state.exit_code = 0;
        record.state.error.clear();
        record.state.oom_killed = false;
        record.state.started = now();
        health::begin(record);
        record.has_run = true;
        record.stopped_by_hand = false;
        record.boot = longshore_sys::boot::boot_id().unwrap_or_default();
        {
            let mut data = c.write();
            // What may have changed meanwhile without the operation lock.
            record.host.auto_remove = data.record.host.auto_remove;
            record.restart_count = data.record.restart_count;
            data.record = record.clone();
        }
        self.save_state(record);
        c.life.send_modify(|l| {
            l.running = true;
            l.error = None;
        });
        for (name, e) in &record.networks {
            self.network_event(c, "connect", name, &e.network_id);
        }
        self.container_event(c, "start", &[]);
    }

    /// What was mounted in the host's namespace for a run, and who is told.
    pub(crate) fn unmount_volumes(&self, c: &Container) {
        let (mounts, ran) = {
            let data = c.read();
            (data.record.mounts.clone(), data.task.is_some())
        };
        let shm = self.inner.paths.shm(&c.id);
        if mount::is_mount_point(&shm).unwrap_or(false)
            && let Err(e) = mount::detach(&shm)
        {
            tracing::warn!(container = c.id, "unmount its shared memory: {e}");
        }
        if ran {
            for m in mounts.iter().filter(|m| m.kind == "volume") {
                let pairs = [("container", c.id.as_str()), ("driver", "local")];
                self.event("volume", "unmount", &m.name, &pairs);
            }
        }
    }
}

/// The exit code that `State` shows, and the error in Docker's shape.
pub(crate) fn launch_error(e: RuntimeError) -> (i32, Error) {
    match &e {
        RuntimeError::Launch(l) => (l.exit_code(), Error::new(e.kind(), format!("{LAUNCH}: {l}"))),
        RuntimeError::Program { exit_code, .. } => {
            (*exit_code, Error::new(e.kind(), format!("{CREATE_FAILED}: {e}")))
        }
        RuntimeError::Invalid(_) => (128, Error::internal(format!("{CREATE_FAILED}: {e}"))),
        _ => (128, e.into()),
    }
}

/// A bind's source; for `-v` a missing one is made, as a directory.
fn bind_source(m: &MountPoint) -> Result<()> {
    match std::fs::metadata(&m.source) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !m.from_mounts => make_dir(&m.source, 0o755)
            .map_err(|e| {
                e.context(format!("error while creating mount source path '{}'", m.source.display()))
                    .with_kind(Kind::Invalid)
            }),
        Err(_) if m.from_mounts => super::create::check_bind_source(&m.source),
        Err(e) => Err(Error::io(format!("mount source {}", m.source.display()), e)),
    }
}

/// A directory below a volume: resolved inside it, since containers write there.
fn below_volume(volume: &Path, m: &MountPoint) -> Result<PathBuf> {
    let inside = Root::open(volume)?
        .resolve(&m.subpath)
        .map_err(|e| Error::invalid(format!("cannot access path {} of volume {}: {e}", m.subpath, m.name)))?;
    // Where it lies now; the launcher opens it again, by a path without links.
    let real = std::fs::read_link(longshore_sys::sockpath::fd_path(inside.as_fd()))
        .map_err(|e| Error::io(format!("resolve {} of volume {}", m.subpath, m.name), e))?;
    if real.starts_with(volume) {
        Ok(real)
    } else {
        Err(Error::invalid(format!("subpath {} leaves its volume", m.subpath)))
    }
}

/// Devices asked for, or all of the host for a privileged container.
fn devices(record: &Record) -> Result<Vec<spec::Device>> {
    let mut out = Vec::new();
    if record.host.privileged {
        host_devices(Path::new("/dev"), 0, &mut out);
    }
    for d in record.host.resources.devices.iter().flatten() {
        let access = spec::access(d)?;
        let target = if d.container.is_empty() { &d.host } else { &d.container };
        let target = mounts::clean(target);
        let failed = |e: std::io::Error| {
            let text = crate::error::errno_text(&e);
            Error::internal(format!(
                "error gathering device information while adding custom device {:?}: {text}",
                d.host
            ))
        };
        let meta = std::fs::metadata(&d.host).map_err(failed)?;
        let none = || failed(std::io::Error::other("not a device node"));
        if meta.is_dir() {
            let before = out.len();
            directory(Path::new(&d.host), Path::new(&target), &access, 0, &mut out).map_err(failed)?;
            if out.len() == before {
                return Err(none());
            }
        } else {
            out.push(device(&meta, target, access).ok_or_else(none)?);
        }
    }
    Ok(out)
}

/// Levels of directories, and nodes, that one `--device` may bring.
const MAX_DEPTH: usize = 8;
const MAX_NODES: usize = 4096;

/// The nodes below a directory, at the same places below another.
fn directory(
    from: &Path,
    to: &Path,
    access: &str,
    depth: usize,
    out: &mut Vec<spec::Device>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        // Links are not followed: what they point to has a name of its own.
        let meta = entry.metadata()?;
        if meta.is_dir() && depth < MAX_DEPTH {
            directory(&entry.path(), &target, access, depth + 1, out)?;
        } else if out.len() < MAX_NODES {
            out.extend(device(&meta, target.to_string_lossy().into_owned(), access.to_owned()));
        }
    }
    Ok(())
}

fn device(meta: &std::fs::Metadata, path: String, access: String) -> Option<spec::Device> {
    let kind = match meta.file_type() {
        t if t.is_char_device() => "c",
        t if t.is_block_device() => "b",
        _ => return None,
    };
    let dev = meta.rdev();
    Some(spec::Device {
        path,
        kind,
        major: rustix::fs::major(dev),
        minor: rustix::fs::minor(dev),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access,
    })
}

/// Device nodes of the host below `dir`, without terminals and what a container has of its own.
fn host_devices(dir: &Path, depth: usize, out: &mut Vec<spec::Device>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            if depth < 4
                && !["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"].contains(&name.as_ref())
            {
                host_devices(&path, depth + 1, out);
            }
        } else if name != "console" && out.len() < 4096 {
            out.extend(device(&meta, path.to_string_lossy().into_owned(), "rwm".into()));
        }
    }
}
