//! `# syntax=`, `# escape=`, `# check=`: comments at the top of the file that are not comments.

use super::ast::{Directives, Escape};
use super::check::Check;
use super::error::ParseErrorKind;

/// Reads the lines at the top; ends with the first that is no directive.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) found: Directives,
    over: bool,
    escape: bool,
    check: bool,
}

impl Reader {
    /// Whether `line`, which is trimmed on the left, is a directive.
    pub(super) fn line(&mut self, line: &str, number: u32) -> Result<bool, ParseErrorKind> {
        if self.over || (number == 1 && line.starts_with("#!")) {
            return Ok(false);
        }
        let known = line.strip_prefix('#').and_then(split);
        let Some((name, value)) = known else {
            self.over = true;
            return Ok(false);
        };
        // Matching on the name in lower case: it is written in any.
        match name.to_ascii_lowercase().as_str() {
            "syntax" if self.found.syntax.is_some() => Err(ParseErrorKind::DuplicateDirective("syntax")),
            "syntax" => {
                self.found.syntax = Some(value.to_owned());
                Ok(true)
            }
            "escape" if std::mem::replace(&mut self.escape, true) => {
                Err(ParseErrorKind::DuplicateDirective("escape"))
            }
            "escape" => {
                self.found.escape = match value {
                    "\\" => Escape::Backslash,
                    "`" => Escape::Backquote,
                    other => return Err(ParseErrorKind::EscapeToken(other.chars().take(20).collect())),
                };
                Ok(true)
            }
            "check" if std::mem::replace(&mut self.check, true) => {
                Err(ParseErrorKind::DuplicateDirective("check"))
            }
            "check" => {
                self.found.check = Check::parse(value.split(' ').next().unwrap_or_default())?;
                Ok(true)
            }
            _ => {
                self.over = true;
                Ok(false)
            }
        }
    }

    /// No directive from here on.
    pub(super) fn end(&mut self) {
        self.over = true;
    }
}

/// `name = value`, the name of letters and digits, the value not empty.
pub(super) fn split(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.trim_start().split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let word = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
        && !value.is_empty();
    word.then_some((name, value))
}
