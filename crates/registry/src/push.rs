//! Pushing: what the registry has is not sent again; layers go side by side; the manifest goes last.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use longshore_oci::image::{Descriptor, media};
use longshore_oci::{Digest, Reference};
use longshore_store::archive::{Dispatch, SentManifest, index_of};
use longshore_store::{NamedIndex, Store};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::arrival::Pace;
use crate::pull::blocking;
use crate::{Error, ManifestRef, Repository, Result};

/// What becomes of a layer, by its diff id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushStep {
    /// It is looked at.
    Preparing,
    /// It waits for others.
    Waiting,
    /// So many bytes of its tar were compressed.
    Compressing(u64),
    /// So many bytes of so many were sent.
    Pushing(u64, u64),
    /// All were.
    Pushed,
    /// The registry had it.
    Exists,
    /// The registry took it from this repository of its own.
    Mounted(String),
}

/// Told about each layer as a push goes on.
pub type PushProgress = dyn Fn(&Digest, PushStep) + Send + Sync;

/// Repositories that may have a blob, by its digest: `registry/repository`.
pub type Origins = dyn Fn(&Digest) -> Vec<String> + Send + Sync;

/// How an image's manifest is put.
#[derive(Clone, Copy, Debug, Default)]
pub struct Put<'a> {
    /// Under which tag; `None`: under its digest only.
    pub tag: Option<&'a str>,
    /// It is one of OCI's with these annotations; `None`: as the image came, or in Docker's form.
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
}

/// Pushes images out of a store. Cheap to clone; all clones share the limit.
#[derive(Clone, Debug)]
pub struct Pusher {
    store: Store,
    uploads: Arc<Semaphore>,
}

impl Pusher {
    /// A pusher that sends at most `uploads` layers at once.
    #[must_use]
    pub fn new(store: Store, uploads: usize) -> Self {
        Self { store, uploads: Arc::new(Semaphore::new(uploads.max(1))) }
    }

    /// Sends an image and puts it there as `put` says. It is known by the manifest's digest afterwards.
    ///
    /// # Errors
    /// When a layer cannot be read or sent. Dropping the future gives the push up; what the registry got stays there
    /// without a name.
    pub async fn push(
        &self,
        id: Digest,
        repository: &Repository,
        put: Put<'_>,
        origins: Arc<Origins>,
        progress: Arc<PushProgress>,
    ) -> Result<Pushed> {
        let store = self.store.clone();
        let dispatch = Arc::new(blocking(move || Ok(Dispatch::new(&store, &id)?)).await?);
        let manifest = |layers: &[Descriptor]| Ok(dispatch.manifest(layers, put.annotations)?);
        let (sent, descriptors) =
            self.send(&dispatch, repository, put.tag, origins, progress, manifest).await?;
        let (digest, size) = (sent.digest, sent.bytes.len() as u64);
        let name: Reference = repository.name().clone().with_digest(digest);
        // Annotations are of a name, and not of the image.
        let remembered = put.annotations.is_none();
        blocking(move || Ok(dispatch.sent(&sent, &descriptors, &name, remembered)?)).await?;
        Ok(Pushed { digest, size })
    }

    /// Sends layers with another document than an image's, under the manifest that `manifest` makes of what the layers are
    /// there, and names that `tag`.
    ///
    /// # Errors
    /// As [`Pusher::push`].
    pub async fn push_layers(
        &self,
        dispatch: Arc<Dispatch>,
        repository: &Repository,
        tag: &str,
        origins: Arc<Origins>,
        progress: Arc<PushProgress>,
        manifest: impl FnOnce(&[Descriptor]) -> Result<SentManifest>,
    ) -> Result<Pushed> {
        let (sent, descriptors) =
            self.send(&dispatch, repository, Some(tag), origins, progress, manifest).await?;
        let source = format!("{}/{}", repository.name().registry(), repository.name().repository());
        let store = self.store.clone();
        blocking(move || {
            Ok(descriptors.iter().try_for_each(|layer| store.add_source(&layer.digest, &source))?)
        })
        .await?;
        drop(dispatch);
        Ok(Pushed { digest: sent.digest, size: sent.bytes.len() as u64 })
    }

    /// Names `tag` an index of manifests that are there, those of the images of `index` in its order. The image that the
    /// index stands for is known by the index's digest afterwards.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn push_index(
        &self,
        index: &NamedIndex,
        manifests: &[Pushed],
        repository: &Repository,
        tag: &str,
    ) -> Result<Pushed> {
        let known: Vec<_> = manifests.iter().map(|m| (m.digest, m.size)).collect();
        let bytes = serde_json::to_vec(&index_of(index, &known))
            .map_err(|e| Error::Internal(format!("write an index: {e}")))?;
        let sent =
            SentManifest { digest: Digest::of(&bytes), bytes, media_type: media::OCI_INDEX.to_owned() };
        put(repository, Some(tag), &sent).await?;
        let name = repository.name().clone().with_digest(sent.digest);
        let (store, of) = (self.store.clone(), index.of);
        blocking(move || Ok(store.images().tag(&of, &name)?)).await?;
        Ok(Pushed { digest: sent.digest, size: sent.bytes.len() as u64 })
    }

    /// Sends the layers, the document and the manifest, in this order.
    async fn send(
        &self,
        dispatch: &Arc<Dispatch>,
        repository: &Repository,
        tag: Option<&str>,
        origins: Arc<Origins>,
        progress: Arc<PushProgress>,
        manifest: impl FnOnce(&[Descriptor]) -> Result<SentManifest>,
    ) -> Result<(SentManifest, Vec<Descriptor>)> {
        let descriptors = self.layers(dispatch, repository, &origins, &progress).await?;
        let id = dispatch.id();
        if repository.has_blob(&id).await?.is_none() {
            let held = Arc::clone(dispatch);
            let file = blocking(move || Ok(held.open(&id)?)).await?;
            repository.upload_blob(id, dispatch.config().len() as u64, file, |_| {}).await?;
        }
        let sent = manifest(&descriptors)?;
        put(repository, tag, &sent).await?;
        Ok((sent, descriptors))
    }

    /// Brings all layers to the registry; gives what they are there, lowest first.
    async fn layers(
        &self,
        dispatch: &Arc<Dispatch>,
        repository: &Repository,
        origins: &Arc<Origins>,
        progress: &Arc<PushProgress>,
    ) -> Result<Vec<Descriptor>> {
        let diff_ids = dispatch.diff_ids();
        let mut tasks = JoinSet::new();
        let mut first: BTreeMap<Digest, usize> = BTreeMap::new();
        for (i, diff_id) in diff_ids.iter().enumerate().rev() {
            progress(diff_id, PushStep::Preparing);
            first.insert(*diff_id, i);
        }
        // The topmost first, as Docker does.
        for i in first.into_values().collect::<std::collections::BTreeSet<_>>().into_iter().rev() {
            let layer = Layer {
                dispatch: Arc::clone(dispatch),
                index: i,
                diff_id: diff_ids[i],
                repository: repository.clone(),
                origins: Arc::clone(origins),
                progress: Arc::clone(progress),
            };
            let uploads = Arc::clone(&self.uploads);
            tasks.spawn(async move {
                let permit = match Arc::clone(&uploads).try_acquire_owned() {
                    Ok(permit) => Some(permit),
                    Err(_) => {
                        (layer.progress)(&layer.diff_id, PushStep::Waiting);
                        // It is never closed.
                        uploads.acquire_owned().await.ok()
                    }
                };
                let sent = layer.send().await;
                drop(permit);
                sent.map(|descriptor| (layer.diff_id, descriptor))
            });
        }
        let mut sent = BTreeMap::new();
        while let Some(done) = tasks.join_next().await {
            let done = done.map_err(|_| Error::Internal("an upload failed; see the daemon's log".into()))?;
            let (diff_id, descriptor) = done?;
            sent.insert(diff_id, descriptor);
        }
        diff_ids
            .iter()
            .map(|d| sent.get(d).cloned().ok_or_else(|| Error::Internal(format!("layer {d} was not sent"))))
            .collect()
    }
}

/// Puts a manifest or an index under a tag, or under its digest.
async fn put(repository: &Repository, tag: Option<&str>, sent: &SentManifest) -> Result<()> {
    let at = tag.map_or(ManifestRef::Digest(sent.digest), |tag| ManifestRef::Tag(tag.to_owned()));
    let bytes = Bytes::from(sent.bytes.clone());
    let answered = repository.put_manifest(&at, &sent.media_type, bytes).await?;
    if answered != sent.digest {
        return Err(Error::DigestMismatch {
            what: format!("manifest pushed to {}", repository.name().familiar_name()),
            expected: sent.digest,
            actual: answered,
        });
    }
    Ok(())
}

/// One layer on its way.
struct Layer {
    dispatch: Arc<Dispatch>,
    index: usize,
    diff_id: Digest,
    repository: Repository,
    origins: Arc<Origins>,
    progress: Arc<PushProgress>,
}

impl Layer {
    fn tell(&self, step: PushStep) {
        (self.progress)(&self.diff_id, step);
    }

    async fn send(&self) -> Result<Descriptor> {
        // Asked before it is compressed or made again.
        if let Some(known) = self.dispatch.known(self.index)
            && self.is_there(&known).await?
        {
            return Ok(known);
        }
        let (dispatch, index, diff_id) = (Arc::clone(&self.dispatch), self.index, self.diff_id);
        let progress = Arc::clone(&self.progress);
        let before = self.dispatch.known(self.index);
        let descriptor = blocking(move || {
            let mut pace = Pace::default();
            Ok(dispatch.blob(index, &mut |seen| {
                if pace.is_due() {
                    progress(&diff_id, PushStep::Compressing(seen));
                }
            })?)
        })
        .await?;
        if before.is_none_or(|b| b.digest != descriptor.digest) && self.is_there(&descriptor).await? {
            return Ok(descriptor);
        }
        let (dispatch, digest) = (Arc::clone(&self.dispatch), descriptor.digest);
        let file = blocking(move || Ok(dispatch.open(&digest)?)).await?;
        let mut pace = Pace::default();
        let size = descriptor.size;
        self.tell(PushStep::Pushing(0, size));
        let sending = self.repository.upload_blob(digest, size, file, |seen| {
            if pace.is_due() {
                self.tell(PushStep::Pushing(seen, size));
            }
        });
        sending.await?;
        self.tell(PushStep::Pushing(size, size));
        self.tell(PushStep::Pushed);
        Ok(descriptor)
    }

    /// Whether the repository has a blob, or can have it from another one of the registry.
    async fn is_there(&self, blob: &Descriptor) -> Result<bool> {
        if self.repository.has_blob(&blob.digest).await?.is_some() {
            self.tell(PushStep::Exists);
            return Ok(true);
        }
        let here = self.repository.name();
        for origin in (self.origins)(&blob.digest) {
            let Some(from) = origin.strip_prefix(&format!("{}/", here.registry())) else { continue };
            if from == here.repository() {
                continue;
            }
            // A refusal is no failure: then it is sent.
            if matches!(self.repository.mount_blob(&blob.digest, from).await, Ok(true)) {
                self.tell(PushStep::Mounted(from.to_owned()));
                return Ok(true);
            }
        }
        Ok(false)
    }
}
