//! Variables in `FROM`.

use super::{Findings, Known, Rule};
use crate::dockerfile::expand::{Expanded, Lookup, Mode, expand};
use crate::dockerfile::globals::Globals;
use crate::dockerfile::stages::{Graph, Stage};
use crate::dockerfile::suggest::suggest;
use longshore_oci::{Platform, Reference};

pub(super) fn check(graph: &Graph<'_>, known: &impl Known, out: &mut Findings<'_>) {
    let stages = &graph.stages;
    let predefined = known.predefined();
    let none = Lookup(|_: &str| None);
    if let Ok(defaults) = Globals::new(stages.globals, &predefined, &none, stages.escape()) {
        for stage in &stages.stages {
            let word = stage.from.image.as_str();
            let Ok(image) = expand(word, &defaults, stages.escape(), Mode::Word) else { break };
            if image.text.parse::<Reference>().is_err() {
                let message =
                    format!("Default value for ARG {word} results in empty or invalid base image name");
                out.file(Rule::InvalidDefaultArgInFrom, stage.head.span, Some(stage.index), message);
            }
        }
    }
    let given = Lookup(|name: &str| known.build_arg(name));
    let Ok(globals) = Globals::new(stages.globals, &predefined, &given, stages.escape()) else { return };
    for stage in &stages.stages {
        let image = expand(stage.from.image.as_str(), &globals, stages.escape(), Mode::Word);
        let Ok(image) = image else { return };
        undeclared(stage, &image, &globals, out);
        let Some(word) = &stage.from.platform else { continue };
        let Ok(platform) = expand(word.as_str(), &globals, stages.escape(), Mode::Word) else { return };
        undeclared(stage, &platform, &globals, out);
        redundant(stage, word.as_str(), &platform, &globals, out);
        constant(stage, &platform, out);
    }
}

fn undeclared(stage: &Stage<'_>, word: &Expanded, globals: &Globals, out: &mut Findings<'_>) {
    for name in word.unset.iter().filter(|n| !globals.declared.contains(*n)) {
        if out.full() {
            return;
        }
        let hint = suggest(name, globals.declared.iter().map(String::as_str));
        let hint = hint.map(|h| format!(" (did you mean {h}?)")).unwrap_or_default();
        let message = format!("FROM argument '{name}' is not declared{hint}");
        out.at(Rule::UndefinedArgInFrom, stage.head, Some(stage.index), message);
    }
}

fn redundant(stage: &Stage<'_>, written: &str, word: &Expanded, globals: &Globals, out: &mut Findings<'_>) {
    const TARGET: &str = "TARGETPLATFORM";
    let only = word.used.len() == 1 && word.used.contains(TARGET) && word.unset.is_empty();
    let value = crate::dockerfile::Environment::get(globals, TARGET);
    if only && value.as_deref() == Some(&word.text) {
        let message = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        out.at(Rule::RedundantTargetPlatform, stage.head, Some(stage.index), message);
    }
}

fn constant(stage: &Stage<'_>, word: &Expanded, out: &mut Findings<'_>) {
    if !word.used.is_empty() || !word.unset.is_empty() {
        return;
    }
    let Ok(platform) = word.text.parse::<Platform>() else { return };
    // A stage that says for which platform it is means it.
    let name = stage.from.alias.as_deref().unwrap_or_default();
    if name.contains(&platform.os) || name.contains(&platform.architecture) {
        return;
    }
    let message = format!("FROM --platform flag should not use constant value {:?}", word.text);
    out.at(Rule::FromPlatformFlagConstDisallowed, stage.head, Some(stage.index), message);
}
