//! What takes space: `system df`.

use std::collections::BTreeMap;

use longshore_oci::{Digest, Reference};
use longshore_store::ImageRecord;
use longshore_store::usage::LedgerRow as StoredRow;

use crate::container::tree_size;
use crate::model::{
    DiskUsage, Filters, Ledger, LedgerRow, ListContainers, ListImages, UsageOf, Volume, VolumeUsage,
};
use crate::{Engine, Result};

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
        let containers = self.all().into_iter().map(|c| (c.id.clone(), c.read().record.name.clone()));
        let working = self.all_working().into_iter().map(|w| (w.id.clone(), w.record().name));
        let containers: BTreeMap<String, String> = containers.chain(working).collect();
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
}

/// What a person calls an image: its first name, or a short id.
pub(crate) fn called(image: &ImageRecord) -> String {
    let name = image.tags.first().or(image.digests.first());
    name.map_or_else(|| image.id.short(), Reference::familiar)
}
