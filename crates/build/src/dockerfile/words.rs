//! An instruction's text cut into name, flags and arguments; nothing is expanded.

use super::ast::Escape;
use super::error::ParseErrorKind;
use super::limits::MAX_WORDS;

/// A piece of the text and where it starts in it.
pub(super) type At<T> = (T, usize);

/// `NAME [--flag...] arguments`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) name: &'a str,
    /// Without `--`, quotes and escapes removed.
    pub(super) flags: Vec<At<String>>,
    /// Trimmed.
    pub(super) args: &'a str,
    pub(super) args_at: usize,
}

/// What separates words in the file; other space is part of them.
pub(super) const SPACE: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// Cuts a text.
pub(super) fn split(text: &str, escape: Escape) -> Result<Parts<'_>, ParseErrorKind> {
    let start = text.len() - text.trim_start().len();
    let line = text.trim();
    let (name, rest) = line.split_once(SPACE).unwrap_or((line, ""));
    let rest = rest.trim_start_matches(SPACE);
    let rest_at = start + line.len() - rest.len();
    let (flags, args) = flags(rest, escape.char())?;
    let args_at = rest_at + rest.len() - args.len();
    let args_at = args_at + args.len() - args.trim_start().len();
    let flags = flags.into_iter().map(|(f, at)| (f, at + rest_at)).collect();
    Ok(Parts { name, flags, args: args.trim(), args_at })
}

/// The words at the start that begin with `--`, and the rest. `--` alone ends them.
fn flags(line: &str, escape: char) -> Result<(Vec<At<String>>, &str), ParseErrorKind> {
    let mut found = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return Ok((found, rest));
        }
        let at = line.len() - rest.len();
        let (word, after) = flag(rest, escape);
        rest = after;
        match word.strip_prefix("--") {
            Some("") => return Ok((found, rest)),
            Some(name) => found.push((name.to_owned(), at)),
            None => return Ok((found, rest)),
        }
        if found.len() > MAX_WORDS {
            return Err(ParseErrorKind::TooManyWords);
        }
    }
}

/// One word with its quotes and escapes removed.
fn flag(text: &str, escape: char) -> (String, &str) {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    loop {
        let before = chars.as_str();
        let Some(c) = chars.next() else { return (out, "") };
        match quote {
            None if c.is_whitespace() => return (out, before),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ if c == escape => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
}

/// Words between white space, quotes left on: those of `ENV`, `LABEL` and `ARG`.
pub(super) fn quoted(text: &str, escape: Escape) -> Result<Vec<At<String>>, ParseErrorKind> {
    let escape = escape.char();
    let mut words = Vec::new();
    let mut word: Option<At<String>> = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take());
            if words.len() > MAX_WORDS {
                return Err(ParseErrorKind::TooManyWords);
            }
            continue;
        }
        let (out, _) = word.get_or_insert_with(|| (String::new(), at));
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            // Nothing is escaped between single quotes; at the very end the character is dropped.
            _ if c == escape && quote != Some('\'') => {
                if let Some((_, next)) = chars.next() {
                    out.push(c);
                    out.push(next);
                }
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    words.extend(word.filter(|(w, _)| !w.is_empty()));
    Ok(words)
}

/// Words between [`SPACE`].
pub(super) fn plain(text: &str) -> Result<Vec<At<String>>, ParseErrorKind> {
    let mut words = Vec::new();
    let mut at = 0;
    for word in text.split(SPACE) {
        if !word.is_empty() {
            words.push((word.to_owned(), at));
        }
        if words.len() > MAX_WORDS {
            return Err(ParseErrorKind::TooManyWords);
        }
        at += word.len() + 1;
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, flags: &[&str], args: &str) {
        let parts = split(text, Escape::Backslash).unwrap();
        let found: Vec<&str> = parts.flags.iter().map(|(f, _)| f.as_str()).collect();
        assert_eq!((parts.name, found.as_slice(), parts.args), ("X", flags, args), "{text}");
        assert!(text[parts.args_at..].starts_with(args), "{text}: {}", parts.args_at);
        for (f, at) in &parts.flags {
            assert!(text[*at..].starts_with("--"), "{text}: {f} at {at}");
        }
    }

    #[test]
    fn flags_and_arguments() {
        check("X", &[], "");
        check("X  a  b ", &[], "a  b");
        check("X --a=1   --b c --d", &["a=1", "b"], "c --d");
        check("X --a=\"1 2\" '--x'", &["a=1 2"], "'--x'");
        check("X --a=é\\ b c", &["a=é b"], "c");
        check("X --a -- --b", &["a"], "--b");
        check("X --", &[], "");
        check("X --a=\"open", &["a=open"], "");
        check(" \tX\t--a\t-b", &["a"], "-b");
    }

    #[test]
    fn words_with_quotes() {
        let words = |t| -> Vec<String> {
            quoted(t, Escape::Backslash).unwrap().into_iter().map(|(w, _)| w).collect()
        };
        assert_eq!(words(r#"a=1 b="x y" c='p q'r"#), ["a=1", "b=\"x y\"", "c='p q'r"]);
        assert_eq!(words(r#"a=x\ y b="q\" z" c='\'"#), ["a=x\\ y", "b=\"q\\\" z\"", "c='\\'"]);
        assert_eq!(words("a=1\\"), ["a=1"]);
        assert_eq!(words(" \\"), Vec::<String>::new());
        assert_eq!(words("\"\""), ["\"\""]);
        assert_eq!(words("a=\"open x"), ["a=\"open x"]);
    }
}
