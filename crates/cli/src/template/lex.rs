//! Text to tokens.

use super::{Error, Result};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Outside of actions.
    Text(String),
    Open,
    Close,
    Word(String),
    /// `.a.b`; `.` alone has no names.
    Field(Vec<String>),
    /// `$x.a`; `$` alone is the top object.
    Variable(String, Vec<String>),
    String(String),
    Int(i64),
    Float(f64),
    Pipe,
    Left,
    Right,
    Comma,
    Declare,
    Assign,
}

const MAX_TEMPLATE: usize = 1 << 20;

pub(super) fn tokens(text: &str) -> Result<Vec<Token>> {
    if text.len() > MAX_TEMPLATE {
        return Err(Error("template: :1: the template is too long".into()));
    }
    let mut out = Vec::new();
    let mut rest = text;
    let mut trim_left = false;
    while let Some(at) = rest.find("{{") {
        let mut plain = &rest[..at];
        rest = &rest[at + 2..];
        if trim_left {
            plain = plain.trim_start();
        }
        let trims = rest.starts_with('-') && rest[1..].starts_with(char::is_whitespace);
        if trims {
            plain = plain.trim_end();
            rest = &rest[1..];
        }
        if !plain.is_empty() {
            out.push(Token::Text(plain.to_owned()));
        }
        let inner = rest.trim_start();
        if let Some(comment) = inner.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| Error("template: :1: unclosed comment".into()))?;
            let after = &comment[end + 2..];
            let trimmed = after.trim_start();
            trim_left = after.starts_with(char::is_whitespace) && trimmed.starts_with('-');
            let close = if trim_left { &trimmed[1..] } else { trimmed };
            rest = close
                .strip_prefix("}}")
                .ok_or_else(|| Error("template: :1: comment ends before closing delimiter".into()))?;
            continue;
        }
        out.push(Token::Open);
        (rest, trim_left) = action(rest, &mut out)?;
        out.push(Token::Close);
    }
    let last = if trim_left { rest.trim_start() } else { rest };
    if !last.is_empty() {
        out.push(Token::Text(last.to_owned()));
    }
    Ok(out)
}

/// The tokens of one action; gives what follows it, and whether white space after it goes.
fn action<'a>(text: &'a str, out: &mut Vec<Token>) -> Result<(&'a str, bool)> {
    let mut rest = text;
    loop {
        let spaced = rest.starts_with(char::is_whitespace);
        rest = rest.trim_start();
        if spaced && rest.starts_with("-}}") {
            return Ok((&rest[3..], true));
        }
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((after, false));
        }
        let Some(c) = rest.chars().next() else { return Err(Error("template: :1: unclosed action".into())) };
        rest = match c {
            '|' => push(out, Token::Pipe, &rest[1..]),
            '(' => push(out, Token::Left, &rest[1..]),
            ')' => {
                let after = push(out, Token::Right, &rest[1..]);
                // `(f x).Field` reads on from what the parentheses gave.
                if after.starts_with('.') && after[1..].starts_with(is_word) {
                    field(after, out)
                } else {
                    after
                }
            }
            ',' => push(out, Token::Comma, &rest[1..]),
            '=' => push(out, Token::Assign, &rest[1..]),
            ':' if rest.starts_with(":=") => push(out, Token::Declare, &rest[2..]),
            '.' => field(rest, out),
            '$' => {
                let name: String = rest[1..].chars().take_while(|c| is_word(*c)).collect();
                let (names, after) = names(&rest[1 + name.len()..]);
                push(out, Token::Variable(name, names), after)
            }
            '"' => quoted(rest, out)?,
            '`' => {
                let end = rest[1..]
                    .find('`')
                    .ok_or_else(|| Error("template: :1: unterminated raw quoted string".into()))?;
                push(out, Token::String(rest[1..=end].to_owned()), &rest[end + 2..])
            }
            c if c.is_ascii_digit()
                || ((c == '-' || c == '+') && rest[1..].starts_with(|d: char| d.is_ascii_digit())) =>
            {
                number(rest, out)?
            }
            c if is_word(c) => {
                let word: String = rest.chars().take_while(|c| is_word(*c)).collect();
                let after = &rest[word.len()..];
                push(out, Token::Word(word), after)
            }
            c => return Err(Error(format!("template: :1: unexpected {:?} in operand", c.to_string()))),
        };
    }
}

fn push<'a>(out: &mut Vec<Token>, token: Token, rest: &'a str) -> &'a str {
    out.push(token);
    rest
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// `.a.b.c`
fn names(text: &str) -> (Vec<String>, &str) {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some(after) = rest.strip_prefix('.') {
        let name: String = after.chars().take_while(|c| is_word(*c)).collect();
        if name.is_empty() {
            break;
        }
        rest = &after[name.len()..];
        out.push(name);
    }
    (out, rest)
}

fn field<'a>(text: &'a str, out: &mut Vec<Token>) -> &'a str {
    let (names, rest) = names(text);
    if names.is_empty() {
        push(out, Token::Field(names), &text[1..])
    } else {
        push(out, Token::Field(names), rest)
    }
}

fn quoted<'a>(text: &'a str, out: &mut Vec<Token>) -> Result<&'a str> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok(push(out, Token::String(value), &text[i + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('"' | '\\' | '\''))) => value.push(c),
                _ => return Err(Error("template: :1: bad escape in quoted string".into())),
            },
            c => value.push(c),
        }
    }
    Err(Error("template: :1: unterminated quoted string".into()))
}

fn number<'a>(text: &'a str, out: &mut Vec<Token>) -> Result<&'a str> {
    let end = text
        .char_indices()
        .skip(1)
        .find(|(_, c)| !(c.is_ascii_alphanumeric() || *c == '.' || *c == '_'))
        .map_or(text.len(), |(i, _)| i);
    let word = &text[..end];
    let bad = || Error(format!("template: :1: bad number syntax: {word:?}"));
    let token = match word.parse::<i64>() {
        Ok(n) => Token::Int(n),
        Err(_) => Token::Float(word.parse().map_err(|_| bad())?),
    };
    Ok(push(out, token, &text[end..]))
}
