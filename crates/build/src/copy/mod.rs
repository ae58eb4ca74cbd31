//! COPY and ADD: what is taken, where it goes, whose it becomes.

mod archive;
mod later;
mod owner;
mod place;

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use longshore_oci::Digest;
use longshore_sys::root::Root;
use rustix::fs::FileType;

use crate::cancel::Cancel;
use crate::context::{self, Context, SelectOptions, Selected, select};
use crate::graph::{Copy, Part};
use crate::ignore::Ignore;
use crate::pattern::clean_in_root;
use crate::{Error, Result};

pub use self::archive::is_archive;
pub(crate) use self::owner::{owner, owner_in_nothing, owner_is_numeric};
use self::place::path;
pub(crate) use self::place::{Look, Placer, Rest};

#[cfg(test)]
mod tests;

/// Links that lead to a destination are followed as often as the kernel would.
const MAX_LINKS: usize = 40;

/// Files whose digests are kept, to say which one changed.
const LISTED: usize = 1000;

/// What a copy takes out of a source, and a digest of that.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    context: Held<'a>,
    selected: Vec<Selected>,
    pub(crate) digest: Digest,
}

#[derive(Debug)]
enum Held<'a> {
    Ours(Box<Context>),
    Given(&'a Context),
}

impl Selection<'_> {
    /// Does what [`place`] left, in the writable layer `upper`.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub(crate) fn carry_out(&self, rest: Rest, upper: &Path, cancel: &Cancel) -> Result<()> {
        rest.carry_out(upper, self.context(), cancel)
    }

    /// Whether files can be left for later: see [`Placer::leaving_files`].
    pub(crate) fn can_wait(&self) -> bool {
        self.context().is_pooled()
    }

    /// What is copied, for people.
    pub(crate) fn listing(&self) -> Vec<(String, String)> {
        self.context().listing(&self.selected, LISTED)
    }

    fn context(&self) -> &Context {
        match &self.context {
            Held::Ours(context) => context,
            Held::Given(context) => context,
        }
    }
}

/// What a copy takes out of one of the build's contexts.
///
/// # Errors
/// For a source that is not there, or of a kind that no image gets from a context.
pub(crate) fn select_context<'a>(
    contexts: &'a [Context],
    n: usize,
    copy: &Copy,
    sources: &[Vec<u8>],
) -> Result<Selection<'a>> {
    let context = contexts.get(n).ok_or_else(|| Error::Internal(format!("there is no context {n}")))?;
    selection(Held::Given(context), copy, sources)
}

/// What a copy takes out of a tree of files.
///
/// # Errors
/// For a source that is not there.
pub(crate) fn select_tree<'a>(root: Root, copy: &Copy, sources: &[Vec<u8>]) -> Result<Selection<'a>> {
    let options = context::Options { root_from_disk: true, ..context::Options::default() };
    selection(
        Held::Ours(Box::new(Context::walk_for(root, &Ignore::default(), sources, &options)?)),
        copy,
        sources,
    )
}

/// What was fetched: the file of this name, or all of the directory.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn select_fetched<'a>(root: Root, copy: &Copy, file: Option<&[u8]>) -> Result<Selection<'a>> {
    let context = Context::walk(root, &Ignore::default(), &context::Options::default())?;
    let source = file.map_or_else(|| b"/".to_vec(), escaped);
    selection(Held::Ours(Box::new(context)), copy, &[source])
}

fn selection<'a>(held: Held<'a>, copy: &Copy, sources: &[Vec<u8>]) -> Result<Selection<'a>> {
    let mut selection = Selection { context: held, selected: Vec::new(), digest: Digest::of(b"") };
    let context = selection.context();
    let selected = select(context.tree(), sources, &copy.options())?;
    (selection.digest, selection.selected) = (context.hash(&selected)?, selected);
    Ok(selection)
}

/// The digest of what lies at a path of a context or a tree.
///
/// # Errors
/// When there is nothing, or it cannot be read.
pub(crate) fn digest_at(context: &Context, at: &[u8]) -> Result<Digest> {
    let selected = select(context.tree(), &[escaped(at)], &SelectOptions::default())?;
    Ok(context.hash(&selected)?)
}

/// A tree as a context of what lies at one path of it.
///
/// # Errors
/// When it cannot be walked.
pub(crate) fn context_at(root: Root, at: &[u8]) -> Result<Context> {
    let options = context::Options { root_from_disk: true, ..context::Options::default() };
    Ok(Context::walk_for(root, &Ignore::default(), &[escaped(at)], &options)?)
}

/// A path as a pattern that matches it alone.
#[must_use]
pub fn escaped(path: &[u8]) -> Vec<u8> {
    let special = |b: &u8| matches!(b, b'*' | b'?' | b'[' | b']' | b'\\' | b'!' | b'#');
    path.iter().flat_map(|b| special(b).then_some(b'\\').into_iter().chain([*b])).collect()
}

/// Puts what was selected into the tree `root`, which lies at `at`. What `placer` leaves for when that is not mounted any
/// more is given.
///
/// # Errors
/// When something is in the way, or the system refuses.
pub(crate) fn place(
    mut placer: Placer<'_>,
    root: &Root,
    at: &Path,
    copy: &Copy,
    part: &Part,
    selection: &Selection<'_>,
) -> Result<Option<Rest>> {
    let context = selection.context();
    let tree = context.tree();
    for one in &selection.selected {
        // Each source as if it were alone: the one before may have made the directory that it goes to.
        let into = Destination::find(root, &copy.dest)?;
        placer.next_source();
        let dir = one.is_dir(tree);
        if part.unpack
            && !dir
            && let Some(entry) = tree.get(one.source)
            && let Some(archive) = archive::open(context, one.source, entry)?
        {
            // It goes below the destination, whatever that is called.
            placer.make_dir(&into.path)?;
            archive::unpack(archive, &entry.path, at, &into.path, placer.owner())?;
            continue;
        }
        let top = if dir { into.path.clone() } else { into.file(&one.name) };
        for (rest, at, entry) in one.items(tree) {
            let to = join(&top, rest);
            if dir && rest.is_empty() {
                // The root of a context has a time that says nothing.
                placer.merge(&to, (!entry.path.is_empty()).then_some(entry.mtime))?;
            } else {
                placer.copy(context, at, &to)?;
            }
        }
    }
    placer.finish()
}

/// Copies what lies at a path of a context to `to`; with an empty one, all that the directory there holds into the root of
/// the tree.
///
/// # Errors
/// As [`place`].
pub(crate) fn at(mut placer: Placer<'_>, context: &Context, path: &[u8], to: &[u8]) -> Result<()> {
    for one in select(context.tree(), &[escaped(path)], &SelectOptions::default())? {
        for (rest, at, _) in one.items(context.tree()) {
            let to = join(to, rest);
            if !to.is_empty() {
                placer.copy(context, at, &to)?;
            }
        }
    }
    placer.finish().map(drop)
}

/// Writes the files that stand in the Dockerfile itself.
///
/// # Errors
/// As [`place`].
pub(crate) fn inline(
    mut placer: Placer<'_>,
    root: &Root,
    copy: &Copy,
    files: &[(Vec<u8>, Vec<u8>)],
) -> Result<()> {
    let into = Destination::find(root, &copy.dest)?;
    for (name, content) in files {
        placer.write(&into.file(name), content)?;
    }
    placer.finish().map(drop)
}

/// Where files go.
struct Destination {
    /// From the tree's root; links at its end are followed.
    path: Vec<u8>,
    /// Files go below it, under their own names.
    dir: bool,
}

/// Where a path leads in the tree `root` when links at its end are followed, whether anything is there or not.
///
/// # Errors
/// When a link cannot be read.
pub(crate) fn end_of(root: &Root, from: &[u8]) -> Result<Vec<u8>> {
    let mut at = clean_in_root(from);
    for _ in 0..MAX_LINKS {
        if at.is_empty() {
            break;
        }
        let Ok(stat) = root.stat(path(&at)) else { break };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            break;
        }
        let target = root.readlink(path(&at))?;
        let target = target.as_os_str().as_bytes();
        at = if target.starts_with(b"/") {
            clean_in_root(target)
        } else {
            let parent = at.iter().rposition(|&b| b == b'/').map_or(0, |n| n);
            clean_in_root(&join(at.get(..parent).unwrap_or_default(), target))
        };
    }
    Ok(at)
}

impl Destination {
    fn find(root: &Root, dest: &[u8]) -> Result<Self> {
        let at = end_of(root, dest)?;
        let says_dir = clean_in_root(dest).is_empty() || dest.ends_with(b"/") || dest.ends_with(b"/.");
        let dir = says_dir || root.open_dir(path(&at)).is_ok();
        Ok(Self { path: at, dir })
    }

    /// Where a file of this name goes.
    fn file(&self, name: &[u8]) -> Vec<u8> {
        if self.dir { join(&self.path, name) } else { self.path.clone() }
    }
}

fn join(parent: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut joined = parent.to_vec();
    if !parent.is_empty() && !rest.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(rest);
    joined
}

/// A path of a tree without its leading slash.
pub(crate) fn in_root(path: &[u8]) -> Vec<u8> {
    clean_in_root(path)
}
