//! Durations as Go writes them: `1h2m3.5s`, `300ms`.

use std::time::Duration;

/// A duration that is not negative; `None` for what is none, and for one beyond 292 years.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u64 = 0;
    loop {
        let (value, after) = component(rest)?;
        nanos = nanos.checked_add(value).filter(|n| *n <= i64::MAX as u64)?;
        if after.is_empty() {
            return Some(Duration::from_nanos(nanos));
        }
        rest = after;
    }
}

/// A number and its unit, in nanoseconds.
fn component(text: &str) -> Option<(u64, &str)> {
    let digits = |s: &str| s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (whole, rest) = text.split_at_checked(digits(text))?;
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(r) => r.split_at_checked(digits(r))?,
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("\u{3bc}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let (unit, rest) = UNITS.iter().find_map(|(name, unit)| Some((*unit, rest.strip_prefix(name)?)))?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(place.saturating_mul(u64::from(digit - b'0')))?;
    }
    Some((nanos, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(parse(text).map(|d| d.as_micros()), ms.map(u128::from), "{text}")
        };
        check("30s", Some(30_000_000));
        check("1h2m3.5s", Some(3_723_500_000));
        check("1.5h", Some(5_400_000_000));
        check(".5ms", Some(500));
        check("1.s", Some(1_000_000));
        check("0", Some(0));
        check("+5us", Some(5));
        check("5\u{b5}s", Some(5));
        for bad in ["", "5", "s", ".s", "5x", "-5s", "1h2", "1 s", "99999999999h", "9223372036854775808ns"] {
            check(bad, None);
        }
    }
}
