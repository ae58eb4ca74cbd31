//! Working containers in a daemon that starts.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use longshore_store::meta::Table;
use serde::Deserialize as _;
use serde_json::Value;

use super::{Record, Working};
use crate::build::of_build;
use crate::{Engine, Result};

impl Engine {
    /// Reads the records. What their layers hold is taken up by [`Self::recover_working`].
    pub(crate) fn read_working(&self) -> Result<()> {
        let all = &self.workings().by_id;
        for (id, record) in self.inner.store.meta().list::<Record>(Table::Working)? {
            if record.id != id {
                tracing::error!(working = id, "its record names {}: left alone", record.id);
                continue;
            }
            all.write().unwrap_or_else(PoisonError::into_inner).insert(id, Working::new(record));
        }
        Ok(())
    }

    /// Ids of those that there are.
    pub(crate) fn working_ids(&self) -> BTreeSet<String> {
        self.all_working().iter().map(|w| w.id.clone()).collect()
    }

    /// Settles what an earlier daemon was doing, and takes up what it had mounted. What ran in them must have been ended.
    pub(crate) fn recover_working(&self) {
        for working in self.all_working() {
            // Each for itself: the others are none the worse for one that fails.
            for done in [self.mount_again(&working), self.settle_working(&working)] {
                if let Err(e) = done {
                    tracing::warn!(working = working.id, "take it up again: {e}");
                }
            }
        }
    }

    fn mount_again(&self, working: &Working) -> Result<()> {
        let store = &self.inner.store;
        if working.record().mounted {
            // After a boot it is mounted anew: whoever asked for it finds it at the same place.
            *working.visit() = Some(store.visit(&working.id)?);
        }
        // The mount of a command that was ended; it stays if somebody else has it.
        Ok(store.unmount_rw(&working.id)?)
    }

    fn settle_working(&self, working: &Working) -> Result<()> {
        let mut record = working.record();
        let Some(busy) = record.busy.take() else { return Ok(()) };
        tracing::info!(working = working.id, what = busy.what, "it was cut short");
        let tidied = self.inner.builder.tidy_lasting(&working.id, &busy.places).map_err(of_build);
        record.interrupted = Some(busy.what);
        self.store_working(working, record)?;
        tidied
    }
}

/// What keeps a record from being understood.
pub(crate) fn decode(value: &Value) -> Result<(), String> {
    Record::deserialize(value).map(drop).map_err(|e| format!("its record is not understood: {e}"))
}
