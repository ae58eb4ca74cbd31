//! What the daemon and the monitor, the small program beside each container, say to each other.
//!
//! [`proto`] frames the messages of a running monitor, [`plan`] describes a container and its
//! processes in full. Both are plain bytes, do no I/O, and need neither serde nor an allocator of
//! note, because the monitor must stay tiny. The program itself is this package's binary.

#![no_std]

extern crate alloc;

pub mod plan;
pub mod proto;
pub mod wire;
