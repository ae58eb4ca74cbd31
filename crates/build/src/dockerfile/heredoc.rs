//! `<<EOF`: found in a line, read from those below it.

use super::ast::Heredoc;
use super::error::{ParseError, ParseErrorKind};
use super::expand::{delimiter_words, raw_words};
use super::limits::MAX_HEREDOCS;
use super::lines::{Lines, Logical, trim_newline};

/// `[n]<<[-]word`, where `text` is that and nothing else; without content.
pub(super) fn marker(text: &str) -> Option<Heredoc> {
    let after = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.get(..text.len() - after.len())?;
    let rest = after.strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let one = |raw| delimiter_words(rest, raw).ok().and_then(|w| <[String; 1]>::try_from(w).ok());
    let ([name], [raw]) = (one(false)?, one(true)?);
    // Where quotes were removed, some part of the delimiter was quoted.
    let quotes = |s: &str| s.matches(['\'', '"']).count();
    let expand = quotes(&name) == quotes(&raw);
    // No descriptor has a number that is not one.
    let fd = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some(Heredoc { name, fd, expand, chomp, content: String::new() })
}

/// Reads the heredocs that `text` names from the lines that follow.
pub(super) fn read(text: &Logical, lines: &mut Lines<'_>) -> Result<Vec<Heredoc>, ParseError> {
    // A line that no shell could read has no heredocs.
    let words = raw_words(&text.text).unwrap_or_default();
    let mut found: Vec<Heredoc> = words.iter().filter_map(|w| marker(w)).collect();
    let error = |kind, line| ParseError { kind, span: text.span(line) };
    if found.len() > MAX_HEREDOCS {
        return Err(error(ParseErrorKind::TooManyHeredocs, lines.number));
    }
    for heredoc in &mut found {
        let own = lines.number;
        loop {
            let Some(line) = lines.line()? else {
                let name = heredoc.name.chars().take(100).collect();
                return Err(error(ParseErrorKind::Unterminated(name), own));
            };
            let bare = trim_newline(line);
            let bare = if heredoc.chomp { bare.trim_start_matches('\t') } else { bare };
            if bare == heredoc.name {
                break;
            }
            heredoc.content.push_str(line);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers() {
        let check = |text: &str, want: Option<(&str, u32, bool, bool)>| {
            let got = marker(text);
            let got = got.as_ref().map(|h| (h.name.as_str(), h.fd, h.expand, h.chomp));
            assert_eq!(got, want, "{text}");
        };
        check("<<EOF", Some(("EOF", 0, true, false)));
        check("3<<-EOF", Some(("EOF", 3, true, true)));
        check("<<'EOF'", Some(("EOF", 0, false, false)));
        check("<<\"E O\"F", Some(("E OF", 0, false, false)));
        check("<< EOF", Some(("EOF", 0, true, false)));
        check("<<a.txt", Some(("a.txt", 0, true, false)));
        check("<<$X", Some(("$X", 0, true, false)));
        for not in ["<<", "<<-", "<<<EOF", "a<<EOF", "<EOF", "<<a b", "<<'a", "99999999999<<EOF", "\"<<EOF\""]
        {
            check(not, None);
        }
    }
}
