//! What servers said of the files that builds downloaded: enough to ask whether one is still the same. The files
//! themselves are in the layers that were made of them.

use longshore_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::image::now;
use crate::meta::{Batch, Table};
use crate::open::Store;

/// Files of which something is remembered; of more, those that were used last.
const MAX_KEPT: usize = 1000;

/// What is remembered of a file. Its address is not: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedRecord {
    /// Of its content.
    pub digest: Digest,
    /// The name that the server gave it.
    pub name: Option<String>,
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub modified: Option<String>,
    /// When it was last asked for, nanoseconds since 1970.
    pub used: i64,
}

impl Store {
    /// What is remembered of the file whose address has this digest.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn fetched(&self, address: &Digest) -> Result<Option<FetchedRecord>> {
        self.meta().get(Table::Fetched, &address.to_string())
    }

    /// Remembers what a server said of a file; what was used long ago is forgotten for it.
    ///
    /// # Errors
    /// When the metadata cannot be read or written.
    pub fn note_fetched(&self, address: &Digest, record: FetchedRecord) -> Result<()> {
        let record = FetchedRecord { used: now(), ..record };
        let own = address.to_string();
        let mut batch = Batch::new().put(Table::Fetched, &own, &record);
        if self.meta().keys(Table::Fetched)?.len() >= MAX_KEPT {
            let mut rows = self.meta().list::<FetchedRecord>(Table::Fetched)?;
            rows.retain(|(key, _)| *key != own);
            rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.used));
            for (key, _) in rows.iter().skip(MAX_KEPT - 1) {
                batch = batch.delete(Table::Fetched, key);
            }
        }
        self.meta().commit_lazy(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::StoreOptions;

    #[test]
    fn what_was_used_long_ago_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let key = |n: usize| Digest::of(n.to_string().as_bytes());
        let record = |n| FetchedRecord { digest: key(n), name: None, etag: None, modified: None, used: 0 };
        for n in 0..=MAX_KEPT {
            store.note_fetched(&key(n), record(n)).unwrap();
        }
        assert_eq!(store.fetched(&key(0)).unwrap(), None);
        // One that is known takes nobody's place.
        store.note_fetched(&key(1), record(1)).unwrap();
        for n in [1, 2, MAX_KEPT] {
            assert_eq!(store.fetched(&key(n)).unwrap().map(|r| r.digest), Some(key(n)));
        }
        assert_eq!(store.meta().keys(Table::Fetched).unwrap().len(), MAX_KEPT);
    }
}
