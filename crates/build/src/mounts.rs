//! The mounts of a command: files of contexts and trees, memory, caches.

use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use longshore_oci::Digest;
use longshore_sys::root::Root;
use longshore_sys::sockpath::fd_path;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};

use crate::caches::InUse;
use crate::carry::{Borrowed, Site};
use crate::context::Context;
use crate::copy::{self, Look, Placer};
use crate::error::IoContext as _;
use crate::graph::{Mount, MountOf, Run, Source};
use crate::host::{Given, RunMount, Shown};
use crate::pattern::clean_in_root;
use crate::{Error, Result, agents, secrets};

/// The mounts of a command that is about to run, and what they hold in use.
pub(crate) struct Mounted<'a> {
    given: Given,
    /// Whether each is a directory.
    directories: Vec<bool>,
    _caches: Vec<InUse<'a>>,
    /// Files that lie nowhere else as a tree.
    _laid_out: Vec<Borrowed<'a>>,
}

/// What a mount shows a part of.
enum Origin<'a> {
    Tree(Root),
    Context(&'a Context),
}

/// The sources of mounts: the trees come in the order of the mounts that read them.
struct Origins<'a> {
    contexts: &'a [Context],
    trees: std::slice::Iter<'a, Borrowed<'a>>,
}

impl<'a> Origins<'a> {
    fn next(&mut self, source: &Source) -> Result<Origin<'a>> {
        match source {
            Source::Context(n) => {
                let context = self.contexts.get(*n);
                context
                    .map(Origin::Context)
                    .ok_or_else(|| Error::Internal(format!("there is no context {n}")))
            }
            Source::Tree(_) => {
                let tree = self.trees.next();
                Ok(Origin::Tree(
                    tree.ok_or_else(|| Error::Internal("a mount without its tree".into()))?.root()?,
                ))
            }
            Source::Inline(_) | Source::Remote(_) => {
                Err(Error::Internal("a mount of what is no directory".into()))
            }
        }
    }
}

/// The digests of the files that a command reads through its mounts. A cache is none of them, nor what it starts with.
///
/// # Errors
/// When a source is not there, or cannot be read.
pub(crate) fn digests(run: &Run, contexts: &[Context], trees: &[Borrowed<'_>]) -> Result<Vec<Digest>> {
    let mut origins = Origins { contexts, trees: trees.iter() };
    let mut digests = Vec::new();
    for mount in &run.mounts {
        let Some(source) = mount.source() else { continue };
        let origin = origins.next(source)?;
        let MountOf::Files { path, .. } = &mount.what else { continue };
        digests.push(match origin {
            Origin::Context(context) => copy::digest_at(context, path)?,
            Origin::Tree(root) => copy::digest_at(&copy::context_at(root, path)?, path)?,
        });
    }
    Ok(digests)
}

impl<'a> Mounted<'a> {
    /// Finds and makes what the mounts show.
    ///
    /// # Errors
    /// When a source is not there; [`Error::Cancelled`] while waiting for a cache.
    pub(crate) fn new(site: &Site<'a>, run: &Run, trees: &[Borrowed<'_>]) -> Result<Self> {
        let mut origins = Origins { contexts: site.contexts, trees: trees.iter() };
        Self::of(site, run, |source| origins.next(source))
    }

    /// The same with sources that `root_of` knows; it is asked once for each mount that has one, in their order.
    ///
    /// # Errors
    /// As [`Self::new`], and those of `root_of`.
    pub(crate) fn with(
        site: &Site<'a>,
        run: &Run,
        mut root_of: impl FnMut(&Source) -> Result<Root>,
    ) -> Result<Self> {
        Self::of(site, run, |source| root_of(source).map(Origin::Tree))
    }

    fn of<'o>(
        site: &Site<'a>,
        run: &Run,
        mut origin_of: impl FnMut(&Source) -> Result<Origin<'o>>,
    ) -> Result<Self> {
        let mut all = Self {
            given: Given::default(),
            directories: Vec::new(),
            _caches: Vec::new(),
            _laid_out: Vec::new(),
        };
        for mount in &run.mounts {
            let origin = mount.source().map(&mut origin_of).transpose()?;
            all.add(site, mount, origin)?;
        }
        for (files, env) in [secrets::given(run, site.secrets)?, agents::given(run, site.agents)?] {
            all.directories.extend(files.iter().map(|_| false));
            all.given.mounts.extend(files);
            all.given.env.extend(env);
        }
        Ok(all)
    }

    fn add(&mut self, site: &Site<'a>, mount: &Mount, origin: Option<Origin<'_>>) -> Result<()> {
        let (shown, directory) = match (&mount.what, origin) {
            (MountOf::Memory { size }, _) => (Shown::Memory { size: *size }, true),
            (MountOf::Files { path, .. }, Some(origin)) => {
                let (source, directory) = match origin {
                    Origin::Tree(root) => find(&root, path)?,
                    // What is written is thrown away, and no other command sees it.
                    Origin::Context(context) => match context.root().filter(|_| mount.read_only) {
                        Some(root) => find(root, path)?,
                        None => self.lay_out(site, context, path)?,
                    },
                };
                (Shown::Path(source), directory)
            }
            (MountOf::Files { .. }, None) => return Err(Error::Internal("a mount of nothing".into())),
            (MountOf::Cache { name, sharing, from, look }, origin) => {
                let used = site.caches.take(name, *sharing, site.cancel)?;
                let cache = site.store.cache_mount(&used.name)?;
                if cache.fresh {
                    let filled = site.elsewhere.is_some_and(|e| e.fill(&used.name, site.cancel));
                    let start = from.as_ref().zip(origin).filter(|_| !filled);
                    let start = start.map(|((_, path), origin)| (origin, path.as_slice()));
                    begin(site, &cache.path, start, *look)?;
                }
                self._caches.push(used);
                (Shown::Path(cache.path), true)
            }
        };
        self.given.mounts.push(RunMount { target: mount.target.clone(), shown, read_only: mount.read_only });
        self.directories.push(directory);
        Ok(())
    }

    /// Makes files of what lies at a path of a context, which is none of this machine.
    fn lay_out(&mut self, site: &Site<'a>, context: &Context, path: &[u8]) -> Result<(PathBuf, bool)> {
        let tree = Borrowed::new(site.store, None)?;
        let root = tree.root()?;
        copy::at(Placer::new(&root, Look::default(), site.cancel), context, path, b"shown")?;
        let found = find(&root, b"shown")?;
        self._laid_out.push(tree);
        Ok(found)
    }

    /// What the command is given.
    pub(crate) fn given(&self) -> &Given {
        &self.given
    }

    /// Where they go, and whether that is to be a directory.
    pub(crate) fn places(&self) -> Vec<(&str, bool)> {
        self.given.mounts.iter().zip(&self.directories).map(|(m, dir)| (m.target.as_str(), *dir)).collect()
    }
}

/// The path of this machine that a path of a tree leads to, and whether that is a directory. Nobody else writes to the
/// tree, so that the path stays what it is.
fn find(root: &Root, path: &[u8]) -> Result<(PathBuf, bool)> {
    let clean = clean_in_root(path);
    let at = Path::new(std::ffi::OsStr::from_bytes(&clean));
    let found = root.resolve(at).map_err(|e| {
        if e.kind() == longshore_oci::Kind::NotFound {
            Error::NotFound(format!("\"/{}\": not found", at.display()))
        } else {
            e.into()
        }
    })?;
    let stat = rustix::fs::fstat(&found).context(|| format!("stat {}", at.display()))?;
    let directory = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => true,
        // Of a machine; no image has sockets.
        FileType::RegularFile | FileType::Socket => false,
        _ => {
            return Err(Error::Invalid(format!(
                "cannot mount /{}: it is no file, directory or socket",
                at.display()
            )));
        }
    };
    let real = std::fs::read_link(fd_path(found.as_fd())).context(|| format!("find /{}", at.display()))?;
    let top = std::fs::read_link(fd_path(root.fd())).context(|| "find the root of a tree".to_owned())?;
    if !real.starts_with(&top) {
        return Err(Error::Invalid(format!("/{} leads out of its tree", at.display())));
    }
    Ok((real, directory))
}

/// Gives a new cache its first content and its look.
fn begin(
    site: &Site<'_>,
    dir: &Path,
    start: Option<(Origin<'_>, &[u8])>,
    look: (u32, u32, u32),
) -> Result<()> {
    let to = Root::open(dir)?;
    if let Some((origin, path)) = start {
        let placer = Placer::new(&to, Look::default(), site.cancel);
        match origin {
            Origin::Tree(root) => copy::at(placer, &copy::context_at(root, path)?, path, b"")?,
            Origin::Context(context) => copy::at(placer, context, path, b"")?,
        }
    }
    let (mode, uid, gid) = look;
    let top = to.open_file(".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let failed = || format!("set the look of {}", dir.display());
    rustix::fs::fchown(&top, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context(failed)?;
    rustix::fs::fchmod(&top, Mode::from_raw_mode(mode)).context(failed)
}
