//! Time as nanoseconds since 1970 and as RFC 3339 text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::model::UnixNanos;

/// Now.
pub(crate) fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339 with as many digits as needed, as Go prints it.
pub(crate) fn rfc3339(nanos: UnixNanos) -> String {
    match Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(t) => t.to_string(),
        Err(_) => "0001-01-01T00:00:00Z".to_owned(),
    }
}

/// RFC 3339 with nine digits, as log lines show it.
pub(crate) fn rfc3339_nano9(nanos: UnixNanos) -> String {
    match Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(t) => format!("{t:.9}"),
        Err(_) => "0001-01-01T00:00:00.000000000Z".to_owned(),
    }
}

/// The time that `text` tells; `None` when it tells none.
pub(crate) fn parse_rfc3339(text: &str) -> Option<UnixNanos> {
    i64::try_from(text.parse::<Timestamp>().ok()?.as_nanosecond()).ok()
}

/// A filter's time: seconds since 1970 with an optional fraction, RFC 3339 or a beginning of it (`2026-01-02`,
/// `2026-01-02T15:04`, then in the daemon's time zone), or a duration (`10m`, `1h30m`) before `now`.
pub(crate) fn parse_filter_time(text: &str, now: UnixNanos) -> Option<UnixNanos> {
    if let Some(t) = parse_rfc3339(text) {
        return Some(t);
    }
    if let Some(t) = parse_local(text, &TimeZone::system()) {
        return Some(t);
    }
    let (secs, frac) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(s) = secs.parse::<i64>() {
        if !frac.bytes().all(|b| b.is_ascii_digit()) || frac.len() > 9 {
            return None;
        }
        let nanos = format!("{frac:0<9}").parse::<i64>().ok()?;
        return s.checked_mul(1_000_000_000)?.checked_add(nanos);
    }
    now.checked_sub(parse_go_duration(text)?)
}

/// A date, or a date and the beginning of a time; `Z` at the end means UTC.
fn parse_local(text: &str, zone: &TimeZone) -> Option<UnixNanos> {
    let (text, zone) = match text.strip_suffix('Z') {
        Some(text) => (text, TimeZone::UTC),
        None => (text, zone.clone()),
    };
    // A number of seconds is no date.
    if !matches!(text.split('-').collect::<Vec<_>>()[..], [y, _, _] if y.len() == 4) {
        return None;
    }
    let time = match text.split_once('T') {
        Some((_, time)) if time.len() == 2 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let time: DateTime = time.parse().ok()?;
    i64::try_from(time.to_zoned(zone).ok()?.timestamp().as_nanosecond()).ok()
}

/// Go's duration text in nanoseconds.
pub(crate) fn parse_go_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number = rest[..end].parse::<i64>().ok()?;
        rest = &rest[end..];
        let units: [(&str, i64); 7] = [
            ("ns", 1),
            ("us", 1_000),
            ("\u{b5}s", 1_000),
            ("ms", 1_000_000),
            ("s", 1_000_000_000),
            ("m", 60_000_000_000),
            ("h", 3_600_000_000_000),
        ];
        let (unit, factor) = units.into_iter().find(|(u, _)| rest.starts_with(u))?;
        rest = &rest[unit.len()..];
        total = total.checked_add(number.checked_mul(factor)?)?;
    }
    Some(total)
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `500ms`.
pub(crate) fn go_duration(d: Duration) -> String {
    let nanos = d.as_nanos();
    let fraction = |unit: u128, digits: usize| {
        let text = format!("{}.{:0digits$}", nanos / unit, nanos % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => format!("{}\u{b5}s", fraction(1_000, 3)),
        n if n < 1_000_000_000 => format!("{}ms", fraction(1_000_000, 6)),
        _ => {
            let (hours, minutes) = (d.as_secs() / 3600, d.as_secs() / 60 % 60);
            let seconds = format!("{}.{:09}", d.as_secs() % 60, d.subsec_nanos());
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        let of = |nanos: u64| go_duration(Duration::from_nanos(nanos));
        let (ms, s) = (1_000_000, 1_000_000_000);
        assert_eq!([of(0), of(7), of(1500), of(500 * ms)], ["0s", "7ns", "1.5\u{b5}s", "500ms"]);
        assert_eq!([of(ms + 50_000), of(1500 * ms), of(10 * s)], ["1.05ms", "1.5s", "10s"]);
        assert_eq!([of(90 * s), of(3600 * s), of(3_600_007 * ms)], ["1m30s", "1h0m0s", "1h0m0.007s"]);
    }

    #[test]
    fn prints_and_parses() {
        let t = parse_rfc3339("2026-11-23T22:53:41.623442993Z").expect("time");
        assert_eq!(rfc3339_nano9(t), "2026-11-23T22:53:41.623442993Z");
        assert_eq!(rfc3339_nano9(t - 623_442_993), "2026-11-23T22:53:41.000000000Z");
        assert_eq!(rfc3339(t - 623_442_993), "2026-11-23T22:53:41Z");
    }

    #[test]
    fn filter_times() {
        assert_eq!(parse_filter_time("10", 0), Some(10_000_000_000));
        assert_eq!(parse_filter_time("10.5", 0), Some(10_500_000_000));
        assert_eq!(parse_filter_time("1h30m", 0), Some(-5_400_000_000_000));
        let day = 1_388_534_400_000_000_000;
        assert_eq!(parse_local("2014-01-01", &TimeZone::UTC), Some(day));
        assert_eq!(parse_local("2014-01-01T01", &TimeZone::UTC), Some(day + 3_600_000_000_000));
        assert_eq!(parse_filter_time("2014-01-01T00:01Z", 0), Some(day + 60_000_000_000));
        assert_eq!(parse_filter_time("2014-01-01T00:00:01.5Z", 0), Some(day + 1_500_000_000));
        assert_eq!(parse_local("2014-13-01", &TimeZone::UTC), None);
        assert_eq!(parse_filter_time("x", 0), None);
        assert_eq!(parse_filter_time("", 0), None);
    }
}
