//! Versions of the API: `1.24` to `1.51`.

use std::fmt;
use std::str::FromStr;

/// A version of the API, ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

/// The text is not `<number>.<number>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseVersionError;

impl fmt::Display for ParseVersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid API version: want MAJOR.MINOR, for example 1.51")
    }
}

impl std::error::Error for ParseVersionError {}

impl ApiVersion {
    /// The oldest version served.
    pub const MIN: Self = Self::new(1, 24);
    /// The newest version served.
    pub const MAX: Self = Self::new(1, 51);

    /// A version by its numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Whether this is older than `1.<minor>`.
    #[must_use]
    pub fn below(self, minor: u16) -> bool {
        self < Self::new(1, minor)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = ParseVersionError;

    fn from_str(s: &str) -> Result<Self, ParseVersionError> {
        let number = |t: &str| match t.bytes().all(|b| b.is_ascii_digit()) {
            true => t.parse().map_err(|_| ParseVersionError),
            false => Err(ParseVersionError),
        };
        let (major, minor) = s.split_once('.').ok_or(ParseVersionError)?;
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let v = |s: &str| s.parse::<ApiVersion>();
        assert!(v("1.9").unwrap() < v("1.24").unwrap());
        assert!(v("1.51").unwrap() == ApiVersion::MAX);
        assert!(v("1.43").unwrap().below(44) && !v("1.44").unwrap().below(44));
        for bad in ["", "1", "1.", ".1", "1.x", "1.-2", "1.+2", "1.99999", "1.2.3"] {
            assert!(v(bad).is_err(), "{bad}");
        }
    }
}
