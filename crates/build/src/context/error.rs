use std::io;

use longshore_oci::Kind;
use longshore_store::errno_text;

use crate::pattern;

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A source of a COPY or ADD is not in the context, or was left out by the ignore file.
    #[error("{0:?}: not found")]
    NotFound(String),
    /// Links that lead to each other.
    #[error("{0:?}: too many links")]
    TooManyLinks(String),
    /// A source or an exclusion is no pattern.
    #[error(transparent)]
    Pattern(#[from] pattern::Error),
    /// A limit on the context is exceeded.
    #[error("{0}")]
    TooLarge(String),
    /// Something else stands where the walk found a file.
    #[error("{0:?} changed while the context was read: build again when nothing writes to it")]
    Changed(String),
    /// A file that was sent earlier is not there any more.
    #[error("{0:?} is no longer in the pool of build contexts: build again, which sends it anew")]
    Gone(String),
    /// The other side of a synchronisation does not keep to it, or has failed.
    #[error("{0}")]
    Peer(String),
    /// The system refused.
    #[error("{action}: {}", errno_text(source))]
    Io {
        /// What was attempted, with the path.
        action: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The system refused, below.
    #[error(transparent)]
    Sys(longshore_sys::Error),
    /// A tar could not be unpacked.
    #[error("unpack the context: {}", of_a_tar(.0))]
    Unpack(longshore_store::Error),
    /// The pool of contexts refused.
    #[error(transparent)]
    Store(#[from] longshore_store::Error),
    /// What a file cannot be sent as.
    #[error("{path:?} is a {what}, which a context cannot hold: exclude it with a .dockerignore file")]
    Unsendable {
        /// Where it is.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The receiver of a context failed, or has gone.
    #[error("send the context: {}", errno_text(.0))]
    Send(#[source] io::Error),
    /// An internal assumption did not hold.
    #[error("{0}")]
    Internal(&'static str),
    /// Another compression than those that are read.
    #[error("the context is compressed with {0}: send it plain, or compressed with gzip or zstd")]
    Compression(&'static str),
}

/// Result with this module's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn io(action: &str, path: &[u8], source: impl Into<io::Error>) -> Self {
        let path = if path.is_empty() { "the context's root".into() } else { show(path) };
        Self::Io { action: format!("{action} {path}"), source: source.into() }
    }

    /// The kind that callers decide on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::TooManyLinks(_) | Self::Pattern(_) => Kind::Invalid,
            Self::TooLarge(_) => Kind::TooLarge,
            Self::Changed(_) | Self::Gone(_) => Kind::Conflict,
            Self::Peer(_) => Kind::Invalid,
            Self::Unsendable { .. } => Kind::Invalid,
            Self::Send(_) => Kind::Internal,
            Self::Compression(_) => Kind::Unimplemented,
            Self::Sys(e) => e.kind(),
            Self::Unpack(e) | Self::Store(e) => e.kind(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Kind::Denied,
            Self::Io { .. } | Self::Internal(_) => Kind::Internal,
        }
    }
}

impl From<longshore_sys::Error> for Error {
    fn from(e: longshore_sys::Error) -> Self {
        Self::Sys(e)
    }
}

/// The store's words without its name for what is unpacked.
fn of_a_tar(e: &longshore_store::Error) -> String {
    let text = e.to_string();
    match text.strip_prefix("layer: ") {
        Some(rest) => rest.to_owned(),
        None => text.strip_prefix("layer ").map(|rest| format!("it {rest}")).unwrap_or(text),
    }
}

/// Text for messages.
pub(super) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// A path as BuildKit's messages have it: from the context's root on.
pub(super) fn from_root(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
