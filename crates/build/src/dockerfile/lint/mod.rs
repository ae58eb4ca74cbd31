//! BuildKit's 22 rules, in its words.
//!
//! What the file alone tells, [`lint`] sees; what only a build knows (base images, build arguments, the ignore file), it asks
//! of a [`Known`]. What is not known is not complained about.

mod file;
mod from;
mod rule;
mod stage;

pub use rule::Rule;

use super::ast::{Dockerfile, Instruction, Span};
use super::check::Check;
use super::stages::Graph;
use longshore_oci::Platform;

/// Findings of one file: beyond that nobody reads them.
const MAX_FINDINGS: usize = 1_000;

/// Something that a rule does not like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What it says, in BuildKit's words.
    pub message: String,
    /// Where.
    pub span: Span,
    /// The stage it is in, if it is in one: a build is told only of those that it needs.
    pub stage: Option<usize>,
}

/// What a build knows and the file does not.
pub trait Known {
    /// The arguments that every build has: [`predefined`](super::predefined).
    fn predefined(&self) -> Vec<(String, String)>;

    /// A build argument.
    fn build_arg(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// The image that a stage is made from; `None` while it is not known. Not asked for stages made from stages.
    fn base(&self, stage: usize) -> Option<BaseFacts> {
        let _ = stage;
        None
    }

    /// Whether the ignore file keeps `path` (cleaned, as written in `COPY`) out of the build context. `false` where the ignore
    /// file has exceptions (`!`): these cannot be decided without the files.
    fn ignored(&self, path: &str) -> bool {
        let _ = path;
        false
    }

    /// Whether the ignore file keeps out everything (`*`, `**`, `**/*`).
    fn ignores_all(&self) -> bool {
        false
    }
}

/// What the rules need to know of a base image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseFacts {
    /// `Env` of its configuration.
    pub env: Vec<(String, String)>,
    /// Whether its configuration names a shell.
    pub shell: bool,
    /// Its triggers ([`parse_triggers`](super::parse_triggers)).
    pub triggers: Vec<Instruction>,
    /// The platform that was asked for, and the one the image has.
    pub platforms: Option<(Platform, Platform)>,
}

/// Nothing is known but where this program runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOnly;

impl Known for FileOnly {
    fn predefined(&self) -> Vec<(String, String)> {
        super::predefined(&Platform::host(), &Platform::host(), "")
    }
}

/// What the rules that `check` wants find, in the order of the file. After a thousand things, skipped ones included, it ends.
///
/// `check` is that of the file ([`Directives::check`](super::Directives)), or what a build sets in its place; comments above an
/// instruction add to it.
#[must_use]
pub fn lint(file: &Dockerfile, graph: &Graph<'_>, known: &impl Known, check: &Check) -> Vec<Finding> {
    let mut out = Findings { check, list: Vec::new(), tried: 0 };
    file::check(file, &graph.stages, &mut out);
    from::check(graph, known, &mut out);
    stage::check(graph, known, &mut out);
    out.list.sort_by_key(|f| f.span.line);
    out.list
}

/// What the file shows without its stages: for a file that is wrong further down.
#[must_use]
pub fn lint_instructions(instructions: &[Instruction], check: &Check) -> Vec<Finding> {
    let mut out = Findings { check, list: Vec::new(), tried: 0 };
    let mut stage = None;
    for instruction in instructions {
        file::instruction(instruction, &mut stage, &mut out);
    }
    out.list
}

/// The error that `# check=error=true` makes of findings.
#[must_use]
pub fn violation(findings: &[Finding], check: &Check) -> Option<String> {
    if !check.error || findings.is_empty() {
        return None;
    }
    let rules: std::collections::BTreeSet<&str> = findings.iter().map(|f| f.rule.name()).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    Some(format!("lint violation found for rules: {}", rules.join(", ")))
}

/// Findings as they come in.
struct Findings<'a> {
    check: &'a Check,
    list: Vec<Finding>,
    /// Findings that are told, and those that are not wanted.
    tried: usize,
}

impl Findings<'_> {
    fn full(&self) -> bool {
        self.tried >= MAX_FINDINGS
    }

    /// Of a rule that comments above `instruction` may switch.
    fn at(&mut self, rule: Rule, instruction: &Instruction, stage: Option<usize>, message: String) {
        self.under(rule, &instruction.comments, instruction.span, stage, message);
    }

    fn under(&mut self, rule: Rule, comments: &[String], span: Span, stage: Option<usize>, message: String) {
        self.tried += 1;
        if self.tried <= MAX_FINDINGS && self.check.wants_at(rule, comments) {
            self.list.push(Finding { rule, message, span, stage });
        }
    }

    /// Of a rule that only the file's directive switches.
    fn file(&mut self, rule: Rule, span: Span, stage: Option<usize>, message: String) {
        self.under(rule, &[], span, stage, message);
    }
}

#[cfg(test)]
mod tests;
