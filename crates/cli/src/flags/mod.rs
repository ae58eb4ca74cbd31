//! Options, arguments and help with docker's rules and words (those of Go's pflag and cobra).
//!
//! A general argument parser for Rust would be shorter, but scripts see the differences: `--rm=false`, an option given
//! twice, options after arguments, the words of every error, the layout of every help text.

pub(crate) mod help;
mod parse;
pub(crate) mod values;

use std::collections::VecDeque;

pub(crate) use parse::{Matches, parse};

/// What an option's values are, and how each is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// How help calls the value; empty for options without one.
    pub(crate) name: &'static str,
    /// Checks one value; the error is what stands after the colon of docker's message.
    pub(crate) check: fn(&str) -> Result<(), String>,
    /// Values gather; otherwise the last one counts.
    pub(crate) many: bool,
}

fn anything(_: &str) -> Result<(), String> {
    Ok(())
}

impl Kind {
    /// A kind whose last value counts.
    pub(crate) const fn one(name: &'static str, check: fn(&str) -> Result<(), String>) -> Self {
        Self { name, check, many: false }
    }

    /// A kind that gathers values.
    pub(crate) const fn many(name: &'static str, check: fn(&str) -> Result<(), String>) -> Self {
        Self { name, check, many: true }
    }

    pub(crate) const fn is_bool(&self) -> bool {
        self.name.is_empty()
    }
}

/// On or off; the value may be left out.
pub(crate) const BOOL: Kind = Kind::one("", values::check_bool);
/// Any text.
pub(crate) const STRING: Kind = Kind::one("string", anything);
/// A whole number.
pub(crate) const INT: Kind = Kind::one("int", values::check_int);
/// Texts.
pub(crate) const LIST: Kind = Kind::many("list", anything);
/// Texts, several in one value.
pub(crate) const STRINGS: Kind = Kind::many("strings", anything);
/// `key=value` pairs.
pub(crate) const MAP: Kind = Kind::many("map", anything);
/// `--filter`.
pub(crate) const FILTER: Kind = Kind::many("filter", values::check_filter);

/// One option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) usage: &'static str,
    /// What counts when it is not given.
    pub(crate) default: &'static str,
    /// The default as help shows it; nothing when empty.
    shown_default: &'static str,
    /// Help does not show it.
    hidden: bool,
    /// docker's command line has it not.
    pub(crate) is_ours: bool,
    /// What replaces it; its use is warned of.
    deprecated: &'static str,
    /// Another spelling of that option.
    same_as: &'static str,
    /// Why it cannot be used with this engine.
    refused: &'static str,
}

/// An option.
pub(crate) const fn flag(long: &'static str, kind: Kind, usage: &'static str) -> Flag {
    Flag {
        long,
        short: None,
        kind,
        usage,
        default: "",
        shown_default: "",
        hidden: false,
        is_ours: false,
        deprecated: "",
        same_as: "",
        refused: "",
    }
}

impl Flag {
    /// Its letter.
    pub(crate) const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// What counts when it is not given; help shows it.
    pub(crate) const fn default(mut self, value: &'static str) -> Self {
        self.default = value;
        self.shown_default = value;
        self
    }

    /// Help shows a default where there is none.
    pub(crate) const fn shows(mut self, text: &'static str) -> Self {
        self.shown_default = text;
        self
    }

    /// Of ours alone: under docker's name, help is docker's.
    pub(crate) const fn ours(mut self) -> Self {
        self.is_ours = true;
        self
    }

    /// Not in help, and warned of.
    pub(crate) const fn deprecated(mut self, why: &'static str) -> Self {
        self.deprecated = why;
        self
    }

    /// Another name for an option of the same kind.
    pub(crate) const fn same_as(mut self, long: &'static str) -> Self {
        self.same_as = long;
        self.hidden = true;
        self
    }

    /// Known, but an error when it is used: `why` completes "--name ...".
    pub(crate) const fn refused(mut self, why: &'static str) -> Self {
        self.refused = why;
        self
    }

    /// Whether help and completion show it.
    pub(crate) const fn is_shown(&self) -> bool {
        !self.hidden && self.deprecated.is_empty() && self.refused.is_empty()
    }

    /// `-n, --name`, as errors call it.
    fn called(&self) -> String {
        self.short.map_or_else(|| format!("--{}", self.long), |s| format!("-{s}, --{}", self.long))
    }
}

/// How many arguments a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

impl Count {
    /// What is wrong with `n` arguments, in docker's words, and the word before its hint.
    pub(crate) fn wrong(self, n: usize) -> Option<String> {
        let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
        match self {
            Self::Exactly(0) if n > 0 => Some("accepts no arguments".into()),
            Self::Exactly(want) if n != want => Some(format!("requires {want} {}", plural(want))),
            Self::AtLeast(want) if n < want => Some(format!("requires at least {want} {}", plural(want))),
            Self::AtMost(want) if n > want => Some(format!("requires at most {want} {}", plural(want))),
            Self::Between(from, to) if n < from || n > to => {
                Some(format!("requires at least {from} and at most {to} {}", plural(to)))
            }
            _ => None,
        }
    }
}

/// Reads an option's values as the type of a field.
pub(crate) trait Read {
    fn read(m: &Matches, long: &str) -> Self;
}

impl Read for bool {
    fn read(m: &Matches, long: &str) -> Self {
        values::truth(m.last(long)).unwrap_or(false)
    }
}

impl Read for String {
    fn read(m: &Matches, long: &str) -> Self {
        m.last(long).to_owned()
    }
}

impl Read for i64 {
    fn read(m: &Matches, long: &str) -> Self {
        values::int(m.last(long)).unwrap_or(0)
    }
}

/// Present only when the option was given.
impl<T: Read> Read for Option<T> {
    fn read(m: &Matches, long: &str) -> Self {
        m.given(long).then(|| T::read(m, long))
    }
}

impl Read for Vec<String> {
    fn read(m: &Matches, long: &str) -> Self {
        m.all(long).to_vec()
    }
}

/// Takes arguments as the type of a field; how many there are was checked.
pub(crate) trait Take {
    fn take(args: &mut VecDeque<String>) -> Self;
}

impl Take for String {
    fn take(args: &mut VecDeque<String>) -> Self {
        args.pop_front().unwrap_or_default()
    }
}

impl Take for Option<String> {
    fn take(args: &mut VecDeque<String>) -> Self {
        args.pop_front()
    }
}

impl Take for Vec<String> {
    fn take(args: &mut VecDeque<String>) -> Self {
        std::mem::take(args).into()
    }
}

/// What a command line becomes.
pub(crate) trait Options: Sized {
    /// From what was given.
    fn from_matches(m: &Matches) -> Self;
}

/// A type with its options (`name: type = flag(..)`) and arguments (`name: type`, after the semicolon).
macro_rules! options {
    ($(#[$doc:meta])* $name:ident { $($field:ident : $ty:ty = $flag:expr),* $(,)? ; $($arg:ident : $at:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(crate) struct $name {
            $(pub(crate) $field: $ty,)*
            $(pub(crate) $arg: $at,)*
        }

        impl $name {
            /// The options.
            pub(crate) const FLAGS: &'static [$crate::flags::Flag] = &[$($flag),*];
        }

        impl $crate::flags::Options for $name {
            #[allow(unused_mut, unused_variables, reason = "some have no options, some no arguments")]
            fn from_matches(m: &$crate::flags::Matches) -> Self {
                let mut args = m.args();
                Self {
                    $($field: $crate::flags::Read::read(m, const { $flag }.long),)*
                    $($arg: $crate::flags::Take::take(&mut args),)*
                }
            }
        }
    };
}
pub(crate) use options;
