//! Uploads: a blob is mounted, sent at once, or sent in pieces that are taken up again where they broke off.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use hyper::{Method, StatusCode};
use longshore_oci::Digest;

use crate::answer::{Answer, drain};
use crate::call::{Call, Target, bare, location};
use crate::client::Source;
use crate::headers::{text, upload_range};
use crate::retry::Retry;
use crate::token::Scopes;
use crate::transport::{Outgoing, Payload, Progress};
use crate::url::Url;
use crate::{Error, Repository, Result};

/// A blob up to this size goes in the request that ends its upload.
const SMALL: u64 = 1 << 20;

/// Tries of a request that is not simply sent again: what became of it is asked first.
const ONCE: u32 = 1;

/// One upload of a blob.
struct Upload<'a> {
    repository: &'a Repository,
    source: Source,
    scopes: Scopes,
    action: String,
    digest: Digest,
    size: u64,
    file: Arc<File>,
    /// Bytes of one request; all of them where the registry does not take pieces.
    chunk: u64,
    /// Where the upload goes on; none before it began.
    session: Option<Url>,
    /// Bytes that the registry has.
    offset: u64,
    /// How often the registry did not know of it, or stood elsewhere.
    stumbles: u32,
}

/// What may help after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Never,
    FromWhereItStands,
    Anew,
}

impl Repository {
    /// Takes over a blob of `from_repository`, a repository's path in the same registry; `false` where the registry
    /// does not, and the blob must be uploaded.
    ///
    /// # Errors
    /// When the registry cannot be asked, or nothing may be written.
    pub async fn mount_blob(&self, digest: &Digest, from_repository: &str) -> Result<bool> {
        let inner = &self.client.inner;
        let source = self.own()?;
        let scopes = self.scopes(&source, true).and(&format!("repository:{from_repository}:pull"));
        let action =
            format!("mount the blob {digest} from {from_repository} into {}", self.name().repository());
        let from = crate::url::encode(from_repository);
        let path = self.path(&source.at, &format!("blobs/uploads/?mount={digest}&from={from}"));
        let call = self.call(&source, &scopes, &action, Target::Path(path), Method::POST);
        let answer = inner.call(&source.at, call).await?;
        let answer = answer.expect(inner, &action, &[StatusCode::CREATED, StatusCode::ACCEPTED]).await?;
        if answer.response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        // The registry began an upload instead, which is not wanted here.
        if let Ok(session) = location(&answer.url, answer.response.headers()) {
            let cancel = self.call(&source, &scopes, &action, Target::At(session), Method::DELETE);
            let _ = inner.call(&source.at, Call { attempts: ONCE, ..cancel }).await;
        }
        Ok(false)
    }

    /// Uploads the first `size` bytes of `file`, which hash to `digest`. `progress` is told how many bytes the
    /// registry's connection took so far; after a failure that number may go back.
    ///
    /// # Errors
    /// [`Error::Internal`] when the file cannot be read or ends early.
    pub async fn upload_blob(
        &self,
        digest: Digest,
        size: u64,
        file: File,
        progress: impl FnMut(u64) + Send,
    ) -> Result<()> {
        let limits = &self.client.inner.config.limits;
        let source = self.own()?;
        let progress = Mutex::new(progress);
        let progress = |n| (progress.lock().unwrap_or_else(PoisonError::into_inner))(n);
        let mut upload = Upload {
            repository: self,
            scopes: self.scopes(&source, true),
            action: format!("upload the blob {digest} to {}", self.name().repository()),
            source,
            digest,
            size,
            file: Arc::new(file),
            chunk: limits.upload_chunk.max(1),
            session: None,
            offset: 0,
            stumbles: 0,
        };
        let mut retry = Retry::new(limits, limits.attempts);
        let mut counted = 0;
        loop {
            let e = match upload.run(&progress).await {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            // A registry that takes a byte each time is no progress.
            if upload.offset >= counted + limits.least() {
                counted = upload.offset;
                retry.progressed();
            }
            let again = upload.after(&e);
            if again == Again::Never || !retry.again(asked(&e)).await {
                upload.cancel().await;
                return Err(e.with_attempts(retry.made));
            }
            tracing::debug!(attempt = retry.made, "{}: {e}", upload.action);
            // It may have arrived, and only the answer was lost.
            if self.has_blob(&digest).await.is_ok_and(|found| found == Some(size)) {
                progress(size);
                return Ok(());
            }
            match again {
                Again::FromWhereItStands => upload.ask_how_far().await,
                _ => upload.cancel().await,
            }
        }
    }

    fn call<'a>(
        &'a self,
        source: &'a Source,
        scopes: &'a Scopes,
        action: &'a String,
        target: Target,
        method: Method,
    ) -> Call<'a> {
        let limits = &self.client.inner.config.limits;
        Call {
            target,
            outgoing: bare(method, limits),
            scopes,
            credentials: &source.credentials,
            action,
            attempts: limits.attempts,
            unanswered: false,
            progress: None,
        }
    }
}

impl Upload<'_> {
    /// From where it stands to the end.
    async fn run(&mut self, progress: Progress<'_>) -> Result<()> {
        if self.session.is_none() {
            self.offset = 0;
            let path = self.repository.path(&self.source.at, "blobs/uploads/");
            let answer = self.send(Target::Path(path), self.bare(Method::POST), None, self.tries()).await?;
            if answer.response.status() == StatusCode::CREATED {
                return Ok(());
            }
            self.go_on_at(&answer)?;
        }
        progress(self.offset);
        if self.offset == 0 && self.size <= SMALL {
            return self.finish(self.rest(), progress).await;
        }
        while self.offset < self.size {
            self.piece(progress).await?;
        }
        self.finish(Payload::Empty, progress).await
    }

    /// Sends the next piece.
    async fn piece(&mut self, progress: Progress<'_>) -> Result<()> {
        let begin = self.offset;
        let len = self.chunk.min(self.size - begin);
        let mut outgoing = self.bare(Method::PATCH);
        outgoing.wait = self.repository.client.inner.config.limits.commit;
        outgoing.payload = Payload::File { file: self.file.clone(), offset: begin, len };
        outgoing.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // All at once is what every registry takes, and some no more than that.
        if len < self.size {
            let range = HeaderValue::from_str(&format!("{begin}-{}", begin + len - 1));
            outgoing.headers.insert(CONTENT_RANGE, range.map_err(|e| Error::Internal(e.to_string()))?);
        }
        let told = |n| progress(begin + n);
        let answer = self.send(self.target()?, outgoing, Some(&told), ONCE).await?;
        self.go_on_at(&answer)?;
        let has = text(answer.response.headers(), RANGE).and_then(upload_range).unwrap_or(begin + len);
        if has <= begin || has > begin + len {
            return Err(self.broken(&answer, &format!("it has {has} bytes, after {} were sent", begin + len)));
        }
        self.offset = has;
        progress(has);
        Ok(())
    }

    /// Ends the upload with `rest`; the registry checks the digest.
    async fn finish(&mut self, rest: Payload, progress: Progress<'_>) -> Result<()> {
        let Target::At(session) = self.target()? else { return Ok(()) };
        let mut outgoing = self.bare(Method::PUT);
        outgoing.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        outgoing.payload = rest;
        outgoing.wait = self.repository.client.inner.config.limits.commit;
        let target = Target::At(session.with_query("digest", &self.digest.to_string()));
        let answer = self.send(target, outgoing, None, ONCE).await?;
        drain(answer.response.into_body()).await;
        self.session = None;
        progress(self.size);
        Ok(())
    }

    /// Asks what the registry has of a broken upload. Where that is not clear, it begins anew.
    async fn ask_how_far(&mut self) {
        let Ok(target) = self.target() else { return };
        let answer = self.send(target, self.bare(Method::GET), None, ONCE).await;
        let has = match &answer {
            Ok(answer) => text(answer.response.headers(), RANGE).and_then(upload_range),
            Err(_) => None,
        };
        match (answer, has.filter(|has| *has <= self.size)) {
            (Ok(answer), Some(has)) => {
                // Without a new place it goes on at the old one.
                let _ = self.go_on_at(&answer);
                self.offset = has;
            }
            _ => self.cancel().await,
        }
    }

    /// Tells the registry that nothing more comes, so that it need not keep what it has.
    async fn cancel(&mut self) {
        if let Ok(target) = self.target() {
            let _ = self.send(target, self.bare(Method::DELETE), None, ONCE).await;
        }
        self.session = None;
    }

    /// What may help after `e`.
    fn after(&mut self, e: &Error) -> Again {
        let status = e.refusal().map_or(0, |r| r.status);
        let in_pieces = self.chunk < self.size && self.offset > 0;
        match status {
            _ if is_passing(e) => Again::FromWhereItStands,
            404 | 416 if self.session.is_some() && self.stumbles == 0 => {
                self.stumbles += 1;
                Again::FromWhereItStands
            }
            // A registry that refuses a later piece may take all at once.
            400 | 404 | 405 | 411 | 416 | 501 if in_pieces => {
                self.chunk = self.size;
                Again::Anew
            }
            404 | 416 if self.session.is_some() => Again::Anew,
            _ => Again::Never,
        }
    }

    async fn send(
        &self,
        target: Target,
        outgoing: Outgoing,
        progress: Option<Progress<'_>>,
        attempts: u32,
    ) -> Result<Answer> {
        let inner = &self.repository.client.inner;
        let call = Call {
            target,
            outgoing,
            scopes: &self.scopes,
            credentials: &self.source.credentials,
            action: &self.action,
            attempts,
            unanswered: false,
            progress,
        };
        let answer = inner.call(&self.source.at, call).await?;
        if answer.response.status().is_success() {
            Ok(answer)
        } else {
            Err(answer.refused(inner, &self.action).await)
        }
    }

    fn tries(&self) -> u32 {
        self.repository.client.inner.config.limits.attempts
    }

    fn go_on_at(&mut self, answer: &Answer) -> Result<()> {
        if answer.response.headers().contains_key(LOCATION) || self.session.is_none() {
            self.session = Some(location(&answer.url, answer.response.headers())?);
        }
        Ok(())
    }

    fn target(&self) -> Result<Target> {
        let none = || Error::Internal(format!("{}: it has not begun", self.action));
        self.session.clone().map(Target::At).ok_or_else(none)
    }

    fn rest(&self) -> Payload {
        match self.size - self.offset {
            0 => Payload::Empty,
            len => Payload::File { file: self.file.clone(), offset: self.offset, len },
        }
    }

    fn bare(&self, method: Method) -> Outgoing {
        bare(method, &self.repository.client.inner.config.limits)
    }

    fn broken(&self, answer: &Answer, why: &str) -> Error {
        Error::Corrupt(format!("{} at {}: {why}", self.action, answer.url.origin.authority()))
    }
}

fn is_passing(e: &Error) -> bool {
    match e {
        Error::Unreachable { .. } | Error::TimedOut { .. } => true,
        Error::Refused(r) => matches!(r.status, 408 | 429 | 500 | 502..=599),
        _ => false,
    }
}

fn asked(e: &Error) -> Option<std::time::Duration> {
    e.refusal().and_then(|r| r.retry_after)
}
