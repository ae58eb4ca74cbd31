//! Another OCI runtime: its commands are run here, so that what they leave behind becomes our child.

use alloc::ffi::CString;
use core::ffi::CStr;

use longshore_monitor::proto::{Create, PID_FILE, Program, Step};

use crate::fd::{AsFd, OwnedFd};
use crate::os::{self, Errno, Sys};
use crate::prelude::*;
use crate::rootfs::{Failure, Named};
use crate::serve::Outputs;
use crate::start::Streams;

/// Exit code of a child that could not become the command.
const NOT_RUN: i32 = 125;

/// Starts a command in `dir`, with these standard descriptors (else /dev/null).
pub(crate) fn spawn(
    args: &[CString],
    env: &[CString],
    dir: impl AsFd,
    stdio: Option<&[OwnedFd; 3]>,
) -> Sys<i32> {
    let Some(path) = args.first() else { return Err(libc::EINVAL) };
    match os::fork()? {
        0 => {
            let errno = become_command(path, args, env, dir, stdio);
            os::exit(if errno == 0 { 0 } else { NOT_RUN })
        }
        pid => Ok(pid),
    }
}

fn become_command(
    path: &CStr,
    args: &[CString],
    env: &[CString],
    dir: impl AsFd,
    stdio: Option<&[OwnedFd; 3]>,
) -> Errno {
    let ready = || -> Sys<()> {
        // It must not finish what nobody watches over any more.
        os::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0)?;
        os::fchdir(dir)?;
        let null = os::open_at(None, c"/dev/null", libc::O_RDWR, 0)?;
        for to in 0..3usize {
            let fd = stdio.map_or(&null, |three| &three[to]);
            os::dup_to(fd, i32::try_from(to).unwrap_or(0))?;
        }
        os::cloexec_from(3)
    };
    match ready() {
        Ok(()) => {
            os::reset_signals();
            os::exec(path, args, env)
        }
        Err(errno) => errno,
    }
}

/// Runs `create` to its end: the container's first process, now ours, and its streams.
pub(crate) fn create(
    create: &Create,
    program: &Program,
    exec_dir: &OwnedFd,
    streams: Streams,
    console: Option<&OwnedFd>,
) -> Result<(i32, Outputs), Failure> {
    let here = || "create".to_owned();
    let child =
        spawn(&program.create, &program.env, exec_dir, streams.child.as_ref()).at(Step::Program, here)?;
    let code = os::wait_code(child).at(Step::Program, here)?;
    if code != 0 {
        return Err(Failure { step: Step::Program, errno: code, detail: here() });
    }
    let pid = read_pid(exec_dir, PID_FILE).at(Step::Program, || "process id of the container".into())?;
    let mut outputs = streams.ours;
    if create.terminal {
        let master = terminal(console).at(Step::Terminal, || "sent by the OCI runtime".into())?;
        outputs.use_terminal(master).at(Step::Terminal, || "terminal".into())?;
    }
    Ok((pid, outputs))
}

/// The process's number that a command has written.
pub(crate) fn read_pid(dir: &OwnedFd, name: &CStr) -> Sys<i32> {
    let file = os::open_at(Some(dir.as_fd()), name, libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
    let mut buf = [0; 16];
    let n = os::read(file, &mut buf)?;
    let text = core::str::from_utf8(&buf[..n]).map_err(|_| libc::EPROTO)?;
    text.trim().parse().ok().filter(|pid| *pid > 1).ok_or(libc::EPROTO)
}

/// The terminal that a command has sent before it ended.
pub(crate) fn terminal(listener: Option<&OwnedFd>) -> Sys<OwnedFd> {
    let listener = listener.ok_or(libc::ENOTCONN)?;
    os::nonblocking(listener)?;
    let connection = os::accept(listener)?;
    let (mut buf, mut fds) = ([0; 512], Vec::new());
    os::receive(connection, &mut buf, &mut fds)?;
    fds.pop().ok_or(libc::EPROTO)
}
