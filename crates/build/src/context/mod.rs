//! Build contexts: a tree on disk that nobody vouches for, what COPY and ADD take of it, and a digest of that.
//!
//! The tree is opened once, by a directory descriptor; every path below is resolved by the kernel inside it. What a
//! build may see is decided while walking ([`Context::open`]); what a COPY takes is decided over what the walk found,
//! without the disk ([`select`]); its digest covers what would reach an image, and nothing else
//! ([`Context::hash`]), and reads only what changed ([`DigestCache`]).

mod cache;
mod error;
mod hash;
mod pack;
mod select;
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
use std::time::Duration;

use longshore_sys::root::Root;

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

/// A tree that is open, and the list of what a build may see of it.
#[derive(Debug)]
pub struct Context {
    root: Root,
    tree: Tree,
    /// How long ago a file must have been written to for its digest to be remembered.
    settled: Duration,
}

/// File systems count time in steps of up to two seconds.
const SETTLED: Duration = Duration::from_secs(2);

impl Context {
    /// Walks the directory `dir`, a path of the host, leaving out what `ignore` excludes.
    ///
    /// # Errors
    /// When the directory or one in it cannot be read, or a limit is exceeded; the error names what.
    pub fn open(dir: &Path, ignore: &Ignore) -> Result<Self> {
        Self::walk(Root::open(dir)?, ignore, &Options::default())
    }

    /// Walks the tree of `root`.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn walk(root: Root, ignore: &Ignore, options: &Options) -> Result<Self> {
        let tree = walk::walk(&root, ignore, options)?;
        Ok(Self { root, tree, settled: SETTLED })
    }

    /// The directory, to read files of.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
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
