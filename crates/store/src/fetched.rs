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
        let mut batch = Batch::new().put(Table::Fetched, &address.to_string(), &record);
        if self.meta().keys(Table::Fetched)?.len() >= MAX_KEPT {
            let mut rows = self.meta().list::<FetchedRecord>(Table::Fetched)?;
            rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.used));
            for (key, _) in rows.iter().skip(MAX_KEPT - 1) {
                batch = batch.delete(Table::Fetched, key);
            }
        }
        self.meta().commit_lazy(batch)
    }
}
