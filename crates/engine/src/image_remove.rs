//! Removing images: what stands in the way, and in which order things go. The rules and words are Docker's.

use longshore_oci::{Digest, Reference};
use longshore_store::ImageRecord;

use crate::image::{ImageUser, is_id};
use crate::model::ImageDeleted;
use crate::{Engine, Error, Result};

/// What an image is needed for.
struct Conflict {
    error: Error,
    /// By a container.
    used: bool,
}

/// What a removal did so far.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    /// In order.
    pub(crate) deleted: Vec<ImageDeleted>,
    /// Bytes of the disk that this freed, where they are to be measured.
    pub(crate) freed: u64,
    measure: bool,
}

impl Removal {
    /// One that measures.
    pub(crate) fn measured() -> Self {
        Self { measure: true, ..Self::default() }
    }
}

impl Engine {
    /// Takes a name away, and removes the image with its last one.
    ///
    /// # Errors
    /// `Conflict` when a container or another image needs it; in Docker's words.
    pub async fn remove_image(&self, name: &str, force: bool, prune: bool) -> Result<Vec<ImageDeleted>> {
        let name = name.to_owned();
        let engine = self.clone();
        self.to_the_end(async move {
            let _alone = engine.inner.image_use.write().await;
            let mut out = Removal::default();
            engine
                .blocking(move |e| {
                    e.remove_image_blocking(&name, force, prune, &mut out).map(|()| out.deleted)
                })
                .await
        })
        .await
    }

    /// What was done before a failure stands in `out`, too.
    pub(crate) fn remove_image_blocking(
        &self,
        name: &str,
        force: bool,
        prune: bool,
        out: &mut Removal,
    ) -> Result<()> {
        let record = self.inner.store.images().resolve(name)?;
        let by_name = !is_id(name, &record.id);
        if by_name {
            if self.untag_one(name, &record, force, out)? {
                return Ok(());
            }
        } else if is_single(&record) {
            // Before its only name goes.
            if let Some(conflict) = self.conflict(&record, force, true)? {
                return Err(conflict.error);
            }
            self.untag_all(&record, out)?;
        }
        self.delete_chain(record.id, prune, force, by_name, out)
    }

    /// Removes an image with all its names, if nothing needs it; its parents stay.
    pub(crate) fn drop_image(&self, record: &ImageRecord, out: &mut Removal) -> Result<()> {
        if let Some(conflict) = self.conflict(record, false, true)? {
            return Err(conflict.error);
        }
        self.untag_all(record, out)?;
        self.delete_chain(record.id, false, false, false, out)
    }

    /// Takes the name away that a client gave; true if the image has more of them.
    fn untag_one(&self, name: &str, record: &ImageRecord, force: bool, out: &mut Removal) -> Result<bool> {
        if !force
            && is_single(record)
            && let Some(user) = self.image_users().remove(&record.id).unwrap_or_default().first()
        {
            let what = if user.what == "working container" { user.what } else { "container" };
            return Err(Error::conflict(format!(
                "conflict: unable to remove repository reference {name:?} (must force) - {what} {} is using its \
                 referenced image {}",
                user.called,
                record.id.short()
            )));
        }
        let reference = name.parse::<Reference>()?.or_latest();
        self.untag(&record.id, &reference, out)?;
        let same =
            |r: &&Reference| (r.registry(), r.repository()) == (reference.registry(), reference.repository());
        let mut left = self.inner.store.images().get(&record.id)?;
        // Digests of a repository go with its last tag, and no event tells of them.
        if reference.digest().is_none() && !left.tags.iter().any(|r| same(&r)) {
            for digest in left.digests.iter().filter(same) {
                self.drop_name(digest, out)?;
            }
            left = self.inner.store.images().get(&record.id)?;
        }
        Ok(!left.tags.is_empty() || !left.digests.is_empty())
    }

    fn untag_all(&self, record: &ImageRecord, out: &mut Removal) -> Result<()> {
        record.tags.iter().chain(&record.digests).try_for_each(|r| self.untag(&record.id, r, out))
    }

    fn untag(&self, id: &Digest, reference: &Reference, out: &mut Removal) -> Result<()> {
        self.image_event("untag", id, &id.to_string());
        self.drop_name(reference, out)
    }

    fn drop_name(&self, reference: &Reference, out: &mut Removal) -> Result<()> {
        let images = self.inner.store.images();
        let index = images.index(reference)?;
        images.untag(reference)?;
        out.deleted.push(ImageDeleted::Untagged(reference.familiar()));
        let Some(index) = index else { return Ok(()) };
        let others = index.images.iter().filter(|image| image.id != index.of);
        others.map(|image| image.id).try_for_each(|id| self.drop_elsewhere(&id, reference, out))
    }

    /// Removes an image that a name stood for on another platform, unless something else needs it.
    fn drop_elsewhere(&self, id: &Digest, reference: &Reference, out: &mut Removal) -> Result<()> {
        let Ok(record) = self.inner.store.images().get(id) else { return Ok(()) };
        let own =
            |r: &Reference| (r.registry(), r.repository()) == (reference.registry(), reference.repository());
        if !record.tags.is_empty() || !record.elsewhere.is_empty() || !record.digests.iter().all(own) {
            return Ok(());
        }
        if self.conflict(&record, false, true)?.is_some() {
            return Ok(());
        }
        self.delete_chain(*id, false, true, true, out)
    }

    /// Why an image cannot be removed: images made from it and containers that run always count, its names and stopped
    /// containers unless forced, its names not at all where they are about to go (`single`).
    fn conflict(&self, record: &ImageRecord, force: bool, single: bool) -> Result<Option<Conflict>> {
        let conflict = |forced: &str, used: bool, why: String| {
            let id = record.id.short();
            let error = Error::conflict(format!("conflict: unable to delete {id} ({forced}) - {why}"));
            Ok(Some(Conflict { error, used }))
        };
        if self.has_children(&record.id)? {
            return conflict("cannot be forced", false, "image has dependent child images".into());
        }
        let users = self.image_users().remove(&record.id).unwrap_or_default();
        let using = |user: &ImageUser| format!("image is being used by {} {}", user.what, user.called);
        if let Some(user) = users.iter().find(|user| user.running) {
            return conflict("cannot be forced", true, using(user));
        }
        if force {
            return Ok(None);
        }
        if let Some(name) = record.elsewhere.first() {
            let why = format!("image is the one of {} for another platform", name.familiar());
            return conflict("must be forced", false, why);
        }
        let named = !record.tags.is_empty() || !record.digests.is_empty();
        if named && !single {
            return conflict("must be forced", false, "image is referenced in multiple repositories".into());
        }
        match users.first() {
            Some(user) => conflict("must be forced", true, using(user)),
            None => Ok(None),
        }
    }

    fn has_children(&self, id: &Digest) -> Result<bool> {
        Ok(self.inner.store.images().list()?.iter().any(|r| r.parent == Some(*id)))
    }

    /// Removes an image, and its parents that nobody names or uses. `quiet`: a name was removed already, so that an
    /// image that has to stay is no failure.
    fn delete_chain(
        &self,
        id: Digest,
        prune: bool,
        force: bool,
        quiet: bool,
        out: &mut Removal,
    ) -> Result<()> {
        let images = self.inner.store.images();
        let (mut next, mut force, mut quiet) = (Some(id), force, quiet);
        while let Some(id) = next {
            let Ok(record) = images.get(&id) else { return Ok(()) };
            if let Some(conflict) = self.conflict(&record, force, false)? {
                let dangling =
                    record.tags.is_empty() && record.digests.is_empty() && !self.has_children(&id)?;
                return if quiet && (!dangling || conflict.used) { Ok(()) } else { Err(conflict.error) };
            }
            self.untag_all(&record, out)?;
            let layers = match out.measure {
                true => {
                    let (layers, freed) = images.remove_counting(&id)?;
                    out.freed += freed;
                    layers
                }
                false => images.remove(&id)?,
            };
            // Its labels went with it.
            self.event("image", "delete", &id.to_string(), &[("name", &id.to_string())]);
            out.deleted.push(ImageDeleted::Deleted(id));
            out.deleted.extend(layers.into_iter().map(ImageDeleted::Deleted));
            (next, force, quiet) = (record.parent.filter(|_| prune), false, true);
        }
        Ok(())
    }
}

/// Whether an image has at most one tag, and digests only of that tag's repository.
fn is_single(record: &ImageRecord) -> bool {
    let name = |r: &Reference| (r.registry().to_owned(), r.repository().to_owned());
    let Some(first) = record.tags.first().or(record.digests.first()) else { return true };
    record.tags.len() <= 1 && record.digests.iter().all(|d| name(d) == name(first))
}
