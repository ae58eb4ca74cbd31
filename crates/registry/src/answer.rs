//! What comes back: statuses, errors in words, documents as a whole.

use std::fmt::Display;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};

use crate::call::{Call, Target, bare};
use crate::client::Inner;
use crate::endpoint::Endpoint;
use crate::error::parse_errors;
use crate::headers::retry_after;
use crate::retry::Retry;
use crate::token::Scopes;
use crate::transport::{ConnectError, SendError, broken_words};
use crate::url::{Origin, Url};
use crate::{Credentials, Error, Limits, Refusal, Result};

/// Bytes of an answer's body that are read for its errors, or to keep the connection.
const MAX_REFUSAL: u64 = 64 << 10;
/// For the rest of an answer that nobody wants.
const DRAIN: Duration = Duration::from_secs(2);

/// An answer, whatever its status.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    /// Where it came from in the end.
    pub(crate) url: Url,
    pub(crate) attempts: u32,
    /// It came from another origin than the server's, where its credentials are worth nothing.
    pub(crate) strange: bool,
}

/// Why there is no answer.
pub(crate) enum Failure {
    Send(SendError, Origin),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Final(e)
    }
}

/// Statuses that may be others later.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=599)
}

impl Answer {
    pub(crate) fn is_passing(&self) -> bool {
        is_passing(self.response.status())
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.is_passing().then(|| retry_after(self.response.headers())).flatten()
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The error that this answer is, with what its body says.
    pub(crate) async fn refused(self, client: &Inner, action: &(dyn Display + Sync)) -> Error {
        let (status, retry_after) = (self.status(), self.retry_after());
        let host = self.url.origin.authority();
        let limits = &client.config.limits;
        let body =
            tokio::time::timeout(limits.idle, read_body(self.response.into_body(), limits, MAX_REFUSAL))
                .await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        Error::Refused(Box::new(Refusal {
            host,
            action: action.to_string(),
            status,
            errors: parse_errors(&body),
            attempts: self.attempts,
            retry_after,
        }))
    }

    /// Itself if its status is one of `expected`, else the error that it is.
    pub(crate) async fn expect(
        self,
        client: &Inner,
        action: &(dyn Display + Sync),
        expected: &[StatusCode],
    ) -> Result<Self> {
        if expected.contains(&self.response.status()) {
            Ok(self)
        } else {
            Err(self.refused(client, action).await)
        }
    }
}

impl Failure {
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Send(SendError::Connect(e), _) => e.passing,
            Self::Send(SendError::Broken(_) | SendError::Late(_), _) => true,
            Self::Send(SendError::File(_), _) | Self::Final(_) => false,
        }
    }

    /// Whether nobody listens where it was to go.
    pub(crate) fn is_deserted(&self) -> bool {
        matches!(self, Self::Send(SendError::Connect(e), _) if e.deserted)
    }

    /// For people; `host` is the server that was asked first.
    pub(crate) fn into_error(
        self,
        client: &Inner,
        host: &str,
        action: &(dyn Display + Sync),
        attempts: u32,
    ) -> Error {
        let (e, at) = match self {
            Self::Final(e) => return e,
            Self::Send(e, at) => (e, at),
        };
        let (host, action) = (host.to_owned(), action.to_string());
        let place = at.authority();
        let via = if host == place || host == at.host || host == "docker.io" {
            String::new()
        } else {
            format!("{}: ", at.host_port())
        };
        match e {
            SendError::File(text) => Error::Internal(text),
            SendError::Connect(e) if e.forbidden => Error::Forbidden(format!("{action} at {host}: {e}")),
            SendError::Connect(e) => {
                let reason = format!("{via}{}{}", e.text, remedy(client, &e, &at));
                if e.late {
                    Error::TimedOut { host, action, attempts, reason }
                } else {
                    Error::Unreachable { host, action, attempts, reason }
                }
            }
            SendError::Broken(reason) => {
                Error::Unreachable { host, action, attempts, reason: format!("{via}{reason}") }
            }
            SendError::Late(reason) => {
                Error::TimedOut { host, action, attempts, reason: format!("{via}{reason}") }
            }
        }
    }
}

/// What a person can do about it.
fn remedy(client: &Inner, e: &ConnectError, at: &Origin) -> String {
    let place = at.authority();
    if e.plain {
        return format!("; to use {place} without TLS, add it to insecure-registries");
    }
    match client.config.certs_dirs.first() {
        Some(dir) if e.text.contains("unknown authority") => {
            format!("; put the authority's certificate into {}/{place}/ca.crt", dir.display())
        }
        _ => String::new(),
    }
}

/// Why a body is not there as a whole.
#[derive(Debug)]
pub(crate) enum BodyError {
    TooLong(u64),
    Broken(String),
    Late(Duration),
}

impl BodyError {
    pub(crate) fn into_error(self, host: &str, action: &(dyn Display + Sync)) -> Error {
        let (host, action) = (host.to_owned(), action.to_string());
        match self {
            Self::TooLong(limit) => {
                Error::TooLarge(format!("{action} at {host}: the answer is longer than {limit} bytes"))
            }
            Self::Broken(reason) => Error::Unreachable { host, action, attempts: 1, reason },
            Self::Late(limit) => {
                let reason = format!("the answer was not complete within {} s", limit.as_secs_f32());
                Error::TimedOut { host, action, attempts: 1, reason }
            }
        }
    }
}

/// A document as a whole: at most `limit` bytes, within the time for one.
pub(crate) async fn read_body(body: Incoming, limits: &Limits, limit: u64) -> Result<Bytes, BodyError> {
    let read = async {
        let mut body = body;
        let mut out = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| BodyError::Broken(broken_words(&e)))?;
            let Ok(data) = frame.into_data() else { continue };
            if (out.len() + data.len()) as u64 > limit {
                return Err(BodyError::TooLong(limit));
            }
            out.extend_from_slice(&data);
        }
        Ok(out.freeze())
    };
    tokio::time::timeout(limits.document, read).await.unwrap_or(Err(BodyError::Late(limits.document)))
}

/// Reads what is left of an answer if that is little, so that its connection can be used again.
pub(crate) async fn drain(mut body: Incoming) {
    let read = async {
        let mut left = MAX_REFUSAL;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |d| d.len() as u64));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN, read).await;
}

/// A document that is read as a whole.
pub(crate) struct Get<'a> {
    pub(crate) target: Target,
    /// `Accept`; empty for none.
    pub(crate) accept: &'a [&'static str],
    pub(crate) scopes: &'a Scopes,
    pub(crate) credentials: &'a Credentials,
    pub(crate) action: &'a (dyn Display + Sync),
    /// Bytes.
    pub(crate) limit: u64,
    pub(crate) attempts: u32,
}

/// A document that came.
pub(crate) struct Got {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Inner {
    /// Gets a document; again where its body broke off.
    pub(crate) async fn document(&self, at: &Endpoint, get: Get<'_>) -> Result<Got> {
        let limits = &self.config.limits;
        let mut outgoing = bare(Method::GET, limits);
        for accept in get.accept {
            outgoing.headers.append(ACCEPT, HeaderValue::from_static(accept));
        }
        let mut retry = Retry::new(limits, get.attempts);
        loop {
            let call = Call {
                target: get.target.clone(),
                outgoing: outgoing.clone(),
                scopes: get.scopes,
                credentials: get.credentials,
                action: get.action,
                attempts: get.attempts,
                unanswered: false,
                progress: None,
            };
            let answer = self.call(at, call).await?.expect(self, get.action, &[StatusCode::OK]).await?;
            let (url, host) = (answer.url.clone(), answer.url.origin.authority());
            let (parts, body) = answer.response.into_parts();
            match read_body(body, limits, get.limit).await {
                Ok(bytes) => return Ok(Got { url, headers: parts.headers, bytes }),
                Err(BodyError::Broken(_)) if retry.again(None).await => {}
                Err(BodyError::Broken(reason)) => {
                    let (action, attempts) = (get.action.to_string(), retry.made);
                    return Err(Error::Unreachable { host, action, attempts, reason });
                }
                Err(other) => return Err(other.into_error(&host, get.action)),
            }
        }
    }
}
