//! Squashing: what a build made as one layer on its base.

use longshore_build::plan::Image;
use longshore_build::{Error as BuildError, KeyWriter};
use longshore_oci::Digest;
use longshore_oci::image::{History, ImageDocument};
use longshore_store::lease::Lease;

use crate::Engine;

impl Engine {
    /// The chain id of the tree at `top` with one layer in place of those above the base of `image`; its document follows.
    pub(super) fn squash(
        &self,
        image: &Image,
        top: Option<Digest>,
        document: &mut ImageDocument,
        lease: &Lease,
    ) -> Result<Option<Digest>, BuildError> {
        let store = &self.inner.store;
        let base = image.base.as_ref();
        let below = base.and_then(|base| base.chain);
        if top == below {
            return Ok(top);
        }
        let mut key = KeyWriter::new("squash");
        key.digest("base", below.as_ref()).digest("top", top.as_ref());
        let key = key.finish();
        let known = store.step(&key)?;
        if let Some(chain) = known.as_ref().and_then(|step| step.chain) {
            lease.add_layer(chain)?;
        }
        let there = match known {
            Some(step) if step.chain.is_none_or(|chain| matches!(store.layer(&chain), Ok(Some(_)))) => {
                Some(step)
            }
            _ => None,
        };
        let step = match there {
            Some(step) => step,
            None => store.squash_step(&key, (below, top), "squash", lease)?,
        };
        let known = base.map_or(0, |base| base.document.history.len());
        document.history.iter_mut().skip(known).for_each(|line| line.empty_layer = true);
        document.history.push(History {
            created: document.created.clone(),
            created_by: None,
            author: document.author.clone(),
            // As Docker's classic builder says it.
            comment: Some(format!(
                "merge {} to {}",
                top.map_or_else(|| "nothing".to_owned(), |top| top.to_string()),
                base.map_or_else(|| "nothing".to_owned(), |base| base.id.to_string())
            )),
            empty_layer: step.diff_id.is_none(),
        });
        document.rootfs.diff_ids.truncate(base.map_or(0, |base| base.document.rootfs.diff_ids.len()));
        document.rootfs.diff_ids.extend(step.diff_id);
        Ok(step.chain)
    }
}
