//! Steps of builds: what each gave, under the digest of everything that it depends on. This is the build cache; its
//! layers are layers like any others, and stay as long as a step, an image, a container or a lease names them.
//!
//! A step is on record before its layer is on disk: waiting for the disk after every step would take longer than most
//! steps. Until an image makes the layer durable the record names the boot it was made on; the store of another boot
//! forgets it.

use std::collections::BTreeSet;

use longshore_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::image::now;
use crate::meta::{Batch, Table};
use crate::open::Store;

/// A step that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Chain id of the tree after the step; `None` for an empty tree.
    pub chain: Option<Digest>,
    /// Chain id of the tree before it.
    pub below: Option<Digest>,
    /// Digest of the tar of its layer; `None` for a step that changed nothing.
    pub diff_id: Option<Digest>,
    /// Bytes of the files in its layer; 0 for a step that changed nothing.
    pub size: u64,
    /// When the newest file of its layer was changed, nanoseconds since 1970; 0 for a step that changed nothing.
    pub newest: i64,
    /// When it was carried out, nanoseconds since 1970.
    pub made: i64,
    /// When its result was last wanted, nanoseconds since 1970.
    pub used: i64,
    /// How often its result was wanted.
    pub uses: u64,
    /// What it was, for people.
    pub what: String,
    /// The key that covers everything that the step depends on, where this record is under a second one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Digest>,
    /// The boot on which it was made, until its layer is known to be on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsynced: Option<String>,
}

/// What a step depended on, for people: no key is made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInputs {
    /// Each thing by its name, with its values.
    pub parts: Vec<(String, Vec<String>)>,
    /// Files that it took of a context, with a digest of each; none where there were too many, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<(String, String)>,
}

/// What removing steps gave back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepsDropped {
    /// The steps, by key.
    pub steps: Vec<Digest>,
    /// Bytes of the disk.
    pub bytes: u64,
}

impl Store {
    /// What the step with this key gave, if it was carried out and its layer is whole.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn step(&self, key: &Digest) -> Result<Option<StepRecord>> {
        self.meta().get(Table::Steps, &key.to_string())
    }

    /// All steps with their keys.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn steps(&self) -> Result<Vec<(Digest, StepRecord)>> {
        let rows = self.meta().list::<StepRecord>(Table::Steps)?;
        rows.into_iter().map(|(key, step)| Ok((crate::image::parse_id(&key)?, step))).collect()
    }

    /// Notes what the step with this key depended on.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn note_inputs(&self, key: &Digest, inputs: &StepInputs) -> Result<()> {
        self.meta().commit_lazy(Batch::new().put(Table::Inputs, &key.to_string(), inputs))
    }

    /// What the step with this key depended on, if that was noted.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn inputs(&self, key: &Digest) -> Result<Option<StepInputs>> {
        self.meta().get(Table::Inputs, &key.to_string())
    }

    /// Records what the step `key` gave under a second key, too.
    ///
    /// # Errors
    /// When the metadata cannot be read or written.
    pub fn alias_step(&self, key: &Digest, second: &Digest) -> Result<()> {
        match self.step(key)? {
            Some(step) => {
                let step = StepRecord { of: Some(*key), ..step };
                self.meta().commit_lazy(Batch::new().put(Table::Steps, &second.to_string(), &step))
            }
            None => Ok(()),
        }
    }

    /// Records steps that were carried out elsewhere, and whose layers were just received: a lease holds these.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn record_steps(&self, steps: &[(Digest, StepRecord)]) -> Result<()> {
        let put = |batch: Batch, (key, step): &(Digest, StepRecord)| {
            let boot = step.diff_id.filter(|_| self.is_durable()).map(|_| self.boot().to_owned());
            batch.put(Table::Steps, &key.to_string(), &StepRecord { unsynced: boot, ..step.clone() })
        };
        self.meta().commit_lazy(steps.iter().fold(Batch::new(), put))
    }

    /// Notes that steps were wanted again.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn touch_steps(&self, keys: &[Digest]) -> Result<()> {
        let mut batch = Batch::new();
        for key in keys {
            if let Some(mut step) = self.step(key)? {
                step.used = now();
                step.uses += 1;
                batch = batch.put(Table::Steps, &key.to_string(), &step);
            }
        }
        self.meta().commit_lazy(batch)
    }

    /// Removes steps, and the layers that nothing else needs.
    ///
    /// # Errors
    /// When the metadata cannot be read or written. Files that cannot be removed go at the next start.
    pub fn drop_steps(&self, keys: &[Digest]) -> Result<StepsDropped> {
        let mut dropped = StepsDropped::default();
        let mut batch = Batch::new();
        for key in keys {
            if self.meta().contains(Table::Steps, &key.to_string())? {
                batch = batch.delete(Table::Steps, &key.to_string()).delete(Table::Inputs, &key.to_string());
                dropped.steps.push(*key);
            }
        }
        self.meta().commit(batch)?;
        let unused = self.collect_layers(&self.collecting())?;
        dropped.bytes = self.discard_counting(&unused)?;
        Ok(dropped)
    }

    /// Forgets steps of another boot whose layers may not have reached the disk.
    pub(crate) fn forget_unsynced_steps(&self) -> Result<()> {
        let lost = |step: &StepRecord| step.unsynced.as_ref().is_some_and(|boot| boot != self.boot());
        let mut batch = Batch::new();
        for (key, step) in self.meta().list::<StepRecord>(Table::Steps)? {
            if lost(&step) {
                batch = batch.delete(Table::Steps, &key).delete(Table::Inputs, &key);
            }
        }
        self.meta().commit(batch)
    }

    /// Notes, in `batch`, that everything there is by now was made durable.
    pub(crate) fn steps_are_synced(&self, mut batch: Batch, until: i64) -> Result<Batch> {
        for (key, mut step) in self.meta().list::<StepRecord>(Table::Steps)? {
            if step.unsynced.is_some() && step.made <= until {
                step.unsynced = None;
                batch = batch.put(Table::Steps, &key, &step);
            }
        }
        Ok(batch)
    }

    /// Chain ids of the trees that steps gave.
    pub(crate) fn step_layers(&self) -> Result<BTreeSet<Digest>> {
        let rows = self.meta().list::<StepRecord>(Table::Steps)?;
        Ok(rows.into_iter().filter_map(|(_, step)| step.chain).collect())
    }
}
