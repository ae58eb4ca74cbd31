//! What a build needs of the machine that it runs on: somebody who runs commands, and somebody who watches.

use std::path::PathBuf;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::graph::{Run, StepId};
use crate::secrets::Secret;
use crate::solve::Outcome;
use crate::{Error, Result};

/// Which of a command's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A mount with what it shows on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// Where in the command's tree: absolute. A directory or file stands there already.
    pub target: String,
    #[allow(missing_docs)]
    pub shown: Shown,
    #[allow(missing_docs)]
    pub read_only: bool,
}

/// What a mount shows on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shown {
    /// A directory or file: a path without links.
    Path(PathBuf),
    /// A file system in memory, of so many bytes; `None`: half of the memory.
    Memory { size: Option<u64> },
    /// A socket that leads to the one at a path.
    Agent { socket: PathBuf, mode: u32, uid: u32, gid: u32 },
    /// A file that is never on a disk.
    Secret { secret: Secret, mode: u32, uid: u32, gid: u32 },
}

/// What a command gets besides its tree.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Mounts, in the order in which they are made.
    pub mounts: Vec<RunMount>,
    /// `NAME=value`: variables that nothing else may see.
    pub env: Vec<String>,
}

/// Runs commands isolated, as a container's processes are.
pub trait Runner: Send + Sync {
    /// Runs a command with what it is `given` in the tree of the writable layer `container` (see
    /// `Store::create_rw_on`), which nobody else uses, and waits for its end; gives its exit code. On return nothing of it runs any more and its tree is not
    /// mounted. `started` is told the id that it runs under.
    ///
    /// # Errors
    /// When it cannot be run; [`Error::Cancelled`] when `cancel` ended it.
    fn run(
        &self,
        container: &str,
        run: &Run,
        given: &Given,
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancel: &Cancel,
    ) -> Result<i32>;
}

/// How a step's result came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Carried out.
    Made,
    /// The cache had it.
    Cached,
    /// Another build that ran at the same time made it.
    Shared,
}

/// What happens in a build, in the order in which it happens; steps may run side by side.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Event<'a> {
    /// A step begins: what it needs is there.
    Started { step: StepId },
    /// Its command runs, in a container of this id.
    Running { step: StepId, container: &'a str },
    /// Its command writes.
    Output { step: StepId, stream: Stream, bytes: &'a [u8] },
    /// Why it is carried out, or is not.
    Explained { step: StepId, why: String },
    /// It is done.
    Done { step: StepId, done: Done, outcome: &'a Outcome, took: Duration },
    /// It failed.
    Failed { step: StepId, error: &'a Error },
}

/// Somebody who is told what happens. May be called by several threads at once.
pub trait Watcher: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Watcher for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}
