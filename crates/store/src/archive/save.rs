//! `docker save`: one archive that is a docker-archive and an OCI layout at once, as Docker 25 and later write it.
//! Layers are rebuilt to the byte; the same images give the same archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use longshore_oci::image::{Descriptor, ImageDocument, Index, Manifest, media};
use longshore_oci::{Digest, Platform, Reference};
use serde::Serialize;

use super::import::chain_of;
use super::staged::{rebuild, tar_size};
use crate::open::Store;
use crate::tar::{self, EntryKind};
use crate::{Error, Result};

/// An image to save, under these names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SaveItem {
    pub id: Digest,
    pub tags: Vec<Reference>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A layer as it goes into the archive.
#[derive(Clone)]
struct Layer {
    diff_id: Digest,
    cache_id: String,
    /// Bytes of its tar.
    tar_size: u64,
}

/// Writes the images to `out`.
///
/// # Errors
/// When an image is not there, a layer is damaged, or `out` fails.
pub fn save(store: &Store, items: &[SaveItem], out: impl Write) -> Result<()> {
    let mut saving = Saving::begin(out)?;
    for item in items {
        let image = store.images().get(&item.id)?;
        let (raw, document) = store.images().document(&item.id)?;
        saving.image(store, &raw, &document, &image.layers, &item.tags)?;
    }
    saving.finish()
}

/// Writes to `out` what [`super::record`] would make an image of, without making it one; gives the id that it would have.
///
/// # Errors
/// As [`save`].
pub fn save_unrecorded(
    store: &Store,
    top: Option<Digest>,
    document: &ImageDocument,
    tags: &[Reference],
    out: impl Write,
) -> Result<Digest> {
    let raw = serde_json::to_vec(document)
        .map_err(|e| Error::Internal(format!("write image configuration: {e}")))?;
    let mut saving = Saving::begin(out)?;
    saving.image(store, &raw, document, &chain_of(store, top)?, tags)?;
    saving.finish()?;
    Ok(Digest::of(&raw))
}

/// An archive that is being written.
struct Saving<W: Write> {
    archive: Archive<W>,
    entries: Vec<DockerEntry>,
    index: Vec<Descriptor>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl<W: Write> Saving<W> {
    fn begin(out: W) -> Result<Self> {
        let mut archive = Archive::new(out);
        archive.dirs(&["blobs", "blobs/sha256"])?;
        Ok(Self { archive, entries: Vec::new(), index: Vec::new(), repositories: BTreeMap::new() })
    }

    fn image(
        &mut self,
        store: &Store,
        raw: &[u8],
        document: &ImageDocument,
        chains: &[Digest],
        tags: &[Reference],
    ) -> Result<()> {
        let id = Digest::of(raw);
        let mut layers = Vec::new();
        for chain in chains {
            let record =
                store.layer(chain)?.ok_or_else(|| Error::Corrupt(format!("layer {chain} has no record")))?;
            let tar_size = tar_size(store, &record.cache_id)?;
            layers.push(Layer { diff_id: record.diff_id, cache_id: record.cache_id, tar_size });
        }
        self.archive.blob(&id, raw)?;
        for layer in &layers {
            self.archive.layer(store, layer)?;
        }
        let manifest = manifest(&id, raw, &layers);
        let manifest =
            serde_json::to_vec(&manifest).map_err(|e| Error::Internal(format!("write manifest: {e}")))?;
        let digest = Digest::of(&manifest);
        self.archive.blob(&digest, &manifest)?;
        let platform = Platform {
            os: document.os.clone(),
            architecture: document.architecture.clone(),
            variant: document.variant.clone(),
            os_version: None,
        };
        let descriptor = |tag: Option<&Reference>| Descriptor {
            annotations: tag.map(annotations).unwrap_or_default(),
            platform: Some(platform.clone()).filter(|p| !p.os.is_empty()),
            ..Descriptor::new(media::OCI_MANIFEST, digest, manifest.len() as u64)
        };
        if tags.is_empty() {
            self.index.push(descriptor(None));
        }
        for tag in tags {
            self.index.push(descriptor(Some(tag)));
            if let (Some(name), Some(top)) = (tag.tag(), layers.last()) {
                let of_name = self.repositories.entry(tag.familiar_name()).or_default();
                of_name.insert(name.to_owned(), top.diff_id.hex());
            }
        }
        self.entries.push(DockerEntry {
            config: blob(&id),
            repo_tags: (!tags.is_empty()).then(|| tags.iter().map(Reference::familiar).collect()),
            layers: layers.iter().map(|l| blob(&l.diff_id)).collect(),
        });
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let index = Index {
            schema_version: 2,
            media_type: Some(media::OCI_INDEX.into()),
            artifact_type: None,
            manifests: self.index,
            subject: None,
            annotations: BTreeMap::new(),
        };
        self.archive.json("index.json", &index)?;
        self.archive.json("manifest.json", &self.entries)?;
        self.archive.json("oci-layout", &serde_json::json!({"imageLayoutVersion": "1.0.0"}))?;
        if !self.repositories.is_empty() {
            self.archive.json("repositories", &self.repositories)?;
        }
        self.archive.finish()
    }
}

fn annotations(tag: &Reference) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("io.containerd.image.name".to_owned(), tag.to_string()),
        ("org.opencontainers.image.ref.name".to_owned(), tag.tag().unwrap_or_default().to_owned()),
    ])
}

fn manifest(id: &Digest, raw: &[u8], layers: &[Layer]) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.into()),
        artifact_type: None,
        config: Descriptor::new(media::OCI_CONFIG, *id, raw.len() as u64),
        layers: layers.iter().map(|l| Descriptor::new(media::OCI_LAYER, l.diff_id, l.tar_size)).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

struct Archive<W: Write> {
    tar: tar::Writer<W>,
    written: BTreeSet<Digest>,
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Self {
        Self { tar: tar::Writer::new(out), written: BTreeSet::new() }
    }

    fn dirs(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            let path = format!("{name}/").into_bytes();
            self.tar.entry(&tar::Entry {
                path,
                kind: EntryKind::Dir,
                mode: 0o755,
                ..tar::Entry::default()
            })?;
        }
        Ok(())
    }

    fn start(&mut self, name: &str, size: u64) -> Result<()> {
        let path = name.as_bytes().to_vec();
        self.tar.entry(&tar::Entry {
            path,
            kind: EntryKind::File,
            mode: 0o644,
            size,
            ..tar::Entry::default()
        })
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|e| Error::Internal(format!("write {name}: {e}")))?;
        self.start(name, bytes.len() as u64)?;
        self.tar.data(&bytes)
    }

    fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.written.insert(*digest) {
            self.start(&blob(digest), bytes.len() as u64)?;
            self.tar.data(bytes)?;
        }
        Ok(())
    }

    fn layer(&mut self, store: &Store, layer: &Layer) -> Result<()> {
        if self.written.insert(layer.diff_id) {
            self.start(&blob(&layer.diff_id), layer.tar_size)?;
            rebuild(store, &layer.cache_id, layer.diff_id, &mut Data(&mut self.tar))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let mut out = self.tar.finish()?;
        out.flush().map_err(|e| Error::io("write archive", e))
    }
}

/// The payload of the current entry as a stream.
struct Data<'a, W: Write>(&'a mut tar::Writer<W>);

impl<W: Write> Write for Data<'_, W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.data(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
