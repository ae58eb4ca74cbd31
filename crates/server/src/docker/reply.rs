//! Answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use longshore_api::{ApiVersion, ErrorBody};
use serde::Serialize;

use crate::errors::ApiError;

/// Why a streamed body broke off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;
pub(crate) type Reply = Response<Body>;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
pub(crate) const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");
pub(crate) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
pub(crate) const RAW_STREAM: HeaderValue = HeaderValue::from_static("application/vnd.docker.raw-stream");
pub(crate) const MULTIPLEXED: HeaderValue =
    HeaderValue::from_static("application/vnd.docker.multiplexed-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

fn never(e: Infallible) -> BodyError {
    match e {}
}

/// A status and nothing else.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Empty::new().map_err(never).boxed_unsync());
    *reply.status_mut() = status;
    reply
}

fn full(status: StatusCode, kind: HeaderValue, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)).map_err(never).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

/// A JSON document.
pub(crate) fn json_status(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            full(status, JSON, body)
        }
        Err(e) => error(&ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("encode the answer: {e}"))),
    }
}

/// A JSON document with status 200.
pub(crate) fn json(value: &impl Serialize) -> Reply {
    json_status(StatusCode::OK, value)
}

/// Plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Reply {
    full(status, TEXT, body.into().into_bytes())
}

/// What a failed request gets.
pub(crate) fn error(e: &ApiError) -> Reply {
    match e.status {
        StatusCode::NOT_MODIFIED => empty(e.status),
        status => json_status(status, &ErrorBody { message: e.message.clone() }),
    }
}

/// A body that comes in pieces. An error breaks the connection, so that the client sees that the
/// body is not whole.
pub(crate) fn stream<S, E>(kind: HeaderValue, pieces: S) -> Reply
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<BodyError> + 'static,
{
    let body = StreamBody::new(pieces.map_ok(Frame::data).map_err(Into::into)).boxed_unsync();
    let mut reply = Response::new(body);
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

/// A value as a line of a stream of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.extend_from_slice(b"\r\n");
    Bytes::from(line)
}

/// Headers that every answer has.
pub(crate) fn finish(mut reply: Reply, server: &HeaderValue) -> Reply {
    let newest = HeaderValue::try_from(ApiVersion::MAX.to_string());
    let headers = reply.headers_mut();
    if let Ok(newest) = newest {
        headers.insert(HeaderName::from_static("api-version"), newest);
    }
    headers.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
    headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
    headers.insert(hyper::header::SERVER, server.clone());
    reply
}
