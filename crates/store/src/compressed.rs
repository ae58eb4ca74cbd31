//! Compressed forms of layers: kept for a push, dropped to save space, made again from the layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;

use longshore_oci::Digest;

use crate::archive::{Custody, rebuild};
use crate::image::{BlobRecord, LayerRecord, Origin, parse_id};
use crate::layer::Compressor;
use crate::layer::recompress::{Same, candidates};
use crate::meta::{Batch, Table};
use crate::open::Store;
use crate::{Error, Result, lease};

/// Sources of one blob that are remembered, the newest first.
const MAX_SOURCES: usize = 16;
/// Bytes of a source's name, at most.
const MAX_SOURCE: usize = 512;

/// A layer's compressed form.
#[derive(Debug)]
pub enum Compressed {
    /// The blob; it is not checked (see [`crate::content::VerifiedReader`]).
    File(File),
    /// It was dropped and cannot be made here; these repositories (`registry/repository`) had it, the newest first.
    Missing {
        #[allow(missing_docs)]
        sources: Vec<String>,
    },
}

/// Which compressed forms are dropped.
#[derive(Clone, Debug, Default)]
pub struct DropPolicy {
    /// Try to prove of those that came from files that they can be made again, which costs compressing them.
    pub prove: bool,
    /// Only these; `None`: all.
    pub only: Option<BTreeSet<Digest>>,
}

/// What was dropped.
#[derive(Clone, Debug, Default)]
pub struct CompressedDropped {
    /// With the bytes of the disk that each freed.
    pub dropped: Vec<(Digest, u64)>,
    /// With the reason.
    pub kept: Vec<(Digest, String)>,
}

impl CompressedDropped {
    /// Bytes of the disk that this freed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.dropped.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Whether a compressed form may be dropped, before anything is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may; the text says why.
    Free(&'static str),
    /// Once it was made again, to the byte.
    AfterProof(Compressor),
    /// Perhaps: which of our compressors made it is not known.
    Unknown,
    /// Not now; the text says why.
    Kept(&'static str),
}

impl Store {
    /// Remembers that a repository (`registry/repository`) has a blob, so that it may be dropped and fetched again.
    ///
    /// # Errors
    /// `Invalid` for a name that is none; when the metadata cannot be written.
    pub fn add_source(&self, blob: &Digest, source: &str) -> Result<()> {
        if source.is_empty() || source.len() > MAX_SOURCE || source.contains(char::is_whitespace) {
            return Err(Error::Invalid(format!("{source:?} is no registry/repository")));
        }
        let _graph = self.adding();
        self.meta().commit(self.with_source(Batch::new(), blob, source)?)
    }

    /// The same as a part of other changes; the graph is held.
    pub(crate) fn with_source(&self, batch: Batch, blob: &Digest, source: &str) -> Result<Batch> {
        let mut all = self.sources(blob)?;
        if all.first().is_some_and(|first| first == source) {
            return Ok(batch);
        }
        all.retain(|other| other != source);
        all.insert(0, source.to_owned());
        all.truncate(MAX_SOURCES);
        Ok(batch.put(Table::Sources, &blob.to_string(), &all))
    }

    /// The repositories that had a blob, the newest first.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn sources(&self, blob: &Digest) -> Result<Vec<String>> {
        Ok(self.meta().get(Table::Sources, &blob.to_string())?.unwrap_or_default())
    }

    /// Opens a layer's compressed form. One that was dropped is made again where that is possible.
    ///
    /// # Errors
    /// `NotFound` for a layer that has none; `Corrupt` when the layer was altered or the library compresses otherwise
    /// than it did.
    pub fn compressed(&self, layer: &LayerRecord) -> Result<Compressed> {
        let blob = layer
            .blob
            .as_ref()
            .ok_or_else(|| Error::NotFound(format!("layer {} has no compressed form", layer.diff_id)))?;
        match self.content().open_blob(&blob.digest) {
            Ok(file) => return Ok(Compressed::File(file)),
            Err(Error::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        let Origin::Made { compressor } = &blob.origin else {
            return Ok(Compressed::Missing { sources: self.sources(&blob.digest)? });
        };
        let custody = Custody::new(self, "compress a layer")?;
        let mut ingest = self.content().ingest()?;
        compressor.parse::<Compressor>()?.compress(&mut ingest, |out| self.write_tar(layer, out))?;
        custody.commit_durable(ingest, blob.digest).map_err(|e| match e {
            Error::DigestMismatch { expected, actual, .. } => Error::Corrupt(format!(
                "the compressed form {expected} of layer {} cannot be made again with {compressor:?}: it becomes {actual}",
                layer.diff_id
            )),
            other => other,
        })?;
        self.content().open_blob(&blob.digest).map(Compressed::File)
    }

    /// Compresses a layer that has no compressed form, and keeps the result.
    ///
    /// # Errors
    /// `NotFound` when there is no such layer, `Conflict` when it has a compressed form.
    pub fn compress_layer(&self, chain: &Digest, compressor: &Compressor) -> Result<BlobRecord> {
        let layer = self.layer_record(chain)?;
        let taken = |layer: &LayerRecord| match &layer.blob {
            Some(blob) => {
                Err(Error::Conflict(format!("layer {chain} has the compressed form {} already", blob.digest)))
            }
            None => Ok(()),
        };
        taken(&layer)?;
        let custody = Custody::new(self, "compress a layer")?;
        let mut ingest = self.content().ingest()?;
        compressor.compress(&mut ingest, |out| self.write_tar(&layer, out))?;
        let (digest, size) = (ingest.digest(), ingest.size());
        custody.commit_durable(ingest, digest)?;
        let origin = Origin::Made { compressor: compressor.to_string() };
        let blob = BlobRecord::new(digest, size, compressor.media_type(), origin);
        let _graph = self.adding();
        let mut layer = self.layer_record(chain)?;
        taken(&layer)?;
        layer.blob = Some(blob.clone());
        self.meta().commit(Batch::new().put(Table::Layers, &chain.to_string(), &layer))?;
        Ok(blob)
    }

    fn layer_record(&self, chain: &Digest) -> Result<LayerRecord> {
        self.layer(chain)?.ok_or_else(|| Error::NotFound(format!("no layer {chain}")))
    }

    fn write_tar(&self, layer: &LayerRecord, mut out: &mut dyn Write) -> Result<()> {
        rebuild(self, &layer.cache_id, layer.diff_id, &mut out)
    }

    /// Drops the compressed forms that a source can give again, or that were proven to be made again to the byte.
    ///
    /// # Errors
    /// When the metadata cannot be read or written; a form of which something is wrong is kept.
    pub fn drop_compressed(&self, policy: &DropPolicy) -> Result<CompressedDropped> {
        let mut done = CompressedDropped::default();
        for (digest, layers) in self.compressed_forms()? {
            if policy.only.as_ref().is_some_and(|only| !only.contains(&digest))
                || !self.content().exists(&digest)?
            {
                continue;
            }
            match self.drop_form(&digest, &layers, policy.prove)? {
                Ok(bytes) => done.dropped.push((digest, bytes)),
                Err(why) => done.kept.push((digest, why)),
            }
        }
        Ok(done)
    }

    /// The layers that each compressed form is of, by its digest.
    pub(crate) fn compressed_forms(&self) -> Result<BTreeMap<Digest, Vec<(Digest, LayerRecord)>>> {
        let mut forms: BTreeMap<Digest, Vec<(Digest, LayerRecord)>> = BTreeMap::new();
        for (chain, layer) in self.meta().list::<LayerRecord>(Table::Layers)? {
            if let Some(blob) = &layer.blob {
                forms.entry(blob.digest).or_default().push((parse_id(&chain)?, layer));
            }
        }
        Ok(forms)
    }

    /// Whether a form may be dropped.
    pub(crate) fn standing_of(&self, blob: &BlobRecord) -> Result<Standing> {
        if lease::held(self.meta())?.blobs.contains(&blob.digest) {
            return Ok(Standing::Kept("in use"));
        }
        if !self.sources(&blob.digest)?.is_empty() {
            return Ok(Standing::Free("a registry has it"));
        }
        Ok(match &blob.origin {
            Origin::Made { compressor } => match compressor.parse() {
                Ok(_) if blob.dropped => Standing::Free("it can be made again"),
                Ok(compressor) => Standing::AfterProof(compressor),
                Err(_) => Standing::Kept("made by a compressor that this version does not know"),
            },
            Origin::Registry => Standing::Kept("the registry that had it is not known any more"),
            Origin::File => Standing::Unknown,
        })
    }

    /// Drops one form, or says why not.
    fn drop_form(
        &self,
        digest: &Digest,
        layers: &[(Digest, LayerRecord)],
        prove: bool,
    ) -> Result<std::result::Result<u64, String>> {
        let Some((layer, blob)) = layers.first().and_then(|(_, l)| Some((l, l.blob.as_ref()?))) else {
            return Ok(Err("not used".into()));
        };
        let origin = match self.standing_of(blob)? {
            Standing::Free(_) => blob.origin.clone(),
            Standing::Kept(why) => return Ok(Err(why.into())),
            Standing::Unknown if !prove => {
                return Ok(Err("it came from a file, and nothing was proven of it".into()));
            }
            standing => match self.prove(layer, digest, &standing) {
                Ok(Some(compressor)) => Origin::Made { compressor: compressor.to_string() },
                Ok(None) => return Ok(Err("nothing here makes the same bytes again".into())),
                Err(e) => return Ok(Err(format!("cannot be made again: {e}"))),
            },
        };
        let _graph = self.adding();
        let mut batch = Batch::new();
        for (chain, _) in layers {
            // What went meanwhile, went with its form.
            let Some(mut layer) = self.layer(chain)? else { continue };
            let Some(blob) = layer.blob.as_mut().filter(|b| b.digest == *digest) else { continue };
            (blob.origin, blob.dropped) = (origin.clone(), true);
            batch = batch.put(Table::Layers, &chain.to_string(), &layer);
        }
        // The record first: from then on the blob may be missing.
        self.meta().commit(batch)?;
        Ok(self.delete_unheld(digest)?.ok_or_else(|| "in use".to_owned()))
    }

    /// Makes a form again and compares; the compressor that gives the same bytes.
    fn prove(&self, layer: &LayerRecord, digest: &Digest, standing: &Standing) -> Result<Option<Compressor>> {
        let blob = self.content().open_blob(digest)?;
        let tried = match standing {
            Standing::AfterProof(compressor) => vec![compressor.clone()],
            _ => candidates(&blob)?,
        };
        for compressor in tried {
            let mut same = Same::new(&blob);
            let made = compressor.compress(&mut same, |out| self.write_tar(layer, out)).map(drop);
            if same.is_whole()? {
                made?;
                // The file is what it is named after.
                std::io::copy(&mut self.content().reader(digest)?, &mut std::io::sink())
                    .map_err(|e| Error::io("read blob", e))?;
                return Ok(Some(compressor));
            }
            if let Err(e @ (Error::Corrupt(_) | Error::DigestMismatch { .. })) = made {
                return Err(e);
            }
        }
        Ok(None)
    }
}
