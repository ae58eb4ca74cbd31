//! Rows on the screen: tables, JSON lines and templates, as the docker command line prints them.

pub(crate) mod build;
pub(crate) mod human;
pub(crate) mod indent;
pub(crate) mod progress;
mod table;

pub(crate) use table::{Columns, Object, Row, align_from, print_rows};
