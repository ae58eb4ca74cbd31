//! For tests only: the contracts of the seams as suites that every implementation runs, and a registry that misbehaves.

pub mod registry;
pub mod snapshot;
