//! Sizes, times and durations for people.

use jiff::Timestamp;

/// Docker's units of a thousand: `12.3MB`, four significant digits.
pub(crate) fn size(bytes: i64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], 3)
}

/// The same with one digit more, as docker shows sums.
pub(crate) fn total(bytes: i64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], 4)
}

/// Units of 1024, four digits: `23.54GiB`.
pub(crate) fn binary(bytes: i64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

fn scaled(bytes: i64, base: f64, units: &[&str], digits: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    // Go's %.3g / %.4g: significant digits, no trailing zeros.
    let whole = match value {
        v if v >= 1000.0 => 4,
        v if v >= 100.0 => 3,
        v if v >= 10.0 => 2,
        _ => 1,
    };
    let mut text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    format!("{text}{}", units[unit])
}

/// How long something lasted, in words: `2 minutes`.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        s if s < 1 => "Less than a second".into(),
        1 => "1 second".into(),
        s if s < 60 => format!("{s} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago a second of the epoch was.
pub(crate) fn ago(seconds: i64) -> String {
    if seconds <= 0 {
        return "N/A".into();
    }
    format!("{} ago", duration(Timestamp::now().as_second() - seconds))
}

/// As `docker ps --format {{.CreatedAt}}` prints a time.
pub(crate) fn local(seconds: i64) -> String {
    let Ok(time) = Timestamp::from_second(seconds) else { return String::new() };
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// A second of the epoch as RFC 3339.
pub(crate) fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).map(|t| zoned(t, "%Y-%m-%dT%H:%M:%S")).unwrap_or_default()
}

/// A nanosecond of the epoch as RFC 3339 with all its digits.
pub(crate) fn rfc3339_nanos(nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanos))
        .map(|t| zoned(t, "%Y-%m-%dT%H:%M:%S.%9f"))
        .unwrap_or_default()
}

/// In this machine's zone; Go writes `Z` where that is UTC.
fn zoned(time: Timestamp, format: &str) -> String {
    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
    let zone = if zoned.offset().is_zero() { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    format!("{}{zone}", zoned.strftime(format))
}

/// A time of the API as Go prints it by itself: `2026-01-01 00:00:00.5 +0000 UTC`.
pub(crate) fn go_time(text: &str) -> String {
    let Ok(time) = text.parse::<Timestamp>() else { return text.to_owned() };
    let utc = time.to_zoned(jiff::tz::TimeZone::UTC);
    utc.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

/// A moment as the API takes it: a duration before now, a date with or without time and zone, or seconds of the epoch.
pub(crate) fn timestamp(text: &str) -> Result<String, String> {
    timestamp_at(text, Timestamp::now())
}

fn timestamp_at(text: &str, now: Timestamp) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    if text != "0"
        && let Ok(nanos) = crate::args::units::duration(text)
    {
        let then = now.as_nanosecond() - i128::from(nanos);
        return Ok(then.div_euclid(1_000_000_000).to_string());
    }
    if let Some(time) = date(text) {
        let nanos = time.as_nanosecond();
        return Ok(format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000)));
    }
    let (seconds, rest) = text.split_once('.').unwrap_or((text, "0"));
    if seconds.parse::<i64>().is_ok() && rest.parse::<u32>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!("failed to parse value as time or duration: {text:?}"))
}

/// A date, perhaps with hours, minutes and seconds; in this machine's zone unless it names another.
fn date(text: &str) -> Option<Timestamp> {
    let day = text.get(..10).filter(|d| d.as_bytes()[4] == b'-')?;
    let rest = &text[10..];
    let (clock, zone) = match rest.find(['Z', 'z', '+', '-']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let clock = match clock.strip_prefix('T') {
        Some(time) => match time.matches(':').count() {
            0 => format!("{time}:00:00"),
            1 => format!("{time}:00"),
            _ => time.to_owned(),
        },
        None if clock.is_empty() => "00:00:00".to_owned(),
        None => return None,
    };
    if zone.is_empty() {
        let civil: jiff::civil::DateTime = format!("{day}T{clock}").parse().ok()?;
        return civil.to_zoned(jiff::tz::TimeZone::system()).ok().map(|z| z.timestamp());
    }
    format!("{day}T{clock}{zone}").parse().ok()
}

/// The first 12 digits of an id.
pub(crate) fn short_id(id: &str) -> String {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.chars().take(12).collect()
}

/// At most `width` characters, the last one an ellipsis when something is left out.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['\u{2026}']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (n, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_234_567, "1.23MB"),
            (173_254_410, "173MB"),
            (1_980_000, "1.98MB"),
        ] {
            assert_eq!(size(n), text);
        }
    }

    #[test]
    fn durations_are_dockers() {
        for (s, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (86400 * 3, "3 days"),
            (86400 * 20, "2 weeks"),
            (86400 * 304, "10 months"),
        ] {
            assert_eq!(duration(s), text, "{s}");
        }
    }

    #[test]
    fn moments_are_read_as_docker_reads_them() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (text, want) in [
            ("", ""),
            ("10s", "999990"),
            ("2h", "992800"),
            ("0", "0"),
            ("1700000000.5", "1700000000.5"),
            ("1970-01-02T00:00:00Z", "86400.000000000"),
            ("1970-01-02T00:00:00.25Z", "86400.250000000"),
            ("1970-01-02T01:00+01:00", "86400.000000000"),
            ("1970-01-02Z", "86400.000000000"),
        ] {
            assert_eq!(timestamp_at(text, now).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(timestamp_at("x", now).unwrap_err(), "failed to parse value as time or duration: \"x\"");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(ellipsis("abcdef", 4), "abc\u{2026}");
        assert_eq!(ellipsis("abcd", 4), "abcd");
    }
}
