//! Caches of elsewhere as a build asks them: at first only their documents come, then the layers that are needed.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_build::layout::Peer;
use longshore_build::portable::{self, Document, PortableStep};
use longshore_build::{Cancel, Claim, Elsewhere, Error as BuildError, Result as BuildResult};
use longshore_oci::image::{Descriptor, ImageDocument, Manifest};
use longshore_oci::{Digest, Platform, Reference};
use longshore_registry::{
    Document as RegistryDocument, Puller, Repository, check_image, check_layer, choose,
};
use longshore_store::archive::{Absent, Coming, Source};
use longshore_store::image::MAX_CONFIG;
use longshore_store::lease::Lease;
use tokio::runtime::Handle;

use super::{REF_NAME, Send, Task, parse_index, parse_manifest};
use crate::Engine;
use crate::build::platforms::platforms;
use crate::model::{BuildEvent, BuildRequest, BuildTask, CacheDirectory, CacheFrom};
use crate::registry::manifest_ref;

/// Caches that one build may name.
const MAX: usize = 50;
/// How often it is looked whether the build was called off.
const LOOK: Duration = Duration::from_millis(100);
/// What is said of an image that is no cache.
const NONE_IN_IMAGE: &str = "there is no build cache in the image: build it with --cache-to type=inline";
/// Layers that come side by side at most.
const AT_ONCE: usize = 16;

/// The caches of a build.
pub(in crate::build) struct Imports<'a> {
    engine: &'a Engine,
    runtime: &'a Handle,
    send: Send<'a>,
    caches: Vec<Cache>,
}

/// A cache.
struct Cache {
    name: String,
    at: At,
    steps: BTreeMap<Digest, PortableStep>,
    /// By diff id.
    blobs: BTreeMap<Digest, Descriptor>,
    /// Diff ids of cache mounts, by name.
    mounts: BTreeMap<String, Digest>,
    /// Something was wrong with it: nothing more is taken from it.
    doubted: AtomicBool,
}

/// Where its layers are.
#[derive(Clone)]
enum At {
    Registry(Repository),
    Directory(Arc<Peer>),
    /// They are those of an image that is here.
    Here,
}

/// A document with the layers that it speaks of, lowest first or in its order.
type Found = (At, Document, BTreeMap<Digest, Descriptor>);

impl<'a> Imports<'a> {
    /// Fetches the documents. A cache that cannot be had is told and left out.
    pub(in crate::build) fn open(
        engine: &'a Engine,
        request: &BuildRequest,
        runtime: &'a Handle,
        cancel: &Cancel,
        send: Send<'a>,
    ) -> Self {
        let mut all = Self { engine, runtime, send, caches: Vec::new() };
        if request.no_cache {
            return all;
        }
        let found: Vec<Option<Cache>> = std::thread::scope(|scope| {
            let platforms = platforms(request);
            let platforms = platforms.as_slice();
            let asked = request.cache_from.iter().take(MAX).flat_map(move |from| {
                // Others are the same for all.
                let many = matches!(from, CacheFrom::Registry(_) | CacheFrom::Image(_) | CacheFrom::Here(_));
                let asked = platforms.iter().take(if many { platforms.len() } else { 1 }).cloned();
                asked.map(move |platform| (from, platform))
            });
            let all = &all;
            let ask = |(from, platform)| scope.spawn(move || all.ask(from, request, &platform, cancel));
            let asking: Vec<_> = asked.map(ask).collect();
            asking.into_iter().map(|asking| asking.join().ok().flatten()).collect()
        });
        for cache in found.into_iter().flatten() {
            if !all.caches.iter().any(|other| other.is_same(&cache)) {
                all.caches.push(cache);
            }
        }
        if request.cache_from.len() > MAX {
            send(BuildEvent::Warning(format!("only the first {MAX} caches are asked")));
        }
        all
    }

    fn ask(
        &self,
        from: &CacheFrom,
        request: &BuildRequest,
        platform: &Platform,
        cancel: &Cancel,
    ) -> Option<Cache> {
        let name = match from {
            CacheFrom::Registry(reference) | CacheFrom::Image(reference) | CacheFrom::Here(reference) => {
                reference.familiar()
            }
            CacheFrom::Directory(directory) => directory.name.clone(),
        };
        let found = self.task(&name, || match from {
            CacheFrom::Registry(reference) => self.remote(reference, request, platform, cancel),
            CacheFrom::Image(reference) => {
                let local = self.local(reference, platform);
                local.or_else(|_| self.remote(reference, request, platform, cancel))
            }
            CacheFrom::Here(reference) => self.local(reference, platform),
            CacheFrom::Directory(directory) => self.directory(directory),
        });
        found.map(|(at, document, blobs)| Cache::new(name, at, document, blobs))
    }

    fn task(&self, name: &str, find: impl FnOnce() -> Result<Found, String>) -> Option<Found> {
        let task = Task::begin(format!("importing cache manifest from {name}"), self.send);
        match find() {
            Ok(found) => {
                task.tell(BuildTask::Done);
                Some(found)
            }
            Err(why) => {
                task.tell(BuildTask::Failed(why.clone()));
                (self.send)(BuildEvent::Warning(format!("the cache {name} is not used: {why}")));
                None
            }
        }
    }

    /// Whether there is any.
    pub(in crate::build) fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }

    fn remote(
        &self,
        reference: &Reference,
        request: &BuildRequest,
        platform: &Platform,
        cancel: &Cancel,
    ) -> Result<Found, String> {
        let credentials = request.credentials.get(reference.registry()).cloned().unwrap_or_default();
        let repository = self.engine.repository(reference, &credentials);
        let ask = async {
            let words = |e: longshore_registry::Error| e.to_string();
            let mut fetched = repository.manifest(&manifest_ref(reference)).await.map_err(words)?;
            if let RegistryDocument::Index(index) = &fetched.document {
                let chosen = choose(index, Some(platform), &Platform::host()).map_err(words)?;
                let at = longshore_registry::ManifestRef::Digest(chosen.digest);
                fetched = repository.manifest(&at).await.map_err(words)?;
            }
            let RegistryDocument::Manifest(manifest) = &fetched.document else {
                return Err("it is an index of indexes".to_owned());
            };
            let limit = if is_cache(manifest) { portable::MAX_DOCUMENT } else { MAX_CONFIG };
            let document = repository.read_blob(&manifest.config, limit).await.map_err(words)?;
            let (document, blobs) = read(manifest, &document)?;
            Ok((At::Registry(repository.clone()), document, blobs))
        };
        let called_off = async {
            while !cancel.is_off() {
                tokio::time::sleep(LOOK).await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                found = ask => found,
                () = called_off => Err("the build was called off".to_owned()),
            }
        })
    }

    /// What an image has in it that is here.
    fn local(&self, reference: &Reference, platform: &Platform) -> Result<Found, String> {
        let images = self.engine.inner.store.images();
        let record = images.resolve_for(&reference.to_string(), platform).map_err(|e| e.to_string())?;
        let (_, image) = images.document(&record.id).map_err(|e| e.to_string())?;
        let inline = image.build_cache.ok_or(NONE_IN_IMAGE)?;
        Ok((At::Here, Document::read(inline.as_bytes(), None)?, BTreeMap::new()))
    }

    fn directory(&self, directory: &CacheDirectory) -> Result<Found, String> {
        let gone = || "the client does not offer it any more".to_owned();
        let peer = self.engine.inner.layouts.find(&directory.id).ok_or_else(gone)?;
        let words = |e: io::Error| e.to_string();
        let index = peer.index().map_err(words)?.ok_or("it has no index.json: no cache was put there yet")?;
        let index = parse_index(&index)?;
        let chosen = match &directory.digest {
            Some(digest) => index.manifests.iter().find(|m| m.digest == *digest),
            None => index.manifests.iter().find(|m| m.annotations.get(REF_NAME) == Some(&directory.tag)),
        };
        let chosen = chosen.ok_or_else(|| match &directory.digest {
            Some(digest) => format!("its index.json names no manifest {digest}"),
            None => format!("its index.json names no cache {:?}", directory.tag),
        })?;
        let manifest = parse_manifest(&peer.read_blob(chosen, MAX_CONFIG).map_err(words)?)?;
        let limit = if is_cache(&manifest) { portable::MAX_DOCUMENT } else { MAX_CONFIG };
        let document = peer.read_blob(&manifest.config, limit).map_err(words)?;
        let (document, blobs) = read(&manifest, &document)?;
        Ok((At::Directory(peer), document, blobs))
    }

    /// A layer that a cache has and the store has not, to be sent on; with the repository that has it.
    pub(super) fn absent(&self, diff_id: &Digest, cancel: &Cancel) -> Option<(Absent, Option<String>)> {
        let cache = self.believed().find(|cache| cache.blobs.contains_key(diff_id))?;
        let blob = cache.blob(diff_id).ok()?;
        let source = cache.at.source();
        let (at, wanted, with) = (cache.at.clone(), blob.clone(), self.fetch(cancel));
        let fetch = Box::new(move || {
            let reader: Box<dyn Read + std::marker::Send> = Box::new(at.open(&wanted, with.clone())?);
            Ok(reader)
        });
        Some((Absent { diff_id: *diff_id, blob, fetch }, source))
    }

    fn fetch(&self, cancel: &Cancel) -> Fetch {
        Fetch {
            puller: self.engine.inner.registry.puller.clone(),
            runtime: self.runtime.clone(),
            cancel: cancel.clone(),
        }
    }

    /// Remembers where layers came from: there they need not be sent.
    fn remember(&self, cache: &Cache, layers: &[Digest]) {
        let Some(source) = cache.at.source() else { return };
        for blob in layers.iter().filter_map(|diff_id| cache.blobs.get(diff_id)) {
            if let Err(e) = self.engine.inner.store.add_source(&blob.digest, &source) {
                tracing::warn!(blob = %blob.digest, error = %e, "where a layer came from is not remembered");
            }
        }
    }

    /// Takes nothing more from a cache.
    fn doubt(&self, cache: &Cache, why: &str) {
        if !cache.doubted.swap(true, Ordering::Relaxed) {
            (self.send)(BuildEvent::Warning(format!(
                "the cache {} is not used any further: {why}",
                cache.name
            )));
        }
    }

    fn believed(&self) -> impl Iterator<Item = &Cache> {
        self.caches.iter().filter(|cache| !cache.doubted.load(Ordering::Relaxed))
    }
}

fn is_cache(manifest: &Manifest) -> bool {
    manifest.config.media_type == portable::DOCUMENT
}

/// The document of a cache, or within the configuration of an image, and the layers that its manifest has.
fn read(manifest: &Manifest, bytes: &[u8]) -> Result<(Document, BTreeMap<Digest, Descriptor>), String> {
    let words = |e: longshore_registry::Error| e.to_string();
    let (document, diff_ids) = if is_cache(manifest) {
        manifest.layers.iter().try_for_each(|layer| check_layer(&layer.media_type)).map_err(words)?;
        let document = Document::read(bytes, Some(manifest.layers.len()))?;
        let diff_ids = document.layers.clone();
        (document, diff_ids)
    } else {
        check_image(manifest).map_err(words)?;
        let image: ImageDocument =
            serde_json::from_slice(bytes).map_err(|_| "it is neither a cache nor an image".to_owned())?;
        let inline = image.build_cache.ok_or(NONE_IN_IMAGE)?;
        (Document::read(inline.as_bytes(), None)?, image.rootfs.diff_ids)
    };
    if diff_ids.len() != manifest.layers.len() {
        return Err("its manifest has another number of layers than its configuration".into());
    }
    let blobs: BTreeMap<_, _> = diff_ids.into_iter().zip(manifest.layers.iter().cloned()).collect();
    match document.layers.iter().find(|diff_id| !blobs.contains_key(*diff_id)) {
        Some(diff_id) => Err(format!("it has no layer {diff_id}, which a step of it gave")),
        None => Ok((document, blobs)),
    }
}

impl Cache {
    fn new(name: String, at: At, document: Document, blobs: BTreeMap<Digest, Descriptor>) -> Self {
        let mut steps = BTreeMap::new();
        for step in document.steps {
            for key in step.keys.clone() {
                steps.entry(key).or_insert_with(|| step.clone());
            }
        }
        let mounts = document.mounts.into_iter().map(|m| (m.name, m.diff_id)).collect();
        Self { name, at, steps, blobs, mounts, doubted: AtomicBool::new(false) }
    }

    /// Whether another of the same name says the same: it has no image for each platform.
    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.steps.keys().eq(other.steps.keys()) && self.mounts == other.mounts
    }

    fn blob(&self, diff_id: &Digest) -> Result<Descriptor, String> {
        self.blobs.get(diff_id).cloned().ok_or_else(|| format!("it has no layer {diff_id}"))
    }

    /// A layer that is to come once somebody waits for it.
    fn coming(&self, diff_id: Digest, with: &Fetch) -> Result<Coming, String> {
        let blob = self.blob(&diff_id)?;
        let (at, wanted, with) = (self.at.clone(), blob.clone(), with.clone());
        let later = move || Ok(Source::Stream(Box::new(at.open(&wanted, with)?)));
        Ok(Coming { diff_id, blob, source: Source::Later(Box::new(later)) })
    }

    /// A layer that comes now.
    fn open(&self, diff_id: &Digest, with: &Fetch) -> Result<(Descriptor, Watched), String> {
        let blob = self.blob(diff_id)?;
        let reader = self.at.open(&blob, with.clone()).map_err(|e| e.to_string())?;
        Ok((blob, reader))
    }
}

impl At {
    /// The repository that it is in, `registry/repository`.
    fn source(&self) -> Option<String> {
        let Self::Registry(repository) = self else { return None };
        Some(format!("{}/{}", repository.name().registry(), repository.name().repository()))
    }

    fn open(&self, blob: &Descriptor, with: Fetch) -> io::Result<Watched> {
        let reader: Box<dyn Read + std::marker::Send> = match self {
            Self::Registry(repository) => {
                let reader = with.puller.read(repository, blob, &with.runtime);
                Box::new(reader.map_err(|e| io::Error::other(e.to_string()))?)
            }
            Self::Directory(peer) => {
                let reader = peer.blob(&blob.digest)?.ok_or_else(|| missing(&blob.digest))?;
                Box::new(reader.take(blob.size))
            }
            Self::Here => return Err(missing(&blob.digest)),
        };
        Ok(Watched { reader, cancel: with.cancel })
    }
}

fn missing(digest: &Digest) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("blob {digest} is not there"))
}

/// What fetching needs.
#[derive(Clone)]
struct Fetch {
    puller: Puller,
    runtime: Handle,
    cancel: Cancel,
}

/// Fails once the build is called off.
struct Watched {
    reader: Box<dyn Read + std::marker::Send>,
    cancel: Cancel,
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_off() {
            return Err(io::Error::other("the build was called off"));
        }
        self.reader.read(buf)
    }
}

impl Elsewhere for Imports<'_> {
    fn find(&self, key: &Digest) -> Option<Claim> {
        let step = self.believed().find_map(|cache| cache.steps.get(key))?;
        Some(Claim {
            diff_id: step.diff_id,
            size: step.size,
            newest: step.newest,
            what: step.what.clone(),
            of: step.keys.first().copied().filter(|first| first != key),
        })
    }

    fn bring(
        &self,
        below: Option<Digest>,
        layers: &[Digest],
        lease: &Lease,
        cancel: &Cancel,
    ) -> BuildResult<bool> {
        let with = self.fetch(cancel);
        let (mut below, mut layers) = (below, layers);
        while let Some(first) = layers.first() {
            let Some(cache) = self.believed().find(|cache| cache.blobs.contains_key(first)) else {
                // What is here alone is not here any more: whoever said so is not believed.
                self.believed()
                    .filter(|cache| cache.steps.values().any(|step| step.diff_id == Some(*first)))
                    .for_each(|cache| self.doubt(cache, &format!("layer {first} is not there")));
                return Ok(false);
            };
            let count = layers.iter().take(AT_ONCE).take_while(|l| cache.blobs.contains_key(*l)).count();
            let (now, rest) = layers.split_at(count);
            let coming: Result<Vec<_>, String> = now.iter().map(|l| cache.coming(*l, &with)).collect();
            let came = coming.and_then(|coming| {
                let received = self.engine.inner.store.receive_layers(below, coming, lease);
                received.map_err(|e| e.to_string())
            });
            if cancel.is_off() {
                return Err(BuildError::Cancelled);
            }
            if let Err(why) = came {
                self.doubt(cache, &why);
                return Ok(false);
            }
            self.remember(cache, now);
            below = now.iter().fold(below, |below, diff_id| Some(Digest::chain(below.as_ref(), diff_id)));
            layers = rest;
        }
        Ok(true)
    }

    fn fill(&self, name: &str, cancel: &Cancel) -> bool {
        let Some((cache, diff_id)) =
            self.believed().find_map(|cache| Some((cache, cache.mounts.get(name).copied()?)))
        else {
            return false;
        };
        let filled = cache.open(&diff_id, &self.fetch(cancel)).and_then(|(blob, source)| {
            let store = &self.engine.inner.store;
            store.fill_cache_mount(name, &diff_id, &blob, source).map_err(|e| e.to_string())
        });
        if let Err(why) = &filled
            && !cancel.is_off()
        {
            self.doubt(cache, &format!("cache mount {name}: {why}"));
        }
        filled.is_ok()
    }
}
