use std::fmt::Display;
use std::io;

use longshore_oci::Kind;

/// A system call that failed, with what it was about.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}")]
pub struct Error {
    action: String,
    #[source]
    source: io::Error,
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error about `action` ("open /a/b").
    #[must_use]
    pub fn new(action: impl Display, source: impl Into<io::Error>) -> Self {
        Self { action: action.to_string(), source: source.into() }
    }

    /// What the system answered.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// The system's error number, if the system and not this crate refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// The kind that callers decide on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.source.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            io::ErrorKind::AlreadyExists | io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty => {
                Kind::Conflict
            }
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => Kind::Invalid,
            io::ErrorKind::InvalidData => Kind::Corrupt,
            io::ErrorKind::Unsupported => Kind::Unimplemented,
            _ => Kind::Internal,
        }
    }
}

impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        io::Error::new(e.source.kind(), e.to_string())
    }
}

/// Adds what was attempted to a system error.
pub trait Context<T> {
    /// `action` is evaluated only on failure.
    ///
    /// # Errors
    /// The error with its action.
    fn context<D: Display>(self, action: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context<D: Display>(self, action: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Error::new(action(), e))
    }
}
