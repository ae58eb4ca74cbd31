//! The builder's side.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use longshore_store::Pool;
use longshore_store::layer::tree_order;

use super::{
    DATA, END, ENTRIES, FAILED, FILE, MAX_FRAME, WALKED, get_attributes, get_entry, get_frame, looks,
};
use crate::context::bytes::Input;
use crate::context::cache::{DigestCache, Record, Stamp};
use crate::context::error::{Error, Result, show};
use crate::context::files::{Content, Files, NONE, Pooled, digest, encode, reaches_layers};
use crate::context::tree::{Entry, EntryKind, Tree, split};
use crate::context::{Context, Options, SelectOptions, select};

/// What a step takes of a context.
#[derive(Clone, Debug, Default)]
pub struct Use {
    /// Its sources.
    pub sources: Vec<Vec<u8>>,
    /// Its flags.
    pub options: SelectOptions,
}

/// What a client is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The list of what these sources can name.
    Tree(Vec<Vec<u8>>),
    /// The files and directories at these places of the list, in their order.
    Files(Vec<Range<usize>>),
}

/// Takes over a context of which the client sends what it is asked for. What it sent earlier is known by `record`, a file
/// that this keeps, and is in `pool`, to which the rest is added.
///
/// # Errors
/// When the client fails, goes away, or does not keep to what was agreed; for a file that no image gets from a context;
/// when the pool cannot be written.
pub fn receive(
    pool: &Pool,
    record: &Path,
    uses: &[Use],
    from: &mut dyn Read,
    ask: &dyn Fn(Ask),
) -> Result<Context> {
    ask(Ask::Tree(uses.iter().flat_map(|one| one.sources.iter().cloned()).collect()));
    pool.prepare()?;
    let mut payload = Vec::new();
    let mut entries = entries(from, &mut payload)?;
    let tree = Tree::new(std::mem::take(&mut entries));
    let used = used(&tree, uses)?;
    let mut cache = DigestCache::load(record);
    let mut contents = vec![Content::EMPTY; tree.entries().len()];
    let mut missing: Vec<usize> = Vec::new();
    let mut lookup = cache.lookup();
    for at in used {
        let Some(entry) = tree.get(at) else { continue };
        match lookup.get(entry) {
            Some(known) => contents[at] = known,
            None => missing.push(at),
        }
    }
    let mut entries = tree.into_entries();
    let mut records = Vec::new();
    if !missing.is_empty() {
        ask(Ask::Files(ranges(&missing)));
        for at in missing {
            let Some(entry) = entries.get_mut(at) else { continue };
            let (content, keep) = file(pool, at, entry, from, &mut payload)?;
            contents[at] = content;
            records.extend(keep.then(|| Record::new(entry, content)));
        }
    }
    let tree = Tree::new(entries);
    cache.add(records, &tree);
    cache.save(record)?;
    Ok(Context { files: Files::Pool(Pooled { pool: pool.clone(), contents }), tree })
}

/// Reads the list, and makes sure that it is one of a tree.
fn entries(from: &mut dyn Read, payload: &mut Vec<u8>) -> Result<Vec<Entry>> {
    let bad = |why: &str| Error::Peer(format!("the context's list of files is malformed: {why}"));
    let limit = Options::default().entries;
    let (mut entries, mut path): (Vec<Entry>, _) = (Vec::new(), Vec::new());
    // The directories that lead to where we are.
    let mut open: Vec<usize> = Vec::new();
    loop {
        match get_frame(from, payload)? {
            ENTRIES => {}
            WALKED if payload.as_slice() == (entries.len() as u64).to_le_bytes() && !entries.is_empty() => {
                return Ok(entries);
            }
            WALKED => return Err(bad("it has another length than it says")),
            other => return Err(unexpected(other, payload)),
        }
        let mut input = Input(payload);
        while !input.is_empty() {
            let entry = get_entry(&mut input, &mut path).ok_or_else(|| bad("an entry is none"))?;
            let parent = split(&entry.path).0;
            while open.last().and_then(|at| entries.get(*at)).is_some_and(|dir| dir.path != parent) {
                open.pop();
            }
            let fits = match entries.last() {
                None => entry.path.is_empty() && entry.kind == EntryKind::Dir,
                Some(last) => {
                    is_clean(&entry.path) && !open.is_empty() && tree_order(&last.path, &entry.path).is_lt()
                }
            };
            if !fits {
                return Err(bad(&format!("{:?} does not fit in", show(&entry.path))));
            }
            if entries.len() > limit {
                return Err(Error::TooLarge(format!("the context has more than {limit} files")));
            }
            if entry.kind == EntryKind::Dir {
                open.push(entries.len());
            }
            entries.push(entry);
        }
    }
}

fn is_clean(path: &[u8]) -> bool {
    !path.contains(&0) && path.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

/// The places of the files and directories that steps take.
fn used(tree: &Tree, uses: &[Use]) -> Result<BTreeSet<usize>> {
    let mut used = BTreeSet::new();
    for one in uses {
        // What is wrong with a source is told by the step that has it.
        let Ok(selected) = select(tree, &one.sources, &one.options) else { continue };
        used.extend(selected.into_iter().flat_map(|one| one.entries));
    }
    for at in &used {
        let Some(entry) = tree.get(*at) else { continue };
        let what = match entry.kind {
            EntryKind::Fifo => "named pipe",
            EntryKind::Char(..) => "character device",
            EntryKind::Block(..) => "block device",
            EntryKind::File | EntryKind::Dir | EntryKind::Symlink => continue,
        };
        return Err(Error::Unsendable { path: show(&entry.path), what });
    }
    used.retain(|at| tree.get(*at).is_some_and(|e| matches!(e.kind, EntryKind::File | EntryKind::Dir)));
    Ok(used)
}

/// Places in ascending order as ranges.
fn ranges(places: &[usize]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for at in places {
        match out.last_mut() {
            Some(last) if last.end == *at => last.end += 1,
            _ => out.push(*at..*at + 1),
        }
    }
    out
}

/// Takes one file or directory over; whether it may be remembered.
fn file(
    pool: &Pool,
    at: usize,
    entry: &mut Entry,
    from: &mut dyn Read,
    payload: &mut Vec<u8>,
) -> Result<(Content, bool)> {
    let bad =
        |path: &[u8]| Error::Peer(format!("the context's file {:?} is sent in a wrong way", show(path)));
    let tag = get_frame(from, payload)?;
    if tag != FILE {
        return Err(unexpected(tag, payload));
    }
    let mut input = Input(payload);
    let head =
        (|| Some((u32::from_le_bytes(input.take()?), Stamp::get(&mut input)?, get_attributes(&mut input)?)))(
        );
    let (place, stamp, attributes) = head.ok_or_else(|| bad(&entry.path))?;
    if place as usize != at || attributes.iter().any(|(name, _)| !reaches_layers(name)) {
        return Err(bad(&entry.path));
    }
    looks(entry, &stamp);
    let xattrs = digest(&attributes);
    if xattrs != NONE {
        pool.add(&encode(&attributes))?;
    }
    let mut arriving = pool.begin();
    let keep = loop {
        match get_frame(from, payload)? {
            DATA if entry.kind == EntryKind::File => arriving.push(payload)?,
            END => break payload.as_slice() == [1],
            tag => return Err(unexpected(tag, payload)),
        }
    };
    if entry.kind == EntryKind::Dir {
        return Ok((Content { xattrs, bytes: NONE }, keep));
    }
    // A file that grew, or shrank, since it was opened.
    let changed = arriving.size() != entry.size;
    entry.size = arriving.size();
    Ok((Content { xattrs, bytes: arriving.finish()? }, keep && !changed))
}

fn unexpected(tag: u8, payload: &[u8]) -> Error {
    Error::Peer(match tag {
        FAILED => String::from_utf8_lossy(payload.get(..MAX_FRAME).unwrap_or(payload)).into_owned(),
        tag => format!("the client sends {tag} where something else was to come"),
    })
}
