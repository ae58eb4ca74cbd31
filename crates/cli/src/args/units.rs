//! Values as docker's options take them.

use crate::error::{Failure, Result};

/// Bytes: `512m`, `1.5g`, `64KiB`, units of 1024.
pub(crate) fn bytes(text: &str) -> Result<i64> {
    let bad = || Failure::new(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let unit = unit.trim();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let value = number * 1024f64.powi(power);
    if !(0.0..9e18).contains(&value) {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked against the limit above")]
    Ok(value as i64)
}

/// The same, and `-1` for no limit.
pub(crate) fn bytes_or_unlimited(text: &str) -> Result<i64> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// Processors in billionths: `1.5`.
pub(crate) fn cpus(text: &str) -> Result<i64> {
    let bad = || Failure::new(format!("failed to parse {text} as a rational number"));
    let value: f64 = text.parse().map_err(|_| bad())?;
    if !(0.0..1e6).contains(&value) {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked against the limit above")]
    Ok((value * 1e9).round() as i64)
}

/// Go's durations, in nanoseconds: `1m30s`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<i64> {
    let bad = || Failure::new(format!("time: invalid duration {text:?}"));
    let (mut rest, mut total) = (text, 0f64);
    if rest == "0" {
        return Ok(0);
    }
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..at].parse().map_err(|_| bad())?;
        rest = &rest[at..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "\u{b5}s" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(bad()),
            };
        rest = &rest[end..];
    }
    if text.is_empty() || total > 9e18 {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked against the limit above")]
    Ok(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_docker_reads_them() {
        assert_eq!(bytes("512m").unwrap(), 512 << 20);
        assert_eq!(bytes("1.5G").unwrap(), 3 << 29);
        assert_eq!(bytes("64KiB").unwrap(), 64 << 10);
        assert_eq!(bytes("100b").unwrap(), 100);
        assert_eq!(bytes_or_unlimited("-1").unwrap(), -1);
        assert_eq!(cpus("1.5").unwrap(), 1_500_000_000);
        assert_eq!(duration("1m30s").unwrap(), 90_000_000_000);
        for bad in ["", "x", "1x", "-5", "1e99g"] {
            assert!(bytes(bad).is_err(), "{bad}");
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
