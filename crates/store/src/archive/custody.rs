//! Blobs on their way into the store.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use longshore_oci::Digest;

use crate::Result;
use crate::content::Ingest;
use crate::lease::Lease;
use crate::open::Store;

/// Holds blobs by a lease until records name them. When it ends, those that no record names are deleted, whether what
/// they came for succeeded or not.
#[derive(Debug)]
pub(crate) struct Custody<'a> {
    pub(crate) store: &'a Store,
    lease: Option<Lease>,
    blobs: Mutex<BTreeSet<Digest>>,
}

impl<'a> Custody<'a> {
    pub(crate) fn new(store: &'a Store, reason: &str) -> Result<Self> {
        Ok(Self { store, lease: Some(store.lease(reason)?), blobs: Mutex::default() })
    }

    fn hold(&self, blob: Digest) -> Result<()> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).insert(blob);
        self.lease.as_ref().map_or(Ok(()), |lease| self.store.hold_blob(lease, blob))
    }

    /// Holds a snapshot that is about to be made.
    pub(crate) fn hold_snapshot(&self, cache_id: &str) -> Result<()> {
        self.lease.as_ref().map_or(Ok(()), |lease| lease.add_snapshot(cache_id))
    }

    /// Commits an ingest, whose digest is known before.
    pub(crate) fn commit(&self, ingest: Ingest, digest: Digest) -> Result<()> {
        self.hold(digest)?;
        ingest.commit(Some(digest), None).map(drop)
    }

    /// Stores a small blob.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        self.hold(Digest::of(bytes))?;
        self.store.content().put(bytes)
    }
}

impl Drop for Custody<'_> {
    fn drop(&mut self) {
        drop(self.lease.take());
        let blobs = std::mem::take(&mut *self.blobs.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(e) = self.store.drop_blobs(blobs) {
            tracing::warn!(error = %e, "blobs that nothing names were not deleted; they go at the next start");
        }
    }
}
