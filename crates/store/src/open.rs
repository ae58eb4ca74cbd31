//! The store as a whole: opened on a data root, repaired from what a crash left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_oci::Digest;

use crate::content::Content;
use crate::image::{ImageRow, Images, LayerRecord, parse_id};
use crate::lease::{self, Lease};
use crate::meta::{Batch, Meta, Table};
use crate::rw::MountRow;
use crate::snapshot::{DriverChoice, DriverName, SnapshotDriver, choose, make_private_dir};
use crate::{Error, IoContext, Result};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `None`: the driver that the data root was made with, or the best that works.
    pub driver: Option<DriverName>,
    /// Whether what is acknowledged survives a power cut; off only for tests.
    pub sync: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { driver: None, sync: true }
    }
}

/// Everything below a data root. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    meta: Meta,
    content: Content,
    driver: Box<dyn SnapshotDriver>,
    choice: DriverChoice,
    sync: bool,
    /// Held while records of images and layers are changed, so that none is collected while it is being used anew.
    graph: Mutex<()>,
}

/// Proof that the graph of images and layers stands still.
#[derive(Debug)]
pub(crate) struct Graph<'a>(#[expect(dead_code, reason = "held, not read")] MutexGuard<'a, ()>);

const DRIVER_KEY: &str = "driver";

impl Store {
    /// Opens the data root (and makes it), and removes what no record names.
    ///
    /// # Errors
    /// When another daemon has it open, when the driver asked for does not work or is not the one that the data
    /// root was made with, or when the system refuses.
    pub fn open(data_root: &Path, options: &StoreOptions) -> Result<Self> {
        fs::create_dir_all(data_root).context(|| format!("make {}", data_root.display()))?;
        make_private_dir(data_root, 0o710)?;
        let root = fs::canonicalize(data_root).context(|| format!("find {}", data_root.display()))?;
        make_private_dir(&root.join("layers"), 0o700)?;
        let meta = Meta::open(&root.join("longshore.db"), options.sync)?;
        let content = Content::open(&root.join("content"), options.sync)?;
        let made_with: Option<DriverName> =
            meta.get::<String>(Table::Kv, DRIVER_KEY)?.map(|name| name.parse()).transpose()?;
        if let (Some(wanted), Some(made)) = (options.driver, made_with)
            && wanted != made
            && !meta.keys(Table::Layers)?.is_empty()
        {
            return Err(Error::Conflict(format!(
                "{} holds layers of the {made} driver: use that, or another data root for {wanted}",
                root.display()
            )));
        }
        let (driver, choice) = choose(&root, options.driver.or(made_with))?;
        meta.commit_lazy(Batch::new().put(Table::Kv, DRIVER_KEY, choice.name.as_str()))?;
        let inner = Inner { root, meta, content, driver, choice, sync: options.sync, graph: Mutex::new(()) };
        let store = Self { inner: Arc::new(inner) };
        store.recover()?;
        Ok(store)
    }

    /// The data root, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The metadata.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.inner.meta
    }

    /// The blobs.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.inner.content
    }

    /// The snapshots.
    #[must_use]
    pub fn driver(&self) -> &dyn SnapshotDriver {
        self.inner.driver.as_ref()
    }

    /// Which driver, and why.
    #[must_use]
    pub fn driver_choice(&self) -> &DriverChoice {
        &self.inner.choice
    }

    /// The images.
    #[must_use]
    pub fn images(&self) -> Images<'_> {
        Images::new(self)
    }

    /// Protects what is being made from the collector until it is dropped.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn lease(&self, reason: &str) -> Result<Lease> {
        Lease::new(&self.inner.meta, reason)
    }

    pub(crate) fn graph(&self) -> Graph<'_> {
        Graph(self.inner.graph.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn durable(&self) -> Result<()> {
        if self.inner.sync { self.driver().sync() } else { Ok(()) }
    }

    /// The layer with this chain id.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn layer(&self, chain: &Digest) -> Result<Option<LayerRecord>> {
        self.meta().get(Table::Layers, &chain.to_string())
    }

    /// Where a layer's recipe and index lie.
    pub(crate) fn layer_files(&self, cache_id: &str) -> PathBuf {
        self.inner.root.join("layers").join(cache_id)
    }

    /// Removes a snapshot that is no layer (any more), with the files beside it.
    pub(crate) fn drop_snapshot(&self, cache_id: &str) -> Result<()> {
        self.driver().remove(cache_id)?;
        let files = self.layer_files(cache_id);
        match fs::remove_dir_all(&files) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", files.display()), e))
            }
            _ => Ok(()),
        }
    }

    /// Removes every layer that no image and no container uses: records first, then files, so that a crash between
    /// leaves nothing that is half there. Gives the chain ids, the topmost first.
    pub(crate) fn collect_layers(&self, _graph: &Graph<'_>) -> Result<Vec<Digest>> {
        let layers = self.meta().list::<LayerRecord>(Table::Layers)?;
        let parents: std::collections::BTreeMap<Digest, LayerRecord> =
            layers.into_iter().map(|(k, l)| Ok((parse_id(&k)?, l))).collect::<Result<_>>()?;
        let mut used = BTreeSet::new();
        let mut tops: Vec<Digest> = Vec::new();
        for (_, image) in self.meta().list::<ImageRow>(Table::Images)? {
            tops.extend(image.layers.last());
        }
        tops.extend(self.meta().list::<MountRow>(Table::Mounts)?.into_iter().filter_map(|(_, m)| m.top));
        for top in tops {
            let mut next = Some(top);
            while let Some(chain) = next
                && used.insert(chain)
            {
                next = parents.get(&chain).and_then(|l| l.parent);
            }
        }
        let mut unused: Vec<(Digest, &LayerRecord)> =
            parents.iter().filter(|(c, _)| !used.contains(*c)).map(|(c, l)| (*c, l)).collect();
        let depth = |chain: &Digest| {
            std::iter::successors(parents.get(chain), |l| l.parent.as_ref().and_then(|p| parents.get(p)))
                .take(1000)
                .count()
        };
        unused.sort_by_key(|(chain, _)| std::cmp::Reverse(depth(chain)));
        let batch =
            unused.iter().fold(Batch::new(), |b, (chain, _)| b.delete(Table::Layers, &chain.to_string()));
        if !unused.is_empty() {
            self.meta().commit(batch)?;
        }
        let blobs: BTreeSet<Digest> = parents
            .iter()
            .filter(|(c, _)| used.contains(*c))
            .filter_map(|(_, l)| l.blob.as_ref().map(|b| b.digest))
            .collect();
        for (_, layer) in &unused {
            self.drop_snapshot(&layer.cache_id)?;
            if let Some(blob) = layer.blob.as_ref().filter(|b| !blobs.contains(&b.digest)) {
                self.content().delete(&blob.digest)?;
            }
        }
        Ok(unused.into_iter().map(|(chain, _)| chain).collect())
    }

    /// Makes the files agree with the records. Nobody else has the store open.
    fn recover(&self) -> Result<()> {
        lease::remove_stale(self.meta())?;
        let layers = self.meta().list::<LayerRecord>(Table::Layers)?;
        let mounts = self.meta().list::<MountRow>(Table::Mounts)?;
        let mut known: BTreeSet<String> = layers.iter().map(|(_, l)| l.cache_id.clone()).collect();
        for (_, mount) in &mounts {
            known.insert(mount.mount_id.clone());
            known.insert(mount.init_id());
        }
        for id in self.driver().list()? {
            if !known.contains(&id) {
                tracing::info!(snapshot = %id, "removing a snapshot that nothing names");
                self.drop_snapshot(&id)?;
            }
        }
        let beside = self.inner.root.join("layers");
        for entry in fs::read_dir(&beside).context(|| format!("read {}", beside.display()))? {
            let entry = entry.context(|| format!("read {}", beside.display()))?;
            if !known.contains(entry.file_name().to_string_lossy().as_ref()) {
                fs::remove_dir_all(entry.path()).context(|| format!("remove {}", entry.path().display()))?;
            }
        }
        let mut blobs: BTreeSet<Digest> =
            layers.iter().filter_map(|(_, l)| l.blob.as_ref().map(|b| b.digest)).collect();
        for key in self.meta().keys(Table::Images)? {
            blobs.insert(parse_id(&key)?);
        }
        for blob in self.content().list()? {
            if !blobs.contains(&blob) {
                self.content().delete(&blob)?;
            }
        }
        Ok(())
    }
}
