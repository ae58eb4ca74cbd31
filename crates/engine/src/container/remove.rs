//! `rm`.

use std::sync::Arc;

use longshore_store::meta::{Batch, Table};
use longshore_store::usage::allocated;

use super::Container;
use crate::engine::remove_dir;
use crate::model::{RemoveOptions, Status};
use crate::{Engine, Error, Result};

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// `Conflict` while it runs, unless forced.
    pub async fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        self.remove_telling(name, options).await.map(drop)
    }

    /// The same; gives the bytes of the disk that this freed, if they were to be measured.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub(crate) async fn remove_telling(&self, name: &str, options: RemoveOptions) -> Result<u64> {
        let c = self.find(name)?;
        if options.link {
            // There are no other links than a container's own name.
            return Err(Error::conflict("Conflict, cannot remove the default link name of the container"));
        }
        let name = name.to_owned();
        let engine = self.clone();
        self.to_the_end(async move {
            let _op = c.op.lock().await;
            if c.life.borrow().removed {
                return Err(Error::no_such_container(&name));
            }
            engine.check_removable(&c, &name, options)?;
            if c.read().record.is_active() {
                engine.end_for_removal(&c).await?;
            }
            engine.remove_locked(&c, options).await
        })
        .await
    }

    fn check_removable(&self, c: &Container, name: &str, options: RemoveOptions) -> Result<()> {
        let status = c.read().record.state.status;
        let (is, remedy) = match status {
            _ if options.force => return Ok(()),
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "cannot remove container {name:?}: container is paused and must be unpaused first"
                )));
            }
            Status::Running => ("running", "stop the container before removing or force remove"),
            Status::Restarting => ("restarting", "stop the container before removing or force remove"),
            _ => return Ok(()),
        };
        Err(Error::conflict(format!("cannot remove container {name:?}: container is {is}: {remedy}")))
    }

    /// Kills what runs. The caller holds the operation lock.
    async fn end_for_removal(&self, c: &Arc<Container>) -> Result<()> {
        let (task, paused) = {
            let mut data = c.write();
            data.record.stopped_by_hand = true;
            data.record.host.auto_remove = false;
            (data.task.clone(), data.record.state.status == Status::Paused)
        };
        let exits = c.life.borrow().exits;
        let Some(task) = task else {
            return self.stop_locked(c, None, None).await;
        };
        self.container_event(c, "kill", &[("signal", crate::signals::KILL.to_string())]);
        if paused {
            let t = task.clone();
            // One that cannot be thawed is killed by its cgroup below.
            let _ = self.blocking(move |_| Ok(t.resume()?)).await;
        }
        self.kill_and_wait(c, &task, exits).await
    }

    /// Removes what does not run: layer, volumes, directory, record. The caller holds the operation lock.
    ///
    /// # Errors
    /// The first failure; what could be removed is, and a second try goes on.
    pub(crate) async fn remove_locked(&self, c: &Arc<Container>, options: RemoveOptions) -> Result<u64> {
        c.write().record.state.status = Status::Removing;
        let container = c.clone();
        let removed = self.blocking(move |e| e.remove_blocking(&container, options)).await;
        removed.map_err(|e| {
            // It is there again, to be removed by a second try.
            let record = {
                let mut data = c.write();
                data.record.state.status = Status::Dead;
                data.record.state.error = e.to_string();
                data.record.clone()
            };
            self.save_state(&record);
            e.context(format!("cannot remove container {:?}", record.name))
        })
    }

    fn remove_blocking(&self, c: &Arc<Container>, options: RemoveOptions) -> Result<u64> {
        let record = c.record();
        self.release_runtime(c);
        let dir = self.inner.paths.container(&c.id);
        let mut freed = match options.measure {
            true => {
                self.inner.store.rw_allocated(&c.id).unwrap_or(0) + allocated(&dir).map_or(0, |a| a.bytes)
            }
            false => 0,
        };
        // The record is what makes it exist; the rest is swept at the next start if this is cut short.
        freed += self.inner.store.remove_rw_with(&c.id, Batch::new().delete(Table::Containers, &c.id))?;
        crate::notes::remove(&self.inner.paths, &c.id);
        if let Err(e) = remove_dir(&dir) {
            tracing::warn!(container = c.id, "its directory stays until the next start: {e}");
        }
        self.index(|i| {
            i.by_id.remove(&c.id);
            i.release(&record.name, &c.id);
        });
        if options.volumes {
            for m in record.mounts.iter().filter(|m| m.anonymous && m.kind == "volume") {
                match self.remove_volume_blocking(&m.name, options.measure) {
                    Ok(bytes) => freed += bytes,
                    Err(e) => tracing::debug!(volume = m.name, "stays: {e}"),
                }
            }
        }
        self.inner.execs.forget_container(&c.id);
        self.container_event(c, "destroy", &[]);
        c.life.send_modify(|l| {
            l.running = false;
            l.removed = true;
        });
        c.write().pending.clear();
        Ok(freed)
    }
}
