//! Which variables an instruction sees.

use std::borrow::Cow;

use crate::dockerfile::{self, ArgDef, Environment, Escape, Globals, Mode, Span, Word};
use crate::{Error, Result};

use super::Options;

/// Arguments that need no `ARG`; commands see them, and no result is thought to depend on them
/// (docs.docker.com/reference/dockerfile/#predefined-args).
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Arguments that mean something to builders and not to Dockerfiles.
const BUILDERS: [&str; 8] = [
    "SOURCE_DATE_EPOCH",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_SYNTAX",
];

/// Whether a build argument may be given although nothing declares it.
pub(super) fn is_predefined(name: &str) -> bool {
    PROXIES.contains(&name) || BUILDERS.contains(&name)
}

/// The proxies among build arguments, in both spellings, whichever of them was given; without names that `declared` has.
pub(super) fn proxies(options: &Options, declared: &[(String, Option<String>)]) -> Vec<String> {
    let undeclared = |name: &&&str| !declared.iter().any(|(d, _)| d == **name);
    let given = |name: &str| {
        let other = || {
            options.args.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        options.args.get(name).or_else(other)
    };
    let proxies = PROXIES.iter().filter(undeclared);
    proxies.filter_map(|name| given(name).map(|value| format!("{name}={value}"))).collect()
}

/// The value that an `ARG` in a stage has before its default is looked at.
pub(super) fn given(arg: &ArgDef, options: &Options, globals: &Globals) -> Option<String> {
    if let Some(given) = options.args.get(&arg.name) {
        return Some(given.clone());
    }
    // A default in the stage goes before a value from the top.
    if arg.default.is_some() { None } else { globals.get(&arg.name).map(Cow::into_owned) }
}

/// What an instruction of a stage sees. As in BuildKit, what was set last counts, be it by `ENV` or by `ARG`.
pub(super) struct View<'a> {
    pub(super) env: &'a [String],
    /// Those with a value were set after a variable of `env` of their name.
    pub(super) args: &'a [(String, Option<String>)],
}

impl Environment for View<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let in_args = self.args.iter().rev().find(|(n, _)| n == name).and_then(|(_, v)| v.as_deref());
        let in_env = || {
            self.env.iter().rev().find_map(|e| {
                let (key, value) = e.split_once('=')?;
                (key == name).then_some(value)
            })
        };
        in_args.or_else(in_env).map(Cow::Borrowed)
    }
}

/// A word as one text.
///
/// # Errors
/// For a substitution that is none, with its line.
pub(super) fn text(
    word: &Word,
    env: &(impl Environment + ?Sized),
    escape: Escape,
    span: Span,
) -> Result<String> {
    let expanded = dockerfile::expand(word.as_str(), env, escape, Mode::Word);
    expanded.map(|e| e.text).map_err(|e| at(span, &e))
}

/// An error with its line.
pub(super) fn at(span: Span, e: &dyn std::fmt::Display) -> Error {
    Error::Invalid(format!("dockerfile parse error on line {}: {e}", span.line))
}
