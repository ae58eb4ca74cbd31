//! Words to text: quotes, escapes and variables.

use super::ast::Escape;
use super::limits::{MAX_EXPANDED, MAX_NESTING, MAX_STEPS, MAX_WORD};
use super::pattern::Pattern;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Peekable;
use std::str::Chars;

/// The words that one line can hold.
const MAX_SPLIT: usize = 600_000;

/// Where the values of variables come from.
pub trait Environment {
    /// The value of a variable, `None` where it is not set.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// A closure as an [`Environment`].
#[derive(Clone, Copy, Debug)]
pub struct Lookup<F>(pub F);

impl<F: Fn(&str) -> Option<String>> Environment for Lookup<F> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0(name).map(Cow::Owned)
    }
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        Self::get(self, name).map(|v| Cow::Borrowed(v.as_str()))
    }
}

impl Environment for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        Self::get(self, name).map(|v| Cow::Borrowed(v.as_str()))
    }
}

/// The last pair with a name counts.
impl Environment for [(String, String)] {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter().rev().find(|(n, _)| n == name).map(|(_, v)| Cow::Borrowed(v.as_str()))
    }
}

/// What an expansion does with what is not a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Quotes and escapes are removed: words of instructions.
    Word,
    /// Quotes stay, and variables without a value stay as written: a command as it is shown.
    KeepQuotes,
    /// Quotes mean nothing; `\` escapes whatever the file's escape character is: contents of heredocs.
    Heredoc,
}

/// What became of a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The variables in it that have a value: what the result depends on, with `unset`.
    pub used: BTreeSet<String>,
    /// The variables in it without a value, those with a default included (rule `UndefinedVar`).
    pub unset: BTreeSet<String>,
}

/// What became of a word that may be several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpandedWords {
    /// The words; none of them empty.
    pub words: Vec<String>,
    /// As in [`Expanded`].
    pub used: BTreeSet<String>,
    /// As in [`Expanded`].
    pub unset: BTreeSet<String>,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {kind}")]
pub struct ExpandError {
    /// The word, cut if it is long.
    pub word: String,
    /// What is wrong with it.
    pub kind: ExpandErrorKind,
}

/// What is wrong; the words are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExpandErrorKind {
    #[error("unexpected end of statement while looking for matching {0}")]
    Unmatched(&'static str),
    #[error("syntax error: missing {0}")]
    Missing(&'static str),
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid pattern ({pattern}) in substitution: {problem}")]
    Pattern { pattern: String, problem: String },
    #[error("the result has more than {0} bytes: use shorter values")]
    TooLong(usize),
    #[error("the result has more than {MAX_SPLIT} words: use shorter values")]
    TooManyWords,
    #[error("substitutions are nested deeper than {MAX_NESTING}")]
    TooDeep,
    #[error("its patterns take more than {MAX_STEPS} steps: use shorter patterns or values")]
    TooSlow,
}

/// Expands `word` to one text.
///
/// # Errors
/// For unmatched quotes and braces, substitutions that there are not, `${name:?message}` without a value, and
/// results beyond the limits.
pub fn expand(
    word: &str,
    env: &(impl Environment + ?Sized),
    escape: Escape,
    mode: Mode,
) -> Result<Expanded, ExpandError> {
    let how = match mode {
        Mode::Word => How { escape: escape.char(), ..How::default() },
        Mode::KeepQuotes => How {
            escape: escape.char(),
            raw_quotes: true,
            keep_unset: true,
            max: MAX_EXPANDED,
            ..How::default()
        },
        Mode::Heredoc => How { no_quotes: true, max: MAX_EXPANDED, ..How::default() },
    };
    let mut lexer = Lexer::new(word, env, how);
    let text = lexer.until(None, false, &mut None).map_err(|kind| error(word, kind))?;
    Ok(Expanded { text, used: lexer.used, unset: lexer.unset })
}

/// Expands `word` to the words that it then is: space in values separates unless it is quoted.
///
/// # Errors
/// As [`expand`].
pub fn expand_words(
    word: &str,
    env: &(impl Environment + ?Sized),
    escape: Escape,
) -> Result<ExpandedWords, ExpandError> {
    let how = How { escape: escape.char(), ..How::default() };
    let (words, used, unset) = split(word, env, how)?;
    Ok(ExpandedWords { words, used, unset })
}

/// The words of a line as a shell sees them, nothing removed from them: what heredocs are found by.
pub(super) fn raw_words(line: &str) -> Result<Vec<String>, ExpandError> {
    let how = How { raw_quotes: true, raw_escapes: true, keep_unset: true, ..How::default() };
    split(line, &Lookup(|_: &str| None), how).map(|(words, ..)| words)
}

/// The words of a delimiter without quotes, or with them.
pub(super) fn delimiter_words(text: &str, raw_quotes: bool) -> Result<Vec<String>, ExpandError> {
    let how = How { raw_quotes, keep_unset: true, ..How::default() };
    split(text, &Lookup(|_: &str| None), how).map(|(words, ..)| words)
}

type Split = (Vec<String>, BTreeSet<String>, BTreeSet<String>);

fn split(word: &str, env: &(impl Environment + ?Sized), how: How) -> Result<Split, ExpandError> {
    let mut lexer = Lexer::new(word, env, how);
    let mut words = Some(Words::default());
    lexer.until(None, how.raw_escapes, &mut words).map_err(|kind| error(word, kind))?;
    let words = words.unwrap_or_default().finish().map_err(|kind| error(word, kind))?;
    Ok((words, lexer.used, lexer.unset))
}

fn error(word: &str, kind: ExpandErrorKind) -> ExpandError {
    let mut cut: String = word.chars().take(200).collect();
    if cut.len() < word.len() {
        cut.push_str("...");
    }
    ExpandError { word: cut, kind }
}

#[derive(Clone, Copy, Debug)]
struct How {
    escape: char,
    /// Quotes stay in the result.
    raw_quotes: bool,
    /// Escape characters stay in the result.
    raw_escapes: bool,
    /// Quotes are letters like others.
    no_quotes: bool,
    /// Variables without a value stay as written.
    keep_unset: bool,
    /// Bytes that the result may have.
    max: usize,
}

impl Default for How {
    fn default() -> Self {
        Self {
            escape: '\\',
            raw_quotes: false,
            raw_escapes: false,
            no_quotes: false,
            keep_unset: false,
            max: MAX_WORD,
        }
    }
}

/// Words as they grow.
#[derive(Debug, Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    /// Text in which space separates.
    fn loose(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_whitespace() { self.end() } else { self.word.push(c) }
        }
    }

    fn end(&mut self) {
        if !self.word.is_empty() && self.done.len() <= MAX_SPLIT {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Result<Vec<String>, ExpandErrorKind> {
        self.end();
        if self.done.len() > MAX_SPLIT { Err(ExpandErrorKind::TooManyWords) } else { Ok(self.done) }
    }
}

struct Lexer<'a, E: ?Sized> {
    chars: Peekable<Chars<'a>>,
    env: &'a E,
    how: How,
    raw_escapes: bool,
    depth: usize,
    /// Bytes that values gave so far.
    given: usize,
    steps: usize,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

type Result1<T> = Result<T, ExpandErrorKind>;

impl<'a, E: Environment + ?Sized> Lexer<'a, E> {
    fn new(word: &'a str, env: &'a E, how: How) -> Self {
        Self {
            chars: word.chars().peekable(),
            env,
            how,
            raw_escapes: how.raw_escapes,
            depth: 0,
            given: 0,
            steps: MAX_STEPS,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        }
    }

    /// Text up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool, words: &mut Option<Words>) -> Result1<String> {
        let before = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        self.depth += 1;
        let result = if self.depth > MAX_NESTING {
            Err(ExpandErrorKind::TooDeep)
        } else {
            self.until_inner(stop, words)
        };
        self.depth -= 1;
        self.raw_escapes = before;
        result
    }

    fn until_inner(&mut self, stop: Option<char>, words: &mut Option<Words>) -> Result1<String> {
        let mut out = String::new();
        while let Some(c) = self.chars.next() {
            if Some(c) == stop {
                return Ok(out);
            }
            let start = out.len();
            match c {
                '$' => {
                    let value = self.dollar()?;
                    if let Some(words) = words {
                        words.loose(&value);
                    }
                    out.push_str(&value);
                    if out.len() > self.how.max {
                        return Err(ExpandErrorKind::TooLong(self.how.max));
                    }
                    continue;
                }
                '<' => self.angle(&mut out),
                '\'' if !self.how.no_quotes => self.single(&mut out)?,
                '"' if !self.how.no_quotes => self.double(&mut out)?,
                c if c == self.how.escape => {
                    if self.raw_escapes {
                        out.push(c);
                    }
                    out.extend(self.chars.next());
                }
                c => {
                    if c.is_whitespace()
                        && let Some(words) = words
                    {
                        words.end();
                        out.push(c);
                        continue;
                    }
                    out.push(c);
                }
            }
            if let (Some(words), Some(new)) = (words.as_mut(), out.get(start..)) {
                words.word.push_str(new);
            }
        }
        match stop {
            Some('}') => Err(ExpandErrorKind::Missing("'}'")),
            Some(_) => Err(ExpandErrorKind::Missing("'/' in ${}")),
            None => Ok(out),
        }
    }

    /// After `<`: space between `<<` and a delimiter belongs to the word.
    fn angle(&mut self, out: &mut String) {
        out.push('<');
        if self.chars.next_if_eq(&'<').is_some() {
            out.push('<');
            while let Some(c) = self.chars.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
                out.push(c);
            }
        }
    }

    /// After `'`: everything up to the next is as it is.
    fn single(&mut self, out: &mut String) -> Result1<()> {
        if self.how.raw_quotes {
            out.push('\'');
        }
        loop {
            match self.chars.next() {
                None => return Err(ExpandErrorKind::Unmatched("single-quote")),
                Some('\'') => break,
                Some(c) => out.push(c),
            }
        }
        if self.how.raw_quotes {
            out.push('\'');
        }
        Ok(())
    }

    /// After `"`: variables are expanded, and `"`, `$` and the escape character can be escaped.
    fn double(&mut self, out: &mut String) -> Result1<()> {
        if self.how.raw_quotes {
            out.push('"');
        }
        loop {
            match self.chars.next() {
                None => return Err(ExpandErrorKind::Unmatched("double-quote")),
                Some('"') => break,
                Some('$') => {
                    let value = self.dollar()?;
                    out.push_str(&value);
                    if out.len() > self.how.max {
                        return Err(ExpandErrorKind::TooLong(self.how.max));
                    }
                }
                Some(c) if c == self.how.escape => {
                    if self.raw_escapes {
                        out.push(c);
                    }
                    let escape = self.how.escape;
                    match self.chars.next_if(|n| *n == '"' || *n == '$' || *n == escape) {
                        Some(escaped) => out.push(escaped),
                        // Before anything else it is a letter, which raw escapes have written already.
                        None if self.chars.peek().is_some() && !self.raw_escapes => out.push(c),
                        None => {}
                    }
                }
                Some(c) => out.push(c),
            }
        }
        if self.how.raw_quotes {
            out.push('"');
        }
        Ok(())
    }

    /// After `$`.
    fn dollar(&mut self) -> Result1<String> {
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braces();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.value(&name)? {
            None if self.how.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    /// After `${`.
    fn braces(&mut self) -> Result1<String> {
        match self.chars.peek() {
            None => return Err(ExpandErrorKind::Missing("'}'")),
            Some('{' | '}' | ':') => return Err(ExpandErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            None => Err(ExpandErrorKind::Missing("'}'")),
            Some('}') => match self.value(&name)? {
                None if self.how.keep_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            Some('/') => self.replace(&name),
            Some(':') => match self.chars.next() {
                Some(c @ ('-' | '+' | '?')) => self.modify(&name, c, true),
                None => Err(ExpandErrorKind::Missing("'}'")),
                Some(c) => Err(ExpandErrorKind::Modifier(format!(":{c}"))),
            },
            Some(c @ ('-' | '+' | '?')) => self.modify(&name, c, false),
            Some(c @ ('#' | '%')) => self.trim(&name, c),
            Some(c) => Err(ExpandErrorKind::Modifier(c.to_string())),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`; with a colon an empty value counts as none.
    fn modify(&mut self, name: &str, what: char, colon: bool) -> Result1<String> {
        let word = self.until(Some('}'), false, &mut None)?;
        let value = self.value(name)?;
        if value.is_none() && self.how.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{what}{word}}}"));
        }
        let set = value.is_some();
        let value = value.filter(|v| !(colon && v.is_empty()));
        match (what, value) {
            ('+', value) => Ok(if value.is_some() { word } else { String::new() }),
            (_, Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            (_, None) => {
                let default = if set { "is not allowed to be empty" } else { "is not allowed to be unset" };
                let message = if word.is_empty() { default.to_owned() } else { word };
                Err(ExpandErrorKind::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `${name#pattern}`, `##`, `%`, `%%`
    fn trim(&mut self, name: &str, what: char) -> Result1<String> {
        let word = self.until(Some('}'), true, &mut None)?;
        let Some(value) = self.value(name)? else {
            let kept = format!("${{{name}{what}{word}}}");
            return Ok(if self.how.keep_unset { kept } else { String::new() });
        };
        let (longest, text) = match word.strip_prefix(what) {
            Some(rest) => (true, rest),
            None => (false, word.as_str()),
        };
        let pattern = self.pattern(text)?;
        let cut = if what == '#' {
            pattern.prefix(&value, longest, &mut self.steps)
        } else {
            pattern.suffix(&value, longest, &mut self.steps)
        };
        let cut = cut.ok_or(ExpandErrorKind::TooSlow)?;
        let rest = if what == '#' { value.get(cut..) } else { value.get(..value.len() - cut) };
        Ok(rest.unwrap_or_default().to_owned())
    }

    /// `${name/pattern/text}`, `${name//pattern/text}`
    fn replace(&mut self, name: &str) -> Result1<String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let text = self.until(Some('/'), true, &mut None)?;
        let with = self.until(Some('}'), true, &mut None)?;
        let Some(value) = self.value(name)? else {
            let slash = if all { "/" } else { "" };
            let kept = format!("${{{name}/{slash}{text}/{with}}}");
            return Ok(if self.how.keep_unset { kept } else { String::new() });
        };
        let pattern = self.pattern(&text)?;
        pattern.replace(&value, &with, all, &mut self.steps, self.how.max).map_err(|too_long| {
            if too_long { ExpandErrorKind::TooLong(self.how.max) } else { ExpandErrorKind::TooSlow }
        })
    }

    fn pattern(&self, text: &str) -> Result1<Pattern> {
        Pattern::parse(text).map_err(|problem| ExpandErrorKind::Pattern {
            pattern: text.chars().take(100).collect(),
            problem,
        })
    }

    /// A variable's name: letters, digits and `_`, a number, or one special character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.chars.next_if(|c| c.is_numeric()) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Result1<Option<String>> {
        let value = self.env.get(name).map(Cow::into_owned);
        let names = if value.is_some() { &mut self.used } else { &mut self.unset };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        self.given = self.given.saturating_add(value.as_ref().map_or(0, String::len));
        if self.given > self.how.max { Err(ExpandErrorKind::TooLong(self.how.max)) } else { Ok(value) }
    }
}
