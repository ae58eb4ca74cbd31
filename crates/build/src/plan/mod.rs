//! From a Dockerfile to a graph: every instruction of the stages that are needed becomes a step, or a change of the
//! image's configuration. Decides; nothing is carried out here.

mod copy;
mod image;
mod lint;
mod mounts;
mod scope;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longshore_oci::image::{ImageDocument, RunConfig};
use longshore_oci::{Digest, Platform, Reference};

use crate::dockerfile::{
    self, Dockerfile, Escape, Finding, Globals, Graph as Stages, Kind, Known as _, Source, Span,
};
use crate::graph::{Graph, Limits, Network, Source as Files, Stamp, Step, StepId, Tree};
use crate::remote::Remote;
use crate::{Error, Result};

pub use image::{Made, document};
pub use mounts::{agent_of, mount_of, secret_of};

use self::stage::Stage;

/// What a build is asked for besides its Dockerfile.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stage that is wanted, by name or number; `None`: the last.
    pub target: Option<String>,
    /// Values for `ARG`s.
    pub args: BTreeMap<String, String>,
    /// Labels more.
    pub labels: BTreeMap<String, String>,
    /// What images are wanted for: one for each; none: for what the build runs on.
    pub platforms: Vec<Platform>,
    /// What the build runs on.
    pub host: Platform,
    /// Which steps are carried out even if the cache has them.
    pub no_cache: NoCache,
    /// The network of commands that name none.
    pub network: Network,
    /// `name:address` lines more in the hosts file of commands.
    pub hosts: Vec<String>,
    /// What commands may use.
    pub limits: Limits,
    /// What commands may ask for besides.
    pub allowed: Allowed,
    /// What names stand for besides the stages and images that they would be.
    pub contexts: BTreeMap<String, Named>,
}

/// Entitlements: what weakens the confinement of commands, and so has to be allowed by whoever builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `RUN --security=insecure`.
    pub insecure: bool,
    /// `RUN --network=host`.
    pub host_network: bool,
}

/// What the name of a context stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// The files of the build's context of this number.
    Files(usize),
    /// An image.
    Image(String),
    /// Files that are fetched; of an archive what is in it.
    Remote(Box<Remote>),
}

impl Options {
    /// What a name stands for, if it is one of a context. Names of images are the same however short they are written.
    fn named(&self, name: &str) -> Option<&Named> {
        let whole = |name: &str| name.parse::<Reference>().ok().map(Reference::or_latest);
        let same = |other: &str| whole(name).is_some_and(|name| whole(other) == Some(name));
        let exact = self.contexts.get(name);
        exact.or_else(|| self.contexts.iter().find(|(other, _)| same(other)).map(|(_, named)| named))
    }
}

/// Which steps are carried out even if the cache has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// Those of the stages of these names.
    Stages(BTreeSet<String>),
}

/// An image that a stage starts from.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its id.
    pub id: Digest,
    /// Chain id of its layers, which a lease holds.
    pub chain: Option<Digest>,
    /// Its configuration.
    pub document: ImageDocument,
}

/// Gives images.
pub trait Images {
    /// The image of this name for a platform; fetched if need be.
    ///
    /// # Errors
    /// When there is none, in words for people.
    fn base(&self, reference: &str, platform: &Platform) -> Result<Base>;
}

/// A build that was decided on.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What is to be done.
    pub graph: Graph,
    /// The instructions of the stages that are needed, in the order of the file; for one platform after the other.
    pub rows: Vec<Row>,
    /// The images that are wanted, in the order of [`Options::platforms`].
    pub images: Vec<Image>,
    /// What the linter found.
    pub findings: Vec<Finding>,
    /// Build arguments that were given and that nothing in the file takes.
    pub unused_args: Vec<String>,
}

impl Plan {
    /// The steps that its instructions are.
    #[must_use]
    pub fn wanted(&self) -> Vec<StepId> {
        self.rows.iter().filter_map(|row| row.step).collect()
    }
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Row {
    /// As written.
    pub text: String,
    /// Where.
    pub span: Span,
    /// The stage that it is in: its name, or its number.
    pub stage: String,
    /// What that is made for, where images for several platforms are made; with what the image is for, where that is
    /// another.
    pub platform: Option<String>,
    /// What is done for it; `None` where only the configuration changes.
    pub step: Option<StepId>,
    /// The image as it is after it.
    pub after: Image,
}

/// An image, but for what its steps give.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its files.
    pub tree: Tree,
    /// Its configuration so far.
    pub config: Arc<RunConfig>,
    /// The image that it starts from; `None`: from nothing.
    pub base: Option<Arc<Base>>,
    /// What was done since.
    pub made: Vec<Made>,
    /// Who made it.
    pub author: Option<String>,
    /// What it is for.
    pub platform: Platform,
    /// The time that was asked for, if any.
    pub stamp: Stamp,
}

/// Plans a build.
///
/// # Errors
/// For what the file asks wrongly, with its line; those of `images`.
pub fn plan(file: &Dockerfile, options: &Options, images: &dyn Images) -> Result<Plan> {
    frontend(file)?;
    let platforms = match options.platforms.as_slice() {
        [] => std::slice::from_ref(&options.host),
        platforms => platforms,
    };
    let mut whole = Plan::default();
    let mut shared = Shared { several: platforms.len() > 1, ..Shared::default() };
    for (n, platform) in platforms.iter().enumerate() {
        let unused = one(file, options, platform, images, &mut shared, &mut whole)?;
        match n {
            0 => whole.unused_args = unused,
            _ => whole.unused_args.retain(|name| unused.contains(name)),
        }
    }
    (whole.graph, whole.rows) = (shared.graph, shared.rows);
    Ok(whole)
}

/// Plans the image for one platform; gives the build arguments that nothing takes.
fn one(
    file: &Dockerfile,
    options: &Options,
    platform: &Platform,
    images: &dyn Images,
    shared: &mut Shared,
    whole: &mut Plan,
) -> Result<Vec<String>> {
    let cut = dockerfile::stages(file).map_err(invalid)?;
    let target = cut.target(options.target.as_deref().unwrap_or_default()).map_err(invalid)?;
    let named = options.target.as_deref().unwrap_or_default();
    let always = dockerfile::predefined(&options.host, platform, named);
    let escape = file.directives.escape;
    let globals = Globals::new(cut.globals, &always, &options.args, escape).map_err(invalid)?;
    let mut stages = cut.resolve(&globals).map_err(invalid)?;
    for (stage, needs) in stages.stages.stages.iter().zip(&mut stages.needs) {
        // A context in its place needs nothing.
        if stage.from.alias.as_ref().is_some_and(|alias| options.contexts.contains_key(alias)) {
            needs.clear();
        }
    }
    let mut planner = Planner {
        escape,
        options,
        platform,
        images,
        globals,
        stages: &stages,
        shared,
        done: BTreeMap::new(),
        taken_args: BTreeSet::new(),
    };
    let needed = stages.needed(target);
    for index in needed.iter().copied() {
        let stage = Stage::plan(&mut planner, index)?;
        planner.done.insert(index, stage);
    }
    let mut last = planner
        .done
        .remove(&target)
        .ok_or_else(|| Error::Internal("the stage that is wanted was not planned".into()))?;
    last.label(&options.labels);
    let unused = unused(&planner, file);
    let base = |stage: usize| {
        let Some(Source::Image(name)) = stages.bases.get(stage) else { return None };
        let given = stages.variables.get(stage).and_then(|v| v.platform.as_ref()?.parse().ok());
        let wanted = given.unwrap_or_else(|| platform.clone());
        let base = planner.shared.bases.get(&(name.clone(), wanted.to_string()))?;
        Some((&**base, wanted))
    };
    let facts = lint::Facts { options, platform, base: &base };
    for finding in lint::findings(file, &stages, &needed.into_iter().collect(), &facts)? {
        if !whole.findings.contains(&finding) {
            whole.findings.push(finding);
        }
    }
    whole.images.push(last.image);
    Ok(unused)
}

/// Docker's own frontend is this one; others are programs in images, which nobody here runs.
fn frontend(file: &Dockerfile) -> Result<()> {
    let Some(syntax) = file.directives.syntax.as_deref() else { return Ok(()) };
    let image = syntax.split_whitespace().next().unwrap_or_default();
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let (name, tag) = image.split_once([':', '@']).unwrap_or((image, "latest"));
    let known =
        tag == "latest" || tag == "labs" || tag == "1" || tag.starts_with("1.") || tag.starts_with("1-");
    if matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream") && known {
        return Ok(());
    }
    Err(Error::Unimplemented(format!(
        "# syntax={syntax}: other frontends than docker/dockerfile:1 are not supported: take the line out to build with that"
    )))
}

/// What the linter finds in a file without building it, or any image that it names.
///
/// # Errors
/// For a file whose stages cannot be told.
pub fn check(file: &Dockerfile, options: &Options) -> Result<Vec<Finding>> {
    let cut = dockerfile::stages(file).map_err(invalid)?;
    let target = cut.target(options.target.as_deref().unwrap_or_default()).map_err(invalid)?;
    let platform = options.platforms.first().unwrap_or(&options.host);
    let facts = lint::Facts { options, platform, base: &|_| None };
    let globals = Globals::new(cut.globals, &facts.predefined(), &options.args, file.directives.escape);
    let stages = cut.resolve(&globals.map_err(invalid)?).map_err(invalid)?;
    let needed = stages.needed(target).into_iter().collect();
    let mut found = dockerfile::lint(file, &stages, &facts, &file.directives.check);
    found.retain(|finding| lint::is_needed(finding, &needed));
    Ok(found)
}

fn invalid(e: impl std::fmt::Display) -> Error {
    Error::Invalid(e.to_string())
}

/// What the plans for several platforms have in common.
#[derive(Default)]
struct Shared {
    several: bool,
    graph: Graph,
    rows: Vec<Row>,
    /// The steps of stages, by these stages' places in the file: for another platform they may be the same.
    steps: BTreeMap<usize, Vec<StepId>>,
    /// Those that rows have.
    told: BTreeSet<StepId>,
    /// Steps that fetch files with a name.
    fetched: Vec<(Remote, StepId)>,
    /// Images that were asked for, by name and platform: a name is resolved once.
    bases: BTreeMap<(String, String), Arc<Base>>,
}

impl Shared {
    /// Adds a step of a stage, unless another platform has the same.
    fn step(&mut self, stage: usize, step: Step) -> StepId {
        let known = self.steps.entry(stage).or_default();
        let same = known.iter().find(|id| self.several && self.graph.step(**id) == Some(&step));
        if let Some(same) = same {
            return *same;
        }
        let id = self.graph.add(step);
        known.push(id);
        id
    }

    /// Takes back the rows from `start` on if rows before have the same steps.
    fn forget_equal_rows(&mut self, start: usize) {
        let steps: BTreeSet<StepId> = self.rows.iter().skip(start).filter_map(|row| row.step).collect();
        if self.several && !steps.is_empty() && steps.is_subset(&self.told) {
            self.rows.truncate(start);
        }
        self.told.extend(steps);
    }
}

/// What stages are planned with.
struct Planner<'a> {
    escape: Escape,
    options: &'a Options,
    /// What the image is for.
    platform: &'a Platform,
    images: &'a dyn Images,
    globals: Globals,
    stages: &'a Stages<'a>,
    shared: &'a mut Shared,
    /// Stages by their place in the file.
    done: BTreeMap<usize, Stage>,
    /// Build arguments that something took.
    taken_args: BTreeSet<String>,
}

impl Planner<'_> {
    fn base(&mut self, reference: &str, platform: &Platform) -> Result<Arc<Base>> {
        let key = (reference.to_owned(), platform.to_string());
        if let Some(base) = self.shared.bases.get(&key) {
            return Ok(base.clone());
        }
        let base = Arc::new(self.images.base(reference, platform)?);
        self.shared.bases.insert(key, base.clone());
        Ok(base)
    }

    /// The files that a name in stage `index` stands for: those of a named context, of a stage before, or of an image.
    fn source(&mut self, index: usize, name: &str, platform: &Platform, span: Span) -> Result<Files> {
        let image = match self.options.named(name) {
            Some(Named::Files(n)) => return Ok(Files::Context(*n)),
            Some(Named::Image(image)) => image.clone(),
            Some(Named::Remote(remote)) => {
                let remote = remote.clone();
                return Ok(Files::Tree(Tree::Step(stage::fetched(self, index, &remote))));
            }
            None => match self.stages.source(index, name, span).map_err(invalid)? {
                Source::Scratch => return Ok(Files::Tree(Tree::Layers(None))),
                Source::Image(name) => name,
                Source::Stage(before) => {
                    let stage = self.done.get(&before).map(|stage| Files::Tree(stage.image.tree));
                    return stage.ok_or_else(|| {
                        Error::Internal(format!("stage {before} was not planned before it is read"))
                    });
                }
            },
        };
        Ok(Files::Tree(Tree::Layers(self.base(&image, platform)?.chain)))
    }
}

/// Build arguments that nothing takes.
fn unused(planner: &Planner<'_>, file: &Dockerfile) -> Vec<String> {
    let declared: BTreeSet<&str> = file
        .instructions
        .iter()
        .filter_map(|i| if let Kind::Arg(args) = &i.kind { Some(args) } else { None })
        .flatten()
        .map(|arg| arg.name.as_str())
        .collect();
    let args = planner.options.args.keys();
    args.filter(|name| {
        !declared.contains(name.as_str())
            && !planner.taken_args.contains(*name)
            && !planner.globals.declared.contains(*name)
            && !scope::is_predefined(name)
    })
    .cloned()
    .collect()
}
