/// What went wrong, in the one small vocabulary that all crates share.
///
/// Each crate has an error enum of its own with a `kind()`; only the doors translate a kind into
/// an HTTP status or a gRPC code. See the crate errors for the detail that a person reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The named object does not exist.
    NotFound,
    /// The object is in a state, or in use in a way, that forbids the operation.
    Conflict,
    /// The caller's input is wrong; the same call will never succeed.
    Invalid,
    /// The caller has not proven who it is.
    Unauthorized,
    /// The caller may not do this.
    Denied,
    /// The operation would change nothing (start of a running container).
    NotModified,
    /// Something the operation needs is not there now; later it may be.
    Unavailable,
    /// Not built yet; the message names what is missing.
    Unimplemented,
    /// The caller gave up or the engine is stopping.
    Cancelled,
    /// Stored or received data contradicts its digest, size or format.
    Corrupt,
    /// A size, count or time limit was exceeded.
    TooLarge,
    /// Everything else: the engine or the system failed.
    Internal,
}
