//! What a door answers when something fails: the one place where a kind becomes an HTTP status.

use hyper::StatusCode;
use longshore_oci::Kind;

/// A failed request: a status and what a person reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    /// Of the response.
    pub(crate) status: StatusCode,
    /// The body's `message`.
    pub(crate) message: String,
}

impl ApiError {
    /// An error with a status of its own.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The request is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::of(Kind::Invalid, message)
    }

    /// Not built yet; `what` names it.
    pub(crate) fn unimplemented(what: &str) -> Self {
        Self::of(Kind::Unimplemented, format!("{what} is not implemented yet"))
    }

    /// No such route.
    pub(crate) fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// An error of this kind.
    pub(crate) fn of(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(status(kind), message)
    }
}

/// The status that stands for a kind of error.
#[must_use]
pub(crate) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        // Cancelled, corrupt, internal, and whatever kind comes later.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<longshore_api::json::Error> for ApiError {
    fn from(e: longshore_api::json::Error) -> Self {
        match e.is_empty_input() {
            true => Self::invalid("invalid JSON: got EOF while reading request body"),
            false => match e.to_string() {
                text if text.starts_with("unexpected content") => Self::invalid(text),
                text => Self::invalid(format!("invalid JSON: {text}")),
            },
        }
    }
}
