//! `mount` and `umount`: the tree of a working container on this machine, for other programs.

use longshore_store::Visit;

use super::{Record, Working};
use crate::{Engine, Error, Result};

impl Engine {
    /// Mounts a working container's tree and gives its path; idempotent. It stays mounted until it is asked to be
    /// unmounted or the container is removed, whether the daemon runs or not.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn mount_working(&self, name: &str) -> Result<String> {
        // What is mounted needs no turn: something may be at work in it.
        if let Some(tree) = self.find_working(name)?.tree() {
            return Ok(tree);
        }
        let turn = self.working_turn(name).await?;
        self.blocking(move |e| {
            let working = &turn.working;
            if working.tree().is_none() {
                let visit = e.inner.store.visit(&working.id)?;
                let record = Record { mounted: true, ..working.record() };
                e.store_working(working, record.clone())?;
                *working.visit() = Some(visit);
                e.working_event(&record, "mount", &[]);
            }
            working.tree().ok_or_else(|| Error::internal("a tree that was mounted is not"))
        })
        .await
    }

    /// Undoes that; idempotent. Gives the container's id, or nothing if it was not mounted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn unmount_working(&self, name: &str) -> Result<Option<String>> {
        let turn = self.working_turn(name).await?;
        self.blocking(move |e| e.unmount_working_blocking(&turn.working)).await
    }

    fn unmount_working_blocking(&self, working: &Working) -> Result<Option<String>> {
        let Some(visit) = working.visit().take() else { return Ok(None) };
        drop(visit);
        // Idempotent, and tells what the kernel said.
        self.inner.store.unmount_rw(&working.id)?;
        let record = Record { mounted: false, ..working.record() };
        self.store_working(working, record.clone())?;
        self.working_event(&record, "unmount", &[]);
        Ok(Some(record.id))
    }

    /// Leaves what is mounted to the next daemon. For the end of this one only.
    pub(crate) fn leave_working_mounted(&self) {
        for working in self.all_working() {
            let visit = working.visit().take();
            visit.into_iter().for_each(Visit::keep);
        }
    }
}
