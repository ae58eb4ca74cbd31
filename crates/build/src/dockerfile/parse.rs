//! Bytes to instructions.

use super::ast::{Dockerfile, Escape, Heredoc, Instruction, Kind, Span};
use super::error::{ParseError, ParseErrorKind};
use super::heredoc;
use super::instruction::{self, Given};
use super::json;
use super::limits::{MAX_FILE, MAX_INSTRUCTIONS, MAX_LINE, MAX_TRIGGERS};
use super::lines::{Lines, Logical};
use super::words;

/// Reads a Dockerfile.
///
/// # Errors
/// For anything that the reference does not allow, bytes that are not UTF-8 and files beyond the limits; the error names
/// the line, and the column where the mistake is inside an instruction.
pub fn parse(file: &[u8]) -> Result<Dockerfile, ParseError> {
    match parse_to_mistake(file) {
        (file, None) => Ok(file),
        (_, Some(error)) => Err(error),
    }
}

/// Reads a Dockerfile up to the first mistake, if there is one: what stands before it can be linted
/// ([`lint_instructions`](super::lint_instructions)).
#[must_use]
pub fn parse_to_mistake(file: &[u8]) -> (Dockerfile, Option<ParseError>) {
    let (text, mut error) = match read(file) {
        Ok(text) => (text, None),
        Err(error) => ("", Some(error)),
    };
    let mut lines = Lines::new(text);
    let (mut instructions, mut empty) = (Vec::new(), Vec::new());
    if error.is_none() {
        error = all(&mut lines, &mut instructions, &mut empty).err();
    }
    (Dockerfile { directives: lines.directives(), instructions, empty_continuations: empty }, error)
}

/// Reads an `ONBUILD` trigger as it stands in an image's configuration: one instruction that a trigger may be.
///
/// # Errors
/// As [`parse`], and for more than one instruction, `FROM`, `ONBUILD` and `MAINTAINER`. Lines count in the trigger.
pub fn parse_trigger(text: &str) -> Result<Instruction, ParseError> {
    let mut file = parse(text.as_bytes())?;
    let Some(instruction) = file.instructions.pop() else {
        return Err(whole(ParseErrorKind::NoInstructions));
    };
    let span = instruction.span;
    if !file.instructions.is_empty() {
        return Err(ParseError { kind: ParseErrorKind::OnbuildSingle, span });
    }
    instruction::may_trigger(&instruction.kind).map_err(|kind| ParseError { kind, span })?;
    Ok(instruction)
}

/// Reads all triggers of a base image; what they give is run right after `FROM`.
///
/// # Errors
/// As [`parse_trigger`], and for too many of them.
pub fn parse_triggers<S: AsRef<str>>(triggers: &[S]) -> Result<Vec<Instruction>, ParseError> {
    if triggers.len() > MAX_TRIGGERS {
        return Err(whole(ParseErrorKind::TooManyTriggers(triggers.len())));
    }
    triggers.iter().map(|t| parse_trigger(t.as_ref())).collect()
}

fn whole(kind: ParseErrorKind) -> ParseError {
    ParseError { kind, span: Span::default() }
}

/// The text of a file; its size, encoding and longest line are right.
fn read(file: &[u8]) -> Result<&str, ParseError> {
    if file.is_empty() {
        return Err(whole(ParseErrorKind::Empty));
    }
    // The length of the first long line says more than that of the file, which is long because of it.
    let at = |line: usize, kind| {
        let line = u32::try_from(line).unwrap_or(u32::MAX).saturating_add(1);
        ParseError { kind, span: Span { line, end_line: line, column: 1 } }
    };
    if file.len() > MAX_FILE {
        let head = file.get(..MAX_FILE).unwrap_or(file);
        let long = head.split(|b| *b == b'\n').position(|l| l.len() > MAX_LINE);
        return Err(match long {
            Some(line) => at(line, ParseErrorKind::LineTooLong),
            None => whole(ParseErrorKind::FileTooLarge(file.len())),
        });
    }
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let line_of = |end: usize| file.iter().take(end).filter(|b| **b == b'\n').count();
    let text =
        std::str::from_utf8(file).map_err(|e| at(line_of(e.valid_up_to()), ParseErrorKind::NotUtf8))?;
    if let Some(nul) = text.find('\0') {
        return Err(at(line_of(nul), ParseErrorKind::Nul));
    }
    Ok(text)
}

fn all(
    lines: &mut Lines<'_>,
    instructions: &mut Vec<Instruction>,
    empty: &mut Vec<Span>,
) -> Result<(), ParseError> {
    while let Some(mut logical) = lines.logical()? {
        let end = lines.number;
        if instructions.len() >= MAX_INSTRUCTIONS {
            return Err(ParseError { kind: ParseErrorKind::TooManyInstructions, span: logical.span(end) });
        }
        if logical.empty_continuation {
            empty.push(Span { line: end, end_line: end, column: 1 });
        }
        let comments = std::mem::take(&mut logical.comments);
        let heredocs = if may_have_heredocs(&logical.text, lines.escape()) {
            heredoc::read(&logical, lines)?
        } else {
            Vec::new()
        };
        instructions.push(one(&logical, lines.escape(), heredocs, comments, lines.number)?);
    }
    if instructions.is_empty() {
        return Err(whole(ParseErrorKind::NoInstructions));
    }
    Ok(())
}

/// Whether it is a `RUN`, `COPY` or `ADD`, or a trigger of one, not in JSON form.
fn may_have_heredocs(text: &str, escape: Escape) -> bool {
    if !text.contains("<<") {
        return false;
    }
    let Ok(parts) = words::split(text, escape) else { return false };
    match instruction::upper(parts.name) {
        Some("RUN" | "COPY" | "ADD") => !matches!(json::array(parts.args), json::Array::Strings(_)),
        Some("ONBUILD") => {
            let Ok(inner) = words::split(parts.args, escape) else { return false };
            matches!(instruction::upper(inner.name), Some("RUN" | "COPY" | "ADD"))
                && !matches!(json::array(inner.args), json::Array::Strings(_))
        }
        _ => false,
    }
}

/// One instruction from its text.
pub(super) fn one(
    logical: &Logical,
    escape: Escape,
    heredocs: Vec<Heredoc>,
    comments: Vec<String>,
    end_line: u32,
) -> Result<Instruction, ParseError> {
    let span = logical.span(end_line);
    let error = |(kind, at): (ParseErrorKind, Option<usize>)| {
        let inside = at.map(|at| logical.place(at));
        let span = inside.map_or(span, |(line, column)| Span { line, end_line: line, column });
        ParseError { kind, span }
    };
    let parts = words::split(&logical.text, escape).map_err(|kind| error((kind, None)))?;
    let name = parts.name.to_owned();
    let given = Given { parts, escape, heredocs: &heredocs, comments: &comments, logical, end_line };
    let kind = match instruction::parse(given) {
        Ok(kind) => kind,
        Err(instruction::Failure::Here(kind, at)) => return Err(error((kind, at))),
        Err(instruction::Failure::Inside(error)) => return Err(*error),
    };
    // A trigger's heredocs are its own.
    let heredocs = match &kind {
        Kind::Onbuild(_) => Vec::new(),
        _ => heredocs,
    };
    Ok(Instruction { span, name, source: logical.text.trim().to_owned(), comments, heredocs, kind })
}
