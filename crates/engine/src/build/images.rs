//! The images that a build starts from: here already, or pulled.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use longshore_build::plan::{Base, Images};
use longshore_build::{Error as BuildError, Result as BuildResult};
use longshore_oci::image::ImageDocument;
use longshore_oci::{Digest, Kind, Platform, Reference};
use longshore_store::ImageRecord;
use longshore_store::lease::Lease;

use super::runner::to_build;
use crate::image_remove::Removal;
use crate::model::{BuildEvent, BuildRequest, LAYOUT, PullRequest};
use crate::{Engine, Error, Result};

/// Where a build's images come from.
pub(crate) struct Bases<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) request: &'a BuildRequest,
    /// Holds them while the build is under way.
    pub(crate) lease: &'a Lease,
    pub(crate) runtime: &'a tokio::runtime::Handle,
    pub(crate) send: &'a (dyn Fn(BuildEvent) + Send + Sync),
    /// Images that are here for this build only.
    loaded: Mutex<Vec<Digest>>,
}

impl Drop for Bases<'_> {
    fn drop(&mut self) {
        for id in lock(&self.loaded).drain(..) {
            // Somebody may have found a use for it.
            if let Err(e) =
                self.engine.remove_image_blocking(&id.to_string(), false, false, &mut Removal::default())
            {
                tracing::debug!(image = %id, "not removed: {e}");
            }
        }
    }
}

impl Images for Bases<'_> {
    fn base(&self, reference: &str, platform: &Platform) -> BuildResult<Base> {
        let record = self.find(reference, platform).map_err(to_build)?;
        self.hold(reference, record)
    }
}

impl<'a> Bases<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        request: &'a BuildRequest,
        lease: &'a Lease,
        runtime: &'a tokio::runtime::Handle,
        send: &'a (dyn Fn(BuildEvent) + Send + Sync),
    ) -> Self {
        Self { engine, request, lease, runtime, send, loaded: Mutex::default() }
    }

    /// An image in a directory of the client's.
    fn in_layout(&self, name: &str, platform: &Platform) -> Result<ImageRecord> {
        let directory = self.request.layouts.get(name);
        let directory = directory.ok_or_else(|| Error::invalid(format!("there is no OCI layout {name}")))?;
        let (id, new) = self.engine.load_from_layout(directory, platform)?;
        lock(&self.loaded).extend(new.then_some(id));
        Ok(self.engine.inner.store.images().get(&id)?)
    }

    /// An image that is here, and held from here on.
    ///
    /// # Errors
    /// When there is none of that name and platform.
    pub(crate) fn here(&self, reference: &str, platform: &Platform) -> Result<Base> {
        let record = self.engine.inner.store.images().resolve_for(reference, platform)?;
        if !self.fits(&record, platform)? {
            return Err(Error::not_found(format!("image {reference} is here, but not for {platform}")));
        }
        self.hold(reference, record).map_err(super::of_build)
    }

    fn hold(&self, reference: &str, record: ImageRecord) -> BuildResult<Base> {
        let (_, document) = self.engine.inner.store.images().document(&record.id)?;
        let chain = record.layers.last().copied();
        self.lease.add_blob(record.id)?;
        chain.map_or(Ok(()), |chain| self.lease.add_layer(chain))?;
        if let Some(chain) = &chain
            && self.engine.inner.store.layer(chain)?.is_none()
        {
            return Err(BuildError::NotFound(format!("image {reference} was removed meanwhile")));
        }
        Ok(Base { id: record.id, chain, document })
    }

    fn find(&self, name: &str, platform: &Platform) -> Result<ImageRecord> {
        if let Some(name) = name.strip_prefix(LAYOUT) {
            return self.in_layout(name, platform);
        }
        let images = self.engine.inner.store.images();
        let here = match images.resolve_for(name, platform) {
            Ok(record) => self.fits(&record, platform)?.then_some(record),
            Err(e) if e.kind() == Kind::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        // What is named by its id is nowhere else.
        let reference = name.parse::<Reference>();
        match (here, reference) {
            (Some(record), Err(_)) => Ok(record),
            (Some(record), Ok(_)) if !self.request.pull => Ok(record),
            (_, Ok(reference)) => self.pull(&reference.or_latest(), platform),
            (None, Err(e)) => Err(Error::invalid(format!("failed to parse stage name {name:?}: {e}"))),
        }
    }

    fn fits(&self, record: &ImageRecord, wanted: &Platform) -> Result<bool> {
        let (_, document) = self.engine.inner.store.images().document(&record.id)?;
        Ok(fits(&document, wanted))
    }

    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<ImageRecord> {
        let request = PullRequest {
            reference: reference.clone(),
            all_tags: false,
            platform: Some(platform.clone()),
            beside: self.is_taken(reference, platform)?,
            credentials: self.request.credentials.get(reference.registry()).cloned().unwrap_or_default(),
        };
        let mut lines = self.runtime.block_on(self.engine.pull(request))?;
        let mut pulled = None;
        while let Some(line) = self.runtime.block_on(lines.next()) {
            pulled = pulled.or(line.pulled);
            if let Some(error) = &line.error {
                return Err(Error::new(Kind::Unavailable, error.clone()));
            }
            (self.send)(BuildEvent::Pull(line));
        }
        let images = self.engine.inner.store.images();
        Ok(match pulled {
            Some(id) => images.get(&id)?,
            None => images.resolve(&reference.to_string())?,
        })
    }

    /// Whether a name stands for an image of another platform, and is to do so after a pull; or whether it will, since
    /// this build wants the image for others as well.
    fn is_taken(&self, reference: &Reference, platform: &Platform) -> Result<bool> {
        let images = self.engine.inner.store.images();
        let Some(id) = images.lookup(reference)? else { return Ok(false) };
        let (_, document) = images.document(&id)?;
        Ok(!fits(&document, platform))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an image is for a platform; one that does not say what it is for is for all.
pub(crate) fn fits(document: &ImageDocument, wanted: &Platform) -> bool {
    let has = document.platform();
    has.architecture.is_empty() || has.runs_on(wanted)
}
