//! `docker save`: one archive that is a docker-archive and an OCI layout at once, as Docker 25 and later write it.
//! Layers are rebuilt to the byte; the same images give the same archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use longshore_oci::image::{Descriptor, ImageDocument, Index, Manifest, media};
use longshore_oci::{Digest, Platform, Reference};
use serde::Serialize;

use super::import::chain_of;
use super::manifest::{CONTAINERD_NAME, REF_NAME};
use super::staged::{rebuild, tar_size};
use crate::named_index::{IndexForm, IndexedImage, NamedIndex};
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

/// An image as it goes into the archive.
struct Picture {
    raw: Vec<u8>,
    platform: Platform,
    chains: Vec<Digest>,
}

impl Picture {
    fn of(store: &Store, id: &Digest) -> Result<Self> {
        let image = store.images().get(id)?;
        let (raw, document) = store.images().document(id)?;
        Ok(Self { raw, platform: document.platform(), chains: image.layers })
    }
}

/// Writes the images to `out`; of a name with an index all images that leave the machine under it.
///
/// # Errors
/// When an image is not there, a layer is damaged, or `out` fails.
pub fn save(store: &Store, items: &[SaveItem], out: impl Write) -> Result<()> {
    let mut saving = Saving::begin(store, out)?;
    for item in items {
        let image = Picture::of(store, &item.id)?;
        let (mut plain, mut indexed) = (Vec::new(), Vec::new());
        for tag in &item.tags {
            match store.images().index(tag)? {
                Some(index) => indexed.push((tag, index)),
                None => plain.push(tag.clone()),
            }
        }
        if !plain.is_empty() || item.tags.is_empty() {
            let manifest = saving.image(&image, &BTreeMap::new())?;
            saving.name(&manifest, &plain);
        }
        for (tag, index) in indexed {
            let pictures = index.sent().into_iter().map(|image| Picture::of(store, &image.id));
            saving.index(&index, &pictures.collect::<Result<Vec<_>>>()?, std::slice::from_ref(tag))?;
        }
        saving.for_docker(&image, &item.tags)?;
    }
    saving.finish()
}

/// An image that was not recorded: the tree at `top`, and what is said of it.
#[derive(Clone, Debug)]
pub struct Unrecorded {
    /// Chain id of its topmost layer.
    pub top: Option<Digest>,
    #[allow(missing_docs)]
    pub document: ImageDocument,
}

impl Unrecorded {
    /// The id that [`super::record`] would give it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn id(&self) -> Result<Digest> {
        Ok(Digest::of(&self.raw()?))
    }

    fn raw(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.document)
            .map_err(|e| Error::Internal(format!("write image configuration: {e}")))
    }
}

/// Writes to `out` what [`super::record`] would make images of, those of `index` in its order, without making them images.
///
/// # Errors
/// As [`save`].
pub fn save_unrecorded(
    store: &Store,
    images: &[Unrecorded],
    index: &NamedIndex,
    tags: &[Reference],
    out: impl Write,
) -> Result<()> {
    let mut saving = Saving::begin(store, out)?;
    let picture = |image: &Unrecorded| {
        let platform = image.document.platform();
        Ok(Picture { raw: image.raw()?, platform, chains: chain_of(store, image.top)? })
    };
    let pictures = images.iter().map(picture).collect::<Result<Vec<_>>>()?;
    saving.index(index, &pictures, tags)?;
    if let Some((own, _)) = pictures.iter().zip(&index.images).find(|(_, image)| image.id == index.of) {
        saving.for_docker(own, tags)?;
    }
    saving.finish()
}

/// The index over manifests, which are those of the images of `index`, by digest and bytes.
#[must_use]
pub fn index_of(index: &NamedIndex, manifests: &[(Digest, u64)]) -> Index {
    let describe = |(image, (digest, size)): (&IndexedImage, &(Digest, u64))| Descriptor {
        annotations: image.descriptor_annotations.clone(),
        platform: Some(image.platform.clone()),
        ..Descriptor::new(media::OCI_MANIFEST, *digest, *size)
    };
    Index {
        schema_version: 2,
        media_type: Some(media::OCI_INDEX.into()),
        artifact_type: None,
        manifests: index.images.iter().zip(manifests).map(describe).collect(),
        subject: None,
        annotations: index.annotations.clone(),
    }
}

/// An archive that is being written.
struct Saving<'a, W: Write> {
    store: &'a Store,
    archive: Archive<W>,
    entries: Vec<DockerEntry>,
    index: Vec<Descriptor>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl<'a, W: Write> Saving<'a, W> {
    fn begin(store: &'a Store, out: W) -> Result<Self> {
        let mut archive = Archive::new(out);
        archive.dirs(&["blobs", "blobs/sha256"])?;
        let (entries, index, repositories) = Default::default();
        Ok(Self { store, archive, entries, index, repositories })
    }

    /// An image's blobs and its manifest; gives what describes that.
    fn image(&mut self, image: &Picture, annotations: &BTreeMap<String, String>) -> Result<Descriptor> {
        let id = Digest::of(&image.raw);
        let layers = self.layers(image)?;
        self.archive.blob(&id, &image.raw)?;
        for layer in &layers {
            self.archive.layer(self.store, layer)?;
        }
        let manifest = Manifest { annotations: annotations.clone(), ..manifest(&id, &image.raw, &layers) };
        let mut descriptor = self.document(media::OCI_MANIFEST, &manifest)?;
        descriptor.platform = Some(image.platform.clone()).filter(|p| !p.os.is_empty());
        Ok(descriptor)
    }

    fn layers(&self, image: &Picture) -> Result<Vec<Layer>> {
        let layer = |chain: &Digest| {
            let record = self.store.layer(chain)?;
            let record = record.ok_or_else(|| Error::Corrupt(format!("layer {chain} has no record")))?;
            let tar_size = tar_size(self.store, &record.cache_id)?;
            Ok(Layer { diff_id: record.diff_id, cache_id: record.cache_id, tar_size })
        };
        image.chains.iter().map(layer).collect()
    }

    /// A manifest or an index as a blob.
    fn document(&mut self, media_type: &str, document: &impl Serialize) -> Result<Descriptor> {
        let raw =
            serde_json::to_vec(document).map_err(|e| Error::Internal(format!("write manifest: {e}")))?;
        let digest = Digest::of(&raw);
        self.archive.blob(&digest, &raw)?;
        Ok(Descriptor::new(media_type, digest, raw.len() as u64))
    }

    /// The images of an index that leave the machine, under these names.
    fn index(&mut self, index: &NamedIndex, images: &[Picture], tags: &[Reference]) -> Result<()> {
        let mut manifests = Vec::new();
        for (image, picture) in index.sent().into_iter().zip(images) {
            let manifest = self.image(picture, &image.annotations)?;
            manifests.push(Descriptor { annotations: image.descriptor_annotations.clone(), ..manifest });
        }
        if index.form == IndexForm::Index {
            let known: Vec<_> = manifests.iter().map(|m| (m.digest, m.size)).collect();
            let described = self.document(media::OCI_INDEX, &index_of(index, &known))?;
            manifests = vec![Descriptor { annotations: index.descriptor_annotations.clone(), ..described }];
        }
        manifests.iter().for_each(|manifest| self.name(manifest, tags));
        Ok(())
    }

    /// Puts a manifest or an index into the layout's own index, under each name.
    fn name(&mut self, manifest: &Descriptor, tags: &[Reference]) {
        if tags.is_empty() {
            self.index.push(manifest.clone());
        }
        for tag in tags {
            let mut named = manifest.clone();
            named.annotations.extend(annotations(tag));
            self.index.push(named);
        }
    }

    /// An image for those who read Docker's own form.
    fn for_docker(&mut self, image: &Picture, tags: &[Reference]) -> Result<()> {
        let layers = self.layers(image)?;
        for tag in tags {
            if let (Some(name), Some(top)) = (tag.tag(), layers.last()) {
                let of_name = self.repositories.entry(tag.familiar_name()).or_default();
                of_name.insert(name.to_owned(), top.diff_id.hex());
            }
        }
        self.entries.push(DockerEntry {
            config: blob(&Digest::of(&image.raw)),
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
        (CONTAINERD_NAME.to_owned(), tag.to_string()),
        (REF_NAME.to_owned(), tag.tag().unwrap_or_default().to_owned()),
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
