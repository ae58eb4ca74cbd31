//! Options and what they mean.

mod mount;
pub(crate) mod run;
pub(crate) mod units;
