//! Small headers, parsed: `Link`, `Range`, `Content-Range`, `Retry-After`, `Content-Disposition`. Pure.

use std::time::{Duration, SystemTime};

use hyper::header::{AsHeaderName, HeaderMap};

use crate::proxy::decode;

/// A header's text, if it is there and is text.
pub(crate) fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The address of the next page: `<...>; rel="next"` (RFC 8288).
pub(crate) fn next_link(value: &str) -> Option<&str> {
    let mut rest = value;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (address, params) = after.split_once('>')?;
        let end = params.find('<').unwrap_or(params.len());
        let is_next = params[..end].split([';', ',']).any(|p| {
            let (name, rel) = p.split_once('=').unwrap_or((p, ""));
            name.trim().eq_ignore_ascii_case("rel")
                && rel.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        if is_next {
            return Some(address);
        }
        rest = &params[end..];
    }
}

/// What a registry has of an upload: `0-N`, inclusive. It is the number of bytes; `None` for `0-0`, which registries
/// say of none and of one.
pub(crate) fn upload_range(value: &str) -> Option<u64> {
    let (first, last) = value.trim().trim_start_matches("bytes=").split_once('-')?;
    match (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?) {
        (0, 0) => None,
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

/// `bytes FIRST-LAST/SIZE`; the size may be `*`.
pub(crate) fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, size) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last, size))
}

/// Seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, hyper::header::RETRY_AFTER)?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The file's name in a `Content-Disposition` (RFC 6266): a name alone, whatever path the server gave it.
pub(crate) fn file_name(value: &str) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    let mut rest = value.split_once(';')?.1;
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, more) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = Some(value),
            "filename*" => extended = decoded(&value),
            _ => {}
        }
        match more.split_once(';') {
            Some((_, more)) if !more.trim().is_empty() => rest = more,
            _ => break,
        }
    }
    let name = extended.or(plain)?;
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let bad = matches!(name, "" | "." | "..") || name.len() > 255 || name.chars().any(char::is_control);
    (!bad).then(|| name.to_owned())
}

/// What stands in quotes up to the next one, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

/// `UTF-8'language'percent-encoded` (RFC 8187).
fn decoded(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, text) = rest.split_once('\'')?;
    charset.eq_ignore_ascii_case("utf-8").then(|| String::from_utf8(decode(text)).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names() {
        for (value, want) in [
            ("attachment; filename=a.txt", Some("a.txt")),
            ("attachment; x=y; filename=\"a \\\"b\\\".txt\"; z", Some("a \"b\".txt")),
            ("attachment; filename=\"e.txt\"; filename*=UTF-8''%c3%a9.txt", Some("é.txt")),
            ("attachment; filename*=latin1''x; filename=y", Some("y")),
            ("attachment; filename=../../etc/passwd", Some("passwd")),
            ("attachment; filename=\"..\"", None),
            ("attachment; filename=\"a", None),
            ("attachment; filename=a/", None),
            ("attachment", None),
            ("inline; filename", None),
        ] {
            assert_eq!(file_name(value).as_deref(), want, "{value}");
        }
    }

    #[test]
    fn links() {
        assert_eq!(
            next_link(r#"</v2/a/tags/list?last=b&n=1>; rel="next""#),
            Some("/v2/a/tags/list?last=b&n=1")
        );
        assert_eq!(next_link(r#"<a>; rel=prev, <b>; title="x"; REL=next"#), Some("b"));
        assert_eq!(next_link("<a>; rel=prev"), None);
        assert_eq!(next_link("<a"), None);
        assert_eq!(next_link(""), None);
    }

    #[test]
    fn ranges() {
        assert_eq!(upload_range("0-1023"), Some(1024));
        assert_eq!(upload_range("bytes=0-1"), Some(2));
        for unclear in ["0-0", "5-9", "", "x", "0-18446744073709551615", "-"] {
            assert_eq!(upload_range(unclear), None, "{unclear}");
        }
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        for bad in ["bytes 9-5/10", "bytes */10", "5-9/10", "bytes 5-9", "bytes a-b/c"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn waits() {
        let mut headers = HeaderMap::new();
        let mut after = |value: &str| {
            headers.insert("retry-after", value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }
}
