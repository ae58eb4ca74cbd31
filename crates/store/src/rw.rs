//! Containers' writable layers: `<mount id>` over `<mount id>-init` over the image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use longshore_oci::{Digest, IdMap};
use serde::{Deserialize, Serialize};

use crate::content::random_id;
use crate::layer::{TreeKind, write_changes, write_tree};
use crate::meta::{Batch, Table};
use crate::open::Store;
use crate::snapshot::{Change, ChangeKind, Mounts, make_private_dir};
use crate::{Error, IoContext, Result};

/// The row of a container's writable layer, stored under the container's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRow {
    pub(crate) mount_id: String,
    /// Chain id of the image's top layer; `None` for an image without layers.
    pub(crate) top: Option<Digest>,
}

impl MountRow {
    pub(crate) fn init_id(&self) -> String {
        format!("{}-init", self.mount_id)
    }
}

/// A container's writable layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RwLayer {
    /// The snapshot that the container writes to.
    pub mount_id: String,
    /// The one below, with the files that every container has.
    pub init_id: String,
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
        let _graph = self.graph();
        if self.meta().contains(Table::Mounts, container)? {
            return Err(Error::Conflict(format!("container {container} has a writable layer already")));
        }
        let top = match image {
            Some(id) => {
                let row =
                    self.images().row(id)?.ok_or_else(|| Error::NotFound(format!("No such image: {id}")))?;
                row.layers.last().copied()
            }
            None => None,
        };
        let parent = top
            .map(|chain| {
                let layer = self
                    .layer(&chain)?
                    .ok_or_else(|| Error::Corrupt(format!("layer {chain} has no record")))?;
                Ok::<_, Error>(layer.cache_id)
            })
            .transpose()?;
        let row = MountRow { mount_id: random_id()?, top };
        let driver = self.driver();
        let made = (|| {
            driver.prepare(&row.init_id(), parent.as_deref())?;
            fill_init(&driver.apply_dir(&row.init_id()))?;
            driver.prepare(&row.mount_id, Some(&row.init_id()))?;
            self.meta().commit_lazy(Batch::new().put(Table::Mounts, container, &row))
        })();
        if let Err(e) = made {
            let _ = driver.remove(&row.mount_id);
            let _ = driver.remove(&row.init_id());
            return Err(e);
        }
        Ok(RwLayer { init_id: row.init_id(), mount_id: row.mount_id, top })
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
        let row = self.mount_row(container)?;
        Ok(RwLayer { init_id: row.init_id(), mount_id: row.mount_id, top: row.top })
    }

    /// Ids of all containers that have a writable layer.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn rw_containers(&self) -> Result<Vec<String>> {
        self.meta().keys(Table::Mounts)
    }

    /// Unmounts and removes a container's writable layer; idempotent. What cannot be removed now is at the next start.
    ///
    /// # Errors
    /// When the kernel or the metadata refuse.
    pub fn remove_rw(&self, container: &str) -> Result<()> {
        let graph = self.graph();
        let Some(row) = self.meta().get::<MountRow>(Table::Mounts, container)? else { return Ok(()) };
        self.driver().unmount(&row.mount_id)?;
        self.meta().commit_lazy(Batch::new().delete(Table::Mounts, container))?;
        self.driver().remove(&row.mount_id)?;
        self.driver().remove(&row.init_id())?;
        // Its image may have been removed by force meanwhile: then the layers go with their last container.
        if let Some(top) = row.top
            && !self.top_is_used(&top)?
        {
            self.collect_layers(&graph)?;
        }
        Ok(())
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
        self.driver().mount(&self.mount_row(container)?.mount_id, map)
    }

    /// Undoes [`Self::mount_rw`]; idempotent.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unmount_rw(&self, container: &str) -> Result<()> {
        match self.meta().get::<MountRow>(Table::Mounts, container)? {
            Some(row) => self.driver().unmount(&row.mount_id),
            None => Ok(()),
        }
    }

    /// What a container changed, as `docker diff` prints it.
    ///
    /// # Errors
    /// When a tree cannot be read.
    pub fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let row = self.mount_row(container)?;
        self.driver().changes(&row.mount_id, Some(&row.init_id()))
    }

    /// Bytes that a container wrote.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn rw_size(&self, container: &str) -> Result<u64> {
        Ok(self.driver().usage(&self.mount_row(container)?.mount_id)?.bytes)
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
        if driver.keeps_whiteouts() {
            write_tree(&dir, TreeKind::OverlayUpper, out)?;
            return Ok(());
        }
        let changes = driver.changes(&rw.mount_id, Some(&rw.init_id))?;
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

    /// Gives `f` the root of a container's tree, running or not.
    ///
    /// # Errors
    /// Those of `f`, and of mounting.
    pub fn with_mounted<T>(&self, container: &str, f: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let row = self.mount_row(container)?;
        let was = match self.driver().mounts(&row.mount_id, &IdMap::default())? {
            Mounts::Overlay { target, .. } => {
                target.exists() && longshore_sys::mount::is_mount_point(&target)?
            }
            Mounts::Directory(_) => true,
        };
        let tree = self.driver().mount(&row.mount_id, &IdMap::default())?;
        let done = f(&tree);
        if !was {
            self.driver().unmount(&row.mount_id)?;
        }
        done
    }
}

/// What every container's root has before anything is mounted on it, so that mounts need not write into the
/// container's own layer (Docker's init layer).
fn fill_init(root: &Path) -> Result<()> {
    for dir in ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
        make_in_init(root, dir)?;
        make_private_dir(&root.join(dir), 0o755)?;
    }
    for file in [".dockerenv", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/console"] {
        make_in_init(root, file)?;
        let path = root.join(file);
        if !path.exists() {
            fs::write(&path, "").context(|| format!("write {}", path.display()))?;
        }
    }
    let mtab = root.join("etc/mtab");
    if fs::symlink_metadata(&mtab).is_err() {
        symlink("/proc/mounts", &mtab).context(|| format!("make {}", mtab.display()))?;
    }
    Ok(())
}

/// Where the driver copied the image's tree (vfs), a link of the image in the way is replaced, never followed.
fn make_in_init(root: &Path, rel: &str) -> Result<()> {
    let mut path = root.to_owned();
    for part in Path::new(rel) {
        path.push(part);
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink()) {
            fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}
