//! What the linter knows of a build that was planned.

use std::collections::BTreeSet;

use longshore_oci::Platform;

use crate::dockerfile::{
    self, BaseFacts, Dockerfile, Finding, Graph as Stages, Known, parse_triggers, violation,
};
use crate::{Error, Result};

use super::{Base, Options};

/// A build, for the rules of the linter.
pub(super) struct Facts<'a> {
    pub(super) options: &'a Options,
    pub(super) platform: &'a Platform,
    /// The image that a stage was made from, where one was looked for, and the platform for which it was wanted.
    pub(super) base: &'a dyn Fn(usize) -> Option<(&'a Base, Platform)>,
}

impl Known for Facts<'_> {
    fn predefined(&self) -> Vec<(String, String)> {
        let stage = self.options.target.as_deref().unwrap_or_default();
        dockerfile::predefined(&self.options.host, self.platform, stage)
    }

    fn build_arg(&self, name: &str) -> Option<String> {
        self.options.args.get(name).cloned()
    }

    fn base(&self, stage: usize) -> Option<BaseFacts> {
        let (base, wanted) = (self.base)(stage)?;
        let has = base.document.platform();
        let config = base.document.config.clone().unwrap_or_default();
        let pair = |e: &String| e.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Some(BaseFacts {
            env: config.env.iter().flatten().filter_map(pair).collect(),
            shell: config.shell.is_some(),
            triggers: parse_triggers(&config.on_build.unwrap_or_default()).unwrap_or_default(),
            platforms: (!has.architecture.is_empty()).then_some((wanted, has)),
        })
    }
}

/// Whether a finding is in a stage that is needed, or in none.
pub(super) fn is_needed(finding: &Finding, needed: &BTreeSet<usize>) -> bool {
    finding.stage.is_none_or(|stage| needed.contains(&stage))
}

/// What the linter finds in the stages that are needed.
///
/// # Errors
/// Where the file says that findings are errors.
pub(super) fn findings(
    file: &Dockerfile,
    stages: &Stages<'_>,
    needed: &BTreeSet<usize>,
    facts: &Facts<'_>,
) -> Result<Vec<Finding>> {
    let check = &file.directives.check;
    let mut found = dockerfile::lint(file, stages, facts, check);
    found.retain(|finding| is_needed(finding, needed));
    match violation(&found, check) {
        Some(text) => Err(Error::Invalid(text)),
        None => Ok(found),
    }
}
