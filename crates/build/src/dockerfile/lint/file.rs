//! What the text alone shows.

use super::{Findings, Rule};
use crate::dockerfile::ast::{Dockerfile, FromCmd, Instruction, Kind};
use crate::dockerfile::stages::Stages;
use std::collections::HashSet;

pub(super) fn check(file: &Dockerfile, stages: &Stages<'_>, out: &mut Findings<'_>) {
    for span in &file.empty_continuations {
        out.file(Rule::NoEmptyContinuation, *span, None, "Empty continuation line".to_owned());
    }
    let mut stage = None;
    for i in &file.instructions {
        instruction(i, &mut stage, out);
    }
    names(stages, out);
    casing(stages, out);
}

/// What one instruction shows; `stage` is the one it is in.
pub(super) fn instruction(i: &Instruction, stage: &mut Option<usize>, out: &mut Findings<'_>) {
    match &i.kind {
        Kind::From(from) => {
            *stage = Some(stage.map_or(0, |s| s + 1));
            self::from(i, from, *stage, out);
        }
        Kind::Arg(defs) => {
            let names: Vec<&str> = defs.iter().map(|d| d.name.as_str()).collect();
            description("ARG", &names, i, *stage, out);
        }
        Kind::Maintainer(_) => {
            let message = "Maintainer instruction is deprecated in favor of using label";
            out.at(Rule::MaintainerDeprecated, i, *stage, message.to_owned());
        }
        _ => {}
    }
}

fn from(i: &Instruction, from: &FromCmd, stage: Option<usize>, out: &mut Findings<'_>) {
    let Some((keyword, name)) = &from.written else { return };
    if *name != name.to_lowercase() {
        out.at(Rule::StageNameCasing, i, stage, format!("Stage name '{name}' should be lowercase"));
    }
    let differs = if i.name == i.name.to_lowercase() {
        *keyword != keyword.to_lowercase()
    } else {
        i.name == i.name.to_uppercase() && *keyword != keyword.to_uppercase()
    };
    if differs {
        let message = format!("'{keyword}' and '{}' keywords' casing do not match", i.name);
        out.at(Rule::FromAsCasing, i, stage, message);
    }
    if let Some(alias) = &from.alias {
        description("FROM", &[alias], i, stage, out);
    }
}

/// A comment above a definition that describes nothing in it.
fn description(name: &str, keys: &[&str], i: &Instruction, stage: Option<usize>, out: &mut Findings<'_>) {
    let Some(last) = i.comments.last() else { return };
    let first = last.split(' ').next().unwrap_or_default();
    if keys.contains(&first) {
        return;
    }
    let example = match keys {
        [one] => one,
        _ => "<arg_key>",
    };
    let message = format!("Comment for {name} should follow the format: `# {example} <description>`");
    out.at(Rule::InvalidDefinitionDescription, i, stage, message);
}

fn names(stages: &Stages<'_>, out: &mut Findings<'_>) {
    let mut seen = HashSet::new();
    for stage in &stages.stages {
        let (span, index) = (stage.head.span, Some(stage.index));
        let Some(name) = &stage.from.alias else { continue };
        if ["context", "scratch"].contains(&name.as_str()) {
            let message = format!("Stage name should not use the same name as reserved stage {name:?}");
            out.file(Rule::ReservedStageName, span, index, message);
        }
        if !seen.insert(name.as_str()) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            out.file(Rule::DuplicateStageName, span, index, message);
        }
    }
}

/// Instructions in another case than most.
fn casing(stages: &Stages<'_>, out: &mut Findings<'_>) {
    let all =
        || stages.stages.iter().flat_map(|s| std::iter::once(s.head).chain(s.body).map(|i| (s.index, i)));
    let lower = all().filter(|(_, i)| i.name == i.name.to_lowercase()).count();
    let upper = all().filter(|(_, i)| i.name == i.name.to_uppercase()).count();
    let (want, is_right): (_, fn(&str) -> String) =
        if lower > upper { ("lowercase", str::to_lowercase) } else { ("uppercase", str::to_uppercase) };
    for (stage, i) in all() {
        if i.name != is_right(&i.name) {
            let message =
                format!("Command '{}' should match the case of the command majority ({want})", i.name);
            out.file(Rule::ConsistentInstructionCasing, i.span, Some(stage), message);
        }
    }
}
