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
pub(crate) struct Custody {
    pub(crate) store: Store,
    lease: Option<Lease>,
    blobs: Mutex<BTreeSet<Digest>>,
}

impl Custody {
    pub(crate) fn new(store: &Store, reason: &str) -> Result<Self> {
        Ok(Self { store: store.clone(), lease: Some(store.lease(reason)?), blobs: Mutex::default() })
    }

    /// Keeps a blob that may be there already.
    pub(crate) fn hold(&self, blob: Digest) -> Result<()> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).insert(blob);
        self.lease.as_ref().map_or(Ok(()), |lease| self.store.hold_blob(lease, blob))
    }

    /// Keeps a layer that has a record, and those below it.
    pub(crate) fn hold_layer(&self, chain: Digest) -> Result<()> {
        self.lease.as_ref().map_or(Ok(()), |lease| lease.add_layer(chain))
    }

    /// Ends the lease before its time: nothing is held any longer.
    pub(crate) fn release(&mut self) {
        drop(self.lease.take());
    }

    /// Holds a snapshot that is about to be made.
    pub(crate) fn hold_snapshot(&self, cache_id: &str) -> Result<()> {
        self.lease.as_ref().map_or(Ok(()), |lease| lease.add_snapshot(cache_id))
    }

    /// Commits an ingest, whose digest is known before. It is durable with [`Store::durable`], which comes before any
    /// record that names it.
    pub(crate) fn commit(&self, ingest: Ingest, digest: Digest) -> Result<()> {
        self.hold(digest)?;
        ingest.commit_later(digest).map(drop)
    }

    /// The same, durable at once.
    pub(crate) fn commit_durable(&self, ingest: Ingest, digest: Digest) -> Result<()> {
        self.hold(digest)?;
        ingest.commit(Some(digest), None).map(drop)
    }

    /// Stores a small blob; as [`Custody::commit`].
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        self.hold(Digest::of(bytes))?;
        self.store.content().put_later(bytes)
    }

    /// Stores a small blob, durable at once.
    pub(crate) fn put_durable(&self, bytes: &[u8]) -> Result<Digest> {
        self.hold(Digest::of(bytes))?;
        self.store.content().put(bytes)
    }
}

impl Drop for Custody {
    fn drop(&mut self) {
        drop(self.lease.take());
        let blobs = std::mem::take(&mut *self.blobs.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(e) = self.store.drop_blobs(blobs) {
            tracing::warn!(error = %e, "blobs that nothing names were not deleted; they go at the next start");
        }
    }
}
