use std::fmt::Display;
use std::io;

use longshore_oci::{Digest, Kind};

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The named object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The object exists already or is in use.
    #[error("{0}")]
    Conflict(String),
    /// The input is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Data contradicts its digest, its size or its format.
    #[error("{0}")]
    Corrupt(String),
    /// Bytes hash to another digest than the one they were announced with.
    #[error("{what}: digest is {actual}, expected {expected}")]
    DigestMismatch {
        /// What was read.
        what: String,
        /// The digest it was announced with.
        expected: Digest,
        /// The digest of its bytes.
        actual: Digest,
    },
    /// A limit on size, count, depth or ratio was exceeded.
    #[error("{0}")]
    TooLarge(String),
    /// Not supported; the text names what.
    #[error("{0}")]
    Unimplemented(String),
    /// Something that the operation needs is not there now.
    #[error("{0}")]
    Unavailable(String),
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
    /// The metadata database failed.
    #[error("metadata: {action}: {message}")]
    Database {
        /// What was attempted.
        action: String,
        /// What the database said.
        message: String,
    },
    /// An internal assumption did not hold.
    #[error("{0}")]
    Internal(String),
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The system refused `action` ("open /a/b"). An error of this crate that travelled inside an
    /// [`io::Error`] (through a reader) comes out as itself.
    pub fn io(action: impl Display, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if source.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            match source.into_inner().map(|inner| inner.downcast::<Self>()) {
                Some(Ok(own)) => return *own,
                Some(Err(other)) => return Self::Internal(format!("{action}: {other}")),
                None => return Self::Internal(action.to_string()),
            }
        }
        Self::Io { action: action.to_string(), source }
    }

    /// The kind that callers decide on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Conflict(_) => Kind::Conflict,
            Self::Invalid(_) => Kind::Invalid,
            Self::Corrupt(_) | Self::DigestMismatch { .. } => Kind::Corrupt,
            Self::TooLarge(_) => Kind::TooLarge,
            Self::Unimplemented(_) => Kind::Unimplemented,
            Self::Unavailable(_) => Kind::Unavailable,
            Self::Sys(e) => e.kind(),
            Self::Io { .. } | Self::Database { .. } | Self::Internal(_) => Kind::Internal,
        }
    }

    /// The system's error number, if the system refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Sys(e) => e.errno(),
            _ => None,
        }
    }
}

impl From<longshore_sys::Error> for Error {
    fn from(e: longshore_sys::Error) -> Self {
        Self::Sys(e)
    }
}

/// For errors that must pass through a [`std::io::Read`] or [`std::io::Write`].
impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Io { source, .. } if steers_loops(&source) => source,
            other => io::Error::other(other),
        }
    }
}

/// The system's words in lower case without Rust's "(os error 2)", as Docker's messages have them.
#[must_use]
pub fn errno_text(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(c) => c.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// `Interrupted` and `WouldBlock` steer the loops of `std::io`; they must keep their kind.
fn steers_loops(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// Adds what was attempted to a system error.
pub trait IoContext<T> {
    /// `action` is evaluated only on failure.
    ///
    /// # Errors
    /// The error with its action.
    fn context<D: Display>(self, action: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn context<D: Display>(self, action: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Error::io(action(), e))
    }
}
