//! The shapes of what flows: bytes in and out of the engine, output of processes, events.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use crate::Result;
use crate::model::{Event, OutputChunk, ProgressEvent, WaitResult};

/// A stream on the heap.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;
/// Bytes that leave the engine; ends after an error.
pub type ByteStream = BoxStream<Result<Bytes>>;
/// Many things, some at once; ends after an error.
pub type BatchStream<T> = BoxStream<Result<Vec<T>>>;
/// Bytes that a client sends; an error means that the client went away or broke the format.
pub type BodyStream = BoxStream<std::io::Result<Bytes>>;
/// Events until the request's end; an error is the last item (the reader was too slow).
pub type EventStream = BoxStream<Result<Event>>;
/// Progress of a long operation; a failure arrives as an event with `error`.
pub type ProgressStream = BoxStream<ProgressEvent>;
/// Resolves when the container has ended; armed before it is handed out.
pub type WaitFuture = Pin<Box<dyn Future<Output = Result<WaitResult>> + Send>>;

/// A client attached to a container's or an exec's streams.
pub struct AttachSession {
    /// One raw stream; otherwise chunks carry their stream's number.
    pub tty: bool,
    /// Ends when the process has ended and all it wrote was handed over. Dropping it detaches.
    pub output: BoxStream<Result<OutputChunk>>,
    /// Standard input, when asked for. Dropping the sender is the half-close.
    pub input: Option<mpsc::Sender<Bytes>>,
}

/// A container's log.
pub struct LogStream {
    /// The container has a terminal: the log is one raw stream.
    pub tty: bool,
    #[allow(missing_docs)]
    pub output: BoxStream<Result<OutputChunk>>,
}

impl fmt::Debug for AttachSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachSession").field("tty", &self.tty).finish_non_exhaustive()
    }
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStream").field("tty", &self.tty).finish_non_exhaustive()
    }
}
