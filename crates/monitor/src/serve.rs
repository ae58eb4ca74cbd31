//! The poll loop: output to log and clients, requests, the end.

use crate::fd::{AsFd, OwnedFd};
use crate::prelude::*;
use alloc::ffi::CString;

use longshore_monitor::plan::Process;
use longshore_monitor::proto::{Exit, Frame, Program, Request, Run, Step, Stream, VERSION};
use longshore_monitor::wire::Reader;

use crate::child::{self, Joining};
use crate::conn::{Conn, Role};
use crate::last_word;
use crate::launch::{Launch, Said};
use crate::log::Log;
use crate::os::{self, Errno};
use crate::program;
use crate::start::{Cgroups, set_oom_score};

/// Connections at once.
const MAX_CONNS: usize = 1024;
/// Piece of output or input that is moved at once.
const CHUNK: usize = 16 * 1024;
/// Pieces that may be left in a pipe when the container has ended: twice the largest usual pipe.
const MAX_REST: usize = 128;
/// How long processes that still hold the container's output may go on writing when its first
/// process has ended; only possible without a pid namespace.
const GRACE_MS: i64 = 100;
/// How long a client may take to read its last frames.
const LINGER_MS: i64 = 10_000;
/// How long until the exit file is tried again, where the disk was full and no client is there.
const RETRY_MS: i64 = 1_000;

/// Our side of the standard streams.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) stdin: Option<OwnedFd>,
    /// The terminal, if there is one.
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// The terminal's other end, kept so that it does not hang up while no process has it open.
    pub(crate) peer: Option<OwnedFd>,
}

impl Outputs {
    pub(crate) fn use_terminal(&mut self, master: OwnedFd) -> Result<(), Errno> {
        os::nonblocking(&master)?;
        self.peer = Some(os::open_peer(&master)?);
        self.stdin = Some(os::duplicate(&master)?);
        self.stdout = Some(master);
        Ok(())
    }

    fn get(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn done(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }
}

/// What stands between the container's first process and its program.
pub(crate) enum Door {
    /// It waits for our word.
    Barrier(Launch),
    /// Another OCI runtime's commands.
    Program(Program),
}

/// A command of another OCI runtime on its way.
struct Helper {
    pid: i32,
    /// The connection that asked.
    conn: u32,
    what: Errand,
}

enum Errand {
    Start,
    Exec { pid_file: CString, console: Option<OwnedFd> },
}

/// What a monitor is made of.
pub(crate) struct Parts {
    pub(crate) listener: OwnedFd,
    pub(crate) exec_dir: OwnedFd,
    pub(crate) exit_dir: OwnedFd,
    pub(crate) exit_name: CString,
    pub(crate) signals: OwnedFd,
    pub(crate) log: Option<Log>,
    pub(crate) cgroups: Cgroups,
    pub(crate) oom: Option<OwnedFd>,
    /// The container's first process.
    pub(crate) pid: i32,
    pub(crate) door: Door,
    pub(crate) pidfd: OwnedFd,
    /// What an exec joins, beside the pid namespace in which it is born.
    pub(crate) namespaces: u64,
    pub(crate) outputs: Outputs,
    pub(crate) stdin_once: bool,
}

/// How far the container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Waits before exec.
    Created,
    /// Was given leave to run.
    Starting,
    Running,
    /// Its first process has ended; what it wrote is being read.
    Draining(Exit, i64),
    /// Written down and announced.
    Over(Exit),
}

pub(crate) struct Monitor {
    p: Parts,
    life: Life,
    conns: Vec<Conn>,
    next_id: u32,
    /// Execs on their way, with the connections that asked.
    launches: Vec<(Launch, u32)>,
    helpers: Vec<Helper>,
    /// Processes that ended while it was not known yet what a command has started.
    strays: Vec<(i32, Exit)>,
    /// Input that the container has not taken yet.
    input: Vec<u8>,
    close_input: bool,
    /// When the monitor must be gone, once the container is.
    deadline: Option<i64>,
    unlinked: bool,
    /// Whether how it ended is on disk or told, so that the monitor may leave.
    passed_on: bool,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Start,
    Exec(u32),
    Input,
    Output(Stream),
    Conn(u32),
}

impl Monitor {
    pub(crate) fn new(p: Parts) -> Self {
        Self {
            p,
            life: Life::Created,
            conns: Vec::new(),
            next_id: 1,
            launches: Vec::new(),
            helpers: Vec::new(),
            strays: Vec::new(),
            input: Vec::new(),
            close_input: false,
            deadline: None,
            unlinked: false,
            passed_on: false,
        }
    }

    pub(crate) fn init_pid(&self) -> i32 {
        self.p.pid
    }

    /// Serves until the container has ended and everybody knows.
    pub(crate) fn run(&mut self) {
        let mut fds = Vec::new();
        let mut sources = Vec::new();
        while !self.is_finished() {
            self.poll_set(&mut fds, &mut sources);
            if os::poll(&mut fds, self.timeout()).is_err() {
                // Out of memory in the kernel; nothing was lost.
                continue;
            }
            for (fd, source) in fds.iter().zip(&sources) {
                if fd.revents != 0 {
                    self.handle(*source, fd.revents);
                }
            }
            self.drain_deadline();
            if self.conns.iter().any(|c| c.dead && c.gives_input()) {
                self.input_ended();
            }
            self.conns.retain(|c| !c.dead && (!c.closing || c.has_output()));
        }
    }

    fn poll_set(&self, fds: &mut Vec<libc::pollfd>, sources: &mut Vec<Source>) {
        fds.clear();
        sources.clear();
        let mut add = |fd: &OwnedFd, events: i16, source: Source| {
            fds.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
            sources.push(source);
        };
        // Launches before signals: a child's last word is heard before its end.
        if self.life == Life::Starting
            && let Door::Barrier(launch) = &self.p.door
        {
            add(&launch.sync, libc::POLLIN, Source::Start);
        }
        for (launch, conn) in &self.launches {
            add(&launch.sync, libc::POLLIN, Source::Exec(*conn));
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let fd = match stream {
                Stream::Stdout => &self.p.outputs.stdout,
                Stream::Stderr => &self.p.outputs.stderr,
            };
            if let Some(fd) = fd
                && !self.conns.iter().any(|c| c.wants(stream) && c.is_full())
            {
                add(fd, libc::POLLIN, Source::Output(stream));
            }
        }
        add(&self.p.signals, libc::POLLIN, Source::Signals);
        if self.conns.len() < MAX_CONNS {
            add(&self.p.listener, libc::POLLIN, Source::Listener);
        }
        if let Some(fd) = &self.p.outputs.stdin
            && !self.input.is_empty()
        {
            add(fd, libc::POLLOUT, Source::Input);
        }
        for conn in &self.conns {
            let mut events = 0;
            let blocked = !self.input.is_empty() && conn.gives_input();
            if !conn.ended && !conn.closing && !blocked {
                events |= libc::POLLIN;
            }
            if conn.has_output() {
                events |= libc::POLLOUT;
            }
            // One that waits for the container to take input is left alone: a hang-up would be
            // reported over and over.
            if events != 0 || !blocked {
                add(&conn.fd, events, Source::Conn(conn.id));
            }
        }
    }

    fn timeout(&self) -> i32 {
        let until = match self.life {
            Life::Draining(_, until) => Some(until),
            Life::Over(_) if !self.passed_on => Some(os::monotonic_ms() + RETRY_MS),
            _ => self.deadline,
        };
        until.map_or(-1, |t| i32::try_from((t - os::monotonic_ms()).max(0)).unwrap_or(i32::MAX))
    }

    fn handle(&mut self, source: Source, revents: i16) {
        match source {
            Source::Signals => self.reap(),
            Source::Listener => self.accept(),
            Source::Start => self.hear_start(),
            Source::Exec(conn) => self.hear_exec(conn),
            Source::Input => self.push_input(),
            Source::Output(stream) => drop(self.pump(stream)),
            Source::Conn(id) => self.serve(id, revents),
        }
    }

    // ---- output ----

    /// Moves one piece of output; whether there may be more at once.
    fn pump(&mut self, stream: Stream) -> bool {
        let mut buf = [0; CHUNK];
        let slot = self.p.outputs.get(stream);
        let Some(fd) = slot else { return false };
        match os::read(&*fd, &mut buf) {
            Ok(n @ 1..) => {
                let bytes = &buf[..n];
                if let Some(log) = &mut self.p.log {
                    log.write(stream, bytes);
                }
                for conn in self.conns.iter_mut().filter(|c| c.wants(stream)) {
                    conn.send(&Frame::Output { stream, bytes });
                }
                true
            }
            Err(libc::EAGAIN) => false,
            // The end; EIO for a terminal.
            Ok(_) | Err(_) => {
                *slot = None;
                false
            }
        }
    }

    // ---- input ----

    fn push_input(&mut self) {
        while !self.input.is_empty() {
            let Some(fd) = &self.p.outputs.stdin else {
                self.input = Vec::new();
                return;
            };
            match os::write(fd, &self.input) {
                Ok(n) if n == self.input.len() => self.input = Vec::new(),
                Ok(n) => drop(self.input.drain(..n)),
                Err(libc::EAGAIN) => return,
                Err(_) => self.p.outputs.stdin = None,
            }
        }
        if self.close_input {
            self.p.outputs.stdin = None;
        }
    }

    /// The client gives no more input.
    fn input_ended(&mut self) {
        // A terminal has no end of file other than what is typed.
        if self.p.stdin_once && self.p.outputs.peer.is_none() {
            self.close_input = true;
            self.push_input();
        }
    }

    // ---- processes ----

    fn reap(&mut self) {
        let mut buf = [0; 128];
        while os::read(&self.p.signals, &mut buf).is_ok() {}
        while let Some((pid, status)) = os::reap() {
            let (code, signal) = os::exit_code(status);
            let (secs, nanos) = os::now();
            let finished_ns = secs.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos));
            let exit = Exit { code, signal, oom: false, finished_ns };
            if let Some(at) = self.helpers.iter().position(|h| h.pid == pid) {
                let helper = self.helpers.swap_remove(at);
                self.helper_ended(helper, code);
            } else if self.helpers.is_empty() {
                self.ended(pid, exit);
            } else {
                self.strays.push((pid, exit));
            }
        }
        if self.helpers.is_empty() {
            for (pid, exit) in core::mem::take(&mut self.strays) {
                self.ended(pid, exit);
            }
        }
    }

    fn ended(&mut self, pid: i32, exit: Exit) {
        if pid == self.p.pid {
            self.init_ended(exit);
        } else {
            self.exec_ended(pid, exit);
        }
    }

    /// A command of another OCI runtime has done what it was to do, or not.
    fn helper_ended(&mut self, helper: Helper, code: i32) {
        let conn = self.conns.iter_mut().find(|c| c.id == helper.conn);
        let outcome = match helper.what {
            Errand::Start if code == 0 => {
                self.life = Life::Running;
                if let Some(conn) = conn {
                    conn.send(&Frame::Ok);
                    conn.closing = true;
                }
                return;
            }
            Errand::Start => {
                self.life = Life::Created;
                Err((Step::Program, code, "start"))
            }
            Errand::Exec { .. } if code != 0 => Err((Step::Program, code, "exec")),
            Errand::Exec { pid_file, console } => program::read_pid(&self.p.exec_dir, &pid_file)
                .map_err(|errno| (Step::Files, errno, "process id of an exec"))
                .and_then(|pid| match console {
                    None => Ok((pid, None)),
                    Some(socket) => program::terminal(Some(&socket))
                        .map(|master| (pid, Some(master)))
                        .map_err(|errno| (Step::Terminal, errno, "sent by the OCI runtime")),
                }),
        };
        let Some(conn) = conn else { return };
        match outcome {
            Ok((pid, master)) => {
                conn.role = Role::Exec(pid);
                let frame = Frame::Started { pid: pid.unsigned_abs() };
                match &master {
                    Some(master) => conn.send_with(&frame, master),
                    None => conn.send(&frame),
                }
            }
            Err((step, errno, detail)) => {
                conn.send(&Frame::Failed { step: step as u8, errno, detail: detail.as_bytes() });
                conn.closing = true;
            }
        }
    }

    fn init_ended(&mut self, exit: Exit) {
        if self.life == Life::Starting {
            // It may have run and ended already; then its socket says so.
            self.hear_start();
        }
        // Terminal: with our own copy closed, its end shows.
        self.p.outputs.peer = None;
        self.life = match self.life {
            Life::Running => Life::Draining(exit, os::monotonic_ms() + GRACE_MS),
            // It never ran: there is nothing to write down.
            _ => {
                self.deadline = Some(os::monotonic_ms() + LINGER_MS);
                self.passed_on = true;
                self.announce(exit);
                Life::Over(exit)
            }
        };
        self.drain_deadline();
    }

    /// Reads what is left, and ends when nothing more can come or nobody has closed it in time.
    fn drain_deadline(&mut self) {
        let Life::Draining(exit, until) = self.life else { return };
        // What is in the pipes is little: clients get it whether their queues are full or not.
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..MAX_REST {
                if !self.pump(stream) {
                    break;
                }
            }
        }
        if self.p.outputs.done() || os::monotonic_ms() >= until {
            self.finish(exit);
        }
    }

    fn finish(&mut self, mut exit: Exit) {
        self.p.outputs = Outputs::default();
        self.input = Vec::new();
        if let Some(log) = &mut self.p.log {
            log.finish();
        }
        exit.oom = self.p.oom.as_ref().is_some_and(last_word::out_of_memory);
        self.passed_on = last_word::write(&self.p.exit_dir, &self.p.exit_name, &exit).is_ok();
        self.deadline = Some(os::monotonic_ms() + LINGER_MS);
        self.life = Life::Over(exit);
        self.announce(exit);
    }

    fn announce(&mut self, exit: Exit) {
        for conn in &mut self.conns {
            if matches!(conn.role, Role::Attached { .. } | Role::Waiting) {
                self.passed_on |= conn.tell(exit);
            }
        }
    }

    fn exec_ended(&mut self, pid: i32, exit: Exit) {
        if let Some(conn) = self.launches.iter().find(|(l, _)| l.pid == pid).map(|(_, c)| *c) {
            self.hear_exec(conn);
        }
        if let Some(conn) = self.conns.iter_mut().find(|c| c.role == Role::Exec(pid)) {
            conn.send(&Frame::Exit(exit));
            conn.closing = true;
        }
    }

    fn hear_start(&mut self) {
        let Door::Barrier(launch) = &mut self.p.door else { return };
        let reply = match launch.hear() {
            Said::Running => {
                self.life = Life::Running;
                None
            }
            Said::Failed(step, errno, detail) => {
                self.life = Life::Created;
                Some((step, errno, detail))
            }
            Said::Ready | Said::Nothing => return,
        };
        if let Some(conn) = self.conns.iter_mut().find(|c| c.role == Role::Starting) {
            match &reply {
                None => conn.send(&Frame::Ok),
                Some((step, errno, detail)) => {
                    conn.send(&Frame::Failed { step: *step, errno: *errno, detail });
                }
            }
            conn.closing = true;
        }
    }

    fn hear_exec(&mut self, conn_id: u32) {
        loop {
            let Some(at) = self.launches.iter().position(|(_, c)| *c == conn_id) else { return };
            let (launch, _) = &mut self.launches[at];
            let conn = self.conns.iter_mut().find(|c| c.id == conn_id);
            match launch.hear() {
                Said::Nothing => return,
                Said::Ready => {
                    // Nobody there any more: the child ends when the socket closes.
                    if conn.is_none() || launch.go(b'S').is_err() {
                        self.launches.swap_remove(at);
                        return;
                    }
                }
                Said::Running => {
                    let (launch, _) = self.launches.swap_remove(at);
                    if let Some(conn) = conn {
                        conn.role = Role::Exec(launch.pid);
                        let frame = Frame::Started { pid: launch.pid.unsigned_abs() };
                        match &launch.master {
                            Some(master) => conn.send_with(&frame, master),
                            None => conn.send(&frame),
                        }
                    }
                    return;
                }
                Said::Failed(step, errno, detail) => {
                    self.launches.swap_remove(at);
                    if let Some(conn) = conn {
                        conn.send(&Frame::Failed { step, errno, detail: &detail });
                        conn.closing = true;
                    }
                    return;
                }
            }
        }
    }

    // ---- connections ----

    fn accept(&mut self) {
        while self.conns.len() < MAX_CONNS {
            let Ok(fd) = os::accept(&self.p.listener) else { return };
            match os::peer_uid(&fd) {
                Ok(uid) if uid == 0 || uid == os::euid() => {}
                _ => continue,
            }
            let mut conn = Conn::new(fd, self.next_id);
            self.next_id = self.next_id.wrapping_add(1).max(1);
            conn.send(&Frame::Hello(VERSION));
            self.conns.push(conn);
        }
    }

    fn serve(&mut self, id: u32, revents: i16) {
        let Some(at) = self.conns.iter().position(|c| c.id == id) else { return };
        if revents & libc::POLLOUT != 0 {
            self.conns[at].flush();
        }
        if revents & (libc::POLLIN | libc::POLLHUP) != 0 && !self.conns[at].ended {
            let mut buf = [0; CHUNK];
            self.conns[at].fill(&mut buf);
            self.requests(at);
        }
        let conn = &mut self.conns[at];
        if conn.ended {
            if conn.gives_input() {
                if let Role::Attached { stdin, .. } = &mut conn.role {
                    *stdin = false;
                }
                self.input_ended();
            } else if revents & libc::POLLHUP != 0 || conn.role == Role::New {
                conn.dead = true;
            }
        } else if revents & libc::POLLERR != 0 {
            conn.dead = true;
        }
    }

    /// Acts on the complete requests of a connection.
    fn requests(&mut self, at: usize) {
        loop {
            // Taken out meanwhile, so that a request can act on everything else.
            let mut decoder = core::mem::take(&mut self.conns[at].decoder);
            let more = match decoder.next_raw() {
                Ok(Some(raw)) => {
                    match Request::decode(raw) {
                        Ok(request) => self.request(at, &request),
                        Err(_) => self.refuse(at, libc::EPROTO, "unknown or malformed request"),
                    }
                    true
                }
                Ok(None) => false,
                Err(_) => {
                    self.conns[at].dead = true;
                    false
                }
            };
            decoder.shrink();
            self.conns[at].decoder = decoder;
            if !more || self.conns[at].dead || self.conns[at].closing {
                return;
            }
        }
    }

    fn refuse(&mut self, at: usize, errno: Errno, why: &str) {
        let conn = &mut self.conns[at];
        conn.send(&Frame::Failed { step: Step::Request as u8, errno, detail: why.as_bytes() });
        conn.closing = true;
    }

    fn request(&mut self, at: usize, request: &Request<'_>) {
        let conn = &mut self.conns[at];
        match (request, conn.role, conn.greeted) {
            (Request::Hello(_), Role::New, false) => conn.greeted = true,
            (Request::Stdin(bytes), Role::Attached { stdin: true, .. }, _) => {
                if self.p.outputs.stdin.is_some() {
                    self.input.extend_from_slice(bytes);
                    self.push_input();
                }
            }
            (Request::StdinEof, Role::Attached { stdin, stdout, stderr }, _) => {
                conn.role = Role::Attached { stdin: false, stdout, stderr };
                if stdin {
                    self.input_ended();
                }
            }
            // Input that comes after its end, or from one that said it would send none.
            (Request::Stdin(_), Role::Attached { .. }, _) => {}
            (_, Role::New, true) => self.first_request(at, request),
            _ => self.refuse(at, libc::EPROTO, "unexpected request"),
        }
    }

    fn first_request(&mut self, at: usize, request: &Request<'_>) {
        let over = match self.life {
            Life::Over(exit) => Some(exit),
            _ => None,
        };
        match request {
            Request::Start => self.start(at),
            Request::Signal { pid, signal } => self.reply(at, self.signal(*pid, *signal), "signal"),
            Request::Resize { cols, rows } => self.reply(at, self.resize(*cols, *rows), "resize"),
            Request::Wait => {
                let conn = &mut self.conns[at];
                conn.role = Role::Waiting;
                if let Some(exit) = over {
                    self.passed_on |= conn.tell(exit);
                }
            }
            Request::Attach { stdin, stdout, stderr } => {
                let conn = &mut self.conns[at];
                conn.role = Role::Attached { stdin: *stdin, stdout: *stdout, stderr: *stderr };
                conn.send(&Frame::Ok);
                if let Some(exit) = over {
                    self.passed_on |= conn.tell(exit);
                }
            }
            Request::Exec(plan) => {
                if let Err((step, errno, detail)) = self.exec(at, plan) {
                    let conn = &mut self.conns[at];
                    conn.send(&Frame::Failed { step: step as u8, errno, detail: detail.as_bytes() });
                    conn.closing = true;
                }
            }
            Request::Run(run) => {
                if let Err(errno) = self.run_exec(at, run) {
                    self.reply(at, Err(errno), "run OCI runtime");
                }
            }
            Request::Status => {
                let started = !matches!(self.life, Life::Created | Life::Starting);
                let exited = matches!(self.life, Life::Draining(..) | Life::Over(_));
                let frame = Frame::Status { pid: self.p.pid.unsigned_abs(), started, exited };
                self.conns[at].send(&frame);
                self.conns[at].closing = true;
            }
            _ => self.refuse(at, libc::EPROTO, "unexpected request"),
        }
    }

    fn reply(&mut self, at: usize, done: Result<(), Errno>, what: &str) {
        let conn = &mut self.conns[at];
        match done {
            Ok(()) => conn.send(&Frame::Ok),
            Err(errno) => {
                conn.send(&Frame::Failed { step: Step::Control as u8, errno, detail: what.as_bytes() });
            }
        }
        conn.closing = true;
    }

    fn start(&mut self, at: usize) {
        if self.life != Life::Created {
            return self.refuse(at, libc::EALREADY, "container was started already");
        }
        let going = match &self.p.door {
            Door::Barrier(launch) => launch.go(b'S'),
            Door::Program(program) => program::spawn(&program.start, &program.env, &self.p.exec_dir, None)
                .map(|pid| self.helpers.push(Helper { pid, conn: self.conns[at].id, what: Errand::Start })),
        };
        match going {
            Ok(()) => {
                self.life = Life::Starting;
                self.conns[at].role = Role::Starting;
            }
            Err(errno) => self.reply(at, Err(errno), "start"),
        }
    }

    fn signal(&self, pid: u32, signal: i32) -> Result<(), Errno> {
        let pid = i32::try_from(pid).map_err(|_| libc::ESRCH)?;
        if pid == 0 || pid == self.p.pid {
            return os::pidfd_signal(&self.p.pidfd, signal);
        }
        // Only a child that has not been reaped: its number cannot be anybody else's.
        if !self.conns.iter().any(|c| c.role == Role::Exec(pid)) {
            return Err(libc::ESRCH);
        }
        os::kill(pid, signal)
    }

    fn resize(&self, cols: u16, rows: u16) -> Result<(), Errno> {
        match (&self.p.outputs.peer, &self.p.outputs.stdout) {
            (Some(_), Some(master)) => os::set_window(master, cols, rows),
            _ => Err(libc::ENOTTY),
        }
    }

    fn exec(&mut self, at: usize, plan: &[u8]) -> Result<(), (Step, Errno, String)> {
        let fail = |step: Step, what: &'static str| move |errno: Errno| (step, errno, what.to_owned());
        if self.life != Life::Running {
            return Err((Step::Request, libc::ESRCH, "container is not running".to_owned()));
        }
        let process = Process::decode(&mut Reader::new(plan))
            .map_err(|_| (Step::Request, libc::EPROTO, "malformed process".to_owned()))?;
        let mut fds = core::mem::take(&mut self.conns[at].fds);
        let standard = if process.terminal.is_some() { 0 } else { 3 };
        let own_cgroup = if fds.len() > standard { fds.pop() } else { None };
        let stdio = if process.terminal.is_some() {
            None
        } else {
            let three = fds.try_into();
            Some(three.map_err(|_| (Step::Request, libc::EPROTO, "needs three descriptors".to_owned()))?)
        };
        let (ours, theirs) = os::packet_pair().map_err(fail(Step::Clone, "sockets"))?;
        let cgroup = own_cgroup.as_ref().or(self.p.cgroups.v2.as_ref()).map(AsFd::as_fd);
        let pid = match os::clone(0, cgroup).map_err(fail(Step::Clone, "process"))? {
            0 => {
                drop(ours);
                let (init, namespaces) = (self.p.pidfd.as_fd(), self.p.namespaces);
                child::exec(Joining { sync: theirs, stdio, init, namespaces }, plan)
            }
            pid => pid,
        };
        let launch = Launch::new(pid, ours);
        let ready = os::nonblocking(&launch.sync)
            .map_err(fail(Step::Clone, "sockets"))
            .and_then(|()| self.p.cgroups.enter(pid).map_err(fail(Step::Cgroup, "exec")))
            .and_then(|()| match process.oom_score_adj {
                Some(score) => set_oom_score(pid, score).map_err(|f| (f.step, f.errno, f.detail)),
                None => Ok(()),
            })
            .and_then(|()| launch.go(b'G').map_err(fail(Step::Clone, "exec")));
        if let Err(failure) = ready {
            let _ = os::kill(pid, libc::SIGKILL);
            return Err(failure);
        }
        let conn = &mut self.conns[at];
        conn.role = Role::Exec(0);
        self.launches.push((launch, conn.id));
        Ok(())
    }

    /// Lets another OCI runtime start a process.
    fn run_exec(&mut self, at: usize, run: &Run) -> Result<(), Errno> {
        let Door::Program(program) = &self.p.door else { return Err(libc::EPROTO) };
        if self.life != Life::Running {
            return Err(libc::ESRCH);
        }
        let mut fds = core::mem::take(&mut self.conns[at].fds);
        let (stdio, console) = if run.terminal {
            (None, Some(fds.pop().ok_or(libc::EPROTO)?))
        } else {
            (Some(fds.try_into().map_err(|_| libc::EPROTO)?), None)
        };
        let pid = program::spawn(&run.args, &program.env, &self.p.exec_dir, stdio.as_ref())?;
        let what = Errand::Exec { pid_file: run.pid_file.clone(), console };
        let conn = &mut self.conns[at];
        conn.role = Role::Exec(0);
        self.helpers.push(Helper { pid, conn: conn.id, what });
        Ok(())
    }

    // ---- the end ----

    /// Whether nothing is left to do. The socket's name is removed first; whoever got in before is
    /// still answered.
    fn is_finished(&mut self) -> bool {
        let Life::Over(exit) = self.life else { return false };
        if !self.passed_on {
            self.passed_on = last_word::write(&self.p.exit_dir, &self.p.exit_name, &exit).is_ok();
            if !self.passed_on {
                return false;
            }
        }
        let late = self.deadline.is_some_and(|d| os::monotonic_ms() >= d);
        if !self.conns.is_empty() && !late {
            return false;
        }
        if !self.unlinked {
            let _ = os::unlink_at(&self.p.exec_dir, c"monitor.sock");
            self.unlinked = true;
            self.accept();
        }
        self.conns.is_empty() || late
    }
}

impl Conn {
    fn wants(&self, stream: Stream) -> bool {
        match self.role {
            Role::Attached { stdout, stderr, .. } => {
                !self.dead && !self.closing && if stream == Stream::Stdout { stdout } else { stderr }
            }
            _ => false,
        }
    }

    fn gives_input(&self) -> bool {
        matches!(self.role, Role::Attached { stdin: true, .. })
    }

    /// Says how the container ended, as the last thing. Whether the one who waits for it has it.
    fn tell(&mut self, exit: Exit) -> bool {
        self.send(&Frame::Exit(exit));
        self.closing = true;
        self.role == Role::Waiting && !self.dead && !self.has_output()
    }
}
