use std::fmt::Display;

use longshore_oci::Kind;

/// Why the engine could not do what was asked. The text is for people, in Docker's words where
/// clients read them, and holds what lower layers said; the kind is for doors.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
}

/// A result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind with this text.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What it is in the vocabulary that doors translate.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same kind with `prefix: ` before the text.
    #[must_use]
    pub fn context(mut self, prefix: impl Display) -> Self {
        self.message = format!("{prefix}: {}", self.message);
        self
    }

    /// The same kind with `: detail` after the text.
    #[must_use]
    pub(crate) fn and(mut self, detail: &str) -> Self {
        self.message = format!("{}: {detail}", self.message);
        self
    }

    /// The same text under another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// `what` names the option or operation.
    pub(crate) fn unimplemented(what: impl Display) -> Self {
        Self::new(Kind::Unimplemented, format!("{what} is not supported yet"))
    }

    pub(crate) fn no_such_container(name: &str) -> Self {
        Self::not_found(format!("No such container: {name}"))
    }

    /// A system error while doing `action`.
    pub(crate) fn io(action: impl Display, e: impl Into<std::io::Error>) -> Self {
        let e = e.into();
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Internal,
        };
        Self { kind, message: format!("{action}: {}", errno_text(&e)) }
    }
}

pub(crate) use longshore_store::errno_text;

macro_rules! from_lower {
    ($($t:ty),*) => {$(
        impl From<$t> for Error {
            fn from(e: $t) -> Self {
                Self { kind: e.kind(), message: e.to_string() }
            }
        }
    )*};
}
from_lower!(longshore_sys::Error, longshore_net::Error, longshore_store::Error, longshore_runtime::Error);

impl From<longshore_oci::ParseReferenceError> for Error {
    fn from(e: longshore_oci::ParseReferenceError) -> Self {
        Self::invalid(e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_read_like_dockers() {
        let e = Error::io("open /x", std::io::Error::from_raw_os_error(2));
        assert_eq!(
            (e.kind(), e.to_string().as_str()),
            (Kind::NotFound, "open /x: no such file or directory")
        );
    }
}
