//! What a request carries, so that it can be sent again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::connect::io_words;

/// Bytes that are read from a file at once. Small, because a body whose pieces are no longer taken is a broken one.
const PIECE: u64 = 64 << 10;
/// Pieces that are read ahead.
const AHEAD: usize = 4;

/// A file that is to be sent could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read the file to upload: {0}")]
pub(crate) struct FileError(String);

impl FileError {
    /// The one within `e`, at any depth.
    pub(crate) fn within<'a>(e: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(e);
        while let Some(e) = next {
            let within = e.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(own) = within.and_then(|inner| inner.downcast_ref()).or_else(|| e.downcast_ref()) {
                return Some(own);
            }
            next = e.source();
        }
        None
    }
}

/// A body that can be made again for each try.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    /// Bytes `offset..offset + len` of a file.
    File {
        file: Arc<File>,
        offset: u64,
        len: u64,
    },
}

impl Payload {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(b) => b.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// A body of these bytes; `sent` counts what of it was taken by the connection.
    pub(crate) fn body(&self, sent: Arc<AtomicU64>) -> Body {
        let source = match self {
            Self::Empty => Source::Ready(None),
            Self::Bytes(b) => Source::Ready((!b.is_empty()).then(|| b.clone())),
            Self::File { file, offset, len } => Source::File(read_pieces(file.clone(), *offset, *len)),
        };
        Body { source, left: self.len(), sent }
    }
}

/// Reads on a thread of its own, a little ahead; stops when nobody wants more.
fn read_pieces(file: Arc<File>, offset: u64, len: u64) -> mpsc::Receiver<io::Result<Bytes>> {
    let (tx, rx) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let (mut at, end) = (offset, offset.saturating_add(len));
        while at < end {
            let size = usize::try_from(PIECE.min(end - at)).unwrap_or(0);
            let mut piece = vec![0; size];
            let read = file.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece));
            let read = read.map_err(|e| io::Error::other(FileError(io_words(&e))));
            let failed = read.is_err();
            if tx.blocking_send(read).is_err() || failed {
                return;
            }
            at += size as u64;
        }
    });
    rx
}

/// For hyper. Its length is known, and it is an error to have fewer bytes.
#[derive(Debug)]
pub(crate) struct Body {
    source: Source,
    left: u64,
    sent: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Source {
    Ready(Option<Bytes>),
    File(mpsc::Receiver<io::Result<Bytes>>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match &mut self.source {
            Source::Ready(bytes) => bytes.take().map(Ok),
            Source::File(pieces) => match pieces.poll_recv(cx) {
                Poll::Ready(piece) => piece,
                Poll::Pending => return Poll::Pending,
            },
        };
        let piece = piece.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
