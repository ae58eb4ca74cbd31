//! Help texts, laid out as docker lays them out.

use std::fmt::Write as _;

use super::Flag;

/// Fewest columns that text is wrapped into.
const NARROWEST: usize = 24;
/// How far a last word may stand out.
const SLOP: usize = 5;

/// Columns for help: docker leaves the last one of the terminal free, and takes a terminal of 80 where there is none.
pub(crate) fn columns() -> usize {
    rustix::termios::tcgetwinsize(rustix::stdio::stdout())
        .ok()
        .map(|s| usize::from(s.ws_col))
        .filter(|w| *w > 0)
        .map_or(79, |w| w - 1)
}

/// The lines about options.
pub(crate) fn options(flags: &[Flag], columns: usize) -> String {
    let mut shown: Vec<&Flag> = flags.iter().filter(|f| f.is_shown()).collect();
    shown.sort_by_key(|f| f.long);
    let names: Vec<String> = shown.iter().map(|f| name(f)).collect();
    let widest = names.iter().map(String::len).max().unwrap_or(0);
    let mut out = String::new();
    for (flag, name) in shown.iter().zip(&names) {
        let mut usage = flag.usage.to_owned();
        match flag.kind.name {
            _ if flag.shown_default.is_empty() => {}
            "string" => drop(write!(usage, " (default {:?})", flag.shown_default)),
            _ => drop(write!(usage, " (default {})", flag.shown_default)),
        }
        let _ = writeln!(out, "{name:widest$}   {}", wrap(widest + 3, columns, &usage));
    }
    out
}

fn name(flag: &Flag) -> String {
    let mut out = match flag.short {
        Some(s) => format!("  -{s}, --{}", flag.long),
        None => format!("      --{}", flag.long),
    };
    if !flag.kind.name.is_empty() {
        let _ = write!(out, " {}", flag.kind.name);
    }
    out
}

/// pflag's way of breaking lines: `indent` columns stand before each but the first.
fn wrap(indent: usize, columns: usize, text: &str) -> String {
    let (mut indent, mut width) = (indent, columns.saturating_sub(indent));
    let mut out = String::new();
    if width < NARROWEST {
        indent = 16;
        width = columns.saturating_sub(indent);
        let _ = write!(out, "\n{:indent$}", "");
    }
    if width < NARROWEST {
        return text.replace('\n', &out);
    }
    let width = width - SLOP;
    let margin = format!("\n{:indent$}", "");
    let (line, mut rest) = cut(width, text);
    out.push_str(&line.replace('\n', &margin));
    while !rest.is_empty() {
        let (line, after) = cut(width, rest);
        out.push_str(&margin);
        out.push_str(&line.replace('\n', &margin));
        rest = after;
    }
    out
}

/// A line of at most `width` bytes, and what remains.
fn cut(width: usize, text: &str) -> (&str, &str) {
    if width + SLOP > text.len() {
        return (text, "");
    }
    // Help texts are ASCII; a border inside a letter would only move the break.
    let mut end = width;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let Some(space) = text[..end].rfind([' ', '\t', '\n']).filter(|at| *at > 0) else { return (text, "") };
    match text[..end].rfind('\n') {
        Some(line) if line > 0 && line < space => (&text[..line], &text[line + 1..]),
        _ => (&text[..space], &text[space + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BOOL, INT, STRING, flag};
    use super::*;

    #[test]
    fn options_are_laid_out_as_docker_does() {
        let flags = [
            flag("quiet", BOOL, "Only display container IDs").short('q'),
            flag("last", INT, "Show n last created containers (includes all states)")
                .short('n')
                .default("-1"),
            flag("tail", STRING, "Lines").default("all"),
            flag("old", BOOL, "x").refused("is gone"),
        ];
        assert_eq!(
            options(&flags, 60),
            "  -n, --last int      Show n last created containers\n                      (includes all states) (default -1)\n  -q, --quiet         Only display container IDs\n      --tail string   Lines (default \"all\")\n"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_the_text_below() {
        assert_eq!(wrap(60, 70, "a b"), format!("\n{:16}a b", ""));
        assert_eq!(wrap(60, 30, "a b"), "a b");
    }
}
