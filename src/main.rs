//! The one binary. Called as `longshore daemon` or by the name `dockerd` it is the engine's daemon; otherwise it is
//! the command line, also under the name `docker`.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

mod daemon;
mod rootless;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let name = argv.first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_owned();
    if name == rootless::guard::NAME {
        return rootless::guard::main(argv.into_iter().skip(1));
    }
    if name == "dockerd" {
        return daemon::main(argv.into_iter().skip(1));
    }
    if argv.get(1).map(OsString::as_os_str) == Some(OsStr::new("daemon")) {
        return daemon::main(argv.into_iter().skip(2));
    }
    longshore_cli::run(argv)
}
