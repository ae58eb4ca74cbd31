use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, ParseDigestError};

/// A normalised image reference: `registry/repository[:tag][@digest]`.
///
/// Parsed by the grammar of the distribution project's `reference` package, with Docker's
/// normalisation: `busybox` is `docker.io/library/busybox`. [`Reference::familiar`] goes back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference; the words are Docker's where clients show them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ParseReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("invalid reference format: repository name must not be longer than 255 characters")]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Hex(String),
    #[error("invalid reference format: {0}")]
    Digest(#[from] ParseDigestError),
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    Ambiguous,
}

/// Docker Hub's name in references.
const HUB: &str = "docker.io";

impl Reference {
    /// `docker.io`, `localhost:5000`...
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry: `library/busybox`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// With `:latest` where neither tag nor digest was given.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    /// With `tag` in place of any tag and digest.
    ///
    /// # Errors
    /// When `tag` is not `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ParseReferenceError> {
        if !is_tag(tag) {
            return Err(ParseReferenceError::Format);
        }
        self.tag = Some(tag.to_owned());
        self.digest = None;
        Ok(self)
    }

    /// Itself, to be given to an image.
    ///
    /// # Errors
    /// When it could be read as an image's id.
    pub fn for_a_tag(self) -> Result<Self, ParseReferenceError> {
        if self.familiar_name() == "sha256" { Err(ParseReferenceError::Ambiguous) } else { Ok(self) }
    }

    /// With `digest` in place of any tag and digest.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.tag = None;
        self.digest = Some(digest);
        self
    }

    /// The short form that Docker prints: `busybox:latest`, `localhost:5000/x:1`.
    #[must_use]
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    /// The short form without tag and digest; the long one where the short would mean something else.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        let official = self.repository.strip_prefix("library/").filter(|rest| !rest.contains('/'));
        let short = official.unwrap_or(&self.repository);
        let other = is_image_id(short) || short.split_once('/').is_some_and(|(first, _)| is_registry(first));
        if self.registry == HUB && !other {
            short.to_owned()
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    fn suffix(&self) -> String {
        let mut s = String::new();
        if let Some(t) = &self.tag {
            s.push(':');
            s.push_str(t);
        }
        if let Some(d) = &self.digest {
            s.push('@');
            s.push_str(&d.to_string());
        }
        s
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if is_image_id(s) {
            return Err(ParseReferenceError::Hex(s.to_owned()));
        }
        let (rest, digest) = match s.split_once('@') {
            Some((r, d)) => (r, Some(d.parse::<Digest>()?)),
            None => (s, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to a port.
        let name_end = match (rest.rfind('/'), rest.rfind(':')) {
            (Some(slash), Some(colon)) if colon > slash => colon,
            (None, Some(colon)) => colon,
            _ => rest.len(),
        };
        let (name, tag) = match rest.split_at(name_end) {
            (n, "") => (n, None),
            (n, t) => (n, Some(&t[1..])),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(ParseReferenceError::Format);
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path),
            _ => (HUB, name),
        };
        let registry = if registry == "index.docker.io" { HUB } else { registry };
        let repository =
            if registry == HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if has_upper(&repository) {
            return Err(ParseReferenceError::Uppercase(repository));
        }
        if !is_domain(registry) || !repository.split('/').all(is_component) {
            return Err(ParseReferenceError::Format);
        }
        if registry.len() + 1 + repository.len() > 255 {
            return Err(ParseReferenceError::TooLong);
        }
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = ParseReferenceError;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<Reference> for String {
    fn from(r: Reference) -> Self {
        r.to_string()
    }
}

/// Whether the part before the first slash names a registry.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || has_upper(first)
}

fn is_image_id(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn has_upper(s: &str) -> bool {
    s.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_tag(t: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&t.len())
        && t.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && (b == b'.' || b == b'-')))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(c: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = c.as_bytes();
    if bytes.is_empty() || !alnum(bytes[0]) || !alnum(bytes[bytes.len() - 1]) {
        return false;
    }
    bytes.split(|b| alnum(*b)).all(|sep| match sep {
        b"" | b"." | b"_" | b"__" => true,
        s => s.iter().all(|b| *b == b'-'),
    })
}

fn is_domain(d: &str) -> bool {
    let (host, port) = if let Some(v6) = d.strip_prefix('[') {
        match v6.split_once(']') {
            Some((h, p)) if h.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", p.strip_prefix(':')),
            _ => return false,
        }
    } else {
        match d.split_once(':') {
            Some((h, p)) => (h, Some(p)),
            None => (d, None),
        }
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, full: &str, familiar: &str) {
        let r: Reference = text.parse().expect(text);
        assert_eq!((r.to_string().as_str(), r.familiar().as_str()), (full, familiar));
        assert_eq!(r.to_string().parse::<Reference>().as_ref(), Ok(&r), "round trip");
    }

    #[test]
    fn normalises_as_docker_does() {
        check("busybox", "docker.io/library/busybox", "busybox");
        check("a/b:1", "docker.io/a/b:1", "a/b:1");
        check("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1");
        check("localhost/x", "localhost/x", "localhost/x");
        check("ghcr.io/a/b__c", "ghcr.io/a/b__c", "ghcr.io/a/b__c");
        check("index.docker.io/library/x", "docker.io/library/x", "x");
        check("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x");
        let d = Digest::of(b"");
        check(&format!("x:1@{d}"), &format!("docker.io/library/x:1@{d}"), &format!("x:1@{d}"));
    }

    #[test]
    fn atk_34_the_short_form_means_the_same() {
        let hex = "a".repeat(64);
        for (text, short) in [
            ("docker.io/library/busybox:1", "busybox:1"),
            ("docker.io/library/a/b", "library/a/b"),
            ("docker.io/localhost/a", "docker.io/localhost/a"),
            ("docker.io/a.b/c", "docker.io/a.b/c"),
            (&format!("docker.io/library/{hex}"), &format!("docker.io/library/{hex}")),
        ] {
            let r: Reference = text.parse().unwrap();
            assert_eq!(r.familiar(), short);
            assert_eq!(r.familiar().parse::<Reference>().unwrap(), r);
        }
    }

    #[test]
    fn atk_34_refuses_what_docker_refuses() {
        for bad in ["", ":x", "a//b", "a:", "a/", "-a", "a@", "a b", "a:b c", "a\u{430}", "../a", "a___b"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "BAD".parse::<Reference>().unwrap_err().to_string(),
            "invalid reference format: repository name (library/BAD) must be lowercase"
        );
        assert!("a".repeat(64).parse::<Reference>().is_err());
    }
}
