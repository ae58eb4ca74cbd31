//! Pulling: what a name means is resolved once; layers come side by side and are unpacked while they arrive; what is
//! wanted twice at once is fetched once.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use longshore_oci::image::{Descriptor, Manifest};
use longshore_oci::{Digest, Platform, Reference};
use longshore_store::Store;
use longshore_store::archive::{ReceiveEvent, Reception, Remote, Source};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use crate::arrival::{self, Feeder};
use crate::fetch::arriving;
use crate::{Document, Error, Fetched, ManifestRef, Repository, Result, check_image, choose};

/// Bytes of an image's configuration at most.
const MAX_CONFIG: u64 = 4 << 20;
/// Indexes inside indexes.
const MAX_NESTING: usize = 4;

/// What becomes of a layer, by the digest of its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullStep {
    /// It is not here.
    Missing,
    /// It is here already.
    Exists,
    /// Another pull fetches it.
    Elsewhere,
    /// So many bytes of so many have come.
    Downloading(u64, u64),
    /// All have come.
    Downloaded,
    /// It is unpacked.
    Unpacked,
}

/// Told about each layer as a pull goes on.
pub type PullProgress = dyn Fn(&Digest, PullStep) + Send + Sync;

/// What a name means at this moment.
#[derive(Clone, Debug)]
pub struct Resolved {
    repository: Repository,
    /// What the registry answered first: a manifest or an index.
    pub digest: Digest,
    manifest: Fetched,
    image: Manifest,
}

/// Pulls images into a store. Cheap to clone; all clones share what is being fetched.
#[derive(Clone, Debug)]
pub struct Puller {
    store: Store,
    downloads: Arc<Semaphore>,
    flights: Arc<Flights>,
}

/// What is under way.
#[derive(Debug, Default)]
struct Flights {
    /// Held while the image of a manifest is pulled.
    images: Mutex<HashMap<Digest, Arc<AsyncMutex<()>>>>,
    /// Layers that are being downloaded; the sender goes when that has ended.
    blobs: Mutex<HashMap<Digest, watch::Receiver<()>>>,
}

/// The right to download a blob; others wait until it is dropped.
struct Flight {
    flights: Arc<Flights>,
    digest: Digest,
    _end: watch::Sender<()>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        lock(&self.flights.blobs).remove(&self.digest);
    }
}

impl Flights {
    /// Takes the right to download a blob, or gives what to wait for.
    fn claim(self: &Arc<Self>, digest: Digest) -> Result<Flight, watch::Receiver<()>> {
        let mut blobs = lock(&self.blobs);
        if let Some(other) = blobs.get(&digest) {
            return Err(other.clone());
        }
        let (end, ended) = watch::channel(());
        blobs.insert(digest, ended);
        Ok(Flight { flights: Arc::clone(self), digest, _end: end })
    }

    fn image(&self, manifest: Digest) -> Arc<AsyncMutex<()>> {
        let mut images = lock(&self.images);
        images.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(images.entry(manifest).or_default())
    }
}

impl Puller {
    /// A puller that downloads at most `downloads` layers at once.
    #[must_use]
    pub fn new(store: Store, downloads: usize) -> Self {
        let downloads = Arc::new(Semaphore::new(downloads.max(1)));
        Self { store, downloads, flights: Arc::default() }
    }

    /// Asks what `at` means now, and for which image of an index `platform` stands (`None`: this machine's).
    ///
    /// # Errors
    /// When there is none, when it is no image, or when the registry cannot be asked.
    pub async fn resolve(
        repository: &Repository,
        at: &ManifestRef,
        platform: Option<&Platform>,
    ) -> Result<Resolved> {
        let mut fetched = repository.manifest(at).await?;
        let digest = fetched.digest;
        for _ in 0..MAX_NESTING {
            match &fetched.document {
                Document::Manifest(manifest) => {
                    check_image(manifest)?;
                    let image = manifest.clone();
                    return Ok(Resolved { repository: repository.clone(), digest, manifest: fetched, image });
                }
                Document::Index(index) => {
                    let chosen = choose(index, platform, &Platform::host())?;
                    fetched = repository.manifest(&ManifestRef::Digest(chosen.digest)).await?;
                    if fetched.bytes.len() as u64 != chosen.size {
                        return Err(Error::Corrupt(format!(
                            "manifest {} has {} bytes, its index says {}",
                            chosen.digest,
                            fetched.bytes.len(),
                            chosen.size
                        )));
                    }
                }
            }
        }
        Err(Error::TooLarge(format!("{digest}: indexes are nested deeper than {MAX_NESTING}")))
    }

    /// Pulls an image and gives it `names`. Tells its id.
    ///
    /// # Errors
    /// When something cannot be fetched or is not what was announced; nothing is left of the image then. Dropping the
    /// future gives the pull up, likewise.
    pub async fn pull(
        &self,
        resolved: &Resolved,
        names: Vec<Reference>,
        progress: Arc<PullProgress>,
    ) -> Result<Digest> {
        let lock = self.flights.image(resolved.manifest.digest);
        let _alone = lock.lock().await;
        let image = &resolved.image;
        let config = self.config(resolved).await?;
        check_os(&config)?;
        let repository = resolved.repository.name();
        let remote = Remote {
            config,
            manifest: resolved.manifest.bytes.to_vec(),
            media_type: resolved.manifest.media_type.clone(),
            layers: image.layers.clone(),
            names,
            source: format!("{}/{}", repository.registry(), repository.repository()),
        };
        let diff_ids = remote.diff_ids()?;
        let (store, reason) = (self.store.clone(), format!("pull {}", resolved.repository.name().familiar()));
        let (reception, standing) = blocking(move || {
            let mut reception = Reception::new(&store, &reason)?;
            let standing = reception.standing(&diff_ids)?;
            Ok((reception, standing))
        })
        .await?;
        // Of an image that is here as a whole there is nothing to tell.
        let known = standing == image.layers.len() && self.has_image(image.config.digest).await?;
        for (i, layer) in image.layers.iter().enumerate().filter(|_| !known) {
            progress(&layer.digest, if i < standing { PullStep::Exists } else { PullStep::Missing });
        }
        let mut missing: Vec<Descriptor> = Vec::new();
        for layer in image.layers.iter().skip(standing) {
            if missing.iter().all(|m| m.digest != layer.digest) {
                missing.push(layer.clone());
            }
        }
        Fetch { puller: self, resolved, progress }.run(reception, remote, missing).await
    }

    /// Begins to download a blob for a thread that may block, with the pulls' limit of how many come at once. Of its bytes
    /// only the number is checked.
    ///
    /// # Errors
    /// When no server begins to send it; later failures come out of the reader.
    pub fn read(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        runtime: &Handle,
    ) -> Result<impl Read + Send + 'static> {
        let begin = async {
            let permit = self.permit().await;
            Ok::<_, Error>((permit, repository.blob(blob).await?.unverified()))
        };
        let (permit, body) = runtime.block_on(begin)?;
        Ok(arriving(runtime, body, blob.size, permit))
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.downloads).acquire_owned().await.ok()
    }

    /// Waits until a layer may be downloaded, or is there because somebody else has done it.
    async fn wait_for(
        &self,
        mut claim: Result<Flight, watch::Receiver<()>>,
        permit: Option<Option<OwnedSemaphorePermit>>,
        digest: Digest,
    ) -> Option<(Flight, Option<OwnedSemaphorePermit>)> {
        loop {
            match claim {
                Ok(flight) => {
                    let permit = match permit {
                        Some(permit) => permit,
                        None => self.permit().await,
                    };
                    return Some((flight, permit));
                }
                Err(mut other) => {
                    // The sender's end is what is waited for.
                    let _ = other.changed().await;
                    let store = self.store.clone();
                    if let Ok(true) = blocking(move || Ok(store.content().exists(&digest)?)).await {
                        return None;
                    }
                    claim = self.flights.claim(digest);
                }
            }
        }
    }

    async fn has_image(&self, id: Digest) -> Result<bool> {
        let store = self.store.clone();
        blocking(move || match store.images().get(&id) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == longshore_oci::Kind::NotFound => Ok(false),
            Err(e) => Err(e.into()),
        })
        .await
    }

    /// The image's configuration, from here or from the registry.
    async fn config(&self, resolved: &Resolved) -> Result<Vec<u8>> {
        let descriptor = &resolved.image.config;
        let (store, digest) = (self.store.clone(), descriptor.digest);
        if let Ok(here) = blocking(move || Ok(store.content().read(&digest, MAX_CONFIG)?)).await {
            return Ok(here);
        }
        Ok(resolved.repository.read_blob(descriptor, MAX_CONFIG).await?.to_vec())
    }
}

/// The layers of one image on their way.
struct Fetch<'a> {
    puller: &'a Puller,
    resolved: &'a Resolved,
    progress: Arc<PullProgress>,
}

/// A layer that somebody is to decide about.
struct Pending {
    descriptor: Descriptor,
    /// Whether the content store has it.
    kept: bool,
    decide: oneshot::Sender<Source>,
}

impl Fetch<'_> {
    async fn run(&self, reception: Reception, remote: Remote, missing: Vec<Descriptor>) -> Result<Digest> {
        let mut pending = Vec::new();
        let mut sources = Vec::new();
        let reception = Arc::new(reception);
        for descriptor in missing {
            let (held, digest) = (Arc::clone(&reception), descriptor.digest);
            let kept = blocking(move || Ok(held.keeps(&digest)?)).await?;
            let (decide, decided) = oneshot::channel();
            let later = move || decided.blocking_recv().map_err(|_| arrival::given_up());
            sources.push((descriptor.clone(), Source::Later(Box::new(later))));
            pending.push(Pending { descriptor, kept, decide });
        }
        let reception = Arc::into_inner(reception)
            .ok_or_else(|| Error::Internal("a pull holds its layers twice".into()))?;
        // One layer that fails ends the others.
        let (failed, mut failure) = watch::channel(false);
        let shared = Arc::new(Shared::default());
        let (progress, landing) = (Arc::clone(&self.progress), Arc::clone(&shared));
        let finish = tokio::task::spawn_blocking(move || {
            reception.finish(&remote, sources, &|event| match event {
                ReceiveEvent::Unpacked(digest) => {
                    landing.land(&digest);
                    progress(&digest, PullStep::Unpacked);
                }
                ReceiveEvent::Failed(digest) => {
                    landing.land(&digest);
                    failed.send_replace(true);
                }
            })
        });
        tokio::select! {
            () = self.fetch_all(pending, &shared) => {}
            _ = failure.wait_for(|failed| *failed) => {}
        }
        // By now nothing is fetched any longer: what still waits for bytes gets an error.
        shared.land_all();
        let finished = finish.await;
        // What a download says is the cause of what the store says.
        if let Some(cause) = lock(&shared.cause).take() {
            return Err(cause);
        }
        match finished {
            Ok(finished) => Ok(finished?),
            Err(_) => Err(Error::Internal("a pull failed; see the daemon's log".into())),
        }
    }

    /// Decides about every layer in order, and downloads; a failure is the shared cause. Dropped, it gives up.
    async fn fetch_all(&self, pending: Vec<Pending>, shared: &Arc<Shared>) {
        let mut tasks = JoinSet::new();
        for layer in pending {
            if layer.kept {
                // A receiver that is gone has failed, and said so.
                let _ = layer.decide.send(Source::Kept);
                continue;
            }
            let digest = layer.descriptor.digest;
            let claim = self.puller.flights.claim(digest);
            // Permits are taken in the order of the layers.
            let permit = match claim {
                Ok(_) => Some(self.puller.permit().await),
                Err(_) => {
                    (self.progress)(&digest, PullStep::Elsewhere);
                    None
                }
            };
            let (puller, repository) = (self.puller.clone(), self.resolved.repository.clone());
            let (progress, shared) = (Arc::clone(&self.progress), Arc::clone(shared));
            tasks.spawn(async move {
                let Some((flight, permit)) = puller.wait_for(claim, permit, digest).await else {
                    let _ = layer.decide.send(Source::Kept);
                    return;
                };
                shared.fly(flight);
                let (mut feeder, arriving) = arrival::channel(layer.descriptor.size);
                if layer.decide.send(Source::Stream(Box::new(arriving))).is_ok()
                    && let Err(e) = download(&repository, &layer.descriptor, &mut feeder, &*progress).await
                {
                    // Before the reader learns that no more will come.
                    lock(&shared.cause).get_or_insert(e);
                }
                drop((feeder, permit));
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// What the downloads of one image share.
#[derive(Default)]
struct Shared {
    /// Flights end when their layer has, so that those who wait find it.
    flights: Mutex<HashMap<Digest, Flight>>,
    /// Why the first download failed.
    cause: Mutex<Option<Error>>,
}

impl Shared {
    fn fly(&self, flight: Flight) {
        lock(&self.flights).insert(flight.digest, flight);
    }

    fn land(&self, digest: &Digest) {
        lock(&self.flights).remove(digest);
    }

    fn land_all(&self) {
        lock(&self.flights).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses an image of another operating system, in Docker's words: a manifest that no index names says so only in the
/// configuration. Another processor is the user's affair, since emulation may run it.
fn check_os(config: &[u8]) -> Result<()> {
    let host = Platform::host().os;
    match serde_json::from_slice::<Platform>(config) {
        Ok(platform) if !platform.os.is_empty() && platform.os != host => Err(Error::Unsupported(format!(
            "image operating system \"{}\" cannot be used on this platform: {host} images only",
            crate::error::printable(&platform.os)
        ))),
        // What is no configuration at all is refused with a better reason.
        _ => Ok(()),
    }
}

/// Brings a layer's bytes to the thread that unpacks it. A thread that wants no more has failed, and says so itself.
async fn download(
    repository: &Repository,
    layer: &Descriptor,
    feeder: &mut Feeder,
    progress: &PullProgress,
) -> Result<()> {
    use futures_util::StreamExt as _;
    // The store hashes the bytes as it takes them.
    let mut body = repository.blob(layer).await?.unverified();
    let mut pace = arrival::Pace::default();
    let mut seen = 0u64;
    while let Some(bytes) = body.next().await {
        let bytes = bytes?;
        seen += bytes.len() as u64;
        if !feeder.feed(bytes).await {
            return Ok(());
        }
        if pace.is_due() {
            progress(&layer.digest, PullStep::Downloading(seen, layer.size));
        }
    }
    progress(&layer.digest, PullStep::Downloading(seen, layer.size));
    feeder.drained().await;
    progress(&layer.digest, PullStep::Downloaded);
    Ok(())
}

/// Work of the synchronous store.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(Error::Internal("a worker failed; see the daemon's log".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_another_system_are_refused_by_name() {
        assert!(check_os(br#"{"os":"linux","architecture":"arm64"}"#).is_ok());
        assert!(check_os(br#"{"architecture":"amd64","rootfs":{}}"#).is_ok());
        let e = check_os(br#"{"os":"windows","architecture":"amd64","os.version":"10.0"}"#).unwrap_err();
        assert!(e.to_string().contains("image operating system \"windows\" cannot be used"), "{e}");
        assert_eq!(e.kind(), longshore_oci::Kind::Unimplemented);
    }
}
