//! Containers' writable layers: `<mount id>` over `<mount id>-init` over the image.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use longshore_oci::{Digest, IdMap};
use serde::{Deserialize, Serialize};

use crate::content::random_id;
use crate::image::now;
use crate::layer::{TreeKind, WhiteoutFormat, write_changes, write_tree, write_trees};
use crate::meta::{Batch, Table};
use crate::open::Store;
use crate::snapshot::DriverName;
use crate::snapshot::{Change, ChangeKind, Mounts, SnapshotDriver, copy_look, make_private_dir};
use crate::{Error, IoContext, Result};

/// The row of a container's writable layer, stored under the container's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRow {
    pub(crate) mount_id: String,
    /// Chain id of the image's top layer; `None` for an image without layers.
    pub(crate) top: Option<Digest>,
    /// Whether it lies on the image itself, without an init layer between.
    #[serde(default)]
    pub(crate) bare: bool,
}

impl MountRow {
    pub(crate) fn init_id(&self) -> Option<String> {
        (!self.bare).then(|| format!("{}-init", self.mount_id))
    }

    /// Its snapshots.
    pub(crate) fn ids(&self) -> impl Iterator<Item = String> {
        self.init_id().into_iter().chain([self.mount_id.clone()])
    }

    fn layer(self) -> RwLayer {
        RwLayer { init_id: self.init_id(), mount_id: self.mount_id, top: self.top }
    }
}

/// A container's writable layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RwLayer {
    /// The snapshot that the container writes to.
    pub mount_id: String,
    /// The one below, with the files that every container has; `None` for one made by [`Store::create_bare_rw`].
    pub init_id: Option<String>,
    /// Chain id of the image's top layer.
    pub top: Option<Digest>,
}

/// Whose directories [`Store::graph_data`] shows.
#[derive(Clone, Copy, Debug)]
pub enum GraphOf<'a> {
    /// A container's, by its id.
    Container(&'a str),
    /// An image's top layer.
    Image(&'a Digest),
}

impl Store {
    /// Makes the writable layer of a container over an image's layers (`None`: over nothing). The record becomes
    /// durable with the next durable commit, which is the container's own.
    ///
    /// # Errors
    /// `Conflict` if the container has one, `NotFound` if a layer of the image is missing.
    pub fn create_rw(&self, container: &str, image: Option<&Digest>) -> Result<RwLayer> {
        let top_of = |row: Option<crate::image::ImageRow>| row.and_then(|row| row.layers.last().copied());
        // Before anything is held: it may take a while, once after the machine stopped without warning.
        if let Some(image) = image {
            self.trust(top_of(self.images().row(image)?).as_ref())?;
        }
        let _standing = self.standing();
        let Some(id) = image else { return self.make_rw(container, None, false, Batch::new()) };
        let row = self.images().row(id)?.ok_or_else(|| Error::NotFound(format!("No such image: {id}")))?;
        let batch = Batch::new().put(Table::Used, &id.to_string(), &now());
        self.make_rw(container, top_of(Some(row)), false, batch)
    }

    /// The same over the layer with this chain id and those below it, which a lease has to hold.
    ///
    /// # Errors
    /// As [`Self::create_rw`].
    pub fn create_rw_on(&self, container: &str, top: Option<&Digest>) -> Result<RwLayer> {
        self.trust(top)?;
        let _standing = self.standing();
        self.make_rw(container, top.copied(), false, Batch::new())
    }

    /// The same, but what it shows is the layers alone, without the files that every container has.
    ///
    /// # Errors
    /// As [`Self::create_rw`].
    pub fn create_bare_rw(&self, container: &str, top: Option<&Digest>) -> Result<RwLayer> {
        self.trust(top)?;
        let _standing = self.standing();
        self.make_rw(container, top.copied(), true, Batch::new())
    }

    fn make_rw(&self, container: &str, top: Option<Digest>, bare: bool, batch: Batch) -> Result<RwLayer> {
        if self.meta().contains(Table::Mounts, container)? {
            return Err(Error::Conflict(format!("container {container} has a writable layer already")));
        }
        let parent = self.snapshot_of(top)?;
        let row = MountRow { mount_id: random_id()?, top, bare };
        let driver = self.driver();
        let made = (|| {
            let init = row.init_id();
            if let Some(init) = &init {
                driver.prepare(init, parent.as_deref())?;
                fill_init(driver, init)?;
            }
            driver.prepare(&row.mount_id, init.as_deref().or(parent.as_deref()))?;
            // Directories and small files are put right after a power cut (see `unclean`), whole copies are not.
            if driver.whiteouts() == WhiteoutFormat::Remove {
                self.durable()?;
            }
            self.meta().commit_lazy(batch.put(Table::Mounts, container, &row))
        })();
        if let Err(e) = made {
            let _ = driver.remove(&row.mount_id);
            row.init_id().map(|init| driver.remove(&init));
            return Err(e);
        }
        Ok(row.layer())
    }

    /// The snapshot of the layer with this chain id.
    fn snapshot_of(&self, chain: Option<Digest>) -> Result<Option<String>> {
        let Some(chain) = chain else { return Ok(None) };
        match self.layer(&chain)? {
            Some(layer) => Ok(Some(layer.cache_id)),
            None => Err(Error::Corrupt(format!("layer {chain} has no record"))),
        }
    }

    /// Makes again what a power cut took of containers' writable layers, which are not synced when they are made. For a
    /// start only: nobody may be at work.
    pub(crate) fn mend_rw_layers(&self) -> Result<()> {
        // Whole copies were synced when they were made.
        if self.driver().name() != DriverName::Overlay2 {
            return Ok(());
        }
        let mut any = false;
        for (container, row) in self.meta().list::<MountRow>(Table::Mounts)? {
            match self.mend_rw(&row) {
                Ok(false) => {}
                Ok(true) => {
                    any = true;
                    tracing::info!(container, "what was lost of its writable layer was made again");
                }
                // The others are none the worse for it.
                Err(e) => tracing::error!(container, error = %e, "its writable layer is not whole"),
            }
        }
        // Names that lead nowhere now.
        if any { self.driver().tidy() } else { Ok(()) }
    }

    fn mend_rw(&self, row: &MountRow) -> Result<bool> {
        let driver = self.driver();
        // A container that runs has lost nothing.
        if driver.in_use(&row.mount_id)? {
            return Ok(false);
        }
        let parent = self.snapshot_of(row.top)?;
        let Some(init) = row.init_id() else {
            return self.mend_snapshot(&row.mount_id, parent.as_deref(), false);
        };
        let mut lost = self.mend_snapshot(&init, parent.as_deref(), true)?;
        if lost || !init_is_filled(driver, &init)? {
            fill_init(driver, &init)?;
            lost = true;
        }
        Ok(self.mend_snapshot(&row.mount_id, Some(&init), false)? || lost)
    }

    /// Puts a snapshot's own files right, or makes it anew where nothing was written into it; true if anything was lost.
    fn mend_snapshot(&self, id: &str, parent: Option<&str>, committed: bool) -> Result<bool> {
        let driver = self.driver();
        if driver.inspect(id, parent, committed)?.is_empty() {
            return Ok(false);
        }
        let written = fs::read_dir(driver.apply_dir(id)).is_ok_and(|mut dir| dir.next().is_some());
        if !written {
            driver.remove(id)?;
            driver.prepare(id, parent)?;
        }
        driver.mend(id, parent, committed).map(|()| true)
    }

    fn mount_row(&self, container: &str) -> Result<MountRow> {
        let row = self.meta().get(Table::Mounts, container)?;
        row.ok_or_else(|| Error::NotFound(format!("container {container} has no writable layer")))
    }

    /// A container's writable layer.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn rw(&self, container: &str) -> Result<RwLayer> {
        Ok(self.mount_row(container)?.layer())
    }

    /// Ids of all containers that have a writable layer.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn rw_containers(&self) -> Result<Vec<String>> {
        self.meta().keys(Table::Mounts)
    }

    /// Unmounts and removes a container's writable layer; idempotent.
    ///
    /// # Errors
    /// As [`Self::remove_rw_with`].
    pub fn remove_rw(&self, container: &str) -> Result<()> {
        self.remove_rw_with(container, Batch::new()).map(drop)
    }

    /// Removes a container's writable layer, and commits `batch` together with the end of its record: after a crash
    /// there is either all of the container or nothing. Files that cannot be removed now are at the next start.
    /// Gives the bytes of the disk that went with layers which the container was the last to use.
    ///
    /// # Errors
    /// When the kernel refuses to unmount or the metadata to change; then all is as before.
    pub fn remove_rw_with(&self, container: &str, batch: Batch) -> Result<u64> {
        let Some(row) = self.meta().get::<MountRow>(Table::Mounts, container)? else {
            return self.meta().commit(batch).map(|()| 0);
        };
        {
            let mut users = self.users();
            self.driver().unmount(&row.mount_id)?;
            users.remove(container);
            self.meta().commit(batch.delete(Table::Mounts, container))?;
        }
        let removed = self.driver().remove(&row.mount_id);
        let removed = removed.and(row.init_id().map_or(Ok(()), |init| self.driver().remove(&init)));
        // Its image may have been removed by force meanwhile: then the layers go with their last container.
        let collected = match row.top {
            Some(top) if !self.top_is_used(&top)? => {
                let unused = self.collect_layers(&self.collecting())?;
                self.discard_counting(&unused)
            }
            _ => Ok(0),
        };
        Ok(removed.and(collected).unwrap_or_else(|e| {
            tracing::warn!(container, error = %e, "its files stay until the next start");
            0
        }))
    }

    fn top_is_used(&self, top: &Digest) -> Result<bool> {
        let images = self.meta().list::<crate::image::ImageRow>(Table::Images)?;
        Ok(images.iter().any(|(_, i)| i.layers.contains(top)))
    }

    /// Mounts a container's root in this mount namespace and gives its path; idempotent.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mount_rw(&self, container: &str, map: &IdMap) -> Result<PathBuf> {
        self.trust(self.mount_row(container)?.top.as_ref())?;
        let mut users = self.users();
        let row = self.mount_row(container)?;
        let tree = self.driver().mount(&row.mount_id, map)?;
        users.entry(container.to_owned()).or_default().owner = true;
        Ok(tree)
    }

    /// Undoes [`Self::mount_rw`]; idempotent. Where somebody visits the tree, the last visitor unmounts.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unmount_rw(&self, container: &str) -> Result<()> {
        let mut users = self.users();
        if let Some(user) = users.get_mut(container)
            && user.visitors > 0
        {
            user.owner = false;
            return Ok(());
        }
        if let Some(row) = self.meta().get::<MountRow>(Table::Mounts, container)? {
            self.driver().unmount(&row.mount_id)?;
        }
        users.remove(container);
        Ok(())
    }

    /// The root of a container's tree, running or not; it stays mounted at least as long as the visit lasts.
    ///
    /// # Errors
    /// When the kernel refuses to mount.
    pub fn visit(&self, container: &str) -> Result<Visit> {
        self.trust(self.mount_row(container)?.top.as_ref())?;
        let mut users = self.users();
        let row = self.mount_row(container)?;
        if !users.contains_key(container)
            && let Mounts::Overlay { target, .. } = self.driver().mounts(&row.mount_id, &IdMap::default())?
            && target.exists()
            && longshore_sys::mount::is_mount_point(&target)?
        {
            // Mounted by an earlier daemon, for a container that runs.
            users.entry(container.to_owned()).or_default().owner = true;
        }
        let tree = self.driver().mount(&row.mount_id, &IdMap::default())?;
        users.entry(container.to_owned()).or_default().visitors += 1;
        Ok(Visit {
            store: self.clone(),
            container: container.to_owned(),
            mount_id: row.mount_id,
            tree,
            kept: false,
        })
    }

    fn leave(&self, visit: &Visit) -> Result<()> {
        let mut users = self.users();
        // None: the container was removed during the visit, and its name may live again.
        let Some(user) = users.get_mut(&visit.container) else { return Ok(()) };
        user.visitors = user.visitors.saturating_sub(1);
        if user.visitors > 0 || user.owner {
            return Ok(());
        }
        users.remove(&visit.container);
        self.driver().unmount(&visit.mount_id)
    }

    /// What a container changed, as `docker diff` prints it.
    ///
    /// # Errors
    /// When a tree cannot be read.
    pub fn changes(&self, container: &str) -> Result<Vec<Change>> {
        self.changes_of(&self.rw(container)?)
    }

    fn changes_of(&self, rw: &RwLayer) -> Result<Vec<Change>> {
        let below = match &rw.init_id {
            Some(init) => Some(init.clone()),
            None => self.snapshot_of(rw.top)?,
        };
        self.driver().changes(&rw.mount_id, below.as_deref())
    }

    /// Bytes that a container wrote.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn rw_size(&self, container: &str) -> Result<u64> {
        Ok(self.driver().usage(&self.mount_row(container)?.mount_id)?.bytes)
    }

    /// Bytes of the disk that a container's writable layer takes, with the init layer below it.
    ///
    /// # Errors
    /// When the container has none, or it cannot be looked at.
    pub fn rw_allocated(&self, container: &str) -> Result<u64> {
        self.mount_row(container)?.ids().map(|id| Ok(self.snapshot_size(&id)?.bytes)).sum()
    }

    /// The directories for `GraphDriver.Data` of inspect.
    ///
    /// # Errors
    /// When the container or image does not exist.
    pub fn graph_data(&self, of: GraphOf<'_>) -> Result<BTreeMap<String, String>> {
        match of {
            GraphOf::Container(id) => {
                let mut data = self.driver().graph_data(&self.mount_row(id)?.mount_id)?;
                data.insert("ID".to_owned(), id.to_owned());
                Ok(data)
            }
            GraphOf::Image(id) => {
                let row =
                    self.images().row(id)?.ok_or_else(|| Error::NotFound(format!("No such image: {id}")))?;
                let Some(top) = row.layers.last() else { return Ok(BTreeMap::new()) };
                match self.layer(top)? {
                    Some(layer) => self.driver().graph_data(&layer.cache_id),
                    None => Err(Error::Corrupt(format!("layer {top} has no record"))),
                }
            }
        }
    }
}

impl Store {
    /// Writes what a container changed as a layer's tar.
    pub(crate) fn write_layer(&self, rw: &RwLayer, out: impl std::io::Write) -> Result<()> {
        let driver = self.driver();
        let dir = driver.apply_dir(&rw.mount_id);
        if driver.whiteouts() != WhiteoutFormat::Remove {
            write_tree(&dir, TreeKind::OverlayUpper, out)?;
            return Ok(());
        }
        let changes = self.changes_of(rw)?;
        let paths = changes.iter().map(|c| (c.path.as_os_str().as_bytes(), c.kind == ChangeKind::Deleted));
        write_changes(&dir, paths, out)?;
        Ok(())
    }

    /// Writes a container's whole tree as a tar (`docker export`); mounts it for that if nobody has.
    ///
    /// # Errors
    /// When the tree cannot be read or `out` not be written.
    pub fn export(&self, container: &str, out: impl std::io::Write) -> Result<()> {
        self.with_mounted(container, |tree| write_tree(tree, TreeKind::Plain, out).map(drop))
    }

    /// Writes the trees of containers as a tar, each in a directory of the name that stands with it.
    ///
    /// # Errors
    /// As [`Self::export`].
    pub fn export_several(&self, containers: &[(String, String)], out: impl std::io::Write) -> Result<()> {
        let visits = containers.iter().map(|(name, id)| Ok((name, self.visit(id)?)));
        let visits = visits.collect::<Result<Vec<_>>>()?;
        let trees: Vec<_> = visits.iter().map(|(name, visit)| (name.as_bytes(), visit.tree())).collect();
        write_trees(&trees, out).map(drop)
    }

    /// Where the driver keeps what is written into a container. In a directory that was made there, and only in such a one,
    /// more may be put while the container's root is not mounted.
    ///
    /// # Errors
    /// `NotFound` when there is no such writable layer.
    pub fn rw_dir(&self, container: &str) -> Result<PathBuf> {
        let mounts = self.driver().mounts(&self.mount_row(container)?.mount_id, &IdMap::default())?;
        match mounts {
            Mounts::Directory(dir) | Mounts::Overlay { upper: Some((dir, _)), .. } => Ok(dir),
            Mounts::Overlay { upper: None, .. } => {
                Err(Error::Internal("a writable layer that is committed".into()))
            }
        }
    }

    /// Gives `f` the root of a container's tree, running or not.
    ///
    /// # Errors
    /// Those of `f`, and of mounting.
    pub fn with_mounted<T>(&self, container: &str, f: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let visit = self.visit(container)?;
        f(visit.tree())
    }
}

/// Who uses the mount of a container.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// The container itself, from [`Store::mount_rw`] to [`Store::unmount_rw`].
    owner: bool,
    /// How many [`Visit`]s.
    visitors: usize,
}

/// Keeps a container's tree mounted; dropped, it leaves the mount to the other users or undoes it.
#[derive(Debug)]
pub struct Visit {
    store: Store,
    container: String,
    mount_id: String,
    tree: PathBuf,
    kept: bool,
}

impl Visit {
    /// Ends the visit and leaves the tree mounted, for a store that is opened later.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// The root of the tree.
    #[must_use]
    pub fn tree(&self) -> &Path {
        &self.tree
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(e) = self.store.leave(self) {
            tracing::warn!(container = self.container, error = %e, "a visited tree was not unmounted");
        }
    }
}

/// Directories that every container's root has; those with files of ours in them are made even where the image has
/// them.
const INIT_DIRS: [(&str, bool); 6] =
    [("dev", true), ("dev/pts", false), ("dev/shm", false), ("etc", true), ("proc", false), ("sys", false)];
const INIT_FILES: [&str; 5] = [".dockerenv", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/console"];
const MTAB: &str = "etc/mtab";

/// What every container's root has before anything is mounted on it, so that mounts need not write into the
/// container's own layer (Docker's init layer). Directories of the image keep their look; anything else of the image
/// that stands in the way is replaced, never followed.
pub(crate) fn fill_init(driver: &dyn SnapshotDriver, id: &str) -> Result<()> {
    let root = driver.apply_dir(id);
    let names = init_names();
    let mut below = driver.lower_dirs(id, &names)?.into_iter();
    for (name, needed) in INIT_DIRS {
        let there = below.next().flatten();
        if needed || there.is_none() {
            init_dir(&root.join(name), there.as_ref())?;
        }
    }
    for name in INIT_FILES {
        // A directory of that name is the image's wish.
        if below.next().flatten().is_none() {
            let path = root.join(name);
            clear_way(&path)?;
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path);
            file.and_then(|f| f.set_permissions(fs::Permissions::from_mode(0o755)))
                .context(|| format!("make {}", path.display()))?;
        }
    }
    if below.next().flatten().is_none() {
        let path = root.join(MTAB);
        clear_way(&path)?;
        symlink("/proc/mounts", &path).context(|| format!("make {}", path.display()))?;
    }
    Ok(())
}

fn init_names() -> Vec<&'static Path> {
    INIT_DIRS.iter().map(|(d, _)| *d).chain(INIT_FILES).chain([MTAB]).map(Path::new).collect()
}

/// Whether all is there that [`fill_init`] makes.
fn init_is_filled(driver: &dyn SnapshotDriver, id: &str) -> Result<bool> {
    let root = driver.apply_dir(id);
    let names = init_names();
    let below = driver.lower_dirs(id, &names)?;
    let needed = |i: usize| INIT_DIRS.get(i).is_some_and(|(_, needed)| *needed);
    Ok(names.iter().zip(below).enumerate().all(|(i, (name, below))| {
        (below.is_some() && !needed(i)) || fs::symlink_metadata(root.join(name)).is_ok()
    }))
}

fn init_dir(path: &Path, like: Option<&OwnedFd>) -> Result<()> {
    clear_way(path)?;
    if path.is_dir() {
        return Ok(());
    }
    make_private_dir(path, 0o755)?;
    like.map_or(Ok(()), |like| copy_look(like, path))
}

/// Removes what is no directory; its parents are directories by now.
fn clear_way(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_dir() => fs::remove_file(path).context(|| format!("remove {}", path.display())),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("stat {}", path.display()), e)),
    }
}
