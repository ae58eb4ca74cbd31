//! What goes on while images move: lines that change on a terminal, results alone elsewhere.

use serde_json::Value;

use super::human::total;
use crate::tty::printable;

/// Shows a stream of progress messages as docker shows it.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Columns of the terminal, if there is one.
    columns: Option<u16>,
    /// What has a line of its own, in order.
    lines: Vec<String>,
}

impl Progress {
    /// For a terminal of so many columns, or for something else.
    pub(crate) fn new(columns: Option<u16>) -> Self {
        Self { columns, lines: Vec::new() }
    }

    /// What to write for a message.
    pub(crate) fn text(&mut self, message: &Value) -> String {
        let text = |key: &str| message[key].as_str().unwrap_or_default();
        let bar = &message["progressDetail"];
        let moving = bar.as_object().is_some_and(|b| !b.is_empty());
        let (id, status, stream) =
            (printable(text("id")), printable(text("status")), printable(text("stream")));
        let Some(columns) = self.columns else {
            let shown = if id.is_empty() { status } else { format!("{id}: {status}") };
            return match stream {
                // A bar that nobody watches.
                _ if moving => String::new(),
                stream if !stream.is_empty() => stream,
                _ if shown.is_empty() => String::new(),
                _ => format!("{shown}\n"),
            };
        };
        let prefix = if id.is_empty() { String::new() } else { format!("{id}: ") };
        if !moving || !stream.is_empty() {
            self.lines.clear();
            return match (stream.is_empty(), status.is_empty()) {
                (false, _) => format!("{prefix}{stream}"),
                (true, true) => String::new(),
                (true, false) => format!("{prefix}{status}\n"),
            };
        }
        let line = format!("\x1b[2K\r{prefix}{status} {}\r", numbers(bar, columns));
        if id.is_empty() {
            return line;
        }
        let known = self.lines.iter().position(|l| *l == id);
        let fresh = if known.is_none() { "\n" } else { "" };
        let at = known.unwrap_or_else(|| {
            self.lines.push(id);
            self.lines.len() - 1
        });
        let up = self.lines.len() - at;
        format!("{fresh}\x1b[{up}A{line}\x1b[{up}B")
    }
}

/// `[====>    ]  1.2MB/5MB`; without the bar on a narrow terminal.
fn numbers(bar: &Value, columns: u16) -> String {
    let number = |key: &str| bar[key].as_i64().unwrap_or(0).max(0);
    let (current, whole) = (number("current"), number("total"));
    match (current, whole) {
        (0, 0) => String::new(),
        (_, 0) => format!("{:>8}", total(current)),
        _ => {
            let part = usize::try_from(i128::from(current) * 50 / i128::from(whole)).unwrap_or(50).min(50);
            let drawn = format!("[{}>{}] ", "=".repeat(part), " ".repeat(50 - part));
            let drawn = if columns > 110 { drawn } else { String::new() };
            if current > whole {
                return format!("{drawn}{:>8}", total(current));
            }
            format!("{drawn}{:>8}/{}", total(current), total(whole))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_terminal_gets_lines_that_change() {
        let mut p = Progress::new(Some(80));
        let at = |id: &str, n: i64| json!({"id": id, "status": "Loading layer", "progressDetail": {"current": n, "total": 2_000_000}});
        assert_eq!(p.text(&at("a", 1_000_000)), "\n\x1b[1A\x1b[2K\ra: Loading layer      1MB/2MB\r\x1b[1B");
        assert_eq!(p.text(&at("b", 2_000_000)), "\n\x1b[1A\x1b[2K\rb: Loading layer      2MB/2MB\r\x1b[1B");
        assert_eq!(p.text(&at("a", 2_000_000)), "\x1b[2A\x1b[2K\ra: Loading layer      2MB/2MB\r\x1b[2B");
        assert_eq!(p.text(&json!({"stream": "Loaded image: x\n"})), "Loaded image: x\n");
        let bar = json!({"current": 1, "total": 2});
        assert_eq!(numbers(&bar, 120), format!("[{}>{}]       1B/2B", "=".repeat(25), " ".repeat(25)));
    }

    #[test]
    fn a_file_gets_the_results() {
        let mut p = Progress::new(None);
        assert_eq!(p.text(&json!({"id": "a", "status": "x", "progressDetail": {"current": 1}})), "");
        assert_eq!(p.text(&json!({"status": "sha256:1", "progressDetail": {}})), "sha256:1\n");
        assert_eq!(p.text(&json!({"stream": "Loaded \u{1b}[31m\n"})), "Loaded \\x1b[31m\n");
    }
}
