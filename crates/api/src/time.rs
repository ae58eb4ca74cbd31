//! Times as the API writes and reads them.

use jiff::Timestamp;

/// What "never" looks like.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// Nanoseconds since 1970 as RFC 3339, trailing zeros of the fraction trimmed; 0 is [`ZERO`].
#[must_use]
pub fn rfc3339_nano(nanos: i64) -> String {
    match nanos {
        0 => ZERO.to_owned(),
        n => Timestamp::from_nanosecond(i128::from(n)).map_or_else(|_| ZERO.to_owned(), |t| t.to_string()),
    }
}

/// A time from a document in the same form; what is no time becomes [`ZERO`].
#[must_use]
pub fn tidy_rfc3339(text: &str) -> String {
    match text {
        ZERO => ZERO.to_owned(),
        text => text.parse::<Timestamp>().map_or_else(|_| ZERO.to_owned(), |t| t.to_string()),
    }
}

/// The same to the second, as volumes show it.
#[must_use]
pub fn rfc3339(nanos: i64) -> String {
    rfc3339_nano(nanos - nanos.rem_euclid(1_000_000_000))
}

/// The fraction with all nine digits, as log lines show it.
#[must_use]
pub fn rfc3339_nano_fixed(nanos: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(t) => format!("{t:.9}"),
        Err(_) => ZERO.to_owned(),
    }
}

/// Nanoseconds since 1970 of an RFC 3339 time; `None` if it is none, 0 for the zero time.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    if text == ZERO {
        return Some(0);
    }
    i64::try_from(text.parse::<Timestamp>().ok()?.as_nanosecond()).ok()
}

/// Reads `since` and `until`: seconds since 1970 with a fraction (`1700000000.000000001`), an
/// RFC 3339 time, a date or time without zone (UTC), or a Go duration before `now` (`1h30m`).
#[must_use]
pub fn parse_moment(text: &str, now: i64) -> Option<i64> {
    if let Some(ago) = parse_duration(text) {
        return now.checked_sub(ago);
    }
    if text.contains('-') && !text.starts_with('-') {
        return parse_rfc3339(text).or_else(|| parse_local(text));
    }
    parse_seconds(text)
}

/// `2006-01-02T15:04:05` and its shorter forms, in UTC.
fn parse_local(text: &str) -> Option<i64> {
    let padded = match text.len() {
        // Date; hour; minute. Zulu may follow the shorter ones.
        10 => format!("{text}T00:00:00"),
        13 => format!("{text}:00:00"),
        16 => format!("{text}:00"),
        _ => text.trim_end_matches('Z').to_owned(),
    };
    let local: jiff::civil::DateTime = padded.parse().ok()?;
    let zoned = local.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    i64::try_from(zoned.timestamp().as_nanosecond()).ok()
}

fn parse_seconds(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let whole = seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?;
    whole.checked_add(if seconds.starts_with('-') { -nanos } else { nanos })
}

/// A Go duration in nanoseconds: `300ms`, `-1.5h`, `2h45m`. Plain numbers are none.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        rest = after;
        let scale: i64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let mut nanos = whole.checked_mul(scale)?;
        let mut place = scale;
        for digit in fraction.chars() {
            place /= 10;
            nanos = nanos.checked_add(i64::from(digit.to_digit(10)?).checked_mul(place)?)?;
        }
        total = total.checked_add(nanos)?;
    }
    Some(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(rfc3339_nano(1_795_474_418_660_564_663), "2026-11-23T22:53:38.660564663Z");
        assert_eq!(rfc3339_nano(1_795_474_421_212_652_450), "2026-11-23T22:53:41.21265245Z");
        assert_eq!(rfc3339_nano(1_700_000_000_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339_nano(0), ZERO);
        assert_eq!(tidy_rfc3339("1970-01-01T01:00:00.50+01:00"), "1970-01-01T00:00:00.5Z");
        assert_eq!((tidy_rfc3339(ZERO), tidy_rfc3339("x")), (ZERO.to_owned(), ZERO.to_owned()));
        assert_eq!(rfc3339(1_795_474_418_660_564_663), "2026-11-23T22:53:38Z");
        assert_eq!(rfc3339_nano_fixed(1_795_474_421_212_652_400), "2026-11-23T22:53:41.212652400Z");
        assert_eq!(parse_rfc3339("2026-11-23T22:53:38.660564663Z"), Some(1_795_474_418_660_564_663));
        assert_eq!(parse_rfc3339(ZERO), Some(0));
    }

    #[test]
    fn moments_come_in_many_forms() {
        let now = 1_000_000_000_000_000_000;
        let at = |t: &str| parse_moment(t, now);
        assert_eq!(at("1700000000"), Some(1_700_000_000_000_000_000));
        assert_eq!(at("1700000000.000000001"), Some(1_700_000_000_000_000_001));
        assert_eq!(at("1700000000.5"), Some(1_700_000_000_500_000_000));
        assert_eq!(at("2023-11-14T22:13:20Z"), Some(1_700_000_000_000_000_000));
        assert_eq!(at("2023-11-15T00:13:20+02:00"), Some(1_700_000_000_000_000_000));
        assert_eq!(at("2023-11-14T22:13"), Some(1_699_999_980_000_000_000));
        assert_eq!(at("2023-11-14"), Some(1_699_920_000_000_000_000));
        assert_eq!(at("1h30m"), Some(now - 5_400_000_000_000));
        assert_eq!(at("0"), Some(0));
        for bad in ["", "x", "1.x", "12h5", "2023-99-99", "1.0000000001", "99999999999999999999", "h", "."] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse_duration("1.5h"), Some(5_400_000_000_000));
        assert_eq!(parse_duration("300ms"), Some(300_000_000));
        assert_eq!(parse_duration("-2m"), Some(-120_000_000_000));
        assert_eq!(parse_duration("9223372036854775807h"), None);
        assert_eq!(parse_duration("5"), None);
    }
}
