//! `commit`: an image of a working container. The container stays as it is.

use longshore_oci::image::{History, ImageDocument};
use longshore_oci::{Digest, Reference};
use longshore_store::archive::{self, CommitOptions};
use longshore_store::{IndexedImage, NamedIndex};

use super::Record;
use crate::model::WorkingCommit;
use crate::time::{now, rfc3339};
use crate::{Engine, Error, Result};

/// What the history says of a layer when nobody says more, as with Buildah.
const CREATED_BY: &str = "/bin/sh";

impl Engine {
    /// Makes an image of a working container: the layers below it, one new layer with what was changed, its
    /// configuration.
    ///
    /// # Errors
    /// When the layer cannot be made; then there is no image.
    pub async fn commit_working(&self, name: &str, request: WorkingCommit) -> Result<Digest> {
        let turn = self.working_turn(name).await?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _image = engine.inner.image_use.read().await;
            engine
                .blocking(move |e| {
                    let record = turn.working.record();
                    let id = e.commit_working_blocking(&record, &request)?;
                    if request.remove {
                        let removed = e.remove_working_blocking(&turn.working);
                        removed.map_err(|err| {
                            err.context(format!("image {id} is there, but its container stays"))
                        })?;
                    }
                    Ok(id)
                })
                .await
        })
        .await
    }

    fn commit_working_blocking(&self, record: &Record, request: &WorkingCommit) -> Result<Digest> {
        let nanos = match request.created {
            Some(seconds) => seconds
                .checked_mul(1_000_000_000)
                .ok_or_else(|| Error::invalid(format!("a time of {seconds} seconds is too far away")))?,
            None => now(),
        };
        let reference = request.reference.clone().map(Reference::or_latest);
        // An image that was removed by force meanwhile is no parent any more.
        let options = CommitOptions { mtime: request.mtime, squash: request.squash };
        let name = reference.as_ref();
        let id = archive::commit_with(&self.inner.store, &record.id, None, name, options, |new| {
            document(record, request, &rfc3339(nanos), new.empty)
        })?;
        if let Some(name) = name.filter(|_| !record.about.annotations.is_empty()) {
            let (_, document) = self.inner.store.images().document(&id)?;
            let annotations = record.about.annotations.clone();
            let image = IndexedImage { annotations, ..IndexedImage::new(id, document.platform()) };
            self.inner.store.images().set_index(name, &NamedIndex::of_one(image))?;
        }
        self.image_event("create", &id, &id.to_string());
        self.image_added();
        self.working_event(record, "commit", &[("imageID", &id.to_string())]);
        if let Some(reference) = &reference {
            self.image_event("tag", &id, &reference.familiar());
        }
        Ok(id)
    }
}

/// The image's document, but for its layers. Where a time was asked for, all lines of the container's own history have it;
/// an image of one layer has no lines of those below, as with Buildah.
fn document(record: &Record, request: &WorkingCommit, created: &str, empty: bool) -> ImageDocument {
    let about = &record.about;
    let mut history = if request.squash { Vec::new() } else { record.base.history.clone() };
    history.extend(record.history.iter().cloned().map(|line| match request.created {
        Some(_) => History { created: Some(created.to_owned()), ..line },
        None => line,
    }));
    history.push(History {
        created: Some(created.to_owned()),
        created_by: Some(about.created_by.clone().unwrap_or_else(|| CREATED_BY.to_owned())),
        author: about.author.clone(),
        comment: about.comment.clone(),
        empty_layer: empty,
    });
    ImageDocument {
        created: Some(created.to_owned()),
        author: about.author.clone(),
        architecture: about.architecture.clone(),
        os: about.os.clone(),
        variant: about.variant.clone(),
        os_version: about.os_version.clone(),
        config: Some(record.config.clone()),
        history,
        comment: about.comment.clone(),
        ..ImageDocument::default()
    }
}
