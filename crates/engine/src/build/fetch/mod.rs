//! What a build fetches: files of web servers and of Git repositories. Within one build an address means the same files
//! each time.

mod auth;
mod context;
mod git;
mod program;
mod tidy;
mod web;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_build::remote::{Pin, Remote};
use longshore_build::{Cancel, Error as BuildError, Fetcher, Origin, Result, Secrets};
use longshore_oci::Kind;
use longshore_registry::ProxyConfig;
use longshore_sys::root::Root;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::of_build;
use super::runner::to_build;
use super::source::Site;
use crate::Engine;
use crate::engine::make_dir;
use crate::model::BuildRequest;

/// The agent of SSH that repositories are fetched with, as with BuildKit.
const AGENT: &str = "default";

/// Fetches for one build.
pub(super) struct Fetches<'a> {
    engine: &'a Engine,
    runtime: &'a Handle,
    /// Those of the build: some say who it is.
    secrets: &'a Secrets,
    /// The socket of an agent that repositories may be reached with.
    agent: Option<&'a Path>,
    /// Where files go.
    site: Site,
    /// Directories in it.
    count: AtomicUsize,
    slots: Mutex<Vec<(Remote, Arc<Mutex<Slot>>)>>,
}

/// What is known of an address.
#[derive(Default)]
struct Slot {
    pin: Option<Pin>,
    /// Of a repository, if somebody asked.
    found: Option<git::Found>,
    files: Option<Root>,
}

impl<'a> Fetches<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        runtime: &'a Handle,
        request: &'a BuildRequest,
    ) -> crate::Result<Self> {
        let (site, secrets) = (Site::new(engine)?, &request.secrets);
        let agent = request.agents.get(AGENT).map(PathBuf::as_path);
        Ok(Self {
            engine,
            runtime,
            secrets,
            agent,
            site,
            count: AtomicUsize::new(0),
            slots: Mutex::default(),
        })
    }

    fn slot(&self, remote: &Remote) -> Arc<Mutex<Slot>> {
        let mut slots = lock(&self.slots);
        if let Some((_, slot)) = slots.iter().find(|(known, _)| known == remote) {
            return slot.clone();
        }
        let slot = Arc::<Mutex<Slot>>::default();
        slots.push((remote.clone(), slot.clone()));
        slot
    }

    /// A new directory.
    fn room(&self) -> Result<PathBuf> {
        let dir = self.site.dir.join(self.count.fetch_add(1, Ordering::Relaxed).to_string());
        make_dir(&dir, 0o700).map_err(to_build)?;
        Ok(dir)
    }

    fn proxy(&self) -> &ProxyConfig {
        self.engine.inner.registry.proxy()
    }

    /// What `future` gives, unless the build is called off before.
    fn wait<T>(&self, cancel: &Cancel, future: impl Future<Output = T>) -> Result<T> {
        let off = Arc::new(Notify::new());
        let told = off.clone();
        let _armed = cancel.on_call(move || told.notify_one());
        self.runtime.block_on(async {
            tokio::select! {
                done = future => Ok(done),
                () = off.notified() => Err(BuildError::Cancelled),
            }
        })
    }
}

impl Engine {
    /// Fetches what is at an address, for whoever is no build; it lies in the site.
    pub(crate) fn fetch_origin(
        &self,
        remote: &Remote,
        runtime: &Handle,
        cancel: &Cancel,
    ) -> crate::Result<(Site, Origin)> {
        let request = BuildRequest::default();
        let fetches = Fetches::new(self, runtime, &request)?;
        let pin = fetches.pin(remote, true, cancel).map_err(of_build)?;
        let root = fetches.fetch(remote, &pin, cancel).map_err(of_build)?;
        let file = if let Pin::File { name, .. } = pin { Some(name) } else { None };
        Ok((fetches.site, Origin::Fetched { root, file }))
    }
}

impl Fetcher for Fetches<'_> {
    fn pin(&self, remote: &Remote, fresh: bool, cancel: &Cancel) -> Result<Pin> {
        let slot = self.slot(remote);
        let mut slot = lock(&slot);
        if let Some(pin) = &slot.pin {
            return Ok(pin.clone());
        }
        let pin = match remote {
            Remote::File(file) => self.pin_file(file, fresh, cancel, &mut slot)?,
            Remote::Git(repository) => self.pin_commit(repository, cancel, &mut slot)?,
        };
        slot.pin = Some(pin.clone());
        Ok(pin)
    }

    fn fetch(&self, remote: &Remote, pin: &Pin, cancel: &Cancel) -> Result<Root> {
        let slot = self.slot(remote);
        let mut slot = lock(&slot);
        if let Some(files) = &slot.files {
            return Ok(files.try_clone()?);
        }
        let files = match (remote, pin) {
            (Remote::File(file), Pin::File { name, digest }) => {
                self.fetch_file(file, name, digest, cancel)?
            }
            (Remote::Git(repository), Pin::Commit { id, .. }) => {
                self.fetch_commit(repository, id, cancel, &mut slot)?
            }
            _ => return Err(BuildError::Internal("a pin of another kind than its address".into())),
        };
        let given = files.try_clone()?;
        slot.files = Some(files);
        Ok(given)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn host(kind: Kind, message: impl Into<String>) -> BuildError {
    BuildError::Host { kind, message: message.into() }
}
