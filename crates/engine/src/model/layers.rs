use longshore_oci::Digest;

pub use longshore_store::inspect::{
    DiffOptions, DiffRow, Differs, Event as FileEvent, FileInfo, FileKind, LayerFile, Place, Version,
};
pub use longshore_store::tar::Time;

use super::{MountPoint, UnixNanos};

/// A layer of an image, and the step that made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LayerName {
    /// From 1, the lowest first.
    pub number: usize,
    pub diff_id: String,
    pub chain_id: String,
    pub cache_id: String,
    /// The step for people.
    pub step: String,
    /// As the image tells it.
    pub created_by: String,
    pub comment: String,
    /// 0 where the image does not tell.
    pub created: UnixNanos,
}

/// What a layer does; see the store's tally.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct LayerView {
    pub name: LayerName,
    pub size: u64,
    pub wasted: u64,
    pub added: u64,
    pub changed: u64,
    pub deleted: u64,
    pub directories: u64,
    /// Of the host.
    pub directory: String,
    /// Digest, bytes and media type of the compressed form, if one is kept.
    pub compressed: Option<(Digest, u64, String)>,
}

/// The layers of an image, the lowest first.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct LayersView {
    pub id: Digest,
    pub layers: Vec<LayerView>,
}

/// The life of a path.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct WhichView {
    pub image: Digest,
    /// Id of the container that was asked about.
    pub container: Option<String>,
    pub which: longshore_store::inspect::Which,
    /// All layers of the image, the lowest first.
    pub layers: Vec<LayerName>,
    /// What is mounted over the path in the container.
    pub mount: Option<MountPoint>,
}

/// A file of an image that is read.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ImageFile {
    /// Clean, after all links.
    pub path: Vec<u8>,
    /// Number of the layer that it lies in.
    pub layer: usize,
    pub info: FileInfo,
    /// Bytes that are given.
    pub len: u64,
}
