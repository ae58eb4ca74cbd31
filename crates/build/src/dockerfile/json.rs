//! The JSON form of commands and paths: an array of strings.

/// What a text that may be a JSON array is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Array {
    /// An array of strings.
    Strings(Vec<String>),
    /// An array with something else in it.
    Others,
    /// No JSON array: the other form is meant.
    Not,
}

/// Arrays and objects deeper than this are not looked at: nothing but strings is of use.
const MAX_DEPTH: usize = 64;

/// Reads the whole of `text` as one array.
pub(super) fn array(text: &str) -> Array {
    let mut input = Input(text.trim_start());
    if !input.0.starts_with('[') {
        return Array::Not;
    }
    let mut strings = Vec::new();
    let mut others = false;
    let read = input.list('[', ']', |input| {
        if input.0.starts_with('"') {
            strings.push(input.string()?);
            return Some(());
        }
        others = true;
        input.value(0)
    });
    if read.is_none() || !input.space().is_empty() {
        return Array::Not;
    }
    if others { Array::Others } else { Array::Strings(strings) }
}

struct Input<'a>(&'a str);

impl<'a> Input<'a> {
    /// What is left, without space in front.
    fn space(&mut self) -> &'a str {
        self.0 = self.0.trim_start_matches([' ', '\t', '\n', '\r']);
        self.0
    }

    fn take(&mut self, prefix: impl AsRef<str>) -> Option<()> {
        self.0 = self.0.strip_prefix(prefix.as_ref())?;
        Some(())
    }

    /// `open item , item close`
    fn list(&mut self, open: char, close: char, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.0 = self.0.strip_prefix(open)?;
        if let Some(rest) = self.space().strip_prefix(close) {
            self.0 = rest;
            return Some(());
        }
        loop {
            self.space();
            item(self)?;
            let rest = self.space();
            if let Some(rest) = rest.strip_prefix(close) {
                self.0 = rest;
                return Some(());
            }
            self.take(",")?;
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.space().chars().next()? {
            '"' => self.string().map(drop),
            '[' => self.list('[', ']', |i| i.value(depth + 1)),
            '{' => self.list('{', '}', |i| {
                i.string()?;
                i.space();
                i.take(":")?;
                i.value(depth + 1)
            }),
            't' => self.take("true"),
            'f' => self.take("false"),
            'n' => self.take("null"),
            _ => self.number(),
        }
    }

    fn number(&mut self) -> Option<()> {
        let rest = self.0.strip_prefix('-').unwrap_or(self.0);
        let digits = |s: &'a str| s.trim_start_matches(|c: char| c.is_ascii_digit());
        let some = |before: &str, after: &str| (after.len() < before.len()).then_some(());
        let mut after = match rest.strip_prefix('0') {
            Some(after) => after,
            None => digits(rest),
        };
        some(rest, after)?;
        if let Some(fraction) = after.strip_prefix('.') {
            after = digits(fraction);
            some(fraction, after)?;
        }
        if let Some(exponent) = after.strip_prefix(['e', 'E']) {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            after = digits(exponent);
            some(exponent, after)?;
        }
        self.0 = after;
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        let quoted = self.0.strip_prefix('"')?;
        let mut out = String::new();
        let mut chars = quoted.chars();
        loop {
            match chars.next()? {
                '"' => {
                    self.0 = chars.as_str();
                    return Some(out);
                }
                '\\' => match chars.next()? {
                    'u' => out.push(escaped(&mut chars)?),
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    'n' => out.push('\n'),
                    'r' => out.push('\r'),
                    't' => out.push('\t'),
                    c @ ('"' | '\\' | '/') => out.push(c),
                    _ => return None,
                },
                c if c < ' ' => return None,
                c => out.push(c),
            }
        }
    }
}

/// After `\u`: four digits, or two halves of a pair. A half alone is U+FFFD, as with Docker.
fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let unit = hex(chars)?;
    if (0xd800..0xdc00).contains(&unit) {
        let mut ahead = chars.clone();
        if ahead.next() == Some('\\') && ahead.next() == Some('u') {
            let low = hex(&mut ahead)?;
            if (0xdc00..0xe000).contains(&low) {
                *chars = ahead;
                return char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
            }
        }
    }
    Some(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
}

fn hex(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    let mut unit = 0;
    for _ in 0..4 {
        unit = unit * 16 + chars.next()?.to_digit(16)?;
    }
    Some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Array {
        Array::Strings(list.iter().map(|s| (*s).to_owned()).collect())
    }

    #[test]
    fn arrays_of_strings() {
        assert_eq!(array(r#"["a", "b c"]"#), strings(&["a", "b c"]));
        assert_eq!(array("  [ ]  "), strings(&[]));
        assert_eq!(
            array("[\t\"\\u0041\\n\\\"\\/\\ud83d\\ude00\\ud83d\"]"),
            strings(&["A\n\"/\u{1f600}\u{fffd}"])
        );
    }

    #[test]
    fn what_else_there_is() {
        for text in ["[1]", r#"["a", null, -0.5e+3, true, {"k": [false]}, []]"#, "[[]]"] {
            assert_eq!(array(text), Array::Others, "{text}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in [
            "",
            "a",
            "['a']",
            r#"["a",]"#,
            r#"["a"] b"#,
            r#"["a" "b"]"#,
            "[",
            r#"["\x"]"#,
            "[01]",
            "[-]",
            "[\"\t\"]",
            &deep,
        ] {
            assert_eq!(array(text), Array::Not, "{text:.20}");
        }
    }
}
