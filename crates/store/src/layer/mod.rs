//! Layers: tar streams unpacked into directories, and made from them again.

mod adopt;
mod apply;
pub mod compress;
mod diff;
mod gzip;
mod index;
mod index_file;
mod index_writer;
mod inherit;
mod recipe;
pub(crate) mod recompress;
mod reindex;
mod tree;
mod whole;

pub(crate) use adopt::adopt;
pub use apply::{Applied, ApplyOptions, apply};
pub use diff::{TreeKind, Written, write_changes, write_path, write_tree, write_trees};
pub use gzip::ParallelGzip;
pub(crate) use index::VERSION as INDEX_VERSION;
pub use index::{Index, IndexEntry, IndexKind, is_below, tree_order};
pub use index_file::{IndexFile, OwnedEntry, Said};
pub(crate) use inherit::inherited;
pub use recipe::{describe, rebuild};
pub use recompress::Compressor;
pub(crate) use reindex::{Reindexed, reindex};
pub(crate) use tree::reopen;
pub(crate) use whole::{Expected, differences};

/// Starts the name of an entry that deletes one of a lower layer (OCI image spec, layer.md).
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Starts names that are reserved.
pub(crate) const WHITEOUT_META: &[u8] = b".wh..wh.";
/// Hides all that a directory holds in lower layers.
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// What deletions become when a layer is unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhiteoutFormat {
    /// Character devices 0/0 and `trusted.overlay.opaque`.
    #[default]
    Overlay,
    /// The same with `user.overlay.opaque`, for user namespaces.
    OverlayUser,
    /// The files of the lower layers, which stand in the same directory, are deleted.
    Remove,
    /// There are none: names that start with `.wh.` are names like others.
    Literal,
}

/// True for attributes that steer overlayfs: they never come from a layer nor go into one.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

#[cfg(test)]
mod tests;
