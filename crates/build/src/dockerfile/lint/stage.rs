//! What shows when a stage's instructions are gone through with the variables that are set where they stand.

use super::{BaseFacts, Findings, Known, Rule};
use crate::dockerfile::ast::{ArgDef, Command, Escape, Instruction, Kind, Pair, Paths, Span, Word};
use crate::dockerfile::expand::{Environment, ExpandError, Lookup, Mode, expand, expand_words};
use crate::dockerfile::globals::Globals;
use crate::dockerfile::ports::port_spec;
use crate::dockerfile::stages::{Graph, Source, Stage};
use crate::dockerfile::suggest::suggest;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Bytes of all variables of all stages; a file that needs more is not looked at further.
const MAX_HELD: usize = 64 << 20;
/// Never set by anything, and no mistake: they steer the SBOM scanner.
const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// The variables of a stage.
#[derive(Clone, Debug, Default)]
struct Vars {
    values: BTreeMap<String, String>,
    /// `ARG`s, those without a value included.
    declared: BTreeSet<String>,
    /// Whether all are known: those of the base image, too.
    complete: bool,
    size: usize,
}

impl Environment for Vars {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.values.get(name).map(|v| Cow::Borrowed(v.as_str()))
    }
}

/// What a stage leaves to those made from it.
#[derive(Clone, Debug, Default)]
struct Left {
    vars: Rc<Vars>,
    workdir: bool,
    shell: bool,
}

/// One stage as it is gone through.
struct Walk<'a, 'f, K> {
    known: &'a K,
    globals: &'a Globals,
    out: &'a mut Findings<'f>,
    escape: Escape,
    stage: usize,
    /// Where what is found is shown, instead of where it stands: triggers stand in no file.
    elsewhere: Option<Span>,
    state: Left,
    held: &'a mut usize,
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
}

pub(super) fn check(graph: &Graph<'_>, known: &impl Known, out: &mut Findings<'_>) {
    let stages = &graph.stages;
    let given = Lookup(|name: &str| known.build_arg(name));
    let globals = Globals::new(stages.globals, &known.predefined(), &given, stages.escape());
    let Ok(globals) = globals else { return };
    let mut left: Vec<Left> = Vec::new();
    let mut held = 0;
    for (stage, base) in stages.stages.iter().zip(&graph.bases) {
        let facts = match base {
            Source::Stage(_) => None,
            Source::Scratch => Some(BaseFacts::default()),
            Source::Image(_) => known.base(stage.index),
        };
        if let (Source::Image(name), Some(facts)) = (base, &facts) {
            platform(stage, name, facts, out);
        }
        let state = match base {
            Source::Stage(base) => left.get(*base).cloned().unwrap_or_default(),
            _ => from_image(facts.as_ref()),
        };
        let mut walk = Walk {
            known,
            globals: &globals,
            out: &mut *out,
            escape: stages.escape(),
            stage: stage.index,
            elsewhere: Some(stage.head.span),
            state,
            held: &mut held,
            cmd: None,
            entrypoint: None,
            healthcheck: None,
        };
        let triggers: Vec<&Instruction> = match base {
            Source::Stage(base) => stages.stages.get(*base).into_iter().flat_map(Stage::triggers).collect(),
            _ => facts.iter().flat_map(|f| &f.triggers).collect(),
        };
        let mut whole = triggers.into_iter().all(|i| walk.instruction(i));
        walk.elsewhere = None;
        whole = whole && stage.body.iter().all(|i| walk.instruction(i));
        let state = walk.state;
        // A stage that cannot be built says nothing about those made from it.
        left.push(if whole { state } else { Left { workdir: true, ..Left::default() } });
    }
}

fn from_image(facts: Option<&BaseFacts>) -> Left {
    let mut vars = Vars { complete: facts.is_some(), ..Vars::default() };
    // Where an image sets none, the build does.
    vars.values.insert("PATH".to_owned(), String::new());
    for (name, value) in facts.iter().flat_map(|f| &f.env) {
        vars.size += name.len() + value.len();
        vars.values.insert(name.clone(), value.clone());
    }
    Left { vars: Rc::new(vars), workdir: false, shell: facts.is_some_and(|f| f.shell) }
}

fn platform(stage: &Stage<'_>, name: &str, facts: &BaseFacts, out: &mut Findings<'_>) {
    let Some((want, have)) = &facts.platforms else { return };
    if want.os != have.os || want.architecture != have.architecture {
        let (want, have) = (want.to_string(), have.to_string());
        let message = format!(
            "Base image {name} was pulled with platform {have:?}, expected {want:?} for current build"
        );
        out.file(Rule::InvalidBaseImagePlatform, stage.head.span, Some(stage.index), message);
    }
}

impl<K: Known> Walk<'_, '_, K> {
    /// `false` where the build would end.
    fn instruction(&mut self, i: &Instruction) -> bool {
        self.undefined(i);
        let done = match &i.kind {
            Kind::Arg(defs) => self.arg(i, defs),
            Kind::Env(pairs) => self.env(i, pairs),
            Kind::Label(pairs) => {
                self.legacy(i, pairs);
                Ok(())
            }
            Kind::Workdir(path) => self.workdir(i, path),
            Kind::Shell(_) => {
                self.state.shell = true;
                Ok(())
            }
            Kind::Cmd(command) => {
                let before = self.cmd.replace(i.span);
                self.repeated(i, before);
                self.shell_form(i, command);
                Ok(())
            }
            Kind::Entrypoint(command) => {
                let before = self.entrypoint.replace(i.span);
                self.repeated(i, before);
                self.shell_form(i, command);
                Ok(())
            }
            Kind::Healthcheck(_) => {
                let before = self.healthcheck.replace(i.span);
                self.repeated(i, before);
                Ok(())
            }
            Kind::Expose(words) => self.expose(i, words),
            Kind::Copy(copy) if copy.from.is_none() => self.ignored(i, "Copy", &copy.paths),
            Kind::Add(add) => self.ignored(i, "Add", &add.paths),
            _ => Ok(()),
        };
        done.is_ok() && *self.held <= MAX_HELD
    }

    fn found(&mut self, rule: Rule, i: &Instruction, message: String) {
        let span = self.elsewhere.unwrap_or(i.span);
        self.out.under(rule, &i.comments, span, Some(self.stage), message);
    }

    fn expand(&self, word: &str) -> Result<String, ExpandError> {
        expand(word, &*self.state.vars, self.escape, Mode::Word).map(|e| e.text)
    }

    fn set(&mut self, name: &str, value: Option<String>, declare: bool) {
        // Shared with the stage this one is made from: from here on it has its own.
        if Rc::strong_count(&self.state.vars) > 1 {
            *self.held += self.state.vars.size;
        }
        let size = name.len() + value.as_ref().map_or(0, String::len);
        *self.held += size;
        let vars = Rc::make_mut(&mut self.state.vars);
        vars.size += size;
        if declare {
            vars.declared.insert(name.to_owned());
        }
        if let Some(value) = value {
            vars.values.insert(name.to_owned(), value);
        }
    }

    fn undefined(&mut self, i: &Instruction) {
        if !self.state.vars.complete || !self.out.check.wants(Rule::UndefinedVar) {
            return;
        }
        let mut unset = BTreeSet::new();
        for (word, mode) in i.words() {
            match expand(word, &*self.state.vars, self.escape, mode) {
                Ok(expanded) => unset.extend(expanded.unset),
                Err(_) => break,
            }
        }
        self.report_undefined(i, unset);
    }

    fn report_undefined(&mut self, i: &Instruction, unset: BTreeSet<String>) {
        let vars = Rc::clone(&self.state.vars);
        for name in unset {
            if vars.declared.contains(&name) || NOT_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            if self.out.full() {
                return;
            }
            let hint = suggest(&name, vars.values.keys().map(String::as_str));
            let hint = hint.map(|h| format!(" (did you mean ${h}?)")).unwrap_or_default();
            self.found(Rule::UndefinedVar, i, format!("Usage of undefined variable '${name}'{hint}"));
        }
    }

    fn arg(&mut self, i: &Instruction, defs: &[ArgDef]) -> Result<(), ExpandError> {
        for def in defs {
            self.secret(i, "ARG", &def.name);
            let value = match (self.known.build_arg(&def.name), &def.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => {
                    let expanded = expand(default.as_str(), &*self.state.vars, self.escape, Mode::Word)?;
                    if self.state.vars.complete {
                        self.report_undefined(i, expanded.unset);
                    }
                    Some(expanded.text)
                }
                (None, None) => self.globals.get(&def.name).map(Cow::into_owned),
            };
            let value = value.filter(|_| !NOT_VARIABLES.contains(&def.name.as_str()));
            self.set(&def.name, value, true);
        }
        Ok(())
    }

    fn env(&mut self, i: &Instruction, pairs: &[Pair]) -> Result<(), ExpandError> {
        self.legacy(i, pairs);
        // All of one instruction see what was set before it.
        let mut set = Vec::with_capacity(pairs.len());
        let mut size = 0;
        for pair in pairs {
            let (key, value) = (self.expand(pair.key.as_str())?, self.expand(pair.value.as_str())?);
            size += value.len();
            if size > MAX_HELD {
                *self.held = usize::MAX;
                return Ok(());
            }
            set.push((key, value));
        }
        for (key, value) in set {
            self.secret(i, "ENV", &key);
            self.set(&key, Some(value), false);
        }
        Ok(())
    }

    fn legacy(&mut self, i: &Instruction, pairs: &[Pair]) {
        if pairs.iter().any(|p| p.legacy) {
            let name = &i.name;
            let message =
                format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
            self.found(Rule::LegacyKeyValueFormat, i, message);
        }
    }

    fn secret(&mut self, i: &Instruction, name: &str, key: &str) {
        const SECRET: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        const HARMLESS: [&str; 3] = ["public", "file", "version"];
        let has =
            |words: &[&str]| key.split('_').any(|part| words.iter().any(|w| w.eq_ignore_ascii_case(part)));
        if has(&SECRET) && !has(&HARMLESS) {
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({name} {key:?})");
            self.found(Rule::SecretsUsedInArgOrEnv, i, message);
        }
    }

    fn workdir(&mut self, i: &Instruction, path: &Word) -> Result<(), ExpandError> {
        let path = self.expand(path.as_str())?;
        if !std::mem::replace(&mut self.state.workdir, true) && !path.starts_with('/') {
            let message =
                format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.found(Rule::WorkdirRelativePath, i, message);
        }
        Ok(())
    }

    /// The earlier one is shown: it is the one that does nothing.
    fn repeated(&mut self, i: &Instruction, before: Option<Span>) {
        let Some(span) = before else { return };
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            i.name
        );
        let span = self.elsewhere.unwrap_or(span);
        let (rule, stage) = (Rule::MultipleInstructionsDisallowed, Some(self.stage));
        self.out.under(rule, &i.comments, span, stage, message);
    }

    fn shell_form(&mut self, i: &Instruction, command: &Command) {
        if matches!(command, Command::Shell(_)) && !self.state.shell {
            let message = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                i.name
            );
            self.found(Rule::JSONArgsRecommended, i, message);
        }
    }

    fn expose(&mut self, i: &Instruction, words: &[Word]) -> Result<(), ExpandError> {
        for word in words {
            for port in expand_words(word.as_str(), &*self.state.vars, self.escape)?.words {
                let Ok(spec) = port_spec(&port) else { return Ok(()) };
                if spec.proto != spec.proto.to_lowercase() {
                    let message =
                        format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                    self.found(Rule::ExposeProtoCasing, i, message);
                }
                if spec.mapped {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    );
                    self.found(Rule::ExposeInvalidFormat, i, message);
                }
            }
        }
        Ok(())
    }

    fn ignored(&mut self, i: &Instruction, what: &str, paths: &Paths) -> Result<(), ExpandError> {
        for source in &paths.sources {
            let source = self.expand(source.as_str())?;
            if source.contains("://") || source.starts_with("git@") {
                continue;
            }
            let path = clean(&source);
            let root = path == "." || path == "/";
            if self.known.ignored(&path) && (!root || self.known.ignores_all()) {
                let message = format!("Attempting to {what} file {path:?} that is excluded by .dockerignore");
                self.found(Rule::CopyIgnoredFile, i, message);
            }
        }
        Ok(())
    }
}

/// A path without `.`, `..` and double slashes, as Go's `path.Clean`.
fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}
