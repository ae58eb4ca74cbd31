//! The `ARG`s before the first `FROM`, and those that are always there.

use super::ast::{ArgDef, Escape, Instruction, Kind, Span};
use super::expand::{Environment, ExpandError, Mode, expand};
use super::limits::MAX_EXPANDED;
use longshore_oci::Platform;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What `FROM` may use, and what `ARG name` without a default takes up in a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    values: BTreeMap<String, String>,
    /// Every name that is declared, those without a value included.
    pub declared: BTreeSet<String>,
}

/// Why the global `ARG`s have no values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GlobalsError {
    #[error("line {}: {error}", span.line)]
    Expand { error: ExpandError, span: Span },
    #[error("line {}: the ARGs before FROM have more than {MAX_EXPANDED} bytes: use shorter values", span.line)]
    TooLong { span: Span },
}

/// The arguments that every build has (`BUILDPLATFORM`, `TARGETARCH`, `TARGETSTAGE`...). `stage` is the name of the stage that
/// is asked for, empty for the last if that has none.
#[must_use]
pub fn predefined(build: &Platform, target: &Platform, stage: &str) -> Vec<(String, String)> {
    let one = |prefix: &str, p: &Platform| {
        let text = |o: &Option<String>| o.clone().unwrap_or_default();
        [
            (format!("{prefix}PLATFORM"), p.to_string()),
            (format!("{prefix}OS"), p.os.clone()),
            (format!("{prefix}OSVERSION"), text(&p.os_version)),
            (format!("{prefix}ARCH"), p.architecture.clone()),
            (format!("{prefix}VARIANT"), text(&p.variant)),
        ]
    };
    let stage = if stage.is_empty() { "default" } else { stage };
    let mut all: Vec<_> = one("BUILD", build).into();
    all.extend(one("TARGET", target));
    all.push(("TARGETSTAGE".to_owned(), stage.to_owned()));
    all
}

impl Globals {
    /// Gives the `ARG`s in `instructions` (those before the first `FROM`) their values: the build argument, or the default,
    /// in which earlier ones and `predefined` may be used. A build argument also takes the place of a predefined one.
    ///
    /// # Errors
    /// For a default that cannot be expanded, and for values beyond the limit.
    pub fn new(
        instructions: &[Instruction],
        predefined: &[(String, String)],
        build_args: &(impl Environment + ?Sized),
        escape: Escape,
    ) -> Result<Self, GlobalsError> {
        let mut globals = Self::default();
        for (name, value) in predefined {
            let value = build_args.get(name).map_or_else(|| value.clone(), Cow::into_owned);
            globals.declared.insert(name.clone());
            globals.values.insert(name.clone(), value);
        }
        let mut size = 0;
        for instruction in instructions {
            let Kind::Arg(defs) = &instruction.kind else { continue };
            let span = instruction.span;
            for def in defs {
                let value = globals
                    .value(def, build_args, escape)
                    .map_err(|error| GlobalsError::Expand { error, span })?;
                globals.declared.insert(def.name.clone());
                if let Some(value) = value {
                    size += value.len();
                    globals.values.insert(def.name.clone(), value);
                }
                if size > MAX_EXPANDED {
                    return Err(GlobalsError::TooLong { span });
                }
            }
        }
        Ok(globals)
    }

    fn value(
        &self,
        def: &ArgDef,
        build_args: &(impl Environment + ?Sized),
        escape: Escape,
    ) -> Result<Option<String>, ExpandError> {
        if let Some(given) = build_args.get(&def.name) {
            return Ok(Some(given.into_owned()));
        }
        let Some(default) = &def.default else { return Ok(None) };
        expand(default.as_str(), self, escape, Mode::Word).map(|e| Some(e.text))
    }
}

impl Environment for Globals {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.values.get(name).map(|v| Cow::Borrowed(v.as_str()))
    }
}
