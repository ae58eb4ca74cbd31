//! Images as a registry gives them: layers are unpacked while they arrive, side by side; the image appears when all of
//! it was read and checked.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::sync::{Mutex, PoisonError};

use longshore_oci::image::Descriptor;
use longshore_oci::{Digest, Reference};

use super::custody::Custody;
use super::load::check_diff;
use super::staged::{Came, Chain, Staged, check_announced, check_depth};
use crate::image::{ImageRow, ManifestRecord, now, parse_document};
use crate::meta::{Batch, Table};
use crate::open::Store;
use crate::{Error, IoContext, Result};

/// What a registry says about an image. Its bytes were checked against the digests they were asked by.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The configuration; its digest becomes the image's id.
    pub config: Vec<u8>,
    /// The manifest that names it.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub media_type: String,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What the image is called from now on: names with a tag, and names with a digest.
    pub names: Vec<Reference>,
    /// The repository that it comes from, `registry/repository`.
    pub source: String,
}

impl Remote {
    /// The diff ids of the layers, lowest first.
    ///
    /// # Errors
    /// `Invalid` when the configuration is none; `Corrupt` when the manifest has another number of layers.
    pub fn diff_ids(&self) -> Result<Vec<Digest>> {
        let diff_ids = parse_document(&self.config)?.rootfs.diff_ids;
        if diff_ids.len() != self.layers.len() {
            return Err(Error::Corrupt(format!(
                "the image's configuration names {} layers, its manifest {}",
                diff_ids.len(),
                self.layers.len()
            )));
        }
        Ok(diff_ids)
    }
}

/// Where a layer's bytes come from.
pub enum Source {
    /// They arrive.
    Stream(Box<dyn Read + Send>),
    /// The content store has them ([`Reception::keeps`]).
    Kept,
    /// It is not decided yet; the answer may be waited for.
    Later(Box<dyn FnOnce() -> std::io::Result<Self> + Send>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "Stream",
            Self::Kept => "Kept",
            Self::Later(_) => "Later",
        })
    }
}

/// What happens to a layer while an image is received, by the digest of its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEvent {
    /// All its bytes came and are right; it is unpacked.
    Unpacked(Digest),
    /// It failed, and with it the image.
    Failed(Digest),
}

/// An image that is being received. What it needs stays as long as it lives; if it is dropped before it is finished,
/// nothing of the image is left.
#[derive(Debug)]
pub struct Reception {
    custody: Custody,
    /// Layers are held that nothing else may use by now.
    standing: bool,
}

impl Reception {
    /// Begins. `reason` is for people (`pull alpine`).
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn new(store: &Store, reason: &str) -> Result<Self> {
        Ok(Self { custody: Custody::new(store, reason)?, standing: false })
    }

    /// How many of an image's layers are here, from the lowest up. They stay.
    ///
    /// # Errors
    /// `TooLarge` for more layers than an image may have; when the metadata fails.
    pub fn standing(&mut self, diff_ids: &[Digest]) -> Result<usize> {
        check_depth(diff_ids.len())?;
        let store = self.custody.store.clone();
        let _graph = store.adding();
        let mut chain = Chain::default();
        for (i, diff_id) in diff_ids.iter().enumerate() {
            if !chain.reuse(&store, diff_id)? {
                return self.hold(&chain, i);
            }
        }
        self.hold(&chain, diff_ids.len())
    }

    fn hold(&mut self, chain: &Chain, count: usize) -> Result<usize> {
        self.standing = count > 0;
        chain.ids.last().map_or(Ok(()), |top| self.custody.hold_layer(*top))?;
        Ok(count)
    }

    /// Whether the content store has a blob. If so it stays; also one that comes later, by somebody else.
    ///
    /// # Errors
    /// When the metadata or the content store fails.
    pub fn keeps(&self, blob: &Digest) -> Result<bool> {
        self.custody.hold(*blob)?;
        self.custody.store.content().exists(blob)
    }

    /// Receives the layers that are missing (one source for each digest) and makes the image. Gives its id.
    ///
    /// # Errors
    /// `Corrupt` or `DigestMismatch` where bytes are not what was announced, `Invalid` where manifest and configuration
    /// contradict each other; the first failure in time. Nothing is left of the image then.
    pub fn finish(
        mut self,
        image: &Remote,
        sources: Vec<(Descriptor, Source)>,
        progress: &(dyn Fn(ReceiveEvent) + Sync),
    ) -> Result<Digest> {
        let diff_ids = image.diff_ids()?;
        check_depth(diff_ids.len())?;
        let mut arrived = receive(&self.custody, sources, progress)?;
        // The bulk of it; what is written below is little, and others wait for it.
        self.custody.store.durable()?;
        let id = add(&self.custody, image, &diff_ids, &mut arrived)?;
        drop(arrived);
        self.standing = false;
        Ok(id)
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        if !self.standing {
            return;
        }
        // What was held may have lost its image meanwhile.
        let store = self.custody.store.clone();
        self.custody.release();
        let gone = store.collect_layers(&store.collecting()).and_then(|unused| store.discard(&unused));
        if let Err(e) = gone {
            tracing::warn!(error = %e, "layers that nothing uses were not removed; they go with the next image");
        }
    }
}

/// A layer that came.
#[derive(Debug)]
pub(super) enum Arrived<'a> {
    /// It is unpacked.
    Staged(Staged<'a>),
    /// It lies in the content store, where the driver needs the parent first.
    Kept(Descriptor),
}

/// Takes in all layers at once, a thread for each: how many of them come at a time is for the sources to say.
pub(super) fn receive<'a>(
    custody: &'a Custody,
    sources: Vec<(Descriptor, Source)>,
    progress: &(dyn Fn(ReceiveEvent) + Sync),
) -> Result<BTreeMap<Digest, Arrived<'a>>> {
    let failure: Mutex<Option<Error>> = Mutex::default();
    let arrived = std::thread::scope(|scope| {
        let threads: Vec<_> = sources
            .into_iter()
            .map(|(descriptor, source)| {
                let failure = &failure;
                scope.spawn(move || {
                    let digest = descriptor.digest;
                    match receive_one(custody, descriptor, source) {
                        Ok(arrived) => {
                            progress(ReceiveEvent::Unpacked(digest));
                            Some((digest, arrived))
                        }
                        Err(e) => {
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                            progress(ReceiveEvent::Failed(digest));
                            None
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let arrived: Result<Vec<_>, _> = arrived.into_iter().collect();
    if let Some(e) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(e);
    }
    let arrived = arrived.map_err(|_| Error::Internal("a thread that receives a layer panicked".into()))?;
    Ok(arrived.into_iter().flatten().collect())
}

fn receive_one(custody: &Custody, descriptor: Descriptor, source: Source) -> Result<Arrived<'_>> {
    let stages = custody.store.driver().stages();
    match source {
        Source::Stream(mut stream) if stages => {
            let start = peek(&mut stream)?;
            let whole = std::io::Cursor::new(start.clone()).chain(stream);
            Staged::unpack(custody, &start, &Came::Announced(&descriptor), whole).map(Arrived::Staged)
        }
        Source::Stream(mut stream) => {
            let mut ingest = custody.store.content().ingest()?;
            ingest.set_limit(descriptor.size);
            std::io::copy(&mut stream, &mut ingest).context(|| format!("keep blob {}", descriptor.digest))?;
            check_announced(&descriptor, descriptor.digest, ingest.size())?;
            custody.commit(ingest, descriptor.digest)?;
            Ok(Arrived::Kept(descriptor))
        }
        Source::Kept if stages => {
            let (start, file) = open_kept(custody, &descriptor)?;
            Staged::unpack(custody, &start, &Came::Kept(&descriptor), file).map(Arrived::Staged)
        }
        Source::Kept => Ok(Arrived::Kept(descriptor)),
        Source::Later(decide) => {
            let source = decide().context(|| format!("read blob {}", descriptor.digest))?;
            receive_one(custody, descriptor, source)
        }
    }
}

/// A blob's file at its start, and its first bytes.
fn open_kept(custody: &Custody, descriptor: &Descriptor) -> Result<(Vec<u8>, std::fs::File)> {
    let mut file = custody.store.content().open_blob(&descriptor.digest)?;
    let start = peek(&mut file)?;
    file.rewind().context(|| format!("read blob {}", descriptor.digest))?;
    Ok((start, file))
}

/// The first bytes, by which a layer's compression is known.
fn peek(source: &mut impl Read) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    source.take(6).read_to_end(&mut start).context(|| "read layer")?;
    Ok(start)
}

/// Puts the layers on top of each other and records the image.
fn add<'a>(
    custody: &'a Custody,
    image: &Remote,
    diff_ids: &[Digest],
    arrived: &mut BTreeMap<Digest, Arrived<'a>>,
) -> Result<Digest> {
    let store = &custody.store;
    let id = Digest::of(&image.config);
    let graph = store.adding();
    let mut chain = Chain::default();
    let placed = (|| {
        let layers: Vec<_> = diff_ids.iter().copied().zip(image.layers.iter().map(|l| l.digest)).collect();
        place(custody, &mut chain, &layers, arrived)?;
        custody.put(&image.config)?;
        let manifest = ManifestRecord {
            digest: custody.put(&image.manifest)?,
            size: image.manifest.len() as u64,
            media_type: image.media_type.clone(),
        };
        store.durable()?;
        let mut row = store.images().row(&id)?.unwrap_or_default();
        row = ImageRow { layers: chain.ids.clone(), ..row };
        if !row.manifests.iter().any(|m| m.digest == manifest.digest) {
            row.manifests.push(manifest);
        }
        let mut batch = chain.records(Batch::new()).put(Table::Used, &id.to_string(), &now());
        for layer in &image.layers {
            batch = store.with_source(batch, &layer.digest, &image.source)?;
        }
        for name in &image.names {
            // What is known of it for other platforms is still true.
            let same = store.images().lookup(name)? == Some(id);
            batch = if same { batch } else { store.images().name(batch, name, &id) };
        }
        store.meta().commit(batch.put(Table::Images, &id.to_string(), &row))?;
        Ok(id)
    })();
    if placed.is_err() {
        chain.undo(store, &graph);
    }
    placed
}

/// Puts layers, each by its diff id and the digest of its blob, on top of a chain; what is there already is taken.
pub(super) fn place<'a>(
    custody: &'a Custody,
    chain: &mut Chain,
    layers: &[(Digest, Digest)],
    arrived: &mut BTreeMap<Digest, Arrived<'a>>,
) -> Result<()> {
    let store = &custody.store;
    for (i, (diff_id, blob)) in layers.iter().enumerate() {
        if chain.reuse(store, diff_id)? {
            continue;
        }
        let name = blob.to_string();
        let more = layers[i + 1..].iter().any(|(_, other)| other == blob);
        match arrived.remove(blob) {
            Some(Arrived::Staged(staged)) => {
                check_diff(&name, diff_id, &staged.diff_id)?;
                let mut slot = Some(staged);
                chain.place(store, &mut slot, more)?;
                if let Some(copy) = slot {
                    arrived.insert(*blob, Arrived::Staged(copy));
                }
            }
            Some(Arrived::Kept(kept)) => {
                let parent = chain.parent_snapshot(store)?;
                let (start, file) = open_kept(custody, &kept)?;
                let came = Came::Kept(&kept);
                let staged = Staged::unpack_on(custody, parent.as_deref(), &start, &came, file)?;
                check_diff(&name, diff_id, &staged.diff_id)?;
                chain.push(store, staged)?;
                if more {
                    arrived.insert(*blob, Arrived::Kept(kept));
                }
            }
            // It was here when this was begun, and somebody removed it by force.
            None => return Err(Error::Unavailable(format!("layer {name} is gone: try again"))),
        }
    }
    Ok(())
}
