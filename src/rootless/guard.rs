//! The parent of pasta: a program that AppArmor gives a profile as it starts cannot be told to end with its parent
//! (prctl(2), `PR_SET_PDEATHSIG`), so somebody has to see to it.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

use longshore_sys::{child, pidfd};
use rustix::event::{PollFd, PollFlags};

/// The name by which this program is the guard.
pub(crate) const NAME: &str = "longshore-outside";

/// Runs the program that `args` name, until it ends or standard input does, which is the daemon's.
pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(program) = args.next() else { return ExitCode::FAILURE };
    match run(Command::new(program).args(args)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &mut Command) -> std::io::Result<ExitCode> {
    let mut running = child::end_with_thread(command.stdin(Stdio::null())).spawn()?;
    let process = pidfd::open(running.id())?;
    let input = std::io::stdin();
    let mut both = [PollFd::new(&input, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut both, None))?;
    if both[1].revents().is_empty() {
        running.kill()?;
    }
    let code = running.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
