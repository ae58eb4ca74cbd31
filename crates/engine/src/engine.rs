//! The engine's insides, and what all its parts use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use longshore_oci::Kind;
use longshore_runtime::Runtimes;
use longshore_store::Store;
use longshore_store::meta::{Batch, Table};
use tokio::sync::watch;

use crate::container::{Container, Index};
use crate::events::{Attributes, EventBus};
use crate::exec::Execs;
use crate::network::Networks;
use crate::record::Record;
use crate::registry::Registry;
use crate::volume::Volumes;
use crate::working::Workings;
use crate::{Engine, EngineOptions, Error, Result, notes};

pub(crate) struct Inner {
    /// Held as long as the engine is there.
    pub(crate) _exec_lock: std::fs::File,
    pub(crate) options: EngineOptions,
    pub(crate) paths: Paths,
    pub(crate) system_id: String,
    /// Of this boot.
    pub(crate) boot: String,
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) builder: Arc<longshore_build::Builder>,
    /// Directories of clients that builds may use.
    pub(crate) layouts: Arc<crate::build::Layouts>,
    pub(crate) runtimes: Runtimes,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) events: EventBus,
    pub(crate) execs: Execs,
    pub(crate) containers: RwLock<Index>,
    pub(crate) workings: Workings,
    /// Held (shared) while a container is made from an image, alone while one is removed.
    pub(crate) image_use: tokio::sync::RwLock<()>,
    /// Told when there is an image more.
    pub(crate) image_added: tokio::sync::Notify,
    /// True once the daemon stops: no restarts any more.
    pub(crate) closing: watch::Sender<bool>,
}

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) data: PathBuf,
    pub(crate) exec: PathBuf,
    /// In place of the host's resolv.conf.
    pub(crate) resolv_conf: Option<PathBuf>,
}

impl Paths {
    /// A container's own directory.
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.data.join("containers").join(id)
    }

    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }

    /// Where the monitor leaves how the container ended.
    pub(crate) fn exit_file(&self, id: &str) -> PathBuf {
        self.container(id).join("exit")
    }

    /// Where a network namespace is pinned.
    pub(crate) fn netns(&self, sandbox: &str) -> PathBuf {
        self.exec.join("netns").join(sandbox.get(..12).unwrap_or(sandbox))
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// Shared memory of a container in the host's mount namespace.
    pub(crate) fn shm(&self, id: &str) -> PathBuf {
        self.container(id).join("mounts").join("shm")
    }
}

impl Engine {
    /// By id, name or unique beginning of an id.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Container>> {
        self.inner.containers.read().unwrap_or_else(PoisonError::into_inner).find(text)
    }

    /// All containers as they are now.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.inner.containers.read().unwrap_or_else(PoisonError::into_inner).by_id.values().cloned().collect()
    }

    /// Changes the index.
    pub(crate) fn index<T>(&self, f: impl FnOnce(&mut Index) -> T) -> T {
        f(&mut self.inner.containers.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stores a record durably.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn store_record(&self, record: &Record) -> Result<()> {
        self.inner.store.meta().commit(Batch::new().put(Table::Containers, &record.id, record))?;
        notes::write(&self.inner.paths, &self.inner.boot, record)
    }

    /// Stores state that survives the daemon and can be rebuilt after a power cut; a failure is only logged.
    pub(crate) fn save_state(&self, record: &Record) {
        if record.transient {
            return;
        }
        if let Err(e) = notes::write(&self.inner.paths, &self.inner.boot, record) {
            tracing::error!(container = record.id, "could not store state: {e}");
        }
        let batch = Batch::new().put(Table::Containers, &record.id, record);
        if let Err(e) = self.inner.store.meta().commit_lazy(batch) {
            tracing::error!(container = record.id, "could not store state: {e}");
        }
    }

    /// Announces something about a container.
    pub(crate) fn container_event(&self, c: &Container, action: impl Into<String>, more: &[(&str, String)]) {
        if c.read().record.transient {
            return;
        }
        let mut attributes = c.attributes();
        attributes.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        self.inner.events.publish("container", action, c.id.clone(), attributes);
    }

    /// Announces something else.
    pub(crate) fn event(&self, kind: &str, action: &str, actor: &str, pairs: &[(&str, &str)]) {
        let attributes: Attributes = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.inner.events.publish(kind, action, actor, attributes);
    }

    /// Runs blocking work with the engine on a thread of its own. It goes on even if the caller
    /// goes away, so that nothing is left half done.
    ///
    /// # Errors
    /// Those of the work; `Internal` when it panicked.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let engine = self.clone();
        match tokio::task::spawn_blocking(move || f(&engine)).await {
            Ok(result) => result,
            Err(e) if e.is_cancelled() => Err(Error::new(Kind::Cancelled, "the engine is stopping")),
            Err(_) => Err(Error::internal("a worker failed; see the daemon's log")),
        }
    }

    /// Runs an operation to its end even if the client that asked for it goes away.
    ///
    /// # Errors
    /// Those of the operation.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match tokio::spawn(operation).await {
            Ok(result) => result,
            Err(e) if e.is_cancelled() => Err(Error::new(Kind::Cancelled, "the engine is stopping")),
            Err(_) => Err(Error::internal("an operation failed; see the daemon's log")),
        }
    }
}

/// Makes a directory (and its parents) with this mode, if it is not there.
///
/// # Errors
/// When the system refuses.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|e| Error::io(format!("make directory {}", path.display()), e))
}

/// Removes a tree that a container may have written, a volume's; what is gone already is fine.
///
/// # Errors
/// When the system refuses.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    Ok(longshore_store::remove_tree(path)?)
}
