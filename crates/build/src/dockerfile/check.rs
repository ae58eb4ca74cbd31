//! `# check=skip=A,B;error=true`

use super::error::ParseErrorKind;
use super::lint::Rule;
use std::collections::BTreeSet;

/// Comments longer than this are no directives.
const MAX_COMMENT: usize = 4096;

/// What the linter is to do; from `# check=` or from `BUILDKIT_DOCKERFILE_CHECK`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// `skip=all`
    pub skip_all: bool,
    /// `skip=Rule,...`; names of no rule are kept.
    pub skip: BTreeSet<String>,
    /// `experimental=all`
    pub experimental_all: bool,
    /// `experimental=Rule,...`
    pub experimental: BTreeSet<String>,
    /// `error=true`: a finding fails the build.
    pub error: bool,
}

impl Check {
    /// Reads `skip=A,B;error=true;experimental=C`.
    ///
    /// # Errors
    /// For an option that there is not, and a value of `error` that is not a boolean.
    pub fn parse(text: &str) -> Result<Self, ParseErrorKind> {
        let mut check = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(check);
        }
        for part in text.split(';') {
            let bad = || ParseErrorKind::CheckOption(part.chars().take(100).collect());
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            let value = value.trim();
            let names = || value.split(',').map(|n| n.trim().to_owned()).collect();
            match key.trim() {
                "skip" if value == "all" => check.skip_all = true,
                "skip" => check.skip = names(),
                "experimental" if value == "all" => check.experimental_all = true,
                "experimental" => check.experimental = names(),
                "error" => check.error = parse_bool(value).ok_or_else(bad)?,
                _ => return Err(bad()),
            }
        }
        Ok(check)
    }

    /// Whether a finding of `rule` is to be told.
    #[must_use]
    pub fn wants(&self, rule: Rule) -> bool {
        if rule.experimental() { self.asks(rule) } else { !self.skips(rule) }
    }

    /// As [`Self::wants`], of an instruction: the first `# check=` among the comments above it adds to what is said here.
    #[must_use]
    pub fn wants_at(&self, rule: Rule, comments: &[String]) -> bool {
        let local = comments.iter().filter(|c| c.len() <= MAX_COMMENT).find_map(|c| {
            let (name, value) = super::directives::split(c)?;
            name.eq_ignore_ascii_case("check").then(|| value.split(' ').next().unwrap_or_default())
        });
        let local = local.and_then(|l| Self::parse(l).ok()).unwrap_or_default();
        if rule.experimental() {
            self.asks(rule) || local.asks(rule)
        } else {
            !self.skips(rule) && !local.skips(rule)
        }
    }

    fn asks(&self, rule: Rule) -> bool {
        self.experimental_all || self.experimental.contains(rule.name())
    }

    fn skips(&self, rule: Rule) -> bool {
        self.skip_all || self.skip.contains(rule.name())
    }
}

/// The words that Go's `strconv.ParseBool` takes.
pub(super) fn parse_bool(s: &str) -> Option<bool> {
    match s {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
