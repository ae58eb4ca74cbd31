//! What a layout needs no longer once its index was replaced.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use longshore_oci::Digest;
use longshore_oci::image::{Index, Manifest, media};

use super::MAX_INDEX;
use crate::portable::ARTIFACT;

/// The blobs that only caches of ours needed which `before` names and `after` does not. Where it cannot be told what a
/// manifest needs, all stay.
pub(super) fn unneeded(dir: &Path, before: &[u8], after: &[u8]) -> Vec<PathBuf> {
    let find = || {
        let before: Index = serde_json::from_slice(before).ok()?;
        let after: Index = serde_json::from_slice(after).ok()?;
        let mut kept = BTreeSet::new();
        for manifest in &after.manifests {
            // An index within the index, or another thing with parts of its own.
            if ![media::OCI_MANIFEST, media::DOCKER_MANIFEST].contains(&manifest.media_type.as_str()) {
                return None;
            }
            kept.extend(parts(dir, manifest.digest)?);
        }
        let ours = before.manifests.iter().filter(|m| m.artifact_type.as_deref() == Some(ARTIFACT));
        let old: BTreeSet<Digest> = ours.filter_map(|m| parts(dir, m.digest)).flatten().collect();
        Some(old.difference(&kept).map(|digest| path(dir, digest)).collect())
    };
    find().unwrap_or_default()
}

fn path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

/// A manifest with all that it names.
fn parts(dir: &Path, digest: Digest) -> Option<Vec<Digest>> {
    let mut bytes = Vec::new();
    File::open(path(dir, &digest)).ok()?.take(MAX_INDEX).read_to_end(&mut bytes).ok()?;
    let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
    let named = manifest.layers.iter().map(|layer| layer.digest);
    Some(named.chain([digest, manifest.config.digest]).collect())
}
