//! Seeing into layers: which layer wrote what, what it hides, what two images differ in; from the indexes that were
//! written while the layers were unpacked.
//!
//! Nothing is mounted and no tree is walked. An index is ours, but what stands in it came from an archive: paths are
//! compared and never used on the host except below a layer's own directory, by descriptor and without links. A
//! container's writable layer has no index; it is looked at in the same way, entry by entry.
//!
//! Layers are numbered from 1, the lowest first: a number stays what it is when another layer is put on top.

mod cat;
mod diff;
mod files;
mod stack;
mod tally;
mod walk;
mod which;

use std::path::PathBuf;

use longshore_oci::Digest;

use crate::image::LayerRecord;
use crate::layer::{IndexFile, IndexKind, OwnedEntry};
use crate::open::Store;
use crate::tar::{EntryKind, Time};
use crate::{Error, Result};

pub use cat::OpenedFile;
pub use diff::{DiffOptions, DiffRow, Differs};
pub use files::LayerFile;
pub use tally::{LayerTally, Tally};
pub use which::{Event, Place, Version, Which};

/// Bytes of a path that is asked about.
pub const PATH_MAX: usize = 4096;

/// A layer of an image.
#[derive(Clone, Debug)]
pub struct Layer {
    /// From 1, the lowest first.
    pub number: usize,
    /// Digest of it and all below it.
    pub chain: Digest,
    #[allow(missing_docs)]
    pub record: LayerRecord,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FileKind {
    File,
    Dir,
    Symlink,
    Char,
    Block,
    Fifo,
    Socket,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    #[allow(missing_docs)]
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Bytes of a regular file.
    pub size: u64,
    /// `None` for a directory that no entry of the layer describes.
    pub mtime: Option<Time>,
    /// User and group, where the index knows them.
    pub owner: Option<(u32, u32)>,
    /// Target of a symbolic link.
    pub link: Vec<u8>,
    /// Another name of a regular file in the same layer.
    pub hard_link: Vec<u8>,
    /// Numbers of a device.
    pub dev: (u32, u32),
}

impl FileInfo {
    /// Of an entry of an index; `None` for a whiteout or a mark.
    fn of(e: &OwnedEntry) -> Option<Self> {
        let IndexKind::Entry(kind) = e.kind else { return None };
        let kind = match kind {
            EntryKind::File | EntryKind::HardLink => FileKind::File,
            EntryKind::Dir => FileKind::Dir,
            EntryKind::Symlink => FileKind::Symlink,
            EntryKind::Char => FileKind::Char,
            EntryKind::Block => FileKind::Block,
            EntryKind::Fifo => FileKind::Fifo,
        };
        let hard = e.kind == IndexKind::Entry(EntryKind::HardLink);
        Some(Self {
            kind,
            mode: e.mode,
            size: if kind == FileKind::File { e.size } else { 0 },
            mtime: (!e.implied).then_some(e.mtime),
            owner: e.owner,
            link: if hard { Vec::new() } else { e.link.clone() },
            hard_link: if hard { e.link.clone() } else { Vec::new() },
            dev: e.dev,
        })
    }

    /// Whether it looks the same as `other`, as far as both are known. Of what is no regular file times do not count.
    fn same_look(&self, other: &Self) -> bool {
        let owners = self.owner.is_none() || other.owner.is_none() || self.owner == other.owner;
        self.kind == other.kind
            && (self.mode == other.mode || self.kind == FileKind::Symlink)
            && owners
            && (self.kind != FileKind::File || (self.size == other.size && self.mtime == other.mtime))
            && self.link == other.link
            && self.dev == other.dev
    }
}

/// A path that is asked about, as it stands in indexes: without slash, `.` and `..`.
///
/// # Errors
/// `Invalid` for an empty path or one with a NUL, `TooLarge` for one that no file can have.
pub fn clean_path(path: &[u8]) -> Result<Vec<u8>> {
    if path.is_empty() {
        return Err(Error::Invalid("the path is empty".into()));
    }
    if path.len() > PATH_MAX {
        return Err(Error::TooLarge(format!("path of {} bytes, the limit is {PATH_MAX}", path.len())));
    }
    if path.contains(&0) {
        return Err(Error::Invalid("a path cannot have a NUL in it".into()));
    }
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => out.truncate(out.iter().rposition(|&b| b == b'/').unwrap_or(0)),
            name => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(name);
            }
        }
    }
    Ok(out)
}

impl Store {
    /// The layers of an image, the lowest first.
    ///
    /// # Errors
    /// `NotFound` when there is no such image, `Corrupt` when a layer's record is missing.
    pub fn layers_of(&self, image: &Digest) -> Result<Vec<Layer>> {
        let row = self.images().row(image)?;
        let row = row.ok_or_else(|| Error::NotFound(format!("No such image: {image}")))?;
        self.numbered(&row.layers)
    }

    fn numbered(&self, chains: &[Digest]) -> Result<Vec<Layer>> {
        let layers = chains.iter().enumerate().map(|(i, chain)| {
            let record =
                self.layer(chain)?.ok_or_else(|| Error::Corrupt(format!("layer {chain} has no record")))?;
            Ok(Layer { number: i + 1, chain: *chain, record })
        });
        layers.collect()
    }

    /// The layers below a container's own, the lowest first.
    fn layers_below(&self, top: Option<Digest>) -> Result<Vec<Layer>> {
        let mut chains = Vec::new();
        let mut next = top;
        while let Some(chain) = next {
            chains.push(chain);
            next = self.layer(&chain)?.and_then(|l| l.parent);
        }
        chains.reverse();
        self.numbered(&chains)
    }

    fn index_path(&self, layer: &Layer) -> PathBuf {
        self.layer_files(&layer.record.cache_id).join("index")
    }

    /// Opens a layer's index; `scan`: to go through all of it.
    fn index_of(&self, layer: &Layer, scan: bool) -> Result<IndexFile> {
        let path = self.index_path(layer);
        let opened = if scan { IndexFile::open_to_scan(&path) } else { IndexFile::open(&path) };
        opened.or_else(|e| match self.layer(&layer.chain)? {
            None => Err(Error::NotFound(format!("layer {} was removed meanwhile", layer.record.diff_id))),
            Some(_) => Err(damaged(layer, &e)),
        })
    }

    /// Whether an image's layers lie in directories that each hold the whole tree.
    fn shares_directories(&self) -> bool {
        self.driver().whiteouts() == crate::layer::WhiteoutFormat::Remove
    }
}

/// The position of the layer with this number.
fn has_layer(layers: &[Layer], number: usize) -> Result<usize> {
    number.checked_sub(1).filter(|at| *at < layers.len()).ok_or_else(|| {
        Error::NotFound(format!("the image has no layer {number}: there are {}", layers.len()))
    })
}

/// A layer is not what its record and index say.
fn damaged(layer: &Layer, why: &dyn std::fmt::Display) -> Error {
    Error::Corrupt(format!(
        "layer {} ({}) is damaged: {why}; `longshore system check` tells more",
        layer.number, layer.record.diff_id
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_bounded() {
        for (path, want) in
            [("/etc/x", "etc/x"), ("etc//./x/", "etc/x"), ("/a/../../b", "b"), ("/", ""), ("a/b/..", "a")]
        {
            assert_eq!(clean_path(path.as_bytes()).unwrap(), want.as_bytes(), "{path}");
        }
        for bad in [&b""[..], b"a\0b", &[b'a'; PATH_MAX + 1]] {
            assert!(clean_path(bad).is_err());
        }
    }
}
