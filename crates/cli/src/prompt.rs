//! Questions to the user at the terminal.

use std::io::{BufRead as _, Read as _, Write as _};

use crate::error::{Context, Failure, Result};
use crate::interrupt::Interrupt;
use crate::tty::NoEcho;

/// Longest answer in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Whether an answer can be seen while it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// A name.
    On,
    /// A password.
    Off,
}

/// Asks on standard output and gives the line that is typed, without the space around it. The end of the input is an
/// empty line. The user may leave with Ctrl-C; the terminal is then as it was.
pub(crate) async fn ask(question: &str, echo: Echo) -> Result<String> {
    let silent = if echo == Echo::Off { NoEcho::start() } else { None };
    let mut out = std::io::stdout();
    let _ = out.write_all(question.as_bytes()).and_then(|()| out.flush());
    let mut interrupt = Interrupt::listen()?;
    let answer = tokio::select! {
        answer = tokio::task::spawn_blocking(line) => {
            answer.map_err(|e| Failure::new(format!("read the answer: {e}")))?
        }
        status = interrupt.came() => {
            let _ = std::io::stdout().write_all(b"\n");
            return Err(Failure::exit(status));
        }
    };
    drop(silent);
    Ok(answer.context(|| "read the answer".into())?.trim().to_owned())
}

fn line() -> std::io::Result<String> {
    let mut text = Vec::new();
    std::io::stdin().lock().take(MAX_ANSWER).read_until(b'\n', &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
