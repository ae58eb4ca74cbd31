//! Files of any web server. Redirects are followed as far as a registry's are; a password goes only to the server that it
//! is for; every server with TLS proves who it is.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::time::{Duration, SystemTime};

use hyper::header::{
    ACCEPT_ENCODING, CONTENT_DISPOSITION, CONTENT_LENGTH, DATE, ETAG, HeaderMap, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use hyper::{Method, StatusCode};
use longshore_oci::{Digest, Sha256};

use crate::answer::{Answer, Failure, drain};
use crate::call::{Home, Outbound, bare};
use crate::flow::{Flow, Stopped};
use crate::headers::{file_name, text};
use crate::retry::Retry;
use crate::transport::{Addresses, ConnectError, Profile, SendError, secret};
use crate::url::Url;
use crate::{Client, Error, Result};

/// How old a change must be to be known by its time: within a second there may be two (RFC 9110, 8.8.2.2).
const SETTLED: Duration = Duration::from_secs(60);
/// Bytes of a header that is kept.
const MAX_KEPT: usize = 4 << 10;

/// What a server says of a file, so that it can be asked whether the file is still the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`, as it was written, where it tells two versions apart.
    pub modified: Option<String>,
}

impl Validators {
    /// Whether there is something to ask with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.modified.is_none()
    }
}

/// Which file is wanted.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations)]
pub struct Ask<'a> {
    /// `http` or `https`, without a user.
    pub url: &'a str,
    /// The value of `Authorization`, for the address's own server.
    pub authorization: Option<&'a str>,
    /// What is known of the file: it is wanted only if it is another by now.
    pub known: Option<&'a Validators>,
    /// Bytes that it may have.
    pub limit: u64,
}

/// A file that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Of its bytes as they came.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// When it was changed, as the server says.
    pub modified: Option<SystemTime>,
    /// The name that the server gives it: a name, not a path.
    pub name: Option<String>,
    /// To ask again with.
    pub validators: Validators,
}

impl Client {
    /// Downloads a file into `into`, which is empty; `None` when it still is the one that is known. What breaks off
    /// begins again, a few times. Writing blocks: not for a thread that serves others. Dropped, it ends at once.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, sends more than the limit, or redirects where nobody is to go.
    pub async fn download(&self, ask: Ask<'_>, into: &mut File) -> Result<Option<Downloaded>> {
        let limits = &self.inner.config.limits;
        let url = Url::parse(&encoded(ask.url)).map_err(Error::Invalid)?;
        let action = format!("get {url}");
        let mut retry = Retry::new(limits, limits.attempts);
        loop {
            let answer = self.answer(&url, ask, &action, &mut retry).await?;
            if answer.response.status() == StatusCode::NOT_MODIFIED && ask.known.is_some() {
                drain(answer.response.into_body()).await;
                return Ok(None);
            }
            let answer = Answer { attempts: retry.made, ..answer };
            let answer = answer.expect(&self.inner, &action, &[StatusCode::OK]).await?;
            let from = answer.url.origin.authority();
            let (parts, body) = answer.response.into_parts();
            let length = text(&parts.headers, CONTENT_LENGTH).and_then(|l| l.parse::<u64>().ok());
            if length.is_some_and(|length| length > ask.limit) {
                return Err(too_large(&action, ask.limit));
            }
            match self.receive(Flow::new(body), ask.limit, into, &action).await? {
                Ok((digest, size)) => return Ok(Some(downloaded(&parts.headers, digest, size))),
                Err(Stopped { reason, late }) => {
                    tracing::debug!(host = from, "{action}: {reason}");
                    if retry.again(None).await {
                        continue;
                    }
                    let attempts = retry.made;
                    return Err(match late {
                        true => Error::TimedOut { host: from, action, attempts, reason },
                        false => Error::Unreachable { host: from, action, attempts, reason },
                    });
                }
            }
        }
    }

    /// The answer to a request, tried again where that may help.
    async fn answer(&self, url: &Url, ask: Ask<'_>, action: &String, retry: &mut Retry) -> Result<Answer> {
        let outbound = outbound(self, ask)?;
        let profile = Profile { verify: true, client_cert: false, addresses: Addresses::Any };
        let home =
            Home { origin: url.origin.clone(), profile, elsewhere: Addresses::NotLinkLocal, strict: true };
        loop {
            let result = self.inner.follow(&home, &outbound, url.clone(), None).await;
            let (passing, asked) = match &result {
                Ok(answer) => (answer.is_passing(), answer.retry_after()),
                Err(failure) => (failure.is_passing() && !failure.is_deserted(), None),
            };
            if passing && retry.again(asked).await {
                tracing::debug!(attempt = retry.made, "{action} again");
                continue;
            }
            let host = url.origin.authority();
            return result.map_err(|e| unplain(e).into_error(&self.inner, &host, action, retry.made));
        }
    }

    /// Writes a body to a file, from its beginning on.
    async fn receive(
        &self,
        mut flow: Flow,
        limit: u64,
        into: &mut File,
        action: &str,
    ) -> Result<Result<(Digest, u64), Stopped>> {
        let failed = |e: io::Error| Error::Internal(format!("{action}: write: {e}"));
        into.set_len(0).and_then(|()| into.rewind()).map_err(failed)?;
        let (mut hash, mut size) = (Sha256::new(), 0u64);
        loop {
            match flow.piece(&self.inner.config.limits).await {
                Ok(Some(piece)) => {
                    size = size.saturating_add(piece.len() as u64);
                    if size > limit {
                        return Err(too_large(action, limit));
                    }
                    hash.update(&piece);
                    into.write_all(&piece).map_err(failed)?;
                }
                Ok(None) => return Ok(Ok((hash.finish(), size))),
                Err(stopped) => return Ok(Err(stopped)),
            }
        }
    }
}

fn outbound(client: &Client, ask: Ask<'_>) -> Result<Outbound> {
    let mut outgoing = bare(Method::GET, &client.inner.config.limits);
    // The file as it is: what a server packs on the way has another digest each time.
    outgoing.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let known = ask.known.cloned().unwrap_or_default();
    for (name, value) in [(IF_NONE_MATCH, known.etag), (IF_MODIFIED_SINCE, known.modified)] {
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(&v).ok()) {
            outgoing.headers.insert(name, value);
        }
    }
    let impossible = || Error::Invalid("what proves who asks has impossible characters".into());
    let authorization = ask.authorization.map(|a| secret(a).ok_or_else(impossible)).transpose()?;
    Ok(Outbound { outgoing, authorization, stays: false })
}

fn downloaded(headers: &HeaderMap, digest: Digest, size: u64) -> Downloaded {
    let kept = |value: Option<&str>| value.filter(|v| v.len() <= MAX_KEPT).map(str::to_owned);
    let date = |name| text(headers, name).and_then(|date| httpdate::parse_http_date(date).ok());
    let modified = date(LAST_MODIFIED);
    let settled = modified
        .zip(date(DATE))
        .is_some_and(|(modified, now)| now.duration_since(modified).is_ok_and(|passed| passed >= SETTLED));
    Downloaded {
        digest,
        size,
        modified,
        name: text(headers, CONTENT_DISPOSITION).and_then(file_name),
        validators: Validators {
            etag: kept(text(headers, ETAG)),
            modified: kept(text(headers, LAST_MODIFIED)).filter(|_| settled),
        },
    }
}

fn too_large(action: &str, limit: u64) -> Error {
    Error::TooLarge(format!("{action}: the file has more than {limit} bytes"))
}

/// No list of insecure registries helps here.
fn unplain(failure: Failure) -> Failure {
    match failure {
        Failure::Send(SendError::Connect(e), at) => {
            Failure::Send(SendError::Connect(ConnectError { plain: false, ..e }), at)
        }
        other => other,
    }
}

/// An address with what is no ASCII percent-encoded, as servers get it from browsers.
fn encoded(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    for b in url.bytes() {
        if b.is_ascii() { out.push(char::from(b)) } else { out.push_str(&format!("%{b:02X}")) }
    }
    out
}
