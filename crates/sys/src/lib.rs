//! Linux, made safe to use: rooted paths, mounts, namespaces, pidfds, descriptor passing.
//!
//! Everything works by descriptor. A path that comes from an image or a container is resolved only
//! through [`root::Root`]; a path of the host is given once, at the edge, to get a descriptor.
//! Unsafe code is allowed in single modules, each block with its reason.

pub mod atomic;
pub mod boot;
pub mod bpf;
pub mod child;
pub mod cwd;
pub mod dbus;
mod error;
pub mod fdpass;
pub mod host_sockets;
pub mod memfd;
pub mod mount;
pub mod netns;
pub mod pidfd;
pub mod root;
pub mod sockpath;
pub mod userns;
pub mod writeback;

pub use error::{Context, Error, Result};

/// Whether this process has root's user id.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
