//! Signal names and numbers of Linux.

use crate::{Error, Result};

const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

pub(crate) const KILL: i32 = 9;
pub(crate) const TERM: i32 = 15;
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// `SIGTERM`, `term`, `15`, `RTMIN+3`.
///
/// # Errors
/// In Docker's words.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let bad = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(n) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&n) { Ok(n) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, n)) = NAMES.iter().find(|(k, _)| *k == name) {
        return Ok(*n);
    }
    let offset = |rest: &str, sign: &str| match rest {
        "" => Some(0),
        r => r.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    let n = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, "+").map(|o| RTMIN.saturating_add(o))
    } else {
        name.strip_prefix("RTMAX").and_then(|rest| offset(rest, "-")).map(|o| RTMAX.saturating_sub(o))
    };
    n.filter(|n| (RTMIN..=RTMAX).contains(n)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (text, n) in [("SIGTERM", 15), ("term", 15), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)] {
            assert_eq!(parse(text).expect(text), n);
        }
        assert_eq!(parse("SIGBAD").unwrap_err().to_string(), "invalid signal: SIGBAD");
        for bad in ["0", "65", "-1", "", "RTMIN+99", "RTMAX+1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
