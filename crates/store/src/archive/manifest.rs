//! What an archive says it holds: docker's `manifest.json`, or an OCI layout's `index.json`. Pure.

use std::collections::BTreeMap;

use longshore_oci::image::{Descriptor, Index, Manifest, media};
use longshore_oci::{Digest, Platform, Reference};
use serde::Deserialize;

use crate::{Error, Result};

/// What containerd calls an image that a layout names, in whole.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The specification's own name (OCI image spec, annotations.md); often a tag only.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes inside indexes.
const MAX_NESTING: usize = 8;
/// Images in one archive.
const MAX_IMAGES: usize = 1000;

/// One image of an archive; names are those of the archive's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) config: String,
    /// Lowest first.
    pub(super) layers: Vec<String>,
    pub(super) tags: Vec<Reference>,
}

/// Images of several platforms that an archive has under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArchivedIndex {
    pub(super) tags: Vec<Reference>,
    pub(super) images: Vec<ArchivedImage>,
    /// Those of the index, and those of what names it.
    pub(super) annotations: [BTreeMap<String, String>; 2],
}

/// An image of an [`ArchivedIndex`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArchivedImage {
    /// Without a name.
    pub(super) entry: Entry,
    pub(super) platform: Platform,
    /// Those of its manifest, and those of what names it.
    pub(super) annotations: [BTreeMap<String, String>; 2],
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Reads what the small members of an archive say. `platform` chooses among the images of an index.
pub(super) fn entries(documents: &BTreeMap<String, Vec<u8>>, platform: &Platform) -> Result<Vec<Entry>> {
    if let Some(raw) = documents.get("manifest.json") {
        return docker(raw);
    }
    if let Some(raw) = documents.get("index.json") {
        return layout(raw, documents, platform);
    }
    if documents.contains_key("repositories") {
        return Err(Error::Unimplemented(
            "archives of Docker before 1.10 (repositories without manifest.json) are not supported: save the image again with a later version".into(),
        ));
    }
    Err(Error::Invalid(
        "the archive has neither manifest.json nor index.json: it is not an image archive (docker import takes a root file system)".into(),
    ))
}

fn docker(raw: &[u8]) -> Result<Vec<Entry>> {
    let list: Vec<DockerEntry> = serde_json::from_slice(raw)
        .map_err(|e| Error::Invalid(format!("manifest.json is not valid: {e}")))?;
    limit(list.len())?;
    list.into_iter()
        .map(|e| {
            let tags = e.repo_tags.unwrap_or_default();
            let tags = tags.iter().map(|t| tag(t)).collect::<Result<Vec<_>>>()?;
            let layers = e.layers.unwrap_or_default();
            Ok(Entry { config: clean(&e.config), layers: layers.iter().map(|l| clean(l)).collect(), tags })
        })
        .collect()
}

fn layout(raw: &[u8], documents: &BTreeMap<String, Vec<u8>>, platform: &Platform) -> Result<Vec<Entry>> {
    let index = parse_index("index.json", raw)?;
    let mut out = Vec::new();
    for descriptor in &index.manifests {
        let tags = names(descriptor)?;
        let Some(manifest) = manifest(&descriptor.media_type, &descriptor.digest, documents, platform, 0)?
        else {
            continue;
        };
        // Artifacts and attestations are no images.
        if ![media::OCI_CONFIG, media::DOCKER_CONFIG].contains(&manifest.config.media_type.as_str()) {
            continue;
        }
        let layers = manifest.layers.iter().map(|l| blob(&l.digest)).collect();
        out.push(Entry { config: blob(&manifest.config.digest), layers, tags });
        limit(out.len())?;
    }
    if out.is_empty() {
        return Err(Error::Invalid(format!("the archive holds no image for {platform}")));
    }
    Ok(out)
}

/// The names that a layout gives one of its manifests.
fn names(descriptor: &Descriptor) -> Result<Vec<Reference>> {
    // The specification's own annotation is often a bare tag, which names no image.
    let full = descriptor.annotations.get(CONTAINERD_NAME);
    let spec = descriptor.annotations.get(REF_NAME).filter(|n| n.contains(['/', ':']));
    Ok(full.or(spec).map(|n| tag(n)).transpose()?.into_iter().collect())
}

/// The indexes of which the archive has several images, under their names. `has` tells what members there are.
pub(super) fn indexes(
    documents: &BTreeMap<String, Vec<u8>>,
    has: &dyn Fn(&str) -> bool,
) -> Result<Vec<ArchivedIndex>> {
    let Some(raw) = documents.get("index.json") else { return Ok(Vec::new()) };
    let mut out: Vec<ArchivedIndex> = Vec::new();
    for named in parse_index("index.json", raw)?.manifests {
        let name = blob(&named.digest);
        let tags = names(&named)?;
        let raw = documents.get(&name).filter(|_| !tags.is_empty());
        let Some(raw) = raw.filter(|_| [media::OCI_INDEX, media::DOCKER_LIST].contains(&&*named.media_type))
        else {
            continue;
        };
        verify(&named.digest, raw)?;
        let index = parse_index(&name, raw)?;
        let mut images = Vec::new();
        for descriptor in index.manifests {
            images.extend(archived(descriptor, documents, has)?);
        }
        if images.len() > 1 {
            let (mut annotations, own) = (named.annotations, [CONTAINERD_NAME, REF_NAME]);
            annotations.retain(|key, _| !own.contains(&&**key));
            out.push(ArchivedIndex { tags, images, annotations: [index.annotations, annotations] });
        }
    }
    limit(out.iter().map(|index| index.images.len()).sum())?;
    Ok(out)
}

/// An image that an index names, if the archive has all of it.
fn archived(
    descriptor: Descriptor,
    documents: &BTreeMap<String, Vec<u8>>,
    has: &dyn Fn(&str) -> bool,
) -> Result<Option<ArchivedImage>> {
    let Some(platform) = descriptor.platform else { return Ok(None) };
    if ![media::OCI_MANIFEST, media::DOCKER_MANIFEST].contains(&&*descriptor.media_type)
        || !documents.contains_key(&blob(&descriptor.digest))
    {
        return Ok(None);
    }
    let found = manifest(&descriptor.media_type, &descriptor.digest, documents, &platform, 0)?;
    let Some(manifest) = found else { return Ok(None) };
    let config = blob(&manifest.config.digest);
    let layers: Vec<String> = manifest.layers.iter().map(|l| blob(&l.digest)).collect();
    // Attestations are of no image's type, or of no platform's.
    let is_image = [media::OCI_CONFIG, media::DOCKER_CONFIG].contains(&&*manifest.config.media_type)
        && platform.architecture != "unknown";
    let whole = documents.contains_key(&config) && layers.iter().all(|layer| has(layer));
    let annotations = [manifest.annotations, descriptor.annotations];
    let entry = Entry { config, layers, tags: Vec::new() };
    Ok((is_image && whole).then_some(ArchivedImage { entry, platform, annotations }))
}

fn manifest(
    media_type: &str,
    digest: &Digest,
    documents: &BTreeMap<String, Vec<u8>>,
    platform: &Platform,
    depth: usize,
) -> Result<Option<Manifest>> {
    let name = blob(digest);
    let raw = documents.get(&name).ok_or_else(|| Error::Invalid(format!("the archive lacks {name}")))?;
    verify(digest, raw)?;
    match media_type {
        media::OCI_INDEX | media::DOCKER_LIST => {
            if depth >= MAX_NESTING {
                return Err(Error::TooLarge(format!("indexes are nested deeper than {MAX_NESTING}")));
            }
            let index = parse_index(&name, raw)?;
            let fits = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.runs_on(platform));
            match index.manifests.iter().find(fits) {
                Some(d) => manifest(&d.media_type, &d.digest, documents, platform, depth + 1),
                None => Ok(None),
            }
        }
        media::OCI_MANIFEST | media::DOCKER_MANIFEST => {
            let value: serde_json::Value = parse(&name, raw)?;
            // A document that is both would mean different things to different readers.
            if value.get("manifests").is_some() {
                return Err(Error::Invalid(format!("{name} is a manifest and an index at once")));
            }
            let manifest: Manifest = serde_json::from_value(value).map_err(|e| invalid(&name, &e))?;
            if manifest.media_type.as_deref().is_some_and(|t| t != media_type) {
                return Err(Error::Invalid(format!(
                    "{name} calls itself another type than its descriptor does"
                )));
            }
            Ok(Some(manifest))
        }
        other => Err(Error::Unimplemented(format!("media type {other:?} of {name} is not supported"))),
    }
}

fn parse_index(name: &str, raw: &[u8]) -> Result<Index> {
    let value: serde_json::Value = parse(name, raw)?;
    if value.get("layers").is_some() {
        return Err(Error::Invalid(format!("{name} is a manifest and an index at once")));
    }
    let index: Index = serde_json::from_value(value).map_err(|e| invalid(name, &e))?;
    limit(index.manifests.len())?;
    Ok(index)
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, raw: &[u8]) -> Result<T> {
    serde_json::from_slice(raw).map_err(|e| invalid(name, &e))
}

fn invalid(name: &str, e: &serde_json::Error) -> Error {
    Error::Invalid(format!("{name} is not valid: {e}"))
}

fn limit(images: usize) -> Result<()> {
    if images > MAX_IMAGES {
        return Err(Error::TooLarge(format!("the archive names more than {MAX_IMAGES} images")));
    }
    Ok(())
}

/// Bytes that were announced by a digest.
pub(super) fn verify(digest: &Digest, raw: &[u8]) -> Result<()> {
    let actual = Digest::of(raw);
    if actual == *digest {
        Ok(())
    } else {
        Err(Error::DigestMismatch { what: blob(digest), expected: *digest, actual })
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digest that a member's name announces, if it is a blob's.
pub(super) fn announced(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix("blobs/sha256/")?).ok()
}

fn tag(text: &str) -> Result<Reference> {
    let reference: Reference =
        text.parse().map_err(|e| Error::Invalid(format!("the archive names an image {text:?}: {e}")))?;
    reference.or_latest().for_a_tag().map_err(|e| Error::Invalid(e.to_string()))
}

/// A member's name without `./`, `//` and the like; names are only compared, never opened.
pub(super) fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            p => parts.push(p),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_clean() {
        assert_eq!(clean("./a//b/../c"), "a/c");
        assert_eq!(clean("../../etc/passwd"), "etc/passwd");
    }

    #[test]
    fn a_docker_manifest_is_read() {
        let raw = br#"[{"Config":"c.json","RepoTags":["a:1","b"],"Layers":["./x/layer.tar"]}]"#.to_vec();
        let docs = BTreeMap::from([("manifest.json".to_owned(), raw)]);
        let all = entries(&docs, &Platform::host()).unwrap();
        assert_eq!(all[0].config, "c.json");
        assert_eq!(all[0].layers, ["x/layer.tar"]);
        assert_eq!(all[0].tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:1", "b:latest"]);
    }

    #[test]
    fn atk_23_a_manifest_that_is_also_an_index_is_refused() {
        let raw = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_vec();
        let docs = BTreeMap::from([("index.json".to_owned(), raw)]);
        assert!(entries(&docs, &Platform::host()).unwrap_err().to_string().contains("at once"));
    }

    #[test]
    fn archives_from_before_manifests_are_refused_by_name() {
        let docs = BTreeMap::from([("repositories".to_owned(), b"{}".to_vec())]);
        let e = entries(&docs, &Platform::host()).unwrap_err();
        assert!(matches!(e, Error::Unimplemented(_)) && e.to_string().contains("1.10"), "{e}");
    }

    #[test]
    fn atk_24_a_digest_is_never_a_path() {
        for bad in ["sha256:../../../../etc/passwd", "sha256:", "../../etc/passwd", "sha512:00"] {
            let raw = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{bad}","size":1}}]}}"#,
                media::OCI_MANIFEST
            );
            let docs = BTreeMap::from([("index.json".to_owned(), raw.into_bytes())]);
            assert!(matches!(entries(&docs, &Platform::host()), Err(Error::Invalid(_))), "{bad}");
        }
        assert_eq!(announced("blobs/sha256/../../etc/passwd"), None);
    }

    #[test]
    fn what_is_no_image_archive_is_refused_with_a_hint() {
        let e = entries(&BTreeMap::new(), &Platform::host()).unwrap_err();
        assert!(e.to_string().contains("docker import"), "{e}");
    }
}
