use std::fmt;
use std::time::Duration;

use longshore_oci::{Digest, Kind};
use serde::Deserialize;

/// What went wrong between here and a registry. No text holds a credential, a token or a signed address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's input or the configuration is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The registry, or its token server, answered with a refusal.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// A server could not be reached, or its connection broke each time.
    #[error("{action} at {host}: {reason}{}", times(*attempts))]
    Unreachable {
        /// Host and port.
        host: String,
        /// What was attempted: `get the manifest of library/busybox:latest`.
        action: String,
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        reason: String,
    },
    /// A server was too slow: no answer, no bytes, or fewer bytes a second than are waited for.
    #[error("{action} at {host}: {reason}{}", times(*attempts))]
    TimedOut {
        /// Host and port.
        host: String,
        /// What was attempted.
        action: String,
        /// How often it was tried.
        attempts: u32,
        /// What was waited for, and how long.
        reason: String,
    },
    /// Nothing of that name is there; the text is the whole message.
    #[error("{0}")]
    NotFound(String),
    /// What came contradicts its size, its type, or what was said before.
    #[error("{0}")]
    Corrupt(String),
    /// Bytes hash to another digest than the one that was asked for.
    #[error("{what}: digest is {actual}, expected {expected}")]
    DigestMismatch {
        /// What was read, and from where.
        what: String,
        /// The digest it was announced with.
        expected: Digest,
        /// The digest of its bytes.
        actual: Digest,
    },
    /// A limit on size or count was exceeded.
    #[error("{0}")]
    TooLarge(String),
    /// A format or a protocol that is not read here; the text names it.
    #[error("{0}")]
    Unsupported(String),
    /// A rule of ours forbids what the registry asked for: a credential for another host, a redirect from https
    /// to http, an address of this machine.
    #[error("{0}")]
    Forbidden(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] longshore_store::Error),
    /// This machine refused: a file could not be read, a thread not started.
    #[error("{0}")]
    Internal(String),
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A server's answer that is not what was asked for.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Host and port of the server.
    pub host: String,
    /// What was attempted: `get the manifest of library/busybox:latest`.
    pub action: String,
    /// HTTP status.
    pub status: u16,
    /// The errors in the answer's body; empty when it had none.
    pub errors: Vec<RegistryError>,
    /// How often it was tried.
    pub attempts: u32,
    /// How long the server asks to wait, if it does.
    pub retry_after: Option<Duration>,
}

/// One entry of a registry's `{"errors": [...]}`, with control characters removed and lengths limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryError {
    /// `MANIFEST_UNKNOWN`, `NAME_UNKNOWN`, `UNAUTHORIZED`, `DENIED`, `TOOMANYREQUESTS`...
    pub code: String,
    /// For people.
    pub message: String,
    /// The detail, as JSON.
    pub detail: String,
}

/// Docker's words: `manifest unknown: manifest unknown`.
impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.to_lowercase().replace('_', " ");
        match self.message.as_str() {
            "" => f.write_str(&code),
            message => write!(f, "{code}: {message}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: ", self.action, self.host)?;
        if self.errors.is_empty() {
            write!(f, "unexpected status {}", self.status)?;
            if let Some(words) =
                hyper::StatusCode::from_u16(self.status).ok().and_then(|s| s.canonical_reason())
            {
                write!(f, " {words}")?;
            }
        }
        for (i, e) in self.errors.iter().enumerate() {
            write!(f, "{}{e}", if i == 0 { "" } else { "; " })?;
        }
        if let Some(after) = self.retry_after {
            write!(f, " (the server asks to wait {} s)", after.as_secs())?;
        }
        f.write_str(&times(self.attempts))
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// The first error's words as Docker has them (`denied: requested access to the resource is denied`), or the
    /// status in words when the answer had no error in it.
    #[must_use]
    pub fn words(&self) -> String {
        match self.errors.first() {
            Some(e) => e.to_string(),
            None if self.status == 401 => "unauthorized: authentication required".into(),
            None => format!("received unexpected HTTP status: {}", status_words(self.status)),
        }
    }

    fn kind(&self) -> Kind {
        let code = self.errors.first().map_or("", |e| e.code.as_str());
        match (self.status, code) {
            (_, "UNAUTHORIZED") | (401, _) => Kind::Unauthorized,
            (_, "DENIED") | (403, _) => Kind::Denied,
            (404, _) => Kind::NotFound,
            (413, _) => Kind::TooLarge,
            (408 | 429 | 500.., _) => Kind::Unavailable,
            (400..500, _) => Kind::Invalid,
            _ => Kind::Internal,
        }
    }
}

impl Error {
    /// The kind that callers decide on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::Refused(r) => r.kind(),
            Self::Unreachable { .. } | Self::TimedOut { .. } => Kind::Unavailable,
            Self::NotFound(_) => Kind::NotFound,
            Self::Corrupt(_) | Self::DigestMismatch { .. } => Kind::Corrupt,
            Self::TooLarge(_) => Kind::TooLarge,
            Self::Unsupported(_) => Kind::Unimplemented,
            Self::Forbidden(_) => Kind::Denied,
            Self::Store(e) => e.kind(),
            Self::Internal(_) => Kind::Internal,
        }
    }

    /// Itself, with the name of what it is about before it.
    pub(crate) fn of(self, name: &str) -> Self {
        match self {
            Self::Corrupt(text) => Self::Corrupt(format!("{name}: {text}")),
            Self::Unsupported(text) => Self::Unsupported(format!("{name}: {text}")),
            other => other,
        }
    }

    /// Itself, after so many tries.
    pub(crate) fn with_attempts(mut self, n: u32) -> Self {
        match &mut self {
            Self::Unreachable { attempts, .. } | Self::TimedOut { attempts, .. } => *attempts = n,
            Self::Refused(r) => r.attempts = n,
            _ => {}
        }
        self
    }

    /// The registry's refusal, if that is what this is.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(r) => Some(r),
            _ => None,
        }
    }

    /// The first code of the registry's refusal: `MANIFEST_UNKNOWN`, `DENIED`...
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.refusal().and_then(|r| r.errors.first()).map(|e| e.code.as_str())
    }
}

fn status_words(status: u16) -> String {
    match hyper::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()) {
        Some(words) => format!("{status} {words}"),
        None => status.to_string(),
    }
}

fn times(attempts: u32) -> String {
    if attempts > 1 { format!(" (tried {attempts} times)") } else { String::new() }
}

/// At most this many errors of one answer are kept.
const MAX_ERRORS: usize = 8;
/// At most this many characters of each text of an answer are kept.
const MAX_TEXT: usize = 512;

/// The errors in a registry's answer; nothing when it is not JSON of that form. A token server's
/// `{"details": "..."}` and `{"error": ..., "error_description": ...}` are read too.
pub(crate) fn parse_errors(body: &[u8]) -> Vec<RegistryError> {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Body {
        errors: Option<Vec<Entry>>,
        details: Option<serde_json::Value>,
        error: Option<serde_json::Value>,
        error_description: Option<serde_json::Value>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Entry {
        code: serde_json::Value,
        message: serde_json::Value,
        detail: serde_json::Value,
    }
    let text = |v: &serde_json::Value| match v {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(s) => printable(s),
        other => printable(&other.to_string()),
    };
    let Ok(body) = serde_json::from_slice::<Body>(body) else { return Vec::new() };
    let mut out: Vec<RegistryError> = body
        .errors
        .unwrap_or_default()
        .iter()
        .take(MAX_ERRORS)
        .map(|e| RegistryError { code: text(&e.code), message: text(&e.message), detail: text(&e.detail) })
        .collect();
    if out.is_empty() {
        let code = body.error.as_ref().map_or_else(String::new, text);
        let message = body.error_description.or(body.details).as_ref().map_or_else(String::new, text);
        if !(code.is_empty() && message.is_empty()) {
            let code = if code.is_empty() { "UNAUTHORIZED".to_owned() } else { code };
            out.push(RegistryError { code, message, detail: String::new() });
        }
    }
    out
}

/// `s` without control characters, cut where it is long: what a server said, made safe to show.
pub(crate) fn printable(s: &str) -> String {
    let mut out: String = s.chars().filter(|c| !c.is_control() && !is_bidi(*c)).take(MAX_TEXT).collect();
    if s.chars().nth(MAX_TEXT).is_some() {
        out.push('…');
    }
    out
}

/// Marks that turn the direction of what a terminal shows.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_in_dockers_words_and_harmless() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest \u001b[31munknown\u202e","detail":{"Tag":"x"}}]}"#;
        let errors = parse_errors(body);
        assert_eq!(errors[0].to_string(), "manifest unknown: manifest [31munknown");
        assert_eq!(errors[0].detail, r#"{"Tag":"x"}"#);
        assert!(parse_errors(b"<html>").is_empty());
        assert!(parse_errors(br#"{"errors":null}"#).is_empty());
        let many = format!(
            r#"{{"errors":[{}]}}"#,
            vec![format!(r#"{{"code":"A","message":"{}"}}"#, "m".repeat(10_000)); 50].join(",")
        );
        let errors = parse_errors(many.as_bytes());
        assert_eq!(errors.len(), MAX_ERRORS);
        assert_eq!(errors[0].message.chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn a_token_servers_words_are_kept() {
        let errors = parse_errors(br#"{"details":"incorrect username or password"}"#);
        assert_eq!(errors[0].to_string(), "unauthorized: incorrect username or password");
        let errors = parse_errors(br#"{"error":"invalid_grant","error_description":"expired"}"#);
        assert_eq!(errors[0].to_string(), "invalid grant: expired");
    }

    #[test]
    fn a_refusal_names_host_action_and_how_often() {
        let refusal = Refusal {
            host: "r.example:5000".into(),
            action: "get the manifest of a/b:1".into(),
            status: 503,
            errors: Vec::new(),
            attempts: 5,
            retry_after: None,
        };
        let text = refusal.to_string();
        assert_eq!(
            text,
            "get the manifest of a/b:1 at r.example:5000: unexpected status 503 Service Unavailable (tried 5 times)"
        );
        assert_eq!(Error::Refused(Box::new(refusal)).kind(), Kind::Unavailable);
    }
}
