//! Physical lines to logical ones: comments out, continuations joined, places remembered.

use super::ast::{Directives, Escape, Span};
use super::directives::Reader;
use super::error::{ParseError, ParseErrorKind};
use super::limits::MAX_LINE;

/// Comments that an instruction has at least before the first are dropped.
const MAX_COMMENTS: usize = 1_000;
/// What a comment costs besides its text.
const COMMENT_COST: usize = 32;

/// The lines of a file, the line end of each still on it.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    rest: &'a str,
    /// Of the line that came last; 0 before the first.
    pub(super) number: u32,
    directives: Reader,
    text: usize,
}

/// One instruction's text, its continuation lines joined.
#[derive(Debug, Default)]
pub(super) struct Logical {
    pub(super) text: String,
    /// Where pieces of the text come from: offset in it, line, column of the piece's first character.
    pieces: Vec<(usize, u32, u32)>,
    pub(super) comments: Vec<String>,
    pub(super) empty_continuation: bool,
}

impl Logical {
    /// What follows `offset`, with the places it has in the file.
    pub(super) fn after(&self, offset: usize) -> Self {
        let text = self.text.get(offset..).unwrap_or_default().to_owned();
        let (line, column) = self.place(offset);
        let later = self.pieces.iter().filter(|(at, ..)| *at > offset);
        let pieces = std::iter::once((0, line, column)).chain(later.map(|(at, l, c)| (at - offset, *l, *c)));
        Self { text, pieces: pieces.collect(), ..Self::default() }
    }

    /// Line and column of a byte of the text.
    pub(super) fn place(&self, offset: usize) -> (u32, u32) {
        let piece = self.pieces.iter().rev().find(|(at, ..)| *at <= offset);
        let Some((at, line, column)) = piece else { return (0, 0) };
        let chars = self.text.get(*at..offset).map_or(0, |s| s.chars().count());
        (*line, column.saturating_add(u32::try_from(chars).unwrap_or(u32::MAX)))
    }

    /// From the first line of the text to `end_line`.
    pub(super) fn span(&self, end_line: u32) -> Span {
        let (line, column) = self.place(0);
        Span { line, end_line: end_line.max(line), column }
    }

    fn push(&mut self, piece: &str, line: u32, column: u32) {
        self.pieces.push((self.text.len(), line, column));
        self.text.push_str(piece);
    }
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, number: 0, directives: Reader::default(), text: 0 }
    }

    pub(super) fn directives(self) -> Directives {
        self.directives.found
    }

    pub(super) fn escape(&self) -> Escape {
        self.directives.found.escape
    }

    /// An error at the line that came last.
    fn error(&self, kind: ParseErrorKind) -> ParseError {
        ParseError { kind, span: Span { line: self.number, end_line: self.number, column: 1 } }
    }

    /// The next physical line.
    pub(super) fn line(&mut self) -> Result<Option<&'a str>, ParseError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.number = self.number.saturating_add(1);
        if line.len() > MAX_LINE {
            return Err(self.error(ParseErrorKind::LineTooLong));
        }
        Ok(Some(line))
    }

    /// The next instruction's text; `None` at the end of the file.
    pub(super) fn logical(&mut self) -> Result<Option<Logical>, ParseError> {
        let mut out = Logical::default();
        loop {
            let Some(raw) = self.line()? else { return Ok(None) };
            let whole = trim_newline(raw);
            let line = whole.trim_start();
            if self.directive_or_comment(line, &mut out.comments)? {
                continue;
            }
            let (piece, more) = continuation(line, self.escape());
            let column = u32::try_from(whole.chars().count() - line.chars().count()).unwrap_or(u32::MAX);
            out.push(piece, self.number, column.saturating_add(1));
            if more {
                self.continued(&mut out)?;
            }
            self.text += out.text.len() + out.comments.iter().map(|c| c.len() + COMMENT_COST).sum::<usize>();
            if self.text > super::limits::MAX_TEXT {
                return Err(self.error(ParseErrorKind::TextTooLong));
            }
            if !out.text.trim().is_empty() {
                return Ok(Some(out));
            }
            // A line with nothing but what joins it to the end of the file.
            out = Logical::default();
        }
    }

    /// Whether the line is no instruction.
    fn directive_or_comment(&mut self, line: &str, comments: &mut Vec<String>) -> Result<bool, ParseError> {
        if line.is_empty() {
            self.directives.end();
            comments.clear();
            return Ok(true);
        }
        let Some(comment) = line.strip_prefix('#') else {
            self.directives.end();
            return Ok(false);
        };
        if self.directives.line(line, self.number).map_err(|kind| self.error(kind))? {
            return Ok(true);
        }
        match comment.trim() {
            "" => comments.clear(),
            text => {
                // Of a wall of comments only the end belongs to what follows.
                if comments.len() >= 2 * MAX_COMMENTS {
                    comments.drain(..MAX_COMMENTS);
                }
                comments.push(text.to_owned());
            }
        }
        Ok(true)
    }

    /// Joins lines until one that is not to be continued.
    fn continued(&mut self, out: &mut Logical) -> Result<(), ParseError> {
        while let Some(raw) = self.line()? {
            let line = trim_newline(raw);
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                out.empty_continuation = true;
                continue;
            }
            let (piece, more) = continuation(line, self.escape());
            out.push(piece, self.number, 1);
            if out.text.len() > MAX_LINE {
                return Err(self.error(ParseErrorKind::LineTooLong));
            }
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// A line without its end.
pub(super) fn trim_newline(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The line without the character that joins it with the next, and whether it had one. A doubled one does not join.
fn continuation(line: &str, escape: Escape) -> (&str, bool) {
    let bare = line.trim_end_matches([' ', '\t']);
    match bare.strip_suffix(escape.char()) {
        Some(piece) if !piece.ends_with(escape.char()) => (piece, true),
        _ => (line, false),
    }
}
