//! The server on real sockets, before upstreams that answer as each test says.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod forwarding;
mod hostile;
mod life;
mod local;
mod malformed;
mod tcp;
