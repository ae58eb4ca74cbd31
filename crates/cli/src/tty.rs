//! The terminal: raw mode while a container has it, its size, and names that must not steer it.

use std::io::IsTerminal;

use rustix::termios::{OptionalActions, Termios};

/// Raw mode of standard input; what was before comes back when this is dropped.
pub(crate) struct Raw(Termios);

impl Raw {
    /// Raw mode, if standard input is a terminal.
    pub(crate) fn start() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        let saved = before.clone();
        // A panic must not leave the shell without echo.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &saved);
            hook(info);
        }));
        Some(Self(before))
    }

    /// What was before, for a while.
    pub(crate) fn pause(&self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }

    /// Raw mode again.
    pub(crate) fn again(&self) {
        let mut raw = self.0.clone();
        raw.make_raw();
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Rows and columns of the terminal, if there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout())
        .or_else(|_| rustix::termios::tcgetwinsize(rustix::stdio::stdin()))
        .ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// A terminal's standard input without echo, until this is dropped.
pub(crate) struct NoEcho(Termios);

impl NoEcho {
    /// Ends the echo, if standard input is a terminal.
    pub(crate) fn start() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &silent).ok()?;
        Some(Self(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether standard error is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Rows and columns of the terminal that standard output, or standard error, is.
pub(crate) fn size_of(stream: longshore_api::stream::Stream) -> Option<(u16, u16)> {
    let size = match stream {
        longshore_api::stream::Stream::Stderr => rustix::termios::tcgetwinsize(rustix::stdio::stderr()),
        _ => rustix::termios::tcgetwinsize(rustix::stdio::stdout()),
    };
    size.ok().filter(|s| s.ws_row > 0 && s.ws_col > 0).map(|s| (s.ws_row, s.ws_col))
}

/// Text as it may be shown on a terminal: control characters made visible.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c.to_string(),
            c if c.is_control() => format!("\\x{:02x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect()
}

/// The same on one line, whatever is in it.
pub(crate) fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\x0a").replace('\t', "\\x09")
}

/// Makes bytes that come in pieces visible: control characters and what is no UTF-8.
#[derive(Debug, Default)]
pub(crate) struct Visible {
    /// The start of a character whose rest is still to come.
    rest: Vec<u8>,
}

impl Visible {
    pub(crate) fn text(&mut self, chunk: &[u8]) -> String {
        self.rest.extend_from_slice(chunk);
        let mut keep = 0;
        let mut out = String::new();
        for piece in self.rest.utf8_chunks() {
            out.push_str(&printable(piece.valid()));
            keep += piece.valid().len();
            let bad = piece.invalid();
            // At the end it may be a character that was cut.
            if !bad.is_empty() && (keep + bad.len() < self.rest.len() || bad.len() > 3) {
                bad.iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
                keep += bad.len();
            }
        }
        self.rest.drain(..keep);
        out
    }

    /// All of some bytes.
    pub(crate) fn whole(bytes: &[u8]) -> String {
        let mut visible = Self::default();
        let mut out = visible.text(bytes);
        visible.rest.iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_40_escape_sequences_are_shown_not_obeyed() {
        assert_eq!(printable("a\u{1b}[31mb\tc\n"), "a\\x1b[31mb\tc\n");
        assert_eq!(printable("\u{9b}x"), "\\x9bx");
        assert_eq!(one_line("a\nb\u{1b}"), "a\\x0ab\\x1b");
        let mut visible = Visible::default();
        assert_eq!(visible.text(b"a\x1b[2J\n\xff\xe2\x82"), "a\\x1b[2J\n\\xff");
        assert_eq!(visible.text(b"\xac!"), "\u{20ac}!");
        assert_eq!(Visible::whole(b"a\xe2\x82"), "a\\xe2\\x82");
    }
}
