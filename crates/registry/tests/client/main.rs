//! The client against servers on loopback that answer as each test says, and against a real registry.
#![allow(clippy::unwrap_used, reason = "tests")]

mod auth;
mod blobs;
mod common;
mod manifests;
mod real;
mod tls;
mod uploads;
