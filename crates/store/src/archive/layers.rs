//! Layers that come and go without an image: those of a build cache.

use std::io::BufWriter;
use std::path::Path;

use longshore_oci::Digest;
use longshore_oci::image::Descriptor;

use super::Source;
use super::custody::Custody;
use super::import::chain_of;
use super::receive::{place, receive};
use super::staged::{Chain, check_depth};
use crate::image::{BlobRecord, LayerRecord, Origin};
use crate::layer::{Compressor, TreeKind, write_tree};
use crate::lease::Lease;
use crate::meta::Batch;
use crate::open::Store;
use crate::{Error, Result};

/// A layer that comes.
#[derive(Debug)]
pub struct Coming {
    /// Digest of its tar, which is checked.
    pub diff_id: Digest,
    /// Its blob, which is checked.
    pub blob: Descriptor,
    /// Where the bytes come from.
    pub source: Source,
}

/// A directory as a compressed archive, in the content store for as long as this lives.
#[derive(Debug)]
pub struct PackedTree {
    pub(super) record: LayerRecord,
    _custody: Custody,
}

impl PackedTree {
    /// The digest of the tar.
    #[must_use]
    pub fn diff_id(&self) -> Digest {
        self.record.diff_id
    }
}

impl Store {
    /// Packs a directory that is no layer: the same files, the same bytes.
    ///
    /// # Errors
    /// When it cannot be read; when the disk is full.
    pub fn pack_tree(&self, dir: &Path) -> Result<PackedTree> {
        let custody = Custody::new(self, "build cache")?;
        let mut ingest = self.content().ingest()?;
        let compressor = Compressor::for_registries();
        let mut written = None;
        let out = compressor.compress(BufWriter::with_capacity(1 << 20, &mut ingest), |tar| {
            written = Some(write_tree(dir, TreeKind::Plain, tar)?);
            Ok(())
        })?;
        drop(out);
        let written = written.ok_or_else(|| Error::Internal("a directory was not packed".into()))?;
        let (digest, size) = (ingest.digest(), ingest.size());
        custody.commit(ingest, digest)?;
        let origin = Origin::Made { compressor: compressor.to_string() };
        let record = LayerRecord {
            diff_id: written.diff_id,
            parent: None,
            cache_id: String::new(),
            size: written.size,
            blob: Some(BlobRecord::new(digest, size, compressor.media_type(), origin)),
        };
        Ok(PackedTree { record, _custody: custody })
    }

    /// Unpacks layers, the lowest first, on top of `below`, side by side while they arrive; the result is held by `lease`,
    /// which has to hold `below`. They are not made durable: an image that is recorded on them does that.
    ///
    /// # Errors
    /// `Corrupt` or `DigestMismatch` where bytes are not what was announced, `TooLarge` for more layers than an image may
    /// have. Nothing is left of the layers then.
    pub fn receive_layers(&self, below: Option<Digest>, layers: Vec<Coming>, lease: &Lease) -> Result<()> {
        let mut chain = Chain::on(chain_of(self, below)?);
        check_depth(chain.ids.len() + layers.len())?;
        let custody = Custody::new(self, "build cache")?;
        let order: Vec<_> = layers.iter().map(|l| (l.diff_id, l.blob.digest)).collect();
        let mut sources: Vec<(Descriptor, Source)> = Vec::new();
        for layer in layers {
            if !sources.iter().any(|(blob, _)| blob.digest == layer.blob.digest) {
                sources.push((layer.blob, layer.source));
            }
        }
        let mut arrived = receive(&custody, sources, &|_| ())?;
        let graph = self.adding();
        let placed = place(&custody, &mut chain, &order, &mut arrived).and_then(|()| {
            chain.ids.last().map_or(Ok(()), |top| lease.add_layer(*top))?;
            self.meta().commit(chain.records(Batch::new()))
        });
        if placed.is_err() {
            chain.undo(self, &graph);
        }
        placed
    }
}
