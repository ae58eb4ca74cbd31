//! Values as Go reads them, and its words when it cannot.

/// Go's `ParseBool`.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

pub(crate) fn check_bool(text: &str) -> Result<(), String> {
    truth(text).map(drop).ok_or_else(|| format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))
}

/// Go's whole numbers: the prefix says the base.
fn number(text: &str) -> Option<Result<i128, ()>> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    Some(i128::from_str_radix(digits, base).map(|n| if negative { -n } else { n }).map_err(drop))
}

/// Go's `ParseInt` with any base and 64 bits.
pub(crate) fn int(text: &str) -> Result<i64, String> {
    let fail = |why: &str| format!("strconv.ParseInt: parsing {text:?}: {why}");
    let n = number(text).ok_or_else(|| fail("invalid syntax"))?;
    n.ok().and_then(|n| i64::try_from(n).ok()).ok_or_else(|| fail("value out of range"))
}

pub(crate) fn check_int(text: &str) -> Result<(), String> {
    int(text).map(drop)
}

/// Go's `ParseUint` with any base.
pub(crate) fn uint(text: &str, most: u64) -> Result<u64, String> {
    let fail = |why: &str| format!("strconv.ParseUint: parsing {text:?}: {why}");
    let syntax = || fail("invalid syntax");
    if text.starts_with(['-', '+']) {
        return Err(syntax());
    }
    let n = number(text).ok_or_else(syntax)?.ok().and_then(|n| u64::try_from(n).ok());
    n.filter(|n| *n <= most).ok_or_else(|| fail("value out of range"))
}

/// `key=value`.
pub(crate) fn check_filter(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('=') {
        return Ok(());
    }
    Err("bad format of filter (expected name=value)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, want) in [("5", 5), ("-1", -1), ("0x10", 16), ("010", 8), ("0b11", 3), ("+7", 7), ("0", 0)]
        {
            assert_eq!(int(text), Ok(want), "{text}");
        }
        assert_eq!(
            int("9223372036854775808").unwrap_err(),
            "strconv.ParseInt: parsing \"9223372036854775808\": value out of range"
        );
        for bad in ["", "x", "1.5", "-", "0x", "08"] {
            assert!(int(bad).unwrap_err().ends_with("invalid syntax"), "{bad}");
        }
        assert_eq!(uint("65535", 65535), Ok(65535));
        assert!(uint("65536", 65535).unwrap_err().ends_with("value out of range"));
        assert!(uint("-1", 65535).unwrap_err().ends_with("invalid syntax"));
    }
}
