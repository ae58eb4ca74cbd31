//! Steps in a writable layer that lasts: a container that is worked on step by step. Nothing comes from the cache, and
//! nothing goes into it.

use longshore_oci::Digest;
use longshore_store::lease::Lease;
use longshore_store::{Store, Visit};
use longshore_sys::root::Root;

use crate::agents::Agents;
use crate::cancel::Cancel;
use crate::carry::{Borrowed, Site, is_special};
use crate::context::Context;
use crate::copy::{self, Look, Placer};
use crate::graph::{Copy, Op, Run, Source, Stamp, Step, Tree};
use crate::host::{Fetcher, Runner, Stream};
use crate::mounts::Mounted;
use crate::remote::{Pin, Remote};
use crate::secrets::Secrets;
use crate::solve::Builder;
use crate::stubs::Stubs;
use crate::{Error, Result};

/// What every command finds in its tree, whatever image it is of, and whether it is a directory.
const ALWAYS: [(&str, bool); 7] = [
    ("/dev", true),
    ("/proc", true),
    ("/sys", true),
    ("/etc/hostname", false),
    ("/etc/hosts", false),
    ("/etc/resolv.conf", false),
    ("/.dockerenv", false),
];

/// A link that every command finds, and what it leads to.
const LINK: (&str, &str) = ("etc/mtab", "/proc/mounts");

/// Where such a step takes files from.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are few, and none is moved often")]
pub enum Origin {
    /// What a client sent.
    Context(Context),
    /// This machine: paths are from its root on.
    Machine,
    /// The layers up to the one with this chain id, which a lease holds; `None`: an empty tree.
    Layers(Option<Digest>),
    /// Another layer that lasts, by the id of its container.
    Container(String),
    /// What was fetched: all of a directory, or the file of this name in it.
    #[allow(missing_docs)]
    Fetched { root: Root, file: Option<Vec<u8>> },
}

/// A step's surroundings.
#[allow(missing_debug_implementations)]
pub struct Lasting<'a> {
    /// The container whose writable layer it changes (see `Store::create_bare_rw`). Nobody else may work in it.
    pub container: &'a str,
    /// What [`Source::Context`] counts in this step.
    pub origins: &'a [Origin],
    /// What a command may ask for.
    pub secrets: &'a Secrets,
    /// And which agents of SSH.
    pub agents: &'a Agents,
    #[allow(missing_docs)]
    pub runner: &'a dyn Runner,
    /// Holds the layers among the origins.
    pub lease: &'a Lease,
    /// Ends it early.
    pub cancel: &'a Cancel,
    /// The time of directories that a copy makes, in seconds since 1970.
    pub time: i64,
}

/// An origin while it is open.
enum Held<'a> {
    Context(&'a Context),
    Machine(Root),
    Layers(Borrowed<'a>),
    Container(Visit),
    Fetched(Root, Option<&'a [u8]>),
}

impl<'a> Held<'a> {
    fn new(store: &'a Store, origin: &'a Origin) -> Result<Self> {
        Ok(match origin {
            Origin::Context(context) => Self::Context(context),
            Origin::Machine => Self::Machine(Root::open("/".as_ref())?),
            Origin::Layers(chain) => Self::Layers(Borrowed::new(store, *chain)?),
            Origin::Container(id) => Self::Container(store.visit(id)?),
            Origin::Fetched { root, file } => Self::Fetched(root.try_clone()?, file.as_deref()),
        })
    }

    fn root(&self) -> Result<Root> {
        Ok(match self {
            Self::Context(_) => return Err(Error::Internal("a mount of what a client sent".into())),
            Self::Machine(root) | Self::Fetched(root, _) => root.try_clone()?,
            Self::Layers(tree) => tree.root()?,
            Self::Container(visit) => Root::open(visit.tree())?,
        })
    }
}

impl Builder {
    /// Runs a command, and gives its exit code. What is missing of the places for its mounts is made before and removed
    /// after it; `note` is told what that is before anything is changed, so that [`Self::tidy_lasting`] can remove what an
    /// end in between leaves.
    ///
    /// # Errors
    /// When it cannot be run; [`Error::Cancelled`]. What the command did until then stays.
    pub fn run_lasting(
        &self,
        job: &Lasting<'_>,
        run: &Run,
        note: &mut dyn FnMut(Vec<String>) -> Result<()>,
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
    ) -> Result<i32> {
        let step = step(Op::Run(Box::new(run.clone())), job.time);
        let site = self.site(job, &step);
        let held: Vec<Held<'_>> =
            job.origins.iter().map(|o| Held::new(self.store(), o)).collect::<Result<_>>()?;
        let mounted = Mounted::with(&site, run, |source| match source {
            Source::Context(n) => {
                held.get(*n).ok_or_else(|| Error::Internal(format!("there is no origin {n}")))?.root()
            }
            Source::Tree(_) | Source::Inline(_) | Source::Remote(_) => {
                Err(Error::Internal("a mount of no origin".into()))
            }
        })?;
        let visit = self.store().visit(job.container)?;
        let root = Root::open(visit.tree())?;
        let asked = mounted.places().into_iter().filter(|(target, _)| !is_special(target));
        let places: Vec<(Vec<u8>, bool)> = ALWAYS
            .into_iter()
            .chain(asked)
            .map(|(target, dir)| Ok((copy::end_of(&root, target.as_bytes())?, dir)))
            .collect::<Result<_>>()?;
        let paths = places.iter().map(|(path, _)| path.as_slice()).chain([LINK.0.as_bytes()]);
        note(Stubs::missing(&root, paths))?;
        let mut stubs = Stubs::default();
        let made =
            places.iter().try_for_each(|(path, dir)| stubs.make(&root, &String::from_utf8_lossy(path), *dir));
        let made = made.and_then(|()| stubs.link(&root, LINK.0, LINK.1));
        if let Err(e) = made {
            // The first failure is what counts.
            let _ = stubs.remove(&root);
            return Err(e);
        }
        let done = job.runner.run(job.container, run, mounted.given(), output, job.cancel);
        let removed = stubs.remove(&root);
        let code = done?;
        removed.map(|()| code)
    }

    /// Removes what a command that was cut short left of the places for its mounts: directories that are empty, and
    /// files.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn tidy_lasting(&self, container: &str, places: &[String]) -> Result<()> {
        let visit = self.store().visit(container)?;
        let root = Root::open(visit.tree())?;
        Stubs::found(&root, places).remove(&root)
    }

    /// Copies files out of the one origin of `job`; gives a digest of them.
    ///
    /// # Errors
    /// When a source is not there, which changes nothing; when something is in the way or the system refuses: then what
    /// was copied before stays.
    pub fn copy_lasting(&self, job: &Lasting<'_>, copy: &Copy) -> Result<Digest> {
        let origin = job.origins.first().ok_or_else(|| Error::Internal("a copy out of nothing".into()))?;
        let part = copy.parts.first().ok_or_else(|| Error::Internal("a copy of nothing".into()))?;
        let held = Held::new(self.store(), origin)?;
        let selection = match &held {
            Held::Context(context) => {
                copy::select_context(std::slice::from_ref(*context), 0, copy, &part.sources)?
            }
            Held::Fetched(root, file) => copy::select_fetched(root.try_clone()?, copy, *file)?,
            other => copy::select_tree(other.root()?, copy, &part.sources)?,
        };
        let visit = self.store().visit(job.container)?;
        let root = Root::open(visit.tree())?;
        let owner = match (&copy.owner, &held) {
            (Some(owner), _) => Some(copy::owner(&root, owner)?),
            // What an archive says of owners holds.
            (None, Held::Context(_) | Held::Fetched(..)) if !part.unpack => Some((0, 0)),
            (None, _) => None,
        };
        let look = Look { owner, mode: copy.mode.clone(), stamp: job.time };
        copy::place(Placer::new(&root, look, job.cancel), &root, visit.tree(), copy, part, &selection)?;
        Ok(selection.digest)
    }

    fn site<'a>(&'a self, job: &Lasting<'a>, step: &'a Step) -> Site<'a> {
        Site {
            store: self.store(),
            contexts: &[],
            runner: job.runner,
            lease: job.lease,
            cancel: job.cancel,
            caches: self.caches(),
            secrets: job.secrets,
            elsewhere: None,
            agents: job.agents,
            fetcher: &Nowhere,
            failed: None,
            base: None,
            from: &[],
            step,
        }
    }
}

/// Such steps fetch nothing.
struct Nowhere;

impl Fetcher for Nowhere {
    fn pin(&self, _: &Remote, _: bool, _: &Cancel) -> Result<Pin> {
        Err(Error::Internal("a step that fetches nothing was to fetch".into()))
    }

    fn fetch(&self, _: &Remote, _: &Pin, _: &Cancel) -> Result<Root> {
        Err(Error::Internal("a step that fetches nothing was to fetch".into()))
    }
}

fn step(op: Op, time: i64) -> Step {
    Step { base: Tree::Layers(None), op, name: String::new(), fresh: true, time: Stamp::Fixed(time) }
}
