//! Build contexts: a tree on disk that nobody vouches for, what COPY and ADD take of it, and a digest of that.
//!
//! The tree is opened once, by a directory descriptor; every path below is resolved by the kernel inside it. What a
//! build may see is decided while walking ([`Context::open`]); what a COPY takes is decided over what the walk found,
//! without the disk ([`select`]); its digest covers what would reach an image, and nothing else ([`Context::hash`]).
//!
//! A client and a builder share a context as a tar ([`pack`], [`unpack`]), or so that only what is used and changed is
//! sent ([`sync`]).

mod bytes;
mod cache;
mod error;
mod files;
mod hash;
mod narrow;
mod pack;
mod select;
pub mod sync;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
mod walk;

pub use cache::DigestCache;
pub use error::{Error, Result};
pub use pack::{Extra, pack, pack_files};
pub use select::{SelectOptions, Selected, select};
pub use tree::{Entry, EntryKind, Tree};
pub use unpack::{UnpackOptions, Unpacked, unpack};

use std::path::Path;

use longshore_sys::root::Root;

use self::files::Files;
use crate::ignore::Ignore;

/// What a walk takes at most, and how it shows what it finds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files, directories and links at most.
    pub entries: usize,
    /// Everything belongs to this user and group, whoever owns it on disk: a client's files are nobody's in an image.
    pub owner: Option<(u32, u32)>,
    /// The mode and owner of the root, which a context has none of: mode 0755 of user 0 unless the disk is asked.
    pub root_from_disk: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { entries: 2_000_000, owner: None, root_from_disk: false }
    }
}

/// A list of what a build may see, and the files that it is of.
#[derive(Debug)]
pub struct Context {
    files: Files,
    tree: Tree,
}

impl Context {
    /// Walks the directory `dir`, a path of the host, leaving out what `ignore` excludes.
    ///
    /// # Errors
    /// When the directory or one in it cannot be read, or a limit is exceeded; the error names what.
    pub fn open(dir: &Path, ignore: &Ignore) -> Result<Self> {
        Self::walk(Root::open(dir)?, ignore, &Options::default())
    }

    /// One in which there is nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { files: Files::None, tree: Tree::empty() }
    }

    /// Walks the tree of `root`.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn walk(root: Root, ignore: &Ignore, options: &Options) -> Result<Self> {
        let tree = walk::walk(&root, ignore, options)?;
        Ok(Self { files: Files::Disk(root), tree })
    }

    /// The same for what `sources` of COPY and ADD can name only, and what leads there.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn walk_for<S: AsRef<[u8]>>(
        root: Root,
        ignore: &Ignore,
        sources: &[S],
        options: &Options,
    ) -> Result<Self> {
        // With too many of them all is walked.
        let only = narrow::leads(&root, sources)?.and_then(|leads| ignore.within(&leads).ok());
        Self::walk(root, only.as_ref().unwrap_or(ignore), options)
    }

    /// The same for the directory `dir`, a path of the host.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn open_for<S: AsRef<[u8]>>(dir: &Path, ignore: &Ignore, sources: &[S]) -> Result<Self> {
        Self::walk_for(Root::open(dir)?, ignore, sources, &Options::default())
    }

    /// The directory that the files are in; `None` for those of a pool.
    #[must_use]
    pub fn root(&self) -> Option<&Root> {
        if let Files::Disk(root) = &self.files { Some(root) } else { None }
    }

    /// What is in it.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What is in it, without the root, in the order of the tree: what a directory holds follows it at once.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.tree.entries().get(1..).unwrap_or_default()
    }
}
