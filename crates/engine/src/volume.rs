//! Named volumes: `volumes/<name>/_data` and a record each.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use longshore_store::meta::{Batch, Table};
use longshore_store::usage::allocated;

use crate::engine::{make_dir, remove_dir};
use crate::model::{CreateVolume, Filters, Pruned, Volume};
use crate::time::now;
use crate::{Engine, Error, Result, filters, names};

/// Marks volumes that were made without a name.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Begins the name of a directory that is being removed; no volume's name begins so.
const REMOVING: &str = ".removing-";

/// Volumes are made and removed one at a time.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    lock: std::sync::Mutex<()>,
}

/// Checks a volume's name: it becomes a directory.
///
/// # Errors
/// In Docker's words.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if names::is_name(name) && name.len() <= 255 {
        return Ok(());
    }
    if name.len() == 1 && name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Error::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    Err(Error::invalid(format!(
        "create {name}: {name:?} includes invalid characters for a local volume name, only {:?} are allowed. If you \
         intended to pass a host directory, use absolute path",
        names::NAME_RULE
    )))
}

impl Engine {
    /// Makes a volume; one that is there already is given back.
    ///
    /// # Errors
    /// For names and options that cannot be.
    pub async fn create_volume(&self, request: CreateVolume) -> Result<Volume> {
        if !["", "local"].contains(&request.driver.as_str()) {
            let d = request.driver;
            return Err(Error::not_found(format!(
                "create {}: error looking up volume plugin {d}: plugin \"{d}\" not found",
                request.name
            )));
        }
        if request.options.as_ref().is_some_and(|o| !o.is_empty()) {
            return Err(Error::unimplemented("options of the local volume driver"));
        }
        let anonymous = request.name.is_empty();
        let name = if anonymous { names::new_id()? } else { request.name };
        check_name(&name)?;
        let mut labels = request.labels;
        if anonymous {
            labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
        }
        self.blocking(move |e| e.ensure_volume(&name, anonymous, labels)).await
    }

    /// The directory of a volume, made if need be.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn volume_for(
        &self,
        name: &str,
        anonymous: bool,
        labels: Option<BTreeMap<String, String>>,
    ) -> Result<PathBuf> {
        check_name(name)?;
        Ok(PathBuf::from(self.ensure_volume(name, anonymous, labels)?.mountpoint))
    }

    fn ensure_volume(
        &self,
        name: &str,
        anonymous: bool,
        labels: Option<BTreeMap<String, String>>,
    ) -> Result<Volume> {
        let _one = self.inner.volumes.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(v) = self.inner.store.meta().get::<Volume>(Table::Volumes, name)? {
            return Ok(v);
        }
        // Not synced: what a power cut takes of an empty directory is made again at the next start.
        let data = make_dirs(&self.inner.paths.volumes(), name)?;
        let volume = Volume {
            name: name.to_owned(),
            driver: "local".into(),
            mountpoint: data.to_string_lossy().into_owned(),
            created: now(),
            labels,
            options: None,
            anonymous,
        };
        // The directory may be older than its record (a crash in between): what it holds stays.
        self.inner.store.meta().commit(Batch::new().put(Table::Volumes, name, &volume))?;
        self.event("volume", "create", name, &[("driver", "local")]);
        Ok(volume)
    }

    /// One volume.
    ///
    /// # Errors
    /// When there is none.
    pub async fn volume(&self, name: &str) -> Result<Volume> {
        let name = name.to_owned();
        self.blocking(move |e| e.volume_blocking(&name).map_err(|err| err.context(format!("get {name}"))))
            .await
    }

    fn volume_blocking(&self, name: &str) -> Result<Volume> {
        let missing = || Error::not_found("no such volume");
        self.inner.store.meta().get::<Volume>(Table::Volumes, name)?.ok_or_else(missing)
    }

    /// All volumes that match: dangling, driver, label, name.
    ///
    /// # Errors
    /// For unknown filters.
    pub async fn volumes(&self, f: &Filters) -> Result<Vec<Volume>> {
        filters::check_known(f, &["dangling", "driver", "label", "name"])?;
        let dangling = filters::flag(f, "dangling")?;
        let f = f.clone();
        self.blocking(move |e| {
            let all = e.inner.store.meta().list::<Volume>(Table::Volumes)?;
            let wanted = |v: &Volume| {
                dangling.is_none_or(|d| d == e.volume_users(&v.name).is_empty())
                    && filters::any(&f, "driver", |d| d == v.driver)
                    && filters::any(&f, "name", |n| v.name.contains(n))
                    && filters::labels(&f, "label", v.labels.as_ref())
            };
            Ok(all.into_iter().map(|(_, v)| v).filter(wanted).collect())
        })
        .await
    }

    /// Containers that mount a volume.
    pub(crate) fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |c: &std::sync::Arc<crate::container::Container>| {
            c.read().record.mounts.iter().any(|m| m.kind == "volume" && m.name == name)
        };
        self.all().iter().filter(|c| uses(c)).map(|c| c.id.clone()).collect()
    }

    /// Removes a volume; with `force` a missing one is fine.
    ///
    /// # Errors
    /// `Conflict` while a container uses it.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |e| match e.remove_volume_blocking(&name, false).map(drop) {
            Err(err) if force && err.kind() == longshore_oci::Kind::NotFound => Ok(()),
            Err(err) if err.kind() == longshore_oci::Kind::NotFound => {
                Err(err.context(format!("get {name}")))
            }
            other => other,
        })
        .await
    }

    /// Removes a volume that nobody uses. Gives the bytes of the disk that this freed, where they are to be measured.
    ///
    /// # Errors
    /// `Conflict` while a container uses it, `NotFound` when there is none.
    pub(crate) fn remove_volume_blocking(&self, name: &str, measure: bool) -> Result<u64> {
        let _one = self.inner.volumes.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.volume_blocking(name)?;
        let users = self.volume_users(name);
        if !users.is_empty() {
            return Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        check_name(name)?;
        let volumes = self.inner.paths.volumes();
        let (dir, aside) = (volumes.join(name), volumes.join(format!("{REMOVING}{name}")));
        let size = if measure { allocated(&dir).map_or(0, |a| a.bytes) } else { 0 };
        // Aside, on disk, before its record ends: a start after a crash knows what was to go, and a volume without a
        // record is never taken for that.
        remove_dir(&aside)?;
        let rest = match std::fs::rename(&dir, &aside).and_then(|()| sync_dir(&volumes)) {
            Ok(()) => &aside,
            // A full disk may have no room for a longer name.
            Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => &dir,
            Err(e) if e.kind() == ErrorKind::NotFound => &dir,
            Err(e) => return Err(Error::io(format!("remove volume {name}"), e)),
        };
        if let Err(e) = self.inner.store.meta().commit(Batch::new().delete(Table::Volumes, name)) {
            let _ = std::fs::rename(&aside, &dir);
            return Err(e.into());
        }
        remove_dir(rest)?;
        self.event("volume", "destroy", name, &[("driver", "local")]);
        Ok(size)
    }

    /// Makes the directories agree with the records, for a start: removals end, and what a power cut took of an empty
    /// volume is made again. A directory that nothing names goes only if it is empty: it is somebody's data.
    pub(crate) fn mend_volumes(&self) -> Result<()> {
        let volumes = self.inner.paths.volumes();
        let known = self.inner.store.meta().keys(Table::Volumes)?;
        let entries =
            std::fs::read_dir(&volumes).map_err(|e| Error::io(format!("read {}", volumes.display()), e))?;
        for entry in entries.flatten() {
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let mended = match file_name.strip_prefix(REMOVING) {
                Some(name) if known.iter().any(|k| k == name) && !volumes.join(name).exists() => {
                    std::fs::rename(entry.path(), volumes.join(name)).map_err(|e| Error::io("rename", e))
                }
                Some(_) => remove_dir(&entry.path()),
                None if known.contains(&file_name) => Ok(()),
                None => {
                    // Not empty, or not ours: both stay.
                    let _ = std::fs::remove_dir(entry.path().join("_data"));
                    let _ = std::fs::remove_dir(entry.path());
                    Ok(())
                }
            };
            if let Err(e) = mended {
                tracing::warn!("volume directory {file_name}: {e}");
            }
        }
        for name in known.iter().filter(|name| check_name(name).is_ok()) {
            make_dirs(&volumes, name)?;
        }
        Ok(())
    }

    /// Removes volumes that nobody uses: anonymous ones, or all with the filter `all=true`.
    ///
    /// # Errors
    /// For unknown filters.
    pub async fn prune_volumes(&self, f: &Filters) -> Result<Pruned> {
        filters::check_known(f, &["all", "label", "label!"])?;
        let all = filters::flag(f, "all")?.unwrap_or(false);
        let f = f.clone();
        self.blocking(move |e| {
            let mut pruned = Pruned::default();
            for (name, v) in e.inner.store.meta().list::<Volume>(Table::Volumes)? {
                let wanted = (all || v.anonymous)
                    && filters::labels(&f, "label", v.labels.as_ref())
                    && filters::not_labels(&f, v.labels.as_ref())
                    && e.volume_users(&name).is_empty();
                if !wanted {
                    continue;
                }
                match e.remove_volume_blocking(&name, true) {
                    Ok(freed) => {
                        pruned.reclaimed += freed;
                        pruned.deleted.push(name);
                    }
                    Err(err) => tracing::warn!(volume = name, "not pruned: {err}"),
                }
            }
            let freed = pruned.reclaimed.to_string();
            e.event("volume", "prune", "", &[("reclaimed", &freed)]);
            Ok(pruned)
        })
        .await
    }
}

/// Makes the directories of a volume, where they are not there; the one for its files.
fn make_dirs(volumes: &Path, name: &str) -> Result<PathBuf> {
    let dir = volumes.join(name);
    let data = dir.join("_data");
    make_dir(&dir, 0o701)?;
    make_dir(&data, 0o755)?;
    Ok(data)
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_41_names_are_never_paths() {
        for bad in ["", "../x", "a/b", ".x", "a", "x y"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name("ci_home").is_ok());
    }
}
