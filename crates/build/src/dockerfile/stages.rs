//! The stages of a file and what each needs.

use super::ast::{Dockerfile, Escape, FromCmd, Instruction, Kind, Span};
use super::error::Hint;
use super::expand::{Environment, ExpandError, Mode, expand};
use super::limits::MAX_STAGES;
use super::suggest::hint;
use std::collections::{BTreeSet, HashMap};

/// A file, cut at its `FROM`s.
#[derive(Clone, Debug)]
pub struct Stages<'a> {
    /// The `ARG`s before the first `FROM`.
    pub globals: &'a [Instruction],
    /// In the order of the file; at least one.
    pub stages: Vec<Stage<'a>>,
    escape: Escape,
}

/// `FROM` and the instructions up to the next.
#[derive(Clone, Debug)]
pub struct Stage<'a> {
    /// Its place among the stages, from 0.
    pub index: usize,
    /// What `FROM` says.
    pub from: &'a FromCmd,
    /// The `FROM` itself.
    pub head: &'a Instruction,
    /// What follows it.
    pub body: &'a [Instruction],
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An earlier stage.
    Stage(usize),
    /// An image, as written; a named context of that name comes first.
    Image(String),
    /// Nothing.
    Scratch,
}

/// The stages with what they are made from.
#[derive(Clone, Debug)]
pub struct Graph<'a> {
    /// The stages.
    pub stages: Stages<'a>,
    /// By stage: what `FROM` names, variables expanded.
    pub bases: Vec<Source>,
    /// By stage: the earlier stages that it needs itself, those of its base's triggers included.
    pub needs: Vec<BTreeSet<usize>>,
    /// By stage: the variables that its `FROM` used, and those that had no value.
    pub variables: Vec<FromVariables>,
    names: HashMap<String, Vec<usize>>,
}

/// What became of the words of a `FROM`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FromVariables {
    /// `--platform`, expanded.
    pub platform: Option<String>,
    /// Variables with a value.
    pub used: BTreeSet<String>,
    /// Variables without one.
    pub unset: BTreeSet<String>,
}

/// Why a file has no stages that could be built; the words are Docker's where it has any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum StageError {
    #[error("dockerfile contains no stages to build: add a FROM")]
    None,
    #[error("dockerfile parse error on line {}: no build stage in current context: start with FROM", .0.line)]
    NoStage(Span),
    #[error("line {}: more than {MAX_STAGES} stages: split the file", .0.line)]
    TooMany(Span),
    #[error("line {}: base name ({name}) should not be blank", span.line)]
    BlankBase { name: String, span: Span },
    #[error("line {}: empty platform value from expression {word}", span.line)]
    BlankPlatform { word: String, span: Span },
    #[error("line {}: {error}", span.line)]
    Expand { error: ExpandError, span: Span },
    #[error("target stage {name:?} could not be found{hint}")]
    Target { name: String, hint: Hint },
    #[error("line {}: invalid stage index {index}", span.line)]
    Index { index: String, span: Span },
    #[error("line {}: circular dependency detected on stage: {name}", span.line)]
    Circular { name: String, span: Span },
    #[error("line {}: cannot use stage {name:?}, it needs to be defined before current stage {stage:?}", span.line)]
    Later { name: String, stage: String, span: Span },
}

impl StageError {
    /// Where it is, for [`render`](super::render).
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::None | Self::Target { .. } => None,
            Self::NoStage(span) | Self::TooMany(span) => Some(*span),
            Self::BlankBase { span, .. }
            | Self::BlankPlatform { span, .. }
            | Self::Expand { span, .. }
            | Self::Index { span, .. }
            | Self::Circular { span, .. }
            | Self::Later { span, .. } => Some(*span),
        }
    }
}

/// Cuts a file into its stages.
///
/// # Errors
/// Without a `FROM`, for anything but `ARG` before the first, and for too many.
pub fn stages(file: &Dockerfile) -> Result<Stages<'_>, StageError> {
    let all = file.instructions.as_slice();
    let is_from = |i: &Instruction| matches!(i.kind, Kind::From(_));
    let first = all.iter().position(is_from).unwrap_or(all.len());
    let (globals, mut rest) = all.split_at(first);
    if let Some(stray) = globals.iter().find(|i| !matches!(i.kind, Kind::Arg(_))) {
        return Err(StageError::NoStage(stray.span));
    }
    let mut stages = Vec::new();
    while let Some((head, after)) = rest.split_first() {
        let Kind::From(from) = &head.kind else { break };
        if stages.len() == MAX_STAGES {
            return Err(StageError::TooMany(head.span));
        }
        let (body, next) = after.split_at(after.iter().position(is_from).unwrap_or(after.len()));
        stages.push(Stage { index: stages.len(), from, head, body });
        rest = next;
    }
    if stages.is_empty() {
        return Err(StageError::None);
    }
    Ok(Stages { globals, stages, escape: file.directives.escape })
}

impl Stage<'_> {
    /// Its name, or `stage-0`.
    #[must_use]
    pub fn display_name(&self) -> String {
        self.from.alias.clone().unwrap_or_else(|| format!("stage-{}", self.index))
    }

    /// The triggers that a stage made from this one runs first.
    pub fn triggers(&self) -> impl Iterator<Item = &Instruction> {
        self.body.iter().filter_map(|i| match &i.kind {
            Kind::Onbuild(o) => Some(&*o.trigger),
            _ => None,
        })
    }
}

impl<'a> Stages<'a> {
    /// The file's escape character.
    #[must_use]
    pub fn escape(&self) -> Escape {
        self.escape
    }

    /// The stage of a name or, where none has it, of a number; the last for an empty name.
    ///
    /// # Errors
    /// When there is none.
    pub fn target(&self, name: &str) -> Result<usize, StageError> {
        if name.is_empty() {
            return Ok(self.stages.len().saturating_sub(1));
        }
        let lower = name.to_lowercase();
        let named = self.stages.iter().rev().find(|s| s.from.alias.as_deref() == Some(&lower));
        if let Some(stage) = named {
            return Ok(stage.index);
        }
        match name.parse::<usize>() {
            Ok(index) if index < self.stages.len() => Ok(index),
            _ => {
                let hint = hint(&lower, self.stages.iter().filter_map(|s| s.from.alias.as_deref()));
                Err(StageError::Target { name: name.chars().take(100).collect(), hint })
            }
        }
    }

    /// With every name resolved; `globals` gives the variables of `FROM` their values.
    ///
    /// # Errors
    /// For a `FROM` that cannot be expanded or says nothing, and for references to the stage itself or to later ones.
    pub fn resolve(self, globals: &(impl Environment + ?Sized)) -> Result<Graph<'a>, StageError> {
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        for stage in &self.stages {
            if let Some(alias) = &stage.from.alias {
                names.entry(alias.clone()).or_default().push(stage.index);
            }
        }
        let mut graph =
            Graph { stages: self, bases: Vec::new(), needs: Vec::new(), variables: Vec::new(), names };
        for index in 0..graph.stages.stages.len() {
            graph.add(index, globals)?;
        }
        Ok(graph)
    }
}

impl Graph<'_> {
    fn add(&mut self, index: usize, globals: &(impl Environment + ?Sized)) -> Result<(), StageError> {
        let Some(stage) = self.stages.stages.get(index).cloned() else { return Ok(()) };
        let span = stage.head.span;
        let expanded = |word: &str| {
            expand(word, globals, self.stages.escape, Mode::Word)
                .map_err(|error| StageError::Expand { error, span })
        };
        let image = expanded(stage.from.image.as_str())?;
        if image.text.is_empty() {
            return Err(StageError::BlankBase { name: stage.from.image.0.clone(), span });
        }
        let mut variables = FromVariables { platform: None, used: image.used, unset: image.unset };
        if let Some(word) = &stage.from.platform {
            let platform = expanded(word.as_str())?;
            if platform.text.is_empty() {
                return Err(StageError::BlankPlatform { word: word.0.clone(), span });
            }
            variables.used.extend(platform.used);
            variables.unset.extend(platform.unset);
            variables.platform = Some(platform.text);
        }
        let base = match self.earlier(index, &image.text) {
            Some(stage) => Source::Stage(stage),
            None if image.text == "scratch" => Source::Scratch,
            None => Source::Image(image.text),
        };
        let mut needs = BTreeSet::new();
        if let Source::Stage(base) = base {
            needs.insert(base);
        }
        for instruction in stage.body {
            self.references(index, instruction, instruction.span, &mut needs)?;
        }
        if let Source::Stage(base) = base {
            let triggers = self.stages.stages.get(base).into_iter().flat_map(Stage::triggers);
            for trigger in triggers {
                self.references(index, trigger, span, &mut needs)?;
            }
        }
        self.bases.push(base);
        self.needs.push(needs);
        self.variables.push(variables);
        Ok(())
    }

    /// The last stage before `index` that has this name.
    fn earlier(&self, index: usize, name: &str) -> Option<usize> {
        let named = self.names.get(name.to_lowercase().as_str())?;
        named.iter().rev().copied().find(|i| *i < index)
    }

    /// What a name in an instruction of stage `index` (`COPY --from=`, `RUN --mount=from=`) stands for: an earlier stage by
    /// name or number, or an image. `span` is that of the instruction.
    ///
    /// # Errors
    /// For a number that no stage has, the stage itself and later ones.
    pub fn source(&self, index: usize, name: &str, span: Span) -> Result<Source, StageError> {
        let found = if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
            let bad = || StageError::Index { index: name.chars().take(20).collect(), span };
            Some(name.parse::<usize>().ok().filter(|i| *i < self.stages.stages.len()).ok_or_else(bad)?)
        } else {
            let later = || self.names.get(name.to_lowercase().as_str())?.last().copied();
            self.earlier(index, name).or_else(later)
        };
        let stage = self.stages.stages.get(index).map(Stage::display_name).unwrap_or_default();
        match found {
            Some(found) if found < index => Ok(Source::Stage(found)),
            Some(found) if found == index => Err(StageError::Circular { name: stage, span }),
            Some(_) => Err(StageError::Later { name: name.chars().take(100).collect(), stage, span }),
            None if name == "scratch" => Ok(Source::Scratch),
            None => Ok(Source::Image(name.to_owned())),
        }
    }

    fn references(
        &self,
        index: usize,
        instruction: &Instruction,
        span: Span,
        needs: &mut BTreeSet<usize>,
    ) -> Result<(), StageError> {
        for name in froms(instruction) {
            if let Source::Stage(stage) = self.source(index, name, span)? {
                needs.insert(stage);
            }
        }
        Ok(())
    }

    /// Every stage that `target` needs, itself included, each after those it needs.
    #[must_use]
    pub fn needed(&self, target: usize) -> Vec<usize> {
        // A stage needs earlier ones only, so one pass from the end sees all.
        let mut marked = BTreeSet::from([target]);
        for index in (0..=target.min(self.needs.len())).rev() {
            if marked.contains(&index) {
                let needs = self.needs.get(index).into_iter().flatten();
                marked.extend(needs.copied());
            }
        }
        marked.into_iter().filter(|i| *i < self.needs.len()).collect()
    }
}

/// The names behind `COPY --from` and `RUN --mount=from=`.
fn froms(instruction: &Instruction) -> Vec<&str> {
    match &instruction.kind {
        Kind::Copy(copy) => copy.from.as_deref().into_iter().collect(),
        Kind::Run(run) => run.mounts.iter().filter_map(super::MountSpec::from).collect(),
        _ => Vec::new(),
    }
}
