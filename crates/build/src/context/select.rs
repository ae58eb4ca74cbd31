//! What the sources of COPY and ADD name, over a walked tree and without the disk. The rules are BuildKit's.

use super::error::{Error, Result, from_root};
use super::tree::{Entry, EntryKind, Tree, join, split};
use crate::pattern::{Glob, PatternList, Scope, clean_in_root, has_wildcards};

/// The flags of COPY and ADD that decide what is taken.
#[derive(Clone, Debug, Default)]
pub struct SelectOptions {
    /// `--parents`: the directories of a source are kept, from the pivot `/./` on where there is one.
    pub parents: bool,
    /// `--exclude`: patterns of an ignore file, for paths from the source on.
    pub excludes: Vec<Vec<u8>>,
}

/// A file, or a directory with what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// What a file is called at a destination that is a directory: as it was asked for, not as a link's target is.
    /// Of a directory only the contents are taken, and its name does not matter.
    pub name: Vec<u8>,
    /// Where the source is in the tree, links followed.
    pub source: usize,
    /// Where what is taken is in the tree, in the order of the tree; of a directory, itself first.
    pub entries: Vec<usize>,
}

impl Selected {
    /// Each entry that is taken, with its path from the source on, which is empty for the source itself, and its place.
    pub fn items<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = (&'a [u8], usize, &'a Entry)> {
        let strip = tree.get(self.source).map_or(0, |source| source.path.len());
        self.entries.iter().filter_map(move |at| {
            let entry = tree.get(*at)?;
            Some((relative(&entry.path, strip), *at, entry))
        })
    }

    /// Whether it is a directory, of which the contents are taken.
    #[must_use]
    pub fn is_dir(&self, tree: &Tree) -> bool {
        tree.get(self.source).is_some_and(|source| source.kind == EntryKind::Dir)
    }
}

/// The rest of a path below the directory whose path has `strip` bytes.
fn relative(path: &[u8], strip: usize) -> &[u8] {
    let rest = path.get(strip..).unwrap_or_default();
    rest.strip_prefix(b"/").unwrap_or(rest)
}

/// Finds `sources` in `tree`, one after the other; a wildcard gives what it matches in the order of the tree, which
/// may be nothing. Paths are taken from the root on, whether they start with `/` or not, and `..` does not leave it.
/// Links are followed up to the source and not in it.
///
/// # Errors
/// When a source without wildcards is not there or leads nowhere, or a pattern is malformed.
pub fn select<S: AsRef<[u8]>>(tree: &Tree, sources: &[S], options: &SelectOptions) -> Result<Vec<Selected>> {
    let excludes = PatternList::new(&options.excludes)?;
    let mut out = Vec::new();
    for source in sources {
        let source = source.as_ref();
        if options.parents {
            with_parents(tree, source, &excludes, &mut out)?;
            continue;
        }
        for (name, at) in expand(tree, source)? {
            out.extend(take(tree, name, at, None, &excludes));
        }
    }
    Ok(out)
}

/// The entries that a source names, each with the name that it was asked for by.
fn expand(tree: &Tree, source: &[u8]) -> Result<Vec<(Vec<u8>, usize)>> {
    let path = clean_in_root(source);
    let wild = path.split(|b| *b == b'/').position(has_wildcards);
    let Some(wild) = wild else {
        return Ok(vec![(split(&path).1.to_vec(), tree.resolve(&path)?)]);
    };
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    let (before, pattern) = parts.split_at(wild);
    let glob = Glob::parse(&pattern.join(&b'/'))?;
    let base = tree.resolve(&before.join(&b'/'))?;
    let strip = tree.get(base).map_or(0, |dir| dir.path.len());
    let mut out = Vec::new();
    let mut range = tree.below(base);
    while let Some(at) = range.next() {
        let Some(entry) = tree.get(at) else { break };
        if !glob.matches(relative(&entry.path, strip)) {
            continue;
        }
        let target = if entry.kind == EntryKind::Symlink { tree.resolve(&entry.path)? } else { at };
        out.push((entry.name().to_vec(), target));
        // What is in it comes with it.
        range.start = tree.below(at).end;
    }
    Ok(out)
}

/// `a/./b/*.c`: what matches `b/*.c` in `a`, the directories in between included.
fn with_parents(tree: &Tree, source: &[u8], excludes: &PatternList, out: &mut Vec<Selected>) -> Result<()> {
    let pivot = source.windows(3).position(|three| three == b"/./");
    let (base, pattern) = match pivot {
        Some(at) => (source.get(..at).unwrap_or_default(), source.get(at + 3..).unwrap_or_default()),
        None => (&[][..], source),
    };
    let pattern = clean_in_root(pattern);
    let required = !pattern.is_empty() && !has_wildcards(base) && !has_wildcards(&pattern);
    // Nothing after the pivot is everything.
    let includes = if pattern.is_empty() { None } else { Some(PatternList::new([&pattern])?) };
    for (name, at) in expand(tree, base)? {
        // A wildcard before the pivot may match files, which hold nothing.
        let dir = tree.get(at).filter(|dir| dir.kind == EntryKind::Dir);
        let found = dir.map(|dir| join(&dir.path, &pattern)).and_then(|path| tree.find(&path));
        if required && found.is_none() {
            return Err(Error::NotFound(from_root(&join(&clean_in_root(base), &pattern))));
        }
        if dir.is_some() {
            out.extend(take(tree, name, at, includes.as_ref(), excludes));
        }
    }
    Ok(())
}

/// A source with what is taken of it; `None` for a file that is excluded.
fn take(
    tree: &Tree,
    name: Vec<u8>,
    source: usize,
    includes: Option<&PatternList>,
    excludes: &PatternList,
) -> Option<Selected> {
    let entry = tree.get(source)?;
    let mut entries = vec![source];
    if entry.kind == EntryKind::Dir {
        let below = tree.below(source);
        if includes.is_none() && excludes.is_empty() {
            entries.extend(below);
        } else {
            filter(tree, entry.path.len(), below, includes, excludes, &mut entries);
        }
    } else if excludes.verdict(&name).matched {
        return None;
    }
    Some(Selected { name, source, entries })
}

/// A directory on the way to the entry that is looked at.
struct Above {
    end: usize,
    include: Option<Scope>,
    exclude: Scope,
    /// Where it is, until something in it is taken.
    held: Option<usize>,
}

/// Adds what the patterns let through, and the directories above it.
fn filter(
    tree: &Tree,
    strip: usize,
    below: std::ops::Range<usize>,
    includes: Option<&PatternList>,
    excludes: &PatternList,
    out: &mut Vec<usize>,
) {
    let top = Above {
        end: below.end,
        include: includes.map(PatternList::scope),
        exclude: excludes.scope(),
        held: None,
    };
    let mut above = vec![top];
    let mut state = Vec::new();
    for at in below {
        let Some(entry) = tree.get(at) else { return };
        debug_assert!(entry.path.len() > strip);
        while above.last().is_some_and(|dir| dir.end <= at) {
            above.pop();
        }
        let Some(dir) = above.last() else { return };
        let name = entry.name();
        if entry.kind != EntryKind::Dir {
            let included = match (includes, &dir.include) {
                (Some(list), Some(scope)) => list.matches_in(scope, name, &mut state),
                _ => true,
            };
            if included && !excludes.matches_in(&dir.exclude, name, &mut state) {
                show(&mut above, out);
                out.push(at);
            }
            continue;
        }
        let include = includes.zip(dir.include.as_ref()).map(|(list, scope)| list.enter(scope, name));
        let (exclude, out_of) = excludes.enter(&dir.exclude, name);
        let taken = include.as_ref().is_none_or(|(_, verdict)| verdict.matched) && !out_of.matched;
        if taken {
            show(&mut above, out);
            out.push(at);
        }
        let end = tree.below(at).end;
        let include = include.map(|(scope, _)| scope);
        above.push(Above { end, include, exclude, held: (!taken).then_some(at) });
    }
}

/// Takes the directories that were held back: the innermost ones, without a gap.
fn show(above: &mut [Above], out: &mut Vec<usize>) {
    let first = above.iter().rposition(|dir| dir.held.is_none()).map_or(0, |at| at + 1);
    out.extend(above.iter_mut().skip(first).filter_map(|dir| dir.held.take()));
}
