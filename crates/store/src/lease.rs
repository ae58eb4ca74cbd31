//! Leases: what holds new blobs or layers until a record does.
//!
//! A lease lives as long as its guard. Its row is in the database so that it can be listed; rows
//! of an earlier daemon lifetime mean nothing and are removed when the store is opened.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use longshore_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::content::random_id;
use crate::error::Result;
use crate::meta::{Batch, Meta, Table};

/// What a lease protects from collection, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// What for, for people ("load", "pull alpine").
    pub reason: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Blobs by digest.
    #[serde(default)]
    pub blobs: BTreeSet<Digest>,
    /// Layers by chain id.
    #[serde(default)]
    pub layers: BTreeSet<Digest>,
    /// Snapshots by cache id.
    #[serde(default)]
    pub snapshots: BTreeSet<String>,
}

/// The guard of a lease; dropped, it protects no longer.
#[derive(Debug)]
pub struct Lease {
    id: String,
    meta: Meta,
    record: Mutex<LeaseRecord>,
}

impl Lease {
    /// A new lease that protects nothing yet.
    ///
    /// # Errors
    /// When the database fails.
    pub fn new(meta: &Meta, reason: &str) -> Result<Self> {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let record = LeaseRecord { reason: reason.to_owned(), created, ..LeaseRecord::default() };
        let lease = Self { id: random_id()?, meta: meta.clone(), record: Mutex::new(record.clone()) };
        meta.commit_lazy(Batch::new().put(Table::Leases, &lease.id, &record))?;
        Ok(lease)
    }

    /// Its random id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Protects a blob.
    ///
    /// # Errors
    /// When the database fails.
    pub fn add_blob(&self, digest: Digest) -> Result<()> {
        self.change(|r| r.blobs.insert(digest))
    }

    /// Protects a layer and, through its record, all below it.
    ///
    /// # Errors
    /// When the database fails.
    pub fn add_layer(&self, chain: Digest) -> Result<()> {
        self.change(|r| r.layers.insert(chain))
    }

    /// Protects a snapshot that has no record yet.
    ///
    /// # Errors
    /// When the database fails.
    pub fn add_snapshot(&self, cache_id: &str) -> Result<()> {
        self.change(|r| r.snapshots.insert(cache_id.to_owned()))
    }

    fn change(&self, f: impl FnOnce(&mut LeaseRecord) -> bool) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if f(&mut record) {
            self.meta.commit_lazy(Batch::new().put(Table::Leases, &self.id, &*record))?;
        }
        Ok(())
    }

    /// A guard that several owners hold.
    #[must_use]
    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(e) = self.meta.commit_lazy(Batch::new().delete(Table::Leases, &self.id)) {
            tracing::warn!(lease = self.id, error = %e, "lease not removed; it goes when the store is opened again");
        }
    }
}

/// All that leases protect now, as one record.
///
/// # Errors
/// When the database fails.
pub fn held(meta: &Meta) -> Result<LeaseRecord> {
    let mut all = LeaseRecord::default();
    for (_, lease) in meta.list::<LeaseRecord>(Table::Leases)? {
        all.blobs.extend(lease.blobs);
        all.layers.extend(lease.layers);
        all.snapshots.extend(lease.snapshots);
    }
    Ok(all)
}

/// Removes the leases of earlier daemon lifetimes. Call it once, when the store is opened.
///
/// # Errors
/// When the database fails.
pub fn remove_stale(meta: &Meta) -> Result<usize> {
    let keys = meta.keys(Table::Leases)?;
    let batch = keys.iter().fold(Batch::new(), |batch, key| batch.delete(Table::Leases, key));
    meta.commit_lazy(batch)?;
    Ok(keys.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protects_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(&dir.path().join("longshore.db"), false).unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let lease = Lease::new(&meta, "test").unwrap();
        lease.add_blob(a).unwrap();
        lease.add_layer(b).unwrap();
        lease.add_snapshot("c").unwrap();
        let now = held(&meta).unwrap();
        assert!(now.blobs.contains(&a) && now.layers.contains(&b) && now.snapshots.contains("c"));
        drop(lease);
        assert_eq!(held(&meta).unwrap(), LeaseRecord::default());
    }

    #[test]
    fn stale_ones_go_at_open() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(&dir.path().join("longshore.db"), false).unwrap();
        std::mem::forget(Lease::new(&meta, "killed").unwrap());
        assert_eq!(remove_stale(&meta).unwrap(), 1);
        assert_eq!(meta.keys(Table::Leases).unwrap().len(), 0);
    }
}
