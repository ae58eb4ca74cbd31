use longshore_monitor::proto::Step;
use longshore_oci::Kind;

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a container as processes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A step between a plan and a running program failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Another OCI runtime said no, in its own words.
    #[error("{message}")]
    Program {
        /// What it said.
        message: String,
        /// The exit code that Docker reports for a container that could not be started for this reason.
        exit_code: i32,
    },
    /// The system refused something on the daemon's side.
    #[error(transparent)]
    Sys(#[from] longshore_sys::Error),
    /// The specification contradicts itself or asks for nonsense.
    #[error("{0}")]
    Invalid(String),
    /// The specification asks for something that is not built.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The container has no processes (any more).
    #[error("container {0} is not running")]
    NotRunning(String),
    /// A container of this name exists.
    #[error("container {0} is running already")]
    Exists(String),
    /// The monitor answered what it never should.
    #[error("monitor of container {id}: {what}")]
    Monitor {
        /// Which container.
        id: String,
        /// What was wrong.
        what: String,
    },
    /// A stored state that cannot be read.
    #[error("state of container {id}: {what}")]
    State {
        /// Which container.
        id: String,
        /// What was wrong.
        what: String,
    },
}

/// A launch that failed in the monitor or in the process to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchError {
    /// Which step; `None` for one that only a newer monitor knows.
    pub step: Option<Step>,
    /// Error number, or 0.
    pub errno: i32,
    /// What it was about; for a missing or unusable command the whole message in Docker's words.
    pub detail: String,
}

impl LaunchError {
    /// The exit code that Docker reports for a container that could not be started for this reason.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match (self.step, self.errno) {
            (Some(Step::Lookup | Step::Exec), libc::ENOENT | libc::ENOTDIR) => 127,
            (Some(Step::Lookup | Step::Exec), _) => 126,
            _ => 128,
        }
    }
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.step {
            Some(Step::Lookup | Step::Exec) => f.write_str(&self.detail),
            step => {
                let words = step.map_or("launch", Step::words);
                write!(f, "{words}: {}", self.detail)?;
                if self.errno != 0 {
                    write!(f, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for LaunchError {}

impl Error {
    /// The kind that callers decide on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            // A command that the image does not have is the caller's mistake.
            Self::Launch(LaunchError { step: Some(Step::Lookup | Step::Exec), .. }) | Self::Invalid(_) => {
                Kind::Invalid
            }
            Self::Program { exit_code: 126 | 127, .. } => Kind::Invalid,
            Self::Program { .. } | Self::Launch(_) | Self::Monitor { .. } => Kind::Internal,
            Self::Sys(e) => e.kind(),
            Self::Unsupported(_) => Kind::Unimplemented,
            Self::NotRunning(_) | Self::Exists(_) => Kind::Conflict,
            Self::State { .. } => Kind::Corrupt,
        }
    }
}
