//! Execs: other processes in running containers. They live in memory: none outlasts the daemon's
//! knowledge of it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use longshore_oci::Kind;
use longshore_runtime::{Exec, ExecRequest, ExecStdio};
use longshore_sys::root::Root;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::container::links::Linked;
use crate::container::spec::Facts;
use crate::container::{Container, exit_of, from_std, receiver, spec};
use crate::model::{CreateExec, ExecView, OutputChunk, OutputStream, Status};
use crate::stream::AttachSession;
use crate::{Engine, Error, Result, names};

/// How long one that has ended can still be inspected.
const KEEP: Duration = Duration::from_secs(300);
/// Execs of one container that are known at a time.
const MAX_PER_CONTAINER: usize = 4096;
const QUEUE: usize = 16;
const CHUNK: usize = 32 << 10;

/// All execs.
#[derive(Default)]
pub(crate) struct Execs {
    by_id: Mutex<HashMap<String, Arc<Known>>>,
}

struct Known {
    container: Arc<Container>,
    request: CreateExec,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: bool,
    running: bool,
    pid: u32,
    code: Option<i32>,
    /// For resizing.
    terminal: Option<Arc<OwnedFd>>,
    size: Option<(u16, u16)>,
}

impl Known {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Execs {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Known>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<Known>> {
        self.map().get(id).cloned().ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// Its execs are gone with it; those that have not said so yet are marked.
    pub(crate) fn container_ended(&self, container: &str) {
        for known in self.map().values().filter(|k| k.container.id == container) {
            let mut state = known.state();
            if state.running {
                state.running = false;
                state.code.get_or_insert(137);
                state.terminal = None;
            }
        }
    }

    /// The container is removed.
    pub(crate) fn forget_container(&self, container: &str) {
        self.map().retain(|_, k| k.container.id != container);
    }
}

impl Engine {
    /// Prepares another process for a running container.
    ///
    /// # Errors
    /// `Conflict` when it does not run, `Invalid` without a command.
    pub async fn create_exec(&self, name: &str, request: CreateExec) -> Result<String> {
        let c = self.find(name)?;
        {
            let data = c.read();
            check_running(&data.record.state.status, name, &c.id)?;
        }
        if request.cmd.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        if request.env.iter().any(|e| e.is_empty() || e.starts_with('=') || e.contains('\0')) {
            return Err(Error::invalid("invalid environment variable"));
        }
        if !request.working_dir.is_empty() && !request.working_dir.starts_with('/') {
            let dir = &request.working_dir;
            return Err(Error::invalid(format!(
                "the working directory '{dir}' is invalid, it needs to be an absolute path"
            )));
        }
        if !request.user.is_empty() {
            // Told now, and not when it is started.
            let (container, user) = (c.clone(), request.user.clone());
            self.blocking(move |_| container_user(&container, &user).map(drop))
                .await
                .map_err(|e| e.with_kind(Kind::Invalid))?;
        }
        let id = names::new_id()?;
        let words = request.cmd.join(" ");
        {
            let mut map = self.inner.execs.map();
            if map.values().filter(|k| k.container.id == c.id).count() >= MAX_PER_CONTAINER {
                return Err(Error::new(
                    Kind::TooLarge,
                    format!("more than {MAX_PER_CONTAINER} execs of container {}", c.id),
                ));
            }
            let known = Known { container: c.clone(), request, state: Mutex::default() };
            map.insert(id.clone(), Arc::new(known));
        }
        self.container_event(&c, format!("exec_create: {words}"), &[("execID", id.clone())]);
        // One that is never started does not stay for ever.
        self.expire(&id, KEEP);
        Ok(id)
    }

    fn expire(&self, id: &str, after: Duration) {
        // Not a reason to keep a closed engine.
        let (inner, id) = (Arc::downgrade(&self.inner), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(inner) = inner.upgrade() {
                inner.execs.map().retain(|k, known| *k != id || known.state().running);
            }
        });
    }

    /// Runs it; unless detached, with its streams.
    ///
    /// # Errors
    /// `Conflict` when it ran before or its container does not run; in Docker's words.
    pub async fn start_exec(
        &self,
        id: &str,
        detach: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Option<AttachSession>> {
        let known = self.inner.execs.find(id)?;
        let c = known.container.clone();
        {
            let data = c.read();
            check_running(&data.record.state.status, &c.id, &c.id)?;
        }
        {
            let mut state = known.state();
            if state.started {
                let what = if state.running { "is already running" } else { "has already run" };
                return Err(Error::conflict(format!("exec command {id} {what}")));
            }
            state.started = true;
            state.size = state.size.or(size);
        }
        let (engine, exec_id) = (self.clone(), id.to_owned());
        self.to_the_end(async move { engine.run_exec(exec_id, known, detach).await }).await
    }

    async fn run_exec(&self, id: String, known: Arc<Known>, detach: bool) -> Result<Option<AttachSession>> {
        let c = known.container.clone();
        let words = known.request.cmd.join(" ");
        let more = [("execID", id.clone())];
        self.container_event(&c, format!("exec_start: {words}"), &more);
        let prepared = known.clone();
        let exec_id = id.clone();
        let started = self.blocking(move |e| e.spawn_exec(&exec_id, &prepared, detach)).await;
        let exec = match started {
            Ok(exec) => exec,
            Err(e) => {
                let code = start_failed(&e);
                known.state().code = Some(code);
                let more = [("execID", id.clone()), ("exitCode", code.to_string())];
                self.container_event(&c, "exec_die", &more);
                self.expire(&id, KEEP);
                return Err(e);
            }
        };
        let Exec { pid, stdio, events, .. } = exec;
        let (tty, session, pump) = match stdio {
            ExecStdio::Tty(master) => {
                let master = Arc::new(master);
                {
                    let mut state = known.state();
                    state.terminal = Some(master.clone());
                }
                let (session, pump) = terminal_session(&master, !detach && known.request.attach_stdin)?;
                (true, session, pump)
            }
            ExecStdio::Pipes { stdin, stdout, stderr } => {
                let wanted = &known.request;
                let (session, pump) = pipe_session(
                    stdin,
                    stdout,
                    stderr,
                    !detach && wanted.attach_stdout,
                    !detach && wanted.attach_stderr,
                )?;
                (false, session, pump)
            }
        };
        {
            let mut state = known.state();
            state.running = true;
            state.pid = pid;
        }
        c.write().execs.insert(id.clone());
        let engine = self.clone();
        let watched = known.clone();
        let (settled_tx, settled) = mpsc::channel::<()>(1);
        tokio::spawn(async move {
            let exit = match from_std(events) {
                Ok(s) => exit_of(s).await,
                Err(_) => None,
            };
            let code = exit.map_or(137, |e| e.code);
            {
                let mut state = watched.state();
                state.running = false;
                state.code = Some(code);
                state.terminal = None;
            }
            watched.container.write().execs.remove(&id);
            let more = [("execID", id.clone()), ("exitCode", code.to_string())];
            engine.container_event(&watched.container, "exec_die", &more);
            // Who waits for the end of the output may ask for the code at once.
            drop(settled_tx);
            engine.expire(&id, KEEP);
        });
        tokio::spawn(pump.run(settled));
        if detach {
            return Ok(None);
        }
        Ok(Some(AttachSession { tty, ..session }))
    }

    fn spawn_exec(&self, id: &str, known: &Known, detach: bool) -> Result<Exec> {
        let narrow = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let own = known.request.console_size.map(|(rows, cols)| (narrow(cols), narrow(rows)));
        let size = known.state().size.map(|(rows, cols)| (cols, rows)).or(own);
        let stdin = known.request.attach_stdin && !detach;
        self.exec_in(&known.container, id, &known.request, size, stdin)
    }

    /// Starts another process in a running container; `size` is that of its terminal, columns first.
    ///
    /// # Errors
    /// When the container does not run, or the process cannot be started; in Docker's words.
    pub(crate) fn exec_in(
        &self,
        c: &Container,
        id: &str,
        wanted: &CreateExec,
        size: Option<(u16, u16)>,
        stdin: bool,
    ) -> Result<Exec> {
        let (record, task) = {
            let data = c.read();
            (data.record.clone(), data.task.clone())
        };
        let task = task.ok_or_else(|| Error::conflict(format!("container {} is not running", c.id)))?;
        let user = container_user(c, &wanted.user)?;
        // A privileged exec has more capabilities; the container's filter and profile hold for it, too.
        // Of what has ended meanwhile an exec is told nothing.
        let linked = self.linked(&record).unwrap_or_default();
        let linked_env = linked.iter().flat_map(Linked::environment).collect();
        let facts = Facts { linked_env, ..self.machine_facts(&record, user)? };
        let process = spec::exec_process(&record, &facts, wanted)?;
        let request =
            ExecRequest { process, terminal: wanted.tty, console_size: size, stdin, exec_id: id.to_owned() };
        task.exec(request).map_err(|e| {
            let prefix = "OCI runtime exec failed: exec failed: unable to start container process";
            let kind = e.kind();
            match &e {
                longshore_runtime::Error::Launch(l) => Error::new(kind, format!("{prefix}: {l}")),
                longshore_runtime::Error::Program { .. } => {
                    Error::new(kind, format!("OCI runtime exec failed: {e}"))
                }
                _ => e.into(),
            }
        })
    }

    /// Sets the size of its terminal; before its start it is remembered.
    ///
    /// # Errors
    /// When it has no terminal or has ended.
    pub async fn resize_exec(&self, id: &str, rows: u16, cols: u16) -> Result<()> {
        let known = self.inner.execs.find(id)?;
        let terminal = {
            let mut state = known.state();
            if !state.started {
                state.size = Some((rows, cols));
                return Ok(());
            }
            state.terminal.clone()
        };
        let Some(terminal) = terminal else {
            // Without a terminal there is nothing to set; clients ask all the same.
            return match known.state().running {
                true => Ok(()),
                false => Err(Error::not_found(format!("exec {id} is not running"))),
            };
        };
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&*terminal, size).map_err(|e| Error::io("resize terminal", e))
    }

    /// One exec as it is now.
    ///
    /// # Errors
    /// When there is none.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecView> {
        let known = self.inner.execs.find(id)?;
        let state = known.state();
        Ok(ExecView {
            id: id.to_owned(),
            container_id: known.container.id.clone(),
            request: known.request.clone(),
            running: state.running,
            exit_code: state.code,
            pid: state.pid,
            can_remove: false,
        })
    }
}

/// Who an exec runs as: a user of the container's own files, the container's own user when `asked` is empty.
fn container_user(c: &Container, asked: &str) -> Result<longshore_runtime::user::User> {
    let (record, task) = {
        let data = c.read();
        (data.record.clone(), data.task.clone())
    };
    let task = task.ok_or_else(|| Error::conflict(format!("container {} is not running", c.id)))?;
    // The container's own root as its processes see it, also where volumes cover it.
    let root = Root::open(&PathBuf::from(format!("/proc/{}/root", task.pid())))?;
    let asked = if asked.is_empty() { &record.config.run.user } else { asked };
    let more = record.host.group_add.clone().unwrap_or_default();
    longshore_runtime::user::resolve(&root, asked, &more).map_err(spec::user_error)
}

/// What an exec that could not be started counts as: 127 for what is not there, 126 for what cannot be run.
fn start_failed(e: &Error) -> i32 {
    if e.kind() != Kind::Invalid {
        return 126;
    }
    let text = e.to_string();
    if text.contains("not found") || text.contains("no such file") { 127 } else { 126 }
}

fn check_running(status: &Status, name: &str, id: &str) -> Result<()> {
    match status {
        Status::Running => Ok(()),
        Status::Paused => {
            Err(Error::conflict(format!("Container {name} is paused, unpause the container before exec")))
        }
        Status::Restarting => {
            Err(Error::conflict(format!("Container {id} is restarting, wait until the container is running")))
        }
        _ => Err(Error::conflict(format!("container {id} is not running"))),
    }
}

/// Moves an exec's bytes; output that nobody wants is read and dropped, so that it never blocks.
struct Pump {
    outputs: Vec<(AsyncFd<Arc<OwnedFd>>, OutputStream, bool)>,
    input: Option<(AsyncFd<Arc<OwnedFd>>, mpsc::Receiver<Bytes>)>,
    tty: bool,
    tx: mpsc::Sender<Result<OutputChunk>>,
}

impl Pump {
    async fn run(self, mut settled: mpsc::Receiver<()>) {
        let Self { outputs, input, tty, tx } = self;
        let writer = input.map(|(fd, rx)| tokio::spawn(write_input(fd, rx, tty)));
        let readers: Vec<_> = outputs
            .into_iter()
            .map(|(fd, stream, wanted)| tokio::spawn(read_output(fd, stream, wanted.then(|| tx.clone()))))
            .collect();
        for reader in readers {
            let _ = reader.await;
        }
        // The stream ends when the exit code is known: a client asks for it right after.
        let _ = settled.recv().await;
        if let Some(w) = writer {
            w.abort();
        }
        drop(tx);
    }
}

pub(crate) fn async_fd(fd: Arc<OwnedFd>) -> Result<AsyncFd<Arc<OwnedFd>>> {
    let failed = |e: std::io::Error| Error::io("use a stream of an exec", e);
    rustix::io::ioctl_fionbio(&*fd, true).map_err(|e| failed(e.into()))?;
    #[expect(deprecated, reason = "the descriptor is owned and stays open as long as it is registered")]
    AsyncFd::new(fd).map_err(failed)
}

fn terminal_session(master: &Arc<OwnedFd>, stdin: bool) -> Result<(AttachSession, Pump)> {
    let (tx, rx) = mpsc::channel(QUEUE);
    let (in_tx, in_rx) = mpsc::channel(QUEUE);
    // A descriptor of its own for each direction: each registers with the poller.
    let twin = || master.try_clone().map(Arc::new).map_err(|e| Error::io("duplicate descriptor", e));
    let input = if stdin { Some((async_fd(twin()?)?, in_rx)) } else { None };
    let outputs = vec![(async_fd(twin()?)?, OutputStream::Stdout, true)];
    let session = AttachSession { tty: true, output: receiver(rx), input: stdin.then_some(in_tx) };
    Ok((session, Pump { outputs, input, tty: true, tx }))
}

fn pipe_session(
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    want_out: bool,
    want_err: bool,
) -> Result<(AttachSession, Pump)> {
    let (tx, rx) = mpsc::channel(QUEUE);
    let (in_tx, in_rx) = mpsc::channel(QUEUE);
    let input = match stdin {
        Some(fd) => Some((async_fd(Arc::new(fd))?, in_rx)),
        None => None,
    };
    let outputs = vec![
        (async_fd(Arc::new(stdout))?, OutputStream::Stdout, want_out),
        (async_fd(Arc::new(stderr))?, OutputStream::Stderr, want_err),
    ];
    let in_tx = input.is_some().then_some(in_tx);
    Ok((
        AttachSession { tty: false, output: receiver(rx), input: in_tx },
        Pump { outputs, input, tty: false, tx },
    ))
}

async fn read_output(
    fd: AsyncFd<Arc<OwnedFd>>,
    stream: OutputStream,
    tx: Option<mpsc::Sender<Result<OutputChunk>>>,
) {
    let mut block = vec![0u8; CHUNK];
    loop {
        let Ok(mut ready) = fd.readable().await else { return };
        let read = ready.try_io(|fd| Ok(rustix::io::read(&**fd.get_ref(), &mut block)?));
        match read {
            // A terminal whose last process has gone answers EIO.
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(n)) => {
                let chunk = OutputChunk { stream, data: Bytes::copy_from_slice(&block[..n]) };
                if let Some(tx) = &tx {
                    // A client that has gone: the process goes on, its output is dropped.
                    let _ = tx.send(Ok(chunk)).await;
                }
            }
            Err(_would_block) => {}
        }
    }
}

async fn write_input(fd: AsyncFd<Arc<OwnedFd>>, mut rx: mpsc::Receiver<Bytes>, tty: bool) {
    while let Some(bytes) = rx.recv().await {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Ok(mut ready) = fd.writable().await else { return };
            match ready.try_io(|fd| Ok(rustix::io::write(&**fd.get_ref(), rest)?)) {
                Ok(Ok(n)) => rest = &rest[n..],
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }
    if tty {
        // The end of input is a key on a terminal.
        let _ = rustix::io::write(&**fd.get_ref(), &[4]);
    }
}
