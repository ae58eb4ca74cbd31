//! Builds: a client's context and request in, an image out.

mod agent;
mod cache;
mod export;
mod failed;
mod fetch;
mod images;
mod layout;
mod platforms;
mod rows;
mod runner;
mod secrets;
mod source;
mod squash;
mod travel;

pub(crate) use self::images::{Bases, fits};
pub(crate) use self::runner::{HIDDEN, finish_step, kill, to_build};
pub use self::source::BuildInput;
pub(crate) use self::travel::Layouts;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::stream;
use longshore_build::context::Context;
use longshore_build::dockerfile::Finding;
use longshore_build::graph::{StepId, Tree};
use longshore_build::plan::{Image, NoCache, Options, Plan, check, document, plan};
use longshore_build::{Cancel, Error as BuildError, Job};
use longshore_oci::{Digest, Platform};
use longshore_store::archive::Unrecorded;
use longshore_store::lease::Lease;
use tokio::sync::mpsc;

use self::fetch::Fetches;
use self::rows::Rows;
use self::source::{Incoming, Ready, Start};
use self::travel::{Imports, Made, export_all, inline};
use crate::model::{BuildEvent, BuildRequest};
use crate::stream::BoxStream;
use crate::{Engine, Error, Result};

/// Events of a build; a failure is the last.
pub type BuildStream = BoxStream<BuildEvent>;

/// What each step gave, and the chain ids of the layers that were made for this build.
type Solved = (Vec<Option<longshore_build::Outcome>>, BTreeSet<Digest>);

/// Lines that may wait for a client; then its build waits.
const QUEUE: usize = 256;
/// Where the contexts of builds that are under way lie, below the data root.
const DIR: &str = "builds";

/// Where the files of a build's steps come from.
struct Sources<'a> {
    contexts: &'a [Context],
    fetches: &'a Fetches<'a>,
}

/// What a plan is carried out with.
#[derive(Clone, Copy)]
struct With<'a> {
    request: &'a BuildRequest,
    imports: &'a Imports<'a>,
    lease: &'a Lease,
    cancel: &'a Cancel,
    send: &'a (dyn Fn(BuildEvent) + Send + Sync),
}

impl Engine {
    /// Builds an image. What can be known at once fails at once; the rest comes as events. A client that goes away ends
    /// the build.
    ///
    /// # Errors
    /// For a context or a Dockerfile that is none.
    pub async fn build(&self, request: BuildRequest, input: BuildInput) -> Result<BuildStream> {
        platforms::check(&request)?;
        let incoming = Incoming::begin(input);
        let asked = request.dockerfile.clone();
        let start = self.blocking(move |e| e.receive(incoming, &asked)).await?;
        if let Start::Ready(ready) = &start {
            ready.has_target(request.target.as_deref().unwrap_or_default())?;
        }
        let (tx, rx) = mpsc::channel(QUEUE);
        let engine = self.clone();
        let cancel = Cancel::new();
        let (gone, off) = (tx.clone(), cancel.clone());
        let watch = tokio::spawn(async move {
            gone.closed().await;
            off.call_off();
        });
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let told = AtomicBool::new(false);
            let send = |event: BuildEvent| {
                told.fetch_or(matches!(event, BuildEvent::Failed { .. }), Ordering::Relaxed);
                // A client that has gone calls the build off by that.
                let _ = tx.blocking_send(event);
            };
            let begun = match start {
                Start::Ready(ready) => Ok(ready),
                Start::Fetch(remote, rest) => {
                    engine.receive_from(remote, rest, &request, &runtime, &cancel, &send)
                }
            };
            let mut ready = None;
            let built = begun
                .map_err(to_build)
                .and_then(|begun| engine.build_in(ready.insert(begun), &request, &cancel, &runtime, &send));
            if let Err(e) = built
                && !told.load(Ordering::Relaxed)
            {
                send(rows::failure(&e, None));
            }
            // The client need not wait until its files are removed.
            watch.abort();
            drop(tx);
            drop(ready);
        });
        Ok(Box::pin(stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) })))
    }

    fn build_in(
        &self,
        ready: &mut Ready,
        request: &BuildRequest,
        cancel: &Cancel,
        runtime: &tokio::runtime::Handle,
        send: &(dyn Fn(BuildEvent) + Send + Sync),
    ) -> Result<(), BuildError> {
        if request.check {
            let found = check(&ready.file, &options(request))?;
            tell(&found, send);
            send(BuildEvent::Checked(found.len()));
            return Ok(());
        }
        let lease = self.inner.store.lease("build")?;
        let bases = Bases::new(self, request, &lease, runtime, send);
        let plan = plan(&ready.file, &options(request), &bases)?;
        tell(&plan.findings, send);
        let fetches = Fetches::new(self, runtime, request).map_err(to_build)?;
        let imports = Imports::open(self, request, runtime, cancel, send);
        let with = With { request, imports: &imports, lease: &lease, cancel, send };
        let (outcomes, new) = self.with_contexts(&mut ready.files, &plan, send, |contexts| {
            let files = Sources { contexts, fetches: &fetches };
            self.solve(&plan, &files, &with)
        })?;
        if cancel.is_off() {
            return Err(BuildError::Cancelled);
        }
        if !plan.unused_args.is_empty() {
            send(BuildEvent::Warning(format!(
                "[Warning] One or more build-args [{}] were not consumed",
                plan.unused_args.join(" ")
            )));
        }
        let made = Made { plan: &plan, outcomes: &outcomes, imports: &imports };
        let finish = |image| self.finish_image(&made, image, request, &lease);
        let images = plan.images.iter().map(finish).collect::<Result<Vec<_>, _>>()?;
        let index = platforms::index_of(request, &images)?;
        self.export_build(request, &images, &index, cancel, send)?;
        if request.unrecorded {
            return export_all(self, request, &made, runtime, cancel, send);
        }
        for id in self.record_built(request, images, &index)? {
            self.warn_of_secrets(&id, &new, send)?;
        }
        self.announce(&index.of, request, send);
        tracing::debug!(image = %index.of, "built");
        export_all(self, request, &made, runtime, cancel, send)
    }

    /// An image whose steps are done, as it is recorded or sent.
    fn finish_image(
        &self,
        made: &Made<'_>,
        image: &Image,
        request: &BuildRequest,
        lease: &Lease,
    ) -> Result<Unrecorded, BuildError> {
        let mut top = match image.tree {
            Tree::Layers(chain) => chain,
            Tree::Step(StepId(n)) => made.outcomes.get(n).and_then(Option::as_ref).and_then(|o| o.chain),
        };
        let mut document = document(image, made.outcomes);
        document.build_cache = inline(made, image, request)?;
        if request.squash {
            top = self.squash(image, top, &mut document, lease)?;
        }
        Ok(Unrecorded { top, document })
    }

    fn solve(&self, plan: &Plan, files: &Sources<'_>, with: &With<'_>) -> Result<Solved, BuildError> {
        let With { request, imports, lease, cancel, send } = *with;
        let rows = Rows::new(plan, send);
        let failed = Mutex::default();
        let job = Job {
            graph: &plan.graph,
            wanted: &plan.wanted(),
            contexts: files.contexts,
            fetcher: files.fetches,
            secrets: &request.secrets,
            agents: &request.agents,
            explain: request.explain,
            failed: request.keep_failed.then_some(&failed),
            runner: self,
            watcher: &rows,
            cancel,
            parallel: std::thread::available_parallelism().map_or(2, usize::from).max(2),
            lease,
            elsewhere: if imports.is_empty() { None } else { Some(imports) },
            kept: &plan.images.iter().map(|image| image.tree).collect::<Vec<_>>(),
        };
        rows.begin();
        let done = self.inner.builder.solve(&job);
        if let Err(e) = &done {
            if let Err(e) = self.tell_failed(plan, &failed, send) {
                tracing::warn!("what a failed command left cannot be kept: {e}");
            }
            rows.failed(e);
        }
        Ok((done?, rows.made()))
    }

    fn announce(&self, id: &Digest, request: &BuildRequest, send: &(dyn Fn(BuildEvent) + Send + Sync)) {
        self.image_added();
        send(BuildEvent::Built(*id));
        for tag in &request.tags {
            self.image_event("tag", id, &tag.familiar());
            send(BuildEvent::Tagged(tag.clone()));
        }
    }
}

/// Tells what the linter found.
fn tell(found: &[Finding], send: &(dyn Fn(BuildEvent) + Send + Sync)) {
    for finding in found {
        let (rule, message) = (finding.rule.name(), finding.message.clone());
        send(BuildEvent::Lint { rule, message, line: finding.span.line });
    }
}

fn options(request: &BuildRequest) -> Options {
    Options {
        target: request.target.clone(),
        args: request.args.clone(),
        labels: request.labels.clone(),
        platforms: request.platforms.clone(),
        host: Platform::host(),
        no_cache: match request.fresh_stages.as_slice() {
            _ if request.no_cache => NoCache::Always,
            [] => NoCache::Never,
            stages => NoCache::Stages(stages.iter().map(|s| s.to_lowercase()).collect()),
        },
        network: request.network.clone(),
        hosts: request.hosts.clone(),
        limits: request.limits.clone(),
        allowed: request.allowed,
        contexts: request.contexts.clone(),
    }
}

/// An error of the builder, for those who asked.
pub(crate) fn of_build(e: BuildError) -> Error {
    Error::new(e.kind(), e.to_string())
}

/// One builder for a store.
pub(crate) fn builder(store: &longshore_store::Store) -> Arc<longshore_build::Builder> {
    Arc::new(longshore_build::Builder::new(store.clone()))
}
