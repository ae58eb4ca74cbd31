//! What takes space: `system df`, and `image prune`.

use std::collections::BTreeMap;

use longshore_oci::{Digest, Reference};
use longshore_store::ImageRecord;
use longshore_store::usage::LedgerRow as StoredRow;

use crate::container::tree_size;
use crate::model::{
    DiskUsage, Filters, ImagesPruned, Ledger, LedgerRow, ListContainers, ListImages, UsageOf, Volume,
    VolumeUsage,
};
use crate::time::parse_rfc3339;
use crate::{Engine, Result, filters};

impl Engine {
    /// How much space everything takes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn disk_usage(&self, of: UsageOf) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        if of.images {
            usage.layers_size = self.blocking(|e| Ok(e.layer_sizes()?.values().sum())).await?;
            let request = ListImages { shared_size: true, containers: true, ..ListImages::default() };
            usage.images = self.images(request).await?;
        }
        if of.containers {
            let request = ListContainers { all: true, size: true, ..ListContainers::default() };
            usage.containers = self.list(request).await?;
        }
        if of.volumes {
            let volumes = self.volumes(&Filters::new()).await?;
            usage.volumes =
                self.blocking(move |e| Ok(volumes.into_iter().map(|v| e.volume_usage(v)).collect())).await?;
        }
        if of.ledger {
            usage.ledger = Some(self.blocking(|e| e.ledger()).await?);
        }
        Ok(usage)
    }

    /// Every byte under the data root.
    fn ledger(&self) -> Result<Ledger> {
        let found = self.inner.store.ledger()?;
        let images = self.inner.store.images().list()?;
        let images: BTreeMap<Digest, String> = images.iter().map(|i| (i.id, called(i))).collect();
        let containers: BTreeMap<String, String> =
            self.all().iter().map(|c| (c.id.clone(), c.read().record.name.clone())).collect();
        let row = |row: StoredRow| LedgerRow {
            of: match row.images.first() {
                Some(image) => images.get(image).cloned().unwrap_or_else(|| image.short()),
                None => containers.get(&row.name).cloned().unwrap_or_default(),
            },
            kind: row.kind.as_str(),
            name: row.name,
            bytes: row.size.bytes,
            inodes: row.size.inodes,
            shared: row.images.len(),
        };
        Ok(Ledger {
            total: found.total.bytes,
            data_root: found.data_root.to_string_lossy().into_owned(),
            rows: found.rows.into_iter().map(row).collect(),
        })
    }

    fn volume_usage(&self, volume: Volume) -> VolumeUsage {
        let size = tree_size(std::path::Path::new(&volume.mountpoint));
        VolumeUsage { users: self.volume_users(&volume.name).len(), size, volume }
    }

    /// Bytes of every layer that an image has.
    fn layer_sizes(&self) -> Result<BTreeMap<Digest, u64>> {
        let mut sizes = BTreeMap::new();
        for layer in self.inner.store.images().list()?.iter().flat_map(|i| &i.layers) {
            if !sizes.contains_key(layer) {
                sizes.insert(*layer, self.inner.store.layer(layer)?.map_or(0, |l| l.size));
            }
        }
        Ok(sizes)
    }

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
        let before = self.layer_sizes()?;
        let users = self.image_users();
        let images = self.inner.store.images();
        let mut deleted = Vec::new();
        for image in images.list()? {
            let named = !image.tags.is_empty();
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
            if !wanted {
                continue;
            }
            let names: Vec<String> = match image.tags.as_slice() {
                [] => vec![image.id.to_string()],
                tags => tags.iter().map(Reference::to_string).collect(),
            };
            for name in names {
                match self.remove_image_blocking(&name, false, true) {
                    Ok(done) => deleted.extend(done),
                    // A parent of one that stays.
                    Err(e) => tracing::debug!(image = name, "not pruned: {e}"),
                }
            }
        }
        let after = self.layer_sizes()?;
        let reclaimed =
            before.iter().filter(|(layer, _)| !after.contains_key(layer)).map(|(_, size)| size).sum();
        self.event("image", "prune", "", &[("reclaimed", &format!("{reclaimed}"))]);
        Ok(ImagesPruned { deleted, reclaimed })
    }
}

/// What a person calls an image: its first name, or a short id.
pub(crate) fn called(image: &ImageRecord) -> String {
    let name = image.tags.first().or(image.digests.first());
    name.map_or_else(|| image.id.short(), Reference::familiar)
}
