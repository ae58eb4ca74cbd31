//! The docker-shaped command line: a client of the Docker Engine API like any other, ours or Docker's daemon.
//!
//! Options become one request ([`args`]), commands carry it out ([`commands`]), rows are printed as docker prints them
//! ([`format`]). Results go to standard output, everything else to standard error.

#![recursion_limit = "512"]

mod args;
mod cli;
mod client;
mod commands;
mod error;
mod format;
mod settings;
mod streams;
mod template;
mod tty;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

pub use cli::command;

/// Runs a command line, its program's name first. The name decides what help calls the program.
#[must_use]
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let parsed = match cli::parse(argv) {
        Ok(p) => p,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(commands::run(parsed));
    // A read of standard input that still waits must not hold the program back.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if !e.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "{}", tty::printable(&e.message));
            }
            ExitCode::from(u8::try_from(e.code & 0xff).unwrap_or(1))
        }
    }
}
