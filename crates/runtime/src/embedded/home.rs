//! What every kind of container shares: its directory, its monitor, finding it again, ending it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

use longshore_monitor::proto::{Frame, Request};
use longshore_sys::{Context, memfd, pidfd, userns};

use super::RuntimeOptions;
use super::spawn::{self, Created};
use super::state::State;
use crate::cgroup::{Cgroup, Hierarchy, scope};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::external::Program;
use crate::task::{CreateRequest, ExitStatus, Identity, Recovered, Task, end_all};

/// The monitor's program.
pub(super) static MONITOR: &[u8] = include_bytes!(env!("LONGSHORE_MONITOR"));

/// Name of the control socket in a container's exec directory.
pub(super) const SOCKET: &str = "monitor.sock";
/// How long processes may take to die of SIGKILL before their removal is reported as failed.
const KILL_MS: u32 = 10_000;

/// Directories, children and the monitor's program.
#[derive(Debug)]
pub(crate) struct Home {
    containers: PathBuf,
    options: RuntimeOptions,
    boot_id: String,
    program: OwnedFd,
    /// Monitors that are children of this process and have to be reaped.
    children: Mutex<HashMap<String, Child>>,
    /// The delegated scope that `cgroup_parent` is, if systemd has handed one over.
    main: Option<Mutex<Scope>>,
    /// The same for slices that containers were asked to be in.
    slices: Mutex<HashMap<String, Scope>>,
}

/// A place that systemd has handed over.
#[derive(Debug)]
struct Scope {
    /// Its name, without `.scope`.
    stem: String,
    /// Its path below the mount points.
    path: String,
    /// Keeps it alive while no container does: a monitor that waits for its first request, and leaves when the
    /// socket closes.
    keeper: Child,
    _socket: UnixStream,
}

impl Scope {
    /// Has systemd hand over a scope, or takes over the one of that name.
    fn obtain(stem: &str, slice: Option<&str>, program: &OwnedFd) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context(|| "make sockets")?;
        let mut keeper = spawn::spawn(program, theirs)?;
        match scope::obtain(&format!("{stem}.scope"), slice, keeper.id()) {
            Ok(path) => {
                let path = path.trim_matches('/').to_owned();
                Ok(Self { stem: stem.to_owned(), path, keeper, _socket: ours })
            }
            Err(error) => {
                drop(ours);
                let _ = keeper.wait();
                Err(error)
            }
        }
    }

    /// Whether it is still kept: somebody may have stopped it, or killed its keeper. What were made at its path then
    /// would be systemd's to remove, or nobody's.
    fn stands(&mut self) -> bool {
        matches!(self.keeper.try_wait(), Ok(None)) && scope::stands(&self.path)
    }
}

impl Home {
    /// Its directory, and the monitor's program in memory.
    pub(crate) fn new(mut options: RuntimeOptions) -> Result<Self> {
        let containers = options.exec_root.join("containers");
        make_private_dir(&containers)?;
        let program = memfd::sealed_program("longshore-monitor", MONITOR)?;
        let mut main = None;
        if scope::systemd_runs() && scope::unit_name(&options.cgroup_parent).is_some() {
            scope::leave_session(&options.cgroup_parent);
            match Scope::obtain(&options.cgroup_parent, options.slice.as_deref(), &program) {
                Ok(scope) => {
                    options.cgroup_parent.clone_from(&scope.path);
                    main = Some(Mutex::new(scope));
                }
                Err(error) if options.slice.is_some() => return Err(error),
                Err(error) if userns::inside() => {
                    tracing::warn!(%error, "no delegated scope from the user's systemd")
                }
                // A container that sees its host's systemd, say. What is made then is nobody else's.
                Err(error) => tracing::warn!(%error, "no delegated scope: cgroups are made at the top"),
            }
        }
        if userns::inside() {
            Hierarchy::narrow(&options.cgroup_parent);
            if Hierarchy::get()?.is_bare() {
                tracing::warn!("this user may make no cgroups: containers run without limits");
            }
        }
        Ok(Self {
            containers,
            boot_id: longshore_sys::boot::boot_id()?,
            program,
            children: Mutex::new(HashMap::new()),
            options,
            main,
            slices: Mutex::default(),
        })
    }

    /// Where container `id` has its state.
    fn dir(&self, id: &str) -> Result<PathBuf> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(plain) {
            return Err(Error::Invalid(format!("container id {id:?} is malformed")));
        }
        Ok(self.containers.join(id))
    }

    fn task(&self, id: &str, dir: &Path, state: &State, cgroup: Cgroup) -> Task {
        Task(Arc::new(Identity {
            id: id.to_owned(),
            socket: dir.join(SOCKET),
            exit_file: state.exit_file.clone(),
            pid: state.pid,
            start_time: state.start_time,
            monitor_pid: state.monitor_pid,
            cgroup,
            seccomp: state.seccomp,
            program: state.program.clone(),
        }))
    }

    /// The state of a container, if it is of this boot.
    fn state(&self, dir: &Path) -> Result<Option<State>> {
        Ok(State::read(dir)?.filter(|s| s.boot_id == self.boot_id))
    }

    fn adopt(&self, id: &str, child: Child) {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut old) = children.insert(id.to_owned(), child) {
            let _ = old.try_wait();
        }
    }

    /// Moves a monitor into the delegated scope, if there is one: nothing waits for that.
    fn shelter(&self, monitor: u32) {
        if self.main.is_none() {
            return;
        }
        let scope = self.options.cgroup_parent.clone();
        std::thread::spawn(move || {
            if let Err(error) = scope::shelter(&scope, monitor) {
                tracing::debug!(monitor, %error, "it stays in the daemon's service");
            }
        });
    }

    /// Where below the mount points a container goes that was put into `parent`. What is systemd's cannot be used
    /// as it is: it would take the controllers back, and with them the limits. So a slice gets a scope of ours.
    fn within(&self, parent: String) -> Result<String> {
        let Some(main) = &self.main else { return Ok(parent) };
        let mut main = main.lock().unwrap_or_else(PoisonError::into_inner);
        // Monitors go there in any case.
        if !main.stands() {
            let again = Scope::obtain(&main.stem, self.options.slice.as_deref(), &self.program)?;
            *main = again;
        }
        let Some(slice) = scope::slice_of(&parent) else { return Ok(parent) };
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scope) = slices.get_mut(slice)
            && scope.stands()
        {
            return Ok(scope.path.clone());
        }
        let stem = format!("{}-{}", main.stem, slice.strip_suffix(".slice").unwrap_or(slice));
        let scope = Scope::obtain(&stem, Some(slice), &self.program)?;
        let path = scope.path.clone();
        slices.insert(slice.to_owned(), scope);
        Ok(path)
    }

    /// Removes the parent of the containers' cgroups, unless one is still there or systemd does that.
    pub(crate) fn leave(&self) -> Result<()> {
        if self.main.is_some() { Ok(()) } else { Cgroup::remove_parent(&self.options.cgroup_parent) }
    }

    /// Makes the container's directory, after removing what an earlier life left.
    fn make_dir(&self, id: &str, dir: &Path) -> Result<()> {
        if dir.exists() {
            if let Some(state) = self.state(dir)?
                && pidfd::open_same(state.pid, state.start_time).is_ok_and(|fd| !exited(&fd))
            {
                return Err(Error::Exists(id.to_owned()));
            }
            self.delete(id)?;
        }
        make_private_dir(dir)
    }

    /// Makes a container: by the monitor itself, or by another program.
    pub(crate) fn create(&self, request: CreateRequest, program: Option<Program>) -> Result<Task> {
        let id = request.id.clone();
        let dir = self.dir(&id)?;
        self.make_dir(&id, &dir)?;
        let place = super::plan::cgroup(&request.spec, &self.options.cgroup_parent, &id)
            .and_then(|(parent, name)| Ok((self.within(parent)?, name)));
        let place = match place {
            Ok(place) => place,
            Err(error) => {
                self.delete(&id)?;
                return Err(error);
            }
        };
        let (parent, name) = (place.0.clone(), place.1.clone());
        let seccomp = request.spec.linux().as_ref().is_some_and(|l| l.seccomp().is_some());
        let created = match &program {
            None => spawn::create(&self.program, &dir, (&parent, &name), request),
            Some(program) => crate::external::create(&self.program, &dir, (&parent, &name), request, program),
        };
        let made = created.and_then(|created| {
            let Created { child, pid, cgroup, exit_file } = created;
            let monitor_pid = child.id();
            self.adopt(&id, child);
            self.shelter(monitor_pid);
            let state = State {
                v: State::CURRENT,
                boot_id: self.boot_id.clone(),
                pid,
                start_time: pidfd::start_time(pid)?,
                monitor_pid,
                monitor_start_time: pidfd::start_time(monitor_pid)?,
                cgroup: place,
                exit_file,
                seccomp: Some(seccomp),
                program: program.clone(),
            };
            state.write(&dir)?;
            Ok(self.task(&id, &dir, &state, cgroup))
        });
        if made.is_err() {
            if let Some(program) = &program {
                program.forget(&id);
            }
            // The monitor, if it got that far, ends with its container. A cgroup that somebody else
            // uses was the reason and stays.
            let removed = match &made {
                Err(Error::Exists(_)) => Ok(()),
                _ => Cgroup::delete(&parent, &name),
            };
            if let Err(error) = removed.and(self.delete(&id)) {
                tracing::warn!(container = id, %error, "removing what a failed start left");
            }
        }
        made
    }

    pub(crate) fn recover(&self, id: &str) -> Result<Recovered> {
        let dir = self.dir(id)?;
        let Some(state) = self.state(&dir)? else {
            self.delete(id)?;
            return Ok(Recovered::Gone);
        };
        let socket = dir.join(SOCKET);
        let mut told = None;
        match status(id, &socket) {
            Some((true, false)) => {
                if let Ok(cgroup) = Cgroup::open(&state.cgroup.0, &state.cgroup.1) {
                    return Ok(Recovered::Running(self.task(id, &dir, &state, cgroup)));
                }
            }
            Some((true, true)) => {
                // The last output is being written; the monitor leaves when that is done. What it
                // says is asked for: a full disk may have no room for the exit file.
                told = exit_status(id, &socket);
                if let Ok(fd) = pidfd::open_same(state.monitor_pid, state.monitor_start_time) {
                    let _ = pidfd::wait_exit(&fd, Some(KILL_MS));
                }
            }
            // Never started, or no monitor that answers.
            _ => {}
        }
        let exit = match told {
            Some(exit) => Some(exit),
            None => ExitStatus::read(&state.exit_file)?,
        };
        self.delete(id)?;
        Ok(exit.map_or(Recovered::Gone, Recovered::Exited))
    }

    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        let dir = self.dir(id)?;
        let child = self.children.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let state = self.state(&dir).unwrap_or_default();
        let mut result = Ok(());
        let place = match &state {
            Some(state) => {
                if let Some(program) = &state.program {
                    program.forget(id);
                }
                result = end_processes(id, state);
                (state.cgroup.0.as_str(), state.cgroup.1.as_str())
            }
            // Of an earlier boot, or never complete.
            None => (self.options.cgroup_parent.as_str(), id),
        };
        result = result.and(Cgroup::delete(place.0, place.1));
        if let Some(mut child) = child {
            result = result.and(end_monitor(&mut child));
        }
        match std::fs::remove_dir_all(&dir) {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {}
            Err(e) => {
                let e = longshore_sys::Error::new(format!("remove {}", dir.display()), e);
                result = result.and(Err(e.into()));
            }
        }
        result
    }
}

/// The monitors that run below an exec root, with the times when they started: whoever has left containers there has left
/// these with them.
#[must_use]
pub fn monitors(exec_root: &Path) -> Vec<(u32, u64)> {
    let Ok(boot) = longshore_sys::boot::boot_id() else { return Vec::new() };
    let dirs = std::fs::read_dir(exec_root.join("containers")).into_iter().flatten().flatten();
    let states = dirs.filter_map(|dir| State::read(&dir.path()).ok().flatten());
    let here = states.filter(|state| state.boot_id == boot);
    let all = here.map(|state| (state.monitor_pid, state.monitor_start_time));
    all.filter(|(pid, start)| pidfd::open_same(*pid, *start).is_ok_and(|fd| !exited(&fd))).collect()
}

/// Whether the container was started and has ended, as its monitor says.
fn status(id: &str, socket: &Path) -> Option<(bool, bool)> {
    let mut client = Client::connect(id, socket).ok()?;
    client.ask(&Request::Status, &[]).ok()?;
    match client.answer().ok()? {
        Frame::Status { started, exited, .. } => Some((started, exited)),
        _ => None,
    }
}

/// How a container ended, as its monitor says when the last output is written.
fn exit_status(id: &str, socket: &Path) -> Option<ExitStatus> {
    let mut client = Client::connect(id, socket).ok()?;
    client.ask(&Request::Wait, &[]).ok()?;
    match client.answer().ok()? {
        Frame::Exit(exit) => Some(exit.into()),
        _ => None,
    }
}

/// Kills the container's processes, and its monitor if that does not leave by itself.
fn end_processes(id: &str, state: &State) -> Result<()> {
    if let Ok(init) = pidfd::open_same(state.pid, state.start_time)
        && !exited(&init)
    {
        let _ = pidfd::send_signal(&init, libc::SIGKILL);
        // The others, and what is frozen: that dies only when it goes on.
        if let Ok(cgroup) = Cgroup::open(&state.cgroup.0, &state.cgroup.1) {
            end_all(&cgroup, state.monitor_pid)?;
        }
        if !pidfd::wait_exit(&init, Some(KILL_MS))? {
            return Err(Error::State {
                id: id.to_owned(),
                what: format!("process {} does not react to SIGKILL", state.pid),
            });
        }
    }
    if let Ok(monitor) = pidfd::open_same(state.monitor_pid, state.monitor_start_time)
        && !pidfd::wait_exit(&monitor, Some(500))?
    {
        let _ = pidfd::send_signal(&monitor, libc::SIGKILL);
    }
    Ok(())
}

/// Reaps a monitor whose container has ended.
fn end_monitor(child: &mut Child) -> Result<()> {
    let fd = pidfd::open(child.id());
    if let Ok(fd) = &fd
        && !pidfd::wait_exit(fd, Some(500)).unwrap_or(false)
    {
        let _ = child.kill();
    }
    child.wait().context(|| "wait for monitor")?;
    Ok(())
}

fn exited(fd: &OwnedFd) -> bool {
    pidfd::exited(fd).unwrap_or(true)
}

/// A directory, with its parents, that only its owner can enter.
pub(crate) fn make_private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .context(|| format!("make directory {}", dir.display()))?;
    Ok(())
}
