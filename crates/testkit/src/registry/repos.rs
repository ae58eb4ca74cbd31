//! What a registry holds.

use std::collections::{BTreeMap, BTreeSet};

use longshore_oci::Digest;
use serde_json::Value;

use super::blob::Blob;

/// A manifest as it was put.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its `Content-Type`.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Document {
    /// A document of that media type.
    #[must_use]
    pub fn new(media_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { media_type: media_type.to_owned(), bytes: bytes.into() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Repo {
    pub(super) blobs: BTreeSet<Digest>,
    pub(super) manifests: BTreeMap<Digest, Document>,
    pub(super) tags: BTreeMap<String, Digest>,
    /// Manifests by the digest of what they are about.
    pub(super) referrers: BTreeMap<Digest, BTreeSet<Digest>>,
}

/// An upload that was begun.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) repo: String,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Repos {
    /// The bytes of all repositories' blobs.
    pub(super) blobs: BTreeMap<Digest, Blob>,
    pub(super) repos: BTreeMap<String, Repo>,
    pub(super) uploads: BTreeMap<String, Upload>,
}

impl Repos {
    pub(super) fn put_blob(&mut self, repo: &str, blob: Blob) -> Digest {
        let digest = blob.digest();
        self.blobs.insert(digest, blob);
        self.repo(repo).blobs.insert(digest);
        digest
    }

    pub(super) fn repo(&mut self, repo: &str) -> &mut Repo {
        self.repos.entry(repo.to_owned()).or_default()
    }

    pub(super) fn blob(&self, repo: &str, digest: &Digest) -> Option<&Blob> {
        self.repos.get(repo).filter(|r| r.blobs.contains(digest)).and_then(|_| self.blobs.get(digest))
    }

    /// Keeps a manifest under its digest and, if `name` is no digest, that tag.
    pub(super) fn put_manifest(&mut self, repo: &str, name: &str, document: Document) -> Digest {
        let digest = Digest::of(&document.bytes);
        let subject = serde_json::from_slice::<Value>(&document.bytes)
            .ok()
            .and_then(|v| v["subject"]["digest"].as_str()?.parse::<Digest>().ok());
        let repo = self.repo(repo);
        if let Some(subject) = subject {
            repo.referrers.entry(subject).or_default().insert(digest);
        }
        repo.manifests.insert(digest, document);
        if !name.contains(':') && !name.is_empty() {
            repo.tags.insert(name.to_owned(), digest);
        }
        digest
    }

    /// By tag or digest.
    pub(super) fn manifest(&self, repo: &str, name: &str) -> Option<(Digest, &Document)> {
        let repo = self.repos.get(repo)?;
        let digest = match name.parse::<Digest>() {
            Ok(digest) => digest,
            Err(_) => *repo.tags.get(name)?,
        };
        repo.manifests.get(&digest).map(|document| (digest, document))
    }
}
