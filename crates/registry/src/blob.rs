use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use hyper::{Method, StatusCode};
use longshore_oci::image::Descriptor;
use longshore_oci::{Digest, Sha256};

use crate::call::{Call, Target, bare};
use crate::client::{Inner, Source};
use crate::flow::{Flow, Stopped};
use crate::headers::{content_range, text};
use crate::retry::Retry;
use crate::token::Scopes;
use crate::url::Url;
use crate::{Error, Result};

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// The bytes of a blob as they arrive: exactly as many as its descriptor says, or an error.
///
/// A broken connection is resumed where it broke. The digest is checked at the end, before the stream's end is
/// told; [`BlobStream::unverified`] leaves that to a consumer who hashes anyway. After an error the stream has
/// ended. Dropping it closes its connection.
pub struct BlobStream(State);

enum State {
    New(Box<Download>),
    Running(Pieces),
    Ended,
}

impl BlobStream {
    pub(crate) fn new(download: Download) -> Self {
        Self(State::New(Box::new(download)))
    }

    /// Without the check of the digest: for a consumer that hashes the bytes itself. Before the first byte.
    #[must_use]
    pub fn unverified(mut self) -> Self {
        if let State::New(download) = &mut self.0 {
            download.hash = None;
        }
        self
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let State::New(_) = self.0
            && let State::New(download) = std::mem::replace(&mut self.0, State::Ended)
        {
            let pieces = futures_util::stream::try_unfold(download, |mut download| async move {
                Ok(download.next().await?.map(|piece| (piece, download)))
            });
            self.0 = State::Running(Box::pin(pieces));
        }
        let State::Running(pieces) = &mut self.0 else { return Poll::Ready(None) };
        let next = pieces.as_mut().poll_next(cx);
        if let Poll::Ready(None | Some(Err(_))) = next {
            self.0 = State::Ended;
        }
        next
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobStream")
    }
}

/// The state of one blob's download.
pub(crate) struct Download {
    client: Arc<Inner>,
    /// Those not yet given up; the first is used.
    sources: Vec<Source>,
    /// Of the repository; a mirror's prefix comes before it.
    repository: String,
    scopes: Scopes,
    digest: Digest,
    size: u64,
    action: String,
    offset: u64,
    hash: Option<Sha256>,
    reading: Option<Reading>,
    retry: Retry,
    /// The server refused to begin in the middle.
    from_start: bool,
    /// Bytes that came since the tries were last counted from one.
    gained: u64,
}

/// A body that is being read.
struct Reading {
    flow: Flow,
    from: Url,
    /// Bytes that are there already and come again.
    skip: u64,
}

impl Download {
    /// Begins at the first of `sources` that sends it.
    pub(crate) async fn begin(
        client: Arc<Inner>,
        sources: Vec<Source>,
        repository: &str,
        scopes: Scopes,
        descriptor: &Descriptor,
    ) -> Result<Self> {
        let limits = &client.config.limits;
        let retry = Retry::new(limits, limits.attempts);
        let mut download = Self {
            sources,
            repository: repository.to_owned(),
            scopes,
            digest: descriptor.digest,
            size: descriptor.size,
            action: format!("get the blob {} of {repository}", descriptor.digest),
            offset: 0,
            hash: Some(Sha256::new()),
            reading: None,
            retry,
            from_start: false,
            gained: 0,
            client,
        };
        download.open().await?;
        Ok(download)
    }

    /// The next piece; `None` after the last, when all is as it must be.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(reading) = &mut self.reading else {
                self.open().await?;
                continue;
            };
            let limits = &self.client.config.limits;
            let complete = self.offset == self.size;
            let piece = if complete { reading.flow.end().await } else { reading.flow.piece(limits).await };
            match piece {
                Ok(Some(piece)) => {
                    if let Some(piece) = self.take(piece)? {
                        return Ok(Some(piece));
                    }
                }
                // An answer that has all bytes may end as it likes.
                _ if complete => return self.finish().map(|()| None),
                Ok(None) => self.broke("the connection was closed too early".into(), false).await?,
                Err(Stopped { reason, late }) => self.broke(reason, late).await?,
            }
        }
    }

    /// What is new in `piece`.
    fn take(&mut self, mut piece: Bytes) -> Result<Option<Bytes>> {
        let Some(reading) = &mut self.reading else { return Ok(None) };
        let known = usize::try_from(reading.skip).unwrap_or(usize::MAX).min(piece.len());
        reading.skip -= known as u64;
        let piece = piece.split_off(known);
        let len = piece.len() as u64;
        if len > self.size - self.offset {
            let from = reading.from.origin.authority();
            self.reading = None;
            self.blame();
            return Err(Error::Corrupt(format!(
                "{} at {from}: it is longer than the {} bytes that were announced",
                self.action, self.size
            )));
        }
        if piece.is_empty() {
            return Ok(None);
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&piece);
        }
        self.offset += len;
        self.gained += len;
        Ok(Some(piece))
    }

    fn finish(&mut self) -> Result<()> {
        let from = self.reading.take().map(|r| r.from.origin.authority()).unwrap_or_default();
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let actual = hash.finish();
        if actual == self.digest {
            return Ok(());
        }
        self.blame();
        let what = format!("{} at {from}", self.action);
        Err(Error::DigestMismatch { what, expected: self.digest, actual })
    }

    /// A mirror that sends something else is left alone for a while.
    fn blame(&self) {
        if let Some(source) = self.sources.first() {
            source.at.rest();
        }
    }

    /// After a connection broke: waits, and then it is opened again; where that was done too often, the next server.
    async fn broke(&mut self, reason: String, late: bool) -> Result<()> {
        let from = self.reading.take().map(|r| r.from.origin.authority()).unwrap_or_default();
        let limits = &self.client.config.limits;
        // A connection that brings a byte each time it is opened is no progress.
        if self.gained >= limits.least() {
            self.gained = 0;
            self.retry.progressed();
        }
        tracing::debug!(host = from, offset = self.offset, "{}: {reason}", self.action);
        if self.retry.again(None).await {
            return Ok(());
        }
        if self.sources.len() > 1 {
            self.blame();
            self.sources.remove(0);
            self.retry = Retry::new(limits, limits.attempts);
            return Ok(());
        }
        let reason = format!("{reason} after {} of {} bytes", self.offset, self.size);
        let (host, action, attempts) = (from, self.action.clone(), self.retry.made);
        Err(if late {
            Error::TimedOut { host, action, attempts, reason }
        } else {
            Error::Unreachable { host, action, attempts, reason }
        })
    }

    /// Opens it from `offset` on, at the first source that gives it.
    async fn open(&mut self) -> Result<()> {
        loop {
            let Some(source) = self.sources.first().cloned() else {
                return Err(Error::Internal(format!("{}: no server to ask", self.action)));
            };
            match self.open_at(&source).await {
                Ok(reading) => {
                    self.reading = Some(reading);
                    return Ok(());
                }
                // Without ranges it sends all again.
                Err(e) if !self.from_start && e.refusal().is_some_and(|r| r.status == 416) => {
                    self.from_start = true;
                }
                Err(e) if self.sources.len() > 1 => {
                    super::repository::give_up(&source, &e);
                    self.sources.remove(0);
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn open_at(&self, source: &Source) -> Result<Reading> {
        let limits = &self.client.config.limits;
        let mut outgoing = bare(Method::GET, limits);
        if self.offset > 0 && !self.from_start {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.offset));
            outgoing.headers.insert(RANGE, range.map_err(|e| Error::Internal(e.to_string()))?);
        }
        let path = format!("/v2/{}{}/blobs/{}", source.at.prefix, self.repository, self.digest);
        let call = Call {
            target: Target::Path(path),
            outgoing,
            scopes: &self.scopes,
            credentials: &source.credentials,
            action: &self.action,
            attempts: source.at.attempts(limits),
            unanswered: false,
            progress: None,
        };
        let answer = self.client.call(&source.at, call).await?;
        let answer =
            answer.expect(&self.client, &self.action, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT]).await?;
        let wrong = |why: String| {
            Error::Corrupt(format!("{} at {}: {why}", self.action, answer.url.origin.authority()))
        };
        let headers = answer.response.headers();
        let skip = if answer.response.status() == StatusCode::PARTIAL_CONTENT {
            let said = text(headers, CONTENT_RANGE).unwrap_or_default();
            let range = content_range(said).filter(|(first, last, size)| {
                *first == self.offset && *last < self.size && size.is_none_or(|s| s == self.size)
            });
            if range.is_none() || self.offset == 0 {
                let said = crate::error::printable(said);
                return Err(wrong(format!(
                    "bytes from {} on were asked for, and {said:?} came",
                    self.offset
                )));
            }
            0
        } else {
            let length = text(headers, CONTENT_LENGTH).and_then(|l| l.parse::<u64>().ok());
            if length.is_some_and(|l| l != self.size) {
                let length = length.unwrap_or_default();
                return Err(wrong(format!("it has {length} bytes, and {} were announced", self.size)));
            }
            self.offset
        };
        let from = answer.url.clone();
        Ok(Reading { flow: Flow::new(answer.response.into_body()), from, skip })
    }
}
