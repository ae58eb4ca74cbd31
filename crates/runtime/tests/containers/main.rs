//! Containers that really run: `privileged_*` tests need root.

#![allow(clippy::unwrap_used, clippy::panic)]

mod attacks;
mod basics;
mod execs;
mod groups;
mod harness;
mod life;
mod mounts;
mod streams;
