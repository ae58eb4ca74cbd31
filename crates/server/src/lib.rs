//! Doors: how clients reach the engine. This one speaks the Docker Engine API over HTTP/1.1.
//!
//! A door decodes a request into the engine's types, calls, and encodes what comes back; what
//! containers and images *are* is the engine's matter. HTTP's status codes are known here only.
//!
//! Gaps, each answered with 501 and its name: stats, update, `attach/ws`, checkpoints, BuildKit's sessions,
//! calling off a build by its id, installing plugins, and everything that
//! changes networks. A request for `attach` or `exec start` without an `Upgrade` header gets its
//! connection in both directions only if it is the first on that connection; later it gets output
//! alone.

mod conn;
mod docker;
mod errors;
mod origin;
mod server;

pub use server::{Listener, Server, ServerConfig};
