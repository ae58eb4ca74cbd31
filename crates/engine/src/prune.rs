//! `image prune`; those of containers, volumes and the build cache stand beside what they prune. What a prune reclaimed
//! is what the disk got back: bytes of blocks, not lengths of files.

use longshore_oci::Reference;
use longshore_store::DropPolicy;

use crate::image_remove::Removal;
use crate::model::{CompressedPruned, Filters, ImagesPruned};
use crate::time::parse_rfc3339;
use crate::{Engine, Result, filters};

impl Engine {
    /// Removes images that no container uses: those without a name, or with `dangling=false` all of them. Filters
    /// besides: label, label!, until.
    ///
    /// # Errors
    /// For filters that are wrong.
    pub async fn prune_images(&self, f: &Filters) -> Result<ImagesPruned> {
        filters::check_known(f, &["dangling", "label", "label!", "until"])?;
        let dangling_only = filters::flag(f, "dangling")?.unwrap_or(true);
        let until = filters::until(f)?;
        let f = f.clone();
        let engine = self.clone();
        self.to_the_end(async move {
            let _alone = engine.inner.image_use.write().await;
            engine.blocking(move |e| e.prune_images_blocking(&f, dangling_only, until)).await
        })
        .await
    }

    fn prune_images_blocking(
        &self,
        f: &Filters,
        dangling_only: bool,
        until: Option<i64>,
    ) -> Result<ImagesPruned> {
        let users = self.image_users();
        let images = self.inner.store.images();
        let mut out = Removal::measured();
        for image in images.list()? {
            let named = !image.tags.is_empty() || !image.elsewhere.is_empty();
            // One that went with its child is gone already.
            if users.contains_key(&image.id) || (dangling_only && named) || images.get(&image.id).is_err() {
                continue;
            }
            let Ok((_, document)) = images.document(&image.id) else { continue };
            let created = document.created.as_deref().and_then(parse_rfc3339).unwrap_or(0);
            let labels = document.config.as_ref().and_then(|c| c.labels.as_ref());
            let wanted = until.is_none_or(|u| created < u)
                && filters::labels(f, "label", labels)
                && filters::not_labels(f, labels);
            if wanted {
                self.remove_whole_image(&image, &mut out);
            }
        }
        self.event("image", "prune", "", &[("reclaimed", &out.freed.to_string())]);
        Ok(ImagesPruned { deleted: out.deleted, reclaimed: out.freed })
    }

    /// Removes an image by all its names; one that has to stay (a parent of one that stays) stays.
    pub(crate) fn remove_whole_image(&self, image: &longshore_store::ImageRecord, out: &mut Removal) {
        let names: Vec<String> = match image.tags.as_slice() {
            [] => vec![image.id.to_string()],
            tags => tags.iter().map(Reference::to_string).collect(),
        };
        for name in names {
            if let Err(e) = self.remove_image_blocking(&name, false, true, out) {
                tracing::debug!(image = name, "not removed: {e}");
            }
        }
    }

    /// Drops the compressed forms of layers that a registry can give again, or that can be made again to the byte; of
    /// those that came from files this is found out by doing it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune_compressed(&self) -> Result<CompressedPruned> {
        self.blocking(|e| {
            let done = e.inner.store.drop_compressed(&DropPolicy { prove: true, only: None })?;
            Ok(CompressedPruned { reclaimed: done.bytes(), dropped: done.dropped, kept: done.kept })
        })
        .await
    }
}
