//! `rename`, `wait`, `changes`, `export`, `top`.

use longshore_oci::Kind;

use super::ps;
use crate::model::{ChangeKind, FsChange, Processes, WaitCondition, WaitResult};
use crate::stream::{ByteStream, WaitFuture};
use crate::{Engine, Error, Result, names, pipe};

impl Engine {
    /// Gives a container another name.
    ///
    /// # Errors
    /// When the name is taken or against the rule.
    pub async fn rename(&self, name: &str, new: &str) -> Result<()> {
        if name.is_empty() || new.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let c = self.find(name)?;
        let new = names::check_container_name(&format!("/{}", new.trim_start_matches('/')))
            .map_err(|e| e.context("Error when allocating new name"))?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _op = c.op.lock().await;
            let mut record = c.record();
            if record.name == new {
                return Err(Error::invalid("Renaming a container with the same name as its current name"));
            }
            if c.life.borrow().removed {
                return Err(Error::no_such_container(&c.id));
            }
            engine
                .index(|i| i.reserve(&new, &c.id))
                .map_err(|e| e.context("Error when allocating new name"))?;
            let old = std::mem::replace(&mut record.name, new.clone());
            let stored = engine.blocking(move |e| e.store_record(&record)).await;
            if let Err(e) = stored {
                engine.index(|i| i.release(&new, &c.id));
                return Err(e);
            }
            c.write().record.name = new;
            engine.tell_names_again(&c);
            engine.index(|i| i.release(&old, &c.id));
            engine.container_event(&c, "rename", &[("oldName", format!("/{old}"))]);
            Ok(())
        })
        .await
    }

    /// Waits for an end. The future is armed when this returns: an end in between is not missed.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn wait(&self, name: &str, condition: WaitCondition) -> Result<WaitFuture> {
        let c = self.find(name)?;
        let mut life = c.life.subscribe();
        let exits = life.borrow_and_update().exits;
        Ok(Box::pin(async move {
            let ended = match condition {
                WaitCondition::NotRunning => {
                    life.wait_for(|l| !l.running || l.exits > exits || l.removed).await
                }
                WaitCondition::NextExit => life.wait_for(|l| l.exits > exits || l.removed).await,
                WaitCondition::Removed => life.wait_for(|l| l.removed).await,
            };
            let life = ended.map_err(|_| Error::new(Kind::Cancelled, "the engine is stopping"))?;
            // A removal after a start that failed is no end: who started it has been told why.
            let only_removed = life.removed && life.exits == exits;
            let error = life.error.clone().filter(|e| !e.is_empty() && !only_removed);
            Ok(WaitResult { code: i64::from(life.code), error })
        }))
    }

    /// What the container changed in its file system.
    ///
    /// # Errors
    /// When the layer cannot be read.
    pub async fn changes(&self, name: &str) -> Result<Vec<FsChange>> {
        let c = self.find(name)?;
        let permit = c.readers.clone().acquire_owned().await;
        self.blocking(move |e| {
            let _permit = permit;
            let changes = e.inner.store.changes(&c.id)?;
            Ok(changes.into_iter().map(fs_change).collect())
        })
        .await
    }

    /// The container's file system as a tar.
    ///
    /// # Errors
    /// When there is no such container; later ones come in the stream.
    pub async fn export(&self, name: &str) -> Result<ByteStream> {
        let c = self.find(name)?;
        let permit = c.readers.clone().acquire_owned().await;
        let engine = self.clone();
        Ok(pipe::from_writer(move |w| {
            let _permit = permit;
            engine.inner.store.export(&c.id, w)?;
            engine.container_event(&c, "export", &[]);
            Ok(())
        }))
    }

    /// The container's processes as `ps` shows them.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub async fn top(&self, name: &str, ps_args: &str) -> Result<Processes> {
        let c = self.find(name)?;
        let columns = ps::columns(if ps_args.trim().is_empty() { "-ef" } else { ps_args })?;
        let task = c.task().ok_or_else(|| Error::conflict(format!("container {} is not running", c.id)))?;
        let processes = self.blocking(move |_| Ok(ps::read(&task.pids()?, &columns))).await?;
        self.container_event(&c, "top", &[]);
        Ok(processes)
    }
}

fn fs_change(c: longshore_store::snapshot::Change) -> FsChange {
    use longshore_store::snapshot::ChangeKind as K;
    let kind = match c.kind {
        K::Modified => ChangeKind::Modified,
        K::Added => ChangeKind::Added,
        K::Deleted => ChangeKind::Deleted,
    };
    let path = c.path.to_string_lossy();
    let path = if path.starts_with('/') { path.into_owned() } else { format!("/{path}") };
    FsChange { path, kind }
}
