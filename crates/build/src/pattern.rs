//! Patterns for paths: those of COPY and ADD sources, and those of ignore files. Pure.
//!
//! A pattern becomes a small automaton whose states are bits, so that the time of a match is bounded by the length of
//! the path times an eighth of the bytes of the pattern at most, whatever the pattern is.

mod list;
mod nfa;
#[cfg(test)]
mod tests;

pub use list::{PatternList, Scope, Verdict};
use nfa::{Class, Nfa, Token};

/// Bytes of one pattern, as Docker reads lines of ignore files.
pub const MAX_PATTERN: usize = 64 << 10;
/// Patterns of one list.
pub const MAX_PATTERNS: usize = 16 << 10;
/// Bracket expressions of one pattern.
const MAX_CLASSES: usize = 256;
/// Bytes of a path with the zero after it, as the kernel has it; a pattern of more characters matches nothing.
pub const MAX_PATH: usize = 4096;

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `[` without `]`, an empty or half range, a `\` at the end.
    #[error("pattern {0:?}: syntax error in pattern")]
    Syntax(String),
    /// A `!` with nothing after it.
    #[error("illegal exclusion pattern: \"!\"")]
    EmptyException,
    /// Over [`MAX_PATTERN`].
    #[error("pattern of {0} bytes: at most {MAX_PATTERN} are allowed")]
    TooLong(usize),
    /// Over the limit on bracket expressions.
    #[error("pattern with more than {MAX_CLASSES} bracket expressions: split it")]
    TooManyClasses,
    /// Over [`MAX_PATTERNS`].
    #[error("more than {MAX_PATTERNS} patterns: join some with wildcards")]
    TooMany,
}

/// A pattern with the meaning of Go's `filepath.Match`: `*` and `?` stop at slashes, `[a-z]` and `[^a-z]` do not,
/// `\` takes the next character as it is.
///
/// Characters are UTF-8; a byte that is not stands for itself.
#[derive(Clone, Debug)]
pub struct Glob(Nfa);

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// When it is malformed or over a limit.
    pub fn parse(pattern: &[u8]) -> Result<Self, Error> {
        let mut tokens = Vec::new();
        let mut input = Input::new(pattern)?;
        while let Some(unit) = input.next() {
            match unit {
                STAR => push_folded(&mut tokens, Token::Star),
                unit => tokens.push(input.simple(unit)?),
            }
        }
        Ok(Self(Nfa::new(tokens)))
    }

    /// Whether all of `path` matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut state = self.0.start().to_vec();
        for unit in units(path) {
            if !self.0.step(&mut state, unit) {
                return false;
            }
        }
        self.0.accepts(&state)
    }
}

/// Whether `pattern` holds a wildcard that is not escaped.
#[must_use]
pub fn has_wildcards(pattern: &[u8]) -> bool {
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    false
}

/// A pattern of an ignore file: as [`Glob`], and `**` is any number of directories.
///
/// Docker's matcher has grown by cases, which are kept: `**x` at the start and without another wildcard matches
/// every path that ends in `x`; `x**` at the end every path that starts with it; elsewhere `**` stands for whole
/// directories (`a**b` is `a` + `b` or `a…/b`).
fn ignore_pattern(pattern: &[u8]) -> Result<Nfa, Error> {
    let mut tokens = Vec::new();
    let mut input = Input::new(pattern)?;
    while let Some(unit) = input.next() {
        if unit != STAR {
            tokens.push(input.simple(unit)?);
            continue;
        }
        if input.peek() != Some(STAR) {
            push_folded(&mut tokens, Token::Star);
            continue;
        }
        input.next();
        let slash = input.peek() == Some(SLASH);
        if slash {
            input.next();
        }
        let plain = tokens.is_empty() && !slash && !input.rest.iter().any(|b| b"*?[]\\".contains(b));
        let token = if input.rest.is_empty() || plain { Token::Any } else { Token::Dirs };
        push_folded(&mut tokens, token);
    }
    Ok(Nfa::new(tokens))
}

/// Twice the same wildcard is once.
fn push_folded(tokens: &mut Vec<Token>, token: Token) {
    if tokens.last() != Some(&token) {
        tokens.push(token);
    }
}

const STAR: u32 = b'*' as u32;
const SLASH: u32 = b'/' as u32;

/// What is still to be read of a pattern.
struct Input<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
    classes: usize,
}

impl<'a> Input<'a> {
    fn new(pattern: &'a [u8]) -> Result<Self, Error> {
        if pattern.len() > MAX_PATTERN {
            return Err(Error::TooLong(pattern.len()));
        }
        Ok(Self { whole: pattern, rest: pattern, classes: 0 })
    }

    fn syntax(&self) -> Error {
        let start = self.whole.get(..200).unwrap_or(self.whole);
        Error::Syntax(String::from_utf8_lossy(start).into_owned())
    }

    fn peek(&self) -> Option<u32> {
        Some(decode(self.rest)?.0)
    }

    fn next(&mut self) -> Option<u32> {
        let (unit, len) = decode(self.rest)?;
        self.rest = self.rest.get(len..).unwrap_or_default();
        Some(unit)
    }

    /// The token that starts with `unit`, which is no star.
    fn simple(&mut self, unit: u32) -> Result<Token, Error> {
        Ok(match u8::try_from(unit) {
            Ok(b'?') => Token::One,
            Ok(b'[') => Token::Class(self.class()?),
            Ok(b'\\') => Token::Unit(self.next().ok_or_else(|| self.syntax())?),
            _ => Token::Unit(unit),
        })
    }

    fn class(&mut self) -> Result<Class, Error> {
        self.classes += 1;
        if self.classes > MAX_CLASSES {
            return Err(Error::TooManyClasses);
        }
        let negated = self.peek() == Some(u32::from(b'^'));
        if negated {
            self.next();
        }
        let mut ranges = Vec::new();
        loop {
            if self.peek() == Some(u32::from(b']')) && !ranges.is_empty() {
                self.next();
                return Ok(Class::new(negated, ranges));
            }
            let low = self.class_unit()?;
            let mut high = low;
            if self.peek() == Some(u32::from(b'-')) {
                self.next();
                high = self.class_unit()?;
            }
            ranges.push((low, high));
        }
    }

    fn class_unit(&mut self) -> Result<u32, Error> {
        let unit = match self.next() {
            Some(unit) if unit == u32::from(b'\\') => self.next(),
            Some(unit) if unit != u32::from(b'-') && unit != u32::from(b']') => Some(unit),
            _ => None,
        };
        // Bytes that are no UTF-8 have no place in an order of characters.
        unit.filter(|unit| *unit < NO_CHAR && !self.rest.is_empty()).ok_or_else(|| self.syntax())
    }
}

/// From here on units are single bytes that are no UTF-8.
const NO_CHAR: u32 = 0x11_0000;

/// The first character and its length; of what is no UTF-8, one byte.
fn decode(bytes: &[u8]) -> Option<(u32, usize)> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((u32::from(first), 1));
    }
    let start = bytes.get(..4).unwrap_or(bytes);
    let valid = start.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
    Some(match valid {
        Some(c) => (u32::from(c), c.len_utf8()),
        None => (NO_CHAR + u32::from(first), 1),
    })
}

/// The characters of `bytes`.
fn units(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (unit, len) = decode(rest)?;
        rest = rest.get(len..).unwrap_or_default();
        Some(unit)
    })
}

/// The shortest form of a path, as Go's `filepath.Clean`: no empty and no `.` components, `..` taken together with
/// what is before it; `.` for the empty path. What of `..` leads out of a relative path stays.
#[must_use]
pub fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// `path` as one of a tree: clean, relative to the root, which `..` does not leave; empty for the root.
#[must_use]
pub fn clean_in_root(path: &[u8]) -> Vec<u8> {
    let mut rooted = Vec::with_capacity(path.len() + 1);
    rooted.push(b'/');
    rooted.extend_from_slice(path);
    clean(&rooted).split_off(1)
}

/// Without white space at both ends, as Unicode has it.
#[must_use]
pub fn trim(mut text: &[u8]) -> &[u8] {
    let is_space = |unit: u32| char::from_u32(unit).is_some_and(char::is_whitespace);
    while let Some((unit, len)) = decode(text).filter(|(unit, _)| is_space(*unit)) {
        debug_assert!(unit < NO_CHAR);
        text = text.get(len..).unwrap_or_default();
    }
    'end: while !text.is_empty() {
        for len in 1..=3.min(text.len()) {
            let (before, last) = text.split_at(text.len() - len);
            if decode(last).is_some_and(|(unit, n)| n == len && is_space(unit)) {
                text = before;
                continue 'end;
            }
        }
        break;
    }
    text
}
