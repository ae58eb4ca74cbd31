//! Mending blobs.

use longshore_oci::Digest;
use longshore_oci::image::media;

use super::repair::Repair;
use crate::archive::Custody;
use crate::image::{BlobRecord, LayerRecord, MAX_CONFIG, Origin};
use crate::meta::{Batch, Table};
use crate::{Compressed, Error, IoContext, Result};

/// What is done about a blob.
pub(super) enum BlobRemedy {
    /// Fetch it; of a document, or of these layers.
    Fetch(BlobRecord, Vec<String>),
    /// Make it again from its layer.
    Make(LayerRecord),
    /// Note that it is missing: a repository has it.
    Drop(Vec<Digest>),
    /// Note that the layer has none.
    Forget(Vec<Digest>),
}

impl BlobRemedy {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Fetch(_, sources) => {
                format!("fetch it{}", sources.first().map(|s| format!(" from {s}")).unwrap_or_default())
            }
            Self::Make(_) => "make it again from its layer".into(),
            Self::Drop(_) => "drop it: a registry has it".into(),
            Self::Forget(_) => "forget it: the layer itself is whole, and a push compresses it anew".into(),
        }
    }
}

impl Repair<'_> {
    pub(super) fn blob_remedy(&self, blob: &Digest) -> Result<Option<BlobRemedy>> {
        let sources = self.store.sources(blob)?;
        let forms = self.store.compressed_forms()?;
        let Some(layers) = forms.get(blob) else {
            let document = BlobRecord::new(*blob, 0, media::OCI_CONFIG, Origin::Registry);
            return Ok(self.fetch.map(|_| BlobRemedy::Fetch(document, sources)));
        };
        let chains: Vec<Digest> = layers.iter().map(|(chain, _)| *chain).collect();
        let Some((_, layer)) = layers.first() else { return Ok(None) };
        let Some(record) = &layer.blob else { return Ok(None) };
        Ok(Some(match (&record.origin, self.fetch) {
            (Origin::Made { .. }, _) => BlobRemedy::Make(layer.clone()),
            (_, Some(_)) if !sources.is_empty() => BlobRemedy::Fetch(record.clone(), sources),
            _ if !sources.is_empty() => BlobRemedy::Drop(chains),
            _ => BlobRemedy::Forget(chains),
        }))
    }

    pub(super) fn blob(&self, blob: &Digest) -> Result<Option<String>> {
        let Some(remedy) = self.blob_remedy(blob)? else { return Ok(None) };
        match &remedy {
            BlobRemedy::Fetch(record, sources) => self.fetch_blob(record, sources)?,
            BlobRemedy::Make(layer) => {
                self.store.content().delete(blob)?;
                if let Compressed::Missing { .. } = self.store.compressed(layer)? {
                    return Ok(None);
                }
            }
            BlobRemedy::Drop(chains) | BlobRemedy::Forget(chains) => {
                for chain in chains {
                    if let Some(layer) = self.store.layer(chain)?
                        && !self.is_whole(chain, &layer)?
                    {
                        return Err(Error::Corrupt(format!("layer {chain} is damaged, too")));
                    }
                }
                self.forget(blob, chains, matches!(remedy, BlobRemedy::Drop(_)))?;
                self.store.content().delete(blob)?;
            }
        }
        Ok(Some(format!("done: {}", remedy.words())))
    }

    /// Notes that a compressed form is not there: to be had again, or not at all.
    fn forget(&self, blob: &Digest, chains: &[Digest], dropped: bool) -> Result<()> {
        let _graph = self.store.adding();
        let mut batch = Batch::new();
        for chain in chains {
            let Some(mut layer) = self.store.layer(chain)? else { continue };
            let Some(record) = layer.blob.as_mut().filter(|b| b.digest == *blob) else { continue };
            record.dropped = dropped;
            if !dropped {
                layer.blob = None;
            }
            batch = batch.put(Table::Layers, &chain.to_string(), &layer);
        }
        self.store.meta().commit(batch)
    }

    fn fetch_blob(&self, record: &BlobRecord, sources: &[String]) -> Result<()> {
        let fetch = self.fetch.ok_or_else(|| Error::Internal("nobody fetches".into()))?;
        let custody = Custody::new(self.store, "repair a blob")?;
        let mut ingest = self.store.content().ingest()?;
        ingest.set_limit(if record.size == 0 { MAX_CONFIG } else { record.size });
        let mut source = fetch.fetch(record, sources)?;
        std::io::copy(&mut source, &mut ingest).context(|| format!("fetch {}", record.digest))?;
        custody.commit(ingest, record.digest)
    }
}
