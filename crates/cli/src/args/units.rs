//! Values as docker's options take them.

/// Bytes: `512m`, `1.5g`, `64KiB`, units of 1024.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let bad = || format!("invalid size: '{text}'");
    let digits = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(bad)?;
    let (number, suffix) = text.split_at(digits + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let number: f64 =
        number.parse().map_err(|_| format!("strconv.ParseFloat: parsing {number:?}: invalid syntax"))?;
    let suffix = suffix.to_ascii_lowercase();
    let power = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(format!("invalid suffix: '{suffix}'")),
    };
    let value = number * 1024f64.powi(power);
    if !(0.0..9e18).contains(&value) {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked against the limit above")]
    Ok(value as i64)
}

/// The same, and `-1` for no limit.
pub(crate) fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// Processors in billionths: `1.5`.
pub(crate) fn cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("failed to parse {text} as a rational number");
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |r| (true, r));
    let (whole, part) = rest.split_once('.').unwrap_or((rest, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + part.len() == 0 || !digits(whole) || !digits(part) {
        return Err(bad());
    }
    let part = part.trim_end_matches('0');
    if part.len() > 9 {
        return Err("value is too precise".into());
    }
    let nanos: i64 = format!("0{whole}{part:0<9}").parse().map_err(|_| bad())?;
    Ok(if negative { -nanos } else { nanos })
}

/// Go's durations, in nanoseconds: `1m30s`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let bad = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let at = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let number: f64 = rest[..at].parse().map_err(|_| bad())?;
        rest = &rest[at..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
            };
        rest = &rest[end..];
    }
    if total > 9e18 {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked against the limit above")]
    Ok((total * sign) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_docker_reads_them() {
        for (text, want) in
            [("512m", 512 << 20), ("1.5G", 3 << 29), ("64KiB", 64 << 10), ("100b", 100), ("1 kb", 1024)]
        {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
        assert_eq!(
            (cpus("1.5"), cpus(".5"), cpus("-1")),
            (Ok(1_500_000_000), Ok(500_000_000), Ok(-1_000_000_000))
        );
        assert_eq!((duration("1m30s"), duration("-1s")), (Ok(90_000_000_000), Ok(-1_000_000_000)));
        for bad in ["", "x", "1x", "-5", "1e99g"] {
            assert!(bytes(bad).is_err(), "{bad}");
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(bytes("x").unwrap_err(), "invalid size: 'x'");
        assert_eq!(bytes("5xx").unwrap_err(), "invalid suffix: 'xx'");
        assert_eq!(cpus("1.0000000001").unwrap_err(), "value is too precise");
        assert_eq!(cpus("x").unwrap_err(), "failed to parse x as a rational number");
        assert_eq!(duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(duration("5y").unwrap_err(), "time: unknown unit \"y\" in duration \"5y\"");
    }
}
