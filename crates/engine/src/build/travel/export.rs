//! Sending the build cache away, once the image is there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longshore_build::graph::StepId;
use longshore_build::layout::Peer;
use longshore_build::plan::{Image, Plan};
use longshore_build::portable::{self, Document, PortableMount, PortableStep};
use longshore_build::{Cancel, Error as BuildError, Outcome};
use longshore_oci::image::{Descriptor, Index, media};
use longshore_oci::{Digest, Kind, Reference};
use longshore_registry::PushStep;
use longshore_store::archive::{Dispatch, PackedTree, Part, SentManifest};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::import::Imports;
use super::{REF_NAME, Send, Task, parse_index};
use crate::Engine;
use crate::model::{BuildEvent, BuildRequest, BuildTask, CacheDirectory, CachePlace, CacheTo};

/// How often it is looked whether the client is still there.
const LOOK: Duration = Duration::from_millis(200);

/// Bytes of a document that an image takes: its configuration has to be read again.
const MAX_INLINE: u64 = 1 << 20;

/// What was built.
pub(in crate::build) struct Made<'a> {
    pub(in crate::build) plan: &'a Plan,
    pub(in crate::build) outcomes: &'a [Option<Outcome>],
    /// Where layers are that were not needed, and did not come.
    pub(in crate::build) imports: &'a Imports<'a>,
}

impl Made<'_> {
    /// What is told of steps.
    fn document(
        &self,
        ids: Vec<StepId>,
        mounts: Vec<PortableMount>,
        has: &dyn Fn(&Digest) -> bool,
    ) -> Document {
        let step = |id: StepId| {
            let outcome = self.outcomes.get(id.0)?.as_ref()?;
            if !outcome.diff_id.as_ref().is_none_or(has) {
                return None;
            }
            Some(PortableStep::new(outcome, &self.plan.graph.step(id)?.name))
        };
        Document::new(ids.into_iter().filter_map(step).collect(), mounts)
    }

    /// A chain for each layer.
    fn chains(&self) -> BTreeMap<Digest, Digest> {
        let outcomes = self.outcomes.iter().flatten();
        outcomes.filter_map(|outcome| Some((outcome.diff_id?, outcome.chain?))).collect()
    }
}

/// The steps whose layers an image has.
fn made_of(image: &Image) -> Vec<StepId> {
    image.made.iter().filter_map(|made| made.step).collect()
}

/// What goes into an image itself, if that was asked for.
///
/// # Errors
/// When it is too large.
pub(in crate::build) fn inline(
    made: &Made<'_>,
    image: &Image,
    request: &BuildRequest,
) -> Result<Option<String>, BuildError> {
    let argument = request.args.get("BUILDKIT_INLINE_CACHE").map(String::as_str);
    if !matches!(argument, Some("1" | "true"))
        && !request.cache_to.iter().any(|to| to.to == CachePlace::Inline)
    {
        return Ok(None);
    }
    let bytes =
        made.document(made_of(image), Vec::new(), &|_| true).to_bytes().map_err(BuildError::TooLarge)?;
    if bytes.len() as u64 > MAX_INLINE {
        let size = bytes.len();
        return Err(BuildError::TooLarge(format!(
            "the cache's document has {size} bytes, an image takes {MAX_INLINE}: use --cache-to type=registry"
        )));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Sends the cache wherever the request wants it.
///
/// # Errors
/// For the first place that cannot take it, unless that is to be ignored; [`BuildError::Cancelled`].
pub(in crate::build) fn export_all(
    engine: &Engine,
    request: &BuildRequest,
    made: &Made<'_>,
    runtime: &Handle,
    cancel: &Cancel,
    send: Send<'_>,
) -> Result<(), BuildError> {
    for to in &request.cache_to {
        let name = match &to.to {
            CachePlace::Registry(reference) => format!("registry {}", reference.familiar()),
            CachePlace::Directory(directory) => format!("client directory {}", directory.name),
            CachePlace::Inline => continue,
        };
        let task = Task::begin(format!("exporting cache to {name}"), send);
        let passed_on = Cell::new(false);
        let export = Export { engine, request, runtime, cancel, task: &task, passed_on: &passed_on };
        let mut done = export.run(made, to, true);
        if let Err((_, why)) = &done
            && passed_on.get()
            && !cancel.is_off()
        {
            // No other cache may make a build fail.
            task.note(format!("{why}; again, without what other caches have and this daemon has not"));
            done = export.run(made, to, false);
        }
        if cancel.is_off() {
            return Err(BuildError::Cancelled);
        }
        match done {
            Ok(()) => task.tell(BuildTask::Done),
            Err((kind, why)) => {
                task.tell(BuildTask::Failed(why.clone()));
                let message = format!("failed to export the cache to {name}: {why}");
                if !to.ignore_error {
                    return Err(BuildError::Host { kind, message });
                }
                send(BuildEvent::Warning(message));
            }
        }
    }
    Ok(())
}

/// Why a cache was not sent.
type Failed = (Kind, String);

fn of_store(e: longshore_store::Error) -> Failed {
    (e.kind(), e.to_string())
}

fn of_client(e: std::io::Error) -> Failed {
    (Kind::Unavailable, e.to_string())
}

struct Export<'a> {
    engine: &'a Engine,
    request: &'a BuildRequest,
    runtime: &'a Handle,
    cancel: &'a Cancel,
    task: &'a Task<'a>,
    /// Something was to be sent that only another cache has.
    passed_on: &'a Cell<bool>,
}

impl Export<'_> {
    fn run(&self, made: &Made<'_>, to: &CacheTo, pass_on: bool) -> Result<(), Failed> {
        self.task.note("preparing build cache for export");
        let (mut trees, mut mounts) = (BTreeMap::new(), Vec::new());
        if to.mounts {
            for (name, tree) in self.mounts(made)? {
                mounts.push(PortableMount { name, diff_id: tree.diff_id() });
                trees.insert(tree.diff_id(), tree);
            }
        }
        let (mut parts, mut origins) = (BTreeMap::new(), BTreeMap::new());
        for (diff_id, chain) in made.chains() {
            if self.has(&chain)? {
                parts.insert(diff_id, Part::Layer(chain));
            } else if pass_on && let Some((absent, origin)) = made.imports.absent(&diff_id, self.cancel) {
                self.passed_on.set(true);
                origin.map(|origin| origins.insert(absent.blob.digest, origin));
                parts.insert(diff_id, Part::Elsewhere(absent));
            }
        }
        let ids = match to.max {
            true => made.plan.wanted(),
            false => made.plan.images.iter().flat_map(made_of).collect(),
        };
        let document = made.document(ids, mounts, &|diff_id| parts.contains_key(diff_id));
        let bytes = document.to_bytes().map_err(|e| (Kind::TooLarge, e))?;
        let part = |diff_id| parts.remove(diff_id).or_else(|| trees.remove(diff_id).map(Part::Tree));
        let chosen = document.layers.iter().filter_map(part).collect();
        let store = &self.engine.inner.store;
        let dispatch = Dispatch::of_parts(store, bytes, chosen, "build cache").map_err(of_store)?;
        match &to.to {
            CachePlace::Registry(reference) => self.push(dispatch, reference, origins),
            CachePlace::Directory(directory) => self.write(&dispatch, directory),
            CachePlace::Inline => Ok(()),
        }
    }

    fn has(&self, chain: &Digest) -> Result<bool, Failed> {
        Ok(self.engine.inner.store.layer(chain).map_err(of_store)?.is_some())
    }

    /// The cache mounts that the build's commands see, packed.
    fn mounts(&self, made: &Made<'_>) -> Result<Vec<(String, PackedTree)>, Failed> {
        let mut packed = Vec::new();
        for name in made.plan.graph.cache_mounts(&made.plan.wanted()) {
            let builder = &self.engine.inner.builder;
            let tree = builder.with_cache(&name, |dir| Ok(builder.store().pack_tree(dir)?));
            match tree.map_err(|e| (e.kind(), format!("cache mount {name}: {e}")))? {
                Some(tree) => packed.push((name, tree)),
                None => self.task.note(format!("cache mount {name} is left out: it is empty or in use")),
            }
        }
        Ok(packed)
    }

    fn push(
        &self,
        dispatch: Dispatch,
        reference: &Reference,
        more: BTreeMap<Digest, String>,
    ) -> Result<(), Failed> {
        let credentials = self.request.credentials.get(reference.registry()).cloned().unwrap_or_default();
        let repository = self.engine.repository(reference, &credentials);
        let tag = reference.tag().unwrap_or("latest").to_owned();
        let store = self.engine.inner.store.clone();
        let origins = Arc::new(move |blob: &Digest| {
            let known = store.sources(blob).unwrap_or_default();
            more.get(blob).cloned().into_iter().chain(known).collect()
        });
        let (tell, mut told) = mpsc::unbounded_channel();
        let progress = move |layer: &Digest, step: PushStep| {
            let what = match step {
                PushStep::Pushed => "pushed",
                PushStep::Exists => "is there already",
                PushStep::Mounted(_) => "is there, in another repository",
                _ => return,
            };
            // Nobody listens any more once it was given up.
            let _ = tell.send(format!("layer {} {what}", layer.short()));
        };
        let pusher = self.engine.inner.registry.pusher.clone();
        let config = dispatch.config().to_vec();
        let pushing = self.runtime.spawn(async move {
            let manifest = |layers: &[Descriptor]| {
                sent_manifest(&config, layers).map_err(longshore_registry::Error::Internal)
            };
            pusher
                .push_layers(Arc::new(dispatch), &repository, &tag, origins, Arc::new(progress), manifest)
                .await
        });
        loop {
            match self.runtime.block_on(async { tokio::time::timeout(LOOK, told.recv()).await }) {
                Ok(Some(note)) => self.task.note(note),
                Ok(None) => break,
                Err(_) if self.cancel.is_off() => {
                    pushing.abort();
                    break;
                }
                Err(_) => {}
            }
        }
        match self.runtime.block_on(pushing) {
            Ok(Ok(pushed)) => {
                self.task.note(format!("wrote cache image manifest {}", pushed.digest));
                Ok(())
            }
            Ok(Err(e)) => Err((e.kind(), e.to_string())),
            Err(_) => Err((Kind::Cancelled, "it was given up".to_owned())),
        }
    }

    /// Puts what is missing into a client's directory.
    fn write(&self, dispatch: &Dispatch, directory: &CacheDirectory) -> Result<(), Failed> {
        let gone = || (Kind::Unavailable, "the client does not offer it any more".to_owned());
        let peer = self.engine.inner.layouts.find(&directory.id).ok_or_else(gone)?;
        let mut layers = Vec::new();
        for (n, diff_id) in dispatch.diff_ids().into_iter().enumerate() {
            if self.cancel.is_off() {
                return Err((Kind::Cancelled, "it was given up".to_owned()));
            }
            let blob = match dispatch.known(n) {
                Some(known) if peer.has(&known.digest).map_err(of_client)? => known,
                _ => {
                    let blob = dispatch.blob(n, &mut |_| ()).map_err(of_store)?;
                    self.put(&peer, dispatch, &blob.digest)?;
                    blob
                }
            };
            self.task.note(format!("layer {} written", diff_id.short()));
            layers.push(blob);
        }
        self.put(&peer, dispatch, &dispatch.id())?;
        let manifest = sent_manifest(dispatch.config(), &layers).map_err(|e| (Kind::Internal, e))?;
        peer.write(&manifest.digest, &mut manifest.bytes.as_slice()).map_err(of_client)?;
        let index = self.index(&peer, &manifest, &directory.tag)?;
        peer.put_index(&index).map_err(of_client)?;
        self.task.note(format!("wrote cache image manifest {}", manifest.digest));
        Ok(())
    }

    fn put(&self, peer: &Arc<Peer>, dispatch: &Dispatch, blob: &Digest) -> Result<(), Failed> {
        if peer.has(blob).map_err(of_client)? {
            return Ok(());
        }
        peer.write(blob, &mut dispatch.open(blob).map_err(of_store)?).map_err(of_client)
    }

    /// The directory's index with the cache in it, in the place of the one that had its name.
    fn index(&self, peer: &Arc<Peer>, manifest: &SentManifest, tag: &str) -> Result<Vec<u8>, Failed> {
        let before = peer.index().map_err(of_client)?;
        let before = before.map(|bytes| parse_index(&bytes)).transpose().map_err(|e| (Kind::Invalid, e))?;
        let mut index = before.unwrap_or_else(|| Index {
            schema_version: 2,
            media_type: Some(media::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: Vec::new(),
            subject: None,
            annotations: BTreeMap::new(),
        });
        index.manifests.retain(|m| m.annotations.get(REF_NAME).is_none_or(|name| name != tag));
        index.manifests.push(Descriptor {
            media_type: manifest.media_type.clone(),
            digest: manifest.digest,
            size: manifest.bytes.len() as u64,
            urls: Vec::new(),
            annotations: BTreeMap::from([(REF_NAME.to_owned(), tag.to_owned())]),
            platform: None,
            artifact_type: Some(portable::ARTIFACT.to_owned()),
        });
        serde_json::to_vec(&index).map_err(|e| (Kind::Internal, format!("write index.json: {e}")))
    }
}

fn sent_manifest(document: &[u8], layers: &[Descriptor]) -> Result<SentManifest, String> {
    let manifest = portable::manifest(document, layers);
    let bytes = serde_json::to_vec(&manifest).map_err(|e| format!("write a manifest: {e}"))?;
    Ok(SentManifest { digest: Digest::of(&bytes), bytes, media_type: media::OCI_MANIFEST.to_owned() })
}
