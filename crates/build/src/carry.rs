//! Carrying out one step: its keys, its work in a writable layer, its layer.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use longshore_oci::{Digest, IdMap};
use longshore_store::content::random_id;
use longshore_store::lease::Lease;
use longshore_store::{StepInputs, StepRecord, Store};
use longshore_sys::root::Root;

use crate::agents::Agents;
use crate::caches::Caches;
use crate::cancel::Cancel;
use crate::context::Context;
use crate::copy::{self, Look, Placer, Selection};
use crate::elsewhere::Elsewhere;
use crate::graph::{Copy, Mkdir, Op, Part, Run, Source, Step, StepId};
use crate::host::{Event, Fetcher, Runner, Stream};
use crate::mounts::{self, Mounted};
use crate::remote::{Pin, Remote};
use crate::secrets::Secrets;
use crate::solve::FailedRun;
use crate::stubs::Stubs;
use crate::{Error, KeyWriter, Result};

/// A step with all that it needs.
pub(crate) struct Site<'a> {
    pub(crate) store: &'a Store,
    pub(crate) contexts: &'a [Context],
    pub(crate) runner: &'a dyn Runner,
    pub(crate) fetcher: &'a dyn Fetcher,
    pub(crate) lease: &'a Lease,
    pub(crate) cancel: &'a Cancel,
    pub(crate) caches: &'a Caches,
    pub(crate) secrets: &'a Secrets,
    pub(crate) agents: &'a Agents,
    /// Where what a failed command left is kept, if it is to be.
    pub(crate) failed: Option<&'a Mutex<Option<FailedRun>>>,
    pub(crate) elsewhere: Option<&'a dyn Elsewhere>,
    /// The tree that it stands on.
    pub(crate) base: Option<Digest>,
    /// The trees that it reads, in the order of [`Op::reads`].
    pub(crate) from: &'a [Option<Digest>],
    pub(crate) step: &'a Step,
}

/// What a command does while it runs.
pub(crate) enum Happens<'a> {
    Running(&'a str),
    Output(Stream, &'a [u8]),
}

impl<'a> Happens<'a> {
    /// The event of a step.
    pub(crate) fn of(self, step: StepId) -> Event<'a> {
        match self {
            Self::Running(container) => Event::Running { step, container },
            Self::Output(stream, bytes) => Event::Output { step, stream, bytes },
        }
    }
}

/// A step whose inputs were looked at.
pub(crate) struct Prepared<'a> {
    site: &'a Site<'a>,
    key: Digest,
    /// What it depends on, for people.
    inputs: StepInputs,
    /// What is copied, for each part of a copy.
    files: Vec<Files<'a>>,
    /// The trees that are read, while they are mounted.
    trees: Vec<Borrowed<'a>>,
}

/// What one part of a copy copies.
enum Files<'a> {
    /// Files of a context or a tree.
    Selected(Selection<'a>),
    /// Files that stand in the Dockerfile: name and content.
    Inline(&'a [(Vec<u8>, Vec<u8>)]),
    /// Files that are fetched once it is known that they are needed.
    Remote(&'a Remote, Pin),
}

impl Files<'_> {
    /// What is copied, for people.
    fn listing(&self) -> Vec<(String, String)> {
        if let Self::Selected(selection) = self { selection.listing() } else { Vec::new() }
    }

    fn describe(&self, key: &mut KeyWriter) {
        match self {
            Self::Selected(selection) => drop(key.digest("files", Some(&selection.digest))),
            Self::Inline(files) => {
                key.number("files", files.len() as u64);
                for (name, content) in *files {
                    key.bytes("name", name).bytes("content", content);
                }
            }
            Self::Remote(remote, pin) => remote.describe(pin, key),
        }
    }
}

impl<'a> Site<'a> {
    /// A key that can be had without looking at any file, for steps that read trees: equal trees give equal files.
    pub(crate) fn quick_key(&self) -> Option<Digest> {
        if self.from.is_empty() {
            return None;
        }
        let mut key = self.step.key();
        key.digest("base", self.base.as_ref()).number("trees", self.from.len() as u64);
        for tree in self.from {
            key.digest("tree", tree.as_ref());
        }
        match &self.step.op {
            // What else it copies has to be looked at.
            Op::Copy(copy) if !copy.parts.iter().all(|part| matches!(part.from, Source::Tree(_))) => {
                return None;
            }
            Op::Copy(copy) => key.list("sources", copy.parts.iter().flat_map(|part| &part.sources)),
            // What else it reads is a context, and that has to be looked at.
            Op::Run(run) if run.mounts.iter().any(|m| matches!(m.source(), Some(Source::Context(_)))) => {
                return None;
            }
            _ => &mut key,
        };
        Some(key.finish())
    }

    /// Whom `user[:group]` names in the tree that the step stands on.
    fn owner(&self, root: &Root, text: &str) -> Result<(u32, u32)> {
        if self.base.is_some() { copy::owner(root, text) } else { copy::owner_in_nothing(text) }
    }

    /// Looks at the inputs.
    ///
    /// # Errors
    /// For a source that is not there or cannot be copied.
    pub(crate) fn prepare(&'a self) -> Result<Prepared<'a>> {
        let mut key = self.step.key();
        key.digest("base", self.base.as_ref());
        let trees = self.from.iter().map(|t| Borrowed::new(self.store, *t)).collect::<Result<Vec<_>>>()?;
        let mut files = Vec::new();
        match &self.step.op {
            Op::Copy(copy) => {
                let mut trees = trees.iter();
                for part in &copy.parts {
                    files.push(self.files(copy, part, &mut trees)?);
                }
                files.iter().for_each(|files| files.describe(&mut key));
            }
            Op::Run(run) => {
                for digest in mounts::digests(run, self.contexts, &trees)? {
                    key.digest("files", Some(&digest));
                }
            }
            Op::Mkdir(_) => {}
        }
        let (key, parts) = key.finish_with_parts();
        let listed = files.iter().flat_map(Files::listing).collect();
        Ok(Prepared { site: self, key, inputs: StepInputs { parts, files: listed }, files, trees })
    }

    fn files<'t>(
        &self,
        copy: &Copy,
        part: &'a Part,
        trees: &mut impl Iterator<Item = &'t Borrowed<'t>>,
    ) -> Result<Files<'a>> {
        Ok(match &part.from {
            Source::Inline(files) => Files::Inline(files),
            Source::Context(n) => {
                Files::Selected(copy::select_context(self.contexts, *n, copy, &part.sources)?)
            }
            Source::Tree(_) => {
                let tree = trees.next().ok_or_else(|| Error::Internal("a copy without its tree".into()))?;
                Files::Selected(copy::select_tree(tree.root()?, copy, &part.sources)?)
            }
            Source::Remote(remote) => {
                Files::Remote(remote, self.fetcher.pin(remote, self.step.fresh, self.cancel)?)
            }
        })
    }
}

impl Prepared<'_> {
    /// The key that covers everything.
    pub(crate) fn key(&self) -> &Digest {
        &self.key
    }

    /// What it depends on, for people.
    pub(crate) fn inputs(&self) -> &StepInputs {
        &self.inputs
    }

    /// Does it, and keeps what it gave.
    ///
    /// # Errors
    /// Why it failed; then nothing is left of it.
    pub(crate) fn carry_out(&self, happens: &(dyn Fn(Happens<'_>) + Send + Sync)) -> Result<StepRecord> {
        let site = self.site;
        if let Op::Copy(copy) = &site.step.op
            && copy.link
            // Names are those of the tree below, which then is looked at: as builders do that cannot link.
            && copy.owner.as_deref().is_none_or(copy::owner_is_numeric)
        {
            return self.link(copy);
        }
        let layer = match site.step.op {
            Op::Run(_) => Working::to_run(site.store, site.base)?,
            Op::Copy(_) | Op::Mkdir(_) => Working::new(site.store, site.base)?,
        };
        match &site.step.op {
            Op::Run(run) => {
                if let Err(e) = self.run_in(&layer, run, happens) {
                    if matches!(e, Error::Command { .. }) {
                        self.keep_failed(layer, run)?;
                    }
                    return Err(e);
                }
            }
            Op::Copy(copy) => self.copy_in(&layer, copy)?,
            Op::Mkdir(mkdir) => layer.with_root(|root, _| make(site, root, mkdir))?,
        }
        layer.keep(&self.key, site)
    }

    /// Keeps what a failed command left, for whoever wants to look at it.
    fn keep_failed(&self, layer: Working<'_>, run: &Run) -> Result<()> {
        let Some(failed) = self.site.failed else { return Ok(()) };
        // A key that no step has.
        let key = Digest::of(random_id()?.as_bytes());
        let record = layer.keep(&key, self.site)?;
        let kept = FailedRun { chain: record.chain, key, run: run.clone() };
        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(())
    }

    /// A copy that does not look at the tree below: one layer, whatever it is put on.
    fn link(&self, copy: &Copy) -> Result<StepRecord> {
        let site = self.site;
        let mut key = site.step.key();
        key.flag("alone", true);
        self.files.iter().for_each(|files| files.describe(&mut key));
        let key = key.finish();
        let known = if site.step.fresh { None } else { site.store.step(&key)? };
        let held = |record: &StepRecord| -> Result<bool> {
            let Some(chain) = record.chain else { return Ok(true) };
            site.lease.add_layer(chain)?;
            Ok(site.store.layer(&chain)?.is_some())
        };
        let known = match known {
            Some(record) if held(&record)? => Some(record),
            _ => None,
        };
        let alone = match known {
            Some(record) => record,
            None => {
                let layer = Working::new(site.store, None)?;
                self.copy_in(&layer, copy)?;
                layer.keep(&key, site)?
            }
        };
        Ok(site.store.stack_step(&self.key, site.base, &alone, site.lease)?)
    }

    fn copy_in(&self, layer: &Working<'_>, copy: &Copy) -> Result<()> {
        let rest = layer.with_root(|root, at| self.copy_into(root, at, copy))?;
        match (rest, self.files.as_slice()) {
            (Some(rest), [Files::Selected(files)]) => files.carry_out(rest, &layer.dir()?, self.site.cancel),
            _ => Ok(()),
        }
    }

    /// Copies all parts. What is left for when the tree is not mounted any more is given; that is only where there is one
    /// part.
    fn copy_into(&self, root: &Root, at: &Path, copy: &Copy) -> Result<Option<copy::Rest>> {
        let site = self.site;
        let owner = copy.owner.as_ref().map(|owner| site.owner(root, owner)).transpose()?;
        let mut rest = None;
        for (part, files) in copy.parts.iter().zip(&self.files) {
            let own = match part.from {
                Source::Tree(_) => None,
                // What an archive says of owners holds.
                _ if part.unpack => None,
                Source::Context(_) | Source::Inline(_) | Source::Remote(_) => Some((0, 0)),
            };
            let look =
                Look { owner: owner.or(own), mode: copy.mode.clone(), stamp: site.step.time.seconds() };
            let placer = Placer::new(root, look, site.cancel);
            match files {
                Files::Inline(files) => copy::inline(placer, root, copy, files)?,
                Files::Selected(selection) => {
                    let waits = selection.can_wait() && copy.parts.len() == 1 && !part.unpack;
                    let placer = if waits { placer.leaving_files() } else { placer };
                    rest = copy::place(placer, root, at, copy, part, selection)?;
                }
                Files::Remote(remote, pin) => {
                    let fetched = site.fetcher.fetch(remote, pin, site.cancel)?;
                    let file = if let Pin::File { name, .. } = pin { Some(name.as_slice()) } else { None };
                    let selection = copy::select_fetched(fetched, copy, file)?;
                    copy::place(placer, root, at, copy, part, &selection)?;
                }
            }
        }
        Ok(rest)
    }

    fn run_in(
        &self,
        layer: &Working<'_>,
        run: &Run,
        happens: &(dyn Fn(Happens<'_>) + Send + Sync),
    ) -> Result<()> {
        let site = self.site;
        let mounted = Mounted::new(site, run, &self.trees)?;
        let mut stubs = Stubs::default();
        let targets = mounted.places();
        let files = run.files.iter().map(|file| (file.target.as_str(), false));
        // What lies below /dev, /proc and /sys is nowhere in a layer: the launcher mounts these first.
        let places: Vec<(&str, bool)> =
            targets.into_iter().chain(files).filter(|(target, _)| !is_special(target)).collect();
        if !places.is_empty() {
            layer.with_root(|root, _| {
                let made = places.iter().try_for_each(|(target, dir)| stubs.make(root, target, *dir));
                made.inspect_err(|_| drop(stubs.remove(root)))
            })?;
        }
        happens(Happens::Running(&layer.id));
        let mut output = |stream, bytes: &[u8]| happens(Happens::Output(stream, bytes));
        let code = site.runner.run(&layer.id, run, mounted.given(), &mut output, site.cancel)?;
        if code != 0 {
            return Err(Error::Command { command: run.args.join(" "), code });
        }
        if stubs.is_empty() { Ok(()) } else { layer.with_root(|root, _| stubs.remove(root)) }
    }
}

/// Whether a place is in no layer: the launcher mounts what it lies on.
pub(crate) fn is_special(target: &str) -> bool {
    ["/dev", "/proc", "/sys"].iter().any(|dir| Path::new(target).starts_with(dir))
}

fn make(site: &Site<'_>, root: &Root, mkdir: &Mkdir) -> Result<()> {
    let owner = if mkdir.owner.is_empty() { None } else { Some(site.owner(root, &mkdir.owner)?) };
    let look = Look { stamp: site.step.time.seconds(), owner, ..Look::default() };
    let mut placer = Placer::new(root, look, site.cancel);
    placer.make_dir(&copy::in_root(&mkdir.path))?;
    placer.finish().map(drop)
}

/// A writable layer in which a step works; dropped, it is gone.
struct Working<'a> {
    store: &'a Store,
    id: String,
}

impl<'a> Working<'a> {
    fn new(store: &'a Store, base: Option<Digest>) -> Result<Self> {
        let id = random_id()?;
        store.create_bare_rw(&id, base.as_ref())?;
        Ok(Self { store, id })
    }

    /// One in which a command runs: it has the files that every container has.
    fn to_run(store: &'a Store, base: Option<Digest>) -> Result<Self> {
        let id = random_id()?;
        store.create_rw_on(&id, base.as_ref())?;
        Ok(Self { store, id })
    }

    /// Mounts it and gives its root, and where that lies.
    fn with_root<T>(&self, f: impl FnOnce(&Root, &Path) -> Result<T>) -> Result<T> {
        let path = self.store.mount_rw(&self.id, &IdMap::default())?;
        let done = Root::open(&path).map_err(Into::into).and_then(|root| f(&root, &path));
        let unmounted = self.store.unmount_rw(&self.id);
        let done = done?;
        unmounted?;
        Ok(done)
    }

    /// Where the driver keeps what is written to it.
    fn dir(&self) -> Result<PathBuf> {
        Ok(self.store.rw_dir(&self.id)?)
    }

    /// Makes a layer of it.
    fn keep(self, key: &Digest, site: &Site<'_>) -> Result<StepRecord> {
        Ok(self.store.keep_step(key, &self.id, &site.step.name, site.lease)?)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let removed = self.store.unmount_rw(&self.id).and_then(|()| self.store.remove_rw(&self.id));
        if let Err(e) = removed {
            tracing::warn!(layer = self.id, error = %e, "a step's working files stay until the next start");
        }
    }
}

/// A tree that a step reads. It is a layer of its own on that tree: what is written into it is thrown away.
pub(crate) struct Borrowed<'a> {
    root: Root,
    _layer: Working<'a>,
}

impl<'a> Borrowed<'a> {
    /// Mounts it.
    ///
    /// # Errors
    /// When a layer is not there, or the kernel refuses.
    pub(crate) fn new(store: &'a Store, chain: Option<Digest>) -> Result<Self> {
        let layer = Working::new(store, chain)?;
        let root = Root::open(&store.mount_rw(&layer.id, &IdMap::default())?)?;
        Ok(Self { root, _layer: layer })
    }

    /// Its root.
    pub(crate) fn root(&self) -> Result<Root> {
        Ok(self.root.try_clone()?)
    }
}
