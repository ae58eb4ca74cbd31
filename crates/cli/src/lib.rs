//! The docker-shaped command line: a client of the Docker Engine API like any other, ours or Docker's daemon.
//!
//! Options become one request ([`args`]), commands carry it out ([`commands`]), rows are printed as docker prints them
//! ([`format`]). Results go to standard output, everything else to standard error.

#![recursion_limit = "512"]

mod args;
mod cli;
mod client;
mod commands;
mod config;
pub mod credentials;
mod error;
mod explore;
mod flags;
mod format;
mod interrupt;
mod keys;
mod prompt;
mod settings;
mod streams;
mod template;
mod tty;
pub mod user;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use cli::Parsed;
use error::Failure;

/// Runs a command line, its program's name first. The name decides what help calls the program.
#[must_use]
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let outcome = match cli::parse(argv) {
        Ok(Parsed::Do(global, action, called)) => carry_out(global, action, called),
        Ok(Parsed::Show { text, error }) => show(&text, error),
        Err(e) => Err(e),
    };
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

fn carry_out(global: cli::Global, action: cli::Action, called: String) -> error::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(format!("cannot start: {e}")))?;
    let outcome = runtime.block_on(commands::run(global, action, &called));
    // A read of standard input that still waits must not hold the program back.
    runtime.shutdown_background();
    outcome
}

/// Shows help. It takes the place of an error when there was no command: that is no failure for docker either.
fn show(text: &str, error: bool) -> error::Result<()> {
    if error {
        let _ = std::io::stderr().write_all(text.as_bytes());
        return Ok(());
    }
    streams::show(longshore_api::stream::Stream::Stdout, text.as_bytes())
}
