//! The other side of clone: a copy of the monitor that becomes the container's process.
//!
//! It talks to the monitor over a packet socket: it waits for `G` (it is in its cgroup, ids are
//! mapped), may send `T` with a terminal, sends `R` when everything up to exec is done, waits for `S`
//! and executes; the socket closes by itself then. `E` reports a failure. When the monitor dies, reads
//! end and so does the child.

use crate::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::prelude::*;

use longshore_monitor::plan::{Container, Process};
use longshore_monitor::proto::Step;
use longshore_monitor::wire::Reader;

use crate::os;
use crate::process;
use crate::rootfs::{Failure, Named, Rootfs, Sources, open_terminal};

/// What the first process starts with.
pub(crate) struct Birth {
    pub(crate) sync: OwnedFd,
    /// Its ends of the pipes, unless it has a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    pub(crate) joins: Vec<(u64, OwnedFd)>,
    pub(crate) cgroup_namespace: bool,
    /// Opened beforehand when the process is born in a user namespace.
    pub(crate) sources: Option<Sources>,
    pub(crate) userns: bool,
}

/// Exit code of a child that could not become what it should.
const SETUP_FAILED: i32 = 125;

/// Runs the container's first process.
pub(crate) fn init(birth: Birth, plan: &[u8]) -> ! {
    let sync = match os::duplicate(&birth.sync) {
        Ok(fd) => fd,
        Err(_) => os::exit(SETUP_FAILED),
    };
    let failure = match prepare_init(birth, plan) {
        Ok((container, program, label)) => match ready(&sync, &container.process) {
            Ok(()) if container.init => supervise(&container.process, &program, label),
            Ok(()) => process::run(&program, &container.process),
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    report(&sync, &failure);
    os::exit(SETUP_FAILED)
}

/// The container, its program, and the way to its AppArmor profile if our own init is to take it.
type Prepared = (Container, alloc::ffi::CString, Option<OwnedFd>);

fn prepare_init(birth: Birth, plan: &[u8]) -> Result<Prepared, Failure> {
    let malformed =
        |_| Failure { step: Step::Request, errno: libc::EPROTO, detail: "malformed launch plan".into() };
    let c = Container::decode(&mut Reader::new(plan)).map_err(malformed)?;
    let sync = birth.sync;
    wait_for(&sync, b'G')?;
    if birth.userns {
        os::set_ids(0, 0, &[]).at(Step::User, || "become root of the user namespace".into())?;
    }
    let own_mounts = match birth.sources {
        Some(sources) => sources,
        None => Sources::open(&c, false)?,
    };
    for (kind, ns) in &birth.joins {
        os::setns(ns, *kind).at(Step::Join, || format!("namespace {kind:#x}"))?;
    }
    drop(birth.joins);
    if birth.cgroup_namespace {
        os::unshare(libc::CLONE_NEWCGROUP as u64).at(Step::Join, || "cgroup namespace".into())?;
    }
    os::setsid().at(Step::Clone, || "session".into())?;
    os::umask(0);
    let (rootfs, null) = Rootfs::build(&c, own_mounts)?;
    if let Some(name) = &c.hostname {
        os::sethostname(name).at(Step::Hostname, || "host name".into())?;
    }
    if let Some(name) = &c.domainname {
        os::setdomainname(name).at(Step::Hostname, || "domain name".into())?;
    }
    rootfs.sysctl(&c.sysctl)?;
    let terminal = match c.process.terminal {
        Some(size) => Some(make_terminal(&sync, rootfs.terminal()?, size)?),
        None => None,
    };
    rootfs.protect(&c, null)?;
    let proc = rootfs.enter(&c)?;
    match (terminal, birth.stdio) {
        (Some(slave), _) => process::set_terminal(slave, &c.process)?,
        (None, Some(stdio)) => process::set_stdio(&stdio, &c.process)?,
        (None, None) => {}
    }
    process::privileged(&c.process, proc.as_ref())?;
    let label = if c.init { process::own_label(&c.process, proc.as_ref())? } else { None };
    drop(proc);
    process::confine(&c.process)?;
    let program = process::find(&c.process)?;
    Ok((c, program, label))
}

/// Hands the terminal to the monitor and keeps the other end.
fn make_terminal(
    sync: &OwnedFd,
    (master, slave): (OwnedFd, OwnedFd),
    (cols, rows): (u16, u16),
) -> Result<OwnedFd, Failure> {
    if cols != 0 || rows != 0 {
        os::set_window(&master, cols, rows).at(Step::Terminal, || "window size".into())?;
    }
    os::send(sync, b"T", Some(master.as_fd())).at(Step::Terminal, || "pass terminal".into())?;
    Ok(slave)
}

/// What a joining process starts with.
pub(crate) struct Joining<'a> {
    pub(crate) sync: OwnedFd,
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    /// The container's first process, and which of its namespaces to join.
    pub(crate) init: BorrowedFd<'a>,
    pub(crate) namespaces: u64,
}

/// Runs a process that joins the container.
pub(crate) fn exec(joining: Joining<'_>, plan: &[u8]) -> ! {
    let sync = match os::duplicate(&joining.sync) {
        Ok(fd) => fd,
        Err(_) => os::exit(SETUP_FAILED),
    };
    let failure = match prepare_exec(joining, plan) {
        Ok((process, program)) => match ready(&sync, &process) {
            Ok(()) => process::run(&program, &process),
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    report(&sync, &failure);
    os::exit(SETUP_FAILED)
}

fn prepare_exec(joining: Joining<'_>, plan: &[u8]) -> Result<(Process, alloc::ffi::CString), Failure> {
    let malformed =
        |_| Failure { step: Step::Request, errno: libc::EPROTO, detail: "malformed launch plan".into() };
    let p = Process::decode(&mut Reader::new(plan)).map_err(malformed)?;
    let sync = joining.sync;
    wait_for(&sync, b'G')?;
    os::setsid().at(Step::Clone, || "session".into())?;
    os::setns(joining.init, joining.namespaces).at(Step::Join, || "namespaces of the container".into())?;
    if joining.namespaces & libc::CLONE_NEWUSER as u64 != 0 {
        os::set_ids(0, 0, &[]).at(Step::User, || "become root of the user namespace".into())?;
    }
    os::umask(0);
    match (p.terminal, joining.stdio) {
        (Some(size), _) => {
            let devpts =
                os::open_at(None, c"/dev/pts", libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
                    .at(Step::Terminal, || "/dev/pts".into())?;
            let slave = make_terminal(&sync, open_terminal(devpts)?, size)?;
            process::set_terminal(slave, &p)?;
        }
        (None, Some(stdio)) => process::set_stdio(&stdio, &p)?,
        (None, None) => {}
    }
    process::privileged(&p, None)?;
    process::confine(&p)?;
    let program = process::find(&p)?;
    Ok((p, program))
}

/// Tells that all is done, waits for leave to run, and installs what comes last.
fn ready(sync: &OwnedFd, p: &Process) -> Result<(), Failure> {
    os::write_all(sync, b"R").at(Step::Request, || "monitor".into())?;
    wait_for(sync, b'S')?;
    process::late_filter(p)
}

fn wait_for(sync: &OwnedFd, what: u8) -> Result<(), Failure> {
    let mut byte = [0];
    match os::read(sync, &mut byte) {
        Ok(1) if byte[0] == what => Ok(()),
        // The monitor is gone or has given up: nobody is there to hear why.
        _ => os::exit(SETUP_FAILED),
    }
}

fn report(sync: &OwnedFd, failure: &Failure) {
    let mut message = vec![b'E', failure.step as u8];
    message.extend_from_slice(&failure.errno.to_le_bytes());
    // Packets have a limit; so do people.
    message.extend(failure.detail.bytes().take(4096));
    let _ = os::write(sync, &message);
}

/// Our own init: starts the program as a child, passes on signals, and reaps what is orphaned.
/// Its binary is the monitor's sealed memory file.
fn supervise(p: &Process, program: &core::ffi::CStr, label: Option<OwnedFd>) -> Failure {
    if let Some(label) = label
        && let Err(failure) = process::take_label(&label, p)
    {
        return failure;
    }
    let child = match os::fork() {
        Ok(0) => {
            os::own_group(p.terminal.is_some());
            return process::run(program, p);
        }
        Ok(pid) => pid,
        Err(errno) => {
            return Failure { step: Step::Clone, errno, detail: "start command below init".into() };
        }
    };
    os::set_name(c"longshore-init");
    // Also the socket, which tells the monitor that the program runs once the child's copy is closed
    // by exec.
    os::close_from(3);
    loop {
        let signal = match os::next_signal() {
            Ok(signal) => signal,
            Err(libc::EINTR | libc::EAGAIN) => continue,
            Err(_) => os::exit(SETUP_FAILED),
        };
        if signal != libc::SIGCHLD {
            // Job control of the terminal reaches the group of the program directly.
            if !matches!(signal, libc::SIGTTIN | libc::SIGTTOU | libc::SIGTSTP) {
                let _ = os::kill(child, signal);
            }
            continue;
        }
        while let Some((pid, status)) = os::reap() {
            if pid == child {
                os::exit(os::exit_code(status).0);
            }
        }
    }
}
