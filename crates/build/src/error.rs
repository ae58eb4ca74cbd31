//! What goes wrong in a build.

use longshore_oci::Kind;

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense; the text says what and where.
    #[error("{0}")]
    Invalid(String),
    /// Something that a step needs is not there.
    #[error("{0}")]
    NotFound(String),
    /// A part of the language or an option that is not there yet.
    #[error("{0}")]
    Unimplemented(String),
    /// A limit was passed.
    #[error("{0}")]
    TooLarge(String),
    /// A command ended with another code than 0.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command {
        /// As the Dockerfile has it, with its shell.
        command: String,
        /// Its exit code.
        code: i32,
    },
    /// The build was called off.
    #[error("build cancelled")]
    Cancelled,
    /// A context cannot be used.
    #[error(transparent)]
    Context(#[from] crate::context::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] longshore_store::Error),
    /// What runs commands or gives images refused; the text is for people.
    #[error("{message}")]
    Host {
        #[allow(missing_docs)]
        kind: Kind,
        #[allow(missing_docs)]
        message: String,
    },
    /// The system refused.
    #[error("{action}: {source}")]
    Io {
        /// What was tried, with its object.
        action: String,
        #[allow(missing_docs)]
        source: std::io::Error,
    },
    /// A defect of this program.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The kind of failure, for a door to translate.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) | Self::TooLarge(_) | Self::Command { .. } => Kind::Invalid,
            Self::NotFound(_) => Kind::NotFound,
            Self::Unimplemented(_) => Kind::Unimplemented,
            Self::Cancelled => Kind::Cancelled,
            Self::Context(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Host { kind, .. } => *kind,
            Self::Io { .. } | Self::Internal(_) => Kind::Internal,
        }
    }

    /// An error of the system.
    pub fn io(action: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { action: action.into(), source: source.into() }
    }
}

impl From<longshore_sys::Error> for Error {
    fn from(e: longshore_sys::Error) -> Self {
        Self::Store(e.into())
    }
}

/// Adds what was tried to an error of the system.
pub(crate) trait IoContext<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::io(action(), e))
    }
}
