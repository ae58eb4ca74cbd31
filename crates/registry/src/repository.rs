use std::fmt;
use std::fs::File;

use bytes::Bytes;
use longshore_oci::image::{Descriptor, Index};
use longshore_oci::{Digest, Reference};

use crate::{BlobStream, Client, Credentials, Document, Error, Result};

/// One repository of a registry, with the credentials it is used with. Cloning is cheap.
///
/// Reading asks the registry's mirrors first; writing, and all that is about the registry's own state, does not.
#[derive(Clone, Debug)]
pub struct Repository {
    #[allow(dead_code)]
    client: Client,
    name: Reference,
    #[allow(dead_code)]
    credentials: Credentials,
}

/// What names a manifest within a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestRef {
    /// May name another one tomorrow.
    Tag(String),
    /// Names these bytes for ever.
    Digest(Digest),
}

impl fmt::Display for ManifestRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A manifest or an index, as it came.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Exactly what the digest is of.
    pub bytes: Bytes,
    /// One of the four types of manifests and indexes.
    pub media_type: String,
    /// Of `bytes`.
    pub digest: Digest,
    /// The same, parsed.
    pub document: Document,
}

fn unbuilt<T>(what: &str) -> Result<T> {
    Err(Error::Unsupported(format!("{what} is not built yet")))
}

impl Repository {
    pub(crate) fn new(client: Client, name: Reference, credentials: Credentials) -> Self {
        Self { client, name, credentials }
    }

    /// The reference that this was made from.
    #[must_use]
    pub fn name(&self) -> &Reference {
        &self.name
    }

    /// The manifest or index that `at` names: its bytes hash to the digest that was asked for and that the registry
    /// says, its type is the one that header and body say, and it is no longer than [`Limits::manifest`].
    ///
    /// [`Limits::manifest`]: crate::Limits::manifest
    ///
    /// # Errors
    /// Code `MANIFEST_UNKNOWN` where there is none; [`Error::DigestMismatch`], [`Error::Corrupt`],
    /// [`Error::Unsupported`] for what does not hold.
    pub async fn manifest(&self, at: &ManifestRef) -> Result<Fetched> {
        unbuilt(&format!("get of {at}"))
    }

    /// What `at` names, without its bytes; `None` where there is nothing. Mirrors are not asked.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn head_manifest(&self, at: &ManifestRef) -> Result<Option<Descriptor>> {
        unbuilt(&format!("head of {at}"))
    }

    /// The bytes of a blob. The address in the descriptor's `urls` is never used.
    ///
    /// # Errors
    /// When no server begins to send it; later failures come out of the stream.
    pub async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream> {
        unbuilt(&format!("get of {}", descriptor.digest))
    }

    /// A small blob as a whole, its size and digest checked.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the descriptor says more than `limit` bytes.
    pub async fn read_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
        unbuilt(&format!("get of {} ({limit})", descriptor.digest))
    }

    /// All tags, in the registry's order.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond [`Limits::entries`](crate::Limits::entries).
    pub async fn tags(&self) -> Result<Vec<String>> {
        unbuilt("list of tags")
    }

    /// What refers to the manifest `subject`, of one artifact type if that is given. Registries without the
    /// referrers API are asked for the tag `sha256-<hex>` that stands for it.
    ///
    /// # Errors
    /// When the registry cannot be asked, or answers with something else than an index.
    pub async fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Index> {
        unbuilt(&format!("referrers of {subject} {artifact_type:?}"))
    }

    /// The size of a blob if the repository has it.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>> {
        unbuilt(&format!("head of {digest}"))
    }

    /// Takes over a blob of `from_repository`, a repository's path in the same registry; `false` where the registry
    /// does not, and the blob must be uploaded.
    ///
    /// # Errors
    /// When the registry cannot be asked, or nothing may be written.
    pub async fn mount_blob(&self, digest: &Digest, from_repository: &str) -> Result<bool> {
        unbuilt(&format!("mount of {digest} from {from_repository}"))
    }

    /// Uploads the first `size` bytes of `file`, which hash to `digest`. `progress` is told how many bytes the
    /// registry's connection took so far; after a failure that number may go back.
    ///
    /// # Errors
    /// [`Error::Internal`] when the file cannot be read or ends early.
    pub async fn upload_blob(
        &self,
        digest: Digest,
        size: u64,
        file: File,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<()> {
        progress(0);
        drop(file);
        unbuilt(&format!("upload of {digest} ({size})"))
    }

    /// Writes a manifest or an index, all of whose blobs and manifests are there already. Gives the digest of
    /// `bytes`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `at` is another digest than that of `bytes`.
    pub async fn put_manifest(&self, at: &ManifestRef, media_type: &str, bytes: Bytes) -> Result<Digest> {
        unbuilt(&format!("put of {at} {media_type} ({})", bytes.len()))
    }
}
