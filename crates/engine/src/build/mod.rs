//! Builds: a client's context and request in, an image out.

mod cache;
mod images;
mod rows;
mod runner;

pub(crate) use self::images::{Bases, fits};
pub(crate) use self::runner::{HIDDEN, finish_step, kill, to_build};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream;
use longshore_build::context::{Context, UnpackOptions, unpack};
use longshore_build::dockerfile::{self, Dockerfile, Finding};
use longshore_build::graph::{StepId, Tree};
use longshore_build::ignore::{self, Ignore};
use longshore_build::plan::{NoCache, Options, Plan, check, document, plan};
use longshore_build::{Cancel, Error as BuildError, Job, Secrets};
use longshore_oci::{Digest, Platform};
use longshore_store::archive;
use longshore_store::lease::Lease;
use longshore_sys::root::Root;
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;

use self::rows::Rows;
use crate::engine::{make_dir, remove_dir};
use crate::model::{BuildEvent, BuildRequest};
use crate::stream::{BodyStream, BoxStream};
use crate::{Engine, Error, Result, names, pipe};

/// Events of a build; a failure is the last.
pub type BuildStream = BoxStream<BuildEvent>;

/// Lines that may wait for a client; then its build waits.
const QUEUE: usize = 256;
/// Bytes that a Dockerfile or an ignore file may have.
const MAX_FILE: u64 = 16 << 20;
/// Where the contexts of builds that are under way lie, below the data root.
pub(crate) const DIR: &str = "builds";

/// A client's files while its build is under way; dropped, they are gone.
pub(crate) struct Site {
    pub(crate) dir: PathBuf,
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(e) = remove_dir(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), "a build's context stays until the next start: {e}");
        }
    }
}

/// A build that was understood and not begun.
struct Ready {
    site: Site,
    file: Dockerfile,
    context: Context,
}

impl Engine {
    /// Builds an image of a context that comes as a tar. What can be known at once fails at once; the rest comes as
    /// events. A client that goes away ends the build.
    ///
    /// # Errors
    /// For a context or a Dockerfile that is none.
    pub async fn build(&self, request: BuildRequest, body: BodyStream) -> Result<BuildStream> {
        let reader = pipe::into_reader(body);
        let asked = request.dockerfile.clone();
        let ready = self.blocking(move |e| e.receive(reader, &asked)).await?;
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
            if let Err(e) = engine.build_in(&ready, &request, &cancel, &runtime, &send)
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

    /// Unpacks a context and reads its Dockerfile.
    fn receive(&self, reader: pipe::BodyReader, asked: &str) -> Result<Ready> {
        let all = self.inner.paths.data.join(DIR);
        make_dir(&all, 0o700)?;
        let site = Site { dir: all.join(names::new_id()?) };
        // A client's users are nobody's in an image.
        let options = UnpackOptions { owner: Some((0, 0)), ..UnpackOptions::default() };
        let tree = unpack(reader, &site.dir, &options).map_err(|e| of_build(e.into()))?.root;
        let name = if asked.is_empty() { "Dockerfile" } else { asked };
        let root = Root::open(&tree)?;
        let text = read(&root, name)?
            .ok_or_else(|| Error::invalid(format!("Cannot locate specified Dockerfile: {name}")))?;
        let file = dockerfile::parse(&text).map_err(|e| Error::invalid(e.to_string()))?;
        let ignore = ignore_of(&root, name)?;
        let context = context(&tree, &ignore)?;
        Ok(Ready { site, file, context })
    }

    fn build_in(
        &self,
        ready: &Ready,
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
        let bases = Bases { engine: self, request, lease: &lease, runtime, send };
        let plan = plan(&ready.file, &options(request), &bases)?;
        tell(&plan.findings, send);
        let outcomes = self.solve(&plan, &ready.context, &request.secrets, &lease, cancel, send)?;
        if cancel.is_off() {
            return Err(BuildError::Cancelled);
        }
        let top = match plan.image.tree {
            Tree::Layers(chain) => chain,
            Tree::Step(StepId(n)) => outcomes.get(n).and_then(Option::as_ref).and_then(|o| o.chain),
        };
        if !plan.unused_args.is_empty() {
            send(BuildEvent::Warning(format!(
                "[Warning] One or more build-args [{}] were not consumed",
                plan.unused_args.join(" ")
            )));
        }
        let document = document(&plan.image, &outcomes);
        let id = archive::record(&self.inner.store, top, &request.tags, document)?;
        self.announce(&id, request, send);
        tracing::debug!(image = %id, dir = %ready.site.dir.display(), "built");
        Ok(())
    }

    fn solve(
        &self,
        plan: &Plan,
        context: &Context,
        secrets: &Secrets,
        lease: &Lease,
        cancel: &Cancel,
        send: &(dyn Fn(BuildEvent) + Send + Sync),
    ) -> Result<Vec<Option<longshore_build::Outcome>>, BuildError> {
        let rows = Rows::new(plan, send);
        let wanted: Vec<StepId> = plan.rows.iter().filter_map(|row| row.step).collect();
        let job = Job {
            graph: &plan.graph,
            wanted: &wanted,
            contexts: std::slice::from_ref(context),
            secrets,
            runner: self,
            watcher: &rows,
            cancel,
            parallel: std::thread::available_parallelism().map_or(2, usize::from).max(2),
            lease,
        };
        rows.begin();
        self.inner.builder.solve(&job).inspect_err(|e| rows.failed(e))
    }

    fn announce(&self, id: &Digest, request: &BuildRequest, send: &(dyn Fn(BuildEvent) + Send + Sync)) {
        self.image_added();
        send(BuildEvent::Built(*id));
        for tag in &request.tags {
            self.image_event("tag", id, &tag.familiar());
            send(BuildEvent::Tagged(tag.clone()));
        }
    }

    /// Removes what builds of an earlier daemon left. For a start only.
    pub(crate) fn sweep_builds(&self) {
        let dir = self.inner.paths.data.join(DIR);
        if dir.exists()
            && let Err(e) = remove_dir(&dir)
        {
            tracing::warn!("sweeping the contexts of builds: {e}");
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
    let host = Platform::host();
    Options {
        target: request.target.clone(),
        args: request.args.clone(),
        labels: request.labels.clone(),
        platform: request.platform.clone().unwrap_or_else(|| host.clone()),
        host,
        no_cache: match request.fresh_stages.as_slice() {
            _ if request.no_cache => NoCache::Always,
            [] => NoCache::Never,
            stages => NoCache::Stages(stages.iter().map(|s| s.to_lowercase()).collect()),
        },
        network: request.network.clone(),
        hosts: request.hosts.clone(),
        limits: request.limits.clone(),
    }
}

/// An error of the builder, for those who asked.
pub(crate) fn of_build(e: BuildError) -> Error {
    Error::new(e.kind(), e.to_string())
}

/// The ignore file that applies to a Dockerfile.
fn ignore_of(root: &Root, dockerfile: &str) -> Result<Ignore> {
    for name in ignore::candidates(dockerfile.as_bytes()) {
        let name = String::from_utf8_lossy(&name).into_owned();
        if let Some(text) = read(root, &name)? {
            return Ignore::parse(&text).map_err(|e| Error::invalid(format!("{name}: {e}")));
        }
    }
    Ok(Ignore::default())
}

/// What commands see of a client's files: they belong to root.
fn context(tree: &Path, ignore: &Ignore) -> Result<Context> {
    let options = longshore_build::context::Options { owner: Some((0, 0)), ..Default::default() };
    Context::walk(Root::open(tree)?, ignore, &options).map_err(|e| of_build(e.into()))
}

/// A file of a context; `None` where there is none.
fn read(root: &Root, name: &str) -> Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let opened = match root.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => std::fs::File::from(fd),
        Err(e) if e.kind() == longshore_oci::Kind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let meta = opened.metadata().map_err(|e| Error::io(format!("stat {name}"), e))?;
    if !meta.is_file() {
        return Err(Error::invalid(format!("{name} is not a regular file")));
    }
    let mut text = Vec::new();
    opened.take(MAX_FILE + 1).read_to_end(&mut text).map_err(|e| Error::io(format!("read {name}"), e))?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::invalid(format!("{name} has more than {MAX_FILE} bytes")));
    }
    Ok(Some(text))
}

/// One builder for a store.
pub(crate) fn builder(store: &longshore_store::Store) -> Arc<longshore_build::Builder> {
    Arc::new(longshore_build::Builder::new(store.clone()))
}
