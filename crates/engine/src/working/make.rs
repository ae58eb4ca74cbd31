//! `from`: a new working container.

use std::sync::PoisonError;

use futures_util::stream;
use longshore_build::plan::{Base, Images as _};
use longshore_oci::image::{ImageDocument, RunConfig};
use longshore_oci::{Digest, Kind, Platform, Reference};
use longshore_store::lease::Lease;
use longshore_store::meta::{Batch, Table};
use tokio::sync::mpsc;

use super::{Record, Working, check_name};
use crate::build::{Bases, fits, of_build};
use crate::model::{
    BuildEvent, BuildRequest, ImageAccess, NewWorking, PullPolicy, WorkingAbout, WorkingEvent,
};
use crate::stream::BoxStream;
use crate::time::now;
use crate::{Engine, Error, Result, names};

/// Events that may wait for a client.
const QUEUE: usize = 64;
/// Working containers whose names are made of one image's.
const MAX_NUMBER: u32 = 100_000;
/// The name of no image.
const SCRATCH: &str = "scratch";
/// Where programs are looked for when nobody says so.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Engine {
    /// Makes a working container of an image, which is fetched if it has to be. A failure is the last event.
    ///
    /// # Errors
    /// For a name that is none, or taken.
    pub async fn make_working(&self, request: NewWorking) -> Result<BoxStream<WorkingEvent>> {
        if let Some(name) = &request.name {
            check_name(name)?;
            self.working_name_is_free(name)?;
        }
        let (tx, rx) = mpsc::channel(QUEUE);
        let engine = self.clone();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let pulled = |event: BuildEvent| {
                if let BuildEvent::Pull(line) = event {
                    // A client that has gone is noticed when the image is there.
                    let _ = tx.blocking_send(WorkingEvent::Pull(line));
                }
            };
            let gone = || tx.is_closed();
            let last = match engine.make_working_blocking(&request, &runtime, &pulled, &gone) {
                Ok(record) => WorkingEvent::Made { id: record.id, name: record.name },
                Err(e) => WorkingEvent::Failed(e.to_string()),
            };
            let _ = tx.blocking_send(last);
        });
        Ok(Box::pin(stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) })))
    }

    fn make_working_blocking(
        &self,
        request: &NewWorking,
        runtime: &tokio::runtime::Handle,
        send: &(dyn Fn(BuildEvent) + Send + Sync),
        gone: &dyn Fn() -> bool,
    ) -> Result<Record> {
        let lease = self.inner.store.lease("working container")?;
        let base = match request.image.as_str() {
            SCRATCH => None,
            image => Some(self.base_image(image, &request.access, &lease, runtime, send)?),
        };
        if gone() {
            return Err(Error::new(Kind::Cancelled, "nobody waits for the working container any more"));
        }
        // From here on nobody removes the image.
        let _image = self.inner.image_use.blocking_read();
        if let Some(base) = &base {
            self.inner.store.images().get(&base.id)?;
        }
        let record = record_of(request, base.as_ref())?;
        self.inner.store.create_bare_rw(&record.id, base.as_ref().and_then(|b| b.chain).as_ref())?;
        let named = self.name_working(record.clone(), request.name.as_deref());
        if named.is_err()
            && let Err(e) = self.inner.store.remove_rw(&record.id)
        {
            tracing::warn!(working = record.id, "its layer stays until the next start: {e}");
        }
        named
    }

    /// An image that is here or is fetched, and that `lease` holds from here on.
    pub(super) fn base_image(
        &self,
        image: &str,
        access: &ImageAccess,
        lease: &Lease,
        runtime: &tokio::runtime::Handle,
        send: &(dyn Fn(BuildEvent) + Send + Sync),
    ) -> Result<Base> {
        if access.pull == PullPolicy::Never {
            self.inner.store.images().resolve(image).map_err(|e| match e.kind() {
                Kind::NotFound => Error::from(e).and("and --pull never does not look elsewhere"),
                _ => e.into(),
            })?;
        }
        let request = BuildRequest {
            pull: access.pull == PullPolicy::Always,
            credentials: access.credentials.clone(),
            ..BuildRequest::default()
        };
        let platform = access.platform.clone().unwrap_or_else(Platform::host);
        let bases = Bases::new(self, &request, lease, runtime, send);
        if access.pull == PullPolicy::Never {
            return bases.here(image, &platform);
        }
        let base = bases.base(image, &platform).map_err(of_build)?;
        // A registry gives an image that is for one platform, whatever is asked for.
        match access.platform.is_some() && !fits(&base.document, &platform) {
            true => Err(Error::not_found(format!("image {image} is there, but not for {platform}"))),
            false => Ok(base),
        }
    }

    /// Gives it a name and makes it known.
    fn name_working(&self, mut record: Record, asked: Option<&str>) -> Result<Record> {
        let _naming = self.workings().naming.lock().unwrap_or_else(PoisonError::into_inner);
        match asked {
            Some(name) => {
                self.working_name_is_free(name)?;
                name.clone_into(&mut record.name);
            }
            None => {
                let taken: Vec<String> = self.all_working().iter().map(|w| w.record().name).collect();
                record.name = free_name(&record.image_name, &taken)?;
            }
        }
        self.inner.store.meta().commit(Batch::new().put(Table::Working, &record.id, &record))?;
        let all = &self.workings().by_id;
        let working = Working::new(record.clone());
        all.write().unwrap_or_else(PoisonError::into_inner).insert(record.id.clone(), working);
        self.working_event(&record, "create", &[]);
        Ok(record)
    }
}

fn record_of(request: &NewWorking, base: Option<&Base>) -> Result<Record> {
    let host = Platform::host();
    let wanted = request.access.platform.clone().unwrap_or(host);
    let document = base.map(|b| b.document.clone()).unwrap_or_default();
    let mut config = document.config.clone().unwrap_or_default();
    if base.is_none() {
        config = RunConfig { working_dir: "/".into(), ..RunConfig::default() };
    }
    if config.env.is_none() {
        config.env = Some(vec![PATH.to_owned()]);
    }
    let or = |own: &str, other: &str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
    Ok(Record {
        id: names::new_id()?,
        name: String::new(),
        created: now(),
        image: base.map(|b| b.id),
        image_name: shown(&request.image, base.map(|b| &b.id)),
        about: WorkingAbout {
            author: document.author.clone(),
            os: or(&document.os, &wanted.os),
            architecture: or(&document.architecture, &wanted.architecture),
            variant: base.map_or(wanted.variant, |_| document.variant.clone()),
            os_version: document.os_version.clone(),
            ..WorkingAbout::default()
        },
        base: ImageDocument { history: document.history, ..ImageDocument::default() },
        config,
        history: Vec::new(),
        mounted: false,
        busy: None,
        interrupted: None,
    })
}

/// The image as people know it.
fn shown(asked: &str, id: Option<&Digest>) -> String {
    match (asked.parse::<Reference>(), id) {
        (Ok(name), Some(id)) if !crate::image::is_id(asked, id) => name.or_latest().familiar(),
        _ => asked.to_owned(),
    }
}

/// `<image>-working-container`, with a number where that is taken, as Buildah has it.
fn free_name(image: &str, taken: &[String]) -> Result<String> {
    let last = image.rsplit('/').next().unwrap_or(image);
    let last = last.split(['@', ':']).next().unwrap_or(last);
    let base = match last {
        "" | SCRATCH => "working-container".to_owned(),
        last => format!("{last}-working-container"),
    };
    let numbered = (1..MAX_NUMBER).map(|n| format!("{base}-{n}"));
    let mut all = std::iter::once(base.clone()).chain(numbered);
    all.find(|name| !taken.contains(name)).ok_or_else(|| {
        Error::conflict(format!("there are {MAX_NUMBER} working containers called {base}: remove some"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_images() {
        let name = |image: &str, taken: &[&str]| {
            free_name(image, &taken.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).expect("free")
        };
        assert_eq!(name("debian:12", &[]), "debian-working-container");
        assert_eq!(name("host:5000/team/app", &["x"]), "app-working-container");
        assert_eq!(name("app@sha256:00", &["app-working-container"]), "app-working-container-1");
        assert_eq!(name("scratch", &["working-container", "working-container-1"]), "working-container-2");
    }
}
