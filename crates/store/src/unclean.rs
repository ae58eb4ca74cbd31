//! After the machine stopped without warning: what was on its way to the disk may be damaged although its record is
//! there (a disk that lies about its cache, a file system that lost the tail of a file). Each layer is verified when it
//! is first used, once; what is wrong with the driver's own files of a container is put right.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use longshore_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::image::{ImageRow, LayerRecord};
use crate::meta::{Batch, Meta, Table};
use crate::open::Store;
use crate::rw::MountRow;
use crate::snapshot::DriverName;
use crate::{Error, Result};

const OPENED: &str = "opened";
const UNVERIFIED: &str = "unverified";

/// Who has the store open, or had.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Opened {
    boot: String,
    /// It was closed by [`Store::close`].
    clean: bool,
}

/// What is not to be trusted yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Unverified {
    /// How often the machine stopped without warning while the store was open.
    generation: u64,
    /// Layers whose content was not verified since, by chain id.
    pub(crate) layers: BTreeSet<Digest>,
}

/// Notes that the store is open on this boot, durably, and tells what is not to be trusted: all layers when the machine
/// stopped while it was open, which just now turned out or not.
pub(crate) fn opened(meta: &Meta, boot: &str) -> Result<(Unverified, bool)> {
    let before: Option<Opened> = meta.get(Table::Kv, OPENED)?;
    let mut unverified: Unverified = meta.get(Table::Kv, UNVERIFIED)?.unwrap_or_default();
    let stopped = before.is_some_and(|b| b.boot != boot && !b.clean);
    if stopped {
        unverified.generation += 1;
        let layers = meta.keys(Table::Layers)?;
        unverified.layers = layers.iter().map(|key| crate::image::parse_id(key)).collect::<Result<_>>()?;
        tracing::warn!(
            layers = unverified.layers.len(),
            "the machine stopped without warning: layers are verified when they are first used"
        );
    }
    let now = Opened { boot: boot.to_owned(), clean: false };
    let batch = Batch::new().put(Table::Kv, OPENED, &now).put(Table::Kv, UNVERIFIED, &unverified);
    if let Err(e) = meta.commit(batch) {
        // A full disk does not keep anybody from cleaning up.
        tracing::warn!(error = %e, "it could not be noted that the store is open: a power cut now would go unnoticed");
    }
    Ok((unverified, stopped))
}

impl Store {
    /// Notes durably that nothing is on its way to the disk any more. The store may still be used; what is done then is
    /// as safe as ever, but not verified after a power cut.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn close(&self) -> Result<()> {
        let now = Opened { boot: self.boot().to_owned(), clean: true };
        self.meta().commit(Batch::new().put(Table::Kv, OPENED, &now))
    }

    pub(crate) fn unverified(&self) -> MutexGuard<'_, Unverified> {
        self.unverified_mutex().lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Layers that were not verified since the machine stopped without warning.
    #[must_use]
    pub fn unverified_layers(&self) -> usize {
        self.unverified().layers.len()
    }

    /// Makes sure that the layers of a chain are what they are said to be, each once after an unclean stop.
    ///
    /// # Errors
    /// `Corrupt` for a damaged one; the text names it, an image that has it, and the remedy.
    pub(crate) fn trust(&self, top: Option<&Digest>) -> Result<()> {
        if self.unverified().layers.is_empty() {
            return Ok(());
        }
        let mut chain = Vec::new();
        let mut next = top.copied();
        while let Some(id) = next {
            let Some(layer) = self.layer(&id)? else { break };
            next = layer.parent;
            chain.push((id, layer));
        }
        for (id, layer) in chain.into_iter().rev() {
            // One after the other: two who need the same layer read it once.
            let _one = self.verifying();
            if self.unverified().layers.contains(&id) {
                self.verify_now(&id, &layer)?;
                self.trusted(&id)?;
            }
        }
        Ok(())
    }

    fn verify_now(&self, chain: &Digest, layer: &LayerRecord) -> Result<()> {
        tracing::info!(layer = %chain, "verifying a layer after an unclean stop");
        let faults = self.verify_layer(chain, layer, false)?;
        let Some(fault) = faults.first() else { return Ok(()) };
        let image = self.image_with(chain)?;
        Err(Error::Corrupt(format!(
            "layer {chain}{image} is damaged: {}; run `longshore system check --repair`",
            fault.what
        )))
    }

    /// ` of image NAME`, where there is one.
    fn image_with(&self, chain: &Digest) -> Result<String> {
        let images = self.meta().list::<ImageRow>(Table::Images)?;
        let Some((id, _)) = images.into_iter().find(|(_, row)| row.layers.contains(chain)) else {
            return Ok(String::new());
        };
        let names = self.images().references()?;
        let name = names.iter().find(|(_, i)| i.to_string() == id).map(|(r, _)| Reference::familiar(r));
        Ok(format!(" of image {}", name.unwrap_or(id)))
    }

    /// Notes that a layer was verified.
    pub(crate) fn trusted(&self, chain: &Digest) -> Result<()> {
        let mut unverified = self.unverified();
        if unverified.layers.remove(chain) {
            self.meta().commit_lazy(Batch::new().put(Table::Kv, UNVERIFIED, &*unverified))?;
        }
        Ok(())
    }

    fn mend_init(&self, init: &str, parent: Option<&str>) -> Result<()> {
        let driver = self.driver();
        if !driver.apply_dir(init).is_dir() {
            driver.remove(init)?;
            driver.prepare(init, parent)?;
        }
        driver.mend(init, parent, true)?;
        if driver.name() == DriverName::Overlay2 { crate::rw::fill_init(driver, init) } else { Ok(()) }
    }

    /// Puts the driver's own files of a container's snapshots right; the init layer can be made again altogether.
    pub(crate) fn mend_snapshots(&self, container: &str, row: &MountRow, parent: Option<&str>) -> Result<()> {
        let (driver, init) = (self.driver(), row.init_id());
        if let Some(init) = &init {
            self.mend_init(init, parent)?;
        }
        driver.mend(&row.mount_id, init.as_deref().or(parent), false).map_err(|e| match e {
            Error::Corrupt(_) | Error::NotFound(_) => Error::Corrupt(format!(
                "what container {container} wrote is lost: remove it (longshore rm {container})"
            )),
            other => other,
        })
    }
}
