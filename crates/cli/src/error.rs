//! How commands fail.

use std::fmt;

/// Why a command ended, and the status that the program exits with.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Printed on standard error; nothing is printed when it is empty.
    pub(crate) message: String,
    /// The program's exit status.
    pub(crate) code: i32,
    /// HTTP status, when the daemon refused.
    pub(crate) status: Option<u16>,
}

/// Result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Fails with a message and status 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1, status: None }
    }

    /// Only an exit status: the message was printed, or there is none.
    pub(crate) fn exit(code: i32) -> Self {
        Self { message: String::new(), code, status: None }
    }

    /// The daemon refused.
    pub(crate) fn daemon(status: u16, message: &str) -> Self {
        let message = format!("Error response from daemon: {}", message.trim_end());
        Self { message, code: 1, status: Some(status) }
    }

    /// The same with another exit status.
    pub(crate) fn with_code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// Whether the daemon said that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Adds what was attempted.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Failure::new(format!("{}: {e}", what())))
    }
}

/// An operating system's error in Go's words: lower case, without its number.
pub(crate) fn words(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}
