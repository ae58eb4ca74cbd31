//! The store as a whole: opened on a data root, repaired from what a crash left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use longshore_oci::Digest;

use crate::content::Content;
use crate::image::{ImageRow, Images, LayerRecord, parse_id};
use crate::lease::{self, Lease};
use crate::meta::{Batch, Meta, Table};
use crate::pool::Pool;
use crate::rw::{MountRow, Users};
use crate::snapshot::{DriverChoice, DriverName, SnapshotDriver, choose, make_private_dir};
use crate::unclean::{self, Unverified};
use crate::usage::{Allocated, allocated};
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
    /// Held while images and layers are added or renamed: what is looked for before is still so afterwards.
    adding: Mutex<()>,
    /// Read by whoever builds on layers, written by the collector.
    standing: RwLock<()>,
    /// Held while a blob is put under a lease, or found to be nobody's and deleted.
    blobs: Mutex<()>,
    /// A directory on each file system that blobs and layers lie on; open all the time, so that no error of writing
    /// back is missed.
    disks: Vec<fs::File>,
    boot: String,
    /// What is not to be trusted yet.
    unverified: Mutex<Unverified>,
    /// Held while a layer is verified.
    verifying: Mutex<()>,
    /// Who uses a container's mount.
    users: Mutex<HashMap<String, Users>>,
    pool: Pool,
}

/// While it lives no layer is collected.
#[derive(Debug)]
pub(crate) struct Standing<'a>(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>);

/// While it lives nobody else changes the graph of images and layers, and no layer is collected.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(crate) struct Adding<'a>(MutexGuard<'a, ()>, RwLockReadGuard<'a, ()>);

/// While it lives nobody else uses the graph of images and layers.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(crate) struct Collecting<'a>(MutexGuard<'a, ()>, RwLockWriteGuard<'a, ()>);

/// What lost its record and can be deleted, which takes time and so comes after the locks.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Unused {
    /// Chain ids of the layers, the topmost first.
    pub(crate) chains: Vec<Digest>,
    snapshots: Vec<String>,
    pub(crate) blobs: Vec<Digest>,
}

const DRIVER_KEY: &str = "driver";

impl Store {
    /// Opens the data root (and makes it), and removes what no record names.
    ///
    /// # Errors
    /// When another daemon has it open, when the driver asked for does not work or is not the one that the data
    /// root was made with, or when the system refuses.
    pub fn open(data_root: &Path, options: &StoreOptions) -> Result<Self> {
        Self::open_on_boot(data_root, options, &longshore_sys::boot::boot_id()?)
    }

    /// The same on a boot of this id: another one than that of the last opening means that the machine was started again
    /// since.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on_boot(data_root: &Path, options: &StoreOptions, boot: &str) -> Result<Self> {
        fs::create_dir_all(data_root).context(|| format!("make {}", data_root.display()))?;
        // Also one that was there before: images bring setuid files, and they are below.
        fs::set_permissions(data_root, fs::Permissions::from_mode(0o710))
            .context(|| format!("protect {}", data_root.display()))?;
        let root = fs::canonicalize(data_root).context(|| format!("find {}", data_root.display()))?;
        make_private_dir(&root.join("layers"), 0o700)?;
        let fresh = !root.join("longshore.db").exists();
        let meta = Meta::open(&root.join("longshore.db"), options.sync)?;
        let content = Content::open(&root.join("content"), options.sync)?;
        let made_with: Option<DriverName> =
            meta.get::<String>(Table::Kv, DRIVER_KEY)?.map(|name| name.parse()).transpose()?;
        // A root without layers is open to any driver.
        let bare = meta.keys(Table::Layers)?.is_empty() && meta.keys(Table::Mounts)?.is_empty();
        let held = made_with.filter(|_| !bare);
        if let (Some(wanted), Some(made)) = (options.driver, held)
            && wanted != made
        {
            return Err(Error::Conflict(format!(
                "{} holds layers of the {made} driver: use that, or another data root for {wanted}",
                root.display()
            )));
        }
        let (driver, choice) = choose(&root, options.driver, held)?;
        tracing::info!(driver = %choice.name, reason = choice.reason, "storage driver");
        meta.commit_lazy(Batch::new().put(Table::Kv, DRIVER_KEY, choice.name.as_str()))?;
        let disks = disks(&root, choice.name)?;
        if fresh && options.sync {
            sync_names(&root)?;
        }
        let (unverified, stopped) = unclean::opened(&meta, boot)?;
        let inner = Inner {
            pool: Pool::new(&root),
            root,
            meta,
            content,
            driver,
            choice,
            sync: options.sync,
            adding: Mutex::default(),
            standing: RwLock::default(),
            blobs: Mutex::default(),
            disks,
            boot: boot.to_owned(),
            unverified: Mutex::new(unverified),
            verifying: Mutex::default(),
            users: Mutex::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        if stopped {
            store.distrust_pool()?;
        }
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

    /// The files of build contexts.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
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

    pub(crate) fn standing(&self) -> Standing<'_> {
        Standing(self.inner.standing.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn adding(&self) -> Adding<'_> {
        let adding = self.inner.adding.lock().unwrap_or_else(PoisonError::into_inner);
        Adding(adding, self.inner.standing.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn collecting(&self) -> Collecting<'_> {
        let adding = self.inner.adding.lock().unwrap_or_else(PoisonError::into_inner);
        Collecting(adding, self.inner.standing.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn users(&self) -> MutexGuard<'_, HashMap<String, Users>> {
        self.inner.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is acknowledged survives a power cut.
    pub(crate) fn is_durable(&self) -> bool {
        self.inner.sync
    }

    pub(crate) fn boot(&self) -> &str {
        &self.inner.boot
    }

    pub(crate) fn unverified_mutex(&self) -> &Mutex<Unverified> {
        &self.inner.unverified
    }

    pub(crate) fn verifying(&self) -> MutexGuard<'_, ()> {
        self.inner.verifying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything written is on disk. One sync of the file system: for a layer of 3000 files that takes a
    /// hundredth of what syncing each of them takes.
    pub(crate) fn durable(&self) -> Result<()> {
        if !self.inner.sync {
            return Ok(());
        }
        self.inner.disks.iter().try_for_each(|disk| {
            rustix::fs::syncfs(disk).context(|| format!("sync {}", self.inner.root.display()))
        })
    }

    /// The layer with this chain id.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn layer(&self, chain: &Digest) -> Result<Option<LayerRecord>> {
        self.meta().get(Table::Layers, &chain.to_string())
    }

    /// What a snapshot and the files beside it take on disk.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub(crate) fn snapshot_size(&self, cache_id: &str) -> Result<Allocated> {
        let mut size = allocated(&self.layer_files(cache_id))?;
        for path in self.driver().paths(cache_id) {
            size += allocated(&path)?;
        }
        Ok(size)
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

    /// Removes what is left of snapshots whose removal was begun. For a start, once nothing runs in them any more.
    ///
    /// # Errors
    /// When files cannot be removed.
    pub fn tidy(&self) -> Result<()> {
        self.driver().tidy()
    }

    /// Takes away the record of every layer that no image, no container, no step of a build and no lease uses. The files are the caller's to
    /// [`Self::discard`]; a crash between leaves files without a record, which the next start removes.
    pub(crate) fn collect_layers(&self, _graph: &Collecting<'_>) -> Result<Unused> {
        let layers = self.meta().list::<LayerRecord>(Table::Layers)?;
        let layers: BTreeMap<Digest, LayerRecord> =
            layers.into_iter().map(|(k, l)| Ok((parse_id(&k)?, l))).collect::<Result<_>>()?;
        let mut used = BTreeSet::new();
        let images = self.meta().list::<ImageRow>(Table::Images)?;
        let mounts = self.meta().list::<MountRow>(Table::Mounts)?;
        let mut held = lease::held(self.meta())?.layers;
        held.extend(self.step_layers()?);
        // Not only the top one: its record may be lost, and what is below is needed to mend it.
        let tops = images
            .iter()
            .flat_map(|(_, i)| &i.layers)
            .chain(mounts.iter().filter_map(|(_, m)| m.top.as_ref()))
            .chain(&held);
        for top in tops {
            let mut next = Some(*top);
            while let Some(chain) = next
                && used.insert(chain)
            {
                next = layers.get(&chain).and_then(|l| l.parent);
            }
        }
        let depth = |chain: &Digest| {
            std::iter::successors(layers.get(chain), |l| l.parent.as_ref().and_then(|p| layers.get(p)))
                .take(1000)
                .count()
        };
        let mut unused: Vec<(&Digest, &LayerRecord)> =
            layers.iter().filter(|(c, _)| !used.contains(*c)).collect();
        unused.sort_by_key(|(chain, _)| std::cmp::Reverse(depth(chain)));
        if !unused.is_empty() {
            let batch =
                unused.iter().fold(Batch::new(), |b, (chain, _)| b.delete(Table::Layers, &chain.to_string()));
            self.meta().commit(batch)?;
        }
        Ok(Unused {
            chains: unused.iter().map(|(chain, _)| **chain).collect(),
            snapshots: unused.iter().map(|(_, l)| l.cache_id.clone()).collect(),
            blobs: unused
                .iter()
                .flat_map(|(_, l)| l.blob.as_ref().map(|b| b.digest).into_iter().chain([l.diff_id]))
                .collect(),
        })
    }

    /// Chain ids of the layers that containers, steps of builds or leases need.
    pub(crate) fn needed_layers(&self) -> Result<BTreeSet<Digest>> {
        let mounts = self.meta().list::<MountRow>(Table::Mounts)?;
        let mut todo: Vec<Digest> = mounts.into_iter().filter_map(|(_, m)| m.top).collect();
        todo.extend(lease::held(self.meta())?.layers);
        todo.extend(self.step_layers()?);
        let mut needed = BTreeSet::new();
        while let Some(chain) = todo.pop() {
            if needed.insert(chain) {
                todo.extend(self.layer(&chain)?.and_then(|l| l.parent));
            }
        }
        Ok(needed)
    }

    /// Deletes what lost its record. Goes on after a failure and tells the first.
    pub(crate) fn discard(&self, unused: &Unused) -> Result<()> {
        let mut done = Ok(());
        for snapshot in &unused.snapshots {
            done = done.and(self.drop_snapshot(snapshot));
        }
        done.and(self.drop_blobs(unused.blobs.iter().copied()).map(drop))
    }

    /// The same, and tells how many bytes of the disk that gave back.
    pub(crate) fn discard_counting(&self, unused: &Unused) -> Result<u64> {
        let (mut freed, mut done) = (0, Ok(()));
        for snapshot in &unused.snapshots {
            let size = self.snapshot_size(snapshot).map_or(0, |s| s.bytes);
            match self.drop_snapshot(snapshot) {
                Ok(()) => freed += size,
                failed => done = done.and(failed),
            }
        }
        let blobs = self.drop_blobs(unused.blobs.iter().copied());
        done.and(blobs).map(|bytes| freed + bytes)
    }

    /// Puts a blob that is about to be committed under a lease.
    pub(crate) fn hold_blob(&self, lease: &Lease, blob: Digest) -> Result<()> {
        let _blobs = self.inner.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        lease.add_blob(blob)
    }

    /// Deletes those of `blobs` that no lease holds and no record names. Gives the bytes of the disk that this freed.
    pub(crate) fn drop_blobs(&self, blobs: impl IntoIterator<Item = Digest>) -> Result<u64> {
        let mut blobs: BTreeSet<Digest> = blobs.into_iter().collect();
        if blobs.is_empty() {
            return Ok(0);
        }
        let _blobs = self.inner.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        // In this order: a record is committed before its lease ends.
        let held = lease::held(self.meta())?.blobs;
        let named = self.named_blobs()?;
        blobs.retain(|blob| !held.contains(blob) && !named.contains(blob));
        let mut freed = 0;
        for blob in &blobs {
            freed += self.content().delete(blob)?;
        }
        // Where they could be had matters no longer; but a layer that is no blob here may be one there.
        let plain = self.plain_forms()?;
        let forget = blobs.iter().filter(|blob| !plain.contains(blob));
        let forget = forget.fold(Batch::new(), |b, blob| b.delete(Table::Sources, &blob.to_string()));
        self.meta().commit_lazy(forget)?;
        Ok(freed)
    }

    /// Deletes a blob unless a lease holds it; the bytes of the disk that this freed.
    pub(crate) fn delete_unheld(&self, blob: &Digest) -> Result<Option<u64>> {
        let _blobs = self.inner.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        if lease::held(self.meta())?.blobs.contains(blob) {
            return Ok(None);
        }
        self.content().delete(blob).map(Some)
    }

    /// The blobs that records name: compressed layers, configurations and manifests.
    pub(crate) fn named_blobs(&self) -> Result<BTreeSet<Digest>> {
        let layers = self.meta().list::<LayerRecord>(Table::Layers)?;
        let mut named: BTreeSet<Digest> =
            layers.iter().filter_map(|(_, l)| l.blob.as_ref().map(|b| b.digest)).collect();
        for (key, image) in self.meta().list::<ImageRow>(Table::Images)? {
            named.insert(parse_id(&key)?);
            named.extend(image.manifests.iter().map(|m| m.digest));
        }
        Ok(named)
    }

    /// Diff ids of layers that images need and no record has.
    fn lost_layers(&self) -> Result<BTreeSet<Digest>> {
        let mut lost = BTreeSet::new();
        let there: BTreeSet<String> = self.meta().keys(Table::Layers)?.into_iter().collect();
        for (id, row) in self.meta().list::<ImageRow>(Table::Images)? {
            if row.layers.iter().all(|chain| there.contains(&chain.to_string())) {
                continue;
            }
            // Without its configuration nobody knows.
            let Ok((_, document)) = self.images().document(&parse_id(&id)?) else { continue };
            lost.extend(document.rootfs.diff_ids);
        }
        Ok(lost)
    }

    /// Whether a snapshot was made from one of these tars.
    fn makes_one_of(&self, cache_id: &str, diff_ids: &BTreeSet<Digest>) -> bool {
        let recipe = fs::File::open(self.layer_files(cache_id).join("recipe"));
        recipe.is_ok_and(|f| crate::layer::describe(&f).is_ok_and(|(diff_id, _)| diff_ids.contains(&diff_id)))
    }

    /// The digests of all layers' tars: as they are, they are not kept as blobs.
    fn plain_forms(&self) -> Result<BTreeSet<Digest>> {
        let layers = self.meta().list::<LayerRecord>(Table::Layers)?;
        Ok(layers.iter().map(|(_, layer)| layer.diff_id).collect())
    }

    /// Makes the files agree with the records. Nobody else has the store open. Files that are not named like ours are
    /// left alone.
    fn recover(&self) -> Result<()> {
        lease::remove_stale(self.meta())?;
        self.forget_unsynced_steps()?;
        // A removal that was cut short after the image's own record.
        let unused = self.collect_layers(&self.collecting())?;
        self.discard(&unused)?;
        let layers = self.meta().list::<LayerRecord>(Table::Layers)?;
        let mut known: BTreeSet<String> = layers.into_iter().map(|(_, l)| l.cache_id).collect();
        for (_, mount) in self.meta().list::<MountRow>(Table::Mounts)? {
            known.extend(mount.ids());
        }
        let lost = self.lost_layers()?;
        for id in self.driver().list()? {
            if !known.contains(&id) {
                if !lost.is_empty() && self.makes_one_of(&id, &lost) {
                    tracing::warn!(snapshot = %id, "kept for a layer that lost its record: see `longshore system check`");
                    known.insert(id);
                    continue;
                }
                tracing::info!(snapshot = %id, "removing a snapshot that nothing names");
                // A command of a build may still run in it: see `Store::tidy`.
                if let Err(e) = self.drop_snapshot(&id) {
                    tracing::warn!(snapshot = %id, error = %e, "it cannot be removed yet");
                }
            }
        }
        if let Err(e) = self.driver().tidy() {
            tracing::warn!(error = %e, "what is left of removed snapshots cannot be removed yet");
        }
        let beside = self.inner.root.join("layers");
        for entry in fs::read_dir(&beside).context(|| format!("read {}", beside.display()))? {
            let entry = entry.context(|| format!("read {}", beside.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if Digest::from_hex(&name).is_ok() && !known.contains(&name) {
                fs::remove_dir_all(entry.path()).context(|| format!("remove {}", entry.path().display()))?;
            }
        }
        self.recover_caches()?;
        self.mend_rw_layers()?;
        let blobs = self.content().list()?;
        self.drop_blobs(blobs)?;
        let (named, plain) = (self.named_blobs()?, self.plain_forms()?);
        let mut stale = Batch::new();
        for key in self.meta().keys(Table::Used)? {
            if !self.meta().contains(Table::Images, &key)? {
                stale = stale.delete(Table::Used, &key);
            }
        }
        for key in self.meta().keys(Table::Sources)? {
            if parse_id(&key).map_or(true, |blob| !named.contains(&blob) && !plain.contains(&blob)) {
                stale = stale.delete(Table::Sources, &key);
            }
        }
        self.meta().commit_lazy(stale)
    }
}

/// A directory on each file system that the store's files lie on.
fn disks(root: &Path, driver: DriverName) -> Result<Vec<fs::File>> {
    let (mut disks, mut seen) = (Vec::new(), BTreeSet::new());
    for name in [driver.as_str(), "layers", "content"] {
        let path = root.join(name);
        let dir = fs::File::open(&path).context(|| format!("open {}", path.display()))?;
        let device = dir.metadata().context(|| format!("stat {}", path.display()))?.dev();
        if seen.insert(device) {
            disks.push(dir);
        }
    }
    Ok(disks)
}

/// Makes the names of a new data root durable: of what lies in it, and its own.
fn sync_names(root: &Path) -> Result<()> {
    let dirs = ["content/blobs", "content", ""].map(|name| root.join(name));
    for dir in dirs.iter().map(PathBuf::as_path).chain(root.parent()) {
        fs::File::open(dir).and_then(|d| d.sync_all()).context(|| format!("sync {}", dir.display()))?;
    }
    Ok(())
}
