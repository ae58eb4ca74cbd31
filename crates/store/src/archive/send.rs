//! Images on their way to a registry: each layer in the form that it came in, or compressed here; and the manifest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};

use longshore_oci::image::{Descriptor, Manifest, media};
use longshore_oci::{Digest, Reference};

use super::custody::Custody;
use super::layers::PackedTree;
use super::staged::{check_announced, rebuild};
use crate::compressed::Compressed;
use crate::image::{BlobRecord, ImageRow, LayerRecord, MAX_CONFIG, ManifestRecord, Origin};
use crate::layer::Compressor;
use crate::meta::{Batch, Table};
use crate::open::Store;
use crate::{Error, IoContext, Result};

/// An image that is being sent. What it needs stays as long as it lives.
#[derive(Debug)]
pub struct Dispatch {
    custody: Custody,
    id: Digest,
    config: Vec<u8>,
    layers: Vec<(Digest, LayerRecord)>,
    /// The manifest that it came with, if that can be sent again.
    known: Option<(ManifestRecord, Vec<u8>, Manifest)>,
    _trees: Vec<PackedTree>,
    /// Layers that are not here, by their place.
    absent: BTreeMap<usize, Absent>,
}

/// Something that is sent as a layer.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Part {
    /// By its chain id.
    Layer(Digest),
    Tree(PackedTree),
    /// A layer that is not here; its blob is fetched if it has to be sent.
    Elsewhere(Absent),
}

/// See [`Part::Elsewhere`].
pub struct Absent {
    /// Digest of its tar; nobody checks that here.
    pub diff_id: Digest,
    #[allow(missing_docs)]
    pub blob: Descriptor,
    /// Begins to fetch the blob, which is checked.
    pub fetch: Box<dyn Fn() -> std::io::Result<Box<dyn Read + Send>> + Send + Sync>,
}

impl std::fmt::Debug for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Absent")
            .field("diff_id", &self.diff_id)
            .field("blob", &self.blob)
            .finish_non_exhaustive()
    }
}

/// A finished manifest.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SentManifest {
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub digest: Digest,
}

impl Dispatch {
    /// Begins to send an image.
    ///
    /// # Errors
    /// `NotFound`; when the metadata fails.
    pub fn new(store: &Store, id: &Digest) -> Result<Self> {
        let custody = Custody::new(store, &format!("push {}", id.short()))?;
        let graph = store.adding();
        let image = store.images().get(id)?;
        image.layers.last().map_or(Ok(()), |top| custody.hold_layer(*top))?;
        let (config, _) = store.images().document(id)?;
        let mut layers = Vec::new();
        for chain in &image.layers {
            let record =
                store.layer(chain)?.ok_or_else(|| Error::Corrupt(format!("layer {chain} has no record")))?;
            if let Some(blob) = &record.blob {
                custody.hold(blob.digest)?;
            }
            layers.push((*chain, record));
        }
        custody.hold(*id)?;
        drop(graph);
        let known = image.manifests.into_iter().rev().find_map(|m| known(store, m, &layers));
        Ok(Self { custody, id: *id, config, layers, known, _trees: Vec::new(), absent: BTreeMap::new() })
    }

    /// Begins to send layers and packed directories, in their order, under another document than an image's, which is kept as
    /// long as this lives.
    ///
    /// # Errors
    /// `NotFound` for a layer that is not there; when the metadata fails.
    pub fn of_parts(store: &Store, config: Vec<u8>, parts: Vec<Part>, reason: &str) -> Result<Self> {
        let custody = Custody::new(store, reason)?;
        let graph = store.adding();
        let (mut layers, mut trees, mut absent) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (n, part) in parts.into_iter().enumerate() {
            let (chain, record) = match part {
                Part::Layer(chain) => {
                    custody.hold_layer(chain)?;
                    let record = store.layer(&chain)?;
                    (chain, record.ok_or_else(|| Error::NotFound(format!("layer {chain} is not there")))?)
                }
                Part::Tree(tree) => {
                    let record = tree.record.clone();
                    trees.push(tree);
                    (record.diff_id, record)
                }
                Part::Elsewhere(layer) => {
                    let blob = &layer.blob;
                    let blob =
                        BlobRecord::new(blob.digest, blob.size, blob.media_type.clone(), Origin::Registry);
                    let (diff_id, cache_id) = (layer.diff_id, String::new());
                    absent.insert(n, layer);
                    (diff_id, LayerRecord { diff_id, parent: None, cache_id, size: 0, blob: Some(blob) })
                }
            };
            if let Some(blob) = &record.blob {
                custody.hold(blob.digest)?;
            }
            layers.push((chain, record));
        }
        drop(graph);
        let id = custody.put(&config)?;
        Ok(Self { custody, id, config, layers, known: None, _trees: trees, absent })
    }

    /// The image's id, or the digest of the document in the configuration's place.
    #[must_use]
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The image's configuration, or the document in its place.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Diff ids, lowest first.
    #[must_use]
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|(_, l)| l.diff_id).collect()
    }

    /// What a layer is in a registry, as far as that is known without compressing it: asked before it is made.
    #[must_use]
    pub fn known(&self, layer: usize) -> Option<Descriptor> {
        if let Some((_, _, manifest)) = &self.known {
            return manifest.layers.get(layer).cloned();
        }
        self.layers.get(layer)?.1.blob.as_ref().map(describe)
    }

    /// Makes sure that the content store has a layer's blob, and tells what it is. `progress` gets the bytes of the layer's tar
    /// that were compressed so far.
    ///
    /// # Errors
    /// `Corrupt` when the layer is damaged; when the disk is full.
    pub fn blob(&self, layer: usize, progress: &mut dyn FnMut(u64)) -> Result<Descriptor> {
        let (chain, record) =
            self.layers.get(layer).ok_or_else(|| Error::Internal(format!("there is no layer {layer}")))?;
        let store = &self.custody.store;
        let wanted = self.known(layer);
        if let Some(wanted) = &wanted
            && store.content().exists(&wanted.digest)?
        {
            return Ok(wanted.clone());
        }
        if let Some(absent) = self.absent.get(&layer) {
            return self.fetch(absent);
        }
        let snapshot = &record.cache_id;
        if wanted.as_ref().is_some_and(|w| w.digest == record.diff_id) {
            let mut ingest = store.content().ingest()?;
            rebuild(store, snapshot, record.diff_id, &mut Counting::new(&mut ingest, progress))?;
            let size = ingest.size();
            self.custody.commit(ingest, record.diff_id)?;
            let media_type = wanted.map_or_else(|| media::OCI_LAYER.to_owned(), |w| w.media_type);
            return Ok(Descriptor::new(media_type, record.diff_id, size));
        }
        if let Some(wanted) = wanted
            && record.blob.as_ref().is_some_and(|b| b.digest == wanted.digest)
            && let Compressed::File(_) = store.compressed(record)?
        {
            return Ok(wanted);
        }
        let mut ingest = store.content().ingest()?;
        let compressor = Compressor::for_registries();
        let out = BufWriter::with_capacity(1 << 20, &mut ingest);
        let out = compressor.compress(out, |tar| {
            rebuild(store, snapshot, record.diff_id, &mut Counting::new(tar, progress)).map(drop)
        })?;
        drop(out);
        let (digest, size) = (ingest.digest(), ingest.size());
        self.custody.commit_durable(ingest, digest)?;
        let origin = Origin::Made { compressor: compressor.to_string() };
        let blob = BlobRecord::new(digest, size, media::DOCKER_LAYER_GZIP, origin);
        self.keep(chain, &blob)?;
        Ok(describe(&blob))
    }

    fn fetch(&self, absent: &Absent) -> Result<Descriptor> {
        let blob = &absent.blob;
        let mut ingest = self.custody.store.content().ingest()?;
        ingest.set_limit(blob.size);
        let mut from = (absent.fetch)().context(|| format!("fetch blob {}", blob.digest))?;
        std::io::copy(&mut from, &mut ingest).context(|| format!("fetch blob {}", blob.digest))?;
        check_announced(blob, ingest.digest(), ingest.size())?;
        self.custody.commit(ingest, blob.digest)?;
        Ok(blob.clone())
    }

    /// Keeps what was compressed here, so that the next push of the layer sends the same.
    fn keep(&self, chain: &Digest, blob: &BlobRecord) -> Result<()> {
        let store = &self.custody.store;
        let _graph = store.adding();
        let Some(mut record) = store.layer(chain)? else { return Ok(()) };
        let has = |b: &BlobRecord| store.content().exists(&b.digest);
        if record.blob.as_ref().map(has).transpose()?.unwrap_or(false) {
            return Ok(());
        }
        record.blob = Some(blob.clone());
        store.meta().commit(Batch::new().put(Table::Layers, &chain.to_string(), &record))
    }

    /// A blob's file, of this image.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn open(&self, blob: &Digest) -> Result<File> {
        self.custody.store.content().open_blob(blob)
    }

    /// The manifest over the given layers: the one that the image came with, if those are its layers. With `annotations` it
    /// is one of OCI's that has them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn manifest(
        &self,
        layers: &[Descriptor],
        annotations: Option<&BTreeMap<String, String>>,
    ) -> Result<SentManifest> {
        if let Some((record, bytes, manifest)) = &self.known
            && annotations.is_none()
            && manifest.layers.iter().map(|l| l.digest).eq(layers.iter().map(|l| l.digest))
        {
            return Ok(SentManifest {
                bytes: bytes.clone(),
                media_type: record.media_type.clone(),
                digest: record.digest,
            });
        }
        let manifest = build(&self.id, self.config.len() as u64, layers, annotations);
        let bytes =
            serde_json::to_vec(&manifest).map_err(|e| Error::Internal(format!("write manifest: {e}")))?;
        let digest = Digest::of(&bytes);
        let media_type = manifest.media_type.unwrap_or_default();
        Ok(SentManifest { bytes, media_type, digest })
    }

    /// Records that a registry knows the image by this manifest, under `name` (with a digest), and has these layers. Where it is
    /// `remembered`, the next push sends the same manifest.
    ///
    /// # Errors
    /// `NotFound` when the image was removed meanwhile.
    pub fn sent(
        &self,
        manifest: &SentManifest,
        layers: &[Descriptor],
        name: &Reference,
        remembered: bool,
    ) -> Result<()> {
        let store = &self.custody.store;
        if remembered {
            self.custody.put_durable(&manifest.bytes)?;
        }
        let _graph = store.adding();
        let mut row: ImageRow = store
            .images()
            .row(&self.id)?
            .ok_or_else(|| Error::NotFound(format!("No such image: {}", self.id)))?;
        if remembered && !row.manifests.iter().any(|m| m.digest == manifest.digest) {
            row.manifests.push(ManifestRecord {
                digest: manifest.digest,
                size: manifest.bytes.len() as u64,
                media_type: manifest.media_type.clone(),
            });
        }
        let mut batch = Batch::new().put(Table::Images, &self.id.to_string(), &row);
        let source = format!("{}/{}", name.registry(), name.repository());
        for layer in layers {
            batch = store.with_source(batch, &layer.digest, &source)?;
        }
        store.meta().commit(store.images().name(batch, name, &self.id))
    }
}

/// The media type of a layer in OCI's words.
#[must_use]
pub fn oci_type(media_type: &str) -> &str {
    match media_type {
        media::DOCKER_LAYER_GZIP => media::OCI_LAYER_GZIP,
        media::DOCKER_LAYER => media::OCI_LAYER,
        other => other,
    }
}

/// A manifest that came with the image, if it is whole and speaks of these layers.
fn known(
    store: &Store,
    record: ManifestRecord,
    layers: &[(Digest, LayerRecord)],
) -> Option<(ManifestRecord, Vec<u8>, Manifest)> {
    let bytes = store.content().read(&record.digest, MAX_CONFIG).ok()?;
    let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
    let can = |(descriptor, (_, layer)): (&Descriptor, &(Digest, LayerRecord))| {
        descriptor.digest == layer.diff_id
            || layer.blob.as_ref().is_some_and(|b| b.digest == descriptor.digest)
            || store.content().exists(&descriptor.digest).unwrap_or(false)
    };
    let whole = manifest.layers.len() == layers.len() && manifest.layers.iter().zip(layers).all(can);
    whole.then_some((record, bytes, manifest))
}

fn describe(blob: &BlobRecord) -> Descriptor {
    Descriptor::new(blob.media_type.clone(), blob.digest, blob.size)
}

/// A manifest in Docker's form, which every registry and client reads; in OCI's where a layer has a form that Docker's
/// lacks, and where it has annotations.
fn build(
    id: &Digest,
    config_size: u64,
    layers: &[Descriptor],
    annotations: Option<&BTreeMap<String, String>>,
) -> Manifest {
    let docker = |t: &str| match t {
        media::DOCKER_LAYER_GZIP | media::OCI_LAYER_GZIP => Some(media::DOCKER_LAYER_GZIP),
        media::DOCKER_LAYER | media::OCI_LAYER => Some(media::DOCKER_LAYER),
        _ => None,
    };
    let all_docker = annotations.is_none() && layers.iter().all(|l| docker(&l.media_type).is_some());
    let (own, config) = match all_docker {
        true => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
        false => (media::OCI_MANIFEST, media::OCI_CONFIG),
    };
    let layer = |l: &Descriptor| {
        let media_type = match docker(&l.media_type).filter(|_| all_docker) {
            Some(t) => t.to_owned(),
            None => oci_type(&l.media_type).to_owned(),
        };
        Descriptor::new(media_type, l.digest, l.size)
    };
    Manifest {
        schema_version: 2,
        media_type: Some(own.into()),
        artifact_type: None,
        config: Descriptor::new(config, *id, config_size),
        layers: layers.iter().map(layer).collect(),
        subject: None,
        annotations: annotations.cloned().unwrap_or_default(),
    }
}

/// Tells how many bytes have passed.
struct Counting<'a, W> {
    inner: W,
    seen: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a, W: Write> Counting<'a, W> {
    fn new(inner: W, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self { inner, seen: 0, progress }
    }
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.seen += n as u64;
        (self.progress)(self.seen);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
