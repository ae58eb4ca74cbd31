//! Requests' bodies: JSON, which is small and read whole, and archives, which are streamed.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::{BodyExt, BodyStream};
use hyper::HeaderMap;
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use longshore_api::json;
use longshore_oci::Kind;
use serde::de::DeserializeOwned;

use crate::ServerConfig;
use crate::errors::ApiError;

/// Reads a JSON body; `None` when there is none at all.
pub(crate) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Incoming,
    config: &ServerConfig,
) -> Result<Option<T>, ApiError> {
    let declared_empty = body.size_hint().exact() == Some(0);
    check_json_type(headers, declared_empty)?;
    if declared_empty {
        return Ok(None);
    }
    let bytes = read_all(body, config).await?;
    Ok(Some(json::from_slice(&bytes)?))
}

/// Reads a whole body, within the limits of size and time.
pub(crate) async fn read_all(body: Incoming, config: &ServerConfig) -> Result<Bytes, ApiError> {
    read_limited(body, config.max_json_body, config).await
}

/// The same with another limit of size, in bytes.
pub(crate) async fn read_limited(
    mut body: Incoming,
    limit: usize,
    config: &ServerConfig,
) -> Result<Bytes, ApiError> {
    let too_large =
        || ApiError::of(Kind::TooLarge, format!("the request's body is larger than {limit} bytes"));
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let whole = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| ApiError::invalid(format!("read the request's body: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    match tokio::time::timeout(config.body_timeout, whole).await {
        Ok(done) => done,
        Err(_) => Err(ApiError::new(hyper::StatusCode::REQUEST_TIMEOUT, "the request's body took too long")),
    }
}

/// Checks that a body calls itself JSON, in the API's words.
pub(crate) fn check_json_type(headers: &HeaderMap, empty: bool) -> Result<(), ApiError> {
    let given = headers.get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let given = given.unwrap_or_default();
    if given.is_empty() && empty {
        return Ok(());
    }
    let kind = given.split(';').next().unwrap_or_default().trim();
    match kind {
        "" => Err(ApiError::invalid(format!("malformed Content-Type header ({given}): mime: no media type"))),
        kind if kind.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(ApiError::invalid(format!(
            "unsupported Content-Type header ({given}): must be 'application/json'"
        ))),
    }
}

/// A body as a stream that fails when nothing comes for too long.
pub(crate) fn upload(body: Incoming, idle: Duration) -> BoxStream<'static, io::Result<Bytes>> {
    let pieces = futures_util::stream::unfold(Some(BodyStream::new(body)), move |state| async move {
        let mut body = state?;
        loop {
            let next = match tokio::time::timeout(idle, body.next()).await {
                Ok(next) => next?,
                Err(_) => {
                    let e = io::Error::new(io::ErrorKind::TimedOut, "the client stopped sending");
                    return Some((Err(e), None));
                }
            };
            match next {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some((Ok(data), Some(body))),
                    // Trailers.
                    Err(_) => continue,
                },
                Err(e) => return Some((Err(io::Error::other(e)), None)),
            }
        }
    });
    pieces.boxed()
}

#[cfg(test)]
mod tests {
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use longshore_api::ExecStart;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What reading a body answers: `ok`, `none`, or the refusal.
    async fn read(head: &str, body: &[u8]) -> String {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let service = service_fn(|request: hyper::Request<Incoming>| async move {
            let config = ServerConfig {
                max_json_body: 1000,
                body_timeout: Duration::from_millis(200),
                ..ServerConfig::default()
            };
            let (parts, body) = request.into_parts();
            let text = match read_json::<ExecStart>(&parts.headers, body, &config).await {
                Ok(Some(_)) => "ok".to_owned(),
                Ok(None) => "none".to_owned(),
                Err(e) => format!("{} {e}", e.status.as_u16()),
            };
            Ok::<_, std::convert::Infallible>(hyper::Response::new(text))
        });
        let serving = hyper::server::conn::http1::Builder::new();
        let serving = tokio::spawn(serving.serve_connection(TokioIo::new(server), service));
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(body).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        // A body that never came is no clean end.
        let _ = serving.await.unwrap();
        answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn bodies_are_json_or_nothing() {
        assert_eq!(read("", b"").await, "none");
        assert_eq!(
            read("Content-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n", b"{}").await,
            "ok"
        );
        let text = read("Content-Type: text/plain\r\nContent-Length: 2\r\n", b"{}").await;
        assert_eq!(text, "400 unsupported Content-Type header (text/plain): must be 'application/json'");
        let text = read("Content-Length: 2\r\n", b"{}").await;
        assert_eq!(text, "400 malformed Content-Type header (): mime: no media type");
        let text = read("Content-Type: application/json\r\nContent-Length: 4\r\n", b"{bad").await;
        assert_eq!(
            text,
            "400 invalid JSON: invalid character 'b' looking for beginning of object key string"
        );
        let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(read(chunked, b"0\r\n\r\n").await, "400 invalid JSON: got EOF while reading request body");
    }

    #[tokio::test]
    async fn atk_36_bodies_over_the_limit_are_refused_before_anything() {
        let large = "413 the request's body is larger than 1000 bytes";
        let declared = "Content-Type: application/json\r\nContent-Length: 999999999999\r\n";
        assert_eq!(read(declared, b"{}").await, large);
        let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
        let body = format!("3e9\r\n{}\r\n0\r\n\r\n", " ".repeat(1001));
        assert_eq!(read(chunked, body.as_bytes()).await, large);
        let slow = "Content-Type: application/json\r\nContent-Length: 10\r\n";
        assert_eq!(read(slow, b"{").await, "408 the request's body took too long");
    }
}
