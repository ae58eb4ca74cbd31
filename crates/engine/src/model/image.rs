use std::collections::BTreeMap;

use longshore_oci::image::{Descriptor, ImageDocument};
use longshore_oci::{Digest, Reference};
use longshore_registry::Credentials;

use super::UnixNanos;

/// An image, for inspect and lists.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ImageView {
    pub id: Digest,
    pub tags: Vec<Reference>,
    pub digests: Vec<Reference>,
    pub parent: Option<Digest>,
    pub document: ImageDocument,
    /// From the document; 0 when it has none.
    pub created: UnixNanos,
    /// Bytes of all layers.
    pub size: u64,
    pub last_tagged: UnixNanos,
    pub driver: String,
    pub graph: BTreeMap<String, String>,
    /// Containers made from it, counted when asked for, else -1.
    pub containers: i64,
    /// Bytes shared with other images, when asked for, else -1.
    pub shared_size: i64,
}

/// One line of `docker history`, newest first.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct HistoryEntry {
    pub id: Option<Digest>,
    pub created: UnixNanos,
    pub created_by: String,
    pub comment: String,
    pub size: u64,
    pub tags: Vec<Reference>,
}

/// What `rmi` did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ImageDeleted {
    /// Familiar form of the reference.
    Untagged(String),
    /// An image id or a chain id.
    Deleted(Digest),
}

/// What a prune removed.
#[derive(Clone, Debug, Default)]
pub struct ImagesPruned {
    /// In order.
    pub deleted: Vec<ImageDeleted>,
    /// Bytes of the disk (blocks) that this freed.
    pub reclaimed: u64,
}

/// `POST /commit`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct CommitRequest {
    pub container: String,
    pub reference: Option<Reference>,
    pub comment: String,
    pub author: String,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    pub pause: bool,
    /// A configuration in the body overrides the container's.
    pub config: Option<longshore_oci::image::RunConfig>,
}

/// `POST /images/create?fromSrc=-`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct ImportRequest {
    pub reference: Option<Reference>,
    pub message: String,
    pub changes: Vec<String>,
    pub platform: Option<longshore_oci::Platform>,
}

/// A line of a progress stream (load, import, pull, push).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProgressEvent {
    /// Plain text for `stream`.
    pub stream: Option<String>,
    pub status: Option<String>,
    pub id: Option<String>,
    pub current: Option<u64>,
    pub total: Option<u64>,
    /// `id` is a title and has no progress.
    pub title: bool,
    pub error: Option<String>,
    pub pushed: Option<Pushed>,
    /// The image that a pull ends with.
    pub pulled: Option<Digest>,
}

/// What a push ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Pushed {
    pub tag: String,
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
}

/// `POST /images/create?fromImage=`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct PullRequest {
    pub reference: Reference,
    /// Every tag of the repository.
    pub all_tags: bool,
    pub platform: Option<longshore_oci::Platform>,
    /// The name goes on standing for what it stands for, and for this on that platform only.
    pub beside: bool,
    pub credentials: Credentials,
}

/// `POST /images/{name}/push`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct PushRequest {
    /// Without a tag: every tag of the repository.
    pub reference: Reference,
    /// Of images of several platforms that a name stands for, only the one for this.
    pub platform: Option<longshore_oci::Platform>,
    pub credentials: Credentials,
}

/// `GET /distribution/{name}/json`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Distribution {
    pub descriptor: Descriptor,
    pub platforms: Vec<longshore_oci::Platform>,
}

/// A manifest as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ManifestView {
    pub descriptor: Descriptor,
    pub raw: bytes::Bytes,
    /// Those that an index names, where they were asked for.
    pub manifests: Vec<Self>,
}

/// `GET /images/search`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SearchRequest {
    pub term: String,
    pub limit: u32,
    /// is-automated, is-official, stars; unknown ones are refused.
    pub filters: super::Filters,
    pub credentials: Credentials,
}

/// A repository that a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SearchHit {
    pub name: String,
    pub description: String,
    pub stars: u64,
    pub official: bool,
    pub automated: bool,
}

/// Which images `docker images` wants.
#[derive(Clone, Debug, Default)]
pub struct ListImages {
    /// Also intermediate ones (untagged, with children).
    pub all: bool,
    /// before, dangling, label, reference, since, until; unknown ones are refused.
    pub filters: super::Filters,
    /// Count the bytes shared with other images.
    pub shared_size: bool,
    /// Count containers.
    pub containers: bool,
}
