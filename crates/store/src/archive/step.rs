//! What a build's step wrote, as a layer.

use longshore_oci::Digest;

use super::custody::Custody;
use super::import::{chain_of, copy_of, says_nothing};
use super::staged::{Chain, Staged, again, check_depth};
use crate::image::now;
use crate::lease::Lease;
use crate::meta::{Batch, Table};
use crate::open::Store;
use crate::steps::StepRecord;
use crate::tar::Time;
use crate::{Error, Result};

impl Store {
    /// Puts the layer of one step on top of another tree, and records that as what the step `key` gave, held by `lease`.
    /// A lease has to hold both.
    ///
    /// # Errors
    /// `NotFound` when the layer has no record, `TooLarge` where an image may not have another layer.
    pub fn stack_step(
        &self,
        key: &Digest,
        below: Option<Digest>,
        step: &StepRecord,
        lease: &Lease,
    ) -> Result<StepRecord> {
        let mut record =
            StepRecord { chain: below, below, made: now(), used: now(), uses: 0, of: None, ..step.clone() };
        let layer =
            step.chain.filter(|_| step.diff_id.is_some()).map(|c| self.layer(&c)).transpose()?.flatten();
        let (Some(layer), Some(diff_id)) = (layer, step.diff_id) else {
            self.meta().commit(Batch::new().put(Table::Steps, &key.to_string(), &record))?;
            return Ok(record);
        };
        let mut chain = Chain::on(chain_of(self, below)?);
        check_depth(chain.ids.len() + 1)?;
        let custody = Custody::new(self, "build step")?;
        let there = self.layer(&Digest::chain(chain.ids.last(), &diff_id))?.is_some();
        let parent = chain.parent_snapshot(self)?;
        let staged =
            if there { None } else { Some(again(&custody, &layer.cache_id, diff_id, parent.as_deref())?) };
        record.unsynced = self.is_durable().then(|| self.boot().to_owned());
        let graph = self.adding();
        let kept = (|| {
            if !chain.reuse(self, &diff_id)? {
                let staged = staged.ok_or_else(|| Error::NotFound("a layer was removed meanwhile".into()))?;
                chain.push(self, staged)?;
            }
            record.chain = chain.ids.last().copied();
            record.chain.map_or(Ok(()), |id| lease.add_layer(id))?;
            let batch = chain.records(Batch::new()).put(Table::Steps, &key.to_string(), &record);
            self.meta().commit(batch)
        })();
        if let Err(e) = kept {
            chain.undo(self, &graph);
            return Err(e);
        }
        Ok(record)
    }

    /// Makes a layer of what was written into `container` (see [`Self::create_rw_on`]), which is removed, and records
    /// it as what the step `key` gave, held by `lease`. Where the driver can, nothing is copied. Nobody may have the container's root
    /// mounted, and a lease has to hold what it stands on. After a failure what was written may be gone: all that is left
    /// to do with the container is to remove it.
    ///
    /// # Errors
    /// `NotFound` when the container has no writable layer, `TooLarge` where an image may not have another layer.
    pub fn keep_step(&self, key: &Digest, container: &str, what: &str, lease: &Lease) -> Result<StepRecord> {
        let rw = self.rw(container)?;
        let below = chain_of(self, rw.top)?;
        let custody = Custody::new(self, "build step")?;
        let (staged, newest) = if self.driver().stages() {
            Staged::adopt(&custody, &rw.mount_id)?
        } else {
            let staged = copy_of(&custody, &rw)?;
            // Copies have no time of their own here: what was written is as new as the step.
            self.durable()?;
            let made = now();
            (staged, Time { secs: made / 1_000_000_000, nanos: 0 })
        };
        let mut step = StepRecord {
            chain: rw.top,
            below: rw.top,
            diff_id: None,
            size: 0,
            newest: 0,
            made: now(),
            used: now(),
            uses: 0,
            what: what.to_owned(),
            of: None,
            unsynced: None,
        };
        let graph = self.adding();
        let mut chain = Chain::on(below);
        let kept = (|| {
            if !says_nothing(&staged) {
                check_depth(chain.ids.len() + 1)?;
                step.newest =
                    newest.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(newest.nanos));
                step.size = staged.size;
                step.diff_id = Some(staged.diff_id);
                step.unsynced = self.is_durable().then(|| self.boot().to_owned());
                if !chain.reuse(self, &staged.diff_id)? {
                    chain.push(self, staged)?;
                }
                step.chain = chain.ids.last().copied();
                step.chain.map_or(Ok(()), |id| lease.add_layer(id))?;
            }
            let batch = chain.records(Batch::new()).put(Table::Steps, &key.to_string(), &step);
            self.meta().commit(batch)
        })();
        if let Err(e) = kept {
            chain.undo(self, &graph);
            return Err(e);
        }
        drop(graph);
        if let Err(e) = self.remove_rw(container) {
            tracing::warn!(container, error = %e, "a step's working files stay until the next start");
        }
        Ok(step)
    }
}
