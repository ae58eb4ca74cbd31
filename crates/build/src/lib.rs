//! Builds images: Dockerfile -> graph of content-addressed steps -> layers.
//!
//! Knows neither a daemon nor a network: what runs a step, what gives a base image and what fetches files are traits.
//! Synchronous.

mod agents;
mod caches;
mod cancel;
mod carry;
pub mod context;
mod copy;
pub mod dockerfile;
mod elsewhere;
mod error;
mod explain;
pub mod graph;
mod host;
pub mod ignore;
mod key;
mod lasting;
pub mod layout;
mod mode;
mod mounts;
pub mod pattern;
pub mod plan;
pub mod portable;
pub mod remote;
mod secrets;
mod shared;
mod solve;
mod stubs;

pub use agents::Agents;
pub use cancel::{Armed, Cancel};
pub use copy::{escaped, is_archive};
pub use elsewhere::{Claim, Elsewhere};
pub use error::{Error, Result};
pub use host::{Done, Event, Fetcher, Given, RunMount, Runner, Shown, Stream, Watcher};
pub use key::KeyWriter;
pub use lasting::{Lasting, Origin};
pub use mode::{BadMode, Mode};
pub use secrets::{MAX_SECRET, Secret, Secrets};
pub use shared::{PoolUse, SharedContext};
pub use solve::{Builder, FailedRun, Job, Outcome};
