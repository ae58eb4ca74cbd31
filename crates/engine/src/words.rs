//! Words of Dockerfile instructions: split at white space, quotes taken away, variables put in, as BuildKit's shell
//! lexer does it.

use std::iter::Peekable;
use std::str::Chars;

use crate::{Error, Result};

/// Words at white space outside quotes; quotes and escapes are kept.
pub(crate) fn split(rest: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (_, '\\') if quote != Some('\'') => {
                word.push(c);
                word.extend(chars.next());
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.push(c);
            }
            (Some(q), c) if q == c => {
                quote = None;
                word.push(c);
            }
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    out.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

/// A word without quotes and escapes, with the variables of `env` (`NAME=value`) put in.
///
/// # Errors
/// For a quote or brace that is not closed, and for what cannot be substituted.
pub(crate) fn expand(word: &str, env: &[String]) -> Result<String> {
    let mut lexer = Lexer { chars: word.chars().peekable(), env };
    lexer.until(None).map_err(|e| Error::invalid(format!("failed to process {word:?}: {e}")))
}

type Lexed<T> = std::result::Result<T, String>;

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    env: &'a [String],
}

impl Lexer<'_> {
    /// All up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>) -> Lexed<String> {
        let mut out = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == stop => return Ok(out),
                '\'' => self.single(&mut out)?,
                '"' => self.double(&mut out)?,
                '$' => out.push_str(&self.dollar()?),
                '\\' => out.extend(self.chars.next()),
                c => out.push(c),
            }
        }
        match stop {
            None => Ok(out),
            Some(_) => Err("syntax error: missing '}'".into()),
        }
    }

    fn single(&mut self, out: &mut String) -> Lexed<()> {
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(());
            }
            out.push(c);
        }
        Err("unexpected end of statement while looking for matching single-quote".into())
    }

    fn double(&mut self, out: &mut String) -> Lexed<()> {
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return Ok(()),
                '$' => out.push_str(&self.dollar()?),
                '\\' => match self.chars.peek() {
                    Some('"' | '$' | '\\') => out.extend(self.chars.next()),
                    Some(_) => out.push('\\'),
                    None => {}
                },
                c => out.push(c),
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".into())
    }

    fn value(&self, name: &str) -> Option<&str> {
        let of = |e: &'_ String| e.split_once('=').is_some_and(|(n, _)| n == name);
        self.env.iter().find(|e| of(e)).and_then(|e| e.split_once('=')).map(|(_, v)| v)
    }

    /// A name, digits, or one of the shell's special characters; empty for anything else.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let digits = self.chars.peek().is_some_and(char::is_ascii_digit);
        if let Some(c) = self.chars.next_if(|c| "@*#?-$!".contains(*c)) {
            return c.to_string();
        }
        let part = |c: &char| if digits { c.is_ascii_digit() } else { c.is_alphanumeric() || *c == '_' };
        while let Some(c) = self.chars.next_if(part) {
            name.push(c);
        }
        name
    }

    /// What stands after a `$`.
    fn dollar(&mut self) -> Lexed<String> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            let value = if name.is_empty() { "$" } else { self.value(&name).unwrap_or_default() };
            return Ok(value.to_owned());
        }
        match self.chars.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        let value = self.value(&name).map(str::to_owned);
        match self.chars.next() {
            None => Err("syntax error: missing '}'".into()),
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => match self.chars.next() {
                Some(c @ ('-' | '+' | '?')) => self.modified(&name, value.filter(|v| !v.is_empty()), c),
                other => Err(unsupported(&format!(":{}", other.map(String::from).unwrap_or_default()))),
            },
            Some(c @ ('-' | '+' | '?')) => self.modified(&name, value, c),
            Some(c @ ('#' | '%')) => {
                let greedy = self.chars.next_if_eq(&c).is_some();
                let pattern = self.raw_until('}')?;
                Ok(trim(&value.unwrap_or_default(), &pattern, c == '#', greedy))
            }
            Some('/') => {
                let all = self.chars.next_if_eq(&'/').is_some();
                let (pattern, with) = (self.raw_until('/')?, self.until(Some('}'))?);
                Ok(replace(&value.unwrap_or_default(), &pattern, &with, all))
            }
            Some(c) => Err(unsupported(&c.to_string())),
        }
    }

    fn modified(&mut self, name: &str, value: Option<String>, modifier: char) -> Lexed<String> {
        let word = self.until(Some('}'))?;
        match (modifier, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(format!("{name}: is not allowed to be unset")),
            (_, None) => Err(format!("{name}: {word}")),
        }
    }

    /// A pattern up to `stop`: escapes are its own business.
    fn raw_until(&mut self, stop: char) -> Lexed<Vec<char>> {
        let mut out = Vec::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if c == stop => return Ok(out),
                '\\' => {
                    out.push(c);
                    out.extend(self.chars.next());
                }
                '$' => out.extend(self.dollar()?.chars()),
                c => out.push(c),
            }
        }
        Err("syntax error: missing '}'".into())
    }
}

fn unsupported(modifier: &str) -> String {
    format!("unsupported modifier ({modifier}) in substitution")
}

/// Whether all of `text` is what the shell pattern describes: `*`, `?`, and `\` before what is meant as it is.
fn matches(pattern: &[char], text: &[char]) -> bool {
    // For each length of the text's beginning, whether the pattern so far describes it.
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    let mut items = pattern.iter();
    while let Some(&item) = items.next() {
        let literal = if item == '\\' { *items.next().unwrap_or(&item) } else { item };
        if item == '*' {
            for n in 1..fits.len() {
                fits[n] |= fits[n - 1];
            }
            continue;
        }
        for n in (1..fits.len()).rev() {
            fits[n] = fits[n - 1] && (item == '?' || text[n - 1] == literal);
        }
        fits[0] = false;
    }
    fits[text.len()]
}

/// Without the shortest (or longest) beginning or end that the pattern describes.
fn trim(value: &str, pattern: &[char], start: bool, greedy: bool) -> String {
    let text: Vec<char> = value.chars().collect();
    let mut lengths: Vec<usize> = (0..=text.len()).collect();
    if greedy {
        lengths.reverse();
    }
    let cut = lengths.into_iter().find(|n| {
        let part = if start { &text[..*n] } else { &text[text.len() - n..] };
        matches(pattern, part)
    });
    let n = cut.unwrap_or(0);
    if start { text[n..].iter().collect() } else { text[..text.len() - n].iter().collect() }
}

/// The first (or each) longest part that the pattern describes becomes `with`.
fn replace(value: &str, pattern: &[char], with: &str, all: bool) -> String {
    let text: Vec<char> = value.chars().collect();
    let (mut out, mut at, mut done) = (String::new(), 0, false);
    while at < text.len() {
        let end = (at + 1..=text.len()).rev().find(|end| matches(pattern, &text[at..*end]));
        match end.filter(|_| all || !done) {
            Some(end) => {
                out.push_str(with);
                (at, done) = (end, true);
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ex(word: &str) -> String {
        let env = ["A=1".to_owned(), "E=".to_owned(), "P=/usr/bin:/bin".to_owned()];
        expand(word, &env).unwrap_or_else(|e| format!("! {e}"))
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(ex(r#"a\ b"c d"'e $A'"#), "a bc de $A");
        assert_eq!(ex(r#""a\"b\n"'a\"b'a\"b"#), "a\"b\\na\\\"ba\"b");
        assert_eq!(ex("a\\"), "a");
        assert!(ex("\"a").ends_with("looking for matching double-quote"));
        assert!(ex("'a").ends_with("looking for matching single-quote"));
        assert_eq!(split(r#"a="b c" 'd e'=f\ g"#), [r#"a="b c""#, r"'d e'=f\ g"]);
    }

    #[test]
    fn variables() {
        for (word, want) in [
            ("$A-${A}x", "1-1x"),
            ("$NO:$", ":$"),
            ("\\$A", "$A"),
            ("\"$A\"", "1"),
            ("${NO:-d$A}${NO-e}${E-f}${E:-g}", "d1eg"),
            ("${A:+y}${E:+n}${E+z}${NO+n}", "yz"),
            ("${P#*/}${P##*/}", "usr/bin:/binbin"),
            ("${P%:*}${P%%/*}", "/usr/bin"),
            ("${P/bin/x}${P//b?n/x}", "/usr/x:/bin/usr/x:/x"),
            ("${A?}${A:?no}", "11"),
        ] {
            assert_eq!(ex(word), want, "{word}");
        }
        for bad in ["${A", "${}", "${A:", "${A:x}", "${A!}", "${NO?why}", "${NO:-x"] {
            assert!(ex(bad).starts_with("! failed to process"), "{bad}: {}", ex(bad));
        }
    }
}
