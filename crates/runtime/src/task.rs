//! The seam to containers as processes, and the handle on a running one.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_monitor::proto::{Exit, Frame, Request};
use longshore_oci::IdMap;
use longshore_sys::{Context, pidfd};

use crate::cgroup::{Cgroup, Stats, Version};
use crate::client::Client;
use crate::embedded::{filter, plan};
use crate::error::{Error, Result};
use crate::external::{self, Program};
use crate::processes;
use crate::spec::{LinuxResources, Process, Spec};

/// Makes processes of specifications.
pub trait Runtime: Send + Sync {
    /// The name by which it is chosen.
    fn name(&self) -> &str;

    /// Sets up a container, up to the moment before its command runs.
    ///
    /// # Errors
    /// When the specification or the system does not allow it; nothing is left then.
    fn create(&self, request: CreateRequest) -> Result<Task>;

    /// Finds a container again after a restart of the daemon.
    ///
    /// # Errors
    /// When what is there cannot be read or cleaned up.
    fn recover(&self, id: &str) -> Result<Recovered>;

    /// Ends and removes everything of a container but its exit file. Nothing there is fine.
    ///
    /// # Errors
    /// When something resists (a process that cannot be killed).
    fn delete(&self, id: &str) -> Result<()>;
}

/// What a container needs beside its specification.
#[derive(Debug)]
pub struct CreateRequest {
    /// Identity; letters, digits, `_`, `.` and `-`.
    pub id: String,
    /// What it is to be.
    pub spec: Spec,
    /// Give it a terminal.
    pub terminal: bool,
    /// Columns and rows of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// Keep standard input open for clients.
    pub open_stdin: bool,
    /// Close standard input when the first client has ended it.
    pub stdin_once: bool,
    /// Where output is logged.
    pub log: Option<LogFile>,
    /// Network namespace to join.
    pub netns: Option<OwnedFd>,
    /// Where the monitor writes down how it ended; removed by `create`.
    pub exit_file: PathBuf,
    /// Id map of its user namespace.
    pub userns: Option<IdMap>,
    /// Run our own small init as process 1.
    pub init: bool,
}

/// A json-file log.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// The file; rotated ones get `.1`, `.2`, ...
    pub path: PathBuf,
    /// Size in bytes at which it is rotated; 0: never.
    pub max_size: u64,
    /// How many files are kept; 0 and 1: only this one.
    pub max_files: u32,
}

/// What a container turned out to be after a restart.
#[derive(Debug)]
pub enum Recovered {
    /// It runs on.
    Running(Task),
    /// It ended meanwhile.
    Exited(ExitStatus),
    /// It is gone, and nobody knows how; what was left of it has been removed.
    Gone,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code; 128 and the signal if one ended it.
    pub code: i32,
    /// The signal.
    pub signal: Option<i32>,
    /// Whether memory ran out in it.
    pub oom: bool,
    /// Nanoseconds since 1970.
    pub finished_ns: i64,
}

impl From<Exit> for ExitStatus {
    fn from(e: Exit) -> Self {
        let signal = (e.signal != 0).then_some(e.signal);
        Self { code: e.code, signal, oom: e.oom, finished_ns: e.finished_ns }
    }
}

impl ExitStatus {
    /// Reads an exit file; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(longshore_sys::Error::new(format!("read {}", path.display()), e).into()),
        };
        let corrupt = || Error::State { id: path.display().to_string(), what: "malformed exit file".into() };
        Self::parse(&text).map(Some).ok_or_else(corrupt)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace();
        let mut next = || fields.next()?.parse::<i64>().ok();
        let exit = Exit {
            code: i32::try_from(next()?).ok()?,
            signal: i32::try_from(next()?).ok()?,
            oom: next()? != 0,
            finished_ns: next()?,
        };
        Some(exit.into())
    }

    fn frame(self) -> Exit {
        Exit {
            code: self.code,
            signal: self.signal.unwrap_or(0),
            oom: self.oom,
            finished_ns: self.finished_ns,
        }
    }
}

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Will send input.
    pub stdin: bool,
    /// Gets standard output.
    pub stdout: bool,
    /// Gets standard error.
    pub stderr: bool,
}

/// Another process for a container.
#[derive(Debug)]
pub struct ExecRequest {
    /// The process, with everything that applies to it.
    pub process: Process,
    /// Give it a terminal of its own.
    pub terminal: bool,
    /// Columns and rows of that.
    pub console_size: Option<(u16, u16)>,
    /// Without a terminal: make a pipe for its input (else it reads nothing).
    pub stdin: bool,
    /// A name for messages.
    pub exec_id: String,
}

/// What a handle needs to know.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) socket: PathBuf,
    pub(crate) exit_file: PathBuf,
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) monitor_pid: u32,
    pub(crate) cgroup: Cgroup,
    /// Whether a filter must have been kept; `None`: not known.
    pub(crate) seccomp: Option<bool>,
    /// What made it, if not our launcher.
    pub(crate) program: Option<Program>,
}

/// A container that has been set up. Cheap to copy; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Task(pub(crate) Arc<Identity>);

impl Task {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Its first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// When that started, in clock ticks since boot: together with the number its identity.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.0.start_time
    }

    /// The monitor's process.
    #[must_use]
    pub fn monitor_pid(&self) -> u32 {
        self.0.monitor_pid
    }

    /// Runs its command.
    ///
    /// # Errors
    /// When it cannot be executed or was started before.
    pub fn start(&self) -> Result<()> {
        let started = self.simple(&Request::Start);
        match &self.0.program {
            Some(program) => started.map_err(|e| program.explain(e, self.dir().ok())),
            None => started,
        }
    }

    /// Sends a signal to its first process, or to all that it has.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: i32, all: bool) -> Result<()> {
        if !all {
            return match &self.0.program {
                Some(program) => self.signal_through(program, signal),
                None => self.simple(&Request::Signal { pid: 0, signal }),
            };
        }
        if signal == libc::SIGKILL {
            return end_all(&self.0.cgroup, self.0.monitor_pid);
        }
        for pid in self.pids()? {
            // Opened first, then found to be (still) one of ours: the number cannot be another's.
            let Ok(fd) = pidfd::open(pid) else { continue };
            if !self.pids()?.contains(&pid) {
                continue;
            }
            match pidfd::send_signal(&fd, signal) {
                Err(e) if e.errno() != Some(libc::ESRCH) => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The runtime that made it knows what stands for its first process.
    fn signal_through(&self, program: &Program, signal: i32) -> Result<()> {
        program.kill(self.id(), signal).map_err(|e| {
            match pidfd::open_same(self.pid(), self.start_time()).and_then(|fd| pidfd::exited(&fd)) {
                Ok(false) => e,
                _ => Error::NotRunning(self.id().to_owned()),
            }
        })
    }

    /// All its processes, as the host numbers them.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn pids(&self) -> Result<Vec<u32>> {
        match self.0.cgroup.is_bare() {
            true => Ok(processes::below(self.0.monitor_pid)),
            false => self.0.cgroup.pids(),
        }
    }

    /// Stops all its processes until [`Task::resume`].
    ///
    /// # Errors
    /// When they do not all stop in time.
    pub fn pause(&self) -> Result<()> {
        self.0.cgroup.freeze()
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn resume(&self) -> Result<()> {
        self.0.cgroup.thaw()
    }

    /// Changes its limits; what is not said stays.
    ///
    /// # Errors
    /// When a limit cannot be set.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        self.0.cgroup.set(resources)
    }

    /// Whether the kernel has killed any of its processes because memory ran out.
    #[must_use]
    pub fn oom_killed(&self) -> bool {
        self.0.cgroup.oom_kill_count().is_ok_and(|n| n > 0)
    }

    /// What it uses.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        self.0.cgroup.stats()
    }

    /// Its control group.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.0.cgroup
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    /// When it has none or does not run.
    pub fn resize(&self, cols: u16, rows: u16) -> Result<()> {
        self.simple(&Request::Resize { cols, rows })
    }

    /// Streams of frames: `Output`, and `Exit` as the last. `Stdin` and `StdinEof` may be sent.
    ///
    /// # Errors
    /// When it does not run.
    pub fn attach(&self, request: AttachRequest) -> Result<UnixStream> {
        let AttachRequest { stdin, stdout, stderr } = request;
        let mut client = self.connect()?;
        client.ask(&Request::Attach { stdin, stdout, stderr }, &[])?;
        self.expect_ok(&mut client)?;
        Ok(client.into_stream())
    }

    /// A stream with one `Exit` frame, when it has ended (at once if it has already).
    ///
    /// # Errors
    /// When neither the monitor nor its last word is there.
    pub fn wait(&self) -> Result<UnixStream> {
        let asked = self.connect().and_then(|mut client| {
            client.ask(&Request::Wait, &[])?;
            Ok(client.into_stream())
        });
        match asked {
            Ok(stream) => Ok(stream),
            Err(error) => match ExitStatus::read(&self.0.exit_file)? {
                Some(status) => self.already(status),
                None => Err(error),
            },
        }
    }

    fn already(&self, status: ExitStatus) -> Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair().context(|| "make sockets")?;
        let mut bytes = Vec::new();
        Frame::Exit(status.frame()).encode(&mut bytes);
        longshore_sys::fdpass::send(&theirs, &bytes, &[])?;
        Ok(ours)
    }

    /// Runs another process in it.
    ///
    /// # Errors
    /// When the container does not run or the process cannot be started.
    pub fn exec(&self, request: ExecRequest) -> Result<Exec> {
        if let Some(program) = &self.0.program {
            return self.exec_through(program, request);
        }
        let size = request.terminal.then(|| request.console_size.unwrap_or((0, 0)));
        let mut process = plan::process(&request.process, size)?;
        // First of all: what follows would only say what of an ended container is missing.
        let mut client = self.connect()?;
        process.seccomp = filter::kept(self.dir()?, self.0.seccomp)?;
        let mut bytes = Vec::new();
        process.encode(&mut bytes);
        let mut pipes = None;
        let mut theirs: Vec<OwnedFd> = Vec::new();
        if !request.terminal {
            let (ours, ends) = make_pipes(request.stdin)?;
            pipes = Some(ours);
            theirs.extend(ends);
        }
        if self.0.cgroup.version() == Version::V2 {
            // It may have to enter further below than the container's first process did.
            theirs.extend(self.0.cgroup.exec_handles(self.pid())?.v2);
        }
        let fds: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        client.ask(&Request::Exec(&bytes), &fds)?;
        drop(theirs);
        self.exec_started(client, pipes)
    }

    /// The same by the runtime that made the container.
    fn exec_through(&self, program: &Program, request: ExecRequest) -> Result<Exec> {
        let errand = external::Errand::new(program, self.dir()?, self.id(), &request)?;
        let (pipes, theirs): (_, Vec<OwnedFd>) = match errand.console()? {
            Some(console) => (None, vec![console]),
            None => {
                let (ours, ends) = make_pipes(request.stdin)?;
                (Some(ours), ends.into())
            }
        };
        let mut client = self.connect()?;
        let fds: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        client.ask(&errand.request(), &fds)?;
        drop(theirs);
        let exec = self.exec_started(client, pipes).map_err(|e| errand.explain(e))?;
        if let (ExecStdio::Tty(_), Some((cols, rows))) = (&exec.stdio, request.console_size) {
            exec.stdio.resize(cols, rows)?;
        }
        Ok(exec)
    }

    fn exec_started(&self, mut client: Client<'_>, pipes: Option<ExecStdio>) -> Result<Exec> {
        let pid = match client.answer()? {
            Frame::Started { pid } => pid,
            other => return Err(self.unexpected(&other)),
        };
        let stdio = match pipes {
            Some(pipes) => pipes,
            None => match client.take_fds().pop() {
                Some(master) => ExecStdio::Tty(master),
                None => {
                    return Err(Error::Monitor { id: self.id().to_owned(), what: "sent no terminal".into() });
                }
            },
        };
        let events = client.into_stream();
        Ok(Exec { pid, stdio, events, task: self.clone() })
    }

    /// Its exec directory.
    fn dir(&self) -> Result<&Path> {
        self.0.socket.parent().ok_or_else(|| Error::NotRunning(self.id().to_owned()))
    }

    fn connect(&self) -> Result<Client<'_>> {
        Client::connect(&self.0.id, &self.0.socket).map_err(|e| match e {
            Error::Sys(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ECONNREFUSED)) => {
                Error::NotRunning(self.0.id.clone())
            }
            e => e,
        })
    }

    pub(crate) fn simple(&self, request: &Request<'_>) -> Result<()> {
        let mut client = self.connect()?;
        client.ask(request, &[])?;
        self.expect_ok(&mut client)
    }

    fn expect_ok(&self, client: &mut Client<'_>) -> Result<()> {
        match client.answer()? {
            Frame::Ok => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    fn unexpected(&self, frame: &Frame<'_>) -> Error {
        Error::Monitor { id: self.0.id.clone(), what: format!("unexpected answer {frame:?}") }
    }
}

/// Kills all that a container has.
///
/// # Errors
/// When its processes cannot be found.
pub(crate) fn end_all(cgroup: &Cgroup, monitor: u32) -> Result<()> {
    if cgroup.is_bare() {
        processes::kill_below(monitor);
        return Ok(());
    }
    cgroup.kill_all()
}

/// A process that was added to a container.
#[derive(Debug)]
pub struct Exec {
    /// Its number, as the daemon sees it.
    pub pid: u32,
    /// Its standard streams.
    pub stdio: ExecStdio,
    /// One `Exit` frame comes here when it has ended.
    pub events: UnixStream,
    task: Task,
}

impl Exec {
    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.task.simple(&Request::Signal { pid: self.pid, signal })
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    /// When it has none.
    pub fn resize(&self, cols: u16, rows: u16) -> Result<()> {
        self.stdio.resize(cols, rows)
    }
}

/// The standard streams of an exec.
#[derive(Debug)]
pub enum ExecStdio {
    /// Our end of its terminal.
    Tty(OwnedFd),
    /// Our ends of its pipes.
    Pipes {
        /// Its input, if it was asked for.
        stdin: Option<OwnedFd>,
        /// Its output.
        stdout: OwnedFd,
        /// Its error output.
        stderr: OwnedFd,
    },
}

impl ExecStdio {
    /// Changes the size of the terminal.
    ///
    /// # Errors
    /// When it is none.
    pub fn resize(&self, cols: u16, rows: u16) -> Result<()> {
        let Self::Tty(master) = self else {
            return Err(Error::Invalid("the process has no terminal".to_owned()));
        };
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master, size).context(|| "resize terminal")?;
        Ok(())
    }
}

/// Our ends and the process's three.
fn make_pipes(stdin: bool) -> Result<(ExecStdio, [OwnedFd; 3])> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(|| "make pipe");
    let (input, our_input) = if stdin {
        let (r, w) = pipe()?;
        (r, Some(w))
    } else {
        (File::open("/dev/null").context(|| "open /dev/null")?.into(), None)
    };
    let (stdout, out) = pipe()?;
    let (stderr, err) = pipe()?;
    Ok((ExecStdio::Pipes { stdin: our_input, stdout, stderr }, [input, out, err]))
}
