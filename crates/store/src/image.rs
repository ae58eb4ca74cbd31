//! Images: a configuration blob, the chain of its layers, and the names that point to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use longshore_oci::image::ImageDocument;
use longshore_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::meta::{Batch, Table};
use crate::open::{Store, Unused};
use crate::{Error, Result};

/// Bytes that an image's configuration may have.
pub const MAX_CONFIG: u64 = 4 << 20;

/// A layer on its parents, stored under its chain id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Chain id of the layer below.
    pub parent: Option<Digest>,
    /// Its snapshot.
    pub cache_id: String,
    /// Bytes of its files.
    pub size: u64,
    /// The compressed form that it came in, kept in the content store.
    pub blob: Option<BlobRecord>,
}

/// A compressed layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BlobRecord {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
    #[serde(default)]
    pub origin: Origin,
    /// It was dropped on purpose: it may be missing, and was proven to come back.
    #[serde(default)]
    pub dropped: bool,
}

impl BlobRecord {
    /// One that is in the content store.
    pub fn new(digest: Digest, size: u64, media_type: impl Into<String>, origin: Origin) -> Self {
        Self { digest, size, media_type: media_type.into(), origin, dropped: false }
    }
}

/// Where a compressed layer came from, and so who could give it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A file: nobody, unless it was proven otherwise.
    #[default]
    File,
    /// A registry; [`Store::sources`] says which repositories.
    Registry,
    /// Compressed here, or found to be as if it were.
    Made {
        /// A [`crate::layer::Compressor`] as text.
        compressor: String,
    },
}

/// A manifest that names an image; its bytes are kept in the content store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ManifestRecord {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
}

/// An image's row; stored under its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRow {
    pub(crate) parent: Option<Digest>,
    /// Chain ids, lowest first.
    pub(crate) layers: Vec<Digest>,
    /// Nanoseconds since 1970; 0: never tagged here.
    pub(crate) last_tagged: i64,
    /// As registries have it.
    #[serde(default)]
    pub(crate) manifests: Vec<ManifestRecord>,
}

/// An image with its names.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    /// Digest of the configuration.
    pub id: Digest,
    /// The image that it was committed or built from here.
    pub parent: Option<Digest>,
    /// Chain ids, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of all layers.
    pub size: u64,
    /// Names with a tag.
    pub tags: Vec<Reference>,
    /// Names with a digest.
    pub digests: Vec<Reference>,
    /// Names that stand for it on another platform than this machine's only.
    pub elsewhere: Vec<Reference>,
    /// Nanoseconds since 1970; 0: never tagged here.
    pub last_tagged: i64,
    /// The manifests by which registries know it.
    pub manifests: Vec<ManifestRecord>,
    /// When it was last loaded, pulled, tagged, or a container was made from it. Nanoseconds since 1970; 0: never, as far
    /// as is known.
    pub last_used: i64,
}

/// One line of an image's history, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// The step, as the document tells it.
    pub step: longshore_oci::image::History,
    /// Bytes of its layer; 0 for an empty one.
    pub size: u64,
    /// The image that this step made, where it is known here.
    pub image: Option<Digest>,
}

/// The images of a store.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    pub(crate) store: &'a Store,
}

impl<'a> Images<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// All images, in no order.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn list(self) -> Result<Vec<ImageRecord>> {
        let sizes = self.layer_sizes()?;
        let mut names: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for (reference, id) in self.references()? {
            names.entry(id).or_default().push(reference);
        }
        let mut elsewhere = self.elsewhere()?;
        let used: BTreeMap<String, i64> = self.store.meta().list(Table::Used)?.into_iter().collect();
        let rows = self.store.meta().list::<ImageRow>(Table::Images)?;
        rows.into_iter()
            .map(|(key, row)| {
                let id = parse_id(&key)?;
                let used = used.get(&key).copied();
                let mut record = record(id, row, used, names.remove(&id).unwrap_or_default(), &sizes);
                record.elsewhere = elsewhere.remove(&id).unwrap_or_default();
                Ok(record)
            })
            .collect()
    }

    /// The image with exactly this id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(self, id: &Digest) -> Result<ImageRecord> {
        let row = self.row(id)?.ok_or_else(|| Error::NotFound(format!("No such image: {id}")))?;
        let names = self.references()?.into_iter().filter(|(_, i)| i == id).map(|(r, _)| r).collect();
        let used = self.store.meta().get(Table::Used, &id.to_string())?;
        let mut record = record(*id, row, used, names, &self.layer_sizes()?);
        record.elsewhere = self.elsewhere()?.remove(id).unwrap_or_default();
        Ok(record)
    }

    pub(crate) fn row(self, id: &Digest) -> Result<Option<ImageRow>> {
        self.store.meta().get(Table::Images, &id.to_string())
    }

    /// Finds an image by name (`:latest` where neither tag nor digest is given), by id, or by a unique start of its id.
    ///
    /// # Errors
    /// `NotFound` in Docker's words, `Invalid` for a text that is no reference, `Conflict` for an ambiguous start.
    pub fn resolve(self, text: &str) -> Result<ImageRecord> {
        if let Ok(id) = text.parse::<Digest>().or_else(|_| Digest::from_hex(text)) {
            return self.get(&id).map_err(|_| Error::NotFound(format!("No such image: {text}")));
        }
        let reference = text.parse::<Reference>().map(Reference::or_latest);
        if let Ok(reference) = &reference
            && let Some(id) = self.lookup(reference)?
        {
            return self.get(&id);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if (1..64).contains(&prefix.len())
            && prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            let keys = self.store.meta().keys(Table::Images)?;
            let mut found =
                keys.iter().filter(|k| k.strip_prefix("sha256:").is_some_and(|h| h.starts_with(prefix)));
            match (found.next(), found.next()) {
                (Some(key), None) => return self.get(&parse_id(key)?),
                (Some(_), Some(_)) => {
                    return Err(Error::Conflict(format!("image id {text} is ambiguous: give more digits")));
                }
                _ => {}
            }
        }
        match reference {
            Ok(r) => Err(Error::NotFound(format!("No such image: {}", r.familiar()))),
            Err(e) => Err(Error::Invalid(e.to_string())),
        }
    }

    /// The image that a full reference points to.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn lookup(self, reference: &Reference) -> Result<Option<Digest>> {
        let exact = |r: &Reference| self.store.meta().get::<Digest>(Table::Tags, &r.to_string());
        if let Some(id) = exact(reference)? {
            return Ok(Some(id));
        }
        // With both, the digest alone decides.
        match (reference.tag(), reference.digest()) {
            (Some(_), Some(digest)) => exact(&reference.clone().with_digest(*digest)),
            _ => Ok(None),
        }
    }

    /// The configuration as stored, and read.
    ///
    /// # Errors
    /// `NotFound`, or `Corrupt` when the blob is damaged.
    pub fn document(self, id: &Digest) -> Result<(Vec<u8>, ImageDocument)> {
        let raw = self.store.content().read(id, MAX_CONFIG).map_err(|e| match e {
            Error::NotFound(_) => Error::NotFound(format!("No such image: {id}")),
            other => other,
        })?;
        let document = parse_document(&raw)?;
        Ok((raw, document))
    }

    /// The steps that made an image, newest first.
    ///
    /// # Errors
    /// When the image or a layer is not there.
    pub fn history(self, id: &Digest) -> Result<Vec<HistoryRow>> {
        let image = self.get(id)?;
        let (_, document) = self.document(id)?;
        let sizes = self.layer_sizes()?;
        let mut layers = image.layers.iter();
        let mut rows: Vec<HistoryRow> = document
            .history
            .into_iter()
            .map(|step| {
                let layer = if step.empty_layer { None } else { layers.next() };
                HistoryRow { size: layer.and_then(|l| sizes.get(l)).copied().unwrap_or(0), step, image: None }
            })
            .collect();
        // Layers that no step tells of.
        for layer in layers {
            let size = sizes.get(layer).copied().unwrap_or(0);
            rows.push(HistoryRow { step: longshore_oci::image::History::default(), size, image: None });
        }
        rows.reverse();
        // Of the images that this one was made from here, each is known by the number of its own steps.
        let mut known = Some(*id);
        let mut guard = 0;
        while let Some(image) = known
            && guard < 1000
        {
            guard += 1;
            let Ok((_, doc)) = self.document(&image) else { break };
            let steps = doc.history.len();
            if steps <= rows.len()
                && let Some(row) = rows.len().checked_sub(steps).and_then(|i| rows.get_mut(i))
            {
                row.image.get_or_insert(image);
            }
            known = self.row(&image)?.and_then(|r| r.parent);
        }
        Ok(rows)
    }

    /// Points `reference` to an image; whatever it pointed to before keeps its other names.
    ///
    /// # Errors
    /// `NotFound` when there is no such image.
    pub fn tag(self, id: &Digest, reference: &Reference) -> Result<()> {
        let _graph = self.store.adding();
        let mut row = self.row(id)?.ok_or_else(|| Error::NotFound(format!("No such image: {id}")))?;
        row.last_tagged = now();
        let batch = Batch::new().put(Table::Images, &id.to_string(), &row);
        self.store.meta().commit(self.name(batch, reference, id))
    }

    /// Takes a name away; gives the image that it pointed to.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn untag(self, reference: &Reference) -> Result<Option<Digest>> {
        let _graph = self.store.adding();
        let key = reference.to_string();
        let id = self.store.meta().get::<Digest>(Table::Tags, &key)?;
        if id.is_some() {
            let batch = Batch::new().delete(Table::Tags, &key).delete(Table::Indexes, &key);
            self.store.meta().commit(batch)?;
        }
        Ok(id)
    }

    /// Removes an image, its names, and the layers that nothing else uses. Gives the chain ids of the layers removed,
    /// the topmost first. Whether the image may be removed is the caller's business.
    ///
    /// # Errors
    /// `NotFound`; a failure to remove files is repaired at the next start.
    pub fn remove(self, id: &Digest) -> Result<Vec<Digest>> {
        let unused = self.forget(id)?;
        self.store.discard(&unused)?;
        Ok(unused.chains)
    }

    /// The same; also gives the bytes of the disk that this freed, which costs a look at every file.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn remove_counting(self, id: &Digest) -> Result<(Vec<Digest>, u64)> {
        let unused = self.forget(id)?;
        let freed = self.store.discard_counting(&unused)?;
        Ok((unused.chains, freed))
    }

    /// Takes the records away.
    fn forget(self, id: &Digest) -> Result<Unused> {
        let graph = self.store.collecting();
        let row = self.row(id)?.ok_or_else(|| Error::NotFound(format!("No such image: {id}")))?;
        let key = id.to_string();
        let batch = Batch::new().delete(Table::Images, &key).delete(Table::Used, &key);
        let mut batch = self.out_of_indexes(batch, id)?;
        for (reference, target) in self.references()? {
            if target == *id {
                batch = batch.delete(Table::Tags, &reference.to_string());
            }
        }
        self.store.meta().commit(batch)?;
        let mut unused = self.store.collect_layers(&graph)?;
        drop(graph);
        unused.blobs.push(*id);
        unused.blobs.extend(row.manifests.iter().map(|m| m.digest));
        Ok(unused)
    }

    /// All names and what they point to.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn references(self) -> Result<Vec<(Reference, Digest)>> {
        let rows = self.store.meta().list::<Digest>(Table::Tags)?;
        Ok(rows.into_iter().filter_map(|(key, id)| Some((key.parse().ok()?, id))).collect())
    }

    fn layer_sizes(self) -> Result<BTreeMap<Digest, u64>> {
        let rows = self.store.meta().list::<LayerRecord>(Table::Layers)?;
        rows.into_iter().map(|(key, layer)| Ok((parse_id(&key)?, layer.size))).collect()
    }
}

fn record(
    id: Digest,
    row: ImageRow,
    used: Option<i64>,
    names: Vec<Reference>,
    sizes: &BTreeMap<Digest, u64>,
) -> ImageRecord {
    let (tags, digests) = names.into_iter().partition(|r| r.digest().is_none());
    // A layer that stands twice in a chain is two layers with two chain ids.
    let size = row.layers.iter().collect::<BTreeSet<_>>().into_iter().filter_map(|l| sizes.get(l)).sum();
    ImageRecord {
        id,
        parent: row.parent,
        layers: row.layers,
        size,
        tags,
        digests,
        elsewhere: Vec::new(),
        last_tagged: row.last_tagged,
        manifests: row.manifests,
        last_used: used.unwrap_or(0).max(row.last_tagged),
    }
}

/// Reads an image's configuration and checks what the store relies on.
pub(crate) fn parse_document(raw: &[u8]) -> Result<ImageDocument> {
    let document: ImageDocument = serde_json::from_slice(raw)
        .map_err(|e| Error::Invalid(format!("image configuration is not valid: {e}")))?;
    if document.rootfs.kind != "layers" {
        return Err(Error::Invalid(format!(
            "image configuration has rootfs type {:?}, not \"layers\"",
            document.rootfs.kind
        )));
    }
    let layers = document.history.iter().filter(|h| !h.empty_layer).count();
    if layers > document.rootfs.diff_ids.len() {
        return Err(Error::Invalid(format!(
            "image configuration tells of {layers} layers in its history but names {}",
            document.rootfs.diff_ids.len()
        )));
    }
    Ok(document)
}

pub(crate) fn parse_id(key: &str) -> Result<Digest> {
    key.parse().map_err(|e| Error::Corrupt(format!("metadata: {e}")))
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
