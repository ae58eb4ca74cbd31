//! Addresses that may hold a password.

use std::fmt;

use longshore_oci::Digest;

/// Bytes of an address.
const MAX_LEN: usize = 16 << 10;

/// An address of the web, or of a Git repository. It is shown without user, password and query: a query may be a
/// signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Checks what no address may have; others look at the rest.
    ///
    /// # Errors
    /// A reason for people, which does not repeat the address.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LEN {
            return Err(format!("the address has more than {MAX_LEN} bytes"));
        }
        if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err("the address has a space or a control character".into());
        }
        // It would be an option of the programs that are given it.
        let address = Self(text.to_owned());
        if text.starts_with('-') || address.host().starts_with('-') {
            return Err("the address begins with a dash".into());
        }
        Ok(address)
    }

    /// All of it. Not to be shown.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What names it where it is remembered: nobody reads it back from that.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }

    /// `user:password`, as written.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        let (_, rest) = scheme(&self.0)?;
        authority(rest).rsplit_once('@').map(|(user, _)| user)
    }

    /// The same without user and password. The user of an address that is none of the web's is part of where it is.
    #[must_use]
    pub fn without_user(&self) -> String {
        match scheme(&self.0) {
            Some((scheme, rest)) => {
                let host = authority(rest);
                let user = host.rsplit_once('@').map_or(0, |(user, _)| user.len() + 1);
                format!("{scheme}://{}", rest.get(user..).unwrap_or_default())
            }
            None => self.0.clone(),
        }
    }

    /// Its host, and the port where there is one.
    #[must_use]
    pub fn host(&self) -> &str {
        match scheme(&self.0) {
            Some((_, rest)) => {
                let authority = authority(rest);
                authority.rsplit_once('@').map_or(authority, |(_, host)| host)
            }
            None => self.0.split_once('@').map_or("", |(_, rest)| rest),
        }
    }

    /// Whether it is `http` or `https`.
    #[must_use]
    pub fn is_web(&self) -> bool {
        scheme(&self.0).is_some_and(|(s, _)| s.eq_ignore_ascii_case("http")) || self.has_tls()
    }

    /// Whether it is `https`.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        scheme(&self.0).is_some_and(|(s, _)| s.eq_ignore_ascii_case("https"))
    }

    /// The last name in its path, if there is one that a file can have.
    pub(super) fn file_name(&self) -> Option<Vec<u8>> {
        let (_, rest) = scheme(&self.0)?;
        let path = rest.get(authority(rest).len()..)?.split(['?', '#']).next()?;
        let decoded = decode(path);
        let name = decoded.split(|b| *b == b'/').rfind(|part| !part.is_empty())?;
        let bad = matches!(name, b"." | b"..") || name.len() > 255 || name.contains(&0);
        (!bad).then(|| name.to_vec())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.without_user().split(['?', '#']).next().unwrap_or_default())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `scheme://rest`
pub(super) fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    (!scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric())).then_some((scheme, rest))
}

/// What stands before the path.
pub(super) fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Percent-decoding; what is no escape stays as it is.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [a, b, more @ ..]) if let (Some(a), Some(b)) = (hex(*a), hex(*b)) => {
                out.push(a << 4 | b);
                rest = more;
            }
            _ => out.push(*first),
        }
    }
    out
}
