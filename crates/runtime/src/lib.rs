//! Containers as processes.
//!
//! The seam is [`Runtime`]: a container described by the OCI runtime specification ([`spec`]) becomes
//! a [`Task`]. [`Embedded`] is the launcher of our own: it turns the specification into a plan (data),
//! hands it to a monitor (`longshore-monitor`, carried inside this library and run from a sealed memory
//! file), and from then on talks to it over its socket. [`External`] lets another OCI runtime make the
//! container below such a monitor; [`Runtimes`] is the choice. Nothing here knows tokio: streams are plain
//! sockets that carry `longshore_monitor::proto` frames.

pub mod apparmor;
pub mod caps;
pub mod cgroup;
mod client;
pub mod embedded;
mod error;
mod external;
mod kill;
mod processes;
mod registry;
pub mod seccomp;
pub mod spec_defaults;
mod task;
pub mod user;

pub use embedded::{Embedded, RuntimeOptions, monitors};
pub use error::{Error, LaunchError, Result};
pub use external::{External, Registered};
pub use longshore_monitor as monitor;
pub use oci_spec::runtime as spec;
pub use registry::Runtimes;
pub use task::{
    AttachRequest, CreateRequest, Exec, ExecRequest, ExecStdio, ExitStatus, LogFile, Recovered, Runtime, Task,
};
