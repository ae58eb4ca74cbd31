//! Starting a monitor and giving it a container to make.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use longshore_monitor::proto::{Create, Frame, Request};
use longshore_sys::{Context, sockpath};
use rustix::fs::{Mode, OFlags};

use super::filter;
use super::home::SOCKET;
use super::plan::{self, Facts, Planned};
use crate::cgroup::Cgroup;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::spec::LinuxNamespaceType;
use crate::task::CreateRequest;

/// A container that waits for leave to run.
pub(crate) struct Created {
    pub(crate) child: Child,
    pub(crate) pid: u32,
    pub(crate) cgroup: Cgroup,
    pub(crate) exit_file: PathBuf,
}

/// Makes a container. What it leaves in `dir` and its cgroup on failure is removed by the caller.
pub(crate) fn create(
    program: &OwnedFd,
    dir: &Path,
    place: (&str, &str),
    mut request: CreateRequest,
) -> Result<Created> {
    let terminal = request.terminal.then(|| request.console_size.unwrap_or((0, 0)));
    let mut facts = Facts {
        netns: request.netns.is_some(),
        userns: request.userns.as_ref().filter(|m| !m.is_identity()),
        terminal,
        init: request.init,
        hierarchies: &[],
        unified: None,
        no_cgroups: false,
        bind_devices: longshore_sys::userns::inside(),
    };
    let resources = plan::resources(&request.spec);
    let group = Cgroup::create(place.0, place.1, &resources)?;
    let hierarchies = group.mounts()?;
    facts.hierarchies = &hierarchies;
    facts.unified = group.unified_top();
    facts.no_cgroups = group.is_bare();
    let mut planned = plan::container(&request.spec, &facts)?;
    if let Some(profile) = request.spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) {
        let compiled = filter::compile(profile)?;
        filter::keep(dir, &compiled)?;
        planned.container.process.seccomp = Some(compiled);
    }
    let entrance = Entrance::of(&group)?;
    let mut files = Files::default();
    let create = Create {
        namespaces: planned.namespaces,
        cgroup_namespace: planned.cgroup_namespace,
        id_maps: planned.id_maps.clone(),
        joins: files.join(&planned, request.netns.take())?,
        ..Create::default()
    };
    let mut plan = Vec::new();
    planned.container.encode(&mut plan);
    let order = Order { create, plan, files, entrance };
    watch(program, dir, request, order, group)
}

/// What a monitor is told, apart from what is the same for every container.
pub(crate) struct Order {
    pub(crate) create: Create,
    pub(crate) plan: Vec<u8>,
    pub(crate) files: Files,
    pub(crate) entrance: Entrance,
}

/// Starts a monitor and lets it make the container.
pub(crate) fn watch(
    program: &OwnedFd,
    dir: &Path,
    request: CreateRequest,
    order: Order,
    group: Cgroup,
) -> Result<Created> {
    let (exit_dir, exit_name) = parent(&request.exit_file)?;
    remove_old_exit(&request.exit_file)?;
    let log = request.log.as_ref().map(|log| parent(&log.path)).transpose()?;
    let listener = sockpath::bind(&dir.join(SOCKET), 0o600)?;
    let exec_dir = open_dir(dir)?;
    let Order { create, plan, files, entrance } = order;
    let create = Create {
        terminal: request.terminal,
        open_stdin: request.open_stdin,
        stdin_once: request.stdin_once,
        exit_name,
        log: request
            .log
            .as_ref()
            .zip(log.as_ref())
            .map(|(l, (_, name))| (name.clone(), l.max_size, l.max_files)),
        cgroup2: entrance.v2.is_some(),
        cgroup_procs: u32::try_from(entrance.procs.len()).unwrap_or(0),
        oom: entrance.oom.is_some(),
        ..create
    };
    let fds = files.in_order(listener, exec_dir, exit_dir, log.map(|(fd, _)| fd), entrance);

    let (ours, theirs) = UnixStream::pair().context(|| "make sockets")?;
    let mut child = spawn(program, theirs)?;
    match hand_over(&request.id, ours, create, &plan, &fds) {
        Ok(pid) => Ok(Created { child, pid, cgroup: group, exit_file: request.exit_file }),
        Err(error) => {
            // It ends by itself after a failure; if it never answered it has to be ended.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Executes the monitor. There is nothing to do between fork and exec, so the standard library takes
/// posix_spawn, which does not copy this process's memory map.
pub(crate) fn spawn(program: &OwnedFd, socket: UnixStream) -> Result<Child> {
    let child = Command::new(sockpath::fd_path(program.as_fd()))
        .arg0("longshore-monitor")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context(|| "start monitor")?;
    Ok(child)
}

fn hand_over(id: &str, socket: UnixStream, create: Create, plan: &[u8], files: &[OwnedFd]) -> Result<u32> {
    let mut client = Client::over(id, socket);
    let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    client.ask(&Request::Create(Box::new(create), plan), &fds)?;
    match client.answer()? {
        Frame::Created { pid } => Ok(pid),
        other => Err(Error::Monitor { id: id.to_owned(), what: format!("unexpected answer {other:?}") }),
    }
}

/// The doors to the cgroups of a container.
#[derive(Default)]
pub(crate) struct Entrance {
    /// v2: the directory to be born in.
    pub(crate) v2: Option<OwnedFd>,
    /// v1: each hierarchy's `cgroup.procs`.
    pub(crate) procs: Vec<OwnedFd>,
    /// The file with the counter of out-of-memory kills.
    pub(crate) oom: Option<OwnedFd>,
}

impl Entrance {
    fn of(group: &Cgroup) -> Result<Self> {
        let handles = group.handles()?;
        Ok(Self { v2: handles.v2, procs: handles.procs, oom: group.oom_file()? })
    }
}

/// The descriptors that go with a Create, in its order.
#[derive(Default)]
pub(crate) struct Files {
    joins: Vec<OwnedFd>,
    /// Where another OCI runtime sends the terminal.
    pub(crate) console: Option<OwnedFd>,
}

impl Files {
    fn join(&mut self, planned: &Planned, netns: Option<OwnedFd>) -> Result<Vec<u64>> {
        let mut kinds = Vec::new();
        for (kind, path) in &planned.joins {
            let file = File::open(path).context(|| format!("open namespace {}", path.display()))?;
            self.joins.push(file.into());
            kinds.push(*kind);
        }
        if let Some(netns) = netns {
            self.joins.push(netns);
            kinds.push(LinuxNamespaceType::Network as u64);
        }
        Ok(kinds)
    }

    fn in_order(
        self,
        listener: UnixListener,
        exec_dir: OwnedFd,
        exit_dir: OwnedFd,
        log_dir: Option<OwnedFd>,
        cgroup: Entrance,
    ) -> Vec<OwnedFd> {
        let mut all = vec![listener.into(), exec_dir, exit_dir];
        all.extend(log_dir);
        all.extend(self.joins);
        all.extend(cgroup.v2);
        all.extend(cgroup.procs);
        all.extend(cgroup.oom);
        all.extend(self.console);
        all
    }
}

/// The directory of a file, and its name.
fn parent(path: &Path) -> Result<(OwnedFd, Vec<u8>)> {
    let bad = || Error::Invalid(format!("{} is no path of a file", path.display()));
    let name = path.file_name().ok_or_else(bad)?;
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).ok_or_else(bad)?;
    Ok((open_dir(dir)?, name.as_encoded_bytes().to_vec()))
}

fn open_dir(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty()).context(|| format!("open {}", dir.display()))?;
    Ok(fd)
}

/// What an earlier life wrote must not be taken for this one's end.
fn remove_old_exit(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(longshore_sys::Error::new(format!("remove {}", path.display()), e).into())
        }
        _ => Ok(()),
    }
}
