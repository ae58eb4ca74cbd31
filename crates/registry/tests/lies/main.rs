//! The client against a registry that lies: every lie ends in a clear error within its time limit, or is of no
//! consequence; no credential goes to another origin; the next attempt against an honest registry succeeds.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod harness;
mod identity;
mod images;
mod reading;
mod writing;
