//! Blobs fetched again, for a store that mends itself.

use std::io::Read;

use futures_util::StreamExt as _;
use longshore_oci::Reference;
use longshore_oci::image::Descriptor;
use longshore_store::check::Fetch;
use longshore_store::{BlobRecord, Error as StoreError};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use crate::arrival::{self, Arriving};
use crate::{BlobStream, Client, Credentials};

/// Asks the repositories that had a blob, the newest first, and without credentials: the daemon keeps none.
#[derive(Debug)]
pub struct Fetcher {
    client: Client,
    runtime: Handle,
}

impl Fetcher {
    /// A fetcher that downloads on `runtime`. It is used on threads that may block.
    #[must_use]
    pub fn new(client: Client, runtime: Handle) -> Self {
        Self { client, runtime }
    }
}

impl Fetch for Fetcher {
    fn fetch(&self, blob: &BlobRecord, sources: &[String]) -> Result<Box<dyn Read + Send>, StoreError> {
        let descriptor = Descriptor::new(blob.media_type.clone(), blob.digest, blob.size);
        let mut refusals = Vec::new();
        for source in sources {
            let Ok(name) = source.parse::<Reference>() else { continue };
            let repository = self.client.repository(&name, Credentials::Anonymous);
            let body = match self.runtime.block_on(repository.blob(&descriptor)) {
                Ok(body) => body.unverified(),
                Err(e) => {
                    refusals.push(e.to_string());
                    continue;
                }
            };
            return Ok(Box::new(arriving(&self.runtime, body, blob.size, None)));
        }
        let why =
            if refusals.is_empty() { "no registry is known to have it".into() } else { refusals.join("; ") };
        Err(StoreError::Unavailable(format!("fetch blob {}: {why}", blob.digest)))
    }
}

/// A blob that is downloaded by a task of `runtime`, for a thread that may block. `permit` is held until its end.
pub(crate) fn arriving(
    runtime: &Handle,
    mut body: BlobStream,
    size: u64,
    permit: Option<OwnedSemaphorePermit>,
) -> Arriving {
    let (mut feeder, arriving) = arrival::channel(size);
    runtime.spawn(async move {
        let _permit = permit;
        while let Some(bytes) = body.next().await {
            match bytes {
                Ok(bytes) => {
                    if !feeder.feed(bytes).await {
                        return;
                    }
                }
                // The reader is told by the end that comes too early.
                Err(e) => return tracing::warn!(error = %e, "a blob was not fetched to its end"),
            }
        }
    });
    arriving
}
