//! Cache mounts: directories with names that outlive the builds that write to them. Nobody vouches for what is in them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use longshore_oci::Digest;
use longshore_oci::image::Descriptor;
use serde::{Deserialize, Serialize};

use crate::archive::check_announced;
use crate::image::now;
use crate::layer::{self, ApplyOptions, WhiteoutFormat};
use crate::meta::{Batch, Table};
use crate::open::Store;
use crate::snapshot::make_private_dir;
use crate::usage::{Allocated, allocated};
use crate::{Error, IoContext, Result, remove_tree};

/// Where they lie, below the data root; each under the digest of its name.
pub(crate) const DIR: &str = "caches";

/// What is known of a cache mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Its name.
    pub name: String,
    /// When it was made, nanoseconds since 1970.
    pub created: i64,
    /// When it was last used, nanoseconds since 1970.
    pub used: i64,
    /// How often it was used.
    pub uses: u64,
}

/// A cache mount that is about to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDir {
    /// The directory that is mounted; a path of this machine without links.
    pub path: PathBuf,
    /// It was just made, and is empty.
    pub fresh: bool,
}

impl Store {
    fn cache_dir(&self, key: &Digest) -> PathBuf {
        self.root().join(DIR).join(key.hex())
    }

    /// The cache mount of this name; made if there is none.
    ///
    /// # Errors
    /// When it cannot be made or the metadata not be written.
    pub fn cache_mount(&self, name: &str) -> Result<CacheDir> {
        let key = Digest::of(name.as_bytes());
        let dir = self.cache_dir(&key);
        let fresh = !dir.join("data").is_dir();
        if fresh {
            make_private_dir(&self.root().join(DIR), 0o700)?;
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir.join("data"));
            made.context(|| format!("make {}", dir.display()))?;
        }
        let known: Option<CacheRecord> = self.meta().get(Table::Caches, &key.to_string())?;
        let mut record =
            known.unwrap_or(CacheRecord { name: name.to_owned(), created: now(), used: 0, uses: 0 });
        record.used = now();
        record.uses += 1;
        self.meta().commit_lazy(Batch::new().put(Table::Caches, &key.to_string(), &record))?;
        Ok(CacheDir { path: dir.join("data"), fresh })
    }

    /// Where the cache mount of this name lies, if there is one.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn cache_mount_at(&self, name: &str) -> Result<Option<PathBuf>> {
        let key = Digest::of(name.as_bytes());
        let dir = self.cache_dir(&key).join("data");
        Ok((self.meta().contains(Table::Caches, &key.to_string())? && dir.is_dir()).then_some(dir))
    }

    /// Fills a cache mount that was just made with an archive, which has to be what is said of it; else it stays empty.
    /// There will be no devices in it.
    ///
    /// # Errors
    /// `Corrupt` or `DigestMismatch` for other bytes; when they cannot be unpacked.
    pub fn fill_cache_mount(
        &self,
        name: &str,
        diff_id: &Digest,
        blob: &Descriptor,
        source: impl Read + Send,
    ) -> Result<()> {
        let dir = self.cache_dir(&Digest::of(name.as_bytes()));
        let aside = dir.join("coming");
        let unpack = || {
            remove_tree(&aside)?;
            fs::create_dir(&aside).context(|| format!("make {}", aside.display()))?;
            let options = ApplyOptions {
                whiteouts: WhiteoutFormat::Literal,
                skip_devices: true,
                ..ApplyOptions::default()
            };
            let done = layer::apply(&aside, source.take(blob.size), &options)?;
            check_announced(blob, done.compressed, done.compressed_size)?;
            if done.diff_id != *diff_id {
                let what = format!("cache mount {name}");
                return Err(Error::DigestMismatch { what, expected: *diff_id, actual: done.diff_id });
            }
            // It takes the place of an empty directory.
            fs::rename(&aside, dir.join("data")).context(|| format!("place {}", aside.display()))
        };
        let filled = unpack();
        if filled.is_err() {
            remove_tree(&aside)?;
        }
        filled
    }

    /// All cache mounts by key, with what they take.
    ///
    /// # Errors
    /// When the metadata or a directory cannot be read.
    pub fn cache_mounts(&self) -> Result<Vec<(Digest, CacheRecord, Allocated)>> {
        let rows = self.meta().list::<CacheRecord>(Table::Caches)?;
        let one = |(key, record): (String, CacheRecord)| {
            let key = crate::image::parse_id(&key)?;
            let size = allocated(&self.cache_dir(&key))?;
            Ok((key, record, size))
        };
        rows.into_iter().map(one).collect()
    }

    /// Removes cache mounts, which nobody may use; the bytes of the disk that this freed.
    ///
    /// # Errors
    /// When the metadata cannot be written or files cannot be removed.
    pub fn drop_cache_mounts(&self, keys: &[Digest]) -> Result<u64> {
        let mut freed = 0;
        for key in keys {
            let dir = self.cache_dir(key);
            let size = allocated(&dir)?.bytes;
            self.meta().commit(Batch::new().delete(Table::Caches, &key.to_string()))?;
            remove_tree(&dir)?;
            freed += size;
        }
        Ok(freed)
    }

    /// Makes directories and records agree. For a start only.
    pub(crate) fn recover_caches(&self) -> Result<()> {
        let dir = self.root().join(DIR);
        let mut there = BTreeSet::new();
        let known: BTreeSet<String> = self.meta().keys(Table::Caches)?.into_iter().collect();
        if dir.is_dir() {
            for entry in fs::read_dir(&dir).context(|| format!("read {}", dir.display()))? {
                let entry = entry.context(|| format!("read {}", dir.display()))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let Ok(key) = Digest::from_hex(&name) else { continue };
                if known.contains(&key.to_string()) {
                    there.insert(key.to_string());
                } else {
                    remove_tree(&entry.path())?;
                }
            }
        }
        let lost = known.difference(&there).fold(Batch::new(), |b, key| b.delete(Table::Caches, key));
        self.meta().commit_lazy(lost)
    }
}
