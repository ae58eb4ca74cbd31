//! Images from and to registries: what a client asks, told as Docker tells it.

use std::sync::Arc;

use futures_util::stream;
use longshore_oci::image::Descriptor;
use longshore_oci::{Digest, Kind, Platform, Reference};
use longshore_registry::{
    Ask, Client, Credentials, Document, Downloaded, Error as RegistryError, Fetcher, ManifestRef,
    ProxyConfig, PullStep, Puller, PushStep, Pusher, Put, Repository, Resolved,
};
use longshore_store::image::MAX_CONFIG;
use longshore_store::{IndexForm, IndexedImage, Store};
use tokio::sync::mpsc;

use crate::model::{
    Distribution, ManifestView, ProgressEvent, PullRequest, PushRequest, Pushed, SearchHit, SearchRequest,
};
use crate::stream::ProgressStream;
use crate::{Engine, EngineOptions, Error, Result, filters};

/// The engine's dealings with registries.
#[derive(Debug)]
pub(crate) struct Registry {
    client: Client,
    pub(crate) puller: Puller,
    pub(crate) pusher: Pusher,
}

impl Registry {
    pub(crate) fn new(store: &Store, options: &EngineOptions) -> Result<Self> {
        let client = Client::new(options.registry.clone()).map_err(plain_error)?;
        let puller = Puller::new(store.clone(), options.max_concurrent_downloads.unwrap_or(DOWNLOADS));
        let pusher = Pusher::new(store.clone(), options.max_concurrent_uploads.unwrap_or(UPLOADS));
        Ok(Self { client, puller, pusher })
    }

    /// Downloads a file of any web server. Writing blocks the thread.
    pub(crate) async fn download(
        &self,
        ask: Ask<'_>,
        into: &mut std::fs::File,
    ) -> Result<Option<Downloaded>, RegistryError> {
        self.client.download(ask, into).await
    }

    /// Through which proxies what is reached.
    pub(crate) fn proxy(&self) -> &ProxyConfig {
        self.client.proxy()
    }

    /// What mends the store from registries. To be called on a thread of the runtime's.
    pub(crate) fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.client.clone(), tokio::runtime::Handle::current())
    }
}

/// As Docker has it.
const DOWNLOADS: usize = 3;
const UPLOADS: usize = 5;

/// Lines that may wait for a client.
const QUEUE: usize = 4096;
/// Below this many free places, lines that later ones replace are left out.
const SPARE: usize = 2048;
/// Tags of one repository that are pulled or pushed at once.
const MAX_TAGS: usize = 10_000;

/// Where lines of progress go. A client that does not read loses some, and holds nobody up.
#[derive(Clone)]
struct Lines(mpsc::Sender<ProgressEvent>);

impl Lines {
    fn send(&self, line: ProgressEvent) {
        // A client that has gone is noticed elsewhere.
        let _ = self.0.try_send(line);
    }

    fn status(&self, status: impl Into<String>) {
        self.send(ProgressEvent { status: Some(status.into()), ..Default::default() });
    }

    fn titled(&self, id: &str, status: impl Into<String>) {
        let line = ProgressEvent {
            status: Some(status.into()),
            title: true,
            id: Some(id.to_owned()),
            ..Default::default()
        };
        self.send(line);
    }

    fn layer(&self, id: &Digest, status: impl Into<String>, bytes: Option<(u64, u64)>) {
        if bytes.is_some() && self.0.capacity() < SPARE {
            return;
        }
        self.send(ProgressEvent {
            status: Some(status.into()),
            id: Some(id.short()),
            current: bytes.map(|(current, _)| current),
            total: bytes.map(|(_, total)| total),
            ..Default::default()
        });
    }
}

/// Runs `work` as long as its client listens; a failure is the stream's last line.
fn lines<F: Future<Output = Result<()>> + Send + 'static>(work: impl FnOnce(Lines) -> F) -> ProgressStream {
    let (tx, rx) = mpsc::channel(QUEUE);
    let work = work(Lines(tx.clone()));
    tokio::spawn(async move {
        let done = tokio::select! {
            done = work => done,
            () = tx.closed() => return,
        };
        if let Err(e) = done {
            let line = ProgressEvent { error: Some(e.to_string()), ..Default::default() };
            // A reader that is gone wants no reason.
            let _ = tx.send(line).await;
        }
    });
    Box::pin(stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) }))
}

/// The names that an image gets that is pulled by a name.
fn names_of(resolved: &Resolved, reference: &Reference) -> Vec<Reference> {
    let by_digest = reference.clone().with_digest(resolved.digest);
    let tagged = reference.digest().is_none();
    if tagged { vec![reference.clone(), by_digest] } else { vec![by_digest] }
}

impl Engine {
    /// Fetches an image, or all tags of a repository. What can be known at once fails at once; later failures come as
    /// events. A client that goes away ends the pull.
    ///
    /// # Errors
    /// `NotFound` in Docker's words when there is no such image or the registry does not show it.
    pub async fn pull(&self, request: PullRequest) -> Result<ProgressStream> {
        let repository = self.repository(&request.reference, &request.credentials);
        let mut wanted = if request.all_tags {
            let tags = repository.tags().await.map_err(|e| pull_error(&request.reference, e))?;
            if tags.len() > MAX_TAGS {
                let text = format!("{} has more than {MAX_TAGS} tags", request.reference.familiar_name());
                return Err(Error::new(Kind::TooLarge, text));
            }
            let tags = tags.iter().map(|t| Ok(request.reference.clone().with_tag(t)?));
            tags.collect::<Result<Vec<_>>>()?.into_iter()
        } else {
            vec![request.reference.clone().or_latest()].into_iter()
        };
        let Some(first) = wanted.next() else {
            let name = request.reference.familiar_name();
            return Err(Error::not_found(format!("repository {name} not found: it has no tags")));
        };
        let resolved = self.resolve(&repository, &first, request.platform.as_ref()).await?;
        let engine = self.clone();
        Ok(lines(move |lines| async move {
            if request.beside {
                return engine.pull_beside(&resolved, &first, &lines).await;
            }
            let names = names_of(&resolved, &first);
            let (mut id, mut newer) = engine.pull_one(&resolved, &first, names, &lines).await?;
            for reference in wanted {
                let resolved = engine.resolve(&repository, &reference, request.platform.as_ref()).await?;
                let names = names_of(&resolved, &reference);
                let (pulled, changed) = engine.pull_one(&resolved, &reference, names, &lines).await?;
                (id, newer) = (pulled, newer || changed);
            }
            let asked = if request.all_tags { &request.reference } else { &first };
            engine.name_event("pull", &id, asked);
            engine.image_added();
            let name = asked.familiar();
            lines.status(match newer {
                true => format!("Status: Downloaded newer image for {name}"),
                false => format!("Status: Image is up to date for {name}"),
            });
            if let Some(wanted) = request.platform.filter(|_| !request.all_tags) {
                engine.warn_of_platform(&first, &wanted, &lines).await?;
            }
            Ok(())
        }))
    }

    pub(crate) fn repository(&self, reference: &Reference, credentials: &Credentials) -> Repository {
        self.inner.registry.client.repository(reference, credentials.clone())
    }

    async fn resolve(
        &self,
        repository: &Repository,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<Resolved> {
        let at = manifest_ref(reference);
        Puller::resolve(repository, &at, platform).await.map_err(|e| pull_error(reference, e))
    }

    /// Pulls an image for the sake of its platform: what its name stands for to others does not change.
    async fn pull_beside(&self, resolved: &Resolved, reference: &Reference, lines: &Lines) -> Result<()> {
        let (id, _) = self.pull_one(resolved, reference, Vec::new(), lines).await?;
        let reference = reference.clone();
        self.blocking(move |e| {
            let images = e.inner.store.images();
            let (_, document) = images.document(&id)?;
            images.add_platform(&reference, IndexedImage::new(id, document.platform()), &Platform::host())?;
            Ok(())
        })
        .await?;
        lines.send(ProgressEvent { pulled: Some(id), ..Default::default() });
        self.image_added();
        Ok(())
    }

    /// Pulls one image and gives it `names`; whether the first meant another one before, or none.
    async fn pull_one(
        &self,
        resolved: &Resolved,
        reference: &Reference,
        names: Vec<Reference>,
        lines: &Lines,
    ) -> Result<(Digest, bool)> {
        let at = manifest_ref(reference).to_string();
        lines.titled(&at, format!("Pulling from {}", reference.repository()));
        let known = names.first().cloned();
        let before = self
            .blocking(move |e| Ok(known.map(|n| e.inner.store.images().lookup(&n)).transpose()?.flatten()))
            .await?;
        let told = lines.clone();
        let progress = move |layer: &Digest, step: PullStep| match step {
            PullStep::Missing => told.layer(layer, "Pulling fs layer", None),
            PullStep::Exists => told.layer(layer, "Already exists", None),
            PullStep::Elsewhere => told.layer(layer, "Waiting", None),
            PullStep::Downloading(seen, of) => told.layer(layer, "Downloading", Some((seen, of))),
            PullStep::Downloaded => told.layer(layer, "Download complete", None),
            PullStep::Unpacked => told.layer(layer, "Pull complete", None),
        };
        let pulled = self.inner.registry.puller.pull(resolved, names, Arc::new(progress)).await;
        let id = pulled.map_err(|e| pull_error(reference, e))?;
        lines.status(format!("Digest: {}", resolved.digest));
        Ok((id, before != Some(id)))
    }

    /// An image of another platform than was asked for is worth a word.
    async fn warn_of_platform(&self, reference: &Reference, wanted: &Platform, lines: &Lines) -> Result<()> {
        let has = self.image(&reference.to_string(), None).await?.document.platform();
        if !has.runs_on(wanted) {
            lines.status(format!(
                "WARNING: image with reference {} was found but its platform ({has}) does not match the specified platform ({wanted})",
                reference.familiar()
            ));
        }
        Ok(())
    }

    /// Announces what happened to an image by a name of it.
    fn name_event(&self, action: &str, id: &Digest, reference: &Reference) {
        let document = self.inner.store.images().document(id);
        let mut attributes =
            document.ok().and_then(|(_, d)| d.config).and_then(|c| c.labels).unwrap_or_default();
        attributes.insert("name".into(), reference.familiar_name());
        self.inner.events.publish("image", action, reference.familiar(), attributes);
    }

    /// Sends an image by one of its names, or all tags of a repository. Failures come as events.
    ///
    /// # Errors
    /// For names that cannot be pushed.
    pub async fn push(&self, request: PushRequest) -> Result<ProgressStream> {
        if request.reference.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let repository = self.repository(&request.reference, &request.credentials);
        let engine = self.clone();
        Ok(lines(move |lines| async move {
            let name = format!("{}/{}", request.reference.registry(), request.reference.repository());
            lines.status(format!("The push refers to repository [{name}]"));
            let wanted = request.clone();
            let mut last = None;
            for (reference, id) in engine.blocking(move |e| e.to_push(&wanted)).await? {
                engine.push_named(&repository, &reference, id, request.platform.as_ref(), &lines).await?;
                last = Some(id);
            }
            if let Some(id) = last {
                engine.name_event("push", &id, &request.reference);
            }
            Ok(())
        }))
    }

    /// The names to push and what they point to.
    fn to_push(&self, request: &PushRequest) -> Result<Vec<(Reference, Digest)>> {
        let wanted = &request.reference;
        let same = |r: &Reference| r.registry() == wanted.registry() && r.repository() == wanted.repository();
        let all = self.inner.store.images().references()?;
        let all: Vec<_> = all.into_iter().filter(|(r, _)| r.tag().is_some() && same(r)).collect();
        if all.is_empty() {
            return Err(Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                wanted.familiar_name()
            )));
        }
        if wanted.tag().is_none() {
            return Ok(all);
        }
        let one: Vec<_> = all.into_iter().filter(|(r, _)| r == wanted).collect();
        if one.is_empty() {
            return Err(Error::not_found(format!("tag does not exist: {}", wanted.familiar())));
        }
        Ok(one)
    }

    /// Sends what a name stands for: an image, or of several platforms the one that was asked for, or the index of all.
    async fn push_named(
        &self,
        repository: &Repository,
        reference: &Reference,
        id: Digest,
        platform: Option<&Platform>,
        lines: &Lines,
    ) -> Result<()> {
        let (name, tag) = (reference.clone(), reference.tag().unwrap_or_default());
        let index = self.blocking(move |e| Ok(e.inner.store.images().index(&name)?)).await?;
        let pushed = match (index, platform) {
            (Some(index), None) if index.form == IndexForm::Index => {
                let mut manifests = Vec::new();
                for image in &index.images {
                    lines.status(format!("{tag}: pushing the image for {}", image.platform));
                    let put = Put { tag: None, annotations: Some(&image.annotations) };
                    manifests.push(self.push_one(repository, put, image.id, lines).await?);
                }
                let pushed = self.inner.registry.pusher.push_index(&index, &manifests, repository, tag).await;
                pushed.map_err(push_error)?
            }
            (index, platform) => {
                let image = match (&index, platform) {
                    (Some(index), Some(platform)) => index.runs_on(platform),
                    (Some(index), None) => index.own(),
                    (None, _) => None,
                };
                let id = image.map_or(id, |image| image.id);
                if let Some(wanted) = platform {
                    self.check_platform(reference, id, wanted).await?;
                }
                let annotations = image.map(|image| &image.annotations).filter(|a| !a.is_empty());
                self.push_one(repository, Put { tag: Some(tag), annotations }, id, lines).await?
            }
        };
        lines.status(format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
        let aux = Pushed { tag: tag.to_owned(), digest: pushed.digest, size: pushed.size };
        lines.send(ProgressEvent { pushed: Some(aux), ..Default::default() });
        Ok(())
    }

    async fn check_platform(&self, reference: &Reference, id: Digest, wanted: &Platform) -> Result<()> {
        let has = self.image(&id.to_string(), None).await?.document.platform();
        match has.runs_on(wanted) {
            true => Ok(()),
            false => Err(Error::not_found(format!(
                "image {} is there for {has}, but not for {wanted}",
                reference.familiar()
            ))),
        }
    }

    async fn push_one(
        &self,
        repository: &Repository,
        put: Put<'_>,
        id: Digest,
        lines: &Lines,
    ) -> Result<longshore_registry::Pushed> {
        let told = lines.clone();
        let progress = move |layer: &Digest, step: PushStep| match step {
            PushStep::Preparing => told.layer(layer, "Preparing", None),
            PushStep::Waiting => told.layer(layer, "Waiting", None),
            PushStep::Compressing(seen) => told.layer(layer, "Compressing", Some((seen, 0))),
            PushStep::Pushing(seen, of) => told.layer(layer, "Pushing", Some((seen, of))),
            PushStep::Pushed => told.layer(layer, "Pushed", None),
            PushStep::Exists => told.layer(layer, "Layer already exists", None),
            PushStep::Mounted(from) => told.layer(layer, format!("Mounted from {from}"), None),
        };
        let store = self.inner.store.clone();
        let origins = Arc::new(move |blob: &Digest| store.sources(blob).unwrap_or_default());
        let pushed = self.inner.registry.pusher.push(id, repository, put, origins, Arc::new(progress)).await;
        pushed.map_err(push_error)
    }

    /// What a registry has under a name, and for which platforms.
    ///
    /// # Errors
    /// When there is nothing, or the registry does not show it.
    pub async fn distribution(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Distribution> {
        let reference = reference.clone().or_latest();
        let repository = self.repository(&reference, credentials);
        let fetched = repository.manifest(&manifest_ref(&reference)).await.map_err(plain_error)?;
        let descriptor = describe(&fetched);
        let platforms = match &fetched.document {
            Document::Index(index) => index.manifests.iter().filter_map(|m| m.platform.clone()).collect(),
            Document::Manifest(manifest) => {
                let config = repository.read_blob(&manifest.config, MAX_CONFIG).await.map_err(plain_error)?;
                serde_json::from_slice::<Platform>(&config).into_iter().collect()
            }
        };
        Ok(Distribution { descriptor, platforms })
    }

    /// A manifest as a registry has it; with `all`, those that an index names as well.
    ///
    /// # Errors
    /// As [`Engine::distribution`].
    pub async fn manifest(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        all: bool,
    ) -> Result<ManifestView> {
        let reference = reference.clone().or_latest();
        let repository = self.repository(&reference, credentials);
        let fetched = repository.manifest(&manifest_ref(&reference)).await.map_err(plain_error)?;
        let mut view = ManifestView {
            descriptor: describe(&fetched),
            raw: fetched.bytes.clone(),
            manifests: Vec::new(),
        };
        if let Document::Index(index) = &fetched.document
            && all
        {
            for entry in index.manifests.iter().take(MAX_ENTRIES) {
                let at = ManifestRef::Digest(entry.digest);
                let fetched = repository.manifest(&at).await.map_err(plain_error)?;
                let descriptor = Descriptor { platform: entry.platform.clone(), ..describe(&fetched) };
                view.manifests.push(ManifestView { descriptor, raw: fetched.bytes, manifests: Vec::new() });
            }
        }
        Ok(view)
    }

    /// Checks a user's credentials at a registry; gives a token to keep in the password's place, where the registry has
    /// such.
    ///
    /// # Errors
    /// `Unauthorized` when they are refused.
    pub async fn login(&self, registry: &str, credentials: Credentials) -> Result<Option<String>> {
        let login = self.inner.registry.client.login(registry, credentials).await;
        Ok(login.map_err(plain_error)?.identity_token)
    }

    /// Repositories that a registry's search finds.
    ///
    /// # Errors
    /// For filters that are wrong; when the registry has no search.
    pub async fn search(&self, request: SearchRequest) -> Result<Vec<SearchHit>> {
        let f = &request.filters;
        filters::check_known(f, &["is-automated", "is-official", "stars"])?;
        let (automated, official) = (filters::flag(f, "is-automated")?, filters::flag(f, "is-official")?);
        let stars = filters::values(f, "stars").into_iter().flatten();
        let stars: Vec<u64> = stars
            .map(|s| s.parse().map_err(|_| Error::invalid(format!("invalid filter 'stars={s}'"))))
            .collect::<Result<_>>()?;
        let (registry, term) = match request.term.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => ("docker.io", request.term.as_str()),
        };
        let found = self.inner.registry.client.search(registry, term, request.limit, request.credentials);
        let found = found.await.map_err(plain_error)?.into_iter().map(|h| SearchHit {
            name: h.name,
            description: h.description,
            stars: h.stars,
            official: h.official,
            automated: h.automated,
        });
        Ok(found
            .filter(|h| automated.is_none_or(|a| a == h.automated))
            .filter(|h| official.is_none_or(|o| o == h.official))
            .filter(|h| stars.iter().all(|s| h.stars >= *s))
            .collect())
    }

    /// The images that refer to a manifest: signatures, lists of what is in it.
    ///
    /// # Errors
    /// As [`Engine::distribution`].
    pub async fn referrers(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let reference = reference.clone().or_latest();
        let repository = self.repository(&reference, credentials);
        let subject = match reference.digest() {
            Some(digest) => *digest,
            None => repository.manifest(&manifest_ref(&reference)).await.map_err(plain_error)?.digest,
        };
        Ok(repository.referrers(&subject, artifact_type).await.map_err(plain_error)?.manifests)
    }
}

/// Manifests of an index that are fetched to be shown.
const MAX_ENTRIES: usize = 200;

pub(crate) fn manifest_ref(reference: &Reference) -> ManifestRef {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => ManifestRef::Digest(*digest),
        (None, tag) => ManifestRef::Tag(tag.unwrap_or("latest").to_owned()),
    }
}

fn describe(fetched: &longshore_registry::Fetched) -> Descriptor {
    Descriptor::new(fetched.media_type.clone(), fetched.digest, fetched.bytes.len() as u64)
}

/// An error of a pull in Docker's words, which clients parse.
fn pull_error(reference: &Reference, e: RegistryError) -> Error {
    let Some(refusal) = e.refusal() else { return plain_error(e) };
    let (name, words) = (reference.familiar_name(), refusal.words());
    match (e.code(), refusal.status) {
        (Some("DENIED" | "UNAUTHORIZED"), _) | (_, 401 | 403) => Error::not_found(format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {words}"
        )),
        (Some("MANIFEST_UNKNOWN"), _) => {
            Error::not_found(format!("manifest for {} not found: {words}", reference.familiar()))
        }
        (Some("NAME_UNKNOWN"), _) => Error::not_found(format!("repository {name} not found: {words}")),
        _ => plain_error(e),
    }
}

/// An error of a push: the registry's own words.
fn push_error(e: RegistryError) -> Error {
    match e.refusal() {
        Some(refusal)
            if matches!(e.code(), Some("DENIED" | "UNAUTHORIZED"))
                || (refusal.status == 401 && refusal.errors.is_empty()) =>
        {
            Error::new(e.kind(), refusal.words())
        }
        _ => plain_error(e),
    }
}

fn plain_error(e: RegistryError) -> Error {
    match (e.code(), e.refusal()) {
        (Some("MANIFEST_UNKNOWN" | "NAME_UNKNOWN"), Some(refusal)) => Error::not_found(refusal.words()),
        // Clients take 503 for "not now" and ask again; this is final.
        _ if e.kind() == Kind::Unavailable => Error::internal(e.to_string()),
        _ => Error::new(e.kind(), e.to_string()),
    }
}
