//! Commands of builds: each runs as a container does, but for a record. No list shows it, and a daemon that starts
//! removes what is left of one.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_build::graph::{Limits, Network, Run};
use longshore_build::{Cancel, Error as BuildError, Given, RunMount, Runner, Shown, Stream};
use longshore_oci::image::{ImageDocument, RunConfig};
use longshore_oci::{Digest, Kind};
use longshore_runtime::Task;
use longshore_runtime::monitor::proto::{Decoder, Frame, MAX_CHUNK, Stream as Which};
use longshore_sys::mount;
use rustix::mount::MountAttrFlags;
use tokio::sync::oneshot;

use super::agent::Forward;
use crate::container::{Container, PendingAttach};
use crate::engine::{make_dir, remove_dir};
use crate::model::{ContainerConfig, HostConfig, LogConfig, MountPoint, Resources, Ulimit};
use crate::record::Record;
use crate::{Engine, Error, Result};

/// Where a step's secrets lie while it runs, in its folder.
pub(crate) const HIDDEN: &str = "mounts/secrets";
/// Bytes that they may have together.
const HIDDEN_SIZE: &str = "64m";
/// The number of SIGKILL.
const KILL: i32 = 9;

impl Runner for Engine {
    fn run(
        &self,
        container: &str,
        run: &Run,
        given: &Given,
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancel: &Cancel,
    ) -> longshore_build::Result<i32> {
        let done = self.with_step(container, run, given, |_| (), |c| self.run_in(c, output, cancel));
        done.map_err(to_build)
    }
}

/// An error of the engine, for the builder.
pub(crate) fn to_build(e: Error) -> BuildError {
    match e.kind() {
        Kind::Cancelled => BuildError::Cancelled,
        kind => BuildError::Host { kind, message: e.to_string() },
    }
}

impl Engine {
    /// Does `work` with the container of a command, which is made for it and gone afterwards. `adjust` has a look at its
    /// record before.
    ///
    /// # Errors
    /// Those of `work`, and for what is asked wrongly.
    pub(crate) fn with_step<T>(
        &self,
        id: &str,
        run: &Run,
        given: &Given,
        adjust: impl FnOnce(&mut Record),
        work: impl FnOnce(&Arc<Container>) -> Result<T>,
    ) -> Result<T> {
        let done = self.in_step(id, run, given, adjust, work);
        if let Err(e) = remove_dir(&self.inner.paths.container(id)) {
            tracing::warn!(container = id, "a build step's files stay until the next start: {e}");
        }
        done
    }

    fn in_step<T>(
        &self,
        id: &str,
        run: &Run,
        given: &Given,
        adjust: impl FnOnce(&mut Record),
        work: impl FnOnce(&Arc<Container>) -> Result<T>,
    ) -> Result<T> {
        let mut record = self.step_record(id, run, &given.env)?;
        let dir = self.inner.paths.container(id);
        make_dir(&dir, 0o710)?;
        // Gone before its folder is removed.
        let mut hidden = Hidden::new(dir.join(HIDDEN));
        let mut agents = Vec::new();
        let mut mounts = Vec::new();
        for mount in &given.mounts {
            mounts.push(mount_point(mount, &dir, &mut hidden, &mut agents)?);
        }
        record.mounts = mounts.into_iter().chain(self.step_files(id, run)?).collect();
        adjust(&mut record);
        let c = Container::new(record);
        let done = work(&c);
        self.release_runtime(&c);
        done
    }

    fn run_in(
        &self,
        c: &Arc<Container>,
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancel: &Cancel,
    ) -> Result<i32> {
        let request = longshore_runtime::AttachRequest { stdin: false, stdout: true, stderr: true };
        let (task, socket) = self.start_attached(c, request).map_err(|(_, e)| e)?;
        let _armed = cancel.on_call(move || kill(&task));
        finish_step(socket, output, cancel)
    }

    /// Starts the container of a command and attaches to it before it runs; an error comes with the exit code that stands
    /// for it.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(crate) fn start_attached(
        &self,
        c: &Arc<Container>,
        request: longshore_runtime::AttachRequest,
    ) -> Result<(Arc<Task>, UnixStream), (i32, Error)> {
        let (connected, mut socket) = oneshot::channel();
        c.write().pending.push(PendingAttach { request, connected });
        let mut record = c.record();
        let task = self.try_start(c, &mut record)?;
        let own = |e: Error| (125, e);
        let socket = socket
            .try_recv()
            .map_err(|_| own(Error::internal("a build step started without its output")))?
            .map_err(own)?;
        Ok((task, socket))
    }

    /// A container that nobody else sees.
    fn step_record(&self, id: &str, run: &Run, hidden_env: &[String]) -> Result<Record> {
        let config = ContainerConfig {
            run: RunConfig {
                user: run.user.clone(),
                env: Some(run.env.iter().chain(&run.quiet_env).chain(hidden_env).cloned().collect()),
                entrypoint: Some(Vec::new()),
                cmd: Some(run.args.clone()),
                working_dir: run.cwd.clone(),
                ..RunConfig::default()
            },
            hostname: "buildkitsandbox".into(),
            ..ContainerConfig::default()
        };
        let mut host = HostConfig {
            network_mode: network_mode(&run.network),
            privileged: run.insecure,
            extra_hosts: (!run.hosts.is_empty()).then(|| run.hosts.clone()),
            shm_size: run.limits.shm_size,
            log: LogConfig { driver: "none".into(), ..LogConfig::default() },
            resources: resources(&run.limits),
            ..HostConfig::default()
        };
        if host.network_mode == "host" {
            host.uts_mode = String::new();
        }
        let none = Digest::of(b"");
        let document = ImageDocument::default();
        let mut warnings = Vec::new();
        let mut record =
            self.new_record(id, config, host, Default::default(), none, &document, &mut warnings)?;
        record.transient = true;
        Ok(record)
    }

    /// Files that only the command sees.
    fn step_files(&self, id: &str, run: &Run) -> Result<Vec<MountPoint>> {
        let dir = self.inner.paths.container(id).join("files");
        if !run.files.is_empty() {
            make_dir(&dir, 0o700)?;
        }
        let mut mounts = Vec::new();
        for (n, file) in run.files.iter().enumerate() {
            let source: PathBuf = dir.join(n.to_string());
            write_file(&source, &file.content, file.mode)?;
            mounts.push(MountPoint {
                kind: "bind".into(),
                source,
                destination: file.target.clone(),
                from_mounts: true,
                ..MountPoint::default()
            });
        }
        Ok(mounts)
    }
}

fn mount_point(
    mount: &RunMount,
    dir: &Path,
    hidden: &mut Hidden,
    agents: &mut Vec<Forward>,
) -> Result<MountPoint> {
    let (source, options) = match &mount.shown {
        Shown::Agent { socket, mode, uid, gid } => {
            let path = dir.join(format!("agent{}.sock", agents.len()));
            agents.push(Forward::start(&path, socket, *mode, (*uid, *gid))?);
            (Some(path), String::new())
        }
        Shown::Path(path) => (Some(path.clone()), String::new()),
        Shown::Memory { size } => (None, size.map(|size| format!("size={size}")).unwrap_or_default()),
        Shown::Secret { secret, mode, uid, gid } => {
            (Some(hidden.put(secret.bytes(), *mode, (*uid, *gid))?), String::new())
        }
    };
    Ok(MountPoint {
        kind: if source.is_some() { "bind" } else { "tmpfs" }.into(),
        source: source.unwrap_or_default(),
        destination: mount.target.clone(),
        rw: !mount.read_only,
        propagation: "rprivate".into(),
        tmpfs_options: options,
        from_mounts: true,
        ..MountPoint::default()
    })
}

/// Files that are in memory only. Their file system is made with the first, and is gone when this is dropped.
struct Hidden {
    dir: PathBuf,
    files: usize,
}

impl Hidden {
    fn new(dir: PathBuf) -> Self {
        Self { dir, files: 0 }
    }

    /// A file of these bytes.
    fn put(&mut self, bytes: &[u8], mode: u32, owner: (u32, u32)) -> Result<PathBuf> {
        if self.files == 0 {
            make_dir(&self.dir, 0o700)?;
            let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            // Never swapped out where the kernel knows how (6.4), as what it holds is not for disks.
            let options = [("mode", "0700"), ("size", HIDDEN_SIZE)];
            let fs = mount::new_fs("tmpfs", &[&options[..], &[("noswap", "")]].concat(), attrs)
                .or_else(|_| mount::new_fs("tmpfs", &options, attrs))?;
            mount::attach_at(fs, &self.dir)?;
        }
        self.files += 1;
        let path = self.dir.join(self.files.to_string());
        write_file(&path, bytes, mode)?;
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))
            .map_err(|e| Error::io(format!("chown {}", path.display()), e))?;
        Ok(path)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if self.files > 0
            && let Err(e) = mount::detach(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), "unmount a build step's secrets: {e}");
        }
    }
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let failed = |e| Error::io(format!("write {}", path.display()), e);
    let options = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = options.map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)
}

fn network_mode(network: &Network) -> String {
    match network {
        Network::Default => "bridge".into(),
        other => other.name().to_owned(),
    }
}

fn resources(limits: &Limits) -> Resources {
    let ulimits: Vec<Ulimit> = limits
        .ulimits
        .iter()
        .map(|(name, soft, hard)| Ulimit { name: name.clone(), soft: *soft, hard: *hard })
        .collect();
    Resources {
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        cpu_shares: limits.cpu_shares,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        cgroup_parent: limits.cgroup_parent.clone(),
        ulimits: (!ulimits.is_empty()).then_some(ulimits),
        ..Resources::default()
    }
}

/// Ends all processes of a command.
pub(crate) fn kill(task: &Arc<Task>) {
    if let Err(e) = task.signal(KILL, true) {
        tracing::debug!(container = task.id(), "end a build step: {e}");
    }
}

/// Hands on what a command writes until it has ended, and gives its exit code.
///
/// # Errors
/// `Cancelled` when it was called off.
pub(crate) fn finish_step(
    socket: UnixStream,
    output: &mut (dyn FnMut(Stream, &[u8]) + Send),
    cancel: &Cancel,
) -> Result<i32> {
    let code = relay(socket, output)?;
    if cancel.is_off() {
        return Err(Error::new(Kind::Cancelled, "build cancelled"));
    }
    code.ok_or_else(|| Error::internal("the monitor of a build step ended without a word"))
}

/// Hands on what a command writes, until it ends; its exit code, `None` if nobody knows it.
fn relay(mut socket: UnixStream, output: &mut (dyn FnMut(Stream, &[u8]) + Send)) -> Result<Option<i32>> {
    let mut decoder = Decoder::new();
    let mut block = vec![0u8; MAX_CHUNK];
    loop {
        loop {
            match decoder.next() {
                Ok(Some(Frame::Output { stream: Which::Stdout, bytes })) => output(Stream::Stdout, bytes),
                Ok(Some(Frame::Output { stream: Which::Stderr, bytes })) => output(Stream::Stderr, bytes),
                Ok(Some(Frame::Exit(exit))) => return Ok(Some(exit.code)),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) => return Err(Error::internal(format!("monitor's stream: {e}"))),
            }
        }
        match socket.read(&mut block) {
            Ok(0) => return Ok(None),
            Ok(n) => decoder.push(block.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read a build step's output", e)),
        }
    }
}
