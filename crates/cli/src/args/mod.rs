//! Options and what they mean.

pub(crate) mod annotation;
mod body;
pub(crate) mod build;
pub(crate) mod build_cache;
mod caps;
pub(crate) mod container;
pub(crate) mod create;
mod csv;
pub(crate) mod env;
pub(crate) mod given;
mod gpus;
pub(crate) mod image;
mod kinds;
pub(crate) mod layers;
mod mount;
mod network;
pub(crate) mod networks;
pub(crate) mod object;
pub(crate) mod output;
pub(crate) mod ports;
pub(crate) mod registry;
pub(crate) mod system;
mod ulimit;
pub(crate) mod units;
pub(crate) mod update;
pub(crate) mod working;

pub(crate) use body::{Attached, pairs, restart};
