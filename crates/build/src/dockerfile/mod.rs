//! The Dockerfile language: bytes to instructions, words to text. Pure.
//!
//! [`parse`] reads a file, [`expand()`] and [`expand_words`] give words their values where these are known. What the language
//! is follows Docker's reference for syntax 1.20, and BuildKit where the reference says nothing. Every size that a file
//! or a value controls has a limit ([`limits`]).
//!
//! Where BuildKit is at odds with the reference or drops something in silence, this does not follow it: a blank line ends the
//! comments that belong to an instruction; `EXPOSE 80${x:-81}` keeps what stands before the variable; a heredoc that no source
//! of `COPY` names, a flag on `ARG` or `STOPSIGNAL`, and text that is not UTF-8 are errors; a mount without variables is checked
//! when it is read.

mod ast;
mod check;
mod directives;
mod duration;
mod error;
mod expand;
mod files;
mod flags;
mod globals;
mod heredoc;
mod instruction;
mod json;
pub mod limits;
mod lines;
mod lint;
mod mount;
mod parse;
mod pattern;
mod ports;
mod run;
mod stages;
mod suggest;
mod uses;
mod words;

pub use ast::{
    AddCmd, ArgDef, Command, CopyCmd, Device, Directives, Dockerfile, Escape, FromCmd, Healthcheck, Heredoc,
    InlineFile, Instruction, Kind, Network, OnbuildCmd, Pair, Paths, RunBody, RunCmd, Security, Span, Word,
};
pub use check::Check;
pub use error::{Hint, ParseError, ParseErrorKind, render};
pub use expand::{
    Environment, ExpandError, ExpandErrorKind, Expanded, ExpandedWords, Lookup, Mode, expand, expand_words,
};
pub use globals::{Globals, GlobalsError, predefined};
pub use lint::{BaseFacts, FileOnly, Finding, Known, Rule, lint, lint_instructions, violation};
pub use mount::{Mount, MountError, MountKind, MountSpec, Sharing};
pub use parse::{parse, parse_to_mistake, parse_trigger, parse_triggers};
pub use ports::{PortError, PortSpec, port_spec, ports};
pub use stages::{FromVariables, Graph, Source, Stage, StageError, Stages, stages};

#[cfg(test)]
mod tests;
