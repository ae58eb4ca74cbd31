//! For tests only: the contracts of the seams as suites that every implementation runs.

pub mod snapshot;
