//! `copy` and `add`: files into a working container.

use longshore_build::graph::{Copy, Part, Source};
use longshore_build::{Agents, BadMode, Cancel, Lasting, Mode, Origin, Secrets};
use longshore_oci::Digest;
use longshore_oci::image::History;
use longshore_store::lease::Lease;

use super::Working;
use crate::build::of_build;
use crate::model::{ImageAccess, WorkingCopy};
use crate::stream::BodyStream;
use crate::time::{now, rfc3339};
use crate::{Engine, Error, Result, pipe};

impl Engine {
    /// Copies files into a working container, by the rules of `COPY` and `ADD`. `files` is a tar of what a client sends,
    /// if nothing else is named. Gives a digest of what was copied.
    ///
    /// # Errors
    /// When a source is not there, which changes nothing. Another failure may leave a part copied.
    pub async fn copy_working(
        &self,
        name: &str,
        request: WorkingCopy,
        files: Option<BodyStream>,
    ) -> Result<Digest> {
        check(&request)?;
        self.find_working(name)?;
        // Received before its turn comes: a client may take its time.
        let reader = files.filter(|_| request.from.is_none()).map(pipe::into_reader);
        let runtime = tokio::runtime::Handle::current();
        let (remote, handle, off) = (request.remote.clone(), runtime.clone(), CallOff(Cancel::new()));
        let cancel = off.0.clone();
        let sent = self
            .blocking(move |e| {
                Ok(match (remote, reader) {
                    (Some(remote), _) => Some(e.fetch_origin(&remote, &handle, &cancel)?),
                    (None, Some(reader)) => {
                        let (site, context) = e.unpack_context(reader)?;
                        Some((site, Origin::Context(context)))
                    }
                    (None, None) => None,
                })
            })
            .await?;
        let turn = self.working_turn(name).await?;
        self.blocking(move |e| {
            let lease = e.inner.store.lease("copy into a working container")?;
            let (_site, origin) = match (&request.from, sent) {
                (Some(from), _) => {
                    let origin = e.working_origin(from, &request.access, &turn.working, &lease, &runtime)?;
                    (None, origin)
                }
                (None, Some((site, origin))) => (Some(site), origin),
                (None, None) => return Err(Error::invalid("there are no files to copy")),
            };
            e.copy_working_blocking(&turn.working, &request, &origin, &lease)
        })
        .await
    }

    /// What a name stands for: a working container, else an image.
    pub(super) fn working_origin(
        &self,
        from: &str,
        access: &ImageAccess,
        here: &Working,
        lease: &Lease,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Origin> {
        match self.find_working(from) {
            Ok(other) if other.id == here.id => {
                Err(Error::invalid(format!("{from}: a working container is no source for itself")))
            }
            Ok(other) => Ok(Origin::Container(other.id.clone())),
            Err(_) => {
                let base = self.base_image(from, access, lease, runtime, &|_| ())?;
                Ok(Origin::Layers(base.chain))
            }
        }
    }

    fn copy_working_blocking(
        &self,
        working: &Working,
        request: &WorkingCopy,
        origin: &Origin,
        lease: &Lease,
    ) -> Result<Digest> {
        let copy = copy_of(request, &working.record().config.working_dir)?;
        let verb = if request.add { "ADD" } else { "COPY" };
        self.work_in(working, format!("{} into it", verb.to_lowercase()), false, |record| {
            let cancel = Cancel::new();
            let job = Lasting {
                container: &record.id,
                origins: std::slice::from_ref(origin),
                secrets: &Secrets::new(),
                agents: &Agents::new(),
                runner: self,
                lease,
                cancel: &cancel,
                time: now() / 1_000_000_000,
            };
            let digest = self.inner.builder.copy_lasting(&job, &copy).map_err(of_build)?;
            if request.add_history {
                let kind = if request.sources.len() > 1 { "multi" } else { "file" };
                record.history.push(History {
                    created: Some(rfc3339(now())),
                    created_by: Some(format!("/bin/sh -c #(nop) {verb} {kind}:{}", digest.hex())),
                    empty_layer: true,
                    ..History::default()
                });
            }
            Ok(digest)
        })
    }
}

/// Calls a fetch off when nobody waits for it any more.
struct CallOff(Cancel);

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.call_off();
    }
}

fn check(request: &WorkingCopy) -> Result<()> {
    if request.remote.is_some() && (request.from.is_some() || !request.sources.is_empty()) {
        return Err(Error::invalid("an address is copied by itself"));
    }
    if (request.sources.is_empty() && request.remote.is_none()) || request.dest.is_empty() {
        return Err(Error::invalid("a copy needs a source and a destination"));
    }
    copy_of(request, "/").map(drop)
}

fn copy_of(request: &WorkingCopy, working_dir: &str) -> Result<Copy> {
    let mode: Option<Mode> = match request.mode.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_: BadMode| {
            Error::invalid(format!(
                "invalid --chmod {text:?}: want octal digits (755) or letters (u=rwX,go=rX)"
            ))
        })?),
    };
    let dest = match request.dest.first() {
        Some(b'/') => request.dest.clone(),
        _ => [working_dir.as_bytes(), b"/", &request.dest].concat(),
    };
    // Several sources can only go into a directory.
    let dest = match request.sources.len() > 1 && !dest.ends_with(b"/") {
        true => [dest.as_slice(), b"/"].concat(),
        false => dest,
    };
    // As with Buildah: an archive that is fetched stays one.
    let unpack = request.add && request.remote.is_none();
    Ok(Copy {
        parts: vec![Part { from: Source::Context(0), sources: request.sources.clone(), unpack }],
        dest,
        owner: Some(request.owner.clone()).filter(|o| !o.is_empty()),
        mode,
        parents: request.parents,
        exclude: request.exclude.clone(),
        link: false,
    })
}
