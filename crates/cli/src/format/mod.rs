//! Rows on the screen: tables, JSON lines and templates, as the docker command line prints them.

pub(crate) mod human;
mod table;

pub(crate) use table::{Columns, align, print_rows, render_object};
