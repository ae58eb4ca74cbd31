//! `--name=value` of an instruction.

use super::error::ParseErrorKind;
use super::suggest::hint;
use super::words::At;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// `--f`, `--f=true`, `--f=false`
    Bool,
    /// `--f=text`
    One,
    /// `--f=text`, any number of times.
    Many,
}

/// The flags of one instruction, each known and with a value of its kind.
#[derive(Debug, Default)]
pub(super) struct Flags(Vec<(&'static str, String, usize)>);

impl Flags {
    /// Checks `given` against `known`.
    pub(super) fn parse(
        given: Vec<At<String>>,
        known: &[(&'static str, Takes)],
    ) -> Result<Self, (ParseErrorKind, usize)> {
        let mut out = Self::default();
        for (text, at) in given {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text.as_str(), None),
            };
            let Some((known_name, takes)) = known.iter().find(|(k, _)| *k == name) else {
                let hint = hint(name, known.iter().map(|(k, _)| *k));
                let name = name.chars().take(100).collect();
                return Err((ParseErrorKind::UnknownFlag { name, hint }, at));
            };
            if *takes != Takes::Many && out.0.iter().any(|(n, ..)| n == known_name) {
                return Err((ParseErrorKind::DuplicateFlag(name.to_owned()), at));
            }
            let value = match (takes, value) {
                (Takes::Bool, None) => "true".to_owned(),
                (Takes::Bool, Some(v)) => boolean(name, v).map_err(|e| (e, at))?,
                (_, None) => return Err((ParseErrorKind::FlagValue(name.to_owned()), at)),
                (_, Some(v)) => v.to_owned(),
            };
            out.0.push((known_name, value, at));
        }
        Ok(out)
    }

    /// The value of a flag, and where it is; an empty value counts as none.
    pub(super) fn one(&self, name: &'static str) -> Option<At<&str>> {
        self.many(name).next().filter(|(v, _)| !v.is_empty())
    }

    /// All values of a flag.
    pub(super) fn many(&self, name: &'static str) -> impl Iterator<Item = At<&str>> {
        self.0.iter().filter(move |(n, ..)| *n == name).map(|(_, v, at)| (v.as_str(), *at))
    }

    /// Whether a boolean flag is given, and what it says.
    pub(super) fn bool(&self, name: &'static str) -> Option<bool> {
        self.one(name).map(|(v, _)| v == "true")
    }
}

fn boolean(name: &str, value: &str) -> Result<String, ParseErrorKind> {
    let lower = value.to_ascii_lowercase();
    match lower.as_str() {
        "" => Err(ParseErrorKind::FlagValue(name.to_owned())),
        "true" | "false" => Ok(lower),
        _ => {
            Err(ParseErrorKind::FlagBool { name: name.to_owned(), value: value.chars().take(100).collect() })
        }
    }
}
